"""Misspelt domains: which large provider's domain did a person most likely mean?

Asked in this order: is it a real domain (never a misspelling), is it a known misspelling, is its end a mistyped one
(``.con``), is its name one slip away from a provider's.  A slip is one edit of Damerau's four (a letter too many, too
few, wrong, or two that changed places; optimal string alignment), or two in a name of nine letters and more.  The
first letter must be right unless it changed places with the second: real names differ there (mail, email, ymail,
gmail), fingers seldom do.  Short names have many neighbours that are somebody's own, so that into a name of up to six
letters only a letter that is doubled, or lies beside its neighbour on the keyboard, has slipped.

What one edit makes of every name is worked out once, so that a question is a look-up; the few names of nine letters
and more are compared letter by letter.  The data are in ``typos.toml`` beside this module.
"""

import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from itertools import pairwise

import msgspec

from policy import providers

SHORT = 6
LONG = 9
_TWO_SLIPS = 2
_LETTERS = "abcdefghijklmnopqrstuvwxyz0135-"  # with the digits that are taken for letters
_ROWS = (("qwertyuiop", 0.0), ("asdfghjkl", 0.25), ("zxcvbnm", 0.75), ("azertyuiop", 0.0), ("qwertzuiop", 0.0))


class _Names(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    names: frozenset[str]


class _Domains(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    domains: frozenset[str]


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    providers: dict[str, list[str]]
    slips: dict[str, list[str]]
    exact_only: _Names
    real: _Domains
    known: dict[str, list[str]]


class Typos:
    """The tables, ready to be asked."""

    def __init__(self, file: _File) -> None:
        self._ends: dict[str, frozenset[str]] = {name: frozenset(ends) for name, ends in file.providers.items()}
        meant = {f"{name}.{end}" for name, ends in file.providers.items() for end in ends}
        self.real = frozenset(meant | file.real.domains | providers.shipped().keys())
        self._known = {typo: domain for domain, typos in file.known.items() for typo in typos}
        self._slipped = {wrong: end for end, typos in file.slips.items() for wrong in typos}
        near = [name for name in file.providers if name not in file.exact_only.names]
        self._near = _turned({name: _one_edit(name) for name in near})
        self._long = [name for name in near if len(name) >= LONG]

    def likely(self, domain: str) -> str | None:
        """The provider's domain that was most likely meant; None if this one may well be what it says."""
        if domain in self.real:
            return None
        known = self._known.get(domain)
        if known is not None:
            return known
        name, _, end = domain.partition(".")
        for right in (end, self._slipped.get(end)):
            if right is not None and (meant := self._with_end(name, right)) not in {None, domain}:
                return meant
        return None

    def _with_end(self, name: str, end: str) -> str | None:
        if end in self._ends.get(name, ()):
            return f"{name}.{end}"
        names = [*self._near.get(name, ()), *(one for one in self._long if two_slips_apart(name, one))]
        return next((f"{one}.{end}" for one in names if end in self._ends[one]), None)


@cache
def shipped() -> Typos:
    """The tables as shipped."""
    raw = files("policy").joinpath("typos.toml").read_text(encoding="utf-8")
    return Typos(msgspec.convert(tomllib.loads(raw), _File))


def likely_domain(domain: str) -> str | None:
    """The large provider's domain that was most likely meant by this one (lower case, A-labels), or None."""
    return shipped().likely(domain)


def is_real(domain: str) -> bool:
    """Is this a domain of a mailbox provider that is known by name?"""
    return domain in shipped().real


def two_slips_apart(name: str, right: str) -> bool:
    """Are these one or two edits apart, with the first letter right?"""
    if name[:1] != right[:1] or abs(len(name) - len(right)) > _TWO_SLIPS or name == right:
        return False
    return distance(name, right) <= _TWO_SLIPS


def distance(one: str, other: str) -> int:
    """Optimal string alignment: how many edits, none of them within another (Damerau; restricted)."""
    before: list[int] = []
    above = list(range(len(other) + 1))
    for row, letter in enumerate(one, 1):
        line = [row]
        for column, its in enumerate(other, 1):
            best = min(above[column] + 1, line[-1] + 1, above[column - 1] + (letter != its))
            if row > 1 and column > 1 and letter == other[column - 2] and one[row - 2] == its:
                best = min(best, before[column - 2] + 1)
            line.append(best)
        before, above = above, line
    return above[-1]


def _one_edit(name: str) -> Iterator[str]:
    """What one slip makes of a name."""
    for at in range(len(name) - 1):
        yield name[:at] + name[at + 1] + name[at] + name[at + 2 :]
    for at in range(1, len(name)):
        yield name[:at] + name[at + 1 :]
        yield from (name[:at] + letter + name[at + 1 :] for letter in _LETTERS)
    for at in range(1, len(name) + 1):
        beside = name[at - 1] + name[at : at + 1]
        may_slip = (
            _LETTERS if len(name) > SHORT else {*beside, *(key for one in beside for key in _keys().get(one, ()))}
        )
        yield from (name[:at] + letter + name[at:] for letter in may_slip)
    yield name[0] + name


@cache
def _keys() -> Mapping[str, frozenset[str]]:
    """The keys beside each key, on the usual keyboards of Latin letters."""
    beside: defaultdict[str, set[str]] = defaultdict(set)
    for row, _ in _ROWS:
        for left, right in pairwise(row):
            beside[left].add(right)
            beside[right].add(left)
    (upper, _), (middle, shift), (lower, more) = _ROWS[:3]
    for one, other, offset in ((upper, middle, shift), (middle, lower, more - shift)):
        for at, key in enumerate(one):
            for place in (int(at - offset - 0.5), int(at - offset + 0.5)):
                if 0 <= place < len(other):
                    beside[key].add(other[place])
                    beside[other[place]].add(key)
    return {key: frozenset(found) for key, found in beside.items()}


def _turned(edits: Mapping[str, Iterable[str]]) -> Mapping[str, tuple[str, ...]]:
    turned: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for name, made in edits.items():
        for typo in made:
            if typo != name and not typo.endswith("-"):
                turned[typo][name] = None
    return {typo: tuple(names) for typo, names in turned.items()}
