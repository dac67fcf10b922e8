"""Reading what is in a topic now, once: every record of every partition, up to where each ended at the beginning."""

import asyncio
import time
from collections.abc import AsyncIterator

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from schemas.topics import TOPICS
from streams.admin import LEADER_MOVED, Admin, admin
from streams.fetching import hasten
from streams.kafka_security import connection
from streams.stopping import stop

_LARGEST_RECORD = max(topic.max_bytes for topic in TOPICS)
_PAUSE_S = 0.1


async def to_the_end(
    bootstrap: str, topic: str, *, within_s: float, since_ms: int | None = None
) -> AsyncIterator[ConsumerRecord]:
    """The records of a topic, partition by partition in order; none if there is no such topic.

    With ``since_ms`` each partition begins at its first record that is not older.
    ``within_s`` bounds each wait for the broker, not the whole: a long topic takes its time.
    """
    async with admin(bootstrap, within_s=within_s) as edge:
        ends = await _ends(edge, topic, within_s)
    if not ends:
        return
    consumer = AIOKafkaConsumer(
        **connection(bootstrap),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=_LARGEST_RECORD,
    )
    hasten(consumer)
    try:
        await consumer.start()
        consumer.assign(list(ends))
        if since_ms is not None:
            begins = await consumer.offsets_for_times(dict.fromkeys(ends, since_ms))
            for partition, begin in begins.items():
                consumer.seek(partition, ends[partition] if begin is None else begin.offset)
        heard_at = time.monotonic()
        while any([await consumer.position(partition) < end for partition, end in ends.items()]):
            batches = await consumer.getmany(timeout_ms=200)
            for partition, records in batches.items():
                for record in records:
                    if record.offset < ends[partition]:
                        yield record
            if batches:
                heard_at = time.monotonic()
            elif time.monotonic() - heard_at > within_s:
                raise TimeoutError(f"topic {topic} could not be read to its end")
    finally:
        await stop(consumer)


async def _ends(edge: Admin, topic: str, within_s: float) -> dict[TopicPartition, int]:
    """Where each partition that holds anything ends.  A topic that was made just now may not have its leaders yet."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            ends = await edge.ends(await edge.leaders([topic]))
        except LEADER_MOVED:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(_PAUSE_S)
        else:
            return {partition: end for partition, end in ends.items() if end > 0}
