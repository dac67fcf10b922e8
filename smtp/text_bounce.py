"""Bounces that only people were meant to read: who is told of, what is said, in many forms and languages.

A robot must have written it, or its subject or structure must say that it is a report; and it must say that a message
failed, or waits.  A code that is not written is not invented: what words mean, ``bounce_words.py`` knows, and what
nobody knows says nothing against an address.
"""

import re
from dataclasses import dataclass

from smtp.bounce_words import ABSENT, FAILED, FAILED_SUBJECTS, ROBOTS, STILL_TRYING, fold, meant, says
from smtp.dsn import MAX_RECIPIENTS, RETURNED_TYPES, as_we_wrote, clues_of, gave_up_waiting, in_words, read_reply
from smtp.encoded_words import decoded
from smtp.findings import Action, Bounce, Clues, Finding
from smtp.mime import Message
from smtp.notice import told

_CODES = {"4": 450, "5": 550}
_MAX_LOCAL = 64
_MAX_PLACES = 400
_LOCAL_BACKWARDS = re.compile(r"[^\s<>@()\[\]\"',;:=|*：；，、。（）《》【】「」]+")
_DOMAIN = re.compile(r"[\w-]{1,63}(?:\.[\w-]{1,63}){1,20}")
_DECORATION = re.compile(r"[\s>*\u2022<\"'\[(-]*(?:smtp:|rfc822;\s?|mailto:)?<?", re.IGNORECASE)
_OTHERS = re.compile(  # what stands before an address that nobody bounced from
    r"(?<![^\W\d_])(?<!generated )(?<!expanded )"
    r"(?:from|sender|reply-to|return-path|message-id|contact|helpdesk|support|write to|questions?|cc|subject"
    r"|von|absender|de|da|expediteur|remitente|mittente|remetente|para contactar)\s?:?\s?[\"'<(]{0,3}\Z",
    re.IGNORECASE,
)
_TO = re.compile(r"\A\s{0,20}(?:to|an|para|a|aan|till|komu|кому)\s?:\s{0,20}\"?<?\Z", re.IGNORECASE)
_NAMES = re.compile(  # words that present the address behind them
    r"(?:recipients?|address(?:es)?|users?|userid|mailbox|error-for|undeliverable +to|attempts|full|rcpt to|reached"
    r"|addressed(?: to|,)|deliver(?:ed)? to|empfanger|destinataire|destinatario|ontvanger|адресат)"
    r"\s?:?\s{0,20}[<\[\"'(]{0,2}(?:smtp:)?\Z",
    re.IGNORECASE,
)
_ROBOT_ACCOUNTS = ("postmaster", "mailer-daemon", "abuse", "helpdesk", "support", "hostmaster", "webmaster", "noreply")


@dataclass(frozen=True, slots=True)
class _Place:
    """An address, on which line it stands, where, and whether it is presented as a recipient."""

    address: str
    line: int
    start: int
    end: int
    is_named: bool


def findings(message: Message) -> list[Finding]:
    """The recipients that a text names as failed or waiting; empty when this is no such message."""
    subject = fold(decoded(message.fields.get("subject") or ""))
    notice, copy = told(message)
    folded = fold("\n".join(notice))
    action = _action(message, subject, folded)
    if action is None:
        return []
    clues = clues_of(message, copy)
    whole = " ".join(" ".join(notice).split())
    places = _recipients(message, notice)
    if not places:
        return [_bounce(action, _addressee(clues), (whole, subject), clues)]
    tail = " ".join(line.strip() for line in notice[places[-1].line :])
    found: list[Finding] = []
    for place, following in zip(places, (*places[1:], None), strict=True):
        said = _said(notice, place, following)
        found.append(_bounce(action, as_we_wrote(place.address, said), (said, tail, whole, subject), clues))
    return list(dict.fromkeys(found))[:MAX_RECIPIENTS]


def _action(message: Message, subject: str, folded: str) -> Action | None:
    fields = message.fields
    if says(subject, ABSENT):
        return None
    author = f"{decoded(fields.get('from') or '<>')} {fields.get('sender') or ''}"
    is_robot = says(fold(author.replace('"', "")), ROBOTS)
    returns = any(part.content_type in RETURNED_TYPES for part in message.parts)
    is_report = "multipart/report" in (fields.get("content-type") or "").lower()
    announced = says(subject, FAILED_SUBJECTS)
    waits = says(subject, STILL_TRYING) or says(folded, STILL_TRYING)
    failed = says(folded, FAILED)
    names_failed = fields.get("x-failed-recipients") is not None
    if not (is_robot or announced or is_report or names_failed or (returns and failed and waits)):
        return None
    if waits:
        return "delayed"
    if failed or names_failed or (is_robot and (announced or meant(f"{subject} {folded}"))):
        return "failed"
    return "failed" if announced and (returns or meant(folded)) else None


