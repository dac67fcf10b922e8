"""The sender on a real Kafka: the same contract, and what only a broker can do."""

import contextlib
import time
from collections.abc import AsyncIterator, Sequence

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from cli.kafka import EmbeddedKafka
from policy.naming import ledger_topic, outbound_topic, sender_group
from policy.settings import Settings
from schemas.codec import decode, encode
from schemas.dead_letters import DeadLetter
from schemas.delivery import DeliveryFrame, DeliveryResult, LedgerEntry
from schemas.topics import DEAD_LETTERS, RESULTS
from streams.sender_kafka import CannotRead, CannotWrite, KafkaInbox, KafkaLedger, KafkaResults, Writer
from streams.topics import create, create_for_campaigns
from tests.smtp.sender_contract import SenderContract, Stage, names
from tests.smtp.servers import Script, scripted, until

pytestmark = pytest.mark.kafka

SETTINGS = Settings(outbound_partitions=2)
SESSION_S = 2.0


class KafkaWorld:
    """The topics of one campaign on a real broker."""

    def __init__(self, bootstrap: str, campaign: str, producer: AIOKafkaProducer) -> None:
        self.bootstrap = bootstrap
        self.campaign = campaign
        self.partitions = SETTINGS.outbound_partitions
        self._producer = producer
        self._tails: dict[str, AIOKafkaConsumer] = {}
        self._read: dict[str, list[tuple[int, int, bytes]]] = {}

    async def put(self, value: bytes, partition: int) -> None:
        await self._producer.send_and_wait(outbound_topic(self.campaign), value, partition=partition)

    async def results(self) -> Sequence[DeliveryFrame]:
        frames = [decode(DeliveryFrame, value) for _, _, value in await self._all(RESULTS)]
        return [frame for frame in frames if isinstance(frame, DeliveryFrame) and frame.campaign == self.campaign]

    async def entries(self, partition: int) -> Sequence[tuple[int, LedgerEntry]]:
        read = await self._all(ledger_topic(self.campaign))
        entries = [(offset, decode(LedgerEntry, value)) for at, offset, value in read if at == partition]
        return [(offset, entry) for offset, entry in entries if isinstance(entry, LedgerEntry)]

    async def append(self, partition: int, entry: LedgerEntry) -> int:
        sent = await self._producer.send_and_wait(ledger_topic(self.campaign), encode(entry), partition=partition)
        return int(sent.offset)

    async def committed(self, partition: int) -> int:
        consumer = self._tails.get("group")
        if consumer is None:
            consumer = self._tails["group"] = AIOKafkaConsumer(
                bootstrap_servers=self.bootstrap, group_id=sender_group(self.campaign), enable_auto_commit=False
            )
            await consumer.start()
            consumer.assign([TopicPartition(outbound_topic(self.campaign), p) for p in range(self.partitions)])
        return await consumer.committed(TopicPartition(outbound_topic(self.campaign), partition)) or 0

    async def dead_letters(self) -> Sequence[tuple[int, int]]:
        letters = [decode(DeadLetter, value) for _, _, value in await self._all(DEAD_LETTERS)]
        ours = [one for one in letters if isinstance(one, DeadLetter) and one.topic == outbound_topic(self.campaign)]
        return [(one.partition, one.offset) for one in ours]

    @contextlib.asynccontextmanager
    async def edge(self, name: str) -> AsyncIterator[tuple[KafkaInbox, KafkaLedger, KafkaResults]]:
        writer = Writer(self.bootstrap, client_id=name, within_s=10)
        await writer.start()
        inbox = KafkaInbox(self.bootstrap, self.campaign, writer, client_id=name, session_s=SESSION_S, drain_s=8)
        try:
            yield inbox, KafkaLedger(self.bootstrap, self.campaign, writer, client_id=name), KafkaResults(writer)
        finally:
            await inbox.stop()
            await writer.stop()

    async def _all(self, topic: str) -> list[tuple[int, int, bytes]]:
        """Everything in a topic up to its end now."""
        if topic not in self._tails:
            consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, auto_offset_reset="earliest")
            await consumer.start()
            partitions = await consumer._client.fetch_all_metadata()
            consumer.assign([TopicPartition(topic, p) for p in partitions.partitions_for_topic(topic)])
            self._tails[topic], self._read[topic] = consumer, []
        consumer = self._tails[topic]
        ends = await consumer.end_offsets(list(consumer.assignment()))
        while not all([await consumer.position(place) >= end for place, end in ends.items()]):
            for place, records in (await consumer.getmany(timeout_ms=200)).items():
                self._read[topic] += [(place.partition, record.offset, record.value) for record in records]
        return self._read[topic]

    async def close(self) -> None:
        for consumer in self._tails.values():
            await consumer.stop()


