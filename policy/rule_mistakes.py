"""What is wrong with an operator's rules file: every mistake with its rule, its field and the fix.

A file is not only read: each rule must read its own samples, must be reached at all, and must not call what our rules
know as a block the fault of a recipient.
"""

import tomllib
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from policy.replies import RuleBook, shipped, shipped_text
from policy.rule_explaining import split
from policy.rules import Category, Hint, OwnFile, Rule, flaw_of, flaw_of_hint

_TABLES: dict[str, type[Rule] | type[Hint]] = {"rule": Rule, "hint": Hint}
_NEVER_HARD = ("block", "config", "throttle", "bug")


class Mistake(msgspec.Struct, frozen=True, kw_only=True):
    """One mistake: the rule (or "rule 3", if it has no id), the field, and what to do."""

    rule: str
    field: str
    explain: str


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in a file: how much of it can be read, its mistakes, and what is only worth knowing."""

    rules: int
    hints: int
    samples: int
    mistakes: tuple[Mistake, ...]
    notes: tuple[str, ...]


def check(text: str) -> Checked:
    """All that is wrong with a file of an operator."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as wrong:
        return _only(Mistake(rule="", field="", explain=f"the file is no TOML: {wrong}"))
    known = shipped().categories
    mistakes = list(_strangers(tables))
    rules: list[Rule] = []
    hints: list[Hint] = []
    ids: set[str] = set()
    for table, kind in _TABLES.items():
        given = tables.get(table, [])
        if not isinstance(given, list):
            mistakes.append(Mistake(rule="", field=table, explain=f"write [[{table}]], with two brackets"))
            continue
        for number, one in enumerate(given, start=1):
            name = str(one.get("id", f"{table} {number}")) if isinstance(one, dict) else f"{table} {number}"
            try:
                rule = msgspec.convert(one, kind)
            except msgspec.ValidationError as wrong:
                mistakes.append(Mistake(rule=name, field=_field(wrong), explain=_said(wrong)))
                continue
            flaw = flaw_of(rule, known, ids) if isinstance(rule, Rule) else flaw_of_hint(rule, ids)
            ids.add(rule.id)
            if flaw is not None:
                field, _, said = flaw.rpartition(": ") if flaw.startswith("it ") else flaw.partition(": ")
                mistakes.append(Mistake(rule=name, field=field if said else "", explain=said or flaw))
            elif isinstance(rule, Rule):
                rules.append(rule)
            else:
                hints.append(rule)
    notes = [f"rule {rule.id} has no sample; with one, this command can try it" for rule in rules if not rule.sample]
    book = RuleBook(shipped_text(), OwnFile(rule=tuple(rules), hint=tuple(hints)))
    mistakes += [*_overlaps(rules), *_samples(book, rules, hints), *_blocks_made_hard(book, known)]
    return Checked(
        rules=len(rules),
        hints=len(hints),
        samples=sum(len(rule.sample) for rule in rules) + sum(len(hint.sample) for hint in hints),
        mistakes=tuple(mistakes),
        notes=tuple(notes),
    )


def _only(mistake: Mistake) -> Checked:
    return Checked(rules=0, hints=0, samples=0, mistakes=(mistake,), notes=())


def _strangers(tables: Mapping[str, object]) -> Iterator[Mistake]:
    for name in tables:
        if name not in OwnFile.__struct_fields__:
            fix = (
                "categories and codes are mailcordon's; name one of its categories in a rule"
                if name in ("category", "enhanced", "basic")
                else "a file of rules has [[rule]] and [[hint]] only"
            )
            yield Mistake(rule="", field=name, explain=fix)


def _field(wrong: msgspec.ValidationError) -> str:
    said = str(wrong)
    if "`$." in said:
        return said.partition("`$.")[2].partition("`")[0]
    return said.partition("field `")[2].partition("`")[0]


