"""Which offsets may be committed, and from where reading goes on after a rebalance.

Faust loses and repeats events in this place (its issues #502, #606, #707).  The consumer here keeps its own book of
what was handed out, and hands out nothing of a partition between the moment it is assigned and the moment it is
read from its committed offset.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import Message
from mode.utils.queues import FlowControlEvent

from streams.fetching import hasten
from streams.loops import new_loop
from streams.runtime.first_step import FirstStep

NOTHING: frozenset[TP] = frozenset()

# Faust lets recovery go on, unsought, when a seek takes longer than broker_request_timeout.
SEEK_SHARE_OF_REQUEST_TIMEOUT = 0.8

# Faust's 1500: a batch that is not drained at once lets a long poll for the idle partitions hold up the busy one.
FETCH_WAIT_MS = 100

# Faust waits a second for records; a seek has to wait until that is over.
FETCH_WITHIN_S = 0.25

# What Faust passes around: partition → records as aiokafka made them, which has no stubs.
Records = Mapping[TP, list[Any]]


class SafeFlow(FlowControlEvent):
    """Faust's valve in front of all streams, opened once per rebalance.

    Recovery opens it when it starts to read changelogs and again when the streams may go on.  Each opening empties
    the queues of the agents.  The second time that is wrong: reading has already been set to the committed
    offsets, so what lies in the queues by then would never come again.
    """

    def resume(self) -> None:
        """Open the valve, if it is shut."""
        if not self.is_active():
            super().resume()


class SafeThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread with a shorter poll, on the fast event loop, copying what is read less often."""

    def __init__(self, *args: Any, **options: Any) -> None:  # Any: handed through to Faust
        super().__init__(*args, thread_loop=new_loop(), **options)
        self._close_thread_loop_on_stop = True  # ours, but nobody else's

    def _create_worker_consumer(self, transport: Any) -> Any:  # Any: aiokafka has no stubs
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS  # noqa: SLF001 - Faust has it hard-coded; read at start()
        hasten(consumer)
        return consumer


