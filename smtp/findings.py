"""What a message that came back can say, as values; and how a stranger's text is made safe to keep."""

import re
from dataclasses import dataclass
from typing import Literal

TEXT_LIMIT = 300
_LOOKED_AT = 1_500  # characters of a stranger's text that any pattern of ours sees

_ADDRESS = re.compile(r"[^\s<>@()\[\]\"',;:]{1,64}@[^\s<>@()\[\]\"',;:]{1,255}")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_SPACES = re.compile(r"\s+")

Action = Literal["failed", "delayed", "delivered", "relayed", "expanded"]


@dataclass(frozen=True, slots=True)
class Clues:
    """Where the message that came back may be recognised.

    ``return_paths`` are texts that may hold a signed return path, best first; ``links`` may be tokens of unsubscribe
    links; ``message_id`` is the last one of the returned mail, ``references`` are others.  What follows is unsigned:
    ``addressees`` are whom it may have been sent to, ``dated`` is when, in ms, and ``feedback_id`` and
    ``campaign_name`` name a campaign.
    """

    return_paths: tuple[str, ...] = ()
    message_id: str | None = None
    references: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    addressees: tuple[str, ...] = ()
    dated: int | None = None
    feedback_id: str | None = None
    campaign_name: str | None = None


@dataclass(frozen=True, slots=True)
class Bounce:
    """What a server says about one recipient.

    ``code`` and ``enhanced`` are what the remote server answered, as far as the report lets it be known; ``expired``
    means that a queue gave up on a temporary trouble, which says nothing against the address.
    """

    action: Action
    recipient: str | None
    code: int | None
    enhanced: str | None
    text: str
    expired: bool = False
    clues: Clues = Clues()


@dataclass(frozen=True, slots=True)
class Report:
    """A mailbox provider tells what a user thought of a message (RFC 5965); ``type`` is its Feedback-Type.

    ``incidents`` is how many such reports it stands for, ``arrived_at`` when the message came, in ms, and ``domain``
    whom the report is about; all as the reporter says.
    """

    type: str
    recipient: str | None
    source_ip: str | None
    clues: Clues = Clues()
    incidents: int = 1
    arrived_at: int | None = None
    domain: str | None = None


@dataclass(frozen=True, slots=True)
class AutoReply:
    """A robot answered for a person; nothing bounced.

    ``what`` it is: an absence note or the like, a question whether we are human, or a receipt of a help desk.
    """

    subject: str
    clues: Clues = Clues()
    what: Literal["reply", "challenge", "receipt"] = "reply"


@dataclass(frozen=True, slots=True)
class Unclear:
    """Nothing that we know how to read; ``reason`` is for machines, ``explain`` for people."""

    reason: Literal["too_complex", "unrecognised", "no_recipient_block", "unknown_feedback_type"]
    explain: str
    clues: Clues = Clues()


Finding = Bounce | Report | AutoReply | Unclear


def clean(text: str, limit: int = TEXT_LIMIT) -> str:
    """Text of a stranger on one line, without control characters and lone surrogates, cut to ``limit``."""
    printable = _UNPRINTABLE.sub(" ", text[:_LOOKED_AT])
    return _SPACES.sub(" ", printable).strip()[:limit]


def redacted(text: str) -> str:
    """The same text with every mail address in it replaced: replies echo the recipient."""
    return _ADDRESS.sub("address", clean(text, _LOOKED_AT))[:TEXT_LIMIT]
