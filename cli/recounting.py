"""Recounting: what the windows of a campaign should be, from the topics alone and not from the tally's table.

What an event adds to which minute is the definition that the tally uses too (:mod:`policy.counts`).  That each event
counts once is worked out here anew: the whole of each topic is there, so sets of ledger positions and of message ids
say it, where the tally has markers in its panes.

A running system has counted up to some offset of each topic, and its snapshots do not say which.  What is known is
that everything below the committed offsets is counted.  So the records above them are kept apart, one by one, and a
snapshot is right if it is the sum of all that is committed and the next so many records of either topic.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from agents.history import identity
from agents.tally import AHEAD_MIN
from cli.recounting_panes import Panes
from cli.recounting_scopes import Scopes
from policy.counts import MINUTE_MS, VECTOR, WINDOWS_MIN, Cells, Vector, booked, booked_by_source, booked_feedback
from schemas.codec import Malformed, decode, decode_feedback
from schemas.dead_letters import DeadLetter
from schemas.delivery import DeliveryFrame
from schemas.feedback import FeedbackEvent
from schemas.reputation import Counts, RatesSnapshot
from schemas.topics import BY_NAME, FEEDBACK, RESULTS
from streams.home import home

KEPT_MIN = max(WINDOWS_MIN.values())
TOPICS = (RESULTS, FEEDBACK)

Minutes = dict[int, Vector]
Place = tuple[str, int, int]  # topic, partition, offset
Flat = tuple[int, ...]  # all windows of a snapshot in a row


@dataclass(frozen=True, slots=True)
class Difference:
    """One number that is not what the topics say."""

    window: str
    column: str
    topics: int
    rates: int


@dataclass(slots=True)
class Recounted:
    """What the topics say of one campaign.

    ``settled`` is what is committed and thus counted; ``open`` are the records behind it, per topic in their order.
    """

    settled: Minutes = field(default_factory=dict)
    open: dict[str, list[Minutes]] = field(default_factory=lambda: {topic: [] for topic in TOPICS})
    frames: set[tuple[str, int, int]] = field(default_factory=set)
    ids: dict[tuple[str, str], int] = field(default_factory=dict)
    records: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TOPICS, 0))

    def is_right(self, snapshot: RatesSnapshot, windows: Sequence[str]) -> bool:
        """Is there a place in both topics up to which everything, and nothing else, is in these windows?"""
        minute = snapshot.at // MINUTE_MS
        settled = flat(self.settled, minute, windows)
        wanted = tuple(told - known for told, known in zip(_told(snapshot, windows), settled, strict=True))
        of_feedback = set(self._sums(FEEDBACK, minute, windows))
        return any(
            tuple(a - b for a, b in zip(wanted, sums, strict=True)) in of_feedback
            for sums in self._sums(RESULTS, minute, windows)
        )

    def differences(self, snapshot: RatesSnapshot, windows: Sequence[str]) -> list[Difference]:
        """Where the windows differ from everything that is in the topics."""
        minute = snapshot.at // MINUTE_MS
        total = {name: _sum(self._all(), minute, name) for name in windows}
        found = []
        for name in windows:
            told = snapshot.windows.get(name, Counts())
            for column, ours in zip(VECTOR, total[name], strict=True):
                if ours != getattr(told, column):
                    found.append(Difference(name, column, ours, getattr(told, column)))
        return found

    def is_empty(self, now: int, windows: Sequence[str]) -> bool:
        """Is nothing committed that would still be in a window?"""
        return not any(flat(self.settled, now // MINUTE_MS, windows))

    @property
    def waiting(self) -> int:
        """How many records may not have been counted yet."""
        return sum(map(len, self.open.values()))

    def add(self, topic: str, minutes: Minutes, *, is_settled: bool) -> None:
        """Take in what one record adds."""
        self.records[topic] += 1
        if is_settled:
            _merge(self.settled, minutes)
        else:
            self.open[topic].append(minutes)

    def _all(self) -> list[Minutes]:
        return [self.settled, *self.open[RESULTS], *self.open[FEEDBACK]]

    def _sums(self, topic: str, minute: int, windows: Sequence[str]) -> Iterator[Flat]:
        """The sums of the first none, one, two … open records of a topic."""
        total = (0,) * (len(VECTOR) * len(windows))
        yield total
        for one in self.open[topic]:
            total = tuple(a + b for a, b in zip(total, flat(one, minute, windows), strict=True))
            yield total


class Recount:
    """Counts the records of results and feedback, in the order of each partition.

    ``committed`` is, per topic and partition, the offset below which everything is known to be counted.  Dead letters
    come first: they say what the tally could not count.  ``panes`` is what the tally has written down.
    """

    def __init__(
        self,
        partitions: int,
        committed: Mapping[tuple[str, int], int],
        only: str | None = None,
        *,
        panes: Panes | None = None,
    ) -> None:
        self.panes = panes or Panes(committed, 0, only)
        self.campaigns: dict[str, Recounted] = {}
        self.scopes = Scopes()
        self._partitions = partitions
        self._committed = committed
        self._only = only
        self._ahead: dict[Place, int] = {}  # records of the future, and the newest minute that was counted of each
        self._unknown: dict[Place, list[str]] = {}  # feedback about campaigns that nobody knew

    def dead_letter(self, letter: DeadLetter) -> None:
        """Take notice of a record that was set aside, in whole or in part."""
        place = (letter.topic, letter.partition, letter.offset)
        if letter.topic in TOPICS and letter.reason == "from_the_future":
            self._ahead.setdefault(place, letter.at // MINUTE_MS + AHEAD_MIN)
        elif letter.topic == FEEDBACK and letter.reason == "unknown_campaign":
            self._unknown.setdefault(place, []).append(letter.explain)

    def results(self, partition: int, offset: int, raw: bytes | None) -> None:
        """Count a record of results."""
        frame = decode(DeliveryFrame, raw, max_bytes=BY_NAME[RESULTS].max_bytes)
        if isinstance(frame, Malformed) or not self._is_here(frame.campaign, partition):
            return
        own = self.campaigns.setdefault(frame.campaign, Recounted())
        if frame.ledger is not None:
            position = (frame.ledger.topic, frame.ledger.partition, frame.ledger.offset)
            if position in own.frames:
                return  # the sender has published it again
            own.frames.add(position)
        place = (RESULTS, partition, offset)
        minutes, by_source = self._in_time(place, booked(frame.results)), booked_by_source(frame.results)
        is_settled = self._is_settled(place)
        own.add(RESULTS, _totals(minutes), is_settled=is_settled)
        sources = self._in_time(place, by_source)
        self.scopes.results(frame.campaign, partition, minutes, sources, counts=is_settled)
        self.panes.add(frame.campaign, place, minutes, sources)

    def feedback(self, partition: int, offset: int, at: int, raw: bytes | None) -> None:
        """Count a record of feedback that came at a time (milliseconds)."""
        events = decode_feedback(raw)
        if isinstance(events, Malformed):
            return
        place = (FEEDBACK, partition, offset)
        strangers = self._unknown.get(place, ())
        by_campaign: dict[str, list[FeedbackEvent]] = {}
        for event in events:
            by_campaign.setdefault(event.campaign, []).append(event)
        for name, told in by_campaign.items():
            if self._is_here(name, partition) and not any(repr(name) in one for one in strangers):
                own = self.campaigns.setdefault(name, Recounted())
                adds = [self._in_time(place, one) for one in self._new(own, told, place, at // MINUTE_MS)]
                is_settled = self._is_settled(place)
                own.add(FEEDBACK, _totals(*adds), is_settled=is_settled)
                for one in adds:
                    self.scopes.feedback(name, partition, one, counts=is_settled)
                    self.panes.add(name, place, one, {})

    def _new(
        self, own: Recounted, events: Iterable[FeedbackEvent], place: Place, now_minute: int
    ) -> Iterator[dict[int, Cells]]:
        """What events add that were not counted before; they are remembered as long as their minutes count."""
        for event in events:
            one = identity(event)
            if one is not None and own.ids.get(one, -1) >= now_minute - KEPT_MIN:
                continue
            adds = booked_feedback([event])
            for minute in adds:
                if one is not None and minute <= self._ahead.get(place, minute):
                    own.ids[one] = minute
            yield adds

    def _in_time(self, place: Place, adds: dict[int, Cells]) -> dict[int, Cells]:
        """Without what was set aside as of the future."""
        newest = self._ahead.get(place)
        return adds if newest is None else {minute: cells for minute, cells in adds.items() if minute <= newest}

    def _is_here(self, name: str, partition: int) -> bool:
        """The tally counts only what is in its own partition; the rest it sends there."""
        return home(name, self._partitions) == partition and self._only in (None, name)

    def _is_settled(self, place: Place) -> bool:
        topic, partition, offset = place
        return offset < self._committed.get((topic, partition), 0)


def _totals(*adds: dict[int, Cells]) -> Minutes:
    due: Minutes = {}
    for minute, cells in (pair for one in adds for pair in one.items()):
        _merge(due, {minute: [sum(column) for column in zip(*cells.values(), strict=True)]})
    return due


def flat(minutes: Minutes, minute: int, windows: Sequence[str]) -> Flat:
    """The sums of some windows as they are at a minute, in a row."""
    return tuple(number for name in windows for number in _sum([minutes], minute, name))


def _told(snapshot: RatesSnapshot, windows: Sequence[str]) -> Flat:
    found = (snapshot.windows.get(name, Counts()) for name in windows)
    return tuple(getattr(counts, column) for counts in found for column in VECTOR)


def _sum(parts: Iterable[Minutes], minute: int, window: str) -> Vector:
    total = [0] * len(VECTOR)
    oldest = minute - WINDOWS_MIN[window]
    for one in parts:
        for at, vector in one.items():
            if oldest < at <= minute:
                total = [a + b for a, b in zip(total, vector, strict=True)]
    return total


def _merge(into: Minutes, more: Minutes) -> None:
    for minute, vector in more.items():
        held = into.get(minute)
        into[minute] = vector if held is None else [a + b for a, b in zip(held, vector, strict=True)]
