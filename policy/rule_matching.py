"""Rule texts, all looked for in one pass over a reply, in time proportional to its length whatever strangers send."""

import re
from collections.abc import Iterable, Sequence

import re2

MAX_REPEAT = 100
MOST_MEMORY = 64 << 20

_COUNTED = re.compile(r"\{([0-9]*),?([0-9]*)\}")
_ESCAPES_AND_SETS = re.compile(r"\\.|\[\^?\]?[^\]]*\]")
_CODES = "[0-9-]+"


def _options() -> re2.Options:
    options = re2.Options()
    options.never_capture = True
    options.log_errors = False
    options.dot_nl = True
    options.max_mem = MOST_MEMORY
    return options


_OPTIONS = _options()


def any_of(words: Iterable[str]) -> str:
    """A pattern that finds any of these words."""
    return "|".join(re2.escape(word.lower()) for word in words)


def by_codes(codes: Sequence[int], enhanced: Iterable[str]) -> str:
    """A pattern for the head of a line, "CODE X.Y.Z text"; ``enhanced`` as made by :func:`expanded`."""
    digits = "|".join(map(str, codes)) if codes else _CODES
    wanted = "|".join(
        one.replace(".", r"\.").replace("x", "[45]", 1).replace("*", "[0-9]+") for one in sorted(enhanced)
    )
    return f"^(?:{digits}) (?:{wanted}) " if wanted else f"^(?:{digits}) "


def expanded(code: str) -> list[str]:
    """An enhanced code of a rule without its range: "x.7.26", "5.7.*" and "5.7.606-649" may be written."""
    found = re.fullmatch(r"([45x])\.([0-9]{1,3})\.(?:([0-9]{1,3})(?:-([0-9]{1,3}))?|(\*))", code)
    if found is None:
        raise ValueError(f"{code!r} is no enhanced code; write 5.1.1, x.7.26 (either class), 5.7.* or 5.7.606-649")
    class_, subject, first, last, every = found.groups()
    if every:
        return [f"{class_}.{int(subject)}.*"]
    if last is not None and int(last) < int(first):
        raise ValueError(f"{code!r} ends before it begins")
    return [f"{class_}.{int(subject)}.{detail}" for detail in range(int(first), int(last or first) + 1)]


def found_in(pattern: str, line: str) -> str | None:
    """The part of a line that a pattern finds."""
    found = re2.compile(pattern, options=_OPTIONS).search(line)
    return str(found.group(0)) if found is not None else None


def flaw_of_pattern(pattern: str) -> str | None:
    """Why a pattern would match everything, never, or cost too much memory; None if it is in order."""
    try:
        compiled = re2.compile(pattern, options=_OPTIONS)
    except re2.error as wrong:
        said = wrong.args[0].decode(errors="replace") if wrong.args and isinstance(wrong.args[0], bytes) else str(wrong)
        return f"it is no regular expression of RE2: {said}"
    if compiled.search("") is not None:
        return "it matches everything, an empty reply too; say what must stand in the line"
    plain = _ESCAPES_AND_SETS.sub("x", pattern)
    if any(int(number or 0) > MAX_REPEAT for pair in _COUNTED.findall(plain) for number in pair):
        return f"a repeat may count to {MAX_REPEAT}; .* costs less and finds more"
    if re.sub(r"\\[A-Zpx]", "", pattern) != re.sub(r"\\[A-Zpx]", "", pattern).lower():
        return "it has capitals, and the line is in lower case; write it so"
    return None


class Screen:
    """Many patterns as one: the literals that they cannot do without in one automaton, then those that may match.

    One automaton of the whole patterns is faster on replies that it has seen, but each new reply costs it a thousand
    new states; literals alone have few, and a stranger's text cannot make more of them.
    """

    __slots__ = ("_filter",)

    def __init__(self, patterns: Iterable[str]) -> None:
        self._filter = re2.Filter()
        empty = True
        for pattern in patterns:
            self._filter.Add(pattern, _OPTIONS)
            empty = False
        if empty:
            raise ValueError("there is nothing to look for")
        self._filter.Compile()

    def found(self, line: str) -> list[int]:
        """The places of the patterns that stand in a line, in their order."""
        found: list[int] | None = self._filter.Match(line.encode("utf-8", "replace"))
        return sorted(found) if found else []
