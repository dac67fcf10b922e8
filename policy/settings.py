"""Every setting in one place: default, unit, meaning, and what is refused as nonsense.

The values come from the command line and the environment (``cli.settings`` reads them); here they are only
described and checked.  A setting ``smtp_routes`` is the option ``--smtp-routes`` and the variable
``MAILCORDON_SMTP_ROUTES``.
"""

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from policy.addresses import hostname
from policy.providers import NOBODY
from policy.retries import PLAN_S
from policy.unsubscribing import flaw_of_base


class WrongSetting(ValueError):  # noqa: N818 - it is what it says, not a failure of ours
    """A value that cannot be meant; the message names the setting and the fix."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host and a port, written ``host:port`` or ``[::1]:port``."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def endpoint(text: str) -> Endpoint:
    """Read ``host:port``."""
    host, colon, port = text.strip().rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or not 0 <= int(port) <= 65535:
        raise ValueError(f"expected host:port such as 127.0.0.1:2525, got {text!r}")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError(f"an IPv6 address stands in brackets, such as [::1]:2525; got {text!r}")
    return Endpoint(host.strip("[]"), int(port))


@dataclass(frozen=True, slots=True)
class Proxy:
    """What connections leave through: a SOCKS5 proxy, or a HAProxy that takes PROXY protocol version 2."""

    kind: Literal["socks5", "haproxy2"]
    where: Endpoint

    def __str__(self) -> str:
        return f"{self.kind}://{self.where}"


def proxy(text: str) -> Proxy:
    """Read ``socks5://host:port`` or ``haproxy2://host:port``."""
    kind, _, where = text.strip().partition("://")
    if "@" in where:
        raise ValueError("user and password belong into the file that egress_proxy_auth_file names, never into a URL")
    match kind:
        case "socks5" | "haproxy2":
            return Proxy(kind, endpoint(where.rstrip("/")))
        case _:
            raise ValueError(f"expected socks5://host:port or haproxy2://host:port, got {text!r}")


@dataclass(frozen=True, slots=True)
class Relay:
    """A mail server that takes all our mail; ``implicit_tls``: TLS from the first byte, as on port 465."""

    where: Endpoint
    implicit_tls: bool = False

    def __str__(self) -> str:
        return f"{'smtps' if self.implicit_tls else 'smtp'}://{self.where}"


def relay(text: str) -> Relay:
    """Read ``mail.example:587``, ``smtp://mail.example:587`` or ``smtps://mail.example:465``."""
    scheme, slashes, where = text.strip().rpartition("://")
    if "@" in where:
        raise ValueError("user and password belong into the file that smarthost_auth_file names, never into a URL")
    if slashes and scheme not in {"smtp", "smtps"}:
        raise ValueError(f"expected smtp://host:port or smtps://host:port, got {text!r}")
    return Relay(endpoint(where.rstrip("/")), implicit_tls=scheme == "smtps")


def addresses(text: str) -> tuple[str, ...]:
    """Read ``192.0.2.7`` or ``192.0.2.7,2001:db8::7``: at most one address of each kind."""
    found: dict[int, str] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        address = ipaddress.ip_address(part.strip("[]"))
        if address.version in found:
            raise ValueError(f"expected at most one IPv4 and one IPv6 address, got {text!r}")
        found[address.version] = str(address)
    return tuple(found.values())


def routes(text: str) -> dict[str, Endpoint]:
    """Read ``*=127.0.0.1:2525,example.com=127.0.0.1:2526``: where mail for a domain goes instead of its MX."""
    found: dict[str, Endpoint] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        domain, equals, target = part.partition("=")
        if not equals or not domain.strip():
            raise ValueError(f"expected DOMAIN=HOST:PORT, comma separated, got {part!r}")
        found[domain.strip().lower()] = endpoint(target)
    return found


def pairs(text: str) -> dict[str, str]:
    """Read ``gmail.example=google,web.example=gmx``."""
    found: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, equals, value = part.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise ValueError(f"expected NAME=VALUE, comma separated, got {part!r}")
        found[name.strip().lower()] = value.strip()
    return found


def names(text: str) -> tuple[str, ...]:
    """Read a comma separated list of names."""
    return tuple(piece.strip().lower() for piece in text.split(",") if piece.strip())