class SafeConsumer(FirstStep, driver.Consumer):
    """Commits up to the first event that is not done, never past it; reads on without a hole."""

    def __init__(self, *args: Any, **options: Any) -> None:  # Any: handed through to Faust
        # Offsets handed out and not done, in order, with the moment of handing out.
        self._open: defaultdict[TP, dict[int, float]] = defaultdict(dict)
        # The offset after the last one handed out.
        self._next: dict[TP, int] = {}
        # Source partitions that recovery has let go, but that are not yet at their committed offset.
        self._unsought: set[TP] = set()
        # Changelog partitions that are being set to another offset right now.
        self._moving: set[TP] = set()
        # What the fetch under way may bring, whether one is under way, and what the last one has brought.
        self._wanted: frozenset[TP] = NOTHING
        self._landed = asyncio.Event()
        self._landed.set()
        self._brought: Records = {}
        super().__init__(*args, **options)

    def _new_consumer_thread(self) -> SafeThread:
        return SafeThread(self, loop=self.loop, beacon=self.beacon)

    # -- the book of open offsets

    def _to_message(self, tp: TP, record: Any) -> Any:  # Any: aiokafka's record, Faust's message
        """Enter what is about to be handed out; a record below the reading position is dropped by the caller."""
        read = self._read_offset[tp]
        if self._is_source(tp) and (read is None or record.offset >= read):
            self._open[tp][record.offset] = time.monotonic()
            self._next[tp] = record.offset + 1
        return super()._to_message(tp, record)

    def ack(self, message: Message) -> bool:
        """Strike out what is done.  A skipped event is not done, whatever Faust says.

        A stream that takes an event from its queue while the flow is suspended acknowledges it unseen; such a
        message is not ``tracked``.  And an event of an earlier generation will be delivered again, here or
        elsewhere: its acknowledgement must not strike out the second delivery.
        """
        done = message.tracked or self.app.flow_control.is_active()
        current = message.generation_id == self.app.consumer_generation_id
        if done and current and self._open[message.tp].pop(message.offset, None) is not None:
            return super().ack(message)
        message.acked = True
        self._unacked_messages.discard(message)
        return False

    def _new_offset(self, tp: TP) -> int | None:
        """The offset to commit: the first open one, else the one after the last.

        Faust takes the end of the first run of consecutive acknowledged offsets, but lets a run begin one above
        the committed offset, so that a hole of one (the event in flight) is committed over; and it waits for ever
        at a hole that no record can fill (compaction, the markers of a transaction).
        """
        if not self._acked[tp] or tp not in self._next:
            return None
        self._acked[tp].clear()
        self._acked_index[tp].clear()
        return next(iter(self._open[tp]), self._next[tp])

    def _forget(self) -> None:
        """Close the book: all that is not committed comes again, here or elsewhere."""
        for tp in list(self._next):
            for book in (self._open, self._next, self._acked, self._acked_index):
                book.pop(tp, None)

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Offsets that do not exist need no entry in this book."""

    def oldest_open_s(self, now: float) -> float:
        """How long the event that holds the commits back has been open (``now`` is monotonic); 0 if none is.

        For a liveness probe: a worker whose oldest event stays open for minutes hangs.
        """
        firsts = (next(iter(offsets.values())) for offsets in self._open.values() if offsets)
        return max((now - handed_out for handed_out in firsts), default=0.0)

    # -- a rebalance begins

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Finish what is in hand, flush and commit before the base class forgets it.

        Faust forgets the acknowledged offsets first and commits afterwards, which repeats everything since the
        last commit on whoever owns the partition next.
        """
        if self.assignment() and not self.app.should_stop:
            self.stop_flow()
            self.app.flow_control.suspend()
            self.app.flow_control.clear()
            try:
                await self.wait_empty()
            except Exception as error:  # aiokafka logs what a listener raises, and goes on as if it were well
                await self.crash(error)
                raise
        self._forget()
        await super().on_partitions_revoked(revoked)

    async def wait_empty(self) -> None:
        """Wait until the streams have finished, and commit all of it.

        Twice, since the base class does nothing when another commit is under way.  That other one may have begun
        before the last event was done; a commit that begins after it has ended has not.
        """
        await super().wait_empty()
        await self.commit()

    # -- a rebalance ends

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        """Note which sources may go on, but not before they were set to their committed offset.

        Recovery resumes first and seeks afterwards.  In between, this happens on stock Faust:

        1. A fetch is under way that was asked for changelogs.  It looks at the *live* set of active partitions,
           which recovery empties; the fetcher takes an empty set for "all" and brings source records 207–210.
        2. Faust drops them, since their partitions are not active.  The reading position is now 211.
        3. Recovery resumes the partitions; the next fetch brings 211–216 and the agent gets them.
        4. Recovery seeks to the committed offset; the agent gets 207–216.

        A counter that skips what is below the last applied offset has lost 207–210.
        """
        tps = list(tps)
        self._unsought.update(tp for tp in tps if self._is_source(tp))
        super().resume_partitions(tps)

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Records:
        """Fetch for a copy of the active partitions, without those that are not where they should be."""
        if active_partitions is None:  # a client without a group
            client_records: Records = await super()._getmany(active_partitions, timeout)
            return client_records
        wanted = frozenset(active_partitions) - self._unsought - self._moving
        if not wanted:
            await self.sleep(0.05)
            return {}
        self._wanted = wanted
        self._landed.clear()
        try:
            records = await super()._getmany(set(wanted), min(timeout, FETCH_WITHIN_S))
        finally:
            self._wanted = NOTHING
            self._landed.set()
        # A fetch that was under way through a whole rebalance brings records from before the seek.
        self._brought = {tp: found for tp, found in records.items() if tp not in self._unsought | self._moving}
        return self._brought

    async def _set_aside(self, tps: set[TP]) -> None:
        """Make sure that nothing fetched so far from these partitions is handed out any more.

        What the last fetch brought may still be on its way to the streams: taking the rest out of its lists ends
        that.  A fetch under way is waited for; what it brings for these partitions is dropped by ``_getmany``.
        Only then is it harmless to seek.
        """
        for tp in tps:
            self._brought.get(tp, []).clear()
        while self._wanted & tps:
            await self._landed.wait()

    async def perform_seek(self) -> None:
        """Set the resumed partitions to their committed offsets, and forget what was handed out before.

        Faust also calls this when a fetch returns while the flow is stopped.  That early seek would only throw
        acknowledged offsets away; recovery does it again at the right moment.
        """
        if not self._unsought:
            return
        await self._set_aside(set(self._unsought))
        self._forget()
        limit = self.app.conf.broker_request_timeout * SEEK_SHARE_OF_REQUEST_TIMEOUT
        try:
            async with asyncio.timeout(limit):
                await super().perform_seek()
        except TimeoutError as slow:
            await self.crash(slow)  # else these partitions would wait for ever, in a worker that looks healthy
            raise
        self._unsought.clear()

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Also set partitions without a committed offset to their beginning, which aiokafka leaves as they are.

        Their first events may have been fetched, and dropped, before this call.
        """
        committed: Mapping[TP, int] = await super().seek_to_committed()
        fresh = [tp for tp, offset in committed.items() if not offset and self._is_source(tp)]
        if fresh:
            await self._thread.seek_to_beginning(*fresh)
        return committed

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        """Set changelog partitions to an offset, with nothing of an earlier position coming in behind.

        If a rebalance interrupts recovery, the fetch of the first one brings late records to the second.  The
        highest offset seen is then above what has been read, and recovery skips the records in between.
        """
        tps = set(partitions)
        self._moving |= tps
        try:
            await self._set_aside(tps)
            await super().seek_wait(partitions)
        finally:
            self._moving -= tps

    # -- the rest

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Leave out Faust's livelock detector, which cries wolf (#166, #503, #629); see ``oldest_open_s``."""

    def _is_source(self, tp: TP) -> bool:
        return bool(self.app.topics.acks_enabled_for(tp.topic))
