import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiokafka
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

from cli.kafka import EmbeddedKafka, default_cache
from policy.settings import Settings
from policy.templates import BadContent, Template
from schemas.base import Record
from schemas.codec import encode
from schemas.feedback import RegisteredTrap, Suppression
from schemas.reputation import Control, Counts, RatesSnapshot
from schemas.sending import Campaign, Content, Mailbox, Pace
from schemas.topics import CAMPAIGNS, CONTENTS, CONTROL, RATES, SUPPRESSIONS, TRAPS
from streams.admin import Planned, admin
from streams.catalogue import ALL, Catalogue
from streams.following import Follower
from streams.topics import create

pytestmark = pytest.mark.kafka

ANN = "ab" * 32
SOON_S = 20.0


class Publisher:
    def __init__(self, producer: aiokafka.AIOKafkaProducer) -> None:
        self._producer = producer

    async def __call__(self, topic: str, key: str, value: Record | bytes | None, partition: int | None = None) -> None:
        raw = encode(value) if isinstance(value, Record) else value
        await self._producer.send_and_wait(topic, key=key.encode(), value=raw, partition=partition)


@contextlib.asynccontextmanager
async def publisher(bootstrap: str) -> AsyncIterator[Publisher]:
    producer = aiokafka.AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
    await producer.start()
    try:
        yield Publisher(producer)
    finally:
        await producer.stop()


@pytest.fixture
async def publish(kafka: EmbeddedKafka) -> AsyncIterator[Publisher]:
    await create(kafka.bootstrap, Settings())
    async with publisher(kafka.bootstrap) as made:
        yield made


@pytest.fixture
async def catalogue(kafka: EmbeddedKafka, publish: Publisher) -> AsyncIterator[Catalogue]:
    made = Catalogue(kafka.bootstrap, ALL, client_id="test")
    await made.start(within_s=SOON_S)
    yield made
    await made.stop()


def campaign(name: str, tenant: str = "shop") -> Campaign:
    return Campaign(
        campaign=name, tenant=tenant, from_=Mailbox(address="news@shop.example"), return_path_domain="b.shop.example"
    )


def control(name: str, epoch: int, *, may_send: bool = True, reason: str = "none") -> Control:
    state = "healthy" if may_send else "isolated"
    return Control(campaign=name, epoch=epoch, may_send=may_send, pace=Pace(), state=state, reason=reason, at=1)


async def test_what_was_published_before_the_barrier_is_in(
    catalogue: Catalogue, publish: Publisher, unique: str
) -> None:
    for number in range(20):
        name = f"{unique}-{number}"
        await publish(CAMPAIGNS, name, campaign(name))
        assert await catalogue.caught_up(SOON_S)
        assert name in catalogue.campaigns


async def test_a_tombstone_takes_a_campaign_and_its_content_away(
    catalogue: Catalogue, publish: Publisher, unique: str
) -> None:
    await publish(CAMPAIGNS, unique, campaign(unique))
    await publish(CONTENTS, f"{unique}/hello", Content(campaign=unique, content="hello", subject="Hello {{name}}"))
    assert await catalogue.caught_up(SOON_S)
    assert isinstance(catalogue.templates[unique, "hello"], Template)

    await publish(CAMPAIGNS, unique, None)
    await publish(CONTENTS, f"{unique}/hello", None)
    assert await catalogue.caught_up(SOON_S)

    assert unique not in catalogue.campaigns
    assert (unique, "hello") not in catalogue.contents
    assert (unique, "hello") not in catalogue.templates


async def test_a_content_that_cannot_be_compiled_says_why(
    catalogue: Catalogue, publish: Publisher, unique: str
) -> None:
    await publish(CONTENTS, f"{unique}/bad", Content(campaign=unique, content="bad", subject="{{ 7*7 }}"))
    assert await catalogue.caught_up(SOON_S)

    assert isinstance(catalogue.templates[unique, "bad"], BadContent)


