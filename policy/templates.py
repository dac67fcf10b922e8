"""Templates: one content, compiled once, rendered for each recipient.

``{{variable}}`` is the whole language: no expressions, no loops, no filters.  Whatever else stands in ``{{ }}`` is
refused when the content is compiled, so that nobody receives ``{{ 7*7 }}``, and nothing is ever evaluated.  Values
are put in as they are, escaped for the part they stand in: HTML is escaped, and a value that could break out of a
header is an answer (:class:`BadVariables`), never a mail.

``{{unsubscribe_url}}`` is the one name that is filled in by the sender: each message's own link.
"""

import html
import re
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Literal

import msgspec

from policy.unsubscribing import ONE_CLICK
from schemas.sending import Content, Var

BUILT_IN = "unsubscribe_url"
MAX_LINKS = 100  # in one content

MAX_HEADER_LENGTH = 900  # with the name and the line end below the 998 of RFC 5322 2.1.1
MAX_VARIABLE_LENGTH = 10_000
MAX_GROWTH = 1_000_000  # characters that the values of one message may add, each as often as it is used

_Breaks = Callable[[str], object]

_VARIABLE = re.compile(r"\{\{[ \t]*([A-Za-z_][A-Za-z0-9_]{0,63})[ \t]*\}\}")
_HEADER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,75}").fullmatch
_BREAKS_HEADERS: _Breaks = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]").search
_BREAKS_BODIES: _Breaks = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]").search
_BREAKS_LISTS: _Breaks = re.compile(r"[\x00-\x20\x7f-\x9f<>\"\\\u2028\u2029\ud800-\udfff]").search
_BREAKS_MAILBOXES: _Breaks = re.compile(r"[\x00-\x1f\x7f-\x9f<>\"\\,;:\u2028\u2029\ud800-\udfff]").search

_ALLOWED: Mapping[str, _Breaks] = {
    "list-unsubscribe": _BREAKS_LISTS,
    "list-unsubscribe-post": _BREAKS_LISTS,
    "list-id": _BREAKS_LISTS,
    "list-help": _BREAKS_LISTS,
    "list-owner": _BREAKS_LISTS,
    "list-archive": _BREAKS_LISTS,
    "list-subscribe": _BREAKS_LISTS,
    "reply-to": _BREAKS_MAILBOXES,
    "feedback-id": _BREAKS_LISTS,
    "cfbl-address": _BREAKS_LISTS,
    "cfbl-feedback-id": _BREAKS_LISTS,
    "precedence": _BREAKS_HEADERS,
    "auto-submitted": _BREAKS_HEADERS,
    "importance": _BREAKS_HEADERS,
    "organization": _BREAKS_HEADERS,
    "keywords": _BREAKS_HEADERS,
    "comments": _BREAKS_HEADERS,
}
_OWN_PREFIX = "x-mailcordon"


class BadContent(msgspec.Struct, frozen=True, kw_only=True):
    """Why a content cannot be sent to anybody; the sentence names the field and the fix."""

    reason: Literal["bad_syntax", "bad_header"]
    explain: str


class BadVariables(msgspec.Struct, frozen=True, kw_only=True):
    """Why a content cannot be sent to one recipient; the sentence names the variable and never its value."""

    reason: Literal["missing_variable", "bad_variable"]
    explain: str


class Rendered(msgspec.Struct, frozen=True, gc=False):
    """A content with one recipient's values; a header that came out empty is left out."""

    subject: str
    text: str
    html: str
    headers: dict[str, str]


class _Part(msgspec.Struct, frozen=True):
    """Text with its variables: every even piece stands as it is, every odd piece is the name of a variable."""

    pieces: tuple[str, ...]
    names: tuple[str, ...]
    literal_length: int

    def filled(self, values: Mapping[str, str]) -> str:
        if not self.names:
            return self.pieces[0]
        pieces = list(self.pieces)
        pieces[1::2] = [values[name] for name in self.names]
        return "".join(pieces)


class _Rule(msgspec.Struct, frozen=True):
    """What one variable may hold, after the strictest of the parts that it stands in."""

    name: str
    uses: int
    breaks: _Breaks
    where: str
    is_special: bool


