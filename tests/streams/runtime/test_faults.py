"""The matrix: processes killed, frozen and moved under load, and nothing may be lost or counted twice.

Each run lets records flow into four partitions, does something bad in the middle, and compares what was produced
with what the tables of the owners hold, with what a fresh worker recovers from the changelog, and with the answers in
the sink.  FAULT_RUNS=5 repeats each scenario with other moments.
"""

import asyncio
import json
import os
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from cli.kafka import EmbeddedKafka
from tests.streams.runtime.harness import Lab, Process, producer, until

pytestmark = [pytest.mark.kafka, pytest.mark.faults]

PARTITIONS, KEYS, PANES = 4, 20, 3
RUNS = range(int(os.environ.get("FAULT_RUNS", "1")))

Key = tuple[str, float]


class Flow:
    """Some hundred events a second into all partitions, and what they add up to."""

    def __init__(self, lab: Lab, chance: random.Random) -> None:
        self.lab = lab
        self.chance = chance
        self.truth: Counter[Key] = Counter()
        self.ends = [0] * PARTITIONS
        self._stop = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async with producer(self.lab.bootstrap, request_timeout_ms=120_000) as client:
            while not self._stop.is_set():
                for partition in range(PARTITIONS):
                    for _ in range(2):
                        key = f"{partition}-{self.chance.randrange(KEYS)}"
                        at = 60.0 * self.chance.randrange(PANES) + TODAY
                        body = json.dumps({"key": key, "at": at + self.chance.random() * 59}).encode()
                        await client.send(self.lab.source, body, partition=partition)
                        self.truth[key, at] += 1
                        self.ends[partition] += 1
                await asyncio.sleep(0.02)
            await client.flush()

    async def goes_on(self, count: int = 400) -> None:
        """Let some events pass."""
        end = sum(self.ends) + count
        await until(lambda: sum(self.ends) >= end or self._task.done(), within_s=90.0)

    async def stop(self) -> None:
        self._stop.set()
        await self._task


TODAY = 86_400.0 * 40_000  # in a future that does not expire


class Fleet:
    """Workers that are started again when they end by themselves, as Kubernetes would do."""

    def __init__(self, lab: Lab, kind: str, **orders: Any) -> None:
        self.lab = lab
        self.kind = kind
        self.orders = orders
        self.members: list[Process] = []
        self.restarts = 0
        self._keeper = asyncio.create_task(self._keep())

    async def add(self) -> Process:
        member = self.lab.worker(self.kind, panes=True, **self.orders)
        self.members.append(member)
        await until(lambda: self._is_ready(member), within_s=90.0, what=f"ready\n{member.tail()}")
        return member

    def _is_ready(self, member: Process) -> bool:
        """It may have crashed before, and somebody else is there in its place."""
        return (self.lab.folder / f"ready-{member.pid}").exists() or member not in self.members

    async def _keep(self) -> None:
        while True:
            for number, member in enumerate(self.members):
                if not member.runs:
                    self.members[number] = self.lab.worker(self.kind, panes=True, **self.orders)
                    self.restarts += 1
            await asyncio.sleep(0.1)

    async def works(self, count: int) -> None:
        """Wait until each worker has been given so many events, from now on."""
        before = {member.pid: len(member.seen) for member in self.members}
        await until(
            lambda: all(len(member.seen) >= before.get(member.pid, 0) + count for member in self.members),
            within_s=90.0,
            what="all workers work",
        )

    async def remove(self, member: Process, how: signal.Signals = signal.SIGTERM) -> None:
        self.members.remove(member)
        member.signal(how)
        await member.ended(60.0)

    async def close(self) -> None:
        self._keeper.cancel()
        for member in list(self.members):
            await self.remove(member)


@dataclass
class Scene:
    """What a scenario may act on."""

    fleet: Fleet
    flow: Flow
    broker: EmbeddedKafka
    chance: random.Random

    async def a_while(self) -> None:
        """Until each worker has worked for a moment, and some more events have passed."""
        await self.fleet.works(self.chance.randrange(20, 200))
        await self.flow.goes_on(self.chance.randrange(50, 500))

    async def seconds(self, count: float) -> None:
        """How long something lasts is the point here, and no condition can tell."""
        await asyncio.sleep(count)


async def workers_are_killed(scene: Scene) -> None:
    for _ in range(3):
        scene.fleet.members[0].kill()
        await scene.a_while()


async def workers_are_restarted(scene: Scene) -> None:
    for _ in range(3):
        await scene.fleet.remove(scene.fleet.members[0])
        await scene.fleet.add()
        await scene.a_while()


async def one_two_one(scene: Scene) -> None:
    second = await scene.fleet.add()
    await scene.a_while()
    await scene.fleet.remove(second)
    await scene.a_while()


async def one_two_one_by_kill(scene: Scene) -> None:
    second = await scene.fleet.add()
    await scene.a_while()
    await scene.fleet.remove(second, signal.SIGKILL)
    await scene.a_while()


