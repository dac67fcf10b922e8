"""What a report tells people: the text before the returned mail, on lines, whatever form it has."""

import html
import itertools
import re

from smtp.bounce_words import COPY_BEGINS, fold, says
from smtp.mime import Message, Part

MAX_LINES = 400
MAX_LINE = 400
_MAX_TEXTS = 3
_RETURNED = ("message/rfc822", "text/rfc822-headers", "message/global", "message/global-headers")
_UNSEEN = re.compile(r"<(script|style|head)\b", re.IGNORECASE)
_BREAK = re.compile(r"<(?:br|/?p|/?div|/?tr|/?li|/?h[1-6]|/?table|hr|/?pre)\b[^<>]{0,2000}>", re.IGNORECASE)
_TAG = re.compile(r"<(?![^\s<>@/]{1,64}@[^\s<>]{1,255}>)[^<>]{0,2000}>")
_ABOUT_PEOPLE = ("receive", "recipient", "address")
_RULE = re.compile(r"[-=_*|+#.~<>\s]{2,}")
_FIELD = re.compile(r"\A>?\s?(?:return-path|received|message-id|dkim-signature|delivered-to):\s?\S", re.IGNORECASE)


def told(message: Message) -> tuple[list[str], str]:
    """The lines that people are told, and the copy of the returned mail that stands below them in the same text."""
    texts: list[str] = []
    for part in message.parts:
        if part.content_type in _RETURNED or len(texts) == _MAX_TEXTS:
            break
        if part.content_type == "text/plain" or not part.content_type:
            texts.append(part.text())
    if not any(map(_has_words, texts)):
        pages = (part for part in message.parts if part.content_type == "text/html")
        texts = [plain(part) for part in itertools.islice(pages, 1)]
    return apart("\n\n".join(texts))


def plain(part: Part) -> str:
    """The words of an HTML part, one line for each that a reader would see."""
    seen = _without_unseen(part.text()).replace("\n", " ")
    return html.unescape(_TAG.sub("", _BREAK.sub("\n", seen)))


def _without_unseen(text: str) -> str:
    """HTML without styles and scripts; one that never ends takes nothing along."""
    small = text.lower()
    if len(small) != len(text):  # a few letters become longer
        text = small
    kept, at, endless = [], 0, set()
    for begin in _UNSEEN.finditer(text):
        name = begin[1].lower()
        if begin.start() < at or name in endless:
            continue
        end = small.find(f"</{name}", begin.end())
        if end < 0:
            endless.add(name)
            continue
        kept.append(text[at : begin.start()])
        at = end
    return "".join((*kept, text[at:]))


def apart(text: str) -> tuple[list[str], str]:
    """The lines of a notice, and the copy of the message below its dividing line."""
    lines = [line[:MAX_LINE] for line in text.split("\n", MAX_LINES)[:MAX_LINES]]
    for number, line in enumerate(lines):
        if number and _FIELD.match(line):
            return lines[:number], _copy(lines[number:])
        if _divides(line) and any(map(str.strip, lines[:number])):
            return lines[:number], _copy(lines[number + 1 :])
    return lines, ""


def _divides(line: str) -> bool:
    """Whether a copy begins below this line: such a line is short, and drawn, or says that something follows."""
    bare = line.strip()
    if not 6 < len(bare) <= 100 or not (_RULE.match(bare) or bare.endswith((":", "follows.", "follow.", "below."))):
        return False
    folded = fold(bare)
    return says(folded, COPY_BEGINS) and not says(folded, _ABOUT_PEOPLE)


def _copy(lines: list[str]) -> str:
    return "\n".join(line.removeprefix(">") for line in lines).strip().partition("\n\n")[0]


def _has_words(text: str) -> bool:
    return sum(map(str.isalpha, text[:2_000])) > 10
