"""Tally: every result and every signal that comes back, counted once, in the minute of the mail it belongs to.

Two topics feed one table: results and feedback, both keyed by campaign, with the same number of partitions.  What
the table holds is written down (see ``streams.panes``); the sums over windows are not, they are rebuilt from it
after each rebalance.

An event that was counted before is not counted again, but what follows from it is published again: it may have been
lost in the crash that made the event come again.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import msgspec
import structlog

from agents.groups import Parts
from agents.history import Found, History, identity
from agents.homing import Homing
from agents.live import Live, rebuilt
from agents.ports import Known, Message, Publish, now_ms
from agents.setting_aside import Aside
from agents.snapshots import Snapshots
from agents.suppressing import Suppressing, key_of
from policy.counts import MINUTE_MS, Cells, booked, booked_by_source, booked_feedback, merge
from policy.replies import category_of
from schemas.codec import Malformed, decode, decode_feedback
from schemas.counting import Counted, counted
from schemas.delivery import DeliveryFrame, DeliveryResult
from schemas.feedback import FeedbackEvent, FeedbackFrame, Suppression
from schemas.topics import BY_NAME, FEEDBACK, RESULTS, SUPPRESSIONS
from streams import panes
from streams.metrics import Metrics

log = structlog.get_logger()

_NO_CELLS: Cells = {}

BARRIER_WITHIN_S = 5.0
AHEAD_MIN = 60  # minutes; a clock that is further ahead is no clock
PANES_PER_TURN = 500

_SIGNALS = {"hard_bounce", "block"}  # refusals that speak against the sender
_FEEDBACK_SIGNALS = {"hard_bounce", "block", "complaint", "trap_hit"}
_FROM_RESULTS, _FROM_FEEDBACK = 0, 1
_KIND = 4  # place in a signal


class PaneTable(Protocol):
    """The windowed table; times are seconds since 1970."""

    def at(self, key: Any, at_seconds: float) -> panes.Pane | None:
        """The pane of a campaign at a time."""

    def put(self, key: Any, at_seconds: float, value: panes.Pane) -> None:
        """Write a pane."""

    def keeps(self, at_seconds: float) -> bool:
        """Whether the pane of a time is still held."""

    def owned(self, *, since: float | None = None) -> Iterator[tuple[Any, panes.Pane]]:
        """All panes of this worker's partitions, by (campaign, (start, end))."""


