"""The holes of stock Faust, each with the promise that the safe runtime keeps instead, on a real broker.

Each test runs twice.  With stock Faust it must find the promise broken: if it does not, the test does not show what
it says (or Faust has been mended, and a part of the runtime can go).
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable

import pytest

from tests.streams.runtime.harness import Lab, until

pytestmark = pytest.mark.kafka
both = pytest.mark.parametrize("kind", ["stock", "safe"])

OFTEN = {"broker_commit_interval": 0.2}
NEVER = {"broker_commit_interval": 600.0}
SAME = {"broker_commit_interval": 0.2, "consumer_group_instance_id": "0"}  # a restart need not wait for the session


def offsets(count: int, partition: int = 0) -> set[tuple[int, int]]:
    return {(partition, offset) for offset in range(count)}


@both
async def test_an_event_whose_agent_raises_comes_again(lab: Lab, kind: str) -> None:
    await lab.create()
    await lab.produce(5)
    first = lab.worker(kind, raise_once_at=2, settings=OFTEN)
    if kind == "safe":
        assert await first.ended() == 1
        log = first.log.read_text()
        assert log.count("RuntimeError: the agent raises") == log.count("worker crashed") == 1
    else:
        await lab.until_committed(5)  # as if nothing had happened
        await first.stop()
    second = lab.worker(kind, raise_once_at=2, settings=OFTEN)
    await second.ready()
    answered = await lab.until_flowing(kind)
    lost = offsets(5) - answered.keys()
    assert lost == (set() if kind == "safe" else {(0, 2)})


@both
async def test_nothing_is_committed_past_an_event_in_flight(lab: Lab, kind: str) -> None:
    await lab.create(partitions=2)
    await lab.produce(8, keys=8)
    first = lab.worker(kind, concurrency=2, hold_at=3, settings=SAME)
    await lab.until_answered(*(offsets(8) - {(0, 3)}))
    await lab.produce(1, partition=1)
    await lab.until_committed(1, partition=1)  # so a commit has been made since
    if kind == "safe":
        assert await lab.committed() == 3
    else:
        await lab.until_committed(8)
    first.kill()
    (lab.folder / "go").touch()
    second = lab.worker(kind, concurrency=2, settings=SAME)
    await second.ready()  # what comes earlier stock Faust may lose for other reasons
    answered = await lab.until_flowing(kind)
    lost = offsets(8) - answered.keys()
    assert lost == (set() if kind == "safe" else {(0, 3)})


@both
async def test_scaling_out_repeats_nothing(lab: Lab, kind: str) -> None:
    await lab.create(partitions=2)
    await lab.produce(20)
    await lab.produce(20, partition=1)
    await lab.commit(5)
    lab.worker(kind, settings=NEVER)
    await lab.until_answered((0, 19), (1, 19))
    second = lab.worker(kind, settings=NEVER)
    await second.ready()
    answered = await lab.until_flowing(kind)
    repeats = sum(answered.values()) - len(answered)
    assert (repeats == 0) is (kind == "safe")


@both
async def test_nothing_is_committed_before_its_table_writes_are_on_the_broker(lab: Lab, kind: str) -> None:
    await lab.create()
    await lab.produce(50, keys=5, padding=3000)
    first = lab.worker(kind, hold_changelog="gate", settings=SAME)
    await lab.until_answered((0, 49))
    if kind == "stock":
        await lab.until_committed(50)
    else:
        await stays(lab.committed, 0)
    assert await lab.end(lab.changelog) == 0
    first.kill()
    second = lab.worker(kind, settings=SAME)
    await second.ready()
    await lab.until_committed(50)
    counted = sum(count for _offset, count in (await second.held()).values())
    assert counted == (50 if kind == "safe" else 0)


@both
async def test_a_table_write_that_the_broker_refuses_ends_the_worker(lab: Lab, kind: str) -> None:
    await lab.create()
    await lab.create_changelog(largest=500)
    worker = lab.worker(kind, settings=SAME)
    await lab.produce(1, padding=3000)
    if kind == "safe":
        assert await worker.ended() == 1
    else:
        await lab.until_committed(1)
    assert await lab.committed() == (0 if kind == "safe" else 1)
    assert await lab.end(lab.changelog) == 0


async def stays(ask: Callable[[], Awaitable[int]], value: int) -> None:
    """Look for a while whether something stays as it is: for about five commit intervals."""
    for _ in range(10):
        assert await ask() == value
        await asyncio.sleep(0.1)


@both
@pytest.mark.parametrize("committed", [10, 0], ids=["some offset committed", "nothing committed yet"])
async def test_events_come_in_order_and_without_a_hole_after_a_rebalance(lab: Lab, kind: str, committed: int) -> None:
    """Two workers share two partitions anew, while records keep coming in.

    1. Recovery ends; the fetch that waits for changelogs is left with an empty set of partitions, and brings the
       next three events of each source, which Faust drops.
    2. The sources are resumed; the next three events are fetched and reach the agents.
    3. The sources are set to their committed offsets, if there are any: the agents see the dropped events after the
       later ones, or never.
    """
    await lab.create(partitions=2)
    await lab.produce_everywhere(committed)
    first = lab.worker(kind, hold_rebalances=True, settings=OFTEN)
    await first.ready()
    for partition in range(2):
        await lab.until_committed(committed, partition)
    (lab.folder / "hold").touch()
    second = lab.worker(kind, hold_rebalances=True, settings=OFTEN)

    for worker in (first, second):
        await worker.noted("recovered")
    await lab.produce_everywhere(3)
    if kind == "stock":
        await until(lambda: len(list(lab.folder.glob(f"fetched-{lab.source}-*"))) == 2)
    (lab.folder / "resume").touch()
    for worker in (first, second):
        await worker.noted("resumed")
    await lab.produce_everywhere(3)
    if kind == "stock" and committed:  # with an empty changelog, reading begins after the third step
        await until(lambda: {(0, committed + 5), (1, committed + 5)} <= set(lab.seen()))
    (lab.folder / "seek").touch()
    await lab.until_flowing(kind)
    events = sum([await lab.end(lab.source, partition) for partition in range(2)])

    counted = sum([count for worker in (first, second) for _, count in (await worker.held()).values()])
    assert (counted == events) is (kind == "safe")


@both
async def test_a_transactional_source_does_not_stall_the_commits(lab: Lab, kind: str) -> None:
    await lab.create()
    await lab.produce_in_transactions(30)
    first = lab.worker(kind, settings=SAME)
    await lab.until_answered((0, 58))
    if kind == "safe":
        await lab.until_committed(59)  # the marker of the last transaction stays
    first.kill()
    second = lab.worker(kind, settings=SAME)
    await second.ready()
    await lab.produce_in_transactions(1)
    answered = await lab.until_answered((0, 60))
    repeats = sum(answered.values()) - len(answered)
    assert (repeats == 0) is (kind == "safe")


@both
async def test_late_writes_of_a_frozen_worker_change_nothing(lab: Lab, kind: str) -> None:
    settings = {**NEVER, "broker_session_timeout": 2.0}
    await lab.create()
    gate = lab.folder / "gate"
    gate.touch()
    frozen = lab.worker(kind, hold_changelog="gate", hold_at=10, settings=settings)
    await lab.produce(5)
    await lab.until_end(lab.changelog, 5)
    gate.unlink()
    await lab.produce(5)
    await until(lambda: len(frozen.seen) == 10)  # applied, and waiting in the producer
    frozen.signal(signal.SIGSTOP)
    owner = lab.worker(kind, settings=settings)
    await owner.ready()
    await lab.produce(5)
    await until(lambda: (0, 14) in owner.seen)
    await owner.stop()  # which commits 15
    written = await lab.end(lab.changelog)
    gate.touch()
    frozen.signal(signal.SIGCONT)
    await lab.until_end(lab.changelog, written + 5)  # 5 … 9, behind 14
    frozen.kill()
    heir = lab.worker(kind, settings=settings)
    await heir.ready()
    assert await heir.held() == {"0-0": (14, 15) if kind == "safe" else (9, 10)}
