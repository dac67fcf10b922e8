"""Workers on a real broker, and the records that go in and come out."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import aiokafka
import msgspec

from policy.settings import Settings
from schemas.base import Record
from schemas.codec import Malformed, decode, encode
from schemas.sending import Campaign, Content
from schemas.topics import BY_NAME, CAMPAIGNS, CONTENTS
from streams.admin import admin
from streams.stopping import stop
from streams.topics import create, create_for_campaigns
from tests.agents import worker_process

ROOT = Path(__file__).parents[2]
WITHIN_S = 40.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Worker:
    """One worker process."""

    def __init__(self, bootstrap: str, app_id: str, log: Path, partitions: int) -> None:
        self.port = free_port()
        self._log = log
        self._orders = json.dumps(
            {
                "bootstrap": bootstrap,
                "app_id": app_id,
                "instance_id": log.stem,
                "port": self.port,
                "partitions": partitions,
            }
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, worker_process.__file__, self._orders],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        return self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(how)
        try:
            return self._process.wait(WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise

    def ended(self) -> tuple[int, str]:
        """Wait until it ends by itself: the exit code and the log."""
        assert self._process is not None
        code = self._process.wait(WITHIN_S)
        return code, self._log.read_text()

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    async def ready(self) -> None:
        """Wait until the worker says that it is ready."""
        deadline = time.monotonic() + WITHIN_S
        async with aiohttp.ClientSession() as http:
            while time.monotonic() < deadline:
                assert self.runs, self._log.read_text()[-5000:]
                try:
                    async with http.get(f"http://127.0.0.1:{self.port}/readyz") as answer:
                        if answer.status == 200:
                            return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.1)
        raise TimeoutError(self._log.read_text()[-5000:])

    async def get(self, path: str, accept: str = "*/*") -> tuple[int, str]:
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"http://127.0.0.1:{self.port}{path}", headers={"Accept": accept}) as answer,
        ):
            return answer.status, await answer.text()


class Plant:
    """A broker with the topics, and a way to speak to it from tests."""

    def __init__(self, bootstrap: str, folder: Path, app_id: str) -> None:
        self.bootstrap = bootstrap
        self.settings = Settings()
        self._folder = folder
        self.app_id = app_id
        self._workers: list[Worker] = []

    def worker(self, partitions: int = 4) -> Worker:
        """A worker that is not started yet."""
        log = self._folder / f"worker-{len(self._workers)}.log"
        made = Worker(self.bootstrap, self.app_id, log, partitions)
        self._workers.append(made)
        return made

    def stop(self) -> None:
        for one in self._workers:
            if one.runs:
                one.stop()

    async def create(self) -> None:
        await create(self.bootstrap, self.settings, app_id=self.app_id)

    async def register(self, *records: Campaign | Content) -> None:
        """Make campaigns and contents known, as the command line does."""
        campaigns = [one.campaign for one in records if isinstance(one, Campaign)]
        await create_for_campaigns(self.bootstrap, campaigns, self.settings)
        await self.publish(
            *((CAMPAIGNS, one.campaign, one) for one in records if isinstance(one, Campaign)),
            *((CONTENTS, f"{one.campaign}/{one.content}", one) for one in records if isinstance(one, Content)),
        )

    async def publish(
        self,
        *records: tuple[str, str | None, Record | bytes],
        partition: int | None = None,
        headers: Sequence[tuple[str, bytes]] | None = None,
    ) -> None:
        """Publish and wait until the broker has all of it."""
        producer = aiokafka.AIOKafkaProducer(
            bootstrap_servers=self.bootstrap, acks="all", max_request_size=8_388_608, linger_ms=5
        )
        await producer.start()
        try:
            sent = [
                await producer.send(
                    topic,
                    key=None if key is None else key.encode(),
                    value=encode(value) if isinstance(value, Record) else value,
                    partition=partition,
                    headers=headers,
                )
                for topic, key, value in records
            ]
            await asyncio.gather(*sent)
        finally:
            await producer.stop()

    async def appears(self, topic: str) -> None:
        """Wait until a topic is there."""
        async with admin(self.bootstrap, within_s=WITHIN_S) as edge:
            while topic not in await edge.partitions([topic]):  # noqa: ASYNC110 - only the broker knows when
                await asyncio.sleep(0.1)

    async def read(
        self, topic: str, until: Callable[[list[Any]], bool], of: Callable[[Any], bool] = lambda _: True
    ) -> list[Any]:
        """The records of a topic that ``of`` picks, read from the beginning until there are enough."""
        described = BY_NAME.get(topic) or next(one for one in BY_NAME.values() if topic.startswith(one.name))
        return [
            record
            for record, _ in await self.read_raw(
                topic,
                lambda found: until([one for one, _ in found]),
                _decoder(described.records),
                lambda one: not isinstance(one, Malformed) and of(one),  # other tests leave their rubbish here
            )
        ]

    async def read_raw(
        self,
        topic: str,
        until: Callable[[list[tuple[Any, aiokafka.ConsumerRecord]]], bool],
        decoded: Callable[[bytes], Any],
        of: Callable[[Any], bool] = lambda _: True,
    ) -> list[tuple[Any, aiokafka.ConsumerRecord]]:
        """The same, each with the record as it was consumed."""
        async with admin(self.bootstrap, within_s=WITHIN_S) as edge:
            partitions = list(await edge.leaders([topic]))
        consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=self.bootstrap, auto_offset_reset="earliest")
        await consumer.start()
        found: list[tuple[Any, aiokafka.ConsumerRecord]] = []
        try:
            consumer.assign(partitions)
            async with asyncio.timeout(WITHIN_S):
                while not until(found):
                    for records in (await consumer.getmany(timeout_ms=200)).values():
                        found += [(one, raw) for raw in records if of(one := decoded(raw.value))]
        except TimeoutError:
            raise AssertionError(f"{topic}: not enough in {found[-20:]}") from None
        finally:
            await stop(consumer)
        return found


def _decoder(kinds: Iterable[type[Record]]) -> Callable[[bytes], Any]:
    def decoded(raw: bytes) -> Any:
        read: Any = None
        for kind in kinds:
            read = decode(kind, raw, max_bytes=8_388_608)
            if not isinstance(read, Malformed):
                return read
        return read

    return decoded


def json_of(text: str) -> Any:
    return msgspec.json.decode(text)


def counting(bootstrap: str, folder: Path) -> Iterator[Plant]:
    """A plant with all topics and a worker that counts; ended when the generator goes on."""
    made = Plant(bootstrap, folder, app_id=f"worker-{folder.name}")
    asyncio.run(made.create())
    worker = made.worker()
    worker.start()
    asyncio.run(worker.ready())
    yield made
    made.stop()
