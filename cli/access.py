"""How commands speak to Kafka: publish and wait for the acknowledgement, read a topic to its end; failures in words."""

import asyncio
import contextlib
import getpass
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import aiokafka
import aiokafka.errors
import click

from cli.broker import broker
from cli.failures import OutsideFailed, SaysNo
from policy.settings import Settings
from schemas.base import Record
from schemas.codec import encode
from streams.admin import admin
from streams.kafka_security import connection
from streams.producing import Producer
from streams.reading import to_the_end

T = TypeVar("T")

REQUEST_TIMEOUT_S = 15.0
MAX_REQUEST_BYTES = 8_388_608


def say(line: str) -> None:
    """Tell the person at the terminal what is going on; standard output stays for data."""
    click.echo(line, err=True)


def say_imported(file: Path, done: str, skipped: Sequence[str]) -> None:
    """Say what an import has done and which rows it has skipped; exit code 1 if there are some."""
    say(f"{done}, {len(skipped):,} rows skipped")
    for line in skipped[:20]:
        say(line)
    if skipped:
        raise SaysNo(f"{len(skipped)} rows of {file} were skipped")


def with_kafka(settings: Settings, work: Callable[[str], Coroutine[Any, Any, T]]) -> T:
    """Run ``work(bootstrap servers)``; what Kafka does wrong ends the command with exit code 3 and a sentence."""
    with broker(settings, say) as bootstrap:
        try:
            return asyncio.run(_answered(bootstrap, work))
        except aiokafka.errors.KafkaError as failed:
            raise OutsideFailed(f"Kafka at {bootstrap}: {type(failed).__name__}: {failed}") from failed
        except TimeoutError as failed:
            raise OutsideFailed(
                f"Kafka at {bootstrap} did not answer in time; if it is new, first run: mailcordon topics create"
            ) from failed


async def _answered(bootstrap: str, work: Callable[[str], Coroutine[Any, Any, T]]) -> T:
    try:
        async with admin(bootstrap, within_s=10):
            pass  # an answer soon, or a sentence, instead of the retries of whatever the work begins with
    except aiokafka.errors.KafkaConnectionError as silent:
        raise OutsideFailed(str(silent.args[0])) from silent
    return await work(bootstrap)


@contextlib.asynccontextmanager
async def producer(bootstrap: str) -> AsyncIterator[Producer]:
    """An idempotent producer that waits for all replicas."""
    made = Producer(
        **connection(bootstrap),
        acks="all",
        enable_idempotence=True,
        linger_ms=5,
        max_request_size=MAX_REQUEST_BYTES,
        request_timeout_ms=int(REQUEST_TIMEOUT_S * 1000),
    )
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


async def publish(bootstrap: str, records: Iterable[tuple[str, str, Record | None]]) -> None:
    """Publish (topic, key, record); a record of None is a tombstone.  Returns when all are acknowledged."""
    async with producer(bootstrap) as out:
        sent = [
            await out.send(topic, key=key.encode(), value=None if record is None else encode(record))
            for topic, key, record in records
        ]
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            await asyncio.gather(*sent)


def read_to_end(bootstrap: str, topic: str) -> AsyncIterator[aiokafka.ConsumerRecord]:
    """Every record that is in the topic now, partition by partition in order."""
    return to_the_end(bootstrap, topic, within_s=REQUEST_TIMEOUT_S)


def operator() -> str:
    """Who gives the command, for the record of the decision."""
    try:
        return f"operator:{os.environ.get('SUDO_USER') or getpass.getuser()}"
    except (KeyError, OSError):  # a container's user may have no name
        return f"operator:uid-{os.getuid()}"


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of ``size`` items, the last one shorter."""
    chunk: list[T] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
