"""The windows are what the topics say, through kills, rebalances and broker restarts; and a wrong one is found."""

import asyncio
import json
import random
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from agents.ports import now_ms
from cli.access import read_to_end
from cli.kafka import EmbeddedKafka, default_cache
from cli.main import main
from cli.verify_counts import Checked, checked
from policy.naming import campaign_scope
from schemas.reputation import Counts, RatesSnapshot
from schemas.topics import FEEDBACK, RATES, RESULTS
from streams.topics import PANES, changelog
from tests.agents.doubles import campaign
from tests.agents.plant import Plant, Worker
from tests.agents.test_counts import TOLERANT, Traffic, comes_to, of_scope

pytestmark = pytest.mark.kafka


async def looked_at(plant: Plant, name: str, wait_s: float = 40.0) -> Checked:
    (found,) = await checked(plant.bootstrap, app_id=plant.app_id, campaign=name, wait_s=wait_s)
    return found


async def test_what_was_counted_through_kills_and_a_rebalance_is_what_the_topics_say(
    plant: Plant, worker: Worker, unique: str
) -> None:
    await plant.register(campaign(unique, limits=TOLERANT))
    traffic = Traffic(unique, random.Random(11))

    await plant.publish(*traffic.chunk(40))
    worker.kill()  # in the middle of it
    worker.start()
    await plant.publish(*traffic.chunk(30))
    await worker.ready()
    assert (await looked_at(plant, unique)).differences == []  # whatever of it is counted by now
    other = plant.worker()
    other.start()
    await plant.publish(*traffic.chunk(30))
    await other.ready()
    await plant.publish(*traffic.chunk(30))
    assert other.stop() == 0
    await plant.publish(*traffic.chunk(10))
    await worker.ready()
    await comes_to(worker, unique, traffic.truth)

    found = await looked_at(plant, unique)
    assert (found.is_right, found.differences, found.trouble) == (True, [], None)
    assert found.windows == ["5m", "1h", "24h", "7d"]
    assert min(found.records.values()) > 0
    assert found.runs[RESULTS].end > found.runs[RESULTS].begin


async def newest_snapshot(plant: Plant, name: str, truth: Counts) -> RatesSnapshot:
    found: list[RatesSnapshot] = await plant.read(
        RATES, lambda read: read[-1:] != [] and read[-1].windows["24h"] == truth, of_scope(name)
    )
    return found[-1]


async def test_a_frame_that_is_counted_twice_is_found(plant: Plant, worker: Worker, unique: str) -> None:
    await plant.register(campaign(unique, limits=TOLERANT))
    traffic = Traffic(unique, random.Random(12))
    await plant.publish(*traffic.chunk(20))
    await comes_to(worker, unique, traffic.truth)
    right = await newest_snapshot(plant, unique, traffic.truth)
    assert (await looked_at(plant, unique)).is_right
    assert worker.stop() == 0  # or it would publish what is right at the next minute

    day = right.windows["24h"]
    twice = msgspec.structs.replace(day, accepted=day.accepted + 7, attempts=day.attempts + 7)
    doctored = msgspec.structs.replace(right, at=now_ms(), windows={**right.windows, "24h": twice})
    await plant.publish((RATES, campaign_scope(unique), doctored))

    found = await looked_at(plant, unique, wait_s=0)
    wrong = {(one.window, one.column): (one.topics, one.rates) for one in found.differences}
    assert wrong["24h", "accepted"] == (day.accepted, day.accepted + 7)
    assert wrong["24h", "attempts"] == (day.attempts, day.attempts + 7)
    assert ("24h", "hard_bounce") not in wrong

    worker.start()
    await worker.ready()


async def test_a_minute_that_was_altered_in_the_changelog_is_found(plant: Plant, worker: Worker, unique: str) -> None:
    await plant.register(campaign(unique, limits=TOLERANT))
    traffic = Traffic(unique, random.Random(14))
    await plant.publish(*traffic.chunk(10))
    await comes_to(worker, unique, traffic.truth)
    assert worker.stop() == 0  # it writes out what it has, and would write the minute again
    assert (await looked_at(plant, unique)).panes == []

    topic = changelog(plant.app_id, PANES)
    record = [one async for one in read_to_end(plant.bootstrap, topic) if json.loads(one.key)[0] == unique][-1]
    term, pane = json.loads(record.value)
    cell = next(iter(pane[1]))
    provider = cell.partition("|")[0]
    pane[1][cell][Counts.__struct_fields__.index("complaint")] += 3
    altered = json.dumps([term, pane]).encode()
    await plant.publish((topic, record.key.decode(), altered), partition=record.partition)

    wrong = await looked_at(plant, unique, wait_s=0)
    minute = int(json.loads(record.key)[1][0]) * 1000
    (of_provider,) = [one for one in wrong.panes if one.scope == f"provider:{provider}"]
    assert (of_provider.at, of_provider.column, of_provider.table) == (minute, "complaint", of_provider.at_most + 3)
    assert not wrong.is_right
    assert (wrong.differences, wrong.trouble) == ([], None)  # no window shows it, as long as no worker starts from it

    await plant.publish((topic, record.key.decode(), record.value), partition=record.partition)
    worker.start()
    await worker.ready()


