"""What is written down, and when: intents before MAIL FROM, results after, then the results told to everybody.

One writer serves all workers.  While one ledger entry is on its way, whatever comes up goes into the next one, so
that entries grow with the load and nobody waits for a timer.  Published frames are larger: they gather the results
of consecutive entries, up to 500, and carry the position of the last of them.

A step through a crash.  Killed before an intent is acknowledged: nothing was sent.  Between intent and result: the
message is in doubt.  That is at most one message per worker, because the entry with a worker's next intent also holds
(or comes after) the result of its last message.  Between a result and its frame: the
successor finds the result newer than the last ``published`` mark and publishes it, entry by entry and with the
entry's own position; a reader that keeps the newest position drops what it has had.  Between a frame and the commit:
the outbound frame is read again, every message in it is done or waits in the ledger, and it is committed.

A message that is deferred is parked in the entry that holds the result: one write, so that it is never nowhere, and
never both here and in its frame.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import structlog

from schemas.codec import encoded_size
from schemas.delivery import (
    FINAL,
    DeliveryFrame,
    DeliveryResult,
    LedgerEntry,
    OffsetRange,
    Parked,
    Position,
    Snapshot,
)
from smtp.sending.backlog import Job, Lane, covered
from smtp.sending.memory import WITHHELD, told
from smtp.sending.ports import Clock, Inbox, Ledger, Results

log = structlog.get_logger()

FRAME_RESULTS = 500
PARKED_BYTES = 1_000_000  # in one entry; a single message may have as much, so entries stay below 2 MB and some
ASK_AGAIN_S = 0.05
UNSURE_AT_MOST_S = 60.0


class PartitionLost(Exception):  # noqa: N818 - says what happened
    """The partition is somebody else's now; what was to be written about it is not ours to write."""


Piece = Callable[[], tuple[Snapshot, list[Parked]]]
"""Makes a piece of a snapshot when it is about to be written: no entry comes between the making and the piece."""


@dataclass(slots=True)
class _Page:
    """What is to be written and told about one lane."""

    lane: Lane
    intents: list[tuple[str, "asyncio.Future[None]"]] = field(default_factory=list)
    settled: list[tuple[Job, DeliveryResult]] = field(default_factory=list)
    to_park: list[tuple[Job, int]] = field(default_factory=list)
    piece: tuple[Piece, "asyncio.Future[None]"] | None = None
    untold: deque[tuple[int, list[tuple[Job, DeliveryResult]]]] = field(default_factory=deque)
    is_being_written: bool = False
    marked: int = -1

    @property
    def is_clean(self) -> bool:
        """Is everything written and told?"""
        return not (self.has_something or self.untold or self.is_being_written)

    @property
    def has_something(self) -> bool:
        """Is there anything to write?"""
        return bool(self.intents or self.settled or self.to_park or self.piece)

    @property
    def untold_results(self) -> int:
        """How many results wait to be told."""
        return sum(len(settled) for _, settled in self.untold)


