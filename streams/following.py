"""Reading whole topics from their beginning and keeping up with them, without a consumer group.

Three questions are answered for the owner: *is everything applied that was there when I asked?* (a read barrier),
*when did I last know that?*, and *what changed?*.  The follower lives through broker restarts, missing topics and
added partitions, and never raises into its owner.

Two connections: a broker answers one request of a connection after the other, and a fetch waits for up to half a
second at the broker, so that the question for the ends must not stand behind it.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from streams.admin import LEADER_MOVED, Admin, connected
from streams.fetching import hasten
from streams.kafka_security import connection
from streams.stopping import stop

log = structlog.get_logger()

REFRESH_S = 0.5  # how often the barrier is passed when nobody asks
_STUCK_S = 15.0  # no progress for so long, though there is more to read: connect anew
_REQUEST_TIMEOUT_S = 5.0
_BACK_OFF_S = (0.1, 0.2, 0.5, 1.0, 2.0)
_SAY_AGAIN_S = 10.0
_RECORDS_AT_ONCE = 1000  # then the loop gets its turn


class Follower:
    """Applies every record of some topics, in the order of each partition, and knows how far it is.

    ``apply`` must not raise; it is called in the event loop, so it must be quick.
    """

    def __init__(
        self, bootstrap: str, topics: Sequence[str], *, client_id: str, apply: Callable[[ConsumerRecord], None]
    ) -> None:
        self._bootstrap = bootstrap
        self._topics = tuple(topics)
        self._client_id = client_id
        self._apply = apply
        self._next: dict[TopicPartition, int] = {}  # the offset after the last one applied
        self._heard_at = -math.inf
        self._waiting: list[asyncio.Future[bool]] = []
        self._asked = asyncio.Event()
        self._moved = asyncio.Event()
        self._moved_at = time.monotonic()
        self._said_at = -math.inf
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin, and return when everything that is there now has been applied; waits for missing topics."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"follow {','.join(self._topics)}")
        await self._passed()

    async def stop(self) -> None:
        """End reading; whoever waits for the barrier gets no for an answer."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._answer(self._waiting, passed=False)
        self._waiting = []

    async def caught_up(self, timeout_s: float) -> bool:
        """Wait until everything is applied that was in the topics when this was called; False if that takes longer."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._passed()
        except TimeoutError:
            return False

    def heard_at(self) -> float:
        """A moment (monotonic seconds) up to which everything that was published is known to be applied."""
        return self._heard_at

    def _passed(self) -> asyncio.Future[bool]:
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if self._task is None:
            future.set_result(False)
        else:
            self._waiting.append(future)
            self._asked.set()
        return future

    @staticmethod
    def _answer(waiting: Sequence[asyncio.Future[bool]], *, passed: bool) -> None:
        for future in waiting:
            if not future.done():
                future.set_result(passed)

    async def _run(self) -> None:
        failures = 0
        while True:
            before = self._heard_at
            try:
                await self._session()
            except (KafkaError, OSError, TimeoutError) as lost:
                self._say("connection to Kafka lost, trying again", cause=str(lost) or type(lost).__name__)
            except Exception:  # a bug here must not make the owner deaf
                log.exception("following failed, trying again", topics=self._topics)
            failures = 0 if self._heard_at > before else failures + 1
            await asyncio.sleep(_BACK_OFF_S[min(failures, len(_BACK_OFF_S) - 1)])

    async def _session(self) -> None:
        """Follow over one pair of connections, until something is wrong with them."""
        async with (
            connected(self._bootstrap, client_id=self._client_id, request_timeout_s=_REQUEST_TIMEOUT_S) as edge,
            self._consumer() as consumer,
        ):
            await _first_to_fail(self._read(consumer), self._listen(edge, consumer))

    @contextlib.asynccontextmanager
    async def _consumer(self) -> AsyncIterator[AIOKafkaConsumer]:
        consumer = AIOKafkaConsumer(
            **connection(self._bootstrap),
            client_id=self._client_id,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            request_timeout_ms=int(_REQUEST_TIMEOUT_S * 1000),
        )
        hasten(consumer)
        try:
            await consumer.start()
            yield consumer
        finally:
            await stop(consumer)

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        """Apply what comes.  Between fetching and applying the loop gets no turn: positions never run ahead."""
        while True:
            for partition, records in (await consumer.getmany(timeout_ms=200, max_records=_RECORDS_AT_ONCE)).items():
                for record in records:
                    self._apply(record)
                self._next[partition] = records[-1].offset + 1
                self._moved_at = time.monotonic()
            self._moved.set()
            await asyncio.sleep(0)

    async def _listen(self, edge: Admin, consumer: AIOKafkaConsumer) -> None:
        """Pass the barrier again and again: note the time, ask for the ends, wait until they are applied."""
        self._asked.set()  # at once after connecting
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_S):
                    await self._asked.wait()
            self._asked.clear()
            waiting = list(self._waiting)
            asked_at = time.monotonic()
            leaders = await edge.leaders(self._topics)
            self._assign(consumer, leaders)
            missing = set(self._topics) - {partition.topic for partition in leaders}
            if missing:
                self._say("topics are missing, waiting for them", missing=sorted(missing))
                continue
            try:
                ends = await edge.ends(leaders)
            except LEADER_MOVED:
                continue  # those who wait are answered by a later round
            await self._applied(consumer, ends)
            self._heard_at = asked_at
            self._waiting = [future for future in self._waiting if future not in waiting]
            self._answer(waiting, passed=True)

    def _assign(self, consumer: AIOKafkaConsumer, leaders: Mapping[TopicPartition, int]) -> None:
        """Read these partitions, each from where it was; assigning forgets all positions, so they are set again."""
        if set(leaders) == consumer.assignment():
            return
        consumer.assign(list(leaders))
        for partition in leaders:
            if partition in self._next:
                consumer.seek(partition, self._next[partition])
        self._moved_at = time.monotonic()

    async def _applied(self, consumer: AIOKafkaConsumer, ends: Mapping[TopicPartition, int]) -> None:
        """Wait until the reading positions have reached the ends.

        The consumer's positions count, not the offsets seen: the last offsets may have been compacted away.
        """
        for partition, end in ends.items():
            while end > 0:
                async with asyncio.timeout(_STUCK_S):
                    if await consumer.position(partition) >= end:
                        break
                    self._moved.clear()
                    await self._moved.wait()
                if time.monotonic() - self._moved_at > _STUCK_S:
                    raise TimeoutError(f"nothing comes of {partition.topic}, partition {partition.partition}")

    def _say(self, event: str, **fields: object) -> None:
        now = time.monotonic()
        if now - self._said_at >= _SAY_AGAIN_S:
            self._said_at = now
            log.warning(event, topics=self._topics, **fields)


async def _first_to_fail(*parts: Coroutine[None, None, None]) -> None:
    """Run parts until one of them raises, then end the others.

    Not a task group: in Python 3.11 one that ends by a failure leaves its task marked as being cancelled, and the
    next one in the same task then raises ``CancelledError`` in place of what went wrong.
    """
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
