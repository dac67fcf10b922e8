"""One attempt at one message, as values: what is handed to a mailer and what it answers.

What is made for every message is a struct, which is made in a tenth of a frozen dataclass's time.

A mailer answers and never raises for what the other side does.  Four answers are possible, and they differ in
what may follow: a :class:`Reply` says what happened, an :class:`Impossible` says that nothing ever will, after
:class:`Withheld` nothing was sent at all, and after :class:`Uncertain` nobody knows.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import msgspec

from smtp.tls.demand import Label

Stage = Literal["resolve", "connect", "ehlo", "tls", "auth", "mail", "rcpt", "data", "dot"]

TEXT_LIMIT = 300
TIMED_OUT = "timed out"

_UNSAFE = re.compile(r"[\x00-\x20\x7f<>]")
_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?!\S)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_ADDRESS = re.compile(r"[^\s<>()\[\]\"',;:=]{1,128}@[^\s<>()\[\]\"',;:=]{1,255}")


class UnsafeEnvelope(ValueError):  # noqa: N818 - it is what it says
    """An address that would end its SMTP command early, or data with bare line ends.  Quotes nothing of it."""


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """A message ready for a server: both addresses as they stand in the commands, and the data.

    ``content`` is the data as it follows DATA: dots stuffed, and its last line ended (RFC 5321 4.5.2).

    Bodies are ASCII, so data that is not has addresses in UTF-8 in its header: it needs SMTPUTF8 (RFC 6531).
    A message that ``must_encrypt`` is never sent in clear.
    """

    sender: bytes
    recipient: bytes
    domain: str
    data: bytes
    content: bytes
    smtputf8: bool = False
    must_encrypt: bool = False

    @classmethod
    def checked(cls, *, sender: str, recipient: str, data: bytes, must_encrypt: bool = False) -> "Envelope":
        """An envelope whose addresses cannot break out of their commands (RFC 5321 4.1.1.2), nor its data out of DATA.

        A CR or LF that stands alone is what servers disagree about, which lets one message smuggle in another.
        """
        for address in (sender, recipient):
            if _UNSAFE.search(address) or "@" not in address:
                raise UnsafeEnvelope("an address with white space, control characters or angle brackets")
        if not data.count(b"\n") == data.count(b"\r") == data.count(b"\r\n"):
            raise UnsafeEnvelope("a message with line ends other than CRLF")
        return cls(
            sender.encode("utf-8"),
            recipient.encode("utf-8"),
            recipient.rpartition("@")[2].lower(),
            data,
            stuffed(data),
            not (sender.isascii() and recipient.isascii() and data.isascii()),
            must_encrypt,
        )


def stuffed(data: bytes) -> bytes:
    """The data as it follows DATA, before the dot that ends it; the very same object when nothing is to be changed."""
    if b"\r\n." in data:
        data = data.replace(b"\r\n.", b"\r\n..")
    if data.startswith(b"."):
        data = b"." + data
    return data if data.endswith(b"\r\n") else data + b"\r\n"


class Reply(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What happened: the answer of a server, or (without ``code``) a connection that failed before the dot.

    ``mx`` is the host that was spoken to, ``ip`` our own address, ``text`` one line without addresses.
    ``tls`` is the version, ``tls_policy`` what was demanded of the connection, and proved unless the stage is ``tls``.
    """

    stage: Stage
    text: str
    code: int | None = None
    enhanced: str | None = None
    mx: str | None = None
    ip: str | None = None
    tls: str | None = None
    tls_policy: Label | None = None
    took_ms: int = 0

    @property
    def accepted(self) -> bool:
        """Has the other side taken over the message?"""
        return self.stage == "dot" and self.code is not None and 200 <= self.code < 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncertain:
    """The connection was lost, or no answer came, after the dot: the message may or may not have been taken."""

    text: str
    mx: str | None = None
    ip: str | None = None
    tls: str | None = None
    tls_policy: Label | None = None
    took_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Impossible:
    """It will never work, and no server had to say so; ``category`` is the class of the result."""

    category: str
    text: str
    mx: str | None = None
    took_ms: int = 0


@dataclass(frozen=True, slots=True)
class Withheld:
    """Nothing was sent, because the last question before MAIL FROM was answered with no, or our own way out failed.

    ``text`` says what failed; such an attempt counts neither for the message nor against the server.
    """

    text: str | None = None


Attempt = Reply | Uncertain | Impossible | Withheld


@dataclass(frozen=True, slots=True)
class Standing:
    """How one group stands; ``suspended`` is the category of the replies for which it gets nothing now.

    ``per_second`` is 0 when there is no limit; ``back_offs`` were made since the start.
    """

    provider: str
    sessions: int
    connections: int
    per_second: float
    suspended: str | None
    back_offs: int


class Mailer(Protocol):
    """Whatever can deliver one message to one recipient."""

    async def send(self, envelope: Envelope, *, go: Callable[[], bool]) -> Attempt:
        """Try once; ``go`` is asked directly before every MAIL FROM."""

    def provider_of(self, domain: str) -> str:
        """Who takes the mail of a domain, as far as it is known."""

    def group_of(self, domain: str) -> str | None:
        """What limits a domain's mail; None while its servers are unknown and :meth:`look_up` should be called."""

    async def look_up(self, domain: str) -> None:
        """Find out where mail for a domain goes; afterwards it has a group."""

    def admit(self, group: str) -> float:
        """Take one message's turn: 0 when it may be sent now, else the seconds after which to ask again."""

    def capacity(self, group: str) -> int:
        """How many of a group's messages are worth being in hand."""

    @property
    def is_alone(self) -> bool:
        """Has all mail so far been for the same group, so that there is nobody to leave room for?"""

    def standings(self) -> Iterable[Standing]:
        """How each group stands, for metrics."""

    def dry_runs(self) -> Mapping[tuple[str, str], int]:
        """How many replies each rule in dry run, and its category, would have decided."""

    def closed_for_s(self, domain: str) -> float:
        """Seconds for which this domain's servers are better left alone; 0 when they may be tried."""

    def limit(self, connections: int) -> None:
        """Open no more connections than these from now on; those that are open are not cut for it."""

    def cut(self) -> None:
        """Cut every connection: what is under way answers at once."""

    async def close(self) -> None:
        """Say goodbye on idle connections and end."""


def enhanced_code(text: str) -> str | None:
    """The enhanced status code at the beginning of a reply (RFC 3463)."""
    found = _ENHANCED.match(text)
    return found[1] if found else None


def shown(text: str) -> str:
    """A reply fit for a record: one line, no control characters, no addresses, at most 300 characters."""
    if text.isascii() and text.isprintable() and "@" not in text:
        return text[:TEXT_LIMIT].strip()
    line = _CONTROL.sub(" ", text[: 4 * TEXT_LIMIT].encode("utf-8", "replace").decode("utf-8")).strip()
    if "@" in line:
        line = _ADDRESS.sub("<address>", line)
    return line[:TEXT_LIMIT]
