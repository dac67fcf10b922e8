"""What a service's event says, in words that are the same for all services."""

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from smtp.findings import clean

MOST_EVENTS = 1_000
_MOST_TEXT = 1_500
_MOST_PLACE = 65_536

What = Literal["bounce", "delay", "complaint", "not_spam", "unsubscribe", "auto_reply", "noted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened to one recipient of one message.

    ``id`` is the service's own and the same when it is told again.  ``may_be_hard`` is False where the service itself
    says that the address may be good; ``expected`` is the category of the service's word, for texts that say nothing.
    The places hold what may be a proof of ours or a name, best first; ``word`` is the service's word for all of it.
    """

    id: str
    what: What
    raw: bytes
    word: str = ""
    at: int | None = None
    recipient: str | None = None
    code: int | None = None
    enhanced: str | None = None
    text: str = ""
    may_be_hard: bool = True
    expected: str | None = None
    ip: str | None = None
    return_paths: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    message_ids: tuple[str, ...] = ()
    campaigns: tuple[str, ...] = ()
    message_id: str | None = None


@dataclass(frozen=True, slots=True)
class Unread:
    """One event of many that cannot be read; the others can."""

    raw: bytes
    explain: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a whole request is turned away: not believed, not understood, or not to be judged now."""

    why: Literal["forged", "malformed", "later"]
    explain: str


Item = Event | Unread


def millis(text: str | None) -> int | None:
    """A time in ISO 8601 as milliseconds; None for what is none."""
    try:
        found = datetime.fromisoformat((text or "")[:64])
        at = round((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None
    return at if at > 0 else None


def address(text: str | None) -> str | None:
    """An IP address as it is usually written; None for what is none."""
    try:
        return str(ipaddress.ip_address((text or "").strip()[:45]))
    except ValueError:
        return None


def words(*found: object) -> tuple[str, ...]:
    """The texts among what a stranger's JSON holds at some place; a list counts as its items."""
    flat = [one for each in found for one in (each[:20] if isinstance(each, list | tuple) else (each,))]
    return tuple(one[:_MOST_PLACE] for one in flat if isinstance(one, str) and one)


def sentence(text: object) -> str:
    """A stranger's text, made safe to keep; what is no text is none."""
    return clean(text, _MOST_TEXT) if isinstance(text, str) else ""
