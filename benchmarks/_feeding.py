"""Kafka as a benchmark sees it: publish, wait until a group has done everything, read topics back to check."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError

from benchmarks._harness import Turn
from benchmarks._running import Failed, Running, say
from streams.admin import Planned, admin

_LARGEST = 8_388_608
_LOOK_AGAIN_S = 0.05
_IN_FLIGHT = 2_000
_QUIET_S = 0.2
_DONE_WITHIN_S = 120.0
_ANSWER_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Item:
    """A record to publish, with the events in it; a partition that is given wins over the key."""

    topic: str
    key: bytes | None
    value: bytes
    partition: int | None = None
    events: int = 1


@dataclass(frozen=True, kw_only=True)
class Reader:
    """One process; its ``group`` is done with a turn when it has committed all of ``topics``."""

    process: Running
    group: str
    topics: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Side(Reader):
    """One process, and what it is fed."""

    meet: Callable[[int], Sequence[Item]]  # makes records before anything is measured
    make: Callable[[int], Sequence[Item]]  # makes records of a turn
    amount: int  # what it makes in a turn


class Feed:
    """One connection for everything that a benchmark asks of Kafka."""

    def __init__(
        self, bootstrap: str, producer: AIOKafkaProducer, consumer: AIOKafkaConsumer, asking: AIOKafkaAdminClient
    ) -> None:
        self._bootstrap = bootstrap
        self._counts: dict[str, int] = {}
        self._producer = producer
        self._consumer = consumer
        self._admin = asking

    async def publish(self, items: Iterable[Item]) -> None:
        """Publish and wait until all of it is acknowledged."""
        waiting: list[asyncio.Future[object]] = []
        for item in items:
            sent = await self._producer.send(item.topic, item.value, item.key, item.partition)
            waiting.append(sent)
            if len(waiting) >= _IN_FLIGHT:
                await asyncio.gather(*waiting)
                waiting.clear()
        await asyncio.gather(*waiting)

    async def lag(self, group: str, topics: Sequence[str]) -> int:
        """How many records a group has still to commit.

        Commits are asked for before the ends: what a group publishes to a topic of its own before it commits is in.
        """
        try:
            committed = await self._admin.list_consumer_group_offsets(group)
        except GroupCoordinatorNotAvailableError:  # the broker has yet to make the topic for offsets
            committed = {}
        ends = await self._ends(topics)
        done = {partition: max(0, at.offset) for partition, at in committed.items()}
        return sum(end - done.get(partition, 0) for partition, end in ends.items())

    async def done(self, process: Running, group: str, topics: Sequence[str]) -> None:
        """Wait until a group has committed everything that is in some topics."""
        deadline = time.monotonic() + _DONE_WITHIN_S
        while (lag := await self.lag(group, topics)) > 0:
            process.must_run()
            if time.monotonic() > deadline:
                raise Failed(
                    f"{process.name} has {lag:,} records of {', '.join(topics)} left after {_DONE_WITHIN_S:.0f} s; "
                    f"the end of its log:\n{process.said()}"
                )
            await asyncio.sleep(_LOOK_AGAIN_S)

    async def turn(self, side: Reader, items: Sequence[Item]) -> Turn:
        """Publish, wait until everything about it is done, and answer what that cost the process."""
        await asyncio.sleep(_QUIET_S)
        cpu_before, began = side.process.cpu_s, time.monotonic()
        await self.publish(items)
        await self.done(side.process, side.group, side.topics)
        return Turn(sum(item.events for item in items), side.process.cpu_s - cpu_before, time.monotonic() - began)

    async def read(self, topics: Sequence[str]) -> AsyncIterator[ConsumerRecord]:
        """Everything that is in some topics now."""
        ends = await self._ends(topics)
        left = {partition for partition, end in ends.items() if end}
        self._consumer.assign(list(ends))
        await self._consumer.seek_to_beginning()
        try:
            while left:
                found = await self._consumer.getmany(timeout_ms=1000)
                for records in found.values():
                    for record in records:
                        yield record
                left -= {one for one in left & set(found) if found[one][-1].offset + 1 >= ends[one]}
        finally:
            self._consumer.unsubscribe()

    async def _partitions(self, topics: Sequence[str]) -> dict[str, int]:
        unknown = [topic for topic in topics if topic not in self._counts]
        if unknown:
            async with admin(self._bootstrap, within_s=_ANSWER_WITHIN_S) as edge:
                self._counts |= await edge.partitions(unknown)
        return {topic: self._counts[topic] for topic in topics}

    async def _ends(self, topics: Sequence[str]) -> dict[TopicPartition, int]:
        counts = await self._partitions(topics)
        wanted = [TopicPartition(topic, number) for topic, count in counts.items() for number in range(count)]
        ends: dict[TopicPartition, int] = await self._consumer.end_offsets(wanted)
        return ends


async def turns(kafka_feed: Feed, sides: Sequence[Side], *, first: int, runs: int) -> list[list[Turn]]:
    """All sides in turn, again and again; answers the turns of each side.

    ``first`` records each come before, and are not measured: by then everything is started, opened and met.
    """
    measured: list[list[Turn]] = [[] for _ in sides]
    say("waiting until all are warm ...")
    for side in sides:
        await kafka_feed.turn(side, side.meet(first))
    for number in range(runs):
        for side, of_side in zip(sides, measured, strict=True):
            of_side.append(await kafka_feed.turn(side, side.make(side.amount)))
        shown = ", ".join(f"{of_side[-1].per_cpu_s:,.0f}" for of_side in measured)
        say(f"turn {number + 1} of {runs}: {shown} events per CPU second")
    return measured


@contextlib.asynccontextmanager
async def feed(bootstrap: str) -> AsyncIterator[Feed]:
    """Connect."""
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, linger_ms=5, max_batch_size=1_048_576, max_request_size=_LARGEST
    )
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest")
    asking = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    async with contextlib.AsyncExitStack() as stack:
        for client, end in ((producer, producer.stop), (consumer, consumer.stop), (asking, asking.close)):
            await client.start()
            stack.push_async_callback(end)
        yield Feed(bootstrap, producer, consumer, asking)


async def make_topics(bootstrap: str, topics: Mapping[str, int]) -> None:
    """Topics for the plain versions, by name with their partitions."""
    plans = [Planned(name, partitions, 1, {"max.message.bytes": str(_LARGEST)}) for name, partitions in topics.items()]
    async with admin(bootstrap, within_s=_ANSWER_WITHIN_S) as edge:
        await edge.create(plans)
