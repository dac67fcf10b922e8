"""The sender of one campaign: takes frames, sends their messages, writes down and tells what became of them.

What it promises, whatever ends it: a message that was taken is sent or accounted for; nothing goes out without an
acknowledged intent, and nothing when the gate is closed; at most as many messages as there are workers, two for each
connection, can be in doubt.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from policy.naming import outbound_topic
from policy.retries import PLAN_S
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
from smtp.sending.resuming import Resuming
from smtp.sending.snapshots import AFTER_RESULTS, Snapshots

log = structlog.get_logger()

WORKERS_PER_CONNECTION = 2  # while one message's content is on its way, the next one's envelope goes with it
_TAKE_WITHIN_S = 0.2
_PARK_AFTER_MS = 150_000  # a message that is not tried sooner waits in the ledger
_PARK_IN_A_CROWD_AFTER_MS = 75_000  # above the 70 s for which those that come back may be early
_EXPIRE_EVERY_S = 2.0
_SLOW_AFTER_S = 30.0
_MOST_FRAMES = 100
_MESSAGES_PER_FRAME = 500  # the most that a frame holds


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a sender may take: SMTP connections, messages in memory, seconds to finish what is in flight.

    A quarter of ``backlog`` comes on top for messages that come back from the ledger.  ``plan_s`` are the pauses
    between the attempts of one message.
    """

    connections: int = 20
    backlog: int = 20_000
    plan_s: Sequence[int] = PLAN_S
    snapshot_after: int = AFTER_RESULTS
    grace_s: float = 20.0
    deaf_after_s: float = 5.0

    @property
    def workers(self) -> int:
        """Most messages under way."""
        return self.connections * WORKERS_PER_CONNECTION


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
        self._backlog = Backlog(mailer, later=self._later)
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
            topic=outbound_topic(campaign),
        )
        self._resuming = Resuming(
            lanes=self._lanes, ledger=ledger, clock=clock, most=max(1, bounds.backlog // 4), enter=self._enter
        )
        self._snapshots = Snapshots(
            lanes=self._lanes,
            recorder=self._recorder,
            ledger=ledger,
            clock=clock,
            after_results=bounds.snapshot_after,
        )
        self._delivery = Delivery(
            gate=self.gate,
            board=board,
            inbox=inbox,
            backlog=self._backlog,
            later=self._later,
            composer=composer,
            mailer=mailer,
            recorder=self._recorder,
            clock=clock,
            jitter=jitter,
            metrics=self.metrics,
            plan_s=bounds.plan_s,
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
                serving += [
                    tasks.create_task(self._resuming.run()),
                    tasks.create_task(self._expire()),
                ]
                snapshots = tasks.create_task(self._snapshots.run())
                fetching = tasks.create_task(self._fetch())
                workers = [tasks.create_task(self._work(number)) for number in range(self._bounds.workers)]
                await self._stopping.wait()
                snapshots.cancel()  # half of one does no harm
                await self._finish(workers)
                await fetching
                for task in serving:
                    task.cancel()
        finally:
            await self._inbox.stop()
            await self._backlog.close()
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
            if not _is_known(lane, key):
                fresh.setdefault(key, message)
        self.metrics.skipped.inc(len(frame.messages) - len(fresh))
        held = lane.hold(position.offset, len(fresh))
        lane.unfinished.update(fresh)
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
            self._enter(job, max(due, frame.not_before or 0))

    def _enter(self, job: Job, due: int) -> None:
        """A message begins to wait for its turn; one that may have been sent already is settled if it must not again.

        One that waits in the ledger and has an intent without a result is in doubt like any other.
        """
        if job.key in job.lane.memory.doubtful and self.gate.in_doubt == "hold":
            self._delivery.conclude_in_doubt(job)
        else:
            self._later(job, due)

    def _later(self, job: Job, due: int) -> None:
        """Wait in memory, or, if that would be for long and take others' room, in the ledger.

        A message whose time is over before is looked at then; one whose time is over is settled, because servers that
        are left alone for long would not let any worker see it.
        """
        now = self._clock.now()
        if job.expires_at is not None:
            if job.expires_at <= now and not job.lane.is_closing:
                self._delivery.conclude_expired(job)
                return
            due = min(due, job.expires_at)
        wait_ms = due - now
        is_long = wait_ms >= _PARK_IN_A_CROWD_AFTER_MS and (wait_ms >= _PARK_AFTER_MS or self._is_crowded)
        if is_long and not job.lane.is_closing:
            self._recorder.park(job, due=due)
        else:
            self._backlog.put(job, due=due, now=now)

    async def _expire(self) -> None:
        """While nothing may be sent, time goes on: settle what is too old, for ever.  (An open gate's workers do.)

        While it is open, what slow groups will not need soon makes room for what is behind it in the topic.  How fast
        they are is seen in half a minute of being crowded, not in the first seconds of a sender.
        """
        crowded_s = 0.0
        while True:
            await self._clock.sleep(_EXPIRE_EVERY_S)
            if self.gate.closed() is not None:
                for job in self._backlog.sweep(self._delivery.is_too_old):
                    self._delivery.conclude_expired(job)
                crowded_s = 0.0
            elif not self._is_crowded and self._lanes.resumed * 8 <= self._bounds.backlog:
                crowded_s = 0.0
            elif (crowded_s := crowded_s + _EXPIRE_EVERY_S) >= _SLOW_AFTER_S:
                if put_off := self._backlog.put_off_slow(self._clock.now(), since_s=crowded_s):
                    log.info("messages of slow groups wait in the ledger", messages=put_off)
                crowded_s = 0.0

    @property
    def _is_crowded(self) -> bool:
        return self._lanes.unfinished * 2 > self._bounds.backlog

    async def _work(self, number: int) -> None:
        """One of as many workers as there may be connections."""
        while not self._stopping.is_set():
            connections = min(self.gate.connections, self._bounds.connections)
            workers = connections * WORKERS_PER_CONNECTION
            if self.gate.closed() is not None or number >= workers:
                await self._clock.sleep(LOOK_AGAIN_S)
                continue
            self._mailer.limit(connections)
            now = self._clock.now()
            job = self._backlog.take(now, workers=workers)
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
                self._backlog.give_back(job)

    def _recorded(self, job: Job, result: DeliveryResult) -> None:
        """A result is safe in the ledger; a message that was taken and not tried is next again."""
        if result.class_ == WITHHELD and not job.lane.is_closing:
            self._backlog.put_back(job)

    def _announce(self) -> None:
        gauge = self.metrics.gauge
        gauge("backlog", "messages in memory that are not final", lambda: self._lanes.unfinished + self._lanes.resumed)
        gauge("parked", "messages that wait in the ledger", lambda: self._lanes.parked)
        self.metrics.groups(self._mailer.standings)
        self.metrics.rules(self._mailer.dry_runs)
        gauge("in_flight", "messages that workers have in hand", lambda: self._lanes.in_hand)
        gauge("known_ids", "message ids that will never be sent again", lambda: self._lanes.known_ids)
        gauge("may_send", "1 when the gate is open", lambda: float(self.gate.closed() is None))
        gauge("epoch", "newest epoch heard of", lambda: float(self.gate.epoch))


def _is_known(lane: Lane, key: int) -> bool:
    """Is the message done, waiting in the ledger, or in memory already?"""
    return key in lane.memory.done or key in lane.memory.waiting or key in lane.unfinished or key in lane.resumed
