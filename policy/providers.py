"""Providers: who takes the mail of a domain.  The table is data, ``providers.toml`` beside this module.

A domain that is listed is its provider's, whatever its mail servers are called.  Any other belongs to whoever runs
the mail servers: a company's domain at Google's servers is subject to Google's rules.
"""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

OTHER = "other"
NOBODY = "none"
_MX = "mx"
_LOOPS = "feedback_loops"


class Providers:
    """The provider of each known domain; ``extra`` are an installation's own, and win."""

    __slots__ = ("_by_domain",)

    def __init__(self, extra: Mapping[str, str]) -> None:
        self._by_domain = {**shipped(), **{domain.lower(): provider for domain, provider in extra.items()}}

    def of(self, domain: str, mx_hosts: Sequence[str] = ()) -> str:
        """The provider's short name; ``other`` if neither the domain nor its mail servers are known.

        ``mx_hosts`` are the servers of the domain's best preference.  Upper case and a final dot are read.
        """
        found = self._by_domain.get(domain)
        if found is None:
            found = self._by_domain.get(_plain(domain))
        if found is None:
            found = next((by_host for host in mx_hosts if (by_host := of_host(host)) is not None), OTHER)
        return found


def of_host(host: str) -> str | None:
    """Whose mail server is it?  Compared at the borders of labels; the longest suffix that is listed decides."""
    suffixes, name = shipped_suffixes(), _plain(host)
    while name:
        if (provider := suffixes.get(name)) is not None:
            return provider
        name = name.partition(".")[2]
    return None


@cache
def shipped() -> Mapping[str, str]:
    """Domain to provider as shipped; a domain that is listed twice is refused."""
    return _turned({provider: listed for provider, listed in _table().items() if provider not in (_MX, _LOOPS)})


class _Force:
    """Who passes complaints on to this installation; None for those that are shipped."""

    loops: frozenset[str] | None = None


def put_loops_in_force(loops: frozenset[str] | None) -> None:
    """From now on :func:`heard` answers these; None takes those that are shipped.  Said once, at a start."""
    _Force.loops = loops


def heard() -> frozenset[str]:
    """The providers that pass complaints on."""
    return shipped_loops() if _Force.loops is None else _Force.loops


def loops_of(words: Sequence[str], own: Iterable[str] = ()) -> frozenset[str]:
    """Who passes complaints on, by the words of the setting ``feedback_loops``; ``own`` are providers of your own.

    No words are those that are shipped; ``+name`` adds to them and ``-name`` takes away; names alone are all there
    are, and ``none`` is nobody.  A provider that nobody knows is a ``ValueError``: its complaints would be divided by
    nothing.
    """
    known = {*shipped().values(), *shipped_suffixes().values(), *shipped_loops(), *own}
    added = {word[1:] for word in words if word.startswith("+")}
    gone = {word[1:] for word in words if word.startswith("-")}
    alone = {word for word in words if word[0] not in "+-" and word != NOBODY}
    for name in sorted(added | gone | alone):
        if name not in known:
            raise ValueError(f"no provider is called {name!r}; known are {', '.join(sorted(known))}")
    begin = frozenset(alone) if alone or NOBODY in words else shipped_loops()
    return (begin | added) - gone


@cache
def shipped_loops() -> frozenset[str]:
    """The providers that pass complaints on, as shipped."""
    return frozenset(_table()[_LOOPS]["providers"])


@cache
def shipped_suffixes() -> Mapping[str, str]:
    """End of a mail server's name to provider, as shipped."""
    return _turned(_table()[_MX])


@cache
def _table() -> dict[str, Any]:  # Any: TOML; _turned refuses what is no list of names
    return tomllib.loads(files("policy").joinpath("providers.toml").read_text(encoding="utf-8"))


def _turned(table: Mapping[str, Sequence[str]]) -> Mapping[str, str]:
    turned: dict[str, str] = {}
    for provider, names in table.items():
        for name in names:
            if name in turned:
                raise ValueError(f"providers.toml: {name} is listed under {turned[name]} and {provider}")
            turned[name] = provider
    return turned


def _plain(name: str) -> str:
    return name.lower().removesuffix(".")
