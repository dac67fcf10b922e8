"""What every place where senders run promises: one suite for local processes, Kubernetes, and the double in memory."""

import asyncio
import contextlib
import dataclasses
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Protocol

import pytest
from kubernetes.aio import client

from k8s.api import Api
from k8s.cluster import Cluster, SenderSpec, SenderStatus, Stale
from k8s.kubernetes import KubernetesCluster
from k8s.patches import Site
from k8s.process import ProcessCluster
from policy.naming import sender_name
from tests.doubles.fake_api import FakeApi
from tests.k8s.builders import control, spec, until
from tests.k8s.memory_cluster import MemoryCluster, World

SLEEPER = Path(__file__).parent / "sleeper.py"


class Place(Protocol):
    """A world in which controllers come and go."""

    async def controller(self) -> Cluster: ...

    def hold_drain(self, hold: bool) -> None: ...


class InProcesses:
    def __init__(self, folder: Path) -> None:
        self.folder, self.manner, self.clusters = folder, "polite", list[ProcessCluster]()

    def command(self, spec: SenderSpec, ordinal: int) -> list[str]:
        return [sys.executable, "-I", "-S", str(SLEEPER), spec.campaign, str(ordinal), self.manner]

    def environment(self, _spec: SenderSpec, _ordinal: int) -> dict[str, str]:
        return {"DRAIN_S": "0.05"}

    async def controller(self) -> Cluster:
        cluster = ProcessCluster(self.folder, command=self.command, environment=self.environment)
        await cluster.start()
        self.clusters.append(cluster)
        return cluster

    def hold_drain(self, hold: bool) -> None:
        self.manner = "stubborn" if hold else "polite"


class InKubernetes:
    def __init__(self, api: FakeApi, *, watched: bool = False) -> None:
        self.api, self.clusters = api, list[KubernetesCluster]()
        self.watched, self.watches = watched, list[asyncio.Task[None]]()

    async def controller(self) -> Cluster:
        settings = client.Configuration()
        settings.host = self.api.url
        cluster = KubernetesCluster(Api(client.ApiClient(settings), "mailcordon"), Site())
        self.clusters.append(cluster)
        if self.watched:
            self.watches.append(asyncio.create_task(cluster.watch(lambda _: None)))
            await cluster.list()
        return cluster

    def hold_drain(self, hold: bool) -> None:
        self.api.hold_drain = hold

    async def close(self) -> None:
        for task in self.watches:
            task.cancel()
        await asyncio.gather(*self.watches, return_exceptions=True)
        for one in self.clusters:
            await one.close()


class InMemory:
    def __init__(self) -> None:
        self.world = World()

    async def controller(self) -> Cluster:
        return MemoryCluster(self.world)

    def hold_drain(self, hold: bool) -> None:
        self.world.hold_drain = hold


@contextlib.asynccontextmanager
async def made(kind: str, folder: Path) -> AsyncIterator[Place]:
    if kind == "memory":
        yield InMemory()
    elif kind == "process":
        place = InProcesses(folder)
        try:
            yield place
        finally:
            for cluster in place.clusters:
                await cluster.close()
            await ProcessCluster(folder, command=place.command, environment=place.environment).stop_all(grace_s=0)
    else:
        async with FakeApi(crd="older" not in kind) as api:
            kubernetes = InKubernetes(api, watched="watched" in kind)
            try:
                yield kubernetes
            finally:
                await kubernetes.close()


