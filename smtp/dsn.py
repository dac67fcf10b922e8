"""Delivery status notifications (RFC 3464), as the mail servers really write them.

The truth stands in different places: Postfix copies the remote status, Exim always writes 5.0.0 and keeps the reply
in Diagnostic-Code, OpenSMTPD has no Diagnostic-Code at all and says it in the text part.  So the reply text comes
first, then the line of the text part that names the recipient, then Status.
"""

import re

from smtp.findings import Action, Bounce, Clues, Finding, Unclear, clean
from smtp.mime import Fields, Message, Part, read_fields

STATUS_TYPES = ("message/delivery-status", "message/global-delivery-status")
RETURNED_TYPES = ("message/rfc822", "text/rfc822-headers", "message/global", "message/global-headers")
MAX_RECIPIENTS = 100

_ACTIONS: dict[str, Action] = {
    "failed": "failed",
    "delayed": "delayed",
    "delivered": "delivered",
    "relayed": "relayed",
    "expanded": "expanded",
}
_BLANK_LINES = re.compile(r"\n[ \t]{0,20}\n")
_MAX_NOTICE_LINES = 300
_MAX_NOTICE_LINE = 400
_STARTS_WITH_ADDRESS = re.compile(r"\s{0,40}<?([^\s<>@:]{1,64}@[^\s<>@:]{1,255})>?(?::|\s{0,40}\Z)")
_TYPED = re.compile(r"\A\s{0,20}[A-Za-z0-9-]{1,30}\s{0,5};")
_REPLY = re.compile(r"(?:\A|\s)([245]\d\d)(?:[ -]+#?([245]\.\d{1,3}\.\d{1,3}))?(?=[\s:;,-]|\Z)")
_ENHANCED = re.compile(r"(?<![\d.])([245]\.\d{1,3}\.\d{1,3})(?![\d.])")
_REPEATED = re.compile(r"\s[245]\d\d(?:-(?:[245]\.\d{1,3}\.\d{1,3}\s)?|\s[245]\.\d{1,3}\.\d{1,3}\s)")
_EXPIRED = re.compile(
    r"retry time(?:out)? exceeded|retry time not reached|envelope expired|too long in (?:the )?queue"
    r"|in the queue too long|queue lifetime|delivery time expired|message expired",
    re.IGNORECASE,
)
_NO_SUCH_DOMAIN = re.compile(
    r"host or domain name not found|no such domain|domain (?:does not exist|not found)|unknown mail domain",
    re.IGNORECASE,
)
_SUPERSEDED = {"2.0.0", "4.0.0", "5.0.0"}
_CODE_OF_CLASS = {"2": 250, "4": 450, "5": 550}


def findings(message: Message) -> list[Finding] | None:
    """What the message says as a delivery status notification; None when it has no such part.

    Recipients are named as we wrote to them (Original-Recipient), as far as the report says so: a forwarder's address
    is nothing that we know.
    """
    status = message.first(*STATUS_TYPES)
    if status is None:
        return None
    notice = message.first("text/plain")
    told = [line[:_MAX_NOTICE_LINE] for line in (notice.text() if notice else "").split("\n")[:_MAX_NOTICE_LINES]]
    clues = clues_of(message)
    blocks = [read_fields(block) for block in _BLANK_LINES.split(status.text())[: 2 * MAX_RECIPIENTS]]
    recipients = [block for block in blocks if block.get("action") or block.get("final-recipient")][:MAX_RECIPIENTS]
    if not recipients:
        return [Unclear(reason="no_recipient_block", explain="the delivery status names no recipient", clues=clues)]
    return [_bounce(block, told, clues) for block in recipients]


def clues_of(message: Message) -> Clues:
    """Where the returned mail, or what is left of it, names its return path and its Message-ID."""
    returned = message.first(*RETURNED_TYPES)
    if returned is None:
        return Clues()
    fields = returned_fields(returned)
    return Clues(
        return_paths=tuple(bare(one) for one in fields.all("return-path")), message_id=fields.get("message-id")
    )


