"""Shaping: what a sender may ask of each provider, and what it does about complaints.  All of it is data.

``shaping.toml`` beside this module says what each field means.  An operator's file (setting ``shaping_file``) has the
same form and is laid over it: a field replaces the field, a list of reactions the list, everything else stays.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Annotated, Literal

import msgspec

from policy.replies import shipped as shipped_replies

WITHIN_S = 3600.0
"""``times`` counts within so many seconds."""

_Count = Annotated[int, msgspec.Meta(ge=1, le=10_000)]
_Seconds = Annotated[int, msgspec.Meta(ge=1, le=7 * 86_400)]
Tls = Literal["opportunistic", "require"]


class WrongShaping(ValueError):  # noqa: N818 - it is what it says
    """A shaping file that cannot be meant; the message names the place and the fix."""


class Reaction(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to do after so many replies of a kind; ``shaping.toml`` says what each field means."""

    on: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    times: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1
    suspend_s: _Seconds | None = None
    connections: _Count | None = None
    messages: _Count | None = None
    per_minute: Annotated[float, msgspec.Meta(gt=0, le=1_000_000)] | None = None
    for_s: _Seconds | None = None

    def fits(self, category: str, text: str) -> bool:
        """Is it about this reply?  ``text`` is in lower case."""
        return (not self.on or category in self.on) and (not self.texts or any(word in text for word in self.texts))


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one provider, and its reactions in the order in which they are asked."""

    connections: int
    messages: int
    per_second: float
    idle_s: float
    tls: Tls
    limits: Literal["provider", "next_hop"]
    reactions: tuple[Reaction, ...] = ()


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    connections: _Count | None = None
    messages: _Count | None = None
    per_second: Annotated[float, msgspec.Meta(ge=0, le=1_000_000)] | None = None
    idle_s: Annotated[float, msgspec.Meta(ge=0, le=600)] | None = None
    tls: Tls | None = None
    limits: Literal["provider", "next_hop"] | None = None
    reaction: tuple[Reaction, ...] | None = None


@dataclass(frozen=True, slots=True)
class _File:
    default: _Table
    route: _Table
    provider: Mapping[str, _Table]


class Shaping:
    """The shape of every provider; ``over`` is the text of an operator's file."""

    __slots__ = ("_default", "_shapes", "route")

    def __init__(self, over: str = "") -> None:
        shipped, own = _read(_shipped_text()), _read(over)
        default = _over(shipped.default, own.default)
        self._default = _shape(default, _Table())
        self.route = _shape(default, _over(shipped.route, own.route))
        self._shapes = {
            provider: _shape(
                default, _over(shipped.provider.get(provider, _Table()), own.provider.get(provider, _Table()))
            )
            for provider in sorted({*shipped.provider, *own.provider})
        }

    def of(self, provider: str) -> Shape:
        """The shape of one provider, the default if it has none of its own."""
        return self._shapes.get(provider, self._default)

    @property
    def named(self) -> Mapping[str, Shape]:
        """The providers that have a shape of their own."""
        return self._shapes


@cache
def _shipped_text() -> str:
    return files("policy").joinpath("shaping.toml").read_text(encoding="utf-8")


def _over(below: _Table, above: _Table) -> _Table:
    said = {name: value for name in _Table.__struct_fields__ if (value := getattr(above, name)) is not None}
    return msgspec.structs.replace(below, **said)


def _shape(default: _Table, own: _Table) -> Shape:
    table = _over(default, own)
    mine = own.reaction or ()
    named = {category for reaction in mine if not reaction.texts for category in reaction.on}
    others = []
    for reaction in default.reaction or ():
        left = tuple(category for category in reaction.on if category not in named)
        if left or not reaction.on:
            others.append(msgspec.structs.replace(reaction, on=left))
    values = {name: getattr(table, name) for name in _Table.__struct_fields__ if name != "reaction"}
    return Shape(**values, reactions=(*mine, *others))


def _read(text: str) -> _File:
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as wrong:
        raise WrongShaping(f"not TOML: {wrong}; strings stand in quotes, tables in brackets") from wrong
    unknown = sorted(found.keys() - {"default", "route", "provider"})
    if unknown:
        raise WrongShaping(f"{unknown[0]}: unknown; tables are [default], [route] and [provider.NAME]")
    providers = found.get("provider", {})
    if not isinstance(providers, dict):
        raise WrongShaping("provider: a provider's fields stand in a table [provider.NAME]")
    return _File(
        _table("default", found.get("default", {})),
        _table("route", found.get("route", {})),
        {name: _table(f"provider.{name}", table) for name, table in providers.items()},
    )


def _table(where: str, found: object) -> _Table:
    try:
        table = msgspec.convert(found, _Table)
    except msgspec.ValidationError as wrong:
        said, _, place = str(wrong).partition(" - at ")
        place = where + place.strip("`").removeprefix("$")
        raise WrongShaping(f"{place}: {said}; policy/shaping.toml says what may stand there") from wrong
    for number, reaction in enumerate(table.reaction or (), 1):
        if (flaw := _flaw(reaction)) is not None:
            raise WrongShaping(f"{where}, reaction {number}: {flaw}")
    return table


def _flaw(reaction: Reaction) -> str | None:
    """Why a reaction would never, or always, do something; None if it is in order."""
    known = shipped_replies().categories
    unknown = [category for category in reaction.on if category not in known]
    if unknown:
        return f"on: there is no category {unknown[0]}; those that exist stand in policy/replies.toml"
    if not reaction.on and not reaction.texts:
        return "it fits every reply; give it on (categories) or texts"
    if not all(word and word == word.lower() for word in reaction.texts):
        return "texts: replies are compared in lower case; write the words so, and none that is empty"
    return _flaw_of_action(reaction)


def _flaw_of_action(reaction: Reaction) -> str | None:
    limits = any(one is not None for one in (reaction.connections, reaction.messages, reaction.per_minute))
    if reaction.suspend_s is None and not limits:
        return "it does nothing; give it suspend_s, connections, messages or per_minute"
    if limits and reaction.for_s is None:
        return "for_s is missing: for how long shall the limits hold?"
    if reaction.for_s is not None and not limits:
        return "for_s without a limit; a suspension's length is suspend_s"
    return None
