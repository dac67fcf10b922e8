"""One container as a child process: started, asked whether it is well, started again after a crash, ended in order."""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from cli.kafka import LAUNCHER
from tests.control_plane.images import PLAYED, bare
from tests.control_plane.pod_words import Pod, Words
from tests.control_plane.probes import looked_after

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0
"""Before a crashed container is started again; doubled each time. A real kubelet waits 10 s to 5 minutes."""
STEADY_AFTER_S = 30.0
"""Whatever has run so long starts again with the first pause."""
_CANNOT_START = 128


def stamp() -> str:
    """Now, as the API writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be run: no ``command`` at all for a container that is only played."""

    spec: Pod
    command: Sequence[str] | None
    environment: dict[str, str]
    words: Words
    folder: Path
    log: Path
    restart: str
    """Always, OnFailure or Never."""
    grace_s: float


@dataclass(slots=True)
class Container:
    """``changed`` is called whenever the status has."""

    name: str
    image: str
    changed: Callable[[], None]
    state: dict[str, Any] = field(default_factory=lambda: {"waiting": {"reason": "ContainerCreating"}})
    last_state: dict[str, Any] = field(default_factory=dict)
    restarts: int = 0
    ready: bool = False
    started: bool = False
    pid: int | None = None
    _order: Order | None = None
    _process: asyncio.subprocess.Process | None = None
    _told_to_end: asyncio.Event = field(default_factory=asyncio.Event)
    _up: asyncio.Event = field(default_factory=asyncio.Event)
    _over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_played(self) -> bool:
        """Is there no process behind it?"""
        return bare(self.image) == PLAYED

    @property
    def exit_code(self) -> int | None:
        """How it ended, if it has."""
        return self.state["terminated"]["exitCode"] if "terminated" in self.state else None

    def status(self) -> dict[str, Any]:
        """As the API tells it (core/v1 ContainerStatus)."""
        told: dict[str, Any] = {
            "name": self.name,
            "image": self.image,
            "imageID": "",
            "state": self.state,
            "lastState": self.last_state,
            "ready": self.ready,
            "started": self.started,
            "restartCount": self.restarts,
        }
        return told | ({"containerID": f"process://{self.pid}"} if self.pid else {})

    def waits(self, reason: str, message: str) -> None:
        """It cannot be started yet."""
        self._become({"waiting": {"reason": reason, "message": message[:1000]}})

    async def run(self, order: Order) -> None:
        """Run it until it is told to end, or until it has ended and the restart policy leaves it so."""
        self._order = order
        try:
            await self._again_and_again(order)
        finally:
            self._over.set()

    async def _again_and_again(self, order: Order) -> None:
        clock, pause_s = asyncio.get_running_loop().time, FIRST_PAUSE_S
        while not self._told_to_end.is_set():
            began = clock()
            await self._once(order)
            if (
                self._told_to_end.is_set()
                or order.restart == "Never"
                or (order.restart, self.exit_code) == ("OnFailure", 0)
            ):
                return
            if clock() - began > STEADY_AFTER_S:
                pause_s = FIRST_PAUSE_S
            ended, self.last_state = self.state, self.state
            self.restarts += 1
            self.waits("CrashLoopBackOff", f"starts again after {pause_s:g} s")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._told_to_end.wait()
                self._become(ended)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def comes_up(self) -> None:
        """Wait until it has started for the first time, as its start-up probe sees it."""
        await self._up.wait()

    async def stop(self, grace_s: float) -> None:
        """End it as a kubelet does: preStop, SIGTERM to the first process, and SIGKILL to all when the time is over."""
        self._told_to_end.set()
        process, order = self._process, self._order
        if order is None:
            return
        if process is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await self._before_the_end(order)
                    _send(process, signal.SIGTERM)
                    await process.wait()
            _kill_all(process)
        await self._over.wait()

    async def _before_the_end(self, order: Order) -> None:
        match (order.spec.get("lifecycle") or {}).get("preStop"):
            case {"exec": {"command": command}}:
                await self._succeeds(order, command)
            case {"sleep": {"seconds": seconds}}:
                await asyncio.sleep(seconds)

    async def _once(self, order: Order) -> None:
        """From start to end, once."""
        began = stamp()
        if order.command is None:
            self._become({"running": {"startedAt": began}}, started=True, ready=True)
            await self._told_to_end.wait()
            self._become(_ended(0, began))
            return
        program = shutil.which(order.command[0], path=order.environment.get("PATH"))
        if program is None:
            self._become(_ended(_CANNOT_START, began, f"{order.command[0]}: not found on this machine"))
            return
        async with _process([program, *order.command[1:]], order) as process:
            self._process, self.pid = process, process.pid
            if self._told_to_end.is_set():  # while it was being started, so that nobody else knows of it
                _kill_all(process)
            self._become({"running": {"startedAt": began}})
            probing = asyncio.create_task(
                looked_after(order.spec, order.words.address, partial(self._succeeds, order), self._is, self._is_unwell)
            )
            try:
                code = await process.wait()
            finally:
                probing.cancel()
                await asyncio.gather(probing, return_exceptions=True)
        self._process = None
        self._become(_ended(code, began))

    def _is(self, *, ready: bool) -> None:
        """Its probes say that it has started, and whether it is ready."""
        if (self.started, self.ready) != (True, ready):
            self._become(self.state, started=True, ready=ready)

    async def _is_unwell(self, probe: str) -> None:
        """A probe has failed for good: end the process, the restart policy does the rest."""
        process, order = self._process, self._order
        if process is None or order is None:
            return
        print(f"{order.log.stem}: the {probe} probe failed, process {process.pid} is ended", flush=True)
        _send(process, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(order.grace_s):  # wait_for of Python 3.11 may swallow our cancellation
                await process.wait()
        _kill_all(process)

    async def _succeeds(self, order: Order, command: Sequence[str]) -> bool:
        """Run a command beside the container's process, as exec does."""
        words = [order.words.placed(word) for word in command]
        program = shutil.which(words[0], path=order.environment.get("PATH"))
        if program is None:
            return False
        async with _process([program, *words[1:]], order) as process:
            return await process.wait() == 0

    def _become(self, state: dict[str, Any], *, started: bool = False, ready: bool = False) -> None:
        self.state, self.started, self.ready = state, started, ready
        if started:
            self._up.set()
        self.changed()


@contextlib.asynccontextmanager
async def _process(command: list[str], order: Order) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process of its own group that ends with us, in order or not; whatever it has started ends with it."""
    with order.log.open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", "-c", LAUNCHER, str(os.getpid()), *command,
            stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
            env=order.environment, cwd=order.folder, start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        _kill_all(process)


def _send(process: asyncio.subprocess.Process, which: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(which)


def _kill_all(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _ended(code: int, began: str, message: str = "") -> dict[str, Any]:
    """Exit code and signal as the API tells them: a signal is 128 and its number."""
    told: dict[str, Any] = {"exitCode": code if code >= 0 else 128 - code, "startedAt": began, "finishedAt": stamp()}
    told["reason"] = "StartError" if message else "Completed" if code == 0 else "Error"
    if code < 0:
        told["signal"] = -code
    return {"terminated": told | ({"message": message} if message else {})}
