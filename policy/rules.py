"""What a rule for replies may say, what a category means, and which of them cannot be meant.

``replies.toml`` says in words what each field is for; files of operators have the same rules and hints, but no
categories and codes of their own.
"""

import tomllib
from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from policy.rule_matching import any_of, by_codes, expanded, flaw_of_pattern

Kind = Literal["hard", "soft", "throttle", "block", "config", "bug", "transient"]
Counted = Literal["hard_bounce", "soft", "block"]
Pauses = Literal["", "recipient", "host", "connections", "ip", "domain", "campaign"]
Scope = Literal["", "platform", "tenant", "domain"]

MOST_WORDS = 200
LONGEST_WORD = 200


class WrongRules(ValueError):  # noqa: N818 - it is what it says
    """A rules file that cannot be meant; the message names the rule, the field and the fix."""


class Category(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What follows from a category; ``replies.toml`` says what each field means."""

    kind: Kind
    counts: Counted = "soft"
    scope: Scope = ""
    after_campaigns: int = 0
    after_days: int = 0
    final: tuple[int, ...] = (5,)
    after_s: int = 0
    tries: int | None = None
    slow: bool = False
    pause_s: int = 0
    pauses: Pauses = ""

    @property
    def suppress(self) -> bool:
        """Is the address dead for everybody, at once?  What is suppressed otherwise says ``scope``."""
        return self.scope in ("platform", "domain") and not self.after_campaigns

    @property
    def class_(self) -> str:
        """The kind in the six words that reports use: what is wrong for the moment only is soft."""
        return "soft" if self.kind == "transient" else self.kind


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One rule: what must stand in a reply, and the category it then has."""

    id: str
    category: str
    provider: str | tuple[str, ...] = ()
    class_: Literal[4, 5] | None = msgspec.field(name="class", default=None)
    codes: tuple[int, ...] = ()
    enhanced: tuple[str, ...] = ()
    any: tuple[str, ...] = ()
    all: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()
    pattern: str | None = None
    sample: tuple[str, ...] = ()
    forwarded: bool = False
    dry_run: bool = False

    @property
    def providers(self) -> frozenset[str]:
        """The providers it is for; none for a rule for all."""
        return frozenset((self.provider,) if isinstance(self.provider, str) else self.provider)

    @property
    def has_text(self) -> bool:
        """Does it ask for words, and not for codes alone?"""
        return bool(self.any or self.all or self.pattern)


class Hint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Words by which a reply speaks of spam traps, whatever its category; ``trap`` is how much that proves."""

    id: str
    trap: float
    any: tuple[str, ...] = ()
    pattern: str | None = None
    sample: tuple[str, ...] = ()


class File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole file: ours."""

    category: dict[str, Category]
    rule: tuple[Rule, ...]
    enhanced: dict[str, tuple[str, str]]
    basic: dict[str, str]
    hint: tuple[Hint, ...] = ()


class OwnFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of an operator."""

    rule: tuple[Rule, ...] = ()
    hint: tuple[Hint, ...] = ()


def read_file(text: str) -> File:
    """Our own file; a mistake is raised with its place."""
    try:
        file = msgspec.convert(tomllib.loads(text), File)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as wrong:
        raise WrongRules(f"replies: {wrong}") from wrong
    _check(file)
    return file


def read_own(text: str, known: Mapping[str, Category]) -> OwnFile:
    """An operator's file; the first mistake is raised with its place."""
    try:
        own = msgspec.convert(tomllib.loads(text), OwnFile)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as wrong:
        raise WrongRules(str(wrong)) from wrong
    _check_all(own.rule, own.hint, known)
    return own


def pattern_of(rule: Rule | Hint) -> str:
    """What is looked for in the line to find a rule at all; the rest is asked afterwards."""
    if rule.pattern is not None:
        return rule.pattern
    if rule.any:
        return any_of(rule.any)
    if isinstance(rule, Hint):
        raise WrongRules(f"hint {rule.id}: it has no words")
    if rule.all:
        return any_of([max(rule.all, key=len)])
    return by_codes(rule.codes, [one for code in rule.enhanced for one in expanded(code)])


def flaw_of(rule: Rule, known: Mapping[str, Category], ids: Iterable[str] = ()) -> str | None:
    """Why a rule cannot be meant, with the field and the fix; None if it is in order."""
    if (flaw := _flaw_of_name(rule, known, ids)) is not None:
        return flaw
    if rule.forwarded and not (rule.providers and rule.has_text):
        return "forwarded: it is for rules with a provider and with words of that provider; leave it out"
    if not (rule.has_text or rule.codes or rule.enhanced):
        return "it matches everything; give it any, all, pattern, codes or enhanced"
    return _flaw_of_text(rule) or _flaw_of_codes(rule)


def _flaw_of_name(rule: Rule, known: Mapping[str, Category], ids: Iterable[str]) -> str | None:
    if not rule.id or len(rule.id) > 64:
        return "id: give it a name of up to 64 characters; it stands in results and logs"
    if rule.id in ids:
        return "id: it is used twice; name one of them differently"
    if rule.category not in known:
        return f"category: {rule.category} is not described; those that exist: {', '.join(sorted(known))}"
    if known[rule.category].kind == "hard" and rule.class_ != 5:
        return "class: a category of kind hard needs class = 5; a 4xx reply is no proof that an address is dead"
    return None


def flaw_of_hint(hint: Hint, ids: Iterable[str] = ()) -> str | None:
    """Why a hint cannot be meant, with the field and the fix."""
    if hint.id in ids:
        return "id: it is used twice; name one of them differently"
    if not 0 < hint.trap <= 0.5:
        return "trap: write more than 0 and at most 0.5; words of a stranger prove no more"
    if not (hint.any or hint.pattern):
        return "it matches everything; give it any or pattern"
    flaw = _flaw_of_words("any", hint.any)
    if flaw is None and hint.pattern is not None and (why := flaw_of_pattern(hint.pattern)) is not None:
        flaw = f"pattern: {why}"
    return flaw


def _flaw_of_text(rule: Rule) -> str | None:
    for field, words in (("any", rule.any), ("all", rule.all), ("unless", rule.unless)):
        if (flaw := _flaw_of_words(field, words)) is not None:
            return flaw
    if rule.pattern is not None and (why := flaw_of_pattern(rule.pattern)) is not None:
        return f"pattern: {why}"
    return None


def _flaw_of_words(field: str, words: tuple[str, ...]) -> str | None:
    if len(words) > MOST_WORDS:
        return f"{field}: more than {MOST_WORDS} words; make two rules"
    for word in words:
        if not word.strip() or len(word) > LONGEST_WORD:
            return f"{field}: {word[:20]!r} is no word to look for; 1 to {LONGEST_WORD} characters"
        if " ".join(word.split()) != word.strip():
            return f"{field}: {word!r} has blanks or line ends that no line has; write single blanks"
    return None


def _flaw_of_codes(rule: Rule) -> str | None:
    for code in rule.codes:
        if not 400 <= code <= 599:
            return f"codes: {code} is no refusal; write 400 to 599"
        if rule.class_ is not None and code // 100 != rule.class_:
            return f"codes: {code} never comes with class = {rule.class_}"
    for enhanced in rule.enhanced:
        try:
            expanded(enhanced)
        except ValueError as wrong:
            return f"enhanced: {wrong}"
    return None


def _check(file: File) -> None:
    known = file.category
    for name in (*file.basic.values(), *(one for pair in file.enhanced.values() for one in pair), "other"):
        if name not in known:
            raise WrongRules(f"replies: category {name} is used but not described; add [category.{name}]")
    for key, (after_4, _) in file.enhanced.items():
        if known[after_4].kind == "hard":
            raise WrongRules(f"replies: enhanced {key}: a 4.x.x code is no proof that an address is dead")
    for name, category in known.items():
        if category.suppress and category.kind != "hard":
            raise WrongRules(f"replies: category {name}: only kind hard may suppress addresses")
        if (category.scope or category.after_campaigns) and category.kind not in ("hard", "soft"):
            raise WrongRules(f"replies: category {name}: what is not the recipient's doing never suppresses anybody")
    _check_all(file.rule, file.hint, known)


def _check_all(rules: tuple[Rule, ...], hints: tuple[Hint, ...], known: Mapping[str, Category]) -> None:
    ids: set[str] = set()
    for rule in rules:
        if (flaw := flaw_of(rule, known, ids)) is not None:
            raise WrongRules(f"rule {rule.id}: {flaw}")
        ids.add(rule.id)
    for hint in hints:
        if (flaw := flaw_of_hint(hint, ids)) is not None:
            raise WrongRules(f"hint {hint.id}: {flaw}")
        ids.add(hint.id)
