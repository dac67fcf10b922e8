"""Replies: what a mail server meant.

Rules, categories and codes are data (``replies.toml`` beside this module).  Texts come before enhanced codes and
those before the three digits; the first rule that matches decides.  What a category means for the recipient, the
counts and the next attempt stands in one table, so that a new rule only has to name its category.  An operator's own
rules (setting ``rules_file``) are asked before ours; they name our categories, so that a category means the same to
everybody who reads it from a topic.
"""

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

import msgspec

from policy.rule_matching import Screen, expanded
from policy.rules import Category, Kind, OwnFile, Rule, Scope, WrongRules, pattern_of, read_file, read_own

__all__ = [
    "Asked",
    "Category",
    "Kind",
    "Reading",
    "RuleBook",
    "WrongRules",
    "category_of",
    "classify",
    "in_force",
    "put_in_force",
    "shipped",
]

MAX_TEXT_LENGTH = 4096

_LINE_HEAD = re.compile(
    r"^(?:smtp; ?)?(?:[245][0-9]{2}(?:[ -]|\Z))?(?:#?[245]\.[0-9]{1,3}\.[0-9]{1,3}(?![.0-9])[ :-]?)?", re.IGNORECASE
)
_HEAD = re.compile(
    r"(?:smtp; ?)?([245][0-9]{2})?(?(1)(?:[ -]|\Z))(?:#?([245]\.[0-9]{1,3}\.[0-9]{1,3})(?![.0-9]))?", re.IGNORECASE
)
_QUOTED = re.compile(r": ([45][0-9]{2})[ -](?:#?([245]\.[0-9]{1,3}\.[0-9]{1,3})(?![.0-9]))?")
_BRACKETED = re.compile(r"\(#([245]\.[0-9]{1,3}\.[0-9]{1,3})\)")
_ENHANCED = re.compile(r"([245])\.([0-9]{1,3})\.([0-9]{1,3})").fullmatch
_BEFORE_ADDRESS, _AFTER_ADDRESS = re.compile(r".*[<(\[\"',;:=]", re.DOTALL), re.compile(r"[>)\]\"',;:!?]")


