"""The sender of one campaign: takes frames, sends their messages, writes down and tells what became of them.

What it promises, whatever ends it: a message that was taken is sent or accounted for; nothing goes out without an
acknowledged intent, and nothing when the gate is closed; at most as many messages as ``connections`` can be in doubt.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from policy.providers import Providers
from schemas.codec import Malformed
from schemas.delivery import DeliveryResult, Position
from schemas.sending import OutboundFrame, OutboundMessage
from smtp.attempts import Mailer
from smtp.sending.backlog import Backlog, Job, Lane
from smtp.sending.compose import Composer
from smtp.sending.delivery import LOOK_AGAIN_S, Delivery
from smtp.sending.done import id_hash
from smtp.sending.gate import Gate
from smtp.sending.lanes import Lanes
from smtp.sending.memory import WITHHELD
from smtp.sending.metrics import SenderMetrics
from smtp.sending.ports import Board, Clock, Inbox, Ledger, Results
from smtp.sending.recorder import PartitionLost, Recorder

log = structlog.get_logger()

_TAKE_WITHIN_S = 0.2
_MOST_FRAMES = 100
_MESSAGES_PER_FRAME = 500  # the most that a frame holds


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a sender may take: SMTP connections, messages in memory, seconds to finish what is in flight."""

    connections: int = 20
    backlog: int = 20_000
    grace_s: float = 20.0
    deaf_after_s: float = 5.0

    @property
    def per_domain(self) -> int:
        """Most messages of one domain under way, so that one that answers slowly leaves room for the others."""
        return max(1, self.connections - self.connections // 4)


class Sender:
    """One sender process; :meth:`run` ends after :meth:`stop`, or with the error that made it impossible to go on."""

    def __init__(
        self,
        *,
        campaign: str,
        name: str,
        inbox: Inbox,
        ledger: Ledger,
        results: Results,
        board: Board,
        mailer: Mailer,
        composer: Composer,
        providers: Providers,
        clock: Clock,
        jitter: Callable[[], float],
        bounds: Bounds = Bounds(),
        metrics: SenderMetrics | None = None,
    ) -> None:
        self._inbox = inbox
        self._mailer = mailer
        self._clock = clock
        self._bounds = bounds
        self.metrics = metrics or SenderMetrics()
        self.gate = Gate(campaign, board, clock, deaf_after_s=bounds.deaf_after_s)
        self._backlog = Backlog(per_domain=bounds.per_domain)
        self._recorder = Recorder(
            campaign=campaign,
            sender=name,
            inbox=inbox,
            ledger=ledger,
            results=results,
            clock=clock,
            on_recorded=self._recorded,
        )
        self._lanes = Lanes(
            inbox=inbox,
            ledger=ledger,
            recorder=self._recorder,
            backlog=self._backlog,
            mailer=mailer,
            clock=clock,
            grace_s=bounds.grace_s,
        )
        self._delivery = Delivery(
            gate=self.gate,
            board=board,
            inbox=inbox,
            backlog=self._backlog,
            composer=composer,
            mailer=mailer,
            recorder=self._recorder,
            providers=providers,
            clock=clock,
            jitter=jitter,
            metrics=self.metrics,
        )
        self._stopping = asyncio.Event()
        self._announce()

    @property
    def is_ready(self) -> bool:
        """Has it partitions, and are their ledgers read?"""
        return self._lanes.are_open

    def stop(self) -> None:
        """Take nothing new, finish what is in flight, and end."""
        self._delivery.takes_nothing_new = True
        self._stopping.set()
        self._backlog.wake()

    async def run(self) -> None:
        """Send until stopped.  An error of the ledger, the results or the inbox ends it: nothing is lost by that."""
        try:
            async with asyncio.TaskGroup() as tasks:
                serving = [
                    tasks.create_task(self._recorder.write()),
                    tasks.create_task(self._recorder.publish()),
                    tasks.create_task(self._lanes.open_assigned()),
                    tasks.create_task(self._lanes.commit()),
                ]
                await self._inbox.start(self._lanes)
                fetching = tasks.create_task(self._fetch())
                workers = [tasks.create_task(self._work(number)) for number in range(self._bounds.connections)]
                await self._stopping.wait()
                await self._finish(workers)
                await fetching
                for task in serving:
                    task.cancel()
        finally:
            await self._inbox.stop()
            await self._mailer.close()

    async def _finish(self, workers: Sequence["asyncio.Task[None]"]) -> None:
        """Let workers finish what they have in hand, then cut what is left; write, tell and commit all of it."""
        log.info("stopping", in_flight=self._lanes.in_hand, waiting=self._lanes.unfinished)
        _, unfinished = await asyncio.wait(workers, timeout=self._bounds.grace_s)
        if unfinished:
            log.warning("cutting what is in flight", in_flight=self._lanes.in_hand)
            self._delivery.begins_nothing = True
        while unfinished:
            self._mailer.cut()
            _, unfinished = await asyncio.wait(unfinished, timeout=1.0)
        await self._lanes.finish()

    async def _fetch(self) -> None:
        while not self._stopping.is_set():
            room = self._bounds.backlog - self._lanes.unfinished
            most = min(_MOST_FRAMES, -(-room // _MESSAGES_PER_FRAME)) if room > 0 else 0
            for position, frame in await self._inbox.take(most, timeout_s=_TAKE_WITHIN_S):
                lane = self._lanes.open_one(position.partition)
                if lane is not None:
                    self._admit(lane, position, frame)

    def _admit(self, lane: Lane, position: Position, frame: OutboundFrame | Malformed) -> None:
        lane.topic = position.topic
        if isinstance(frame, Malformed):
            log.warning("frame set aside", partition=position.partition, offset=position.offset, why=frame.reason)
            lane.hold(position.offset, 0)
            return
        fresh: dict[int, OutboundMessage] = {}
        for message in frame.messages:
            key = id_hash(message.message_id)
            if key not in lane.memory.done and key not in lane.unfinished:
                fresh.setdefault(key, message)
        self.metrics.skipped.inc(len(frame.messages) - len(fresh))
        held = lane.hold(position.offset, len(fresh))
        lane.unfinished.update(fresh)
        now = self._clock.now()
        for key, message in fresh.items():
            attempts, due = lane.memory.attempts.get(key, (0, 0))
            job = Job(
                lane=lane,
                held=held,
                message=message,
                content=frame.content,
                key=key,
                domain=message.address.rpartition("@")[2].lower(),
                starts_at=max(frame.admitted_at, frame.not_before or 0),
                expires_at=frame.expires_at,
                attempts=attempts,
            )
            if key in lane.memory.doubtful and self.gate.in_doubt == "hold":
                self._delivery.conclude_in_doubt(job)
            else:
                self._backlog.put(job, due=max(due, frame.not_before or 0), now=now)

    async def _work(self, number: int) -> None:
        """One of as many workers as there may be connections."""
        while not self._stopping.is_set():
            if self.gate.closed() is not None or number >= self.gate.connections:
                await self._clock.sleep(LOOK_AGAIN_S)
                continue
            now = self._clock.now()
            job = self._backlog.take(now)
            if job is None:
                await self._backlog.wait(now, at_most_s=0.5)
                continue
            job.lane.workers += 1
            try:
                await self._delivery.deliver(job)
            except PartitionLost:
                pass  # its new owner sends it
            finally:
                job.lane.workers -= 1
                self._backlog.give_back(job.domain)

    def _recorded(self, job: Job, result: DeliveryResult) -> None:
        """A result is safe in the ledger; what is not final waits for its next attempt."""
        if result.outcome != "deferred" or job.lane.is_closing:
            return
        job.attempts = result.attempt
        if result.class_ == WITHHELD:
            self._backlog.put_back(job)
        else:
            self._backlog.put(job, due=result.next_attempt_at or 0, now=self._clock.now())

    def _announce(self) -> None:
        gauge = self.metrics.gauge
        gauge("backlog", "messages in memory that are not final", lambda: self._lanes.unfinished)
        gauge("in_flight", "messages that workers have in hand", lambda: self._lanes.in_hand)
        gauge("known_ids", "message ids that will never be sent again", lambda: self._lanes.known_ids)
        gauge("may_send", "1 when the gate is open", lambda: float(self.gate.closed() is None))
        gauge("epoch", "newest epoch heard of", lambda: float(self.gate.epoch))
