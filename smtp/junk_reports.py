"""Complaints that are no feedback reports: the forms that providers had before RFC 5965, and kept.

Microsoft's JMRP and the complaint mail of Amazon SES return the whole mail below a subject that names our address;
SpamCop writes a letter to people; Apple Mail unsubscribes by a mail with a field of its own.  As everywhere, only what
is signed in the mail that they return makes them believed.
"""

import re

from smtp.arf import ip_address, original_in
from smtp.clues import clues_in, links_in
from smtp.dsn import STATUS_TYPES, bare
from smtp.findings import Finding, Report, clean
from smtp.mime import Fields, Message

_ABOUT = re.compile(r"complaint about message from\s{1,9}\[?([0-9a-f.:]{3,45})", re.IGNORECASE)
_SPAMCOP = re.compile(r"\[SpamCop\s{0,3}\(([0-9a-f.:]{3,45})\)", re.IGNORECASE)
_JMRP_RECIPIENT = "x-hmxmroriginalrecipient"


def findings(message: Message) -> list[Finding]:
    """The complaint, or the wish to leave, that the message is; empty when it is none of these forms."""
    if message.first(*STATUS_TYPES) is not None:
        return []
    if (message.fields.get("x-apple-unsubscribe") or "").strip().lower() == "true":
        return [_leaves(message)]
    subject = clean(message.fields.get("subject") or "", 200)
    about = _ABOUT.search(subject) or _SPAMCOP.search(subject)
    original = original_in(message)
    if not original.pairs or (about is None and original.get(_JMRP_RECIPIENT) is None):
        return []
    return [
        Report(
            type="abuse",
            recipient=bare(original.get(_JMRP_RECIPIENT) or original.get("to") or "") or None,
            source_ip=ip_address(about[1] if about else original.get("x-originating-ip")),
            clues=clues_in(original, around=message.fields),
        )
    ]


def _leaves(message: Message) -> Report:
    fields = message.fields
    told = Fields(tuple(pair for pair in fields.pairs if pair[0] in {"to", "cfbl-feedback-id"}))
    clues = clues_in(told, around=fields)
    links = links_in(fields.get("subject") or "")
    return Report(
        type="opt-out",
        recipient=bare(fields.get("from") or "") or None,
        source_ip=None,
        clues=type(clues)(return_paths=clues.return_paths, references=clues.references, links=links),
    )
