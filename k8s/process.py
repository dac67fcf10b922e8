"""Senders as local child processes, for the demo, development and tests.

Every act writes down what is wanted and then lets the keeper make it so.  The keeper runs on every tick as well:
a process that ended is started again, one that was told to end and does not is killed, and a controller that starts
takes over the processes of its predecessor.
"""

import asyncio
import contextlib
import hashlib
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog
from msgspec.structs import replace

from k8s import children
from k8s.cluster import (
    ClusterError,
    Permanent,
    SenderSpec,
    SenderStatus,
    Unfit,
    check_fence,
    check_may_ensure,
    kept_reason,
)
from k8s.keeper import Command, Environment, Keeper
from k8s.sender_files import Remembered, SenderFiles
from schemas.reputation import Control
from schemas.sending import Campaign

log = structlog.get_logger()

TICK_S = 0.25
STOP_TICK_S = 0.02
STOP_MARGIN_S = 3.0

T = TypeVar("T")


def wall_clock() -> int:
    """Milliseconds since the epoch: what is written down has to mean the same after a restart."""
    return time.time_ns() // 1_000_000


class ProcessCluster:
    """The senders of one folder.

    ``command`` and ``environment`` say how a replica (spec, ordinal) is started; the environment is the whole one,
    nothing is inherited.  Until :meth:`start` nothing is kept running: acts still act, once.
    """

    def __init__(
        self, folder: Path, *, command: Command, environment: Environment, now: Callable[[], int] = wall_clock
    ) -> None:
        self._files = SenderFiles(folder)
        self._command, self._environment, self._now = command, environment, now
        self._keeper = Keeper(self._files, command=command, environment=environment, now=now)
        self._complained: dict[str, str] = {}
        self._keeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take over what runs and keep it running, until :meth:`close`."""
        if self._keeping is None:
            await asyncio.to_thread(self._keep_all)
            self._keeping = asyncio.create_task(self._keep_on(), name="keep senders running")

    def shows(self, spec: SenderSpec, control: Control, *, paused: bool, unfit: Unfit | None = None) -> bool:
        """Nothing is shown here beside the state files."""
        return True

    async def show(self, spec: SenderSpec, control: Control, *, paused: bool, unfit: Unfit | None = None) -> None:
        """Nothing to do."""

    def definition(self, spec: SenderSpec) -> Campaign | Unfit | None:
        """Nobody makes campaigns here."""
        return None

    def defined(self) -> Sequence[str]:
        """None."""
        return ()

    async def refuse(self, spec: SenderSpec, unfit: Unfit) -> None:
        """Nothing to do."""

    async def claim(self, spec: SenderSpec) -> None:
        """Nothing to do."""

    async def watch(self, changed: Callable[[str], None]) -> None:
        """Processes are looked at by this cluster itself; nobody else is told."""
        await asyncio.Event().wait()

    def notes(self) -> Sequence[str]:
        """It lacks nothing."""
        return ()

    async def close(self) -> None:
        """Stop keeping; the processes go on."""
        if self._keeping is not None:
            self._keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeping
            self._keeping = None

    def fingerprint(self, spec: SenderSpec) -> str:
        """What a sender of this spec is made from: command line and environment of each replica."""
        made = [
            [list(self._command(spec, ordinal)), sorted(self._environment(spec, ordinal).items())]
            for ordinal in range(spec.replicas)
        ]
        return hashlib.sha256(msgspec.json.encode(made)).hexdigest()[:16]

    async def read(self, spec: SenderSpec) -> SenderStatus | None:
        """What is there of this sender."""
        return await self._locked(spec.name, self._read)

    async def list(self) -> Sequence[SenderStatus]:
        """Every sender that is remembered; one whose file is broken is logged and left out."""
        return await asyncio.to_thread(self._list)

    async def ensure(self, spec: SenderSpec, control: Control) -> None:
        """Let an open sender run with so many replicas."""

        def act(name: str) -> None:
            check_may_ensure(self._read(name), control)
            self._want(spec, control, wanted=spec.replicas)

        await self._locked(spec.name, act)

    async def release(self, spec: SenderSpec, control: Control) -> None:
        """Let a sender run that was closed."""
        await self._locked(spec.name, lambda _: self._want(spec, control, wanted=spec.replicas))

    async def isolate(self, spec: SenderSpec, control: Control, *, cut: bool = False) -> None:
        """Ask every replica to end, and kill it when its grace is over; with ``cut`` at once."""
        await self._locked(spec.name, lambda _: self._want(spec, control, wanted=0, cut=cut))

    async def retire(self, spec: SenderSpec, control: Control, *, cut: bool = False) -> None:
        """As isolation; the state file stays and keeps the fence."""
        await self.isolate(spec, control, cut=cut)

    async def stop_all(self, *, grace_s: float | None = None) -> int:
        """End every process and leave none behind, for the end of a demo; how many ended only by force at last.

        State and fence stay: an isolated sender is still isolated at the next start, the others start when a
        controller asks for them.  ``grace_s`` can only shorten the senders' own grace.
        """
        await self.close()
        deadline = time.monotonic() + STOP_MARGIN_S
        for name in self._files.names():
            with contextlib.suppress(Permanent):  # its file is broken: _kill_all finds its process
                deadline = max(deadline, await self._locked(name, lambda name: self._stop(name, grace_s)))
        while running := await asyncio.to_thread(self._running):
            for name in running:
                with contextlib.suppress(ClusterError):
                    await self._locked(name, self._keeper.keep)
            if time.monotonic() > deadline:
                return await asyncio.to_thread(self._kill_all)
            await asyncio.sleep(STOP_TICK_S)
        return 0

    def pids(self) -> dict[str, tuple[int, ...]]:
        """The process ids of what was started and has not ended, by sender."""
        found = {}
        for name in self._files.names():
            with contextlib.suppress(Permanent), self._files.locked(name):
                sender = self._files.load(name)
                known = sender.children if sender else ()
                found[name] = tuple(child.pid for child in known if child.pid and self._keeper.runs(name, child))
        return found

    # All below runs in a thread; what takes a name runs under that sender's lock.

    async def _locked(self, name: str, act: Callable[[str], T]) -> T:
        def locked() -> T:
            with self._files.locked(name):
                return act(name)

        return await asyncio.to_thread(locked)

    def _want(self, spec: SenderSpec, control: Control, *, wanted: int, cut: bool = False) -> None:
        """Write down what is wanted, first; then make it so."""
        before = self._files.load(spec.name)
        check_fence(spec.name, asked=control.epoch, fence=before.epoch if before else 0)
        known = before.children if before else ()
        if cut:
            known = tuple(replace(child, kill_at=0) for child in known)
        self._files.save(
            Remembered(
                campaign=spec.campaign,
                name=spec.name,
                replicas=spec.replicas,
                grace_s=spec.grace_s,
                tenant=spec.tenant,
                labels=spec.labels,
                epoch=control.epoch,
                state=control.state,
                reason=kept_reason(control),
                at=control.at,
                wanted=wanted,
                may_run=wanted > 0,
                shape=self.fingerprint(spec),
                children=known,
            )
        )
        self._keeper.keep(spec.name)

    def _read(self, name: str) -> SenderStatus | None:
        sender = self._files.load(name)
        if sender is None:
            return None
        return SenderStatus(
            campaign=sender.campaign,
            name=name,
            exists=True,
            wanted=sender.wanted,
            running=self._keeper.running(sender),
            egress_open=sender.may_run,
            epoch=sender.epoch,
            state=sender.state,
            reason=sender.reason,
            shape=sender.shape,
        )

    def _list(self) -> Sequence[SenderStatus]:
        found = []
        for name in self._files.names():
            try:
                with self._files.locked(name):
                    status = self._read(name)
            except Permanent as broken:
                self._complain(name, broken)
                continue
            if status is not None:
                found.append(status)
        return found

    def _stop(self, name: str, grace_s: float | None) -> float:
        """Want nothing of this sender any more; until when (monotonic) its processes may take."""
        sender = self._files.load(name)
        if sender is None:
            return 0.0
        grace = sender.grace_s if grace_s is None else min(grace_s, sender.grace_s)
        self._files.save(replace(sender, wanted=0))
        self._keeper.keep(name)
        asked = self._files.load(name)
        assert asked is not None  # noqa: S101 - written above, under the lock
        kill_at = self._now() + int(grace * 1000)
        self._files.save(replace(asked, children=tuple(replace(child, kill_at=kill_at) for child in asked.children)))
        return time.monotonic() + grace + STOP_MARGIN_S

    def _running(self) -> Sequence[str]:
        running = set()
        for name, file in self._files.run_files():
            with self._files.locked(name):
                if children.is_running(file):
                    running.add(name)
        return sorted(running)

    def _kill_all(self) -> int:
        """Whatever still holds a run file, whether or not its state file can be read."""
        left = [process for _, file in self._files.run_files() if (process := children.find(file))]
        return sum(children.send(process, signal.SIGKILL) for process in left)

    def _keep_all(self) -> None:
        self._keeper.reap()
        for name in self._files.names():
            try:
                with self._files.locked(name):
                    self._keeper.keep(name)
            except Exception as failed:  # noqa: BLE001 - trouble with one sender must not end the care for the others
                self._complain(name, failed)
            else:
                self._complained.pop(name, None)

    def _complain(self, name: str, failed: Exception) -> None:
        """Say what is wrong once, and not four times a second."""
        if self._complained.get(name) != str(failed):
            self._complained[name] = str(failed)
            log.error("sender cannot be kept running", sender=name, why=f"{type(failed).__name__}: {failed}")

    async def _keep_on(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            await asyncio.to_thread(self._keep_all)