def domains(text: str) -> tuple[str, ...]:
    """Read a comma separated list of domains."""
    found = [(piece, hostname(piece)) for piece in names(text)]
    for piece, domain in found:
        if domain is None:
            raise ValueError(f"expected domains such as example.com, without @ or *, got {piece!r}")
    return tuple(domain for _, domain in found if domain is not None)


def loops(text: str) -> tuple[str, ...]:
    """Read ``yahoo,microsoft``, or ``+example,-yahoo``, or ``none``: see :func:`policy.providers.loops_of`."""
    found = tuple(piece.strip() for piece in text.split(",") if piece.strip())
    signed = [word for word in found if word[0] in "+-"]
    bare = [word[1:] if word in signed else word for word in found]
    if signed and len(signed) < len(found):
        raise ValueError(f"expected names alone, or + or - before each of them, got {text!r}")
    if not all(bare) or len(set(bare)) < len(bare) or (NOBODY in bare and found != (NOBODY,)):
        raise ValueError(f"expected providers such as yahoo,microsoft, each once, or {NOBODY} alone, got {text!r}")
    return found


def pauses(text: str) -> tuple[int, ...]:
    """Read ``300,900,1800``: 1 to 50 pauses of 1 second to 7 days."""
    try:
        found = tuple(int(piece) for piece in text.split(","))
    except ValueError:
        raise ValueError(f"expected whole seconds, comma separated, such as 300,900,3600; got {text!r}") from None
    if len(found) > 50 or not all(1 <= one <= 7 * 86_400 for one in found):
        raise ValueError(f"expected at most 50 pauses of 1 to 604800 seconds, got {text!r}")
    return found


def _link_base(text: str) -> str:
    flaw = flaw_of_base(text)
    if flaw is not None:
        raise ValueError(flaw)
    return text


def _flag(text: str) -> bool:
    known = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    try:
        return known[text.strip().lower()]
    except KeyError:
        raise ValueError(f"expected true or false, got {text!r}") from None


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ValueError(f"expected a whole number, got {text!r}") from None
        if not low <= value <= high:
            raise ValueError(f"expected {low} to {high}, got {value}")
        return value

    return read


