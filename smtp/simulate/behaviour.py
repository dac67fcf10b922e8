"""What a simulated provider does, as data: by the recipient's local part, and by how much a sender asks of it."""

from dataclasses import dataclass
from typing import Literal

Name = Literal[
    "accept", "unknown", "disabled", "full", "grey", "block", "content", "slow", "drop", "dropalways", "late",
    "complain", "trap",
]  # fmt: skip
Stage = Literal["RCPT TO", "final dot", "later"]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What happens to mail for a local part that begins with ``name``."""

    name: Name
    stage: Stage
    explain: str


BEHAVIOURS: tuple[Behaviour, ...] = (
    Behaviour("unknown", "RCPT TO", "550 5.1.1: no such user"),
    Behaviour("disabled", "RCPT TO", "550 5.2.1: the mailbox is switched off"),
    Behaviour("full", "RCPT TO", "452 4.2.2: the mailbox is full, every time"),
    Behaviour("grey", "RCPT TO", "451 4.7.1 for grey_s from the first try, then taken"),
    Behaviour("block", "RCPT TO", "554 5.7.1: the client is blocked"),
    Behaviour("content", "final dot", "550 5.7.1: the content is refused"),
    Behaviour("slow", "final dot", "taken at once, answered after slow_s"),
    Behaviour("drop", "final dot", "taken, closed without a reply; 250 the second time"),
    Behaviour("dropalways", "final dot", "taken, closed without a reply, every time"),
    Behaviour("late", "later", "250; after late_s a DSN comes back: failed 5.1.1"),
    Behaviour("complain", "later", "250; after complain_s an abuse report comes back"),
)
TRAP = Behaviour("trap", "later", "250; the mail is handed on to the return path")

_BY_LENGTH = sorted((one.name for one in BEHAVIOURS), key=len, reverse=True)


def behaviour_of(local_part: str) -> Name:
    """The behaviour that a local part asks for; the longest prefix wins, anything else is accepted."""
    lowered = local_part.lower()
    return next((name for name in _BY_LENGTH if lowered.startswith(name)), "accept")


def table() -> str:
    """The behaviours as lines for a help page; the first one tells click to leave them as they are."""
    lines = ["\b"]
    lines += [f"{one.name + '…':<13}{one.stage:<11}{one.explain}" for one in BEHAVIOURS]
    lines.append(f"{'@trap domain':<13}{TRAP.stage:<11}{TRAP.explain}")
    return "\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much one source address may ask of a provider; None means no bound.

    ``connections`` at once and ``messages_per_s``: beyond, 421 4.7.0 and the connection is closed.
    ``complaints`` of one source address and return path domain: from then on 554 5.7.1 at MAIL FROM.
    """

    connections: int | None = None
    messages_per_s: float | None = None
    complaints: int | None = None


class Traffic:
    """What the source addresses have asked of one provider so far; the time is an argument."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._connections: dict[str, int] = {}
        self._buckets: dict[str, tuple[float, float]] = {}
        self._complaints: dict[tuple[str, str], int] = {}

    def connect(self, ip: str) -> bool:
        """Count a connection; False when it is one too many (it must be released all the same)."""
        self._connections[ip] = self._connections.get(ip, 0) + 1
        return self._load.connections is None or self._connections[ip] <= self._load.connections

    def release(self, ip: str) -> None:
        """A connection has ended."""
        left = self._connections.get(ip, 0) - 1
        if left > 0:
            self._connections[ip] = left
        else:
            self._connections.pop(ip, None)

    def message(self, ip: str, now_ms: int) -> bool:
        """Count a message; False when the second's allowance is used up (a token bucket of one second)."""
        rate = self._load.messages_per_s
        if rate is None:
            return True
        tokens, since = self._buckets.get(ip, (max(rate, 1.0), float(now_ms)))
        tokens = min(max(rate, 1.0), tokens + (now_ms - since) / 1000 * rate)
        granted = tokens >= 1
        self._buckets[ip] = (tokens - 1 if granted else tokens, float(now_ms))
        return granted

    def complain(self, ip: str, domain: str) -> None:
        """A user complained about mail from there."""
        self._complaints[ip, domain] = self._complaints.get((ip, domain), 0) + 1

    def is_listed(self, ip: str, domain: str) -> bool:
        """Whether there were so many complaints that nothing is taken from there any more."""
        limit = self._load.complaints
        return limit is not None and self._complaints.get((ip, domain), 0) >= limit
