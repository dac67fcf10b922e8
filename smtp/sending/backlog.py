"""Which message is next?  What was taken from the topic, or has come out of the ledger again, and is not final yet.

A frame stays uncommitted until each of its messages has a published final result or waits in the ledger, so nothing
in here needs to survive: after a crash it is read again, and the ledger says what of it is done.  Messages wait here
for their time (``not_before``, the next attempt) and for their domain: one that answers slowly must not hold every
worker.
"""

import asyncio
import heapq
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from schemas.delivery import OffsetRange
from schemas.sending import OutboundMessage
from smtp.sending.memory import Memory


@dataclass(slots=True, eq=False)
class Held:
    """A frame of the outbound topic that is held until its messages are final; ``open`` of them are not yet."""

    offset: int
    open: int


@dataclass(slots=True, eq=False)
class Lane:
    """One partition that is ours: its ledger's memory, the frames held, and the messages that are not final.

    ``unfinished`` came with frames, ``resumed`` were waiting in the ledger.  ``is_open`` once the ledger was read;
    ``is_closing`` when the partition must be given up, ``is_lost`` when somebody else may have it already.
    ``watermark`` is the offset below which no frame is needed any more.
    """

    partition: int
    topic: str
    memory: Memory
    is_open: bool = False
    is_closing: bool = False
    is_lost: bool = False
    frames: deque[Held] = field(default_factory=deque)
    unfinished: set[int] = field(default_factory=set)
    resumed: set[int] = field(default_factory=set)
    workers: int = 0
    watermark: int = -1
    committed: int = -1

    def hold(self, offset: int, messages: int) -> Held:
        """Hold a frame; one without messages is final at once."""
        held = Held(offset, messages)
        self.frames.append(held)
        self._advance()
        return held

    def finish(self, job: "Job") -> None:
        """The message's final result is published."""
        self.let_go(job)
        self.release(job)

    def let_go(self, job: "Job") -> None:
        """The message is no longer in memory: the ledger says what becomes of it."""
        self.unfinished.discard(job.key)
        self.resumed.discard(job.key)

    def release(self, job: "Job") -> None:
        """The message no longer needs its frame."""
        job.held.open -= 1
        self._advance()

    def _advance(self) -> None:
        while self.frames and self.frames[0].open <= 0:
            self.watermark = self.frames.popleft().offset + 1


@dataclass(slots=True, eq=False)
class Job:
    """One message on its way; ``attempts`` were made, ``starts_at`` is when its age begins to count (ms)."""

    lane: Lane
    held: Held
    message: OutboundMessage
    content: str
    key: int
    domain: str
    starts_at: int
    expires_at: int | None
    attempts: int = 0

    @property
    def message_id(self) -> str:
        """The message's id."""
        return self.message.message_id


class Backlog:
    """The messages that wait; a worker takes one and gives its domain back when done.

    At most ``per_domain`` messages of one domain are out at a time.
    """

    def __init__(self, *, per_domain: int) -> None:
        self._per_domain = per_domain
        self._ready: deque[Job] = deque()
        self._later: list[tuple[int, int, Job]] = []
        self._crowded: dict[str, deque[Job]] = {}
        self._out: Counter[str] = Counter()
        self._number = 0
        self._something = asyncio.Event()

    def put(self, job: Job, *, due: int = 0, now: int) -> None:
        """Let a message wait until ``due``, or for its turn; those of a partition that is given up are forgotten."""
        if job.lane.is_closing:
            return
        if due > now:
            self._number += 1
            heapq.heappush(self._later, (due, self._number, job))
        else:
            self._ready.append(job)
        self._something.set()

    def put_back(self, job: Job) -> None:
        """A message that was taken and not tried is next again."""
        if job.lane.is_closing:
            return
        self._ready.appendleft(job)
        self._something.set()

    def take(self, now: int) -> Job | None:
        """The next message whose time has come and whose domain has room."""
        while self._later and self._later[0][0] <= now:
            self._ready.append(heapq.heappop(self._later)[2])
        while self._ready:
            job = self._ready.popleft()
            if self._out[job.domain] < self._per_domain:
                self._out[job.domain] += 1
                return job
            self._crowded.setdefault(job.domain, deque()).append(job)
        return None

    def give_back(self, domain: str) -> None:
        """A message of this domain is no longer out."""
        self._out[domain] -= 1
        if not self._out[domain]:
            del self._out[domain]
        crowd = self._crowded.get(domain)
        if crowd:
            self._ready.appendleft(crowd.popleft())
            if not crowd:
                del self._crowded[domain]
            self._something.set()

    async def wait(self, now: int, *, at_most_s: float) -> None:
        """Until something may be there to take."""
        if self._later:
            at_most_s = min(at_most_s, max(0.0, (self._later[0][0] - now) / 1000))
        self._something.clear()
        try:
            async with asyncio.timeout(at_most_s):
                await self._something.wait()
        except TimeoutError:
            pass

    def wake(self) -> None:
        """Let everybody who waits look again."""
        self._something.set()

    def sweep(self, is_over: Callable[[Job], bool]) -> list[Job]:
        """Take out, and answer, the waiting messages for which this is so."""
        over: list[Job] = []

        def stays(job: Job) -> bool:
            if is_over(job):
                over.append(job)
                return False
            return True

        self._ready = deque(filter(stays, self._ready))
        self._later = [entry for entry in self._later if stays(entry[2])]
        heapq.heapify(self._later)
        crowded = {domain: deque(filter(stays, crowd)) for domain, crowd in self._crowded.items()}
        self._crowded = {domain: crowd for domain, crowd in crowded.items() if crowd}
        return over

    def drop(self, lanes: Iterable[Lane]) -> None:
        """Forget what waits of these partitions."""
        gone = set(map(id, lanes))
        self.sweep(lambda job: id(job.lane) in gone)


def covered(jobs: Iterable[Job]) -> list[OffsetRange]:
    """The outbound offsets that jobs of one lane belong to, as runs."""
    ranges: list[OffsetRange] = []
    topic, partition, first, last = "", 0, -1, -2
    for job in sorted({job.held.offset: job for job in jobs}.values(), key=lambda one: one.held.offset):
        topic, partition = job.lane.topic, job.lane.partition
        if job.held.offset == last + 1:
            last += 1
            continue
        if last >= 0:
            ranges.append(OffsetRange(topic=topic, partition=partition, from_=first, to=last))
        first = last = job.held.offset
    if last >= 0:
        ranges.append(OffsetRange(topic=topic, partition=partition, from_=first, to=last))
    return ranges
