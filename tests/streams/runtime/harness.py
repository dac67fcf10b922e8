"""Topics, records and worker processes for the tests of the runtime, on a real broker."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import GroupCoordinatorNotAvailableError

from tests.streams.runtime.worker import Orders

REPOSITORY = Path(__file__).parents[3]
WORKER = Path(__file__).with_name("worker.py")


async def until(question: Callable[[], bool], within_s: float = 30.0, *, what: str = "") -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + within_s
    while not question():
        assert time.monotonic() < deadline, f"not within {within_s} s: {what or question}"
        await asyncio.sleep(0.02)


class Process:
    """A worker process and the notes that it leaves."""

    def __init__(self, orders: Orders) -> None:
        self.folder = Path(orders.folder)
        self.log = self.folder / f"log-{time.monotonic_ns()}"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(WORKER), json.dumps(asdict(orders))],
                cwd=REPOSITORY,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def runs(self) -> bool:
        return self.process.poll() is None

    async def ready(self) -> None:
        await self.noted("ready")

    async def noted(self, what: str) -> None:
        """Wait for a note of the worker."""
        await until((self.folder / f"{what}-{self.pid}").exists, what=f"{what}\n{self.tail()}")

    def tail(self) -> str:
        return self.log.read_text()[-3000:]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self, within_s: float = 30.0) -> int:
        await until(lambda: not self.runs, within_s, what=f"worker ends\n{self.tail()}")
        return self.process.wait()

    async def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return await self.ended()

    def kill(self) -> None:
        if self.runs:
            self.signal(signal.SIGKILL)
        self.process.wait()

    @property
    def seen(self) -> list[tuple[int, int]]:
        """Partition and offset of each event that the agent was given, in order."""
        with contextlib.suppress(FileNotFoundError):
            lines = (self.folder / f"seen-{self.pid}").read_text().splitlines()
            return [(int(p), int(o)) for p, o in (line.split() for line in lines)]
        return []

    async def held(self) -> dict[Any, tuple[int, int]]:
        """What the worker's table holds for its partitions: key → (last applied offset, count)."""
        note = self.folder / f"held-{self.pid}"
        note.unlink(missing_ok=True)
        self.signal(signal.SIGUSR1)
        await until(note.exists, what=f"held\n{self.tail()}")
        return {
            (key if isinstance(key, str) else (key[0], key[1][0])): (value[0][0], value[1])
            for key, value in json.loads(note.read_text())
        }


