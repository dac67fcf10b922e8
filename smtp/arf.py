"""Abuse reports of mailbox providers (RFC 5965): who complained about which message.

The recipient is often redacted, so the message is found by what only we can have written into it: the signed return
path, wherever the report or the returned mail repeats it.
"""

import ipaddress

from smtp.dsn import RETURNED_TYPES, bare, returned_fields
from smtp.findings import Clues, Finding, Report, Unclear, clean
from smtp.mime import Fields, Message, read_fields

REPORT_TYPE = "message/feedback-report"


def findings(message: Message) -> list[Finding] | None:
    """What the message says as a feedback report; None when it has no such part."""
    part = message.first(REPORT_TYPE)
    if part is None:
        return None
    report = read_fields(part.text().strip())
    returned = message.first(*RETURNED_TYPES)
    original = returned_fields(returned) if returned is not None else Fields()
    clues = Clues(
        return_paths=tuple(_signed_places(report, original)),
        message_id=original.get("message-id"),
    )
    feedback_type = clean(report.get("feedback-type") or "", 40).lower()
    if not feedback_type:
        return [Unclear(reason="unknown_feedback_type", explain="a report without Feedback-Type", clues=clues)]
    return [
        Report(
            type=feedback_type,
            recipient=bare(report.get("original-rcpt-to") or original.get("to") or "") or None,
            source_ip=_address(report.get("source-ip")),
            clues=clues,
        )
    ]


def _signed_places(report: Fields, original: Fields) -> list[str]:
    """Every place that may carry our return path, the most trustworthy first; without repeats."""
    places = [
        *original.all("cfbl-feedback-id"),
        *report.all("original-mail-from"),
        *report.all("original-envelope-id"),
        *original.all("return-path"),
        *original.all("x-mailcordon-return-path"),
    ]
    return list(dict.fromkeys(filter(None, map(bare, places[:20]))))


def _address(text: str | None) -> str | None:
    try:
        return str(ipaddress.ip_address((text or "").strip()[:45]))
    except ValueError:
        return None
