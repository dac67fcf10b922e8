"""`mailcordon topics prune` on a real broker: it deletes what is over and empty, and nothing else."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from click.testing import CliRunner

from agents.ports import now_ms
from cli.kafka import EmbeddedKafka
from cli.main import main
from policy.naming import ledger_topic, outbound_topic, sender_group
from policy.pruning import DAY_MS
from policy.settings import Settings
from schemas.base import Record
from schemas.codec import encode
from schemas.delivery import DeliveryResult, LedgerEntry, Parked
from schemas.reputation import Control, Pace, State
from schemas.sending import OutboundMessage
from schemas.topics import CONTROL
from streams.admin import admin
from streams.topics import create, create_for_campaigns

pytestmark = pytest.mark.kafka

NOW = now_ms()
SETTINGS = Settings(outbound_partitions=2)
SENT = DeliveryResult(message_id="m1", outcome="accepted", at=NOW)
MESSAGE = OutboundMessage(message_id="m1", address="ann@shop.example", address_hash="0" * 32)


class Campaigns:
    """Campaigns of one test, each with topics, a decision, and a sender's group."""

    def __init__(self, bootstrap: str, prefix: str) -> None:
        self.bootstrap, self.prefix = bootstrap, prefix

    def name(self, short: str) -> str:
        return f"{self.prefix}-{short}"

    async def make(self, short: str, *, state: State = "retired", days_ago: int = 40) -> str:
        campaign = self.name(short)
        await create_for_campaigns(self.bootstrap, [campaign], SETTINGS)
        told = Control(
            campaign=campaign,
            epoch=2,
            may_send=state == "healthy",
            pace=Pace(),
            state=state,
            reason="",
            at=NOW - days_ago * DAY_MS,
        )
        await self.put(CONTROL, encode(told), key=campaign)
        return campaign

    async def put(self, topic: str, value: bytes, *, key: str | None = None, partition: int | None = None) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap, acks="all")
        await producer.start()
        try:
            await producer.send_and_wait(topic, value, key=None if key is None else key.encode(), partition=partition)
        finally:
            await producer.stop()

    async def log(self, campaign: str, *entries: Record) -> None:
        for entry in entries:
            await self.put(ledger_topic(campaign), encode(entry), partition=0)

    @contextlib.asynccontextmanager
    async def sender(self, campaign: str) -> AsyncIterator[AIOKafkaConsumer]:
        one = AIOKafkaConsumer(
            outbound_topic(campaign),
            bootstrap_servers=self.bootstrap,
            group_id=sender_group(campaign),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        await one.start()
        try:
            yield one
        finally:
            await one.stop()

    async def read(self, campaign: str) -> None:
        """Its sender has read everything."""
        async with self.sender(campaign) as one:
            ends = await one.end_offsets([TopicPartition(outbound_topic(campaign), number) for number in range(2)])
            await one.commit(ends)

    async def there(self, campaign: str) -> bool:
        async with admin(self.bootstrap, within_s=20) as edge:
            found = set(await edge.partitions([outbound_topic(campaign), ledger_topic(campaign)]))
        assert len(found) in {0, 2}
        return bool(found)

    async def prune(self, *options: str) -> tuple[int, dict[str, Any]]:
        """The exit code, and what it says of this test's campaigns by short name."""
        command = ["topics", "prune", "--json", "--kafka", self.bootstrap, *options]
        done = await asyncio.to_thread(CliRunner().invoke, main, command)
        assert done.exit_code in {0, 1}, done.output
        found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        ours = [one for one in found if one["campaign"].startswith(f"{self.prefix}-")]
        return done.exit_code, {one["campaign"].removeprefix(f"{self.prefix}-"): one for one in ours}


@pytest.fixture
async def campaigns(kafka: EmbeddedKafka, unique: str) -> Campaigns:
    await create(kafka.bootstrap, Settings())
    return Campaigns(kafka.bootstrap, unique)


async def test_without_yes_nothing_is_deleted(campaigns: Campaigns) -> None:
    over = await campaigns.make("over")

    _, found = await campaigns.prune()

    assert found == {
        "over": {
            "campaign": over,
            "retired_at": NOW - 40 * DAY_MS,
            "topics": [outbound_topic(over), ledger_topic(over)],
            "kept_because": [],
            "deleted": False,
        }
    }
    assert await campaigns.there(over)


async def test_only_topics_of_what_is_retired_for_so_long_are_deleted(campaigns: Campaigns) -> None:
    over = await campaigns.make("over", days_ago=91)
    kept = [
        await campaigns.make("lately", days_ago=89),
        await campaigns.make("isolated", state="isolated", days_ago=400),
        await campaigns.make("healthy", state="healthy", days_ago=400),
    ]

    _, found = await campaigns.prune("--retired-for", "90", "--yes")

    assert {short: one["deleted"] for short, one in found.items()} == {"over": True}
    assert not await campaigns.there(over)
    assert [await campaigns.there(one) for one in kept] == [True, True, True]
    assert (await campaigns.prune("--retired-for", "90", "--yes"))[1] == {}, "what has no topics is not told of"


async def test_unread_mail_stays_and_goes_when_it_was_read(campaigns: Campaigns) -> None:
    over = await campaigns.make("over")
    for partition in (0, 1, 1):
        await campaigns.put(outbound_topic(over), b"{}", partition=partition)

    code, found = await campaigns.prune("--yes")
    assert (code, found["over"]["deleted"]) == (1, False)
    assert found["over"]["kept_because"] == ["3 records of its outbound topic are unread"]
    assert await campaigns.there(over)

    await campaigns.read(over)
    assert (await campaigns.prune("--yes"))[1]["over"]["deleted"]


async def test_topics_that_a_sender_still_reads_stay(campaigns: Campaigns) -> None:
    over = await campaigns.make("over")
    async with campaigns.sender(over) as one:
        while not one.assignment():  # noqa: ASYNC110 - only the group knows when
            await asyncio.sleep(0.05)

        _, found = await campaigns.prune("--yes")

    assert found["over"]["kept_because"] == ["1 senders still read there"]
    assert await campaigns.there(over)


PARKED = Parked(message=MESSAGE, content="hello", offset=0, starts_at=NOW, due=NOW)
LEDGERS = {
    "a_message_that_waits": (
        [LedgerEntry(sender="s", at=NOW, parked=[PARKED])],
        "1 messages wait in its ledger for another attempt",
    ),
    "a_message_in_doubt": (
        [LedgerEntry(sender="s", at=NOW, intents=["m1"])],
        "1 messages in its ledger may have been sent or not",
    ),
    "a_result_that_was_not_told": (
        [LedgerEntry(sender="s", at=NOW, intents=["m1"]), LedgerEntry(sender="s", at=NOW, results=[SENT])],
        "1 entries of its ledger have results that may not be published",
    ),
}


@pytest.mark.parametrize(("entries", "said"), LEDGERS.values(), ids=LEDGERS.keys())
async def test_a_ledger_that_still_counts_stays(campaigns: Campaigns, entries: list[LedgerEntry], said: str) -> None:
    over = await campaigns.make("over")
    await campaigns.log(over, *entries)

    _, found = await campaigns.prune("--yes")

    assert found["over"]["kept_because"] == [said]
    assert await campaigns.there(over)


async def test_an_entry_that_we_cannot_read_keeps_the_ledger(campaigns: Campaigns) -> None:
    over = await campaigns.make("over")
    await campaigns.put(ledger_topic(over), b'{"v": 99}', partition=1)

    _, found = await campaigns.prune("--yes")

    assert found["over"]["kept_because"] == ["1 entries of its ledger cannot be read"]


async def test_a_ledger_whose_messages_are_all_settled_and_told_goes(campaigns: Campaigns) -> None:
    over = await campaigns.make("over")
    await campaigns.log(
        over,
        LedgerEntry(sender="s", at=NOW, parked=[PARKED]),
        LedgerEntry(sender="s", at=NOW, intents=["m1"]),
        LedgerEntry(sender="s", at=NOW, results=[SENT]),
        LedgerEntry(sender="s", at=NOW, published=2),
    )

    assert (await campaigns.prune("--yes"))[1]["over"]["deleted"]
    assert not await campaigns.there(over)