class Template:
    """A compiled content.  ``variables`` are the names that every recipient must bring.

    ``needs_link`` says that it holds ``{{unsubscribe_url}}``, which the sender brings.
    """

    __slots__ = (
        *("_headers", "_html", "_html_names", "_names", "_plain_names", "_rules", "_special", "_subject"),
        *("_surely_short", "_text", "needs_link", "variables"),
    )

    def __init__(self, *, subject: _Part, text: _Part, html: _Part, headers: Mapping[str, _Part]) -> None:
        self._subject = subject
        self._text = text
        self._html = html
        self._headers = tuple(headers.items())
        plain = (subject, text, *headers.values())
        self._plain_names = tuple(sorted({name for part in plain for name in part.names} - {BUILT_IN}))
        self._html_names = tuple(sorted(set(html.names) - {BUILT_IN}))
        self.needs_link = BUILT_IN in (*text.names, *html.names)
        self._rules = _rules(subject, text, html, headers)
        self._special = tuple(rule for rule in self._rules if rule.is_special)
        self._names = tuple(sorted({rule.name for rule in self._rules}))
        self._surely_short = min(
            MAX_VARIABLE_LENGTH,
            MAX_GROWTH // max((rule.uses for rule in self._rules), default=1),
            *(
                (MAX_HEADER_LENGTH - part.literal_length) // len(part.names)
                for part in (subject, *headers.values())
                if part.names
            ),
        )
        self.variables: frozenset[str] = frozenset(self._names)

    def check(self, given: Mapping[str, Var]) -> BadVariables | None:
        """Can the content be rendered with these values?  Much cheaper than rendering it."""
        if BUILT_IN in given:
            return _bad(BUILT_IN, "is a name of mailcordon's own, for each message's unsubscribe link; choose another")
        try:
            together = "".join([given[name] for name in self._names])  # type: ignore[misc]  # a number: TypeError
        except KeyError:
            missing = ", ".join(sorted(self.variables - given.keys()))
            return BadVariables(reason="missing_variable", explain=f"field vars lacks {missing}; the content needs it")
        except TypeError:
            return self._check_each(given)
        if len(together) <= self._surely_short and together.isprintable():
            for rule in self._special:
                if rule.breaks(str(given[rule.name])):
                    return self._check_each(given)
            return None
        return self._check_each(given)

    def _check_each(self, given: Mapping[str, Var]) -> BadVariables | None:
        growth = 0
        for rule in self._rules:
            text = _text(given[rule.name])
            if len(text) > MAX_VARIABLE_LENGTH:
                return _bad(rule.name, f"has {len(text):,} characters, at most {MAX_VARIABLE_LENGTH:,} are allowed")
            if rule.breaks(text):
                return _bad(rule.name, f"holds a character that must not stand in {rule.where}; remove it")
            growth += rule.uses * len(text)
        if growth > MAX_GROWTH:
            explain = f"field vars would add {growth:,} characters to the mail, at most {MAX_GROWTH:,} are allowed"
            return BadVariables(reason="bad_variable", explain=explain)
        return self._too_long_header(given)

    def render(self, given: Mapping[str, Var], *, unsubscribe_url: str = "") -> Rendered | BadVariables:
        """The content for one recipient; ``given`` may hold more than is needed.

        ``unsubscribe_url`` is the message's own link, for a content that needs one.
        """
        bad = self.check(given)
        if bad is not None:
            return bad
        plain = {name: _text(given[name]) for name in self._plain_names}
        escaped = {name: html.escape(_text(given[name])) for name in self._html_names}
        if self.needs_link:
            plain[BUILT_IN], escaped[BUILT_IN] = unsubscribe_url, html.escape(unsubscribe_url)
        headers = {}
        for name, part in self._headers:
            value = part.filled(plain).strip()
            if value:
                headers[name] = value
        return Rendered(self._subject.filled(plain), self._text.filled(plain), self._html.filled(escaped), headers)

    def _too_long_header(self, given: Mapping[str, Var]) -> BadVariables | None:
        for name, part in chain((("subject", self._subject),), self._headers):
            if part.names:
                length = part.literal_length + sum(len(_text(given[one])) for one in part.names)
                if length > MAX_HEADER_LENGTH:
                    return _bad(
                        part.names[0], f"makes {name} {length} characters long, at most {MAX_HEADER_LENGTH} are allowed"
                    )
        return None


def compile_content(content: Content) -> Template | BadContent:
    """Read a content's template language once; what is wrong with it is an answer that names the field."""
    parts: dict[str, _Part] = {}
    for field, text in (("subject", content.subject), ("text", content.text), ("html", content.html)):
        part = _compiled(field, text)
        if isinstance(part, BadContent):
            return part
        parts[field] = part
    if _BREAKS_HEADERS(content.subject):
        return BadContent(reason="bad_header", explain="field subject holds a control character; write it in one line")
    headers = _compiled_headers(content.headers)
    if isinstance(headers, BadContent):
        return headers
    flaw = _flaw_of_links(parts, headers)
    if flaw is not None:
        return BadContent(reason="bad_syntax", explain=flaw)
    return Template(subject=parts["subject"], text=parts["text"], html=parts["html"], headers=headers)


