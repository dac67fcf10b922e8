"""The return path with a real Kafka behind it, joined as the role joins it."""

import asyncio
import ssl
import sys
from pathlib import Path
from typing import Any

import aiohttp
import aiokafka
import pytest
from aiokafka import TopicPartition

from cli.access import producer
from cli.kafka import EmbeddedKafka
from cli.return_path_role import _Publish
from policy.settings import Settings
from schemas.base import Record
from schemas.codec import decode
from schemas.dead_letters import DeadLetter
from schemas.feedback import Feedback
from schemas.topics import DEAD_LETTERS, FEEDBACK
from smtp.gate import Limits
from streams.topics import create
from tests.agents.plant import ROOT, free_port
from tests.smtp.authority import identity
from tests.smtp.mailroom import OTHER_KEYS, running, signed
from tests.smtp.test_unsubscribe_web import written
from tests.smtp.wire import FIXTURES, Wire

UNKNOWN_USER = (FIXTURES / "samples/1-dsn-userunknown.eml").read_bytes()

pytestmark = pytest.mark.kafka


async def _in(bootstrap: str, topic: str, kind: type[Record]) -> list[tuple[bytes, Any]]:
    """Key and record of everything that stands in a topic now."""
    found = []
    consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in range(Settings().partitions)]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        async with asyncio.timeout(30):
            while any([await consumer.position(one) < end for one, end in ends.items()]):
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    found += [(record.key, decode(kind, record.value)) for record in records]
    finally:
        await consumer.stop()
    return found


async def test_what_was_answered_with_250_stands_in_kafka(kafka: EmbeddedKafka, unique: str) -> None:
    await create(kafka.bootstrap, Settings())
    forged = signed(f"{unique}x", keys=OTHER_KEYS)
    async with producer(kafka.bootstrap) as out, running(_Publish(out)) as listener:  # type: ignore[arg-type]
        wire = await Wire.connect(listener.endpoint)
        replies = [await wire.deliver("", rcpt, UNKNOWN_USER) for rcpt in (signed(unique), forged)]
        feedback = await _in(kafka.bootstrap, FEEDBACK, Feedback)
        letters = await _in(kafka.bootstrap, DEAD_LETTERS, DeadLetter)
        wire.close()

    assert [one[:3] for one in replies] == ["250", "250"]
    assert [(key, one.kind) for key, one in feedback if isinstance(one, Feedback) and one.message_id == unique] == [
        (b"spring-sale", "hard_bounce")
    ]
    assert [
        one.reason for _, one in letters if isinstance(one, DeadLetter) and one.headers.get("rcpt_to") == forged
    ] == ["return_path_bad_signature"]


async def test_without_a_broker_the_peer_keeps_the_message(kafka: EmbeddedKafka) -> None:
    async with producer(kafka.bootstrap) as out:
        pass
    async with running(_Publish(out), limits=Limits(publish_s=1.0)) as listener:  # type: ignore[arg-type]
        wire = await Wire.connect(listener.endpoint)
        said = await wire.deliver("", signed(), UNKNOWN_USER)
        wire.close()

    assert said.startswith("451 4.3.0")


async def test_the_role_serves_unsubscribe_links_by_https_until_it_is_told_to_end(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    await create(kafka.bootstrap, Settings())
    one = identity("u.shop.example")
    certificate, key = written(one, tmp_path)
    port = free_port()
    role = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli", "return-path", "--kafka", kafka.bootstrap, "--data", str(tmp_path)),
        *("--return-path", "127.0.0.1:0", "--return-path-web", "127.0.0.1:0", "--unsubscribe-web", f"127.0.0.1:{port}"),
        *("--unsubscribe-certificate", str(certificate), "--unsubscribe-key", str(key)),
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
    )
    tls = ssl.create_default_context(cadata=one.pem.decode())
    try:
        async with aiohttp.ClientSession() as http, asyncio.timeout(30):
            while True:
                try:
                    url = f"https://127.0.0.1:{port}/u/made-up"
                    async with http.post(url, ssl=tls, server_hostname="u.shop.example") as answer:
                        status = answer.status
                    break
                except aiohttp.ClientConnectorError:
                    await asyncio.sleep(0.1)
    finally:
        role.terminate()
        _, said = await asyncio.wait_for(role.communicate(), 30)

    assert (status, role.returncode) == (404, 0), said.decode()
