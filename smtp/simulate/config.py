"""What is simulated: which providers, where they listen, and how they behave."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from policy.addresses import hostname
from policy.settings import Endpoint
from smtp.simulate.behaviour import Load
from smtp.simulate.texts import Kind

ANY_DOMAIN = "*"
TRAP_DOMAIN = "traps.example"
_A_FREE_PORT = Endpoint("127.0.0.1", 0)
_NO_BOUND = Load()


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One mailbox provider: the domains it has mailboxes for (``*``: any), where it listens (port 0: a free one)."""

    name: str
    kind: Kind
    domains: tuple[str, ...]
    listen: Endpoint = _A_FREE_PORT
    load: Load = _NO_BOUND

    @property
    def hostname(self) -> str:
        """The name in its greeting."""
        return f"mx.{self.name}" if "." in self.name else f"mx.{self.name}.example"


DEFAULT_PROVIDERS: tuple[Provider, ...] = (
    Provider(name="google", kind="google", domains=("gmail.example",)),
    Provider(name="microsoft", kind="microsoft", domains=("outlook.example",)),
    Provider(name="yahoo", kind="yahoo", domains=("yahoo.example",)),
    Provider(name="apple", kind="apple", domains=("icloud.example",)),
    Provider(name="gmx", kind="gmx", domains=("web.example",)),
    Provider(name="other", kind="other", domains=("other.example", ANY_DOMAIN)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything about a set of simulated providers.

    ``logs`` is the folder of their logs.  ``return_path`` is where bounces, complaints and trap mail go, None for
    nowhere.  Times are in seconds; delays vary by a tenth, the same for the same seed.
    """

    logs: Path
    return_path: Endpoint | None = None
    providers: tuple[Provider, ...] = DEFAULT_PROVIDERS
    trap_domains: tuple[str, ...] = (TRAP_DOMAIN,)
    trap_listen: Endpoint = _A_FREE_PORT
    seed: int = 1
    grey_s: float = 5.0
    slow_s: float = 3.0
    late_s: float = 1.0
    complain_s: float = 1.0
    starttls: bool = False
    max_message_bytes: int = 10_485_760

    def everyone(self) -> tuple[Provider, ...]:
        """The providers, and the one that has the trap domains."""
        if not self.trap_domains:
            return self.providers
        traps = Provider(name="traps", kind="other", domains=self.trap_domains, listen=self.trap_listen)
        return (*self.providers, traps)


def listen_by_domain(config: Config, where: Mapping[str, Endpoint]) -> Config:
    """The providers of these domains, each listening where it is said; a domain that nobody has is of its own kind.

    Trap domains are told by ``config.trap_domains``; ``*`` stands for the provider that takes any domain.  Raises
    ValueError for what is no domain.
    """
    known = {domain: one for one in config.providers for domain in one.domains}
    found: dict[str, Provider] = {}
    trap_listen = config.trap_listen
    for domain, listen in where.items():
        if domain != ANY_DOMAIN and hostname(domain) is None:
            raise ValueError(f"{domain!r} is no domain")
        if domain in config.trap_domains:
            trap_listen = listen
            continue
        one = known.get(domain) or Provider(name=domain, kind="other", domains=(domain,))
        found.setdefault(one.name, replace(one, listen=listen))
    return replace(config, providers=tuple(found.values()), trap_listen=trap_listen)


def listen_at(config: Config, host: str, first_port: int, *, load: Load | None = None) -> Config:
    """The same providers on one host, on consecutive ports (or free ones for 0), if given all with the same load."""
    ports = [first_port + number if first_port else 0 for number in range(len(config.providers) + 1)]
    return replace(
        config,
        providers=tuple(
            replace(one, listen=Endpoint(host, port), load=load or one.load)
            for one, port in zip(config.providers, ports, strict=False)
        ),
        trap_listen=Endpoint(host, ports[-1]),
    )
