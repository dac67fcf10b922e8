"""Replies: what a mail server meant.

Rules, categories and codes are data (``replies.toml`` beside this module).  Texts come before enhanced codes and
those before the three digits; the first rule that matches decides.  What a category means for the recipient, the
counts and the next attempt stands in one table, so that a new rule only has to name its category.
"""

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Literal

import msgspec

MAX_TEXT_LENGTH = 4096

Kind = Literal["hard", "soft", "throttle", "block", "config", "bug", "transient"]
Counted = Literal["hard_bounce", "soft", "block"]
Pauses = Literal["", "recipient", "host", "connections", "ip", "domain", "campaign"]

_LINE_HEAD = re.compile(r"^(?:[245][0-9]{2}[ -])?(?:#?[245]\.[0-9]{1,3}\.[0-9]{1,3}(?![.0-9])[ :-]?)?")
_ENHANCED_IN_TEXT = re.compile(r"^(?:[245][0-9]{2}[ -])?#?([245]\.[0-9]{1,3}\.[0-9]{1,3})(?![.0-9])")
_ENHANCED = re.compile(r"([245])\.([0-9]{1,3})\.([0-9]{1,3})").fullmatch
_ESCAPES_AND_SETS = re.compile(r"\\.|\[\^?\]?[^\]]*\]")
_UNBOUNDED = re.compile(r"[*+]|\{[0-9]*,\}")


