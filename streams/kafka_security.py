"""How Kafka is spoken to: TLS and SASL, from the settings to what aiokafka and Faust take; nothing else knows.

Bootstrap servers travel through the code as one text.  Those with security are a text, too, that knows its security:
what opens a connection asks :func:`connection` for its arguments, and no other place can forget it.
"""

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from policy.settings import Settings, WrongSetting

if TYPE_CHECKING:
    from faust.auth import Credentials

T = TypeVar("T")

log = structlog.get_logger()

_MOST_BYTES = 1024  # of a password


@dataclass(frozen=True, slots=True)
class Security:
    """What a connection proves and asks for; ``mechanism`` None: no SASL, ``context`` None: no TLS."""

    context: ssl.SSLContext | None
    mechanism: str | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def protocol(self) -> str:
        """Kafka's own name of it."""
        transport = "PLAINTEXT" if self.context is None else "SSL"
        return transport if self.mechanism is None else f"SASL_{transport}"


class Secured(str):
    """Bootstrap servers with the security of connections to them."""

    __slots__ = ("security",)
    security: Security

    def __new__(cls, servers: str, security: Security) -> "Secured":
        """Make a text that also knows how to connect."""
        made = super().__new__(cls, servers)
        made.security = security
        return made


def servers_of(settings: Settings) -> str | None:
    """The Kafka that the settings name, with its security; raises WrongSetting for what cannot be meant or read."""
    security = _security(settings)
    if security is None:
        return settings.kafka or None
    if not settings.kafka:
        raise WrongSetting("kafka_tls and what belongs to it need kafka: the embedded broker has no security")
    return Secured(settings.kafka, security)


def connection(bootstrap: str) -> dict[str, Any]:  # Any: arguments of many types
    """What aiokafka's clients need to know to connect, as arguments."""
    if not isinstance(bootstrap, Secured):
        return {"bootstrap_servers": bootstrap}
    return {"bootstrap_servers": str(bootstrap), **security_arguments(bootstrap)}


def security_arguments(bootstrap: str) -> dict[str, Any]:  # Any: arguments of many types
    """The same without the servers."""
    if not isinstance(bootstrap, Secured):
        return {}
    security = bootstrap.security
    found: dict[str, Any] = {"security_protocol": security.protocol, "ssl_context": security.context}
    if security.mechanism is not None:
        found |= {
            "sasl_mechanism": security.mechanism,
            "sasl_plain_username": security.user,
            "sasl_plain_password": security.password,
        }
    return found


def credentials(bootstrap: str) -> "Credentials | None":
    """The same for a Faust app."""
    if not isinstance(bootstrap, Secured):
        return None
    from faust.auth import SASLCredentials, SSLCredentials  # Faust is heavy, and a sender has none

    security = bootstrap.security
    if security.mechanism is None:
        return SSLCredentials(security.context)
    return SASLCredentials(
        username=security.user,
        password=security.password,
        mechanism=security.mechanism,
        ssl_context=security.context,
    )


def _security(settings: Settings) -> Security | None:
    certificate, key = settings.kafka_cert_file, settings.kafka_key_file
    if (certificate is None) != (key is None):
        raise WrongSetting("kafka_cert_file and kafka_key_file belong together")
    tls = settings.kafka_tls or settings.kafka_ca_file is not None or certificate is not None
    mechanism, user, file = settings.kafka_mechanism, settings.kafka_user, settings.kafka_password_file
    if any((mechanism, user, file)) and not all((mechanism, user, file)):
        raise WrongSetting("kafka_mechanism, kafka_user and kafka_password_file belong together")
    if mechanism == "PLAIN" and not tls:
        raise WrongSetting("kafka_mechanism PLAIN sends the password in the clear; set kafka_tls or kafka_ca_file")
    if not tls and mechanism is None:
        return None
    context = RenewingContext(settings.kafka_ca_file, certificate, key) if tls else None
    return Security(context, mechanism, user, None if file is None else _password(file))


def _password(file: Path) -> str:
    try:
        mode, text = file.stat().st_mode, file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as wrong:
        said = wrong.strerror if isinstance(wrong, OSError) else "it is not UTF-8"
        raise WrongSetting(f"kafka_password_file {file} cannot be read: {said}") from wrong
    if mode & 0o007:
        raise WrongSetting(f"kafka_password_file {file} can be read by everybody; run: chmod o= {file}")
    password = text.removesuffix("\n").removesuffix("\r")
    if not password or "\n" in password or len(password.encode()) > _MOST_BYTES:
        raise WrongSetting(f"kafka_password_file {file} must hold the password alone, in one line")
    return password


class RenewingContext(ssl.SSLContext):
    """A client's TLS context whose every new connection uses its files as they are now.

    aiokafka keeps the context that it was given for as long as it runs, and certificates of a cluster are renewed
    every few weeks.  asyncio and uvloop ask a context for each connection by ``wrap_bio``; that is answered by a
    context of the current files.  A renewal that cannot be used is told, and the files from before stay in force.
    """

    def __new__(cls, ca: Path | None, certificate: Path | None, key: Path | None) -> "RenewingContext":
        """Read the files; raises WrongSetting, which names the one that cannot be used."""
        made = super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)
        made._files = {"kafka_ca_file": ca, "kafka_cert_file": certificate, "kafka_key_file": key}
        made._seen = made._state()
        made._current = made._fresh()
        return made

    _files: dict[str, Path | None]
    _seen: tuple[tuple[int, int, int], ...]
    _current: ssl.SSLContext

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:  # Any: handed through
        """Begin TLS on a new connection."""
        try:
            state = self._state()
            if state != self._seen:
                self._current = self._fresh()
                self._seen = state
                log.info("certificates for Kafka read again")
        except WrongSetting as failed:
            log.error("renewed certificates for Kafka cannot be used, the old ones stay", failure=str(failed))  # noqa: TRY400
        return self._current.wrap_bio(*args, **options)

    def _state(self) -> tuple[tuple[int, int, int], ...]:
        found = [_named(name, file.stat) for name, file in self._files.items() if file is not None]
        return tuple((one.st_ino, one.st_mtime_ns, one.st_size) for one in found)

    def _fresh(self) -> ssl.SSLContext:
        ca, certificate, key = self._files.values()
        context = _named("kafka_ca_file", lambda: ssl.create_default_context(cafile=ca))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if certificate is not None:
            # a key with a passphrase is refused, not asked for
            _named("kafka_cert_file, kafka_key_file", lambda: context.load_cert_chain(certificate, key, password=""))
        return context


def _named(name: str, use: Callable[[], T]) -> T:
    """Use a file; what it raises names the setting."""
    try:
        return use()
    except OSError as failed:  # of which ssl.SSLError is one
        raise WrongSetting(f"{name} cannot be used: {failed}") from failed
