"""What a sender is handed while partitions move, without a broker."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from aiokafka import ConsumerRecord, TopicPartition

from streams.sender_kafka import KafkaInbox, Writer


class Reading:
    """A consumer with one garbled record."""

    def __init__(self, topic: str) -> None:
        self._place = TopicPartition(topic, 0)

    async def getmany(self, *places: TopicPartition, **_: Any) -> dict[TopicPartition, list[Any]]:
        assert places == (self._place,)
        record = ConsumerRecord(self._place.topic, 0, 7, 0, 0, None, b"garbage", None, 0, 7, ())
        return {self._place: [record]}

    async def committed(self, place: TopicPartition) -> int:
        assert place == self._place
        return 3


class Writing:
    """A producer that takes its time."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.may_end = asyncio.Event()

    async def write(self, topic: str, record: object, *, key: str | None = None) -> int:
        del topic, record, key
        self.began.set()
        await self.may_end.wait()
        return 0


class Owning:
    async def assigned(self, partitions: Sequence[int]) -> None:
        assert list(partitions) == [0]

    async def revoked(self, partitions: Sequence[int]) -> None:
        assert list(partitions) == [0]


async def test_frames_that_were_read_before_partitions_moved_are_not_handed_out() -> None:
    writing, owner = Writing(), Owning()
    inbox = KafkaInbox("127.0.0.1:1", "spring", cast("Writer", writing), client_id="s-0")
    place = TopicPartition(inbox._topic, 0)
    real, inbox._consumer = inbox._consumer, Reading(inbox._topic)
    await inbox.moved_here([place], owner)
    inbox.open(0)
    taking = asyncio.create_task(inbox.take(10, timeout_s=0.1))
    await writing.began.wait()
    await inbox.moved_away(owner)
    await inbox.moved_here([place], owner)
    inbox.open(0)
    writing.may_end.set()

    assert await taking == []
    assert [position.offset for position, _ in await inbox.take(10, timeout_s=0.1)] == [7]
    await real.stop()
