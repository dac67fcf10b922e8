"""Local senders: started again when they fail, ended when told, never two, found again after any crash."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from k8s import children, keeper
from k8s.cluster import ClusterError, Permanent, SenderSpec, Stale, Temporary
from k8s.keeper import BACK_OFF_MS, LONGEST_BACK_OFF_MS, STEADY_MS
from k8s.process import ProcessCluster
from k8s.sender_files import SenderFiles
from policy.naming import sender_name
from tests.k8s.builders import NOW, control, spec, until

SLEEPER = Path(__file__).parent / "sleeper.py"
NAME = sender_name("spring-sale")


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> int:
        return self.now


class Rig:
    """One folder of senders, and controllers on it that tests drive by hand (:meth:`tick`)."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock, self.manner, self.environment = folder, Clock(), "polite", {"DRAIN_S": "0"}
        self.made: list[ProcessCluster] = []
        self.cluster = self.controller()

    def controller(self) -> ProcessCluster:
        cluster = ProcessCluster(self.folder, command=self.command, environment=self.variables, now=self.clock)
        self.made.append(cluster)
        return cluster

    def command(self, one: SenderSpec, ordinal: int) -> list[str]:
        return [sys.executable, "-I", "-S", str(SLEEPER), one.campaign, str(ordinal), self.manner]

    def variables(self, _spec: SenderSpec, _ordinal: int) -> Mapping[str, str]:
        return self.environment

    def tick(self, cluster: ProcessCluster | None = None) -> None:
        (cluster or self.cluster)._keep_all()

    def pid(self) -> int:
        [pid] = self.cluster.pids()[NAME]
        return pid

    def log(self, ordinal: int = 0) -> str:
        return (self.folder / f"{NAME}.{ordinal}.log").read_text(encoding="utf-8")

    def state(self) -> dict[str, object]:
        return dict(json.loads((self.folder / f"{NAME}.json").read_text(encoding="utf-8")))

    def child(self) -> dict[str, int]:
        [child] = self.state()["children"]  # type: ignore[misc]  # JSON
        return dict(child)

    async def runs(self, replicas: int, one: SenderSpec | None = None) -> None:
        async def told() -> bool:
            status = await self.cluster.read(one or spec())
            return status is not None and status.running == replicas

        await until(told, what=f"{replicas} running")

    async def says(self, text: str, times: int = 1) -> None:
        async def told() -> bool:
            with contextlib.suppress(FileNotFoundError):
                return self.log().count(text) >= times
            return False

        await until(told, what=f"{text!r} in the log {times} times")


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    one = Rig(tmp_path / "senders")
    try:
        yield one
    finally:
        for cluster in one.made:
            await cluster.close()
        one.manner = "polite"
        await ProcessCluster(one.folder, command=one.command, environment=one.variables).stop_all(grace_s=0)


def alive(pid: int) -> bool:
    return children.started_at(pid) is not None


def is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists() and not alive(pid)


def started_by_somebody_else() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-I", "-S", str(SLEEPER), "other", "0", "polite"])


async def test_a_sender_that_fails_is_started_again_after_a_growing_pause(rig: Rig) -> None:
    rig.manner = "fails"
    await rig.cluster.ensure(spec(), control())
    pauses = []
    for attempt in range(1, 9):
        await rig.says("here", attempt)
        await rig.runs(0)
        rig.tick()
        waits = rig.child()["not_before"] - rig.clock.now
        pauses.append(waits)
        rig.clock.now += waits - 1
        rig.tick()
        assert rig.log().count("here") == attempt, "started before its time"
        rig.clock.now += 1
        rig.tick()

    assert pauses == [min(BACK_OFF_MS * 2**n, LONGEST_BACK_OFF_MS) for n in range(8)]