class Recorder:
    """Writes one sender's ledger and publishes its results.

    ``on_recorded`` is called when a result is safe in the ledger.  A job whose message was parked has left memory
    by then.
    """

    def __init__(
        self,
        *,
        campaign: str,
        sender: str,
        inbox: Inbox,
        ledger: Ledger,
        results: Results,
        clock: Clock,
        on_recorded: Callable[[Job, DeliveryResult], None],
        gather_s: float = 0.003,
        publish_every_s: float = 0.05,
    ) -> None:
        self._campaign = campaign
        self._sender = sender
        self._inbox = inbox
        self._ledger = ledger
        self._results = results
        self._clock = clock
        self._on_recorded = on_recorded
        self._gather_s = gather_s
        self._publish_every_s = publish_every_s
        self._pages: dict[int, _Page] = {}
        self._to_write = asyncio.Event()
        self._to_publish = asyncio.Event()
        self._hurry = asyncio.Event()
        self._progress = asyncio.Event()
        self._draining = 0

    async def open(self, lane: Lane, untold: Iterable[tuple[int, LedgerEntry]]) -> None:
        """Begin with a lane: publish first what its last owner wrote down and may not have published."""
        page = _Page(lane, marked=lane.memory.published)
        for offset, entry in untold:
            if results := told(entry):
                await self._results.publish(self._frame(lane, offset, results, entry.covers, sender=entry.sender))
            lane.memory.published = offset
        self._pages[lane.partition] = page

    async def intend(self, job: Job) -> None:
        """Write down that a message is about to be sent; returns when that is safe."""
        page = self._page(job.lane)
        safe: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        page.intents.append((job.message_id, safe))
        self._to_write.set()
        await safe

    def settle(self, job: Job, result: DeliveryResult) -> None:
        """Write down, and tell, what became of a message."""
        if job.lane.is_lost:
            return
        self._page(job.lane).settled.append((job, result))
        self._to_write.set()

    def park(self, job: Job, *, due: int) -> None:
        """Let the ledger hold a message that is not tried before ``due`` (ms); its frame need not wait for that."""
        if job.lane.is_lost:
            return
        self._page(job.lane).to_park.append((job, due))
        self._to_write.set()

    async def append_piece(self, lane: Lane, piece: Piece) -> None:
        """Write a piece of a snapshot in an entry of its own; returns when that is safe.

        A lane that is given up takes no more: a piece that came after its next owner's entries would not be true.
        """
        page = self._page(lane)
        if lane.is_closing:
            raise PartitionLost
        safe: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        page.piece = (piece, safe)
        self._to_write.set()
        await safe

    def is_told(self, lane: Lane, *, before: int) -> bool:
        """Are all results published that stand before an offset of the ledger?"""
        untold = self._page(lane).untold
        return not untold or untold[0][0] >= before

    async def drain(self, lanes: Sequence[Lane]) -> None:
        """Return when everything about these lanes is written and told, or lost.

        An entry that is on its way to the broker is waited for even when its lane is lost: it may still arrive, and
        whoever opens the partition next, this process perhaps, must not have read the ledger before it does.
        """
        pages = [page for lane in lanes if (page := self._pages.get(lane.partition)) is not None and page.lane is lane]
        self._draining += 1
        self._hurry.set()
        while not all(page.is_clean or (page.lane.is_lost and not page.is_being_written) for page in pages):
            self._to_write.set()
            self._to_publish.set()
            await self._progress.wait()
        self._draining -= 1
        if not self._draining:
            self._hurry.clear()
        for page in pages:
            if not page.lane.is_lost and page.lane.memory.published > page.marked:
                await self._append(page, [])  # so that the next owner need not publish again

    def close(self, lane: Lane) -> None:
        """A lane is given up."""
        page = self._pages.get(lane.partition)
        if page is not None and page.lane is lane:
            del self._pages[lane.partition]
            _answer([safe for _, safe in page.intents], is_safe=False)
            if page.piece is not None:
                _answer([page.piece[1]], is_safe=False)

    async def write(self) -> None:
        """Write entries, for ever; a ledger that cannot be written ends this with its error."""
        while True:
            await self._to_write.wait()
            if self._gather_s and not self._hurry.is_set():
                await asyncio.sleep(self._gather_s)
            self._to_write.clear()
            pages = [page for page in self._pages.values() if page.has_something]
            if len(pages) == 1:
                await self._write(pages[0])
            elif pages:
                async with asyncio.TaskGroup() as writing:
                    for page in pages:
                        writing.create_task(self._write(page))

    async def publish(self) -> None:
        """Publish frames, for ever; results that cannot be published end this with the error."""
        while True:
            await self._to_publish.wait()
            if not self._hurry.is_set() and not any(p.untold_results >= FRAME_RESULTS for p in self._pages.values()):
                await self._linger()
            self._to_publish.clear()
            for page in list(self._pages.values()):
                # A process that was frozen has just written what its successor does not know of, and must not tell it.
                while page.untold and await self._is_ours(page.lane):
                    await self._publish_one(page)

    async def _linger(self) -> None:
        try:
            async with asyncio.timeout(self._publish_every_s):
                await self._hurry.wait()
        except TimeoutError:
            pass

    async def _write(self, page: _Page) -> None:
        page.is_being_written = True
        settled, to_park, parked = _next_to_write(page)
        piece, page.piece = page.piece, None
        intents: list[tuple[str, asyncio.Future[None]]] = []
        if not page.settled:  # a worker's next intent is never ahead of its last result
            intents, page.intents = page.intents, []
        is_safe = False
        try:
            if await self._is_ours(page.lane):
                if piece is not None:
                    await self._write_piece(page, *piece)
                if intents or settled or to_park:
                    offset = await self._append(page, [message_id for message_id, _ in intents], settled, parked)
                    is_safe = True
                    self._recorded(page, offset, settled, to_park)
        finally:
            page.is_being_written = False
            _answer([safe for _, safe in intents], is_safe=is_safe)
            if piece is not None:
                _answer([piece[1]], is_safe=False)  # unless it was written
            self._move_on()
        if page.has_something:
            self._to_write.set()

    async def _write_piece(self, page: _Page, make: Piece, safe: "asyncio.Future[None]") -> None:
        snapshot, parked = make()
        await self._append(page, [], parked=parked, snapshot=snapshot)
        _answer([safe], is_safe=True)

    async def _append(
        self,
        page: _Page,
        intents: list[str],
        settled: Sequence[tuple[Job, DeliveryResult]] = (),
        parked: Sequence[Parked] = (),
        snapshot: Snapshot | None = None,
    ) -> int:
        memory = page.lane.memory
        entry = LedgerEntry(
            sender=self._sender,
            at=self._clock.now(),
            intents=intents,
            results=[result for _, result in settled],
            covers=covered(job for job, _ in settled),
            published=memory.published,
            parked=list(parked),
            snapshot=snapshot,
        )
        offset = await self._ledger.append(page.lane.partition, entry)
        page.marked = entry.published
        memory.apply(offset, entry)
        return offset

    def _recorded(
        self,
        page: _Page,
        offset: int,
        settled: list[tuple[Job, DeliveryResult]],
        to_park: list[tuple[Job, int]],
    ) -> None:
        to_tell = [(job, result) for job, result in settled if result.class_ != WITHHELD]
        if to_tell:
            page.untold.append((offset, to_tell))
            self._to_publish.set()
        for job, _ in to_park:
            page.lane.let_go(job)
            page.lane.release(job)
        for job, result in settled:
            if is_parked(result):
                page.lane.let_go(job)
            self._on_recorded(job, result)

    async def _publish_one(self, page: _Page) -> None:
        """One frame of whole entries; it carries the position of the last one."""
        settled: list[tuple[Job, DeliveryResult]] = []
        entries, offset = 0, -1
        for at, more in page.untold:
            if settled and len(settled) + len(more) > FRAME_RESULTS:
                break
            settled.extend(more)
            entries, offset = entries + 1, at
        covers = covered(job for job, _ in settled)
        await self._results.publish(self._frame(page.lane, offset, [result for _, result in settled], covers))
        for _ in range(entries):
            page.untold.popleft()
        page.lane.memory.published = offset
        for job, result in settled:
            if result.outcome in FINAL:
                job.lane.finish(job)
            elif is_parked(result):
                job.lane.release(job)
        self._move_on()

    def _frame(
        self,
        lane: Lane,
        offset: int,
        results: list[DeliveryResult],
        covers: list[OffsetRange],
        *,
        sender: str | None = None,
    ) -> DeliveryFrame:
        return DeliveryFrame(
            campaign=self._campaign,
            sender=sender or self._sender,
            covers=covers,
            results=results,
            ledger=Position(topic=self._ledger.topic, partition=lane.partition, offset=offset),
        )

    async def _is_ours(self, lane: Lane) -> bool:
        """Wait until the group has confirmed the partition, or taken it away."""
        waited_s = 0.0
        while not self._inbox.assured(lane.partition):
            if lane.is_lost:
                return False
            if waited_s >= UNSURE_AT_MOST_S:
                raise TimeoutError("the consumer group has not confirmed our partitions for too long")
            await self._clock.sleep(ASK_AGAIN_S)
            waited_s += ASK_AGAIN_S
        return not lane.is_lost

    def _page(self, lane: Lane) -> _Page:
        page = self._pages.get(lane.partition)
        if page is None or page.lane is not lane:
            raise PartitionLost
        return page

    def _move_on(self) -> None:
        progress, self._progress = self._progress, asyncio.Event()
        progress.set()