async def test_the_newest_epoch_wins_whatever_comes_later(
    catalogue: Catalogue, publish: Publisher, unique: str
) -> None:
    await publish(CONTROL, unique, control(unique, 7, may_send=False))
    await publish(CONTROL, unique, control(unique, 6))
    assert await catalogue.caught_up(SOON_S)
    assert catalogue.controls[unique].epoch == 7
    assert not catalogue.controls[unique].may_send

    await publish(CONTROL, unique, control(unique, 7, may_send=False, reason="said again"))
    assert await catalogue.caught_up(SOON_S)
    assert catalogue.controls[unique].reason == "said again"


async def test_a_record_that_cannot_be_read_is_skipped_and_counted(
    catalogue: Catalogue, publish: Publisher, unique: str
) -> None:
    before = catalogue.malformed
    for raw in (b"{", b'{"v":2}', b"\xff\xfe", b'{"v":1,"campaign":5}'):
        await publish(CAMPAIGNS, unique, raw, partition=0)
    await publish(SUPPRESSIONS, "no-hash|platform", None)
    await publish(CAMPAIGNS, unique, campaign(unique), partition=0)
    assert await catalogue.caught_up(SOON_S)

    assert catalogue.malformed == before + 5
    assert unique in catalogue.campaigns


async def test_a_suppression_holds_in_its_scope_until_it_is_lifted(
    catalogue: Catalogue, publish: Publisher, unique: str
) -> None:
    mine, other = f"{unique}-mine", f"{unique}-other"
    scope = f"tenant:{unique}"
    await publish(CAMPAIGNS, mine, campaign(mine, tenant=unique))
    await publish(CAMPAIGNS, other, campaign(other, tenant="other"))
    suppression = Suppression(address_hash=ANN, scope=scope, reason="complaint", since=1)
    await publish(SUPPRESSIONS, f"{ANN}|{scope}", suppression)
    assert await catalogue.caught_up(SOON_S)
    assert catalogue.suppressed(ANN, mine) == "complaint"
    assert catalogue.suppressed(ANN, other) is None

    await publish(SUPPRESSIONS, f"{ANN}|{scope}", None)
    assert await catalogue.caught_up(SOON_S)
    assert catalogue.suppressed(ANN, mine) is None


async def test_an_address_is_heard_of_when_it_is_a_trap_or_was_ever_suppressed(
    catalogue: Catalogue, publish: Publisher
) -> None:
    trap, dead, strange = "ca" * 32, "fe" * 32, "12" * 32
    record = RegisteredTrap(hash=trap, what="address", kind="pristine", since=1)
    await publish(TRAPS, trap, record)
    over = Suppression(address_hash=dead, scope="platform", reason="invalid_recipient", since=1, until=2)
    await publish(SUPPRESSIONS, f"{dead}|platform", over)
    assert await catalogue.caught_up(SOON_S)
    assert [catalogue.heard_of(one) for one in (trap, dead, strange)] == [True, True, False]


async def test_only_what_concerns_one_campaign_is_kept_if_asked(
    kafka: EmbeddedKafka, publish: Publisher, unique: str
) -> None:
    mine, other = f"{unique}-mine", f"{unique}-other"
    for name in (mine, other):
        await publish(CAMPAIGNS, name, campaign(name))
        await publish(CONTROL, name, control(name, 1))
        await publish(CONTENTS, f"{name}/hello", Content(campaign=name, content="hello", subject="Hello"))
        snapshot = RatesSnapshot(scope=f"campaign:{name}", at=1, windows={"5m": Counts(accepted=1)})
        await publish(RATES, snapshot.scope, snapshot)
    catalogue = Catalogue(kafka.bootstrap, ALL, client_id="test", campaign=mine)
    await catalogue.start(within_s=SOON_S)
    await catalogue.stop()

    assert set(catalogue.campaigns) == set(catalogue.controls) == {mine}
    assert set(catalogue.contents) == {(mine, "hello")}
    assert set(catalogue.rates) == {f"campaign:{mine}"}


