"""Robots that answer for people: absence notes and the like.  They are no bounces, whatever numbers they hold."""

import re

from smtp.findings import AutoReply, clean
from smtp.mime import Message

_SUBJECTS = re.compile(
    r"\A\s*(?:(?:re|aw|fwd?|sv)\s*:\s*)?(?:auto(?:matic|matische|-)?[\s-]*(?:reply|response|antwort)"
    r"|out of (?:the )?office|vacation|on leave|abwesen|r[ée]ponse automatique|risposta automatica"
    r"|respuesta autom)",
    re.IGNORECASE,
)
_MARKS = ("x-autoreply", "x-autorespond", "x-autoresponse", "x-auto-reply", "x-vacation")


def finding(message: Message) -> AutoReply | None:
    """The message as an automatic answer (RFC 3834), or None."""
    fields = message.fields
    submitted = (fields.get("auto-submitted") or "no").partition(";")[0].partition("(")[0].strip().lower()
    precedence = (fields.get("precedence") or "").strip().lower()
    subject = clean(fields.get("subject") or "", 200)
    is_automatic = (
        submitted not in {"", "no"}
        or precedence in {"auto_reply", "auto-reply"}
        or any(fields.get(mark) is not None for mark in _MARKS)
        or _SUBJECTS.match(subject) is not None
    )
    return AutoReply(subject=subject) if is_automatic else None