def is_parked(result: DeliveryResult) -> bool:
    """Does the message wait in the ledger after this result?"""
    return result.outcome == "deferred" and result.class_ != WITHHELD


def _next_to_write(page: _Page) -> tuple[list[tuple[Job, DeliveryResult]], list[tuple[Job, int]], list[Parked]]:
    """The results and the messages to park that fit into one entry, taken off the page, in their order."""
    parked: list[Parked] = []
    size = 0
    results = 0
    for job, result in page.settled[:FRAME_RESULTS]:
        if size >= PARKED_BYTES:
            break
        if is_parked(result):
            parked.append(_parked(job, due=result.next_attempt_at or result.at, attempts=result.attempt))
            size += encoded_size(parked[-1])
        results += 1
    settled, page.settled = page.settled[:results], page.settled[results:]
    others = 0
    for job, due in page.to_park[:FRAME_RESULTS]:
        if size >= PARKED_BYTES:
            break
        parked.append(_parked(job, due=due, attempts=job.attempts))
        size += encoded_size(parked[-1])
        others += 1
    to_park, page.to_park = page.to_park[:others], page.to_park[others:]
    return settled, to_park, parked


def _parked(job: Job, *, due: int, attempts: int) -> Parked:
    return Parked(
        message=job.message,
        content=job.content,
        offset=job.held.offset,
        starts_at=job.starts_at,
        expires_at=job.expires_at,
        attempts=attempts,
        first_at=job.first_at,
        due=due,
    )


def _answer(waiting: Iterable["asyncio.Future[None]"], *, is_safe: bool) -> None:
    for safe in waiting:
        if safe.done():
            continue
        if is_safe:
            safe.set_result(None)
        else:
            safe.set_exception(PartitionLost())
            safe.exception()  # a worker that is gone does not ask