async def test_changes_are_told_after_the_start_and_a_listener_may_fail(
    kafka: EmbeddedKafka, publish: Publisher, unique: str
) -> None:
    told: list[tuple[str, str]] = []

    def listen(topic: str, key: str) -> None:
        told.append((topic, key))
        raise RuntimeError("a bug of the listener")

    await publish(CONTROL, f"{unique}-before", control(f"{unique}-before", 1))
    catalogue = Catalogue(kafka.bootstrap, [CONTROL], client_id="test", on_change=listen)
    await catalogue.start(within_s=SOON_S)
    await publish(CONTROL, f"{unique}-1", control(f"{unique}-1", 1))
    await publish(CONTROL, f"{unique}-2", control(f"{unique}-2", 1))
    assert await catalogue.caught_up(SOON_S)
    await catalogue.stop()

    assert sorted(told) == [(CONTROL, f"{unique}-1"), (CONTROL, f"{unique}-2")]


async def test_after_the_stop_the_barrier_says_no(catalogue: Catalogue) -> None:
    await catalogue.stop()

    assert not await catalogue.caught_up(SOON_S)


async def test_a_start_without_a_broker_can_be_given_up() -> None:
    catalogue = Catalogue("127.0.0.1:1", [CONTROL], client_id="test")

    with pytest.raises(TimeoutError):
        await catalogue.start(within_s=0.3)
    await catalogue.stop()


class Seen:
    def __init__(self, bootstrap: str, topic: str) -> None:
        self.values: list[bytes] = []
        self.follower = Follower(bootstrap, [topic], client_id="test", apply=self.apply)

    def apply(self, record: aiokafka.ConsumerRecord) -> None:
        self.values.append(record.value)


async def test_a_topic_that_is_missing_is_waited_for(kafka: EmbeddedKafka, unique: str) -> None:
    seen = Seen(kafka.bootstrap, unique)
    starting = asyncio.create_task(seen.follower.start())
    done, _ = await asyncio.wait([starting], timeout=0.7)
    assert not done

    async with admin(kafka.bootstrap, within_s=SOON_S) as edge:
        await edge.create([Planned(unique, 1, 1, {})])
    await asyncio.wait_for(starting, SOON_S)
    async with publisher(kafka.bootstrap) as publish:
        await publish(unique, "key", b"value")
        assert await seen.follower.caught_up(SOON_S)
    await seen.follower.stop()

    assert seen.values == [b"value"]


async def test_added_partitions_are_read_and_nothing_is_read_twice(kafka: EmbeddedKafka, unique: str) -> None:
    async with admin(kafka.bootstrap, within_s=SOON_S) as edge:
        await edge.create([Planned(unique, 1, 1, {})])
    seen = Seen(kafka.bootstrap, unique)
    await seen.follower.start()
    async with publisher(kafka.bootstrap) as publish:
        await publish(unique, "key", b"first")
    client = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await client.start()
    await client.create_partitions({unique: NewPartitions(3)})
    await client.close()

    async with publisher(kafka.bootstrap) as publish:
        await publish(unique, "key", b"second", partition=2)
        assert await seen.follower.caught_up(SOON_S)
    await seen.follower.stop()

    assert sorted(seen.values) == [b"first", b"second"]


async def test_a_broker_that_was_away_is_heard_again(tmp_path: Path, unique: str) -> None:
    with EmbeddedKafka(tmp_path, cache=default_cache()) as broker:
        async with admin(broker.bootstrap, within_s=SOON_S) as edge:
            await edge.create([Planned(unique, 2, 1, {})])
        seen = Seen(broker.bootstrap, unique)
        await seen.follower.start()
        async with publisher(broker.bootstrap) as publish:
            await publish(unique, "key", b"before")
            assert await seen.follower.caught_up(SOON_S)

        broker.kill()
        down = time.monotonic()
        assert not await seen.follower.caught_up(1.5)
        assert seen.follower.heard_at() <= down

        await asyncio.to_thread(broker.start)
        async with publisher(broker.bootstrap) as publish:
            await publish(unique, "key", b"after")
            assert await seen.follower.caught_up(SOON_S)
        assert seen.follower.heard_at() > down
        await seen.follower.stop()

    assert seen.values == [b"before", b"after"]
