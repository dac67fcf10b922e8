"""Counting as the tally counts: each result and signal once, in the minute of its mail, whatever comes twice.

Panes are kept for what they have applied only; their counts are in the running sums.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import cast

import msgspec

from agents.history import identity
from agents.live import Live
from agents.tally import AHEAD_MIN
from cli.backtest_records import Accepted, Bounced, Frame, Result
from policy.counts import MINUTE_MS, WINDOWS_MIN, booked, booked_feedback, merge
from policy.replies import category_of
from schemas.counting import Accepted as Short
from schemas.delivery import DeliveryResult, Position
from schemas.feedback import FeedbackEvent
from schemas.reputation import Counts
from streams import panes
from streams.topics import PANES_KEPT_S

KEPT_MIN = PANES_KEPT_S * 1000 // MINUTE_MS
LENGTHS_MIN = tuple(WINDOWS_MIN.values())

IsHeld = Callable[[int, str | None], bool]

_SIGNALS = {"hard_bounce", "block"}
_FEEDBACK_SIGNALS = {"hard_bounce", "block", "complaint", "trap_hit"}
_FROM_RESULTS, _FROM_FEEDBACK = 0, 1
_KIND = 4  # place in a signal


@dataclass(frozen=True, slots=True)
class Counted:
    """Of a frame: the results that were new, the minutes that had nothing so far, and whether servers refuse us."""

    new: Sequence[Result]
    fresh: Sequence[int]
    blocked: bool


@dataclass(slots=True)
class Counting:
    """The running sums of one campaign, and what they were made of."""

    live: Live = field(default_factory=Live)
    results: int = 0
    events: int = 0
    repeats: int = 0  # results and signals that had been counted before
    left_out: int = 0  # too old, or from the future
    _panes: dict[tuple[int, int], panes.Pane] = field(default_factory=dict)  # by minute and partition

    def windows(self, now: int) -> dict[str, Counts]:
        """The sums of each window."""
        return self.live.rolling.windows(now // MINUTE_MS)

    def count(self, frame: Frame, partition: int, offset: int, now: int, is_held: IsHeld | None = None) -> "Counted":
        """Count a frame.

        What is held according to ``is_held`` (asked with time and provider) is taken notice of, and left out of the
        windows.
        """
        results = frame.results
        kept = results if is_held is None else [one for one in results if not is_held(one.at, one.provider)]
        oldest, latest = now // MINUTE_MS - KEPT_MIN, now // MINUTE_MS + AHEAD_MIN
        cells_of, signals = _booked(kept, partition, offset)
        minutes = cells_of if kept is results else _booked(results, partition, offset)[0]
        ledger = cast("Position | None", frame.ledger)  # it has the same fields
        counted: set[int] = set()
        fresh: list[int] = []
        for minute in minutes:
            if not oldest < minute <= latest:
                continue
            held = self._panes.get((minute, partition))
            pane = panes.with_results(held or panes.EMPTY, {}, (), offset=offset, ledger=ledger)
            if pane is None:
                continue
            self._panes[minute, partition] = pane
            if (cells := cells_of.get(minute)) is not None:
                self.live.add(minute, cells, signals.get(minute, ()))
            counted.add(minute)
            if held is None:
                fresh.append(minute)
        blocked = any(one[_KIND] == "block" for of_minute in signals.values() for one in of_minute)
        if len(counted) == len(minutes):
            self.results += len(results)
            return Counted(results, fresh, blocked)
        new = [one for one in results if one.at // MINUTE_MS in counted]
        beyond = sum(not oldest < one.at // MINUTE_MS <= latest for one in results)
        self.results += len(new)
        self.left_out += beyond
        self.repeats += len(results) - len(new) - beyond
        return Counted(new, fresh, blocked)

    def count_feedback(
        self,
        events: Sequence[FeedbackEvent],
        partition: int,
        offset: int,
        now: int,
        is_held: IsHeld | None = None,
    ) -> tuple[list[FeedbackEvent], list[int]]:
        """Count signals; answers those that were new, and the minutes that had nothing so far."""
        oldest, latest = now // MINUTE_MS - KEPT_MIN, now // MINUTE_MS + AHEAD_MIN
        due: dict[int, tuple[panes.Cells, list[panes.Signal], list[str], list[FeedbackEvent]]] = {}
        seen: set[str] = set()
        for event in events:
            same_as = identity(event)
            one = None if same_as is None else panes.feedback_id(*same_as)
            if one is not None and (one in self.live.ids or one in seen):
                self.repeats += 1
                continue
            for minute, cells in booked_feedback([self._with_address(event)]).items():
                if not oldest < minute <= latest:
                    self.left_out += 1
                    continue
                total, signals, ids, new = due.setdefault(minute, ({}, [], [], []))
                new.append(event)
                if one is not None:
                    seen.add(one)
                    ids.append(one)
                if is_held is not None and is_held(sent_at(event), event.provider):
                    continue
                merge(total, cells)
                if event.kind in _FEEDBACK_SIGNALS:
                    signals.append(_signal(event, partition, offset))
        counted: list[FeedbackEvent] = []
        fresh: list[int] = []
        for minute, (cells, signals, ids, new) in due.items():
            held = self._panes.get((minute, partition))
            pane = panes.with_feedback(held or panes.EMPTY, {}, (), offset=offset, ids=())
            if pane is None:
                self.repeats += len(new)
                continue
            self._panes[minute, partition] = pane
            self.live.add(minute, cells, signals, ids)
            counted += new
            if held is None:
                fresh.append(minute)
        self.events += len(counted)
        return counted, fresh

    def _with_address(self, event: FeedbackEvent) -> FeedbackEvent:
        """With the sending address, when all mail of that minute came from one, as the tally does it."""
        if event.ip is not None or event.sent_at is None:
            return event
        ip = self.live.rolling.only_address(event.sent_at // MINUTE_MS)
        return event if ip is None else msgspec.structs.replace(event, ip=ip)

    def forget(self, now: int) -> None:
        """Drop what can count no more."""
        self.live.forget(now // MINUTE_MS)
        oldest = now // MINUTE_MS - KEPT_MIN
        self._panes = {place: pane for place, pane in self._panes.items() if place[0] > oldest}


def _booked(
    results: Sequence[Result], partition: int, offset: int
) -> tuple[dict[int, panes.Cells], dict[int, list[panes.Signal]]]:
    """What results add to each minute, and those of them that speak against the sender."""
    accepted = [one for one in results if type(one) is Accepted]
    if len(accepted) == len(results):
        return booked((), cast("Iterable[Short]", accepted)), {}
    refused = [one for one in results if type(one) is not Accepted]
    # they have the same fields, as far as booking looks
    cells = booked(cast("Iterable[DeliveryResult]", refused), cast("Iterable[Short]", accepted))
    signals: dict[int, list[panes.Signal]] = {}
    for one in refused:
        if type(one) is Bounced and (kind := category_of(one.class_).counts) in _SIGNALS:
            signal = panes.signal(
                _FROM_RESULTS, partition=partition, offset=offset, message_id=one.message_id, kind=kind, at=one.at
            )
            signals.setdefault(one.at // MINUTE_MS, []).append(signal)
    return cells, signals


def sent_at(event: FeedbackEvent) -> int:
    """When the message was sent that a signal is about, as far as it is known."""
    return event.at if event.sent_at is None else min(event.sent_at, event.at)


def _signal(event: FeedbackEvent, partition: int, offset: int) -> panes.Signal:
    return panes.signal(
        _FROM_FEEDBACK,
        partition=partition,
        offset=offset,
        message_id=event.message_id,
        kind=event.kind,
        at=event.at,
        trap=event.trap,
    )