def _said(wrong: msgspec.ValidationError) -> str:
    said = str(wrong).partition(" - at `$")[0]
    if "unknown field" in said:
        return f"there is no such field; those that exist: {', '.join(sorted(_fields()))}"
    if "missing required field" in said:
        return "it is missing; every rule needs id and category, every hint id and trap"
    return said


def _fields() -> set[str]:
    return {one.encode_name for kind in _TABLES.values() for one in msgspec.structs.fields(kind)}


def _overlaps(rules: list[Rule]) -> Iterator[Mistake]:
    for at, later in enumerate(rules):
        for earlier in rules[:at]:
            if earlier.dry_run or not covers(earlier, later):
                continue
            what = "the two contradict each other" if earlier.category != later.category else "they say the same"
            yield Mistake(
                rule=later.id,
                field="any",
                explain=f"it is never reached: rule {earlier.id} before it matches whatever it matches, and {what};"
                " remove one, or put the narrower one first",
            )
            break


def covers(earlier: Rule, later: Rule) -> bool:
    """Does a rule certainly match whatever a later one matches?"""
    return (
        (earlier.class_ is None or earlier.class_ == later.class_)
        and _has_all(earlier.codes, later.codes)
        and _has_all(earlier.enhanced, later.enhanced)
        and (earlier.forwarded or _has_all(earlier.providers, later.providers))
        and (earlier.pattern is None or earlier.pattern == later.pattern)
        and set(earlier.unless) <= set(later.unless)
        and _covers_words(earlier, later)
    )


def _has_all(wide: Iterable[object], narrow: Iterable[object]) -> bool:
    """Nothing stands for everything."""
    return not wide or (bool(narrow) and set(narrow) <= set(wide))


def _covers_words(earlier: Rule, later: Rule) -> bool:
    certain = [word.lower() for word in later.all]
    if not all(any(word.lower() in one for one in certain) for word in earlier.all):
        return False
    wanted = [word.lower() for word in earlier.any]
    if not wanted or any(word in one for word in wanted for one in certain):
        return True
    return bool(later.any) and all(any(word in one.lower() for word in wanted) for one in later.any)


def _samples(book: RuleBook, rules: list[Rule], hints: list[Hint]) -> Iterator[Mistake]:
    for rule in rules:
        provider = next(iter(sorted(rule.providers)), "other")
        for sample in rule.sample:
            code, enhanced, text = split(sample)
            reading = book.read(code=code, enhanced=enhanced, text=text, provider=provider)
            read_by = reading.would[0] if rule.dry_run and reading.would else reading.rule
            if read_by != rule.id:
                explain = f"{sample[:80]!r} is read by {read_by!r} ({reading.category}), not by this rule"
                yield Mistake(rule=rule.id, field="sample", explain=f"{explain}; correct its words or the sample")
    for hint in hints:
        for sample in hint.sample:
            code, enhanced, text = split(sample)
            if not book.read(code=code, enhanced=enhanced, text=text, provider="other").trap:
                yield Mistake(rule=hint.id, field="sample", explain=f"{sample[:80]!r} has none of its words")


def _blocks_made_hard(book: RuleBook, known: Mapping[str, Category]) -> Iterator[Mistake]:
    """The words of our own rules about blocks are tried: no rule of an operator may take them for a dead address."""
    own = {one.rule.id: one.rule for one in book.matchers[: book.own]}
    told: set[str] = set()
    for matcher in book.matchers[book.own :]:
        theirs = matcher.rule
        if known[theirs.category].kind not in _NEVER_HARD or theirs.class_ == 4:
            continue
        for words in (*theirs.any, *(split(one)[2] for one in theirs.sample)):
            reading = book.read(code=550, enhanced="5.7.1", text=words, provider="other")
            rules = {reading.rule, *((reading.would[0],) if reading.would else ())}
            for name in sorted(rules & own.keys() - told):
                if known[own[name].category].kind == "hard":
                    told.add(name)
                    explain = f"it takes {words!r} of our rule {theirs.id} ({theirs.category}) for a dead address"
                    yield Mistake(rule=name, field="unless", explain=f"{explain}; put that into unless, or be narrower")
