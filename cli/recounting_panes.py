"""Recounting the table of minutes: what its changelog holds, beside what the topics say must be in it.

This is the state that a worker starts from.  Each minute of a campaign says up to which offset of results and of
feedback it has counted, and everything below the committed offsets is counted.  So for each record it is known whether
it is in a minute, and the numbers of a provider have to be equal.  To which address or source a report belongs that
names neither depends on what had been counted when it came: there a number has a least and a most.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from agents.live import OTHER_SOURCES, SOURCES_KEPT
from policy.counts import MINUTE_MS, VECTOR, WINDOWS_MIN, Cells, Vector, merge
from schemas.topics import FEEDBACK, RESULTS
from streams import panes
from streams.terms import replaces

_KEPT_MIN = max(WINDOWS_MIN.values())
_TOPICS = (RESULTS, FEEDBACK)  # in the order of a pane's offsets
_NONE: Vector = [0] * len(VECTOR)

_Key = tuple[str, tuple[float, float]]  # campaign, and the seconds of its minute
_read_key = msgspec.json.Decoder(_Key).decode
_read_value = msgspec.json.Decoder(tuple[int, panes.Pane]).decode


@dataclass(frozen=True, slots=True)
class PaneDifference:
    """A number of one minute that is not what the topics say; ``at`` is where the minute begins."""

    scope: str
    at: int
    column: str
    at_least: int
    at_most: int
    table: int


@dataclass(slots=True)
class _Minute:
    term: int = -1
    offsets: list[int] = field(default_factory=lambda: [panes.NOT_APPLIED, panes.NOT_APPLIED])
    told: Cells = field(default_factory=dict)  # by scope, as what follows
    topics: Cells = field(default_factory=dict)
    nobodys: Cells = field(default_factory=dict)  # reports that name no address, no source


class Panes:
    """The minutes of the last seven days: first the changelog is taken in, then what each record of the topics adds.

    ``committed`` is, per topic and partition, the offset below which everything is counted.  With ``only`` the minutes
    of other campaigns are left out.  It needs as much memory as the workers' tables together.
    """

    def __init__(self, committed: Mapping[tuple[str, int], int], now: int, only: str | None = None) -> None:
        self._committed = committed
        self._only = only
        self._oldest = now // MINUTE_MS - _KEPT_MIN
        self._minutes: dict[str, dict[int, _Minute]] = {}

    @property
    def campaigns(self) -> set[str]:
        """The campaigns of which there are minutes."""
        return set(self._minutes)

    def written(self, raw_key: bytes | None, raw: bytes | None) -> None:
        """Take in a record of the changelog; of one key the newest counts, as :mod:`streams.terms` says it.

        Raises msgspec.MsgspecError for one that no worker has written.
        """
        if raw_key is None:
            return
        campaign, (start, _) = _read_key(raw_key)
        minute = int(start) // panes.SIZE_S
        if minute <= self._oldest or self._only not in (None, campaign):
            return
        own = self._minutes.setdefault(campaign, {})
        if raw is None or raw == b"null":
            own.pop(minute, None)
            return
        term, pane = _read_value(raw)
        held, offsets = own.get(minute), panes.applied(pane)
        if held is None or replaces(term, offsets, held.term, held.offsets):
            own[minute] = _Minute(term, offsets, dict(_scopes(panes.cells_of(pane), panes.sources_of(pane))))

    def add(
        self, campaign: str, place: tuple[str, int, int], minutes: Mapping[int, Cells], sources: Mapping[int, Cells]
    ) -> None:
        """Take in what one record adds, where it must have been counted."""
        topic, partition, offset = place
        is_committed = offset < self._committed.get((topic, partition), 0)
        for minute, cells in minutes.items():
            held = self._minutes.get(campaign, {}).get(minute)
            applied = panes.NOT_APPLIED if held is None else held.offsets[_TOPICS.index(topic)]
            if minute <= self._oldest or not (is_committed or offset <= applied):
                continue
            if held is None:
                held = self._minutes.setdefault(campaign, {}).setdefault(minute, _Minute())
            for scope, vector in _scopes(cells, sources.get(minute, {})):
                merge(held.topics, {scope: vector})
            if topic == FEEDBACK:
                for key, vector in cells.items():
                    provider, _, ip = key.partition("|")
                    merge(held.nobodys, {"source:": vector})
                    if not ip:
                        merge(held.nobodys, {f"ip:/provider:{provider}": vector})

    def differences(self, campaign: str, oldest: int) -> Iterator[PaneDifference]:
        """The numbers of a campaign that cannot be, by minute; after ``oldest`` the topics have everything."""
        own = self._minutes.get(campaign, {})
        names = {scope for held in own.values() for scope in held.told | held.topics if scope.startswith("source:")}
        others = f"source:{OTHER_SOURCES.rstrip('|')}"
        is_told_apart = len(names) <= SOURCES_KEPT and others not in names
        for minute, held in sorted(own.items()):
            if oldest and minute <= oldest:
                continue
            for scope in sorted(held.told | held.topics):
                if is_told_apart or not scope.startswith("source:"):
                    yield from _differences(held, scope, minute * MINUTE_MS)


def _differences(held: _Minute, scope: str, at: int) -> Iterator[PaneDifference]:
    kind, mark, rest = scope.partition("/provider:") if scope.startswith("ip:") else scope.partition(":")
    unsure = {"source": "source:", "provider": ""}.get(kind, f"ip:{mark}{rest}")
    each = (held.topics.get(scope, _NONE), held.nobodys.get(unsure, _NONE), held.told.get(scope, _NONE))
    for column, ours, more, told in zip(VECTOR, *each, strict=True):
        if not ours <= told <= ours + more:
            yield PaneDifference(scope, at, column, ours, ours + more, told)


def _scopes(cells: Cells, sources: Cells) -> Iterator[tuple[str, Vector]]:
    """The numbers by scope within a campaign: providers, addresses at each, sources."""
    providers: Cells = {}
    for key, vector in cells.items():
        provider, _, ip = key.partition("|")
        merge(providers, {f"provider:{provider}": vector})
        if ip:
            yield f"ip:{ip}/provider:{provider}", vector
    yield from providers.items()
    for key, vector in sources.items():
        yield f"source:{key.rstrip('|')}", vector