async def test_a_sender_that_ran_for_a_minute_is_started_again_at_the_shortest_pause(rig: Rig) -> None:
    await rig.cluster.ensure(spec(), control())
    for _ in range(3):
        await rig.runs(1)
        os.kill(rig.pid(), signal.SIGKILL)
        await rig.runs(0)
        rig.tick()
        rig.clock.now += LONGEST_BACK_OFF_MS
        rig.tick()
    await rig.runs(1)
    rig.clock.now += STEADY_MS
    rig.tick()

    os.kill(rig.pid(), signal.SIGKILL)
    await rig.runs(0)
    rig.tick()

    assert rig.child()["not_before"] - rig.clock.now == BACK_OFF_MS


async def test_a_killed_sender_comes_back_by_itself(rig: Rig) -> None:
    await rig.cluster.start()
    await rig.cluster.ensure(spec(), control())
    await rig.runs(1)
    first = rig.pid()

    os.kill(first, signal.SIGKILL)
    await until(lambda: asyncio.sleep(0, rig.child()["pid"] == 0), what="its end was noticed")
    rig.clock.now += BACK_OFF_MS
    await rig.runs(1)

    assert rig.pid() != first


async def test_a_clock_that_is_set_back_does_not_keep_a_sender_down(rig: Rig) -> None:
    rig.manner = "fails"
    await rig.cluster.ensure(spec(), control())
    await rig.runs(0)
    rig.tick()

    rig.clock.now -= 86_400_000
    rig.tick()

    await rig.says("here", 2)


async def test_it_is_asked_to_end_before_it_is_killed(rig: Rig) -> None:
    rig.environment = {"DRAIN_S": "0.05"}
    await rig.cluster.ensure(spec(), control())
    await rig.says("here")

    await rig.cluster.isolate(spec(), control("isolated", epoch=2))
    await rig.runs(0)

    assert "bye" in rig.log()


async def test_one_that_does_not_end_is_killed_when_its_grace_is_over(rig: Rig) -> None:
    rig.manner = "stubborn"
    await rig.cluster.ensure(spec(grace_s=5), control())
    await rig.says("here")
    await rig.cluster.isolate(spec(grace_s=5), control("isolated", epoch=2))
    pid = rig.pid()

    rig.clock.now += 4_999
    rig.tick()
    assert alive(pid)
    rig.clock.now += 1
    rig.tick()

    await rig.runs(0)


