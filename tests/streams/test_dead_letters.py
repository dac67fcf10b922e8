import asyncio
from collections.abc import AsyncIterator

import aiokafka
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.kafka import EmbeddedKafka
from policy.settings import Settings
from schemas.codec import encode
from schemas.dead_letters import DeadLetter
from schemas.topics import BY_NAME, DEAD_LETTERS
from streams import dead_letters
from streams.admin import Planned, admin
from streams.dead_letters import Kept, dead_letter, kept, replay
from streams.topics import create

RAW = b'{"v":1,"campaign":"\xff'
HEADERS = (("trace", b"abc"), ("binary", b"\xff\x00"), ("odd", b"base64:"), ("empty", b""))


def letter_of(topic: str, offset: int = 0, raw: bytes = RAW) -> DeadLetter:
    return dead_letter(
        topic=topic,
        partition=0,
        offset=offset,
        key=b"\xfe",
        value=raw,
        headers=HEADERS,
        reason="not_json",
        explain="the record is not a JSON object",
        now=1,
    )


@given(st.binary(max_size=50))
def test_a_header_comes_back_as_it_was(value: bytes) -> None:
    assert dead_letters._as_bytes(dead_letters._as_text(value)) == value


def test_the_largest_record_fits_as_a_dead_letter() -> None:
    most = BY_NAME["mail.send.requests"].max_bytes
    headers = [("\x00" * 1_000_000, b"\x01" * 1_000_000)]

    letter = dead_letter(
        topic="mail.send.requests",
        partition=0,
        offset=0,
        key=b"k" * 1000,
        value=b"\xff" * (most - 2_001_000),
        headers=headers,
        reason="too_large",
        explain="x" * 10_000,
        now=1,
    )

    assert len(encode(letter)) < BY_NAME[DEAD_LETTERS].max_bytes
    assert "headers were too large" in letter.explain


@pytest.fixture
async def source(kafka: EmbeddedKafka, unique: str) -> AsyncIterator[str]:
    """A topic of its own that dead letters came from."""
    await create(kafka.bootstrap, Settings())
    async with admin(kafka.bootstrap, within_s=20) as edge:
        await edge.create([Planned(unique, 1, 1, {})])
        yield unique
        await edge.delete([unique])


async def put(kafka: EmbeddedKafka, *letters: DeadLetter) -> None:
    producer = aiokafka.AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, acks="all")
    await producer.start()
    for letter in letters:
        await producer.send_and_wait(DEAD_LETTERS, encode(letter), key=letter.topic.encode())
    await producer.stop()


async def about(kafka: EmbeddedKafka, source: str) -> list[Kept]:
    return [one for one in await kept(kafka.bootstrap) if one.letter.topic == source]


async def records_in(kafka: EmbeddedKafka, topic: str) -> list[aiokafka.ConsumerRecord]:
    consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    partition = aiokafka.TopicPartition(topic, 0)
    consumer.assign([partition])
    end = (await consumer.end_offsets([partition]))[partition]
    found: list[aiokafka.ConsumerRecord] = []
    while await consumer.position(partition) < end:
        for records in (await consumer.getmany(timeout_ms=200)).values():
            found += records
    await consumer.stop()
    return found


@pytest.mark.kafka
async def test_a_replayed_record_is_the_one_that_was_set_aside(kafka: EmbeddedKafka, source: str) -> None:
    await put(kafka, letter_of(source))

    await replay(kafka.bootstrap, await about(kafka, source))

    (record,) = await records_in(kafka, source)
    assert (record.key, record.value, record.headers) == (b"\xfe", RAW, HEADERS)


@pytest.mark.kafka
async def test_a_second_replay_puts_nothing_back(kafka: EmbeddedKafka, source: str) -> None:
    await put(kafka, letter_of(source, 0), letter_of(source, 1))
    letters = await about(kafka, source)
    assert [one.replayed_at for one in letters] == [None, None]

    await replay(kafka.bootstrap, letters[:1])
    again = await replay(kafka.bootstrap, letters)  # a list read before the first replay
    last = await replay(kafka.bootstrap, await about(kafka, source))

    assert [one.letter.offset for one in again] == [1]
    assert last == []
    assert len(await records_in(kafka, source)) == 2
    assert all(one.replayed_at is not None for one in await about(kafka, source))


@pytest.mark.kafka
async def test_two_replays_at_once_put_each_letter_back_once(kafka: EmbeddedKafka, source: str) -> None:
    await put(kafka, *(letter_of(source, offset) for offset in range(10)))
    letters = await about(kafka, source)

    done = await asyncio.gather(*(replay(kafka.bootstrap, letters) for _ in range(3)))

    assert sorted(one.letter.offset for part in done for one in part) == list(range(10))
    assert len(await records_in(kafka, source)) == 10


@pytest.mark.kafka
async def test_again_puts_back_what_was_put_back(kafka: EmbeddedKafka, source: str) -> None:
    await put(kafka, letter_of(source))
    letters = await about(kafka, source)

    await replay(kafka.bootstrap, letters)
    await replay(kafka.bootstrap, letters, again=True)

    assert len(await records_in(kafka, source)) == 2
