"""Delivery status notifications (RFC 3464), as the mail servers really write them.

The truth stands in different places: Postfix copies the remote status, Exim always writes 5.0.0 and keeps the reply
in Diagnostic-Code, OpenSMTPD has no Diagnostic-Code at all and says it in the text part.  So the reply text comes
first, then the lines of the human part that name the recipient, then Status; what is said in words only, in whatever
language, comes last (``bounce_words.py``).
"""

import itertools
import re

from smtp.bounce_words import EXPIRED, fold, meant, says
from smtp.clues import clues_in
from smtp.findings import Action, Bounce, Clues, Finding, clean
from smtp.mime import Fields, Message, Part, read_fields
from smtp.notice import told

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
_STARTS_WITH_ADDRESS = re.compile(r"\s{0,40}<?([^\s<>@:]{1,64}@[^\s<>@:]{1,255})>?(?::|\s{0,40}\Z)")
_TYPED = re.compile(r"\A\s{0,20}[A-Za-z0-9-]{1,30}\s{0,5};")
_CODES = r"2[0125]\d|4(?:2[0-2]|[3-57]\d)|5(?:0[0-4]|[1-57]\d)"
_REPLY = re.compile(rf"""(?:\A|[\s'"<\[(>])({_CODES})(?:[ -]+#?([245]\.\d{{1,3}}\.\d{{1,3}}))?(?=[\s:;,)\]'"<>-]|\Z)""")
_ENHANCED = re.compile(r"(?<![\d.])([245]\.\d{1,3}\.\d{1,3})(?![\d.])")
_REPEATED = re.compile(r"\s[245]\d\d(?:-(?:[245]\.\d{1,3}\.\d{1,3}\s)?|\s[245]\.\d{1,3}\.\d{1,3}\s)")
_NO_SUCH_DOMAIN = re.compile(
    r"host or domain name not found|no such domain|domain (?:does not exist|not found)|unknown mail domain",
    re.IGNORECASE,
)
_SUPERSEDED = {"2.0.0", "4.0.0", "5.0.0"}
_VAGUE = {None, "4.0.0", "4.3.0", "5.0.0", "5.3.0", "5.5.0"}  # codes that say less than any words
_ABOUT = re.compile(r"(?:generated|expanded) from:?\s{0,5}<?([^\s<>()@]{1,64}@[^\s<>()@]{1,255})>?\)")
_PASSING = {"4.1", "4.3"}
_FEW_LETTERS = 4
_AT_ONCE = "over a period of 0 hour"  # Mimecast says so below every refusal
_CODE_OF_CLASS = {"2": 250, "4": 450, "5": 550}


def findings(message: Message) -> list[Finding] | None:
    """What the message says as a delivery status notification; None when no part of it names a recipient so.

    Recipients are named as we wrote to them (Original-Recipient), as far as the report says so: a forwarder's address
    is nothing that we know.
    """
    status = message.first(*STATUS_TYPES)
    if status is None:
        return None
    blocks = [read_fields(block) for block in _BLANK_LINES.split(status.text())[: 2 * MAX_RECIPIENTS]]
    recipients = [block for block in blocks if _recipient(block) or block.get("action")][:MAX_RECIPIENTS]
    if not recipients:
        return None
    notice, copy = told(message)
    clues = clues_of(message, copy)
    alone = len({_recipient(block) for block in recipients}) == 1
    return list(dict.fromkeys(_bounce(block, notice, clues, alone=alone) for block in recipients))


def clues_of(message: Message, copy: str = "") -> Clues:
    """Where the returned mail, or the copy of its header in the text, names its return path and its Message-ID."""
    returned = message.first(*RETURNED_TYPES)
    fields = returned_fields(returned) if returned is not None else Fields()
    return clues_in(fields if fields.pairs else read_fields(copy), around=message.fields)


def returned_fields(part: Part) -> Fields:
    """The header fields of the mail that a report returns."""
    return read_fields(part.text().partition("\n\n")[0])


def bare(address: str) -> str:
    """An address out of ``<…>`` or ``rfc822; …``."""
    without_type = _TYPED.sub("", address, count=1)
    inner = re.search(r"<([^<>]{1,400})>", without_type)
    return (inner[1] if inner else without_type).strip()[:400]