def _one_of(*known: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in known:
            raise ValueError(f"expected one of {', '.join(known)}, got {text!r}")
        return text

    return read


def _setting(default: Any, read: Callable[[str], Any], meaning: str, unit: str = "") -> Any:  # Any: field() is typed so
    metadata = {"read": read, "meaning": meaning, "unit": unit, "default": default}
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that an operator can turn, with defaults that are safe on one machine."""

    kafka: str | None = _setting(None, str, "Kafka bootstrap servers; unset starts the embedded broker", "host:port,…")
    kafka_tls: bool = _setting(False, _flag, "is Kafka spoken to over TLS?  A CA or a certificate for it means yes")
    kafka_ca_file: Path | None = _setting(
        None, Path, "certificate authorities of Kafka instead of the system's, PEM", "path"
    )
    kafka_cert_file: Path | None = _setting(
        None, Path, "our certificate for Kafka with its chain, PEM; read again at each new connection", "path"
    )
    kafka_key_file: Path | None = _setting(None, Path, "key of kafka_cert_file, PEM, without a passphrase", "path")
    kafka_mechanism: str | None = _setting(
        None, _one_of("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"), "how we log in to Kafka (SASL); unset: not at all"
    )
    kafka_user: str | None = _setting(None, str, "whom kafka_mechanism logs in")
    kafka_password_file: Path | None = _setting(None, Path, "the password of kafka_user, in one line", "path")
    data: Path | None = _setting(None, Path, "folder for data and cache; unset takes the user's cache folder", "path")
    secret_file: Path | None = _setting(
        None, Path, "keys for address hashes and signed return paths; unset makes one in the data folder", "path"
    )
    dkim_folder: Path | None = _setting(
        None, Path, "DKIM keys, DOMAIN/SELECTOR.pem; unset takes the folder dkim beside the secret file", "path"
    )
    backend: str = _setting("process", _one_of("process", "kubernetes"), "where senders run")
    smtp_routes: Mapping[str, Endpoint] = _setting(
        {}, routes, "fixed next hops instead of MX look-up", "domain=host:port,…"
    )
    allow_private_mx: bool = _setting(
        False, _flag, "may mail go to loopback and private addresses found by MX look-up?"
    )
    providers: Mapping[str, str] = _setting({}, pairs, "more domains of mailbox providers", "domain=provider,…")
    feedback_loops: tuple[str, ...] = _setting(
        (),
        loops,
        "who passes complaints on to you: +NAME and -NAME change what is shipped, names alone replace it; none: nobody",
        "provider,…",
    )
    shaping_file: Path | None = _setting(
        None, Path, "own limits per provider, TOML, laid over policy/shaping.toml", "path"
    )
    rules_file: Path | None = _setting(
        None, Path, "own rules for replies, TOML, asked before policy/replies.toml", "path"
    )
    own_domains: tuple[str, ...] = _setting(
        (), names, "domains the return path takes mail for, beside the campaigns' return path domains", "domain,…"
    )
    trap_domains: tuple[str, ...] = _setting(
        (), names, "own pristine trap domains: mail that reaches the return path for them is a trap hit", "domain,…"
    )
    allow_domains: tuple[str, ...] = _setting(
        (), domains, "the only domains that get mail, with all below them; unset: all", "domain,…"
    )
    deny_domains: tuple[str, ...] = _setting((), domains, "domains that get no mail, with all below them", "domain,…")
    web: Endpoint = _setting(
        Endpoint("127.0.0.1", 6066), endpoint, "where the worker's web server listens", "host:port"
    )
    controller_web: Endpoint = _setting(
        Endpoint("127.0.0.1", 6067), endpoint, "where the controller's web server listens", "host:port"
    )
    return_path: Endpoint = _setting(
        Endpoint("127.0.0.1", 2600), endpoint, "where the return path listens for SMTP", "host:port"
    )
    return_path_web: Endpoint = _setting(
        Endpoint("127.0.0.1", 6068), endpoint, "where the return path serves metrics and health", "host:port"
    )
    unsubscribe_url: str | None = _setting(
        None,
        _link_base,
        "what unsubscribe links begin with, for campaigns that are applied without one of their own",
        "https://host/path",
    )
    unsubscribe_web: Endpoint | None = _setting(
        None, endpoint, "where the return path serves unsubscribe links; unset serves none", "host:port"
    )
    unsubscribe_certificate: Path | None = _setting(
        None, Path, "certificate of unsubscribe_web with its chain, PEM; read again when it changes", "path"
    )
    unsubscribe_key: Path | None = _setting(None, Path, "key of unsubscribe_certificate, PEM", "path")
    unsubscribe_plain_http: bool = _setting(
        False, _flag, "is unsubscribe_web plain HTTP, behind something that ends TLS and writes X-Forwarded-For?"
    )
    parsers: int = _setting(2, _whole(1, 64), "processes in which the return path and imports read what strangers send")
    parser_memory_mib: int = _setting(
        64, _whole(16, 4096), "memory that reading one message may take, beyond what an idle parser has", "MiB"
    )
    parser_s: int = _setting(5, _whole(1, 15), "time that reading one message may take", "seconds")
    webhooks: Endpoint | None = _setting(
        None, endpoint, "where the return path takes webhooks of sending services; unset takes none", "host:port"
    )
    webhooks_file: Path | None = _setting(
        None, Path, "who may post webhooks, and the server's certificate, TOML", "path"
    )
    sender_web: Endpoint = _setting(
        Endpoint("127.0.0.1", 9100),
        endpoint,
        "where a sender serves metrics and health; port 0 takes a free one",
        "host:port",
    )
    hostname: str | None = _setting(
        None,
        str,
        "name in EHLO and in the greeting; unset takes the PTR of a public source address, else the machine's name",
    )
    bind: tuple[str, ...] = _setting(
        (), addresses, "source addresses of outgoing SMTP connections, one IPv4 and one IPv6", "IP address,…"
    )
    egress_address: tuple[str, ...] = _setting(
        (),
        addresses,
        "addresses that mail servers see, where NAT or a proxy makes them others than ours; haproxy2 asks for them",
        "IP address,…",
    )
    egress_seen_by: Endpoint | None = _setting(
        None,
        endpoint,
        "a server of ours that tells in its answer to EHLO which address it sees, as the return path does; a sender "
        "sends only while that is its egress_address",
        "host:port",
    )
    egress_proxy: Proxy | None = _setting(
        None, proxy, "what SMTP connections leave through; unset connects directly", "socks5:// or haproxy2://host:port"
    )
    egress_proxy_auth_file: Path | None = _setting(
        None, Path, "user:password for the SOCKS5 proxy, in one line or two", "path"
    )
    egress_check: str = _setting(
        "require",
        _one_of("require", "warn", "off"),
        "must the EHLO name be the PTR of a public source address before a sender takes mail?",
    )
    smarthost: Relay | None = _setting(
        None, relay, "a relay that takes all mail instead of MX look-up", "smtp:// or smtps://host:port"
    )
    smarthost_auth_file: Path | None = _setting(
        None, Path, "user:password for the smarthost, in one line or two; makes TLS with a valid name required", "path"
    )
    smarthost_ca_file: Path | None = _setting(
        None, Path, "certificate authorities for the smarthost instead of the system's", "path"
    )
    mta_sts: bool = _setting(True, _flag, "are MTA-STS policies of recipients' domains looked up and obeyed?")
    dane: str = _setting(
        "auto",
        _one_of("auto", "off"),
        "DANE where DNSSEC-validated answers come from a name server on this machine or a trusted one",
    )
    trust_resolver: bool = _setting(
        False,
        _flag,
        "is the path to name servers on other machines safe enough to believe that they validated (AD bit)?",
    )
    tls_ca_file: Path | None = _setting(
        None, Path, "certificate authorities of mail servers and policy hosts, beside the system's", "path"
    )
    partitions: int = _setting(4, _whole(1, 1000), "partitions of the shared topics; fixed once they exist")
    outbound_partitions: int = _setting(
        4, _whole(1, 100), "partitions of a campaign's topics: its most sender replicas"
    )
    replication: int = _setting(1, _whole(1, 9), "copies of each partition; 3 in production")
    deaf_after_s: int = _setting(5, _whole(1, 300), "a sender that cannot hear mail.control so long stops", "seconds")
    grace_s: int = _setting(20, _whole(1, 3600), "time to finish what is in flight when told to stop", "seconds")
    connections: int = _setting(20, _whole(1, 1000), "most SMTP connections of one sender")
    retries: tuple[int, ...] = _setting(
        PLAN_S,
        pauses,
        "pauses before a deferred message is tried again, the last one repeated; shorter for mail that is soon useless",
        "seconds,…",
    )
    isolate_percent: int = _setting(
        20, _whole(0, 100), "most campaigns that the policy isolates within an hour, of all campaigns", "per cent"
    )
    isolate_at_least: int = _setting(3, _whole(0, 10_000), "campaigns that it may isolate within an hour all the same")
    hard_suppression_days: int = _setting(
        0, _whole(0, 36_500), "how long an address that bounced as dead gets no mail; 0: until that is lifted", "days"
    )
    soft_suppression_days: int = _setting(
        90, _whole(1, 36_500), "how long an address gets no mail after soft failures in several campaigns", "days"
    )
    namespace: str = _setting("mailcordon", str, "Kubernetes namespace of the senders")
    image: str = _setting("mailcordon:0.1.0", str, "container image of the senders")
    log_level: str = _setting("info", _one_of("debug", "info", "warning", "error"), "what is logged")
    log_format: str = _setting("text", _one_of("text", "json"), "how it is logged")
    exit_with: int = _setting(0, _whole(0, 2**31), "end cleanly when this process is gone; 0 for none", "process id")


@dataclass(frozen=True, slots=True)
class Described:
    """One setting as ``mailcordon settings`` prints it."""

    name: str
    value: str
    origin: str
    unit: str
    meaning: str
    default: str


def read(values: Mapping[str, tuple[str, str]]) -> Settings:
    """Build settings from texts by name, each with its origin; nonsense raises :class:`WrongSetting`."""
    read_values: dict[str, Any] = {}  # Any: each reader has its own type
    for known in fields(Settings):
        if known.name not in values:
            continue
        text, origin = values[known.name]
        try:
            read_values[known.name] = known.metadata["read"](text)
        except ValueError as wrong:
            raise WrongSetting(f"{origin}: {wrong}") from wrong
    return Settings(**read_values)


def describe(settings: Settings, values: Mapping[str, tuple[str, str]]) -> list[Described]:
    """Every setting with its value, where it came from, unit and meaning."""
    return [
        Described(
            name=known.name,
            value=shown(getattr(settings, known.name)),
            origin=values[known.name][1] if known.name in values else "default",
            unit=known.metadata["unit"],
            meaning=known.metadata["meaning"],
            default=shown(known.metadata["default"]),
        )
        for known in fields(Settings)
    ]


def shown(value: object) -> str:
    """A setting's value as text that can be read back."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case tuple():
            return ",".join(map(str, value))
        case Mapping():
            return ",".join(f"{name}={one}" for name, one in value.items())
        case _:
            return str(value)