class Lab:
    """The topics of one test and the workers on them."""

    def __init__(self, bootstrap: str, prefix: str, folder: Path) -> None:
        self.bootstrap = bootstrap
        self.prefix = prefix
        self.folder = folder
        self.source = f"{prefix}-source"
        self.sink = f"{prefix}-sink"
        self.partitions = 1
        self.workers: list[Process] = []

    @property
    def group(self) -> str:
        return f"{self.prefix}-app"

    @property
    def changelog(self) -> str:
        return f"{self.group}-counts-changelog"

    async def create(self, partitions: int = 1) -> None:
        self.partitions = partitions
        async with admin(self.bootstrap) as client:
            await client.create_topics([NewTopic(self.source, partitions, 1), NewTopic(self.sink, partitions, 1)])

    async def create_changelog(self, *, largest: int) -> None:
        """Make the table's changelog before the worker does, for records of so many bytes."""
        async with admin(self.bootstrap) as client:
            configs = {"cleanup.policy": "compact", "max.message.bytes": str(largest)}
            await client.create_topics([NewTopic(self.changelog, self.partitions, 1, topic_configs=configs)])

    def worker(self, kind: str, **orders: Any) -> Process:
        process = Process(
            Orders(
                kind=kind,
                bootstrap=self.bootstrap,
                name=self.group,
                folder=str(self.folder),
                source=self.source,
                sink=self.sink,
                partitions=self.partitions,
                **orders,
            )
        )
        self.workers.append(process)
        return process

    async def produce(self, count: int, *, keys: int = 1, padding: int = 0, partition: int = 0) -> None:
        """Write events to one partition; each key names its partition."""
        async with producer(self.bootstrap) as client:
            for number in range(count):
                body = {"key": f"{partition}-{number % keys}", "at": 0, "padding": ["x" * padding] if padding else []}
                await client.send(self.source, json.dumps(body).encode(), partition=partition)
            await client.flush()

    async def produce_everywhere(self, count: int) -> None:
        """Write events to each partition."""
        for partition in range(self.partitions):
            await self.produce(count, partition=partition)

    async def produce_in_transactions(self, count: int) -> None:
        """Write events in transactions of one: each is followed by a marker, which takes an offset too."""
        async with producer(self.bootstrap, transactional_id=self.prefix) as client:
            for _ in range(count):
                async with client.transaction():
                    await client.send(self.source, json.dumps({"key": "0-0"}).encode(), partition=0)

    async def committed(self, partition: int = 0) -> int:
        async with admin(self.bootstrap) as client:
            try:
                offsets = await client.list_consumer_group_offsets(self.group)
            except GroupCoordinatorNotAvailableError:  # the first group of a new broker
                return 0
        found = offsets.get(TopicPartition(self.source, partition))
        return found.offset if found else 0

    async def commit(self, offset: int) -> None:
        """Commit an offset for all partitions, before there is any worker."""
        client = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, group_id=self.group, enable_auto_commit=False)
        await client.start()
        try:
            partitions = [TopicPartition(self.source, number) for number in range(self.partitions)]
            client.assign(partitions)
            await client.commit(dict.fromkeys(partitions, offset))
        finally:
            await client.stop()

    async def end(self, topic: str, partition: int = 0) -> int:
        """The offset that the next record of a topic will get."""
        client = AIOKafkaConsumer(bootstrap_servers=self.bootstrap)
        await client.start()
        try:
            tp = TopicPartition(topic, partition)
            known = partition in await _partitions(client, topic)
            return int((await client.end_offsets([tp]))[tp]) if known else 0
        finally:
            await client.stop()

    async def until_end(self, topic: str, offset: int) -> None:
        """Wait until a topic has that many records."""
        deadline = time.monotonic() + 30.0
        while (now := await self.end(topic)) < offset:
            assert time.monotonic() < deadline, f"{topic} ends at {now}, not {offset}"
            await asyncio.sleep(0.1)

    async def until_committed(self, offset: int, partition: int = 0, within_s: float = 30.0) -> None:
        deadline = time.monotonic() + within_s
        while (now := await self.committed(partition)) < offset:
            tails = "\n".join(worker.tail() for worker in self.workers)
            assert time.monotonic() < deadline, f"committed {now}, not {offset}\n{tails}"
            await asyncio.sleep(0.1)

    def seen(self) -> list[tuple[int, int]]:
        return [event for worker in self.workers for event in worker.seen]

    async def read(self, topic: str, *, isolation: str = "read_uncommitted") -> list[Any]:
        """All records of a topic, from its beginning to its present end, partition by partition."""
        return [record async for record in everything(self.bootstrap, topic, isolation)]

    async def outputs(self) -> dict[tuple[int, int], int]:
        """How often each event (partition, offset) was answered in the sink."""
        answered: defaultdict[tuple[int, int], int] = defaultdict(int)
        for record in await self.read(self.sink):
            partition, offset = json.loads(record.value)
            answered[partition, offset] += 1
        return answered

    async def until_answered(self, *events: tuple[int, int], within_s: float = 30.0) -> dict[tuple[int, int], int]:
        """Wait until the sink has an answer to each of these events; all that it has then."""
        deadline = time.monotonic() + within_s
        while not (answered := await self.outputs()).keys() >= set(events):
            tails = "\n".join(worker.tail() for worker in self.workers)
            assert time.monotonic() < deadline, f"no answer to {set(events) - answered.keys()}\n{tails}"
            await asyncio.sleep(0.1)
        return answered

    async def until_flowing(self, kind: str) -> dict[tuple[int, int], int]:
        """Write an event to each partition and wait until the sink has an answer to it; all that it has then.

        The safe runtime must answer the first.  Stock Faust may drop it too, while any worker is still busy with a
        rebalance, and tells nobody: it is given more of them.
        """
        while True:
            await self.produce_everywhere(1)
            newest = {(number, await self.end(self.source, number) - 1) for number in range(self.partitions)}
            if kind == "safe":
                return await self.until_answered(*newest)
            with contextlib.suppress(AssertionError):
                return await self.until_answered(*newest, within_s=5.0)

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()


def first_sight_out_of_order(seen: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Events that the agent was given for the first time after a later one of the same partition."""
    highest: dict[int, int] = {}
    known: set[tuple[int, int]] = set()
    late = []
    for partition, offset in seen:
        if (partition, offset) not in known and offset < highest.get(partition, -1):
            late.append((partition, offset))
        known.add((partition, offset))
        highest[partition] = max(offset, highest.get(partition, -1))
    return late


@contextlib.asynccontextmanager
async def admin(bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


@contextlib.asynccontextmanager
async def producer(bootstrap: str, **options: Any) -> AsyncIterator[AIOKafkaProducer]:
    client = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True, linger_ms=5, **options)
    await client.start()
    try:
        yield client
    finally:
        await client.stop()


async def everything(bootstrap: str, topic: str, isolation: str) -> AsyncIterator[Any]:
    client = AIOKafkaConsumer(bootstrap_servers=bootstrap, isolation_level=isolation, auto_offset_reset="earliest")
    await client.start()
    try:
        partitions = [TopicPartition(topic, number) for number in await _partitions(client, topic)]
        if not partitions:
            return
        ends = await client.end_offsets(partitions)
        client.assign(partitions)
        await client.seek_to_beginning(*partitions)
        while any([await client.position(tp) < ends[tp] for tp in partitions]):
            for records in (await client.getmany(timeout_ms=200)).values():
                for record in records:
                    yield record
    finally:
        await client.stop()


async def _partitions(client: AIOKafkaConsumer, topic: str) -> set[int]:
    cluster = await client._client.fetch_all_metadata()
    found: set[int] | None = cluster.partitions_for_topic(topic)
    return found or set()