def read_reply(text: str) -> tuple[int | None, str | None, str]:
    """Basic code, enhanced code and text of a reply; continuation prefixes such as ``550-5.7.1`` are dropped.

    A refusal comes before the good news of a transcript that stands around it.
    """
    line = clean(text, 1_500)
    replies = list(itertools.islice(_REPLY.finditer(line), 40))
    found = next((one for one in replies if one[1][0] != "2"), replies[0] if replies else None)
    code, enhanced = (int(found[1]), found[2]) if found else (None, None)
    if enhanced is None:
        alone = _ENHANCED.search(line)
        enhanced = alone[1] if alone else None
    said = line[found.end() :].lstrip(" -:)]'\"") if found else line
    if found and found.start() and sum(map(str.isalpha, said)) < _FEW_LETTERS:
        said = line  # the words stand in front of the code
    return code, enhanced, _REPEATED.sub(" ", f" {said}").strip()


def gave_up_waiting(text: str) -> bool:
    """Whether a text says that a queue gave up after trying for long."""
    folded = fold(text[:1_500])
    return says(folded, EXPIRED) and _AT_ONCE not in folded


def in_words(code: int | None, enhanced: str | None, text: str) -> str | None:
    """The enhanced code, or that of what the text says in words when the code says little."""
    if enhanced not in _VAGUE or (code is not None and code < 400):
        return enhanced
    detail = meant(fold(text[:1_500]))
    if detail is None:
        return enhanced
    leading = code // 100 if code is not None else int(enhanced[0]) if enhanced else 4 if detail in _PASSING else 5
    return f"{leading}.{detail}"


def as_we_wrote(recipient: str | None, text: str) -> str | None:
    """The address that an alias or a forwarder stood for, where the text says so."""
    source = _ABOUT.search(text[:1_500])
    return source[1] if source else recipient


def _recipient(block: Fields) -> str | None:
    return block.get("final-recipient") or block.get("original-recipient") or block.get("x-actual-recipient")


def _bounce(block: Fields, notice: list[str], clues: Clues, *, alone: bool) -> Bounce:
    final = bare(_recipient(block) or "")
    original = bare(block.get("original-recipient") or "")
    if "@" not in original and "@" in final:
        original = ""  # a local name, before the server had put its own domain behind it
    mentioned = _lines_about(final if "@" in final else original or final, notice)
    recipient = original or as_we_wrote(final or None, mentioned)
    mentioned = mentioned or _lines_about(recipient, notice)
    action = _ACTIONS.get(re.split(r"[\s;(]", (block.get("action") or "").strip(), maxsplit=1)[0].lower(), "failed")
    status = _ENHANCED.search(block.get("status") or "")
    diagnostic = _TYPED.sub("", block.get("diagnostic-code") or "", count=1)
    code, enhanced, text = read_reply(diagnostic)
    if not diagnostic.strip() or (code is None and enhanced is None and status and status[1] in _SUPERSEDED):
        code, enhanced, text = read_reply(mentioned)
    if not text and not status:
        code, _, text = read_reply(block.get("status") or "")
    enhanced = _most_telling(enhanced, status[1] if status else None)
    if action == "failed":
        explained = f"{text} {block.get('status') or ''} {block.get('action') or ''}"
        if alone and enhanced in _VAGUE and not meant(fold(explained)) and not diagnostic.lower().startswith("smtp"):
            explained = " ".join(" ".join(notice).split())
            _, told_code, told_text = read_reply(explained)
            enhanced, text = told_code or enhanced, told_text if told_code else text
        enhanced = in_words(code, enhanced, explained)
    temporary = enhanced is not None and enhanced[0] == "4"
    if code is None and enhanced is not None:
        code = _CODE_OF_CLASS[enhanced[0]]
    elif code is not None:
        temporary = 400 <= code < 500
    is_about_us = enhanced is not None and enhanced.endswith((".1.7", ".1.8"))
    if code is not None and 500 <= code < 600 and _NO_SUCH_DOMAIN.search(text[:500]) and not is_about_us:
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
