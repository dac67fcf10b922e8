"""The partitions that are ours: opened when they are assigned, drained and let go of when they are revoked.

A partition is opened by reading its ledger back, to the end, and publishing what the last owner may not have
published.  It is given up only when everything about it is written down, told and committed; if the group has given
it away already, nothing more is written about it: its fate is the new owner's to tell.
"""

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence

import msgspec
import structlog

from schemas.delivery import LedgerEntry
from smtp.attempts import Mailer
from smtp.sending.backlog import Backlog, Lane
from smtp.sending.done import id_hash
from smtp.sending.memory import Memory, told
from smtp.sending.ports import Clock, Inbox, Ledger
from smtp.sending.recorder import Recorder

log = structlog.get_logger()

LOOK_AGAIN_S = 0.05
COMMIT_EVERY_S = 0.2


class Lanes:
    """The lanes of one sender, and what happens when partitions come and go (an ``Owner``)."""

    def __init__(
        self,
        *,
        inbox: Inbox,
        ledger: Ledger,
        recorder: Recorder,
        backlog: Backlog,
        mailer: Mailer,
        clock: Clock,
        grace_s: float,
        topic: str,
    ) -> None:
        self._inbox = inbox
        self._ledger = ledger
        self._recorder = recorder
        self._backlog = backlog
        self._mailer = mailer
        self._clock = clock
        self._grace_s = grace_s
        self._topic = topic
        self._lanes: dict[int, Lane] = {}
        self._memories: dict[int, Memory] = {}
        self._to_open: asyncio.Queue[Lane] = asyncio.Queue()

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._lanes.values())

    def open_one(self, partition: int) -> Lane | None:
        """The lane of a partition whose frames may be taken."""
        lane = self._lanes.get(partition)
        return lane if lane is not None and lane.is_open and not lane.is_closing else None

    @property
    def unfinished(self) -> int:
        """Messages in memory that came with frames and are not final."""
        return sum(len(lane.unfinished) for lane in self._lanes.values())

    @property
    def resumed(self) -> int:
        """Messages in memory that have come back from the ledger."""
        return sum(len(lane.resumed) for lane in self._lanes.values())

    @property
    def parked(self) -> int:
        """Messages that the ledger holds until they are due, those that have come back included."""
        return sum(len(lane.memory.waiting) for lane in self._lanes.values())

    @property
    def in_hand(self) -> int:
        """Messages that workers have in hand."""
        return sum(lane.workers for lane in self._lanes.values())

    @property
    def known_ids(self) -> int:
        """Message ids that will never be sent again."""
        return sum(len(lane.memory.done) for lane in self._lanes.values())

    @property
    def are_open(self) -> bool:
        """Are there any, and are their ledgers read?"""
        return bool(self._lanes) and all(lane.is_open for lane in self._lanes.values())

    async def assigned(self, partitions: Sequence[int]) -> None:
        """Their ledgers are read next; then their frames are taken."""
        for partition in partitions:
            memory = self._memories.pop(partition, None)
            lane = Lane(partition, self._topic, Memory() if memory is None else memory)
            self._lanes[partition] = lane
            self._to_open.put_nowait(lane)

    async def revoked(self, partitions: Sequence[int]) -> None:
        """Finish what is in flight of these partitions, write it down, tell it, commit, and let go of them."""
        lanes = [lane for partition in partitions if (lane := self._lanes.get(partition)) is not None]
        for lane in lanes:
            lane.is_closing = True
        self._backlog.drop(lanes)
        if lanes and not await self._inbox.confirm():
            log.warning("partitions were taken away", partitions=sorted(partitions))
            for lane in lanes:
                lane.is_lost = True
        await self._drain(lanes)
        for lane in lanes:
            self._recorder.close(lane)
            if self._lanes.get(lane.partition) is lane:
                del self._lanes[lane.partition]
            if lane.is_open and not lane.is_lost:
                self._memories[lane.partition] = lane.memory

    async def open_assigned(self) -> None:
        """Open lanes as they are assigned, for ever."""
        while True:
            await self._open(await self._to_open.get())

    async def finish(self) -> None:
        """Write, tell and commit everything that is known."""
        await self._recorder.drain([lane for lane in self._lanes.values() if lane.is_open])
        await self._commit_now()

    async def commit(self) -> None:
        """Commit what is final, for ever."""
        while True:
            await self._clock.sleep(COMMIT_EVERY_S)
            await self._commit_now()

    async def _commit_now(self) -> None:
        moved = [
            lane
            for lane in self._lanes.values()
            if lane.is_open and not lane.is_lost and lane.watermark > lane.committed
        ]
        offsets = {lane.partition: lane.watermark for lane in moved}
        if offsets and await self._inbox.commit(offsets):
            for lane in moved:
                lane.committed = max(lane.committed, offsets[lane.partition])

    async def _open(self, lane: Lane) -> None:
        untold: deque[tuple[int, LedgerEntry]] | None = None
        while untold is None:
            untold = await self._read_back(lane)
        if lane.is_closing:
            return
        lane.memory.waiting.rewind()
        await self._recorder.open(lane, untold)
        if self._lanes.get(lane.partition) is not lane or lane.is_closing:
            self._recorder.close(lane)
            return
        lane.is_open = True
        self._inbox.open(lane.partition)
        log.info(
            "partition opened",
            partition=lane.partition,
            done=len(lane.memory.done),
            in_doubt=len(lane.memory.doubtful),
            waiting=len(lane.memory.waiting),
            published_again=len(untold),
        )

    async def _read_back(self, lane: Lane) -> deque[tuple[int, LedgerEntry]] | None:
        """Bring a lane's memory up to the ledger's end; answers the entries that may not have been told.

        None when the entry that should come next is gone: another owner has deleted what a snapshot said anew.  What
        we remember of before cannot be mended by that, so the lane begins with an empty memory again.
        """
        untold: deque[tuple[int, LedgerEntry]] = deque()
        expected = lane.memory.next_offset
        async for offset, entry in self._ledger.read(lane.partition, start=expected):
            if lane.is_closing:
                break
            if expected and offset > expected:
                lane.memory = Memory()
                return None
            expected = 0
            first_word = _first_word(lane.memory, entry)
            lane.memory.apply(offset, first_word)
            if told(first_word):
                untold.append((offset, first_word))
            while untold and untold[0][0] <= lane.memory.published:
                untold.popleft()
        return untold

    async def _drain(self, lanes: Sequence[Lane]) -> None:
        within_s = self._grace_s
        while within_s > 0 and any(lane.workers for lane in lanes):
            await self._clock.sleep(LOOK_AGAIN_S)
            within_s -= LOOK_AGAIN_S
        while any(lane.workers for lane in lanes):
            self._mailer.cut()  # partitions are given up all at once, so nobody else's session is among these
            await self._clock.sleep(LOOK_AGAIN_S)
        await self._recorder.drain(lanes)
        await self._commit_now()


def _first_word(memory: Memory, entry: LedgerEntry) -> LedgerEntry:
    """An entry without results of messages that are final: an owner that was frozen may have written them too late.

    What was said first was told, and stays.
    """
    if not any(id_hash(result.message_id) in memory.done for result in entry.results):
        return entry
    results = [result for result in entry.results if id_hash(result.message_id) not in memory.done]
    return msgspec.structs.replace(entry, results=results)
