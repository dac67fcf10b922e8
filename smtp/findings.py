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
    """Where the message that came back may be recognised: addresses that may be signed return paths, best first."""

    return_paths: tuple[str, ...] = ()
    message_id: str | None = None


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
    """A mailbox provider tells what a user thought of a message (RFC 5965); ``type`` is its Feedback-Type."""

    type: str
    recipient: str | None
    source_ip: str | None
    clues: Clues = Clues()


@dataclass(frozen=True, slots=True)
class AutoReply:
    """A robot answered for a person; nothing bounced."""

    subject: str
    clues: Clues = Clues()


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
