"""A worker for the tests of the runtime, stock Faust or safe, run as a process of its own.

The first argument is JSON: `Orders` below.  The worker counts events per key (`[[offset], count]`), emits one record
per event, and writes down what its agent has seen.  Everything that widens a race window or holds something back
is asked for by the test and marked as such.
"""

import asyncio
import json
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiokafka
import faust
from faust.transport.drivers import aiokafka as driver
from faust.types import EventT

from streams.runtime import SafeApp, run


@dataclass
class Orders:
    kind: str  # "stock" or "safe"
    bootstrap: str
    name: str  # app id, and the prefix of its topics
    folder: str  # where the worker leaves its notes
    source: str
    sink: str
    partitions: int = 1
    panes: bool = False
    concurrency: int = 1
    settings: dict[str, Any] = field(default_factory=dict)
    raise_once_at: int = -1  # the first worker to see this offset raises
    hold_at: int = -1  # the agent waits at this offset until the file "go" is there
    hold_changelog: str = ""  # table writes wait in the producer until this file is there
    hold_rebalances: bool = False  # see Worker._hold_rebalances


class Worker:
    """What stands around the agent: notes in files, and the faults."""

    def __init__(self, orders: Orders) -> None:
        self.orders = orders
        self.folder = Path(orders.folder)
        self.seen = (self.folder / f"seen-{os.getpid()}").open("a", buffering=1)
        self.app = self._new_app()
        self.table = self._new_table()
        self.sink = self.app.topic(orders.sink, value_serializer="raw", key_serializer="raw")
        if orders.hold_changelog:
            self._hold_changelog(self.folder / orders.hold_changelog)
        if orders.hold_rebalances:
            self._hold_rebalances()
        source = self.app.topic(orders.source, value_serializer="raw", key_serializer="raw")
        self.app.agent(source, concurrency=orders.concurrency, name="count")(self.count)
        self.app.task(self.started)

    def _new_app(self) -> faust.App:
        common = {
            "broker": f"kafka://{self.orders.bootstrap}",
            "broker_session_timeout": 6.0,
            "broker_heartbeat_interval": 0.5,
            **self.orders.settings,
        }
        if self.orders.kind == "safe":
            return SafeApp(self.orders.name, **common)
        fair = {"producer_linger": 0.005, "producer_request_timeout": 60.0, "broker_commit_interval": 1.0}
        datadir = self.folder / f"data-{os.getpid()}"
        return faust.App(
            self.orders.name,
            **{"table_standby_replicas": 0, "web_enabled": False, "datadir": str(datadir), **fair, **common},
        )

    def _new_table(self) -> Any:
        if isinstance(self.app, SafeApp) and self.orders.panes:
            return self.app.panes("counts", partitions=self.orders.partitions, size_s=60, expires_s=86_400)
        table = self.app.Table("counts", partitions=self.orders.partitions)
        return table.tumbling(60, expires=86_400) if self.orders.panes else table

    # -- the agent

    async def count(self, stream: Any) -> None:
        async for event in self._events(stream):
            offset, body = event.message.offset, json.loads(event.value)
            self.seen.write(f"{event.message.partition} {offset}\n")
            await self._fault(offset)
            key, at = body["key"], body.get("at", 0)
            applied, count = self._read(key, at) or [[-1], 0]
            if offset > applied[0]:
                self._write(key, at, [[offset], count + 1, *body.get("padding", [])])
            note = json.dumps([event.message.partition, offset]).encode()
            await self.sink.send(key=key.encode(), value=note)

    def _events(self, stream: Any) -> AsyncIterator[EventT[Any]]:
        return stream.held() if self.orders.kind == "safe" else stream.events()

    def _read(self, key: str, at: float) -> Any:
        if not self.orders.panes:
            value = self.table.get(key)
        elif self.orders.kind == "safe":
            value = self.table.at(key, at)
        else:
            value = self.table.relative_to(lambda _event: at)[key].value() if self._has(key, at) else None
        return value[:2] if value else None

    def _has(self, key: str, at: float) -> bool:
        inner = self.table.table
        return (key, inner.window.current(at)) in inner.data

    def _write(self, key: str, at: float, value: list[Any]) -> None:
        if not self.orders.panes:
            self.table[key] = value
        elif self.orders.kind == "safe":
            self.table.put(key, at, value)
        else:
            self.table.relative_to(lambda _event: at)[key] = value

    # -- faults and races

    async def _fault(self, offset: int) -> None:
        if offset == self.orders.raise_once_at:
            try:
                (self.folder / "raised").touch(exist_ok=False)
            except FileExistsError:
                return
            raise RuntimeError("the agent raises")
        if offset == self.orders.hold_at:
            await until_there(self.folder / "go")

    def _hold_changelog(self, gate: Path) -> None:
        """A client whose sends do not come through, as with a broker that stalls under a backlog."""
        send = aiokafka.AIOKafkaProducer.send

        async def held_send(producer: Any, topic: str, *args: Any, **options: Any) -> Any:
            if topic.endswith("-changelog"):
                await until_there(gate)
            return await send(producer, topic, *args, **options)

        aiokafka.AIOKafkaProducer.send = held_send

    def _hold_rebalances(self) -> None:
        """While a file "hold" is there, stop a rebalance at the two moments in which stock Faust loses records.

        The first lies between the end of recovery and the resuming of the sources (a listener to
        `on_rebalance_complete` runs then), the second between resuming and seeking.  At the first, Faust's fetcher
        often waits for records of changelogs, with a set of partitions that recovery empties meanwhile; so that it
        does each time, the listener makes such a fetch itself, and drops what it brings, as Faust does.
        """

        async def listen(*_args: Any, **_options: Any) -> None:
            if (self.folder / "hold").exists():
                consumer: Any = self.app.consumer
                live = {tp for tp in consumer.assignment() if tp.topic.endswith("-changelog")}
                consumer._thread.thread_loop.call_soon_threadsafe(time.sleep, 0.1)  # it looks at the set after that
                fetch = asyncio.create_task(consumer._getmany(live, 5.0))
                await asyncio.sleep(0)
                live.clear()
                self.note("recovered")
                await fetch
                await until_there(self.folder / "resume")

        self.app.on_rebalance_complete.connect(listen, weak=False)
        seek, getmany = driver.Consumer.seek_to_committed, driver.AIOKafkaConsumerThread.getmany

        async def held_seek(consumer: Any) -> Any:
            if (self.folder / "resume").exists():
                self.note("resumed")
                await until_there(self.folder / "seek")
            return await seek(consumer)

        async def noted_getmany(thread: Any, active: Any, timeout: float) -> Any:
            records = await getmany(thread, active, timeout)
            for tp in records if (self.folder / "hold").exists() else ():
                self.note(f"fetched-{tp.topic}-{tp.partition}")
            return records

        driver.Consumer.seek_to_committed = held_seek  # type: ignore[method-assign]
        driver.AIOKafkaConsumerThread.getmany = noted_getmany  # type: ignore[method-assign]

    # -- notes

    async def started(self) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self.write_held)
        self.note("ready")

    def note(self, what: str) -> None:
        (self.folder / f"{what}-{os.getpid()}").touch()

    def write_held(self) -> None:
        """Leave what the table holds for the partitions that are ours."""
        held = [[key, value[:2]] for key, value in self._owned()]
        draft = self.folder / f"draft-{os.getpid()}"
        draft.write_text(json.dumps(held))
        draft.rename(self.folder / f"held-{os.getpid()}")

    def _owned(self) -> list[tuple[Any, Any]]:
        if self.orders.kind == "safe":
            return list(self.table.owned())
        inner = self.table.table if self.orders.panes else self.table
        ours = {tp.partition for tp in self.app.consumer.assignment() if tp.topic == self.orders.source}
        return [(key, value) for key, value in inner.data.items() if partition_of(key) in ours]


def partition_of(key: Any) -> int:
    """The partition is the beginning of each key in these tests: "3-key"."""
    name = key if isinstance(key, str) else key[0]
    return int(name.partition("-")[0])


async def until_there(path: Path) -> None:
    while not path.exists():  # noqa: ASYNC110, ASYNC240 - the event comes from another process
        await asyncio.sleep(0.02)


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    return run(Worker(Orders(**json.loads(sys.argv[1]))).app)


if __name__ == "__main__":
    sys.exit(main())
