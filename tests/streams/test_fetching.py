"""Large answers are read for less, and are the same answers; a wrong checksum is found as before."""

import asyncio
import itertools
import random
import struct
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from cli.kafka import EmbeddedKafka
from streams import fetching
from streams.admin import Planned, admin
from streams.fetching import Answers, are_intact, hasten


class Connection:
    """What :class:`Answers` sees of aiokafka's connection."""

    def __init__(self) -> None:
        self.answers: list[bytes] = []
        self.is_open = True
        self._protocol = asyncio.Protocol()

    def connected(self) -> bool:
        return self.is_open

    def _handle_frame(self, answer: bytes) -> None:
        self.answers.append(answer)
        if answer == b"the last":
            self.is_open = False


def on_the_wire(answers: Sequence[bytes]) -> bytes:
    return b"".join(struct.pack(">i", len(one)) + one for one in answers)


@given(answers=st.lists(st.binary(max_size=60), max_size=8), cuts=st.lists(st.integers(0, 600), max_size=20))
def test_answers_are_the_same_however_the_network_cuts_them(answers: list[bytes], cuts: list[int]) -> None:
    sent, connection = on_the_wire(answers), Connection()
    protocol = Answers(connection)
    places = sorted({0, len(sent), *(cut for cut in cuts if cut < len(sent))})
    for begin, end in itertools.pairwise(places):
        protocol.data_received(sent[begin:end])
    assert connection.answers == answers


def test_nothing_is_handed_on_after_the_connection_was_closed() -> None:
    connection = Connection()
    Answers(connection).data_received(on_the_wire([b"first", b"the last", b"too late"]))
    assert connection.answers == [b"first", b"the last"]


def test_an_answer_of_negative_size_loses_the_connection() -> None:
    with pytest.raises(ValueError, match="-1 bytes"):
        Answers(Connection()).data_received(b"\xff\xff\xff\xff")


def batch(values: Sequence[bytes]) -> bytes:
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=1_000_000,
    )
    for offset, value in enumerate(values):
        builder.append(offset, timestamp=1, key=None, value=value, headers=[])
    return bytes(builder.build())


@given(batches=st.lists(st.lists(st.binary(max_size=40), min_size=1, max_size=4), max_size=4), at=st.integers(0))
def test_any_flipped_bit_that_a_checksum_covers_is_found(batches: list[list[bytes]], at: int) -> None:
    whole = [batch(values) for values in batches]
    assert are_intact(b"".join(whole))
    if not whole:
        return
    broken = bytearray(whole[-1])
    broken[17 + at % (len(broken) - 17)] ^= 1 << at % 8
    assert not are_intact(b"".join([*whole[:-1], bytes(broken)]))


@given(values=st.lists(st.binary(max_size=40), min_size=1, max_size=4), left=st.integers(0))
def test_a_last_batch_that_the_broker_cut_off_is_no_mistake(values: list[bytes], left: int) -> None:
    one = batch(values)
    assert are_intact(one + one[: left % len(one)])


@pytest.mark.parametrize("version", [0, 1, 3])
def test_batches_of_other_versions_are_left_to_aiokafka(version: int) -> None:
    other = bytearray(batch([b"x"]))
    other[16] = version
    assert not are_intact(bytes(other))


def test_a_batch_with_an_impossible_length_is_not_intact() -> None:
    other = bytearray(batch([b"x"]))
    other[8:12] = struct.pack(">i", -12)
    assert not are_intact(bytes(other))


# -- a real broker


@pytest.fixture
async def topic(kafka: EmbeddedKafka, unique: str) -> TopicPartition:
    name = f"{unique}-large"
    async with admin(kafka.bootstrap, within_s=20) as edge:
        await edge.create([Planned(name, 1, 1, {"max.message.bytes": "8388608"})])
    return TopicPartition(name, 0)


async def read(bootstrap: str, place: TopicPartition, number: int, prepare: Callable[[Any], None]) -> list[bytes]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, auto_offset_reset="earliest", max_partition_fetch_bytes=4_194_304
    )
    prepare(consumer)
    found: list[bytes] = []
    await consumer.start()
    try:
        consumer.assign([place])
        async with asyncio.timeout(30):
            while len(found) < number:
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    found += [record.value for record in records]
    finally:
        await consumer.stop()
    return found


async def publish(bootstrap: str, place: TopicPartition, values: Sequence[bytes]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, max_request_size=8_388_608, max_batch_size=1_048_576)
    await producer.start()
    try:
        for value in values:
            await (await producer.send(place.topic, value))
    finally:
        await producer.stop()


@pytest.mark.kafka
async def test_a_hastened_consumer_reads_what_others_read(kafka: EmbeddedKafka, topic: TopicPartition) -> None:
    chance = random.Random(1)
    values = [chance.randbytes(chance.choice([1, 1_000, 200_000, 1_000_000])) for _ in range(40)]
    await publish(kafka.bootstrap, topic, values)
    assert await read(kafka.bootstrap, topic, len(values), hasten) == values


@pytest.mark.kafka
async def test_records_with_a_wrong_checksum_are_refused_as_ever(
    kafka: EmbeddedKafka, topic: TopicPartition, monkeypatch: pytest.MonkeyPatch
) -> None:
    await publish(kafka.bootstrap, topic, [b"what the disk has lost"])
    whole = fetching.Answers._hand_on

    def spoilt(self: Answers, answer: bytes) -> None:
        whole(self, answer.replace(b"what the disk has lost", b"what the disk has kept"))

    monkeypatch.setattr(fetching.Answers, "_hand_on", spoilt)
    with pytest.raises(CorruptRecordException):
        await read(kafka.bootstrap, topic, 1, hasten)


@pytest.mark.kafka
async def test_a_hastened_consumer_goes_on_after_its_connection_was_lost(
    kafka: EmbeddedKafka, topic: TopicPartition
) -> None:
    await publish(kafka.bootstrap, topic, [b"before"])
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest")
    hasten(consumer)
    await consumer.start()
    try:
        consumer.assign([topic])
        async with asyncio.timeout(30):
            assert (await consumer.getone()).value == b"before"
            for connection in list(consumer._client._conns.values()):  # as if the broker hung up
                connection._writer.transport.abort()
            await publish(kafka.bootstrap, topic, [b"after"])
            assert (await consumer.getone()).value == b"after"
    finally:
        await consumer.stop()