class Category(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What follows from a category; ``replies.toml`` says what each field means."""

    kind: Kind
    counts: Counted = "soft"
    suppress: bool = False
    final: tuple[int, ...] = (5,)
    after_s: int = 0
    tries: int | None = None
    pause_s: int = 0
    pauses: Pauses = ""


class Reading(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a reply was taken for, and by which rule.

    ``final``: no further attempt.  ``suppress``: the address may be suppressed.  The rest of what follows, such as
    pauses, is in :func:`category_of` the category.
    """

    category: str
    kind: Kind
    rule: str
    suppress: bool
    final: bool


class _Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    id: str
    category: str
    provider: str | None = None
    class_: int | None = msgspec.field(name="class", default=None)
    codes: tuple[int, ...] = ()
    enhanced: tuple[str, ...] = ()
    any: tuple[str, ...] = ()
    all: tuple[str, ...] = ()
    pattern: str | None = None


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    category: dict[str, Category]
    rule: tuple[_Rule, ...]
    enhanced: dict[str, tuple[str, str]]
    basic: dict[str, str]


class _Matcher:
    """One rule, ready to be asked."""

    __slots__ = ("_all", "_any", "_codes", "_enhanced", "_search", "category", "id", "needs_class")

    def __init__(self, rule: _Rule) -> None:
        self.id = rule.id
        self.category = rule.category
        self.needs_class = rule.class_
        self._codes = frozenset(rule.codes)
        self._enhanced = frozenset(rule.enhanced)
        self._any = tuple(word.lower() for word in rule.any)
        self._all = tuple(word.lower() for word in rule.all)
        self._search = re.compile(rule.pattern).search if rule.pattern else None

    def matches(self, line: str, code: int | None, enhanced: str | None) -> bool:
        if self._any:
            for word in self._any:
                if word in line:
                    break
            else:
                return False
        if self._all and not all(word in line for word in self._all):
            return False
        if self._codes and code not in self._codes:
            return False
        if self._enhanced and (enhanced is None or not {enhanced, f"x{enhanced[1:]}"} & self._enhanced):
            return False
        return self._search is None or self._search(line) is not None


class RuleBook:
    """Rules, categories and codes of one file, checked when it is read."""

    def __init__(self, text: str) -> None:
        book = msgspec.convert(tomllib.loads(text), _File)
        self.categories: Mapping[str, Category] = book.category
        self._rules = tuple((rule.provider, _Matcher(rule)) for rule in book.rule)
        self._enhanced = book.enhanced
        self._basic = book.basic
        self._chosen: dict[tuple[str, int | None], tuple[_Matcher, ...]] = {}
        self._providers = frozenset(rule.provider for rule in book.rule if rule.provider)
        _check(book)

    def read(self, *, code: int | None, enhanced: str | None, text: str, provider: str) -> Reading:
        """What the reply means; never fails, whatever a server sends."""
        joined = _joined(text[:MAX_TEXT_LENGTH])
        if enhanced is None or not _ENHANCED(enhanced):
            found = _ENHANCED_IN_TEXT.match(text[:64].lstrip())
            enhanced = found[1] if found else None
        reply_class = _class_of(code, enhanced)
        line = f"{code if code is not None else '-'} {enhanced or '-'} {joined}"
        for rule in self._rules_for(provider, reply_class):
            if rule.matches(line, code, enhanced):
                return self._reading(rule.category, rule.id, reply_class or rule.needs_class or 4)
        return self._by_code(code, enhanced, reply_class)

    def _by_code(self, code: int | None, enhanced: str | None, reply_class: int | None) -> Reading:
        if reply_class is None:
            return self._reading("other", "nothing known", 4)
        column = 1 if reply_class == 5 else 0
        if enhanced is not None:
            _, subject, detail = enhanced.split(".")
            for key in (f"{int(subject)}.{int(detail)}", f"{int(subject)}.*"):
                if key in self._enhanced:
                    return self._reading(self._enhanced[key][column], f"enhanced {key}", reply_class)
        for digits in (str(code), str(reply_class)):
            if digits in self._basic:
                return self._reading(self._basic[digits], f"code {digits}", reply_class)
        return self._reading("other", "nothing known", reply_class)

    def _rules_for(self, provider: str, reply_class: int | None) -> tuple[_Matcher, ...]:
        known = (provider if provider in self._providers else "other", reply_class)
        chosen = self._chosen.get(known)
        if chosen is None:
            chosen = self._chosen[known] = tuple(
                rule
                for of, rule in self._rules
                if of in (None, provider) or known[0] == "other"
                if reply_class is None or rule.needs_class in (None, reply_class)
            )
        return chosen

    def _reading(self, name: str, rule: str, reply_class: int) -> Reading:
        category = self.categories[name]
        final = reply_class in category.final
        return Reading(category=name, kind=category.kind, rule=rule, suppress=category.suppress and final, final=final)


@cache
def shipped() -> RuleBook:
    """The rules that come with mailcordon."""
    return RuleBook(files("policy").joinpath("replies.toml").read_text(encoding="utf-8"))


def classify(*, code: int | None, enhanced: str | None, text: str, provider: str = "other") -> Reading:
    """Read one reply of a server (or the diagnostic text of a bounce, where ``code`` may be missing)."""
    return shipped().read(code=code, enhanced=enhanced, text=text, provider=provider)


def category_of(name: str | None) -> Category:
    """What follows from a category; a name that nobody knows is taken for ``other``."""
    categories = shipped().categories
    return categories.get(name or "other", categories["other"])


def _joined(text: str) -> str:
    """All lines of a reply as one in lower case, without the codes that each line repeats."""
    return " ".join(" ".join(_LINE_HEAD.sub("", line.strip()) for line in text.splitlines()).split()).lower()


def _class_of(code: int | None, enhanced: str | None) -> int | None:
    first = code // 100 if code is not None else int(enhanced[0]) if enhanced else None
    return first if first in (4, 5) else None


def _check(book: _File) -> None:
    """Refuse a file that would misread replies; the message names the rule and the fix."""
    known = book.category
    for name in (*book.basic.values(), *(one for pair in book.enhanced.values() for one in pair), "other"):
        if name not in known:
            raise ValueError(f"replies: category {name} is used but not described; add [category.{name}]")
    for key, (after_4, _) in book.enhanced.items():
        if known[after_4].kind == "hard":
            raise ValueError(f"replies: enhanced {key}: a 4.x.x code is no proof that an address is dead")
    for name, category in known.items():
        if category.suppress and category.kind != "hard":
            raise ValueError(f"replies: category {name}: only kind hard may suppress addresses")
    ids: set[str] = set()
    for rule in book.rule:
        _check_rule(rule, known, ids)
        ids.add(rule.id)


def _check_rule(rule: _Rule, known: Mapping[str, Category], ids: set[str]) -> None:
    flaw: str | None = None
    if rule.id in ids:
        flaw = "its id is used twice"
    elif rule.category not in known:
        flaw = f"category {rule.category} is not described"
    elif known[rule.category].kind == "hard" and rule.class_ != 5:
        flaw = "a category of kind hard needs class = 5; a 4xx reply is no proof that an address is dead"
    elif not (rule.any or rule.all or rule.pattern or rule.codes or rule.enhanced):
        flaw = "it matches everything; give it any, all, pattern, codes or enhanced"
    elif rule.pattern is not None:
        flaw = flaw_of_pattern(rule.pattern)
    if flaw is not None:
        raise ValueError(f"replies: rule {rule.id}: {flaw}")


def flaw_of_pattern(pattern: str) -> str | None:
    """Why a pattern could take more than linear time or never match, or None."""
    try:
        re.compile(pattern)
    except re.error as wrong:
        return f"pattern is no regular expression: {wrong}"
    plain = _ESCAPES_AND_SETS.sub("x", pattern)
    unbounded = len(_UNBOUNDED.findall(plain))
    if unbounded > (1 if pattern.startswith("^") and "|^" not in pattern else 0):
        return "pattern may have one * or + when it starts with ^, and none otherwise; use any or all, or {0,40}"
    if pattern != pattern.lower() and not re.search(r"\\[A-Z]", pattern):
        return "pattern has capitals; the line is in lower case"
    return None