async def broker_freezes(scene: Scene) -> None:
    await scene.fleet.add()
    await scene.a_while()
    os.kill(scene.broker.pid, signal.SIGSTOP)
    await scene.seconds(scene.chance.uniform(8, 14))
    os.kill(scene.broker.pid, signal.SIGCONT)
    await scene.a_while()


async def broker_is_killed(scene: Scene) -> None:
    scene.broker.kill()
    await scene.seconds(scene.chance.uniform(1, 4))
    await asyncio.to_thread(scene.broker.start)
    await scene.a_while()


async def worker_freezes(scene: Scene) -> None:
    await scene.fleet.add()
    await scene.a_while()
    frozen = scene.fleet.members[scene.chance.randrange(2)]
    frozen.signal(signal.SIGSTOP)
    await scene.seconds(scene.chance.uniform(8, 12))
    frozen.signal(signal.SIGCONT)
    await scene.a_while()


async def agent_raises(scene: Scene) -> None:
    await scene.fleet.add()
    await scene.a_while()
    await until((scene.fleet.lab.folder / "raised").exists)


async def sends_fail(scene: Scene) -> None:
    """Freeze the broker for longer than a send may take, until that has caught a send on its way."""
    while scene.fleet.restarts == 0:
        os.kill(scene.broker.pid, signal.SIGSTOP)
        await scene.seconds(12)
        os.kill(scene.broker.pid, signal.SIGCONT)
        await scene.a_while()


Scenario = Callable[[Scene], Awaitable[None]]
HASTY = {"settings": {"producer_request_timeout": 4.0}}
RAISES = {"raise_once_at": 150}
GRACEFUL: set[Scenario] = {workers_are_restarted, one_two_one}


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"run {run}")
@pytest.mark.parametrize(
    ("kind", "scenario", "orders"),
    [
        pytest.param("safe", workers_are_killed, {}, id="workers are killed"),
        pytest.param("safe", workers_are_restarted, {}, id="workers are restarted"),
        pytest.param("safe", one_two_one, {}, id="one, two, one worker"),
        pytest.param("safe", one_two_one_by_kill, {}, id="one, two, one worker by kill"),
        pytest.param("safe", broker_freezes, {}, id="broker freezes"),
        pytest.param("safe", broker_is_killed, {}, id="broker is killed"),
        pytest.param("safe", worker_freezes, {}, id="worker freezes"),
        pytest.param("safe", agent_raises, RAISES, id="agent raises"),
        pytest.param("safe", sends_fail, HASTY, id="sends fail"),
        pytest.param("stock", agent_raises, RAISES, id="stock Faust, agent raises"),
    ],
)
async def test_nothing_is_lost_or_counted_twice(
    lab: Lab, kafka: EmbeddedKafka, kind: str, scenario: Scenario, orders: dict[str, Any], run: int
) -> None:
    chance = random.Random(f"{scenario.__name__} {run}")
    await lab.create(partitions=PARTITIONS)
    fleet, flow = Fleet(lab, kind, **orders), Flow(lab, chance)
    try:
        await fleet.add()
        await flow.goes_on()
        await scenario(Scene(fleet, flow, kafka, chance))
        await flow.goes_on()
        await flow.stop()
        if kind == "safe":
            for partition, end in enumerate(flow.ends):
                await lab.until_committed(end, partition, within_s=120.0)
        else:  # its commits may never get there
            await lab.until_answered(*((partition, end - 1) for partition, end in enumerate(flow.ends)))
        live = Counter[Key]()
        for member in fleet.members:
            live.update({key: count for key, (_, count) in (await member.held()).items()})
        answers = await lab.outputs()
        await fleet.close()
        restarts = fleet.restarts
        fleet = Fleet(lab, kind)
        heir = await fleet.add()
        recovered = Counter({key: count for key, (_, count) in (await heir.held()).items()})
    finally:
        os.kill(kafka.pid, signal.SIGCONT)
        await flow.stop()
        await fleet.close()

    lost, doubled = (flow.truth - live).total(), (live - flow.truth).total()
    lost_in_log, doubled_in_log = (flow.truth - recovered).total(), (recovered - flow.truth).total()
    unanswered = flow.truth.total() - len(answers)
    repeats = sum(answers.values()) - len(answers)
    print(
        f"\n{kind}, {scenario.__name__}: {flow.truth.total()} events, "
        f"live -{lost}/+{doubled}, recovered -{lost_in_log}/+{doubled_in_log}, "
        f"unanswered {unanswered}, repeated {repeats}, restarts {restarts}"
    )
    exact = (lost, doubled, lost_in_log, doubled_in_log, unanswered) == (0,) * 5
    graceful = scenario not in GRACEFUL or repeats == 0
    assert (exact and graceful) is (kind == "safe")
