"""The sender on a real Kafka: the same contract, and what only a broker can do."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

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


async def begin_again(world: KafkaWorld) -> None:
    """Reset the group to the beginning of the outbound topic; nobody may be in it."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=world.bootstrap, group_id=sender_group(world.campaign), enable_auto_commit=False
    )
    await consumer.start()
    try:
        places = [TopicPartition(outbound_topic(world.campaign), number) for number in range(world.partitions)]
        consumer.assign(places)
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(KafkaError):
                    await consumer.commit(dict.fromkeys(places, 0))
                    return
                await asyncio.sleep(0.1)
    finally:
        await consumer.stop()


async def test_entries_are_picked_wherever_they_are_and_those_that_are_gone_left_out(world: KafkaWorld) -> None:
    for number in range(1_500):
        entry = encode(LedgerEntry(sender=f"s-{number}", at=1)) if number in {0, 1, 700, 1_499} else b"garbage"
        await world._producer.send(ledger_topic(world.campaign), entry, partition=0)
    await world._producer.flush()
    async with world.edge("s-0") as (_, ledger, _):
        assert [one.sender async for _, one in ledger.pick(0, [0, 700, 1_499])] == ["s-0", "s-700", "s-1499"]
        await ledger.forget(0, before=600)
        assert [one.sender async for _, one in ledger.pick(0, [0, 1, 700])] == ["s-700"]
        assert [at async for at, _ in ledger.read(0, start=0)] == [700, 1_499]
        await ledger.forget(0, before=1_500)
        assert [at async for at, _ in ledger.pick(0, [700])] == []


async def test_a_cut_ledger_and_topics_that_are_replayed_send_nothing_twice(stage: Stage, world: KafkaWorld) -> None:
    stage.control()
    script = Script(rcpt=lambda line: b"451 4.3.0 later\r\n" if b"late" in line else b"250 ok\r\n")
    async with scripted(script) as server:
        await stage.send(*names(60))
        await stage.send("late1", "late2", "late3")
        async with stage.sender(server.endpoint, snapshot_after=20), world.edge("other") as (_, ledger, _):
            await stage.has_outcomes(60)
            async with asyncio.timeout(20):
                while 0 in [at async for at, _ in ledger.read(0, start=0)]:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
        await begin_again(world)
        await stage.send(*names(60))
        script.rcpt = b"250 ok\r\n"
        async with stage.sender(server.endpoint):
            await stage.is_committed(0, 3)
            stage.clock.advance(3600)
            outcomes = await stage.has_outcomes(63)
    assert set(outcomes.values()) == {"accepted"}
    assert len(server.taken) == 63


@pytest.mark.faults
async def test_one_replica_four_and_one_again_send_every_message_once(stage: Stage, world: KafkaWorld) -> None:
    stage.control(per_second=60)
    count = 600
    async with scripted(Script()) as server, contextlib.AsyncExitStack() as more:
        for start in range(0, count, 20):
            await stage.send(*names(20, start), partition=start // 20 % world.partitions)
        async with stage.sender(server.endpoint, name="s-0"):
            await until(lambda: len(server.taken) > 20, within_s=20)
            for number in range(1, 4):
                await more.enter_async_context(stage.sender(server.endpoint, name=f"s-{number}"))
                await asyncio.sleep(1.0)
            await more.aclose()
            outcomes = await stage.has_outcomes(count, within_s=60)
    assert Counter(outcomes.values()) == {"accepted": count}
    assert len(server.taken) == count
    assert len({frame.sender for frame in await world.results()}) > 1