async def test_records_that_nobody_has_counted_yet_are_no_difference(plant: Plant, worker: Worker, unique: str) -> None:
    await plant.register(campaign(unique, limits=TOLERANT))
    traffic = Traffic(unique, random.Random(13))
    await plant.publish(*traffic.chunk(5))
    await comes_to(worker, unique, traffic.truth)
    assert worker.stop() == 0

    await plant.publish(*traffic.chunk(5))
    found = await looked_at(plant, unique, wait_s=0)

    assert (found.differences, found.trouble) == ([], None)
    assert found.waiting > 0
    worker.start()
    await worker.ready()
    await comes_to(worker, unique, traffic.truth)


def test_the_command_says_what_differs(kafka: EmbeddedKafka, plant: Plant, unique: str) -> None:
    """No worker of the command's own group has ever run here, so that any sums of the topics may be right."""
    asyncio.run(plant.register(campaign(unique)))
    false = RatesSnapshot(scope=campaign_scope(unique), at=now_ms(), windows={"1h": Counts(complaint=2)})
    its_own = RatesSnapshot(scope=f"{false.scope}/provider:google", at=false.at, windows={"24h": Counts(block=3)})
    asyncio.run(plant.publish((RATES, false.scope, false), (RATES, its_own.scope, its_own)))
    options = ["verify-counts", "--campaign", unique, "--wait", "0", "--kafka", kafka.bootstrap]

    told = CliRunner().invoke(main, [*options, "--json"])
    text = CliRunner().invoke(main, options)

    assert (told.exit_code, text.exit_code) == (1, 1), told.output
    found = json.loads(told.stdout)
    assert found["differences"] == [{"window": "1h", "column": "complaint", "topics": 0, "rates": 2}]
    assert found["within"] == [
        {"scope": its_own.scope, "window": "24h", "column": "block", "at_least": 0, "at_most": 0, "rates": 3}
    ]
    assert f"{its_own.scope}, window 24h, block: 0 in the topics, 3 in {RATES}" in text.stdout
    assert set(found["offsets"]) == {RESULTS, FEEDBACK}
    assert f"window 1h, complaint: 0 in the topics, 2 in {RATES}" in text.stdout


def test_a_broker_that_is_away_is_no_difference() -> None:
    done = CliRunner().invoke(main, ["verify-counts", "--kafka", "127.0.0.1:1"])

    assert done.exit_code == 3


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[EmbeddedKafka]:
    """A broker of this test alone, since it is going to be killed."""
    with EmbeddedKafka(tmp_path / "kafka", cache=default_cache()) as broker:
        yield broker


@pytest.mark.faults
async def test_counts_are_exact_through_a_broker_restart_and_recovery(
    own_broker: EmbeddedKafka, tmp_path: Path, unique: str
) -> None:
    plant = Plant(own_broker.bootstrap, tmp_path, app_id=f"worker-{unique}")
    await plant.create()
    workers = [plant.worker(), plant.worker()]
    names = [f"{unique}-{number}" for number in range(6)]
    try:
        for one in workers:
            one.start()
        await plant.register(*(campaign(name, limits=TOLERANT) for name in names))
        traffic = [Traffic(name, random.Random(name)) for name in names]
        for _round in range(2):
            for flow in traffic:
                await plant.publish(*flow.chunk(30))
            await asyncio.to_thread(own_broker.kill)
            await asyncio.to_thread(own_broker.start)
            for one in workers:
                if not one.runs:
                    one.start()
            for flow in traffic:
                await plant.publish(*flow.chunk(20))
            workers[0].kill()
            workers[0].start()
        for one in workers:  # all is recovered from the changelog
            one.kill()
        for one in workers:
            one.start()
        for one in workers:
            await one.ready()
        for flow in traffic:
            await comes_to(workers[0], flow.name, flow.truth)

        found = await checked(plant.bootstrap, app_id=plant.app_id, wait_s=20)

        assert [done.campaign for done in found] == sorted(names)
        assert [(done.differences, done.panes, done.trouble) for done in found] == [([], [], None)] * len(names)
    finally:
        plant.stop()
