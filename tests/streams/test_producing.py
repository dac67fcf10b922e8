"""A record that waits to be sent is not forgotten because another topic is new."""

import asyncio

import pytest

from cli.kafka import EmbeddedKafka
from streams.admin import Planned, admin
from streams.producing import Producer

pytestmark = pytest.mark.kafka


async def test_a_record_that_waits_is_sent_though_a_topic_is_new_to_the_producer(
    kafka: EmbeddedKafka, unique: str
) -> None:
    known, new = f"{unique}-known", f"{unique}-new"
    async with admin(kafka.bootstrap, within_s=20) as edge:
        await edge.create([Planned(known, 1, 1, {})])
        producer = Producer(bootstrap_servers=kafka.bootstrap, acks="all", linger_ms=500, request_timeout_ms=20_000)
        await producer.start()
        try:
            await producer.client.force_metadata_update()  # as Faust does when it makes a topic
            await edge.create([Planned(new, 1, 1, {})])
            waiting = await producer.send(known, b"waits for half a second")
            await (await producer.send(new, b"new"))
            assert (await asyncio.wait_for(waiting, 10)).offset == 0
        finally:
            await producer.stop()
