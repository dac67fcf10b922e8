"""Abuse reports of mailbox providers (RFC 5965): who complained about which message.

The recipient is often redacted, so the message is found by what only we can have written into it, wherever the report
or the returned mail repeats it.  Reports come without one of their three parts, with the machine's part as plain text,
and with the returned mail pasted into a text; they are read all the same.
"""

import ipaddress
import re
from collections.abc import Iterator

from smtp.clues import clues_in, milliseconds
from smtp.dsn import RETURNED_TYPES, STATUS_TYPES, bare, returned_fields
from smtp.findings import Finding, Report, Unclear, clean
from smtp.mime import Fields, Message, Part, TooComplexError, read_fields

REPORT_TYPE = "message/feedback-report"
MAX_INCIDENTS = 1_000_000

_TYPE_FIELD = re.compile(r"^[ \t]{0,8}Feedback-Type[ \t]{0,8}:", re.IGNORECASE | re.MULTILINE)
_OTHER_FIELDS = frozenset(
    {"user-agent", "version", "original-mail-from", "original-rcpt-to", "arrival-date", "received-date", "source-ip"}
)
_FIELDS_OF_MAIL = frozenset(
    {"received", "return-path", "message-id", "from", "subject", "date", "dkim-signature", "list-unsubscribe"}
)
_ENOUGH_FIELDS = 3
_BLANK_LINES = re.compile(r"\n[ \t]{0,20}\n")
_MAX_BLOCKS = 60
_PASTED_TYPES = ("text/plain", "application/octet-stream", "message/partial", REPORT_TYPE)


def findings(message: Message) -> list[Finding] | None:
    """What the message says as a feedback report; None when it has no such part."""
    report = _report_in(message)
    if report is None:
        return None
    original = original_in(message)
    clues = clues_in(original, report=report, around=message.fields)
    feedback_type = clean(report.get("feedback-type") or "", 40).lower().replace("_", "-")
    if not feedback_type:
        return [Unclear(reason="unknown_feedback_type", explain="a report without Feedback-Type", clues=clues)]
    named = report.get("original-rcpt-to") or report.get("removal-recipient") or original.get("to") or ""
    return [
        Report(
            type=feedback_type,
            recipient=bare(named) or None,
            source_ip=ip_address(report.get("source-ip")),
            clues=clues,
            incidents=_incidents(report.get("incidents")),
            arrived_at=milliseconds(report.get("arrival-date") or report.get("received-date")),
            domain=clean(report.get("reported-domain") or "", 253).lower() or None,
        )
    ]


def original_in(message: Message) -> Fields:
    """The header fields of the mail that a report is about: its own part, or what is pasted into a text."""
    returned = message.first(*RETURNED_TYPES)
    if returned is not None and (fields := returned_fields(returned)).pairs:
        return fields
    for part in message.parts:
        if part.content_type in _PASTED_TYPES:
            for fields in _blocks(part):
                if sum(name in _FIELDS_OF_MAIL for name in {name for name, _ in fields.pairs}) >= _ENOUGH_FIELDS:
                    return fields
    return Fields()


def ip_address(text: str | None) -> str | None:
    """An IP address as a report writes it, with or without brackets."""
    try:
        return str(ipaddress.ip_address((text or "").strip()[:50].strip("[]").removeprefix("IPv6:")))
    except ValueError:
        return None


def _report_in(message: Message) -> Fields | None:
    part = message.first(REPORT_TYPE)
    if part is not None:
        return read_fields(part.text().strip())
    if message.first(*STATUS_TYPES) is not None:
        return None  # a bounce that quotes a report is a bounce
    for part in message.parts:
        if part.content_type in _PASTED_TYPES and _TYPE_FIELD.search(part.text()):
            for fields in _blocks(part):
                if fields.get("feedback-type") is not None and any(fields.get(name) for name in _OTHER_FIELDS):
                    return fields
    return None


def _blocks(part: Part) -> Iterator[Fields]:
    for block in _BLANK_LINES.split(part.text(), maxsplit=_MAX_BLOCKS):
        try:
            yield read_fields(block.strip("\n"))
        except TooComplexError:  # a text may hold any number of lines with a colon
            continue


def _incidents(text: str | None) -> int:
    digits = (text or "").strip()[:12]
    return min(max(int(digits), 1), MAX_INCIDENTS) if digits.isascii() and digits.isdigit() else 1
