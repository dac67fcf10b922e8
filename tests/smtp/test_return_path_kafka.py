"""The return path with a real Kafka behind it, joined as the role joins it."""

import asyncio
from typing import Any

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
from tests.smtp.mailroom import OTHER_KEYS, running, signed
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
