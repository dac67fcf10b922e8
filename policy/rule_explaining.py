"""Why a reply is read as it is: which rule, by which words, what else would have fitted, and what follows."""

import re
from collections.abc import Sequence

import msgspec

from policy.replies import Asked, Matcher, Reading, RuleBook, asked_of
from policy.rule_matching import found_in
from policy.rules import Category, Rule

_MOST_OTHERS = 5
_PAUSES = {
    "recipient": "this recipient",
    "host": "this server",
    "connections": "new connections to this provider",
    "ip": "this provider from this source address",
    "domain": "the sending domain",
    "campaign": "the campaign: the same content would be refused again",
}
_SCOPES = {
    "platform": "the address is suppressed for everybody",
    "domain": "the domain is marked: its addresses are suppressed for everybody",
    "tenant": "the address is suppressed for this tenant only",
}


class Explained(msgspec.Struct, frozen=True, kw_only=True):
    """A reading with its reasons, in words that an operator can act upon."""

    line: str
    rule: str
    why: str
    category: str
    class_: str = msgspec.field(name="class")
    final: bool
    suppress: str
    slow: bool
    pauses: str
    pause_s: int
    counts: str
    trap: float
    follows: tuple[str, ...]
    others: tuple[str, ...]
    would: str | None


def split(reply: str) -> tuple[int | None, str | None, str]:
    """Code, enhanced code and text of a reply as it is written on one line."""
    head = re.match(r"\s*(?:([2-5][0-9]{2})(?:[ -]|\Z))?(?:#?([245]\.[0-9]{1,3}\.[0-9]{1,3})(?![.0-9])\s*)?", reply)
    if head is None:
        return None, None, reply
    return int(head[1]) if head[1] else None, head[2], reply[head.end() :]


def explain(book: RuleBook, reply: str, provider: str = "other") -> Explained:
    """All that can be said about one reply."""
    code, enhanced, text = split(reply)
    reading = book.read(code=code, enhanced=enhanced, text=text, provider=provider)
    asked = asked_of(code=code, enhanced=enhanced, text=text)
    fitting = book.matching(asked)
    category = book.categories[reading.category]
    return Explained(
        line=asked.line,
        rule=reading.rule,
        why=_why(reading, asked, fitting, book),
        category=reading.category,
        class_=category.class_,
        final=reading.final,
        suppress=reading.scope,
        slow=category.slow,
        pauses=category.pauses,
        pause_s=category.pause_s,
        counts=category.counts,
        trap=reading.trap,
        follows=tuple(follows(reading, category)),
        others=tuple(
            f"{one.rule.id} ({one.rule.category})"
            for one in fitting
            if one.rule.id != reading.rule and not one.rule.dry_run
        )[:_MOST_OTHERS],
        would=f"{reading.would[0]} ({reading.would[1]})" if reading.would else None,
    )


def follows(reading: Reading, category: Category) -> list[str]:
    """What happens after such a reply, one sentence each."""
    said = ["the message is not tried again" if reading.final else _again(category)]
    if reading.scope:
        said.append(_SCOPES[reading.scope])
    elif category.after_campaigns:
        said.append(
            f"nobody is suppressed for it once; {category.after_campaigns} campaigns within {category.after_days} days"
            " are the proof that suppresses the address"
        )
    else:
        said.append("nobody is suppressed")
    if category.slow:
        said.append("mail to that provider goes slower")
    if category.pauses:
        until = f" for {category.pause_s} s" if category.pause_s else ""
        said.append(f"held back{until}: {_PAUSES[category.pauses]}")
    counted = {"hard_bounce": "hard bounces", "block": "blocks", "soft": "soft bounces"}[category.counts]
    said.append(f"it counts among the {counted} of the campaign")
    if reading.trap:
        said.append(f"its words hint at a spam trap (strength {reading.trap:g}); that alone never isolates")
    return said


def _again(category: Category) -> str:
    after = f" after {category.after_s} s at the earliest" if category.after_s else " after the usual pauses"
    times = f", {category.tries} attempts in all" if category.tries else ""
    return f"the message is tried again{after}{times}"


def _why(reading: Reading, asked: Asked, fitting: Sequence[Matcher], book: RuleBook) -> str:
    rule = next((one.rule for one in fitting if one.rule.id == reading.rule), None)
    if rule is not None:
        whose = "your" if any(one.rule is rule for one in book.matchers[: book.own]) else "our"
        return f"{whose} rule {rule.id}: {'; '.join(_reasons(rule, asked))}"
    if reading.rule.startswith("enhanced"):
        return f"no rule knows the text, so the enhanced code {asked.enhanced} decides"
    if reading.rule.startswith("code"):
        return f"no rule knows the text or an enhanced code, so the digits {asked.code or asked.reply_class} decide"
    return "no rule knows the text, and there is no code of a refusal"


def _reasons(rule: Rule, asked: Asked) -> list[str]:
    said = []
    if rule.pattern is not None and (found := found_in(rule.pattern, asked.line)) is not None:
        said.append(f"its pattern finds {found!r}")
    if words := [word for word in rule.any if word.lower() in asked.line]:
        said.append(f"it says {' and '.join(map(repr, words[:3]))}")
    if rule.all:
        said.append(f"it says {' and '.join(map(repr, rule.all))}")
    if rule.codes:
        said.append(f"its code is {asked.code}")
    if rule.enhanced:
        said.append(f"its enhanced code is {asked.enhanced}")
    if rule.class_ is not None and asked.reply_class == rule.class_:
        said.append(f"it is a {rule.class_}xx reply")
    if rule.provider:
        said.append(f"it is a rule for {', '.join(sorted(rule.providers))}")
    return said