class Reading(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a reply was taken for, and by which rule.

    ``final``: no further attempt.  ``suppress``: the address may be suppressed for everybody.  ``scope``: what may be
    suppressed at all, "platform" (the address), "domain" (all addresses of it), "tenant" (the address, for this tenant
    only) or "" (nothing).  ``trap``: how strongly the words hint at a spam trap, 0 if they do not.  ``would``: the
    rule, and its category, that would have decided if it were no dry run.  The rest of what follows, such as pauses,
    is in :func:`category_of` the category.
    """

    category: str
    kind: Kind
    rule: str
    suppress: bool
    final: bool
    scope: Scope = ""
    trap: float = 0.0
    would: tuple[str, str] | None = None


class Asked(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A reply as rules see it: the line "CODE X.Y.Z text" in lower case, and what its codes say."""

    line: str
    code: int | None
    enhanced: str | None
    reply_class: int | None


class Matcher:
    """One rule, ready to be asked whether the rest of it fits, too."""

    __slots__ = ("_all", "_any", "_codes", "_enhanced", "_plain", "_unless", "needs_class", "only_for", "rule")

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.only_for = frozenset[str]() if rule.forwarded else rule.providers
        self.needs_class = rule.class_
        self._any = tuple(word.lower() for word in rule.any) if rule.pattern else ()
        self._all = tuple(word.lower() for word in rule.all)
        self._unless = tuple(word.lower() for word in rule.unless)
        self._codes = frozenset(rule.codes)
        self._enhanced = frozenset(one for code in rule.enhanced for one in expanded(code))
        self._plain = not (self._any or self._all or self._unless or self._codes or self._enhanced)

    def fits(self, asked: Asked) -> bool:
        """Does what the screen found stand in a reply that the rule is for?"""
        if self.needs_class is not None and asked.reply_class not in (None, self.needs_class):
            return False
        if self._plain:
            return True
        line = asked.line
        if self._codes and asked.code not in self._codes:
            return False
        if self._enhanced and not self._has(asked.enhanced):
            return False
        if self._any and not any(word in line for word in self._any):
            return False
        return all(word in line for word in self._all) and not any(word in line for word in self._unless)

    def _has(self, enhanced: str | None) -> bool:
        if enhanced is None:
            return False
        class_, subject, _ = enhanced.split(".")
        known = self._enhanced
        return (
            enhanced in known
            or f"x{enhanced[1:]}" in known
            or f"{class_}.{subject}.*" in known
            or f"x.{subject}.*" in known
        )


class RuleBook:
    """Rules, categories and codes of our file, after the rules of an operator's; both are checked when read."""

    def __init__(self, text: str, own: str | OwnFile = "") -> None:
        file = read_file(text)
        added = read_own(own, file.category) if isinstance(own, str) else own
        self.categories: Mapping[str, Category] = file.category
        self.own = len(added.rule)
        self.matchers = tuple(Matcher(rule) for rule in (*added.rule, *file.rule))
        hints = (*added.hint, *file.hint)
        self._traps = tuple(hint.trap for hint in hints)
        self._screen = Screen([*map(pattern_of, (*added.rule, *file.rule)), *map(pattern_of, hints)])
        self._enhanced = file.enhanced
        self._basic = file.basic
        self._providers = frozenset(name for one in self.matchers for name in one.rule.providers)
        self._readings: dict[tuple[str, str, int, float, tuple[str, str] | None], Reading] = {}

    def read(self, *, code: int | None, enhanced: str | None, text: str, provider: str) -> Reading:
        """What the reply means; never fails, whatever a server sends."""
        asked = asked_of(code=code, enhanced=enhanced, text=text)
        winner, would, trap = self._decide(asked, provider)
        if winner is None:
            return self._by_code(asked, trap, would)
        class_ = asked.reply_class or winner.needs_class or 4
        return self._reading(winner.rule.category, winner.rule.id, class_, trap, would)

    def matching(self, asked: Asked) -> list[Matcher]:
        """All rules that fit, whatever the provider, in the order of the file."""
        return [self.matchers[at] for at in self._found(asked) if self.matchers[at].fits(asked)]

    def _found(self, asked: Asked) -> list[int]:
        return [at for at in self._screen.found(asked.line) if at < len(self.matchers)]

    def _decide(self, asked: Asked, provider: str) -> tuple[Matcher | None, tuple[str, str] | None, float]:
        """The first rule that is for this provider, the first dry run before it, and how much hints at a trap."""
        found = self._screen.found(asked.line)
        if not found:
            return None, None, 0.0
        count = len(self.matchers)
        is_known = provider in self._providers
        would: tuple[str, str] | None = None
        winner: Matcher | None = None
        for at in found:
            if at >= count:
                break
            one = self.matchers[at]
            if (is_known and one.only_for and provider not in one.only_for) or not one.fits(asked):
                continue
            if not one.rule.dry_run:
                winner = one
                break
            would = would or (one.rule.id, one.rule.category)
        trap = max((self._traps[at - count] for at in found if at >= count), default=0.0) if found[-1] >= count else 0.0
        return winner, would, trap

    def _by_code(self, asked: Asked, trap: float, would: tuple[str, str] | None) -> Reading:
        reply_class = asked.reply_class
        if reply_class is None:
            return self._reading("other", "nothing known", 4, trap, would)
        column = 1 if reply_class == 5 else 0
        if asked.enhanced is not None:
            _, subject, detail = asked.enhanced.split(".")
            for key in (f"{subject}.{detail}", f"{subject}.*"):
                if key in self._enhanced:
                    return self._reading(self._enhanced[key][column], f"enhanced {key}", reply_class, trap, would)
        for digits in (str(asked.code), str(reply_class)):
            if digits in self._basic:
                return self._reading(self._basic[digits], f"code {digits}", reply_class, trap, would)
        return self._reading("other", "nothing known", reply_class, trap, would)

    def _reading(self, name: str, rule: str, class_: int, trap: float, would: tuple[str, str] | None) -> Reading:
        key = (name, rule, class_, trap, would)
        known = self._readings.get(key)
        if known is None:
            category = self.categories[name]
            final = class_ in category.final
            known = self._readings[key] = Reading(
                category=name,
                kind=category.kind,
                rule=rule,
                suppress=category.suppress and final,
                final=final,
                scope=category.scope if final and not category.after_campaigns else "",
                trap=trap,
                would=would,
            )
        return known


class _Force:
    """The book in force in this process; None for ours as it is shipped."""

    book: RuleBook | None = None


def shipped_text() -> str:
    """Our own file."""
    return files("policy").joinpath("replies.toml").read_text(encoding="utf-8")


@cache
def shipped() -> RuleBook:
    """The rules that come with mailcordon."""
    return RuleBook(shipped_text())


def put_in_force(book: RuleBook | None) -> None:
    """From now on :func:`classify` reads by this book; None takes ours again.  Said once, when a role starts."""
    _Force.book = book


def in_force() -> RuleBook:
    """The book that :func:`classify` reads by."""
    return _Force.book or shipped()


def classify(*, code: int | None, enhanced: str | None, text: str, provider: str = "other") -> Reading:
    """Read one reply of a server (or the diagnostic text of a bounce, where ``code`` may be missing)."""
    return in_force().read(code=code, enhanced=enhanced, text=text, provider=provider)


def category_of(name: str | None) -> Category:
    """What follows from a category; a name that nobody knows is taken for ``other``."""
    categories = shipped().categories
    return categories.get(name or "other", categories["other"])


def asked_of(*, code: int | None, enhanced: str | None, text: str) -> Asked:
    """A reply in the form in which rules are asked."""
    text = text[:MAX_TEXT_LENGTH]
    if enhanced is None or enhanced.endswith(".0.0") or code is None or _ENHANCED(enhanced) is None:
        code, enhanced = _codes_of(code, enhanced, text)
    if enhanced is not None:
        class_, subject, detail = enhanced.split(".")
        if subject[0] == "0" or detail[0] == "0":
            enhanced = f"{class_}.{int(subject)}.{int(detail)}"
    first = code // 100 if code is not None else int(enhanced[0]) if enhanced else None
    return Asked(
        line=f"{code if code is not None else '-'} {enhanced or '-'} {_joined(text)}",
        code=code,
        enhanced=enhanced,
        reply_class=first if first in (4, 5) else None,
    )


def _codes_of(code: int | None, enhanced: str | None, text: str) -> tuple[int | None, str | None]:
    """The codes that were given, or, where they say nothing, those that the text quotes from another server.

    A status of a bounce is whatever its author thinks of: Exim says 5.0.0 for all.  What stands in the text was said
    by the server that refused the mail.
    """
    if enhanced is not None and _ENHANCED(enhanced) is None:
        enhanced = None
    said_code: str | None = None
    said: str | None = None
    head = _HEAD.match(text[:64].lstrip())
    if head is not None:
        said_code, said = head.groups()
    if (said_code is None and code is None) or said is None:
        quoted = _QUOTED.search(text)
        if quoted is not None:
            said_code = said_code or quoted[1]
            said = said or quoted[2]
        if said is None and (bracketed := _BRACKETED.search(text)) is not None:
            said = bracketed[1]
    if code is None and said_code is not None and said_code[0] != "2":
        code = int(said_code)
        if enhanced is not None and enhanced[0] != said_code[0]:
            enhanced = None
    if said is not None and (enhanced is None or enhanced.endswith(".0.0")):
        enhanced = said
    return code, enhanced


def _joined(text: str) -> str:
    """All lines of a reply as one in lower case, without the codes that each line repeats and without addresses.

    The names in an address are the recipient's choice and say nothing: spam@ may be a mailbox that is full.
    """
    lines = text.splitlines()
    if len(lines) == 1:
        words = _LINE_HEAD.sub("", lines[0].strip(), count=1).split()
    else:
        words = " ".join([_LINE_HEAD.sub("", line.strip(), count=1) for line in lines]).split()
    if "@" in text:
        words = [_without_address(word) if "@" in word else word for word in words]
    return " ".join(words).lower()


def _without_address(word: str) -> str:
    before, _, after = word.partition("@")
    start, end = _BEFORE_ADDRESS.match(before), _AFTER_ADDRESS.search(after)
    return f"{start[0] if start else ''}@{after[end.start() :] if end else ''}"