@pytest.fixture
async def world(kafka: EmbeddedKafka, unique: str) -> AsyncIterator[KafkaWorld]:
    await create(kafka.bootstrap, SETTINGS)
    await create_for_campaigns(kafka.bootstrap, [unique], SETTINGS)
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, enable_idempotence=True)
    await producer.start()
    one = KafkaWorld(kafka.bootstrap, unique, producer)
    try:
        yield one
    finally:
        await one.close()
        await producer.stop()


@pytest.fixture
def stage(world: KafkaWorld) -> Stage:
    return Stage(world)


class TestOnKafka(SenderContract):
    """The contract on a real broker."""


async def test_an_entry_of_a_newer_version_ends_the_reading(world: KafkaWorld) -> None:
    ledger = ledger_topic(world.campaign)
    await world._producer.send_and_wait(ledger, b'{"v":2,"sender":"next","at":1,"done":["m-1"]}', partition=0)
    async with world.edge("s-0") as (_, reader, _):
        with pytest.raises(CannotRead, match="reads version 1"):
            assert [one async for one in reader.read(0, start=0)] == []


async def test_garbage_in_the_ledger_is_skipped(world: KafkaWorld) -> None:
    await world._producer.send_and_wait(ledger_topic(world.campaign), b"garbage", partition=0)
    offset = await world.append(0, LedgerEntry(sender="s", at=1))
    async with world.edge("s-0") as (_, reader, _):
        assert [at async for at, _ in reader.read(0, start=0)] == [offset]
        assert [at async for at, _ in reader.read(0, start=offset + 1)] == []


async def test_a_record_that_nobody_acknowledges_raises_in_time(kafka: EmbeddedKafka, unique: str) -> None:
    writer = Writer(kafka.bootstrap, client_id=unique, within_s=0.3)
    await writer.start()
    try:
        with pytest.raises(CannotWrite, match="within"):
            await writer.write(f"{unique}.missing", LedgerEntry(sender="s", at=1), partition=0)
    finally:
        await writer.stop()


async def test_a_frozen_sender_is_not_assured_when_it_wakes_up(world: KafkaWorld) -> None:
    """A process that was stopped longer than its lease must not send before the group has confirmed it."""

    class Owner:
        async def assigned(self, partitions: Sequence[int]) -> None:
            del partitions

        async def revoked(self, partitions: Sequence[int]) -> None:
            del partitions

    async with world.edge("s-0") as (inbox, _, _):
        await inbox.start(Owner())
        await until(lambda: inbox.assured(0) and inbox.assured(1))
        time.sleep(SESSION_S * 0.7)  # noqa: ASYNC251 - the whole process stands still, as after SIGSTOP
        assert not inbox.assured(0)
        await until(lambda: inbox.assured(0))


async def test_partitions_of_a_sender_that_died_go_to_another_one(stage: Stage) -> None:
    stage.control()
    async with scripted(Script()) as server:
        await stage.send(*names(20))
        async with stage.sender(server.endpoint, name="s-0") as first:
            await stage.has_outcomes(20)
            await first.kill()
            await stage.send(*names(20, 20))
            async with stage.sender(server.endpoint, name="s-1"):
                await stage.has_outcomes(40)
    assert len(server.taken) == 40


async def test_a_ledger_larger_than_one_fetch_is_read_to_its_end(world: KafkaWorld) -> None:
    text = "x" * 300
    for start in range(0, 20_000, 500):
        results = [
            DeliveryResult(message_id=f"m-{n}", outcome="bounced", at=1, text=text) for n in range(start, start + 500)
        ]
        await world.append(0, LedgerEntry(sender="s", at=1, results=results))
    async with world.edge("s-0") as (_, reader, _):
        assert sum([len(entry.results) async for _, entry in reader.read(0, start=0)]) == 20_000
