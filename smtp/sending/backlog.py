"""Which message is next?  What was taken from the topic, or has come out of the ledger again, and is not final yet.

A frame stays uncommitted until each of its messages has a published final result or waits in the ledger, so nothing
in here needs to survive: after a crash it is read again, and the ledger says what of it is done.  Messages wait here
for their time (``not_before``, the next attempt), and then in the queue of their group: a provider, or a domain's mail
servers.  Groups take turns, and none holds more than three quarters of what the others leave, so that several of them
can hang and there is still room for the next.  One that may not be sent to now, or has as much in hand as it can take,
is passed over at no cost; its messages do not hold workers, and if it is for long, they wait in the ledger.
"""

import asyncio
import contextlib
import heapq
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

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
    """One message on its way.

    ``attempts`` were made, the first at ``first_at``; its age counts from ``starts_at`` (ms).  ``turn_at`` is when it
    is its turn at a provider to which less may go than elsewhere; 0 before that is asked.
    """

    lane: Lane
    held: Held
    message: OutboundMessage
    content: str
    key: int
    domain: str
    starts_at: int
    expires_at: int | None
    attempts: int = 0
    first_at: int | None = None
    group: str = ""
    turn_at: int = 0

    @property
    def message_id(self) -> str:
        """The message's id."""
        return self.message.message_id


class Groups(Protocol):
    """What is known of the mail servers of a domain; a mailer is one."""

    def group_of(self, domain: str) -> str | None:
        """What limits a domain's mail; None while its servers are unknown and :meth:`look_up` should be called."""

    async def look_up(self, domain: str) -> None:
        """Find out; afterwards the domain has a group, even if nobody answered."""

    def admit(self, group: str) -> float:
        """Take one message's turn: 0 when it may be sent now, else the seconds after which to ask again."""

    def capacity(self, group: str) -> int:
        """How many of a group's messages are worth being in hand."""

    @property
    def is_alone(self) -> bool:
        """Is there nobody else to leave room for?"""


@dataclass(slots=True, eq=False)
class _Queue:
    """The messages of one group: those that wait, and how many are out.

    ``is_in_turn`` while it is among those that are looked at; ``taken`` counts since the last look at who is slow.
    """

    name: str
    jobs: deque[Job] = field(default_factory=deque)
    out: int = 0
    is_in_turn: bool = False
    taken: int = 0