class Tally:
    """Counts results and feedback, and publishes what follows."""

    def __init__(
        self,
        *,
        table: PaneTable,
        known: Known,
        history: History,
        outlet: Publish,
        metrics: Metrics,
        partitions: int,
        dead_days: int = 0,
    ) -> None:
        self._table = table
        self._known = known
        self._history = history
        self._suppressing = Suppressing(history.domain_hash, dead_days=dead_days)
        self._outlet = outlet
        self._metrics = metrics
        self._aside = Aside(outlet, metrics)
        self._homing = Homing(outlet, self._aside, partitions)
        self.live: dict[str, Live] = {}
        self.snapshots = Snapshots(self.live, known=known, outlet=outlet, partitions=partitions)
        self.parts = Parts(self.live, known=known, outlet=outlet, partitions=partitions)

    async def rebuild(self) -> None:
        """Make the running sums anew from the panes of the partitions that this worker owns now."""
        self.live.clear()
        found: dict[str, list[tuple[int, panes.Pane]]] = {}
        for number, ((campaign, (start, _end)), pane) in enumerate(self._table.owned(), start=1):
            found.setdefault(campaign, []).append((int(start) // panes.SIZE_S, pane))
            if number % PANES_PER_TURN == 0:
                await asyncio.sleep(0)
        for campaign, own in found.items():
            self.live[campaign] = rebuilt(own)
            await asyncio.sleep(0)
        self.snapshots.rebuilt()

    # -- results

    async def results(self, message: Message) -> None:
        """Count one frame of results."""
        frame = counted(message.value)
        if isinstance(frame, Malformed):
            await self._aside.malformed(message, frame)
            return
        if await self._homing.away(message, frame.campaign):
            return
        try:
            signals = _signals(message, frame.refused)
            ahead = self._count_results(message, frame, signals)
            left_behind, found = self._what_follows(message, frame)
        except Exception as error:
            log.exception("tally failed", partition=message.partition, offset=message.offset)
            await self._aside.failed(message, "tally", error)
            return
        if ahead:
            await self._aside.put(message, "from_the_future", _ahead("results[].at"))
        for signal in found.signals:
            await self._outlet.publish(FEEDBACK, signal, key=signal.campaign)
        await self._suppress([*left_behind, *found.lifted])
        blocked = any(one[_KIND] == "block" for of_minute in signals.values() for one in of_minute)
        await self.snapshots.results(frame.campaign, self._live(frame.campaign), now_ms(), blocked=blocked)

    def _what_follows(self, message: Message, frame: Counted) -> tuple[list[Suppression], Found]:
        """What results leave behind, and what they say beside what others left; of repeats the same."""
        campaign = self._known.campaigns.get(frame.campaign)
        left_behind = self._suppressing.after_results(frame.campaign, frame.refused, campaign)
        results: Sequence[DeliveryResult] = ()
        if self._history.may_tell(frame.accepted):
            whole = decode(DeliveryFrame, message.value, max_bytes=BY_NAME[RESULTS].max_bytes)
            results = () if isinstance(whole, Malformed) else whole.results  # it was counted all the same
        return left_behind, self._history.look_at(frame.campaign, results, frame.refused, campaign)

    def _count_results(
        self,
        message: Message,
        frame: Counted,
        signals: Mapping[int, Sequence[panes.Signal]],
    ) -> bool:
        """Count a frame in its panes, where it was not counted before; answers whether its clock was ahead."""
        latest = now_ms() // MINUTE_MS + AHEAD_MIN
        live = self._live(frame.campaign)
        is_new = ahead = False
        by_source = booked_by_source(frame.refused, frame.accepted)
        for minute, cells in booked(frame.refused, frame.accepted).items():
            at_s = float(minute * panes.SIZE_S)
            if minute > latest:
                ahead = True
                continue
            if not self._table.keeps(at_s):
                continue
            sources = live.named(by_source.get(minute, _NO_CELLS))
            pane = panes.with_results(
                self._table.at(frame.campaign, at_s) or panes.EMPTY,
                cells,
                signals.get(minute, ()),
                offset=message.offset,
                ledger=frame.ledger,
                sources=sources,
            )
            if pane is not None:
                self._table.put(frame.campaign, at_s, pane)
                live.add(minute, cells, signals.get(minute, ()), sources=sources)
                is_new = True
        self._metrics.frames.labels("new" if is_new else "repeat").inc()
        if is_new:
            for outcome, number in Counter(result.outcome for result in frame.refused).items():
                self._metrics.results.labels(outcome).inc(number)
            self._metrics.results.labels("accepted").inc(len(frame.accepted))
        return ahead

    # -- feedback

    async def feedback(self, message: Message) -> None:
        """Count one record of feedback, single or frame."""
        events = decode_feedback(message.value)
        if isinstance(events, Malformed):
            await self._aside.malformed(message, events)
            return
        by_campaign: dict[str, list[FeedbackEvent]] = {}
        for event in events:
            by_campaign.setdefault(event.campaign, []).append(event)
        for name, own in by_campaign.items():
            if await self._homing.away(message, name, FeedbackFrame(feedback=own)):
                self._metrics.feedback_skipped.labels("forwarded").inc(len(own))
            elif not await self._is_known(name):
                explain = f"field campaign of Feedback: {name!r} is not known; make it known, then replay this"
                await self._aside.put(message, "unknown_campaign", explain)
            else:
                await self._feedback_about(message, name, own)

    async def _is_known(self, name: str) -> bool:
        """Before a campaign counts as unknown, everything published so far is read."""
        if name not in self._known.campaigns:
            while not await self._known.caught_up(BARRIER_WITHIN_S):
                log.warning("waiting for the catalogue")
                await asyncio.sleep(0.1)
        return name in self._known.campaigns

    async def _feedback_about(self, message: Message, name: str, events: Sequence[FeedbackEvent]) -> None:
        try:
            ahead = self._count_feedback(message, name, events)
            campaign = self._known.campaigns.get(name)
            left_behind = self._suppressing.after_feedback(events, campaign)
        except Exception as error:
            log.exception("tally failed", partition=message.partition, offset=message.offset)
            await self._aside.failed(message, "tally", error)
            return
        if ahead:
            await self._aside.put(message, "from_the_future", _ahead("at"))
        await self._suppress(left_behind)
        await self.snapshots.campaign(name, self._live(name), now_ms())

    def _count_feedback(self, message: Message, name: str, events: Sequence[FeedbackEvent]) -> bool:
        """Count events that were not counted before, whatever minute they were booked to then."""
        latest = now_ms() // MINUTE_MS + AHEAD_MIN
        live = self._live(name)
        due: dict[int, tuple[Cells, list[panes.Signal], list[str]]] = {}
        seen: set[str] = set()
        ahead = False
        for event in events:
            same_as = identity(event)
            one = None if same_as is None else panes.feedback_id(*same_as)
            if one is not None and (one in live.ids or one in seen):
                self._metrics.feedback_skipped.labels("repeat").inc()
                continue
            for minute, cells in booked_feedback([self._with_address(name, event)]).items():
                if minute > latest:
                    ahead = True
                elif not self._table.keeps(float(minute * panes.SIZE_S)):
                    self._metrics.feedback_skipped.labels("too_old").inc()
                else:
                    total, signals, ids = due.setdefault(minute, ({}, [], []))
                    merge(total, cells)
                    if one is not None:
                        seen.add(one)
                        ids.append(one)
                    if event.kind in _FEEDBACK_SIGNALS:
                        signals.append(_signal(message, event))
                    self._metrics.feedback.labels(event.kind).inc()
        for minute, (cells, signals, ids) in due.items():
            at_s = float(minute * panes.SIZE_S)
            held = self._table.at(name, at_s) or panes.EMPTY
            sources = panes.of_the_only_source(held, cells)
            pane = panes.with_feedback(held, cells, signals, offset=message.offset, ids=ids, sources=sources)
            if pane is not None:
                self._table.put(name, at_s, pane)
                live.add(minute, cells, signals, ids, sources)
        return ahead

    def _with_address(self, name: str, event: FeedbackEvent) -> FeedbackEvent:
        """With the sending address, when all mail of that minute came from one; few reports say it."""
        if event.ip is not None or event.sent_at is None:
            return event
        pane = self._table.at(name, float(event.sent_at // MINUTE_MS * panes.SIZE_S))
        ip = None if pane is None else panes.only_address(pane)
        return event if ip is None else msgspec.structs.replace(event, ip=ip)

    # -- what follows

    async def _suppress(self, left_behind: Sequence[Suppression]) -> None:
        for suppression in left_behind:
            await self._outlet.publish(SUPPRESSIONS, suppression, key=key_of(suppression))

    def _live(self, name: str) -> Live:
        live = self.live.get(name)
        if live is None:
            live = self.live[name] = Live()
        return live


def _signals(message: Message, refused: Sequence[DeliveryResult]) -> dict[int, list[panes.Signal]]:
    """The refusals that speak against the sender, by minute."""
    signals: dict[int, list[panes.Signal]] = {}
    for result in refused:
        if result.outcome == "bounced" and (counts := category_of(result.class_).counts) in _SIGNALS:
            signals.setdefault(result.at // MINUTE_MS, []).append(
                panes.signal(
                    _FROM_RESULTS,
                    partition=message.partition,
                    offset=message.offset,
                    message_id=result.message_id,
                    kind=counts,
                    at=result.at,
                )
            )
    return signals


def _signal(message: Message, event: FeedbackEvent) -> panes.Signal:
    return panes.signal(
        _FROM_FEEDBACK,
        partition=message.partition,
        offset=message.offset,
        message_id=event.message_id,
        kind=event.kind,
        at=event.at,
        trap=event.trap,
    )


def _ahead(field: str) -> str:
    return f"field {field} is more than {AHEAD_MIN} minutes ahead of this worker's clock; set the clock of its sender"