def _compiled_headers(headers: Mapping[str, str]) -> dict[str, _Part] | BadContent:
    compiled: dict[str, _Part] = {}
    seen: set[str] = set()
    for name, value in headers.items():
        flaw = _flaw_of_name(name, seen) or _flaw_of_value(name, value)
        if flaw is not None:
            return BadContent(reason="bad_header", explain=flaw)
        part = _compiled(f"headers.{name}", value)
        if isinstance(part, BadContent):
            return part
        seen.add(name.lower())
        compiled[name] = part
    return compiled


def _flaw_of_name(name: str, seen: set[str]) -> str | None:
    lower = name.lower()
    if not _HEADER_NAME(name):
        return "field headers has a name that is no header name; use letters, digits and hyphens"
    if lower not in _ALLOWED and not lower.startswith("x-"):
        return (
            f"field headers.{name} is not a header that a content may set; use List-Unsubscribe, "
            "List-Unsubscribe-Post, List-Id, Reply-To, Feedback-ID or X-…"
        )
    if lower.startswith(_OWN_PREFIX):
        return f"field headers.{name} is written by mailcordon itself; choose another name"
    if lower in seen:
        return f"field headers.{name} is there twice; header names do not know upper and lower case"
    return None


def _flaw_of_links(parts: Mapping[str, _Part], headers: Mapping[str, _Part]) -> str | None:
    for field, part in (("subject", parts["subject"]), *((f"headers.{name}", one) for name, one in headers.items())):
        if BUILT_IN in part.names:
            return (
                f"field {field} holds {{{{{BUILT_IN}}}}}, which is for text and html; the header is made by mailcordon"
            )
    if sum(part.names.count(BUILT_IN) for part in parts.values()) > MAX_LINKS:
        return f"fields text and html hold {{{{{BUILT_IN}}}}} more than {MAX_LINKS} times"
    return None


def _flaw_of_value(name: str, value: str) -> str | None:
    if name.lower() == "list-unsubscribe-post" and value.strip() != ONE_CLICK:
        return f"field headers.{name} can only be {ONE_CLICK} (RFC 8058 3.1)"
    if _BREAKS_HEADERS(value):
        return f"field headers.{name} holds a line break or another control character; write it in one line"
    if len(value) > MAX_HEADER_LENGTH:
        return f"field headers.{name} has {len(value)} characters, at most {MAX_HEADER_LENGTH} are allowed"
    return None


def _compiled(field: str, text: str) -> _Part | BadContent:
    pieces: list[str] = []
    at = 0
    for found in _VARIABLE.finditer(text):
        pieces += (text[at : found.start()], found[1])
        at = found.end()
    pieces.append(text[at:])
    if any("{{" in literal for literal in pieces[::2]) or any(literal.endswith("{") for literal in pieces[:-1:2]):
        return BadContent(
            reason="bad_syntax",
            explain=f"field {field} holds {{{{ that does not start a variable; {{{{name}}}} is the whole language: "
            "letters, digits and _, no expressions",
        )
    if _BREAKS_BODIES(text):
        return BadContent(reason="bad_syntax", explain=f"field {field} holds a control character; remove it")
    names = tuple(pieces[1::2])
    return _Part(tuple(pieces), names, sum(map(len, pieces[::2])))


def _rules(subject: _Part, text: _Part, html: _Part, headers: Mapping[str, _Part]) -> tuple[_Rule, ...]:
    """For every variable the strictest of what its parts ask for (lists and mailboxes are strict in their own ways)."""
    asked: dict[str, dict[_Breaks, str]] = {}
    uses: Counter[str] = Counter()
    for breaks, where, part in (
        (_BREAKS_BODIES, "a mail", text),
        (_BREAKS_BODIES, "a mail", html),
        (_BREAKS_HEADERS, "a subject", subject),
        *((_ALLOWED.get(name.lower(), _BREAKS_HEADERS), f"the header {name}", part) for name, part in headers.items()),
    ):
        uses.update(part.names)
        for name in part.names:
            if name != BUILT_IN:
                asked.setdefault(name, {})[breaks] = where
    rules: list[_Rule] = []
    for name, wheres in sorted(asked.items()):
        special = [breaks for breaks in (_BREAKS_LISTS, _BREAKS_MAILBOXES) if breaks in wheres]
        strictest = special or [_BREAKS_HEADERS if _BREAKS_HEADERS in wheres else _BREAKS_BODIES]
        for number, one in enumerate(strictest):
            rules.append(_Rule(name, 0 if number else uses[name], one, wheres[one], bool(special)))
    return tuple(rules)


def _text(value: Var) -> str:
    return value if value.__class__ is str else str(value)  # faster than isinstance


def _bad(name: str, said: str) -> BadVariables:
    return BadVariables(reason="bad_variable", explain=f"field vars.{name} {said}")
