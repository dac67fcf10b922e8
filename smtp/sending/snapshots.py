"""The ledger stays short: from time to time a snapshot says what all of it says, and what came before is deleted.

A snapshot is written in pieces between the other entries, one at a time, so that sending goes on.  Each piece is made
at the moment in which it is written, so it is true at its place; whatever changes later stands later.  Reading it is
the same fold as reading anything else, from wherever one begins, and half a snapshot does no harm: nothing is deleted
before the last piece is safe and every result before the first one is published.
"""

import asyncio
from array import array
from base64 import b64encode
from collections.abc import Iterable

import structlog

from schemas.codec import encoded_size
from schemas.delivery import Parked, RememberedIds, Snapshot
from smtp.sending.backlog import Lane
from smtp.sending.done import DoneIds, id_hash, little_endian
from smtp.sending.memory import Memory
from smtp.sending.ports import Clock, Ledger
from smtp.sending.recorder import PartitionLost, Recorder

log = structlog.get_logger()

AFTER_RESULTS = 20_000  # about 8 MB of ledger, which are read in a second
_LOOK_EVERY_S = 1.0
_IDS_IN_A_PIECE = 16_384  # 175 kB in base64
_PARKED_IN_A_PIECE = 200
_PARKED_BYTES = 250_000
_BREATHE_AFTER = 50  # entries read


class Snapshots:
    """Writes snapshots of the partitions that are ours, and deletes what they make superfluous."""

    def __init__(
        self,
        *,
        lanes: Iterable[Lane],
        recorder: Recorder,
        ledger: Ledger,
        clock: Clock,
        after_results: int = AFTER_RESULTS,
    ) -> None:
        self._lanes = lanes
        self._recorder = recorder
        self._ledger = ledger
        self._clock = clock
        self._after = after_results
        self._forgotten: dict[int, int] = {}

    async def run(self) -> None:
        """Keep the ledgers short, for ever."""
        while True:
            await self._clock.sleep(_LOOK_EVERY_S)
            for lane in list(self._lanes):
                if not lane.is_open or lane.is_closing:
                    continue
                try:
                    if self._is_due(lane.memory):
                        await self._take(lane)
                    await self._forget(lane)
                except PartitionLost:
                    log.info("snapshot given up with its partition", partition=lane.partition)

    def _is_due(self, memory: Memory) -> bool:
        """Has some times more been written than a snapshot costs?  An id takes 11 octets, a result some hundreds."""
        return memory.written >= max(self._after, len(memory.done) // 8, 2 * len(memory.waiting))

    async def _take(self, lane: Lane) -> None:
        memory, since = lane.memory, lane.memory.next_offset
        memory.done.forget(self._clock.now())
        for period, ids in memory.done.periods.items():
            for run in ids.runs(_IDS_IN_A_PIECE):
                await self._remember(lane, since, period, ids, run)
        if len(memory.waiting):
            await self._carry(lane, since)

        def last() -> tuple[Snapshot, list[Parked]]:
            doubtful = b64encode(little_endian(array("Q", memory.doubtful))).decode()
            return Snapshot(since=since, doubtful=doubtful, is_complete=True), []

        await self._recorder.append_piece(lane, last)
        log.info(
            "ledger snapshot", partition=lane.partition, since=since, done=len(memory.done), waiting=len(memory.waiting)
        )

    async def _remember(self, lane: Lane, since: int, period: int, ids: DoneIds, run: tuple[int, int]) -> None:
        def piece() -> tuple[Snapshot, list[Parked]]:
            packed = RememberedIds(period=period, ids=b64encode(ids.packed(run)).decode())
            return Snapshot(since=since, done=[packed]), []

        await self._recorder.append_piece(lane, piece)

    async def _carry(self, lane: Lane, since: int) -> None:
        """Write anew the parked messages that stand before the snapshot, in one pass over the ledger."""
        found: list[tuple[int, Parked]] = []
        size = read = 0
        async for offset, entry in self._ledger.read(lane.partition, start=lane.memory.snapshot):
            if offset >= since:
                break
            read += 1
            if read % _BREATHE_AFTER == 0:
                await asyncio.sleep(0)
            for parked in entry.parked:
                if lane.memory.waiting.offset_of(id_hash(parked.message.message_id)) == offset:
                    found.append((offset, parked))
                    size += encoded_size(parked)
            if len(found) >= _PARKED_IN_A_PIECE or size >= _PARKED_BYTES:
                await self._carry_on(lane, since, found)
                found, size = [], 0
        if found:
            await self._carry_on(lane, since, found)

    async def _carry_on(self, lane: Lane, since: int, found: list[tuple[int, Parked]]) -> None:
        waiting = lane.memory.waiting

        def piece() -> tuple[Snapshot, list[Parked]]:
            still = [one for at, one in found if waiting.offset_of(id_hash(one.message.message_id)) == at]
            return Snapshot(since=since), still

        await self._recorder.append_piece(lane, piece)

    async def _forget(self, lane: Lane) -> None:
        before = lane.memory.snapshot
        if before > self._forgotten.get(lane.partition, 0) and self._recorder.is_told(lane, before=before):
            await self._ledger.forget(lane.partition, before=before)
            self._forgotten[lane.partition] = before