@pytest.fixture(params=["process", "kubernetes", "kubernetes watched", "kubernetes of an older installation", "memory"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    async with made(request.param, tmp_path) as one:
        yield one


async def reach(cluster: Cluster, one: SenderSpec, wanted: Callable[[SenderStatus], bool], what: str) -> SenderStatus:
    seen: list[SenderStatus] = []

    async def told() -> bool:
        status = await cluster.read(one)
        if status is not None:
            seen.append(status)
        return bool(seen) and wanted(seen[-1])

    try:
        await until(told, what=what)
    except AssertionError as missed:
        raise AssertionError(f"{missed}; last seen: {seen[-1:]}") from missed
    return seen[-1]


async def running(cluster: Cluster, one: SenderSpec, replicas: int) -> SenderStatus:
    return await reach(cluster, one, lambda status: status.running == replicas, f"{replicas} running")


async def closed(cluster: Cluster, one: SenderSpec, told: Any) -> SenderStatus:
    """Isolate as a reconciler does: again until nothing runs and nothing can leave."""

    async def shut() -> bool:
        await cluster.isolate(one, told)
        status = await cluster.read(one)
        return status is not None and status.running == 0 and not status.egress_open

    await until(shut, what="nothing runs and nothing can leave")
    status = await cluster.read(one)
    assert status is not None
    return status


async def test_what_nobody_asked_for_is_not_there(place: Place) -> None:
    cluster = await place.controller()

    assert await cluster.read(spec()) is None
    assert list(await cluster.list()) == []


async def test_an_ensured_sender_runs_and_tells_why(place: Place) -> None:
    cluster = await place.controller()

    await cluster.ensure(spec(), control(epoch=3, reason="all is well"))

    status = await running(cluster, spec(), 1)
    assert dataclasses.replace(status, asked=None) == SenderStatus(
        campaign="spring-sale",
        name=sender_name("spring-sale"),
        exists=True,
        wanted=1,
        running=1,
        egress_open=True,
        epoch=3,
        state="healthy",
        reason="all is well",
        shape=cluster.fingerprint(spec()),
    )


async def test_doing_it_twice_changes_nothing(place: Place) -> None:
    cluster = await place.controller()
    await cluster.ensure(spec(), control())
    once = await running(cluster, spec(), 1)

    await cluster.ensure(spec(), control())
    await cluster.ensure(spec(), control())

    assert await running(cluster, spec(), 1) == once


async def test_a_sender_is_scaled_up_and_down(place: Place) -> None:
    cluster = await place.controller()

    for replicas in (2, 3, 1):
        await cluster.ensure(spec(replicas=replicas), control())
        status = await running(cluster, spec(replicas=replicas), replicas)
        assert status.wanted == replicas


async def test_isolation_ends_what_runs_and_closes_the_way_out(place: Place) -> None:
    cluster = await place.controller()
    await cluster.ensure(spec(replicas=2), control())
    await running(cluster, spec(replicas=2), 2)

    status = await closed(cluster, spec(replicas=2), control("isolated", epoch=2, reason="trap hit"))

    assert (status.wanted, status.epoch, status.state, status.reason) == (0, 2, "isolated", "trap hit")
    assert status.closed
    assert status.agreed


async def test_mail_in_flight_is_finished_before_the_way_out_closes(place: Place) -> None:
    cluster = await place.controller()
    if isinstance(place, InProcesses):
        pytest.skip("a process has no way out apart from its own: it is told to end and finishes")
    await cluster.ensure(spec(), control())
    await running(cluster, spec(), 1)
    place.hold_drain(True)

    await cluster.isolate(spec(), control("isolated", epoch=2))
    status = await cluster.read(spec())

    assert status is not None
    assert (status.wanted, status.running, status.egress_open) == (0, 1, True)
    place.hold_drain(False)
    await closed(cluster, spec(), control("isolated", epoch=2))


async def test_a_cut_does_not_wait_for_mail_in_flight(place: Place) -> None:
    place.hold_drain(True)
    cluster = await place.controller()
    await cluster.ensure(spec(grace_s=600), control())
    await running(cluster, spec(), 1)

    await cluster.isolate(spec(grace_s=600), control("isolated", epoch=2), cut=True)

    status = await reach(cluster, spec(), lambda status: not status.egress_open, "the way out closed")
    assert status.wanted == 0
    place.hold_drain(False)
    await running(cluster, spec(), 0)


async def test_isolating_twice_changes_nothing(place: Place) -> None:
    cluster = await place.controller()
    await cluster.ensure(spec(), control())
    once = await closed(cluster, spec(), control("isolated", epoch=2))

    assert await closed(cluster, spec(), control("isolated", epoch=2)) == once


async def test_what_was_never_there_can_be_isolated(place: Place) -> None:
    cluster = await place.controller()

    status = await closed(cluster, spec(), control("isolated", epoch=5))

    assert (status.epoch, status.state, status.wanted) == (5, "isolated", 0)


async def test_ensure_never_opens_what_was_closed(place: Place) -> None:
    cluster = await place.controller()
    await closed(cluster, spec(), control("isolated", epoch=2))

    for epoch in (1, 2, 3):
        with pytest.raises(Stale):
            await cluster.ensure(spec(), control(epoch=epoch))

    assert await running(cluster, spec(), 0) == await closed(cluster, spec(), control("isolated", epoch=2))


async def test_a_release_opens_it_again(place: Place) -> None:
    cluster = await place.controller()
    await closed(cluster, spec(), control("isolated", epoch=2))

    await cluster.release(spec(), control("watched", epoch=3))

    status = await running(cluster, spec(), 1)
    assert (status.wanted, status.egress_open, status.epoch, status.state) == (1, True, 3, "watched")
    await cluster.ensure(spec(), control("healthy", epoch=4))
    assert (await running(cluster, spec(), 1)).state == "healthy"


async def test_a_release_before_the_isolation_has_ended_starts_afresh(place: Place) -> None:
    cluster = await place.controller()
    await cluster.ensure(spec(), control())
    await running(cluster, spec(), 1)

    await cluster.isolate(spec(), control("isolated", epoch=2))
    await cluster.release(spec(), control("watched", epoch=3))

    status = await reach(cluster, spec(), lambda status: status.running >= 1 and status.egress_open, "open and running")
    assert (status.wanted, status.epoch) == (1, 3)


@pytest.mark.parametrize("act", ["ensure", "release", "isolate", "retire"])
async def test_an_older_epoch_is_refused(place: Place, act: str) -> None:
    cluster = await place.controller()
    await cluster.ensure(spec(), control(epoch=7))
    before = await running(cluster, spec(), 1)

    with pytest.raises(Stale) as stale:
        await getattr(cluster, act)(spec(), control("isolated" if act in {"isolate", "retire"} else "healthy", epoch=6))

    assert (stale.value.asked, stale.value.fence) == (6, 7)
    assert await running(cluster, spec(), 1) == before


@pytest.mark.parametrize("act", ["ensure", "release"])
async def test_a_new_controller_refuses_it_as_well(place: Place, act: str) -> None:
    first = await place.controller()
    await first.ensure(spec(), control(epoch=1))
    await closed(first, spec(), control("isolated", epoch=7))
    await first.close()

    second = await place.controller()
    with pytest.raises(Stale):
        await getattr(second, act)(spec(), control(epoch=6))

    assert (await running(second, spec(), 0)).state == "isolated"


async def test_senders_survive_their_controller(place: Place) -> None:
    first = await place.controller()
    await first.ensure(spec(replicas=2), control())
    await running(first, spec(replicas=2), 2)
    await first.close()

    second = await place.controller()
    assert (await running(second, spec(replicas=2), 2)).epoch == 1
    await second.ensure(spec(replicas=2), control())
    await closed(second, spec(replicas=2), control("isolated", epoch=2))


async def test_an_isolated_sender_stays_so_when_the_controller_restarts(place: Place) -> None:
    first = await place.controller()
    await first.ensure(spec(), control())
    await running(first, spec(), 1)
    await closed(first, spec(), control("isolated", epoch=2))
    await first.close()

    second = await place.controller()

    status = await second.read(spec())
    assert status is not None
    assert (status.wanted, status.running, status.egress_open) == (0, 0, False)


async def test_two_controllers_never_start_two(place: Place) -> None:
    first, second = await place.controller(), await place.controller()

    await asyncio.gather(*(one.ensure(spec(), control()) for one in (first, second) * 3))

    assert (await running(first, spec(), 1)).wanted == 1
    assert (await running(second, spec(), 1)).wanted == 1


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["isolation first", "release first"])
async def test_of_two_controllers_the_newer_decision_stays(place: Place, order: tuple[int, int]) -> None:
    first, second = await place.controller(), await place.controller()
    await first.ensure(spec(), control(epoch=5))
    await running(first, spec(), 1)

    acts = [first.isolate(spec(), control("isolated", epoch=7)), second.release(spec(), control(epoch=6))]
    await asyncio.gather(*(acts[n] for n in order), return_exceptions=True)

    status = await closed(first, spec(), control("isolated", epoch=7))
    assert (status.epoch, status.state, status.wanted) == (7, "isolated", 0)


async def test_a_retired_sender_is_gone_and_its_fence_is_not(place: Place) -> None:
    cluster = await place.controller()
    await cluster.ensure(spec(), control())
    await running(cluster, spec(), 1)

    async def shut() -> bool:
        await cluster.retire(spec(), control("retired", epoch=9))
        status = await cluster.read(spec())
        return status is None or (status.running == 0 and not status.egress_open)

    await until(shut, what="retired")
    with pytest.raises(Stale):
        await cluster.release(spec(), control(epoch=8))


NAMES = ["Spring Sale!", "spring sale?", "été/2026", "$(HOME) $HOME %h", "x" * 128, "-rf", "..", "🎈", 'a"b\\c\td']


async def test_campaigns_may_be_called_anything(place: Place) -> None:
    cluster = await place.controller()

    for name in NAMES:
        await cluster.ensure(spec(name), control(name=name))

    for name in NAMES:
        assert (await running(cluster, spec(name), 1)).campaign == name
    assert {status.campaign for status in await cluster.list()} == set(NAMES)
    assert {status.name for status in await cluster.list()} == {sender_name(name) for name in NAMES}


async def test_a_list_tells_the_same_as_reading_one_by_one(place: Place) -> None:
    cluster = await place.controller()
    await cluster.ensure(spec("a"), control(name="a"))
    await running(cluster, spec("a"), 1)
    await closed(cluster, spec("b"), control("isolated", name="b", epoch=4))

    listed = {status.campaign: status for status in await cluster.list()}

    assert listed == {name: await cluster.read(spec(name)) for name in ("a", "b")}


async def test_a_long_reason_is_cut_and_an_odd_one_is_kept(place: Place) -> None:
    cluster = await place.controller()
    odd = 'two lines\nand "quotes" – 0.02 > 0.01 ü'

    await cluster.ensure(spec(), control(epoch=1, reason=odd))
    assert (await running(cluster, spec(), 1)).reason == odd

    await cluster.ensure(spec(), control(epoch=2, reason="x" * 300_000))
    assert len((await running(cluster, spec(), 1)).reason) == 1000


async def test_another_shape_is_told_and_mended(place: Place) -> None:
    cluster = await place.controller()
    one = spec(replicas=1)
    await cluster.ensure(one, control())
    await running(cluster, one, 1)

    two = spec(replicas=2)
    await cluster.ensure(two, control())

    status = await running(cluster, two, 2)
    assert status.shape == cluster.fingerprint(two)


def test_no_test_of_this_file_leaves_a_process_behind() -> None:
    assert _sleepers() - THERE_BEFORE == set()


def _sleepers() -> set[Path]:
    return {
        entry
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and str(SLEEPER).encode() in _command_line(entry) and _parent(entry) in {1, os.getpid()}
    }


def _command_line(entry: Path) -> bytes:
    with contextlib.suppress(OSError):
        return (entry / "cmdline").read_bytes()
    return b""


def _parent(entry: Path) -> int:
    with contextlib.suppress(OSError):
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    return 0


THERE_BEFORE = _sleepers()  # of an earlier run that was killed