async def test_one_whose_first_thread_has_ended_before_the_others_is_waited_for(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.manner = "stubborn"
    await rig.cluster.ensure(spec(grace_s=5), control())
    await rig.says("here")
    await rig.cluster.isolate(spec(grace_s=5), control("isolated", epoch=2))
    pid = rig.pid()

    with monkeypatch.context() as ending:  # its state is Z and its environment empty; the others hold the run file
        ending.setattr(children, "started_at", lambda _pid: None)
        ending.setattr(children, "find", lambda _run_file: None)
        await rig.cluster.isolate(spec(grace_s=5), control("isolated", epoch=2))
        status = await rig.cluster.read(spec())

    assert status is not None
    assert status.running == 1
    assert rig.child()["pid"] == pid
    rig.clock.now += 5_000
    rig.tick()
    await rig.runs(0)


async def test_a_new_controller_kills_what_its_predecessor_asked_to_end(rig: Rig) -> None:
    rig.manner = "stubborn"
    await rig.cluster.ensure(spec(grace_s=5), control())
    await rig.says("here")
    await rig.cluster.isolate(spec(grace_s=5), control("isolated", epoch=2))

    rig.clock.now += 5_000
    rig.tick(rig.controller())

    await rig.runs(0)


async def test_it_survives_its_controller_and_is_adopted(rig: Rig) -> None:
    await rig.cluster.ensure(spec(), control())
    await rig.says("here")
    pid = rig.pid()
    await rig.cluster.close()

    second = rig.controller()
    await second.start()
    await second.ensure(spec(), control())
    rig.tick(second)

    assert second.pids() == {NAME: (pid,)}
    assert rig.log().count("here") == 1
    assert os.getsid(pid) == pid, "it must not end with the terminal of the controller"


async def test_one_that_was_started_and_not_written_down_is_found(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The controller dies between the start of the process and the write of its id."""
    saves = 0
    save = SenderFiles.save

    def die_on_the_second(files: SenderFiles, remembered: object) -> None:
        nonlocal saves
        saves += 1
        if saves == 2:
            raise SystemExit("killed")
        save(files, remembered)  # type: ignore[arg-type]

    monkeypatch.setattr(SenderFiles, "save", die_on_the_second)
    with contextlib.suppress(SystemExit), rig.cluster._files.locked(NAME):
        rig.cluster._want(spec(), control(), wanted=1)
    monkeypatch.undo()
    await rig.says("here")
    assert rig.state()["children"] == []

    second = rig.controller()
    rig.tick(second)

    [pid] = second.pids()[NAME]
    assert f" {pid} " in rig.log()
    assert rig.log().count("here") == 1
    await second.isolate(spec(), control("isolated", epoch=2))
    await rig.runs(0)


async def test_a_process_id_that_belongs_to_somebody_else_is_left_alone(rig: Rig) -> None:
    await rig.cluster.isolate(spec(), control("isolated", epoch=1))
    bystander = started_by_somebody_else()
    try:
        state = rig.state() | {
            "children": [{"ordinal": 0, "pid": bystander.pid, "started": 1, "at": NOW, "kill_at": NOW - 1}]
        }
        (rig.folder / f"{NAME}.json").write_text(json.dumps(state), encoding="utf-8")

        rig.tick()
        await rig.cluster.isolate(spec(), control("isolated", epoch=2), cut=True)
        sent = children.send(children.Process(bystander.pid, 1), signal.SIGKILL)

        assert not sent
        assert bystander.poll() is None
        assert rig.state()["children"] == []
    finally:
        bystander.kill()
        bystander.wait()


async def test_whoever_holds_the_run_file_is_the_only_one(rig: Rig) -> None:
    await rig.cluster.ensure(spec(), control())
    await rig.says("here")

    again = children.start(
        rig.command(spec(), 0), {}, run_file=rig.folder / f"{NAME}.0.run", log=rig.folder / "other.log"
    )

    assert again is None
    assert not (rig.folder / "other.log").exists()


async def test_a_start_that_fails_lets_go_of_the_run_file(rig: Rig) -> None:
    with pytest.raises(FileNotFoundError):
        children.start(["/no/such/program"], {}, run_file=rig.folder / "x.0.run", log=rig.folder / "x.log")

    assert not children.is_running(rig.folder / "x.0.run")


@pytest.mark.parametrize(
    "broken",
    [b"", b"{", b'{"v":1}', b'{"v":9,"campaign":"c"}', b"\xff\xfe"],
    ids=["empty", "cut", "less", "newer", "odd"],
)
async def test_a_broken_state_file_starts_nothing_and_says_so(rig: Rig, broken: bytes) -> None:
    await rig.cluster.ensure(spec("other"), control(name="other"))
    await rig.cluster.isolate(spec(), control("isolated", epoch=2))
    (rig.folder / f"{NAME}.json").write_bytes(broken)

    with pytest.raises(Permanent, match=r"cannot be read"):
        await rig.cluster.release(spec(), control(epoch=3))
    rig.tick()

    assert [status.campaign for status in await rig.cluster.list()] == ["other"], "the others go on"
    assert not (rig.folder / f"{NAME}.0.log").exists()


async def test_a_command_that_cannot_be_started_is_told(rig: Rig) -> None:
    cluster = ProcessCluster(rig.folder, command=lambda *_: ["/no/such/program"], environment=rig.variables)

    with pytest.raises(Permanent, match="/no/such/program"):
        await cluster.ensure(spec(), control())


async def test_a_campaign_that_no_command_line_can_hold_is_told(rig: Rig) -> None:
    with pytest.raises(Permanent, match="null"):
        await rig.cluster.ensure(spec("nul\0"), control(name="nul\0"))


async def test_another_command_line_restarts_the_sender(rig: Rig) -> None:
    await rig.cluster.ensure(spec(), control())
    await rig.says("here")
    first, before = rig.pid(), rig.cluster.fingerprint(spec())

    rig.environment = {"DRAIN_S": "0", "GREETING": "hello"}
    assert rig.cluster.fingerprint(spec()) != before
    await rig.cluster.ensure(spec(), control())
    await until(lambda: asyncio.sleep(0, not alive(first)), what="the old one ended")
    rig.tick()

    await rig.says("hello")
    assert rig.pid() != first


async def test_nothing_is_started_from_an_isolated_state_whatever_the_file_wants(rig: Rig) -> None:
    await rig.cluster.isolate(spec(), control("isolated", epoch=2))
    (rig.folder / f"{NAME}.json").write_text(json.dumps(rig.state() | {"wanted": 3}), encoding="utf-8")

    rig.tick()

    await rig.runs(0)
    assert not (rig.folder / f"{NAME}.0.log").exists()


async def test_a_stale_epoch_is_refused_by_the_file_alone(rig: Rig) -> None:
    await rig.cluster.isolate(spec(), control("isolated", epoch=8))

    with pytest.raises(Stale):
        await rig.controller().release(spec(), control(epoch=7))

    assert rig.state()["epoch"] == 8


async def test_a_folder_that_cannot_be_written_is_a_matter_of_time(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(Temporary, match="No space left"):
        await rig.cluster.ensure(spec(), control())
    assert await rig.cluster.read(spec()) is None


async def test_a_write_that_is_cut_short_leaves_the_old_state(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await rig.cluster.isolate(spec(), control("isolated", epoch=8))
    before = rig.state()

    def cut(*_: object) -> None:
        raise OSError("power")

    monkeypatch.setattr(Path, "replace", cut)
    with pytest.raises(Temporary):
        await rig.cluster.release(spec(), control(epoch=9))
    monkeypatch.undo()

    assert rig.state() == before
    await rig.runs(0)


async def test_stop_all_leaves_nobody_behind_and_forgets_nothing(rig: Rig) -> None:
    await rig.cluster.start()
    for name in ("a", "b"):
        await rig.cluster.ensure(spec(name), control(name=name))
        await rig.runs(1, spec(name))
    await rig.cluster.isolate(spec("c"), control("isolated", name="c", epoch=4))
    pids = [pid for pids in rig.cluster.pids().values() for pid in pids]

    assert await rig.cluster.stop_all() == 0

    assert [pid for pid in pids if alive(pid)] == []
    second = rig.controller()
    rig.tick(second)
    assert {status.campaign: (status.state, status.running) for status in await second.list()} == {
        "a": ("healthy", 0),
        "b": ("healthy", 0),
        "c": ("isolated", 0),
    }
    await second.ensure(spec("a"), control(name="a"))
    await rig.runs(1, spec("a"))


async def test_stop_all_ends_also_those_that_do_not_want_to(rig: Rig) -> None:
    rig.manner = "stubborn"
    await rig.cluster.ensure(spec(grace_s=600), control())
    await rig.says("here")
    pid = rig.pid()

    stopping = asyncio.create_task(rig.controller().stop_all(grace_s=1))
    await until(lambda: asyncio.sleep(0, rig.state()["wanted"] == 0), what="asked to end")
    rig.clock.now += 1_000
    await asyncio.wait_for(stopping, 10)

    assert not alive(pid)


async def test_stop_all_ends_also_those_whose_file_is_broken(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("k8s.process.STOP_MARGIN_S", 0.05)
    await rig.cluster.ensure(spec(), control())
    await rig.says("here")
    pid = rig.pid()
    (rig.folder / f"{NAME}.json").write_text("{", encoding="utf-8")

    assert await rig.controller().stop_all() == 1

    await until(lambda: asyncio.sleep(0, not alive(pid)), what="ended")


async def test_the_log_of_a_sender_is_kept_within_bounds(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("k8s.sender_files.LOG_BYTES", 10)
    rig.manner = "fails"
    for epoch in (1, 2, 3):
        await rig.cluster.isolate(spec(), control("isolated", epoch=2 * epoch - 1))
        await rig.cluster.release(spec(), control(epoch=2 * epoch))
        await rig.says("here")
        await rig.runs(0)

    assert sorted(file.name for file in rig.folder.glob(f"{NAME}.0.log*")) == [f"{NAME}.0.log", f"{NAME}.0.log.1"]
    assert rig.log().count("here") == 1


async def test_ended_children_leave_no_zombies(rig: Rig) -> None:
    await rig.cluster.ensure(spec(), control())
    await rig.says("here")
    pid = rig.pid()

    os.kill(pid, signal.SIGKILL)
    await rig.runs(0)
    assert is_zombie(pid)
    rig.tick()

    assert not is_zombie(pid)


async def test_a_lock_that_is_held_too_long_is_a_matter_of_time(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("k8s.sender_files.LOCK_WITHIN_S", 0.05)
    await rig.cluster.isolate(spec(), control("isolated"))

    with rig.cluster._files.locked(NAME), pytest.raises(Temporary, match="another controller"):
        await rig.controller().read(spec())


async def test_trouble_with_one_sender_does_not_end_the_care_for_the_others(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        await rig.cluster.ensure(spec(name), control(name=name))
        await rig.runs(1, spec(name))
    keep = keeper.Keeper.keep

    def fail_for_a(one: keeper.Keeper, name: str) -> None:
        if name == sender_name("a"):
            raise ZeroDivisionError
        keep(one, name)

    monkeypatch.setattr(keeper.Keeper, "keep", fail_for_a)
    for pids in rig.cluster.pids().values():
        os.kill(pids[0], signal.SIGKILL)
    for name in ("b", "c"):
        await rig.runs(0, spec(name))
    rig.tick()
    rig.clock.now += BACK_OFF_MS
    rig.tick()
    monkeypatch.undo()

    await rig.runs(1, spec("b"))
    await rig.runs(1, spec("c"))


@pytest.mark.parametrize("die_after", range(1, 7))
async def test_a_controller_may_die_after_any_write(rig: Rig, monkeypatch: pytest.MonkeyPatch, die_after: int) -> None:
    """Ensure, isolate, release, cut short after each write in turn: a successor ends in the same place."""
    acts = [("ensure", control()), ("isolate", control("isolated", epoch=2)), ("release", control("watched", epoch=3))]
    writes = 0
    save = SenderFiles.save

    def save_and_die(files: SenderFiles, remembered: object) -> None:
        nonlocal writes
        save(files, remembered)  # type: ignore[arg-type]
        writes += 1
        if writes == die_after:
            raise ClusterError("killed")

    monkeypatch.setattr(SenderFiles, "save", save_and_die)
    current = rig.cluster
    for act, told in acts:
        try:
            await getattr(current, act)(spec(), told)
        except ClusterError:
            current = rig.controller()
            await getattr(current, act)(spec(), told)
        if act == "isolate":
            await rig.runs(0)
    monkeypatch.undo()

    rig.tick(current)
    await rig.runs(1)
    status = await current.read(spec())
    assert status is not None
    assert (status.state, status.epoch, status.wanted, status.egress_open) == ("watched", 3, 1, True)
    assert len(current.pids()[NAME]) == 1


def test_a_process_is_known_without_proc_too() -> None:
    if not Path("/bin/ps").exists():
        pytest.skip("no ps on this machine")

    mine = children._started_by_ps(os.getpid())

    assert mine is not None
    assert mine == children._started_by_ps(os.getpid())
    assert children._started_by_ps(2**22 + 1) is None