def returned_fields(part: Part) -> Fields:
    """The header fields of the mail that a report returns."""
    return read_fields(part.text().partition("\n\n")[0])


def bare(address: str) -> str:
    """An address out of ``<…>`` or ``rfc822; …``."""
    without_type = _TYPED.sub("", address, count=1)
    inner = re.search(r"<([^<>]{1,400})>", without_type)
    return (inner[1] if inner else without_type).strip()[:400]


def read_reply(text: str) -> tuple[int | None, str | None, str]:
    """Basic code, enhanced code and text of a reply; continuation prefixes such as ``550-5.7.1`` are dropped."""
    line = clean(text, 1_500)
    found = _REPLY.search(line[:200])
    code, enhanced = (int(found[1]), found[2]) if found else (None, None)
    if enhanced is None:
        alone = _ENHANCED.search(line[:200])
        enhanced = alone[1] if alone else None
    said = line[found.end() :].lstrip(" -:") if found else line
    return code, enhanced, _REPEATED.sub(" ", f" {said}").strip()


def gave_up_waiting(text: str) -> bool:
    """Whether a text says that a queue gave up after trying for long."""
    return _EXPIRED.search(text[:1_500]) is not None


def _bounce(block: Fields, notice: list[str], clues: Clues) -> Bounce:
    final = bare(block.get("final-recipient") or "")
    recipient = bare(block.get("original-recipient") or "") or final or None
    action = _ACTIONS.get((block.get("action") or "").split(" ")[0].strip().lower(), "failed")
    status = _ENHANCED.search(block.get("status") or "")
    diagnostic = _TYPED.sub("", block.get("diagnostic-code") or "", count=1)
    mentioned = _lines_about(final, notice) or _lines_about(recipient, notice)
    code, enhanced, text = read_reply(diagnostic)
    if not diagnostic.strip() or (code is None and enhanced is None and status and status[1] in _SUPERSEDED):
        code, enhanced, text = read_reply(mentioned)
    enhanced = _most_telling(enhanced, status[1] if status else None)
    temporary = enhanced is not None and enhanced[0] == "4"
    if code is None and enhanced is not None:
        code = _CODE_OF_CLASS[enhanced[0]]
    elif code is not None:
        temporary = 400 <= code < 500
    if code is not None and 500 <= code < 600 and _NO_SUCH_DOMAIN.search(text[:500]):
        enhanced = "5.1.2"  # Postfix writes 5.4.4 for a domain that DNS denies; what DNS only cannot tell is 4.4.3
    given_up = gave_up_waiting(diagnostic) or gave_up_waiting(mentioned)
    if action == "delayed" and given_up:
        action = "failed"  # OpenSMTPD announces an expired message so, and keeps nothing
    return Bounce(
        action=action,
        recipient=recipient,
        code=code,
        enhanced=enhanced,
        text=text,
        expired=action == "failed" and (temporary or given_up),
        clues=clues,
    )


def _most_telling(said: str | None, status: str | None) -> str | None:
    """The enhanced code of the reply, unless it says nothing and the Status field says more."""
    if said is not None and said not in _SUPERSEDED:
        return said
    return status or said


def _lines_about(recipient: str | None, notice: list[str]) -> str:
    """The lines of the human part that tell about a recipient: its own, and the indented ones below it."""
    if not recipient:
        return ""
    wanted = recipient.lower()
    about: list[str] = []
    for line in notice:
        if not about:
            place = line.lower().find(wanted)
            if place >= 0:
                about.append(line[place + len(wanted) :].lstrip("> :"))
            continue
        other = _STARTS_WITH_ADDRESS.match(line)
        if not line.strip() or not line[0].isspace() or (other and other[1].lower() != wanted):
            break
        about.append(line.strip())
    return " ".join(about)[:1_500]