class Backlog:
    """The messages that wait; a worker takes one and gives it back when done.

    ``later`` lets a message wait elsewhere until a time (ms), because its group will not be sent to before.
    """

    def __init__(self, groups: Groups, *, later: Callable[[Job, int], None]) -> None:
        self._groups = groups
        self._put_off = later
        self._queues: dict[str, _Queue] = {}
        self._turn: deque[_Queue] = deque()
        self._full: dict[_Queue, None] = {}
        self._closed: list[tuple[int, int, _Queue]] = []
        self._later: list[tuple[int, int, Job]] = []
        self._unknown: dict[str, deque[Job]] = {}
        self._looking: set[asyncio.Task[None]] = set()
        self._may_look = asyncio.Semaphore(LOOK_UPS)
        self._out = 0
        self._number = 0
        self._had_nothing = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    def put(self, job: Job, *, due: int = 0, now: int) -> None:
        """Let a message wait until ``due``, or for its turn; those of a partition that is given up are forgotten."""
        if job.lane.is_closing:
            return
        if due > now:
            self._number += 1
            heapq.heappush(self._later, (due, self._number, job))
        else:
            self._enter(job)
            if not self._turn:
                return  # its group is full or closed: nobody could take it
        self._wake_one()

    def put_back(self, job: Job) -> None:
        """A message that was taken and not tried is next again."""
        if job.lane.is_closing:
            return
        queue = self._queue(job.group or self._groups.group_of(job.domain) or f"?{job.domain}")
        queue.jobs.appendleft(job)
        self._look_at(queue)
        self._wake_one()

    def take(self, now: int, *, workers: int) -> Job | None:
        """The next message whose time has come and whose group has room among so many workers."""
        while self._later and self._later[0][0] <= now:
            self._enter(heapq.heappop(self._later)[2])
        while self._closed and self._closed[0][0] <= now:
            self._look_at(heapq.heappop(self._closed)[2])
        has_closed = False
        for _ in range(len(self._turn)):
            queue = self._turn.popleft()
            queue.is_in_turn = False
            if not queue.jobs:
                self._forget(queue)
            elif queue.out >= self._share(queue, workers):
                self._full[queue] = None
            elif (wait_s := self._groups.admit(queue.name)) > 0:
                self._close(queue, now, wait_s)
                has_closed = True
            else:
                job = queue.jobs.popleft()
                job.group = queue.name
                queue.out += 1
                queue.taken += 1
                self._out += 1
                self._look_at(queue)
                if self._waiting and (has_closed or self._has_another(workers)):  # who waits looks when it opens
                    self._wake_one()
                return job
        if self._full or self._closed:
            self._had_nothing = True
        return None

    def give_back(self, job: Job) -> None:
        """A message is no longer out: its group may have another, and the one that was full longest may look again.

        The worker that gives back takes next, so nobody is woken for that.
        """
        queue = self._queue(job.group)
        queue.out -= 1
        self._out -= 1
        self._full.pop(queue, None)
        self._look_at(queue)
        self._forget(queue)
        if self._full:
            other = next(iter(self._full))
            del self._full[other]
            self._look_at(other)
            self._wake_one()

    async def wait(self, now: int, *, at_most_s: float) -> None:
        """Until something may be there to take."""
        for heap in (self._later, self._closed):
            if heap:
                at_most_s = min(at_most_s, max(0.0, (heap[0][0] - now) / 1000))
        woken = asyncio.get_running_loop().create_future()
        self._waiting.append(woken)
        try:
            async with asyncio.timeout(at_most_s):
                await woken
        except TimeoutError:
            pass
        finally:
            with contextlib.suppress(ValueError):  # it is there no more if somebody has woken it
                self._waiting.remove(woken)

    def wake(self) -> None:
        """Let everybody who waits look again."""
        while self._waiting:
            self._wake_one()

    def _wake_one(self) -> None:
        while self._waiting:
            woken = self._waiting.popleft()
            if not woken.done():
                woken.set_result(None)
                return

    def put_off_slow(self, now: int, *, since_s: float) -> int:
        """Let what a slow group will not need soon wait elsewhere, and answer how much that is.

        To be asked every ``since_s`` while the backlog is nearly full, so that those behind can be read.  Nothing is
        put off while every worker is busy: then it is not the groups that are slow.
        """
        had_nothing, self._had_nothing = self._had_nothing, False
        put_off = 0
        for queue in list(self._queues.values()):
            taken, queue.taken = queue.taken, 0
            keep = _KEEP + int(taken / since_s * _KEEP_FOR_S)
            if not had_nothing or len(queue.jobs) <= keep:
                continue
            per_s = max(taken / since_s, 1 / 60)
            tail = [queue.jobs.pop() for _ in range(len(queue.jobs) - keep)]
            for position, job in enumerate(reversed(tail), keep):
                wait_s = min(max(position / per_s, _PUT_OFF_S), _PUT_OFF_MOST_S)
                self._put_off(job, now + round(wait_s * 1000))
            put_off += len(tail)
        return put_off

    def sweep(self, is_over: Callable[[Job], bool]) -> list[Job]:
        """Take out, and answer, the waiting messages for which this is so."""
        over: list[Job] = []

        def stays(job: Job) -> bool:
            if is_over(job):
                over.append(job)
                return False
            return True

        for queue in self._queues.values():
            queue.jobs = deque(filter(stays, queue.jobs))
        for domain, jobs in self._unknown.items():
            self._unknown[domain] = deque(filter(stays, jobs))
        self._later = [entry for entry in self._later if stays(entry[2])]
        heapq.heapify(self._later)
        return over

    def drop(self, lanes: Iterable[Lane]) -> None:
        """Forget what waits of these partitions."""
        gone = set(map(id, lanes))
        self.sweep(lambda job: id(job.lane) in gone)

    async def close(self) -> None:
        """Give up the look-ups."""
        looking = list(self._looking)
        for task in looking:
            task.cancel()
        if looking:
            await asyncio.wait(looking)

    def _share(self, queue: _Queue, workers: int) -> int:
        """Three quarters of what the others leave, and no more than its servers take."""
        left = workers - (self._out - queue.out)
        share = left if self._groups.is_alone else left * 3 // 4
        return max(1, min(share, self._groups.capacity(queue.name)))

    def _has_another(self, workers: int) -> bool:
        """Is there one for the next worker, too?  Of many groups only the next ones are asked."""
        if len(self._turn) > _ASKED:
            return True
        return any(queue.jobs and queue.out < self._share(queue, workers) for queue in self._turn)

    def _enter(self, job: Job) -> None:
        group = self._groups.group_of(job.domain)
        if group is not None:
            queue = self._queue(group)
            queue.jobs.append(job)
            if queue not in self._full:
                self._look_at(queue)
        elif (waiting := self._unknown.get(job.domain)) is not None:
            waiting.append(job)
        else:  # no worker waits for name servers
            self._unknown[job.domain] = deque([job])
            looking = asyncio.create_task(self._look_up(job.domain))
            self._looking.add(looking)
            looking.add_done_callback(self._looking.discard)

    async def _look_up(self, domain: str) -> None:
        async with self._may_look:
            await self._groups.look_up(domain)
        for job in self._unknown.pop(domain):
            queue = self._queue(self._groups.group_of(domain) or f"?{domain}")
            queue.jobs.append(job)
            self._look_at(queue)
        self._wake_one()

    def _queue(self, name: str) -> _Queue:
        queue = self._queues.get(name)
        if queue is None:
            queue = self._queues[name] = _Queue(name)
        return queue

    def _look_at(self, queue: _Queue) -> None:
        if not queue.is_in_turn and queue.jobs:
            queue.is_in_turn = True
            self._turn.append(queue)

    def _forget(self, queue: _Queue) -> None:
        if not queue.jobs and not queue.out and not queue.is_in_turn:
            self._full.pop(queue, None)
            self._queues.pop(queue.name, None)

    def _close(self, queue: _Queue, now: int, wait_s: float) -> None:
        """Look again later; what waits for long need not wait in memory."""
        until = now + max(1, round(wait_s * 1000))
        if wait_s < _PUT_OFF_S:
            self._number += 1
            heapq.heappush(self._closed, (until, self._number, queue))
            return
        jobs, queue.jobs = queue.jobs, deque()
        for job in jobs:
            self._put_off(job, until)
        self._forget(queue)


LOOK_UPS = 50  # at once
_ASKED = 4
_KEEP = 100
_KEEP_FOR_S = 120.0
_PUT_OFF_S = 155.0  # a little more than what may wait in memory
_PUT_OFF_MOST_S = 1800.0


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