def _bounce(action: Action, recipient: str | None, texts: tuple[str, ...], clues: Clues) -> Bounce:
    """One recipient, by the first of the texts that says something about the reason."""
    reply = next((text for text in texts if _gives_a_reason(text)), texts[0])
    code, enhanced, text = read_reply(reply)
    if code is not None and code < 400:
        code = None  # of a transcript: what went well so far
    enhanced = in_words(code, enhanced, text)
    if code is None and enhanced is not None:
        code = _CODES.get(enhanced[0])
    if action == "delayed":
        return Bounce(action=action, recipient=recipient, code=code, enhanced=enhanced, text=text, clues=clues)
    gave_up = (code is not None and code < 500) or any(map(gave_up_waiting, texts))
    return Bounce(
        action=action, recipient=recipient, code=code, enhanced=enhanced, text=text, expired=gave_up, clues=clues
    )


def _gives_a_reason(text: str) -> bool:
    code, enhanced, _ = read_reply(text)
    return (code is not None and code >= 400) or enhanced is not None or meant(fold(text)) is not None


def _recipients(message: Message, notice: list[str]) -> list[_Place]:
    """Whom the notice tells of: named in a header, else presented in the text, else mentioned in one paragraph."""
    header = ",".join(message.fields.all("x-failed-recipients")[:5])
    listed = {place.address.lower() for place in _addresses([header[:4_000]])}
    places = _addresses(notice)
    if listed:
        named = _once([place for place in places if place.address.lower() in listed])
        missing = listed - {place.address.lower() for place in named}
        return (
            [*named, *(_Place(one, len(notice), 0, 0, is_named=True) for one in sorted(missing))]
            if named
            else [_Place(one, 0, 0, 0, is_named=True) for one in sorted(listed)]
        )
    told = _told_to(message)
    others = [
        place for place in places if place.address.lower() not in told and not _OTHERS.search(_before(notice, place))
    ]
    aside = [place for place in others if _TO.match(notice[place.line][: place.start])]
    meant_ = [place for place in others if place not in aside]
    named = [place for place in meant_ if place.is_named]
    if named:
        return _once(named)
    first = meant_[:1]
    if first:
        end = next((n for n in range(first[0].line, len(notice)) if not notice[n].strip()), len(notice))
        return _once([place for place in meant_ if place.line < end])
    return _once(aside)[:1]


def _told_to(message: Message) -> set[str]:
    """Whom the notice is addressed to: it greets him, and tells him of others."""
    fields = [value for name in ("to", "delivered-to") for value in message.fields.all(name)[:3]]
    return {place.address.lower() for place in _addresses([value[:1_000] for value in fields])}


def _addresses(lines: list[str]) -> list[_Place]:
    places: list[_Place] = []
    for number, line in enumerate(lines):
        at = line.find("@")
        while at >= 0 and len(places) < _MAX_PLACES:
            local = _LOCAL_BACKWARDS.match(line[max(0, at - _MAX_LOCAL) : at][::-1])
            domain = _DOMAIN.match(line, at + 1)
            if local and domain and local[0][::-1].lower() not in _ROBOT_ACCOUNTS:
                start = at - local.end()
                head = line[:start]
                is_named = _DECORATION.fullmatch(head) is not None or _NAMES.search(head[-60:]) is not None
                places.append(_Place(line[start : domain.end()].strip("."), number, start, domain.end(), is_named))
            at = line.find("@", at + 1)
    return places


def _before(notice: list[str], place: _Place) -> str:
    return notice[place.line][max(0, place.start - 40) : place.start]


def _once(places: list[_Place]) -> list[_Place]:
    first: dict[str, _Place] = {}
    for place in places:
        first.setdefault(place.address.lower(), place)
    return list(first.values())


def _said(notice: list[str], place: _Place, following: _Place | None) -> str:
    """What is said about one address: its line, and those below up to a blank one or the next address."""
    if place.line >= len(notice) or not notice:
        return ""
    end = following.line if following else len(notice)
    said = [f"{notice[place.line][: place.start]} {notice[place.line][place.end :]}".strip("<>[]()*\"': ")]
    for line in notice[place.line + 1 : max(end, place.line + 1)]:
        if not line.strip():
            if any(map(str.isalpha, "".join(said))):
                break
            continue
        said.append(line.strip())
    return " ".join(said)[:1_500]


def _addressee(clues: Clues) -> str | None:
    """The one addressee of the returned mail, when the notice names nobody."""
    return clues.addressees[0] if len(clues.addressees) == 1 else None
