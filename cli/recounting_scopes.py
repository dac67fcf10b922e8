"""Recounting what is within a campaign and across campaigns: providers, sources of its list, sending addresses.

Their snapshots come every few seconds and do not say how far they have counted, and to which address or source a
report belongs that names neither depends on what had been counted when it came.  So each number has a least (all that
is committed and certain) and a most (all that is in the topics and possible); when the workers are at the end of the
topics, and nothing is uncertain, these are the same.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from agents.live import OTHER_SOURCES, SOURCES_KEPT
from policy.counts import MINUTE_MS, VECTOR, WINDOWS_MIN, Cells, Vector
from policy.naming import campaign_scope
from schemas.reputation import Counts, RatesSnapshot

KINDS = ("/provider:", "/source:")
_NONE: Vector = [0] * len(VECTOR)

Minutes = dict[int, Vector]


@dataclass(frozen=True, slots=True)
class ScopeDifference:
    """A number of a scope that cannot be: what it is, and what it may be by the topics."""

    scope: str
    window: str
    column: str
    at_least: int
    at_most: int
    rates: int


@dataclass(slots=True)
class _Sums:
    least: Minutes = field(default_factory=dict)
    most: Minutes = field(default_factory=dict)


@dataclass(slots=True)
class Scopes:
    """The sums of each scope by minute."""

    _sums: dict[str, _Sums] = field(default_factory=dict)
    _nobodys: dict[str, Minutes] = field(default_factory=dict)  # feedback without an address or a source
    _sources: dict[str, set[str]] = field(default_factory=dict)

    def results(
        self, campaign: str, partition: int, minutes: Mapping[int, Cells], sources: Mapping[int, Cells], *, counts: bool
    ) -> None:
        """Take in what results add; ``counts`` says that it is counted for certain."""
        for minute, provider, ip, vector in _flat(minutes):
            self._add(f"{campaign_scope(campaign)}/provider:{provider}", minute, vector, counts=counts)
            if ip:
                self._add(_address(ip, provider, partition), minute, vector, counts=counts)
        for minute, source, _, vector in _flat(sources):
            self._sources.setdefault(campaign, set()).add(source)
            self._add(f"{campaign_scope(campaign)}/source:{source}", minute, vector, counts=counts)

    def feedback(self, campaign: str, partition: int, minutes: Mapping[int, Cells], *, counts: bool) -> None:
        """Take in what feedback adds."""
        for minute, provider, ip, vector in _flat(minutes):
            self._add(f"{campaign_scope(campaign)}/provider:{provider}", minute, vector, counts=counts)
            if ip:
                self._add(_address(ip, provider, partition), minute, vector, counts=counts)
            else:
                _merge(self._nobodys.setdefault(_address("", provider, partition), {}), minute, vector)
            _merge(self._nobodys.setdefault(f"{campaign_scope(campaign)}/source:", {}), minute, vector)

    def differences(self, snapshot: RatesSnapshot, windows: Sequence[str]) -> list[ScopeDifference]:
        """The numbers of a snapshot that cannot be."""
        own = self._sums.get(snapshot.scope, _Sums())
        nobodys = self._nobodys.get(self._unsure(snapshot.scope), {})
        minute, found = snapshot.at // MINUTE_MS, []
        for name in windows:
            told = snapshot.windows.get(name, Counts())
            least, most = (_sum(minutes, minute, name) for minutes in (own.least, own.most))
            unsure = _sum(nobodys, minute, name)
            for column, low, high, more in zip(VECTOR, least, most, unsure, strict=True):
                if not low <= (number := getattr(told, column)) <= high + more:
                    found.append(ScopeDifference(snapshot.scope, name, column, low, high + more, number))
        return found

    def is_told_apart(self, scope: str) -> bool:
        """Is it known which records count in it?  Of very many sources only the first ones are told apart."""
        campaign, _, source = scope.partition("/source:")
        known = self._sources.get(campaign.removeprefix(campaign_scope("")), ())
        return not source or (len(known) <= SOURCES_KEPT and source != OTHER_SOURCES.rstrip("|"))

    def _unsure(self, scope: str) -> str:
        if scope.startswith("ip:"):
            _, mark, rest = scope.partition("/provider:")
            return f"ip:{mark}{rest}"
        campaign, mark, _ = scope.partition("/source:")
        return f"{campaign}{mark}" if mark else ""

    def _add(self, scope: str, minute: int, vector: Vector, *, counts: bool) -> None:
        sums = self._sums.setdefault(scope, _Sums())
        _merge(sums.most, minute, vector)
        if counts:
            _merge(sums.least, minute, vector)


def _flat(minutes: Mapping[int, Cells]) -> Iterable[tuple[int, str, str, Vector]]:
    """Minute, provider (or source), address and numbers of each cell."""
    for minute, cells in minutes.items():
        for key, vector in cells.items():
            name, _, ip = key.partition("|")
            yield minute, name, ip, vector


def _address(ip: str, provider: str, partition: int) -> str:
    return f"ip:{ip}/provider:{provider}/partition:{partition}"


def _merge(into: Minutes, minute: int, vector: Vector) -> None:
    into[minute] = [a + b for a, b in zip(into.get(minute, _NONE), vector, strict=True)]


def _sum(minutes: Minutes, now: int, window: str) -> Vector:
    oldest, total = now - WINDOWS_MIN[window], _NONE
    for minute, vector in minutes.items():
        if oldest < minute <= now:
            total = [a + b for a, b in zip(total, vector, strict=True)]
    return total
