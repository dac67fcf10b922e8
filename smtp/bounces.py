"""Bounces without a readable delivery status: a report inside of a message, and words for people."""

from smtp import dsn, text_bounce
from smtp.findings import Finding, Unclear
from smtp.mime import Message, TooComplexError, read


def findings(message: Message) -> list[Finding]:
    """What the message says as a bounce; empty when it is none.

    A delivery status that names nobody leaves it to the words; when these say nothing either, that is unclear.
    """
    return _wrapped(message) or text_bounce.findings(message) or _hollow(message)


def _wrapped(message: Message) -> list[Finding] | None:
    """A report that a gateway has packed into a message of its own."""
    if message.first(*dsn.STATUS_TYPES) is not None:
        return None
    part = message.first("message/rfc822")
    if part is None or b"multipart/report" not in part.body[:16_384].lower():
        return None
    try:
        return dsn.findings(read(part.body))
    except TooComplexError:
        return None


def _hollow(message: Message) -> list[Finding]:
    if message.first(*dsn.STATUS_TYPES) is None:
        return []
    explain = "the delivery status names no recipient"
    return [Unclear(reason="no_recipient_block", explain=explain, clues=dsn.clues_of(message))]
