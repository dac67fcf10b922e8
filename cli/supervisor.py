"""Keeping the programs of one machine running: start, wait until ready, start again, end all in time.

What a kubelet does for pods, for the roles of a demo.  Each program is started in a session of its own, so that
Ctrl-C reaches only the one that ends them in order.
"""

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from cli.failures import OutsideFailed

_RESTART_AFTER_S = 1.0


@dataclass(slots=True)
class Program:
    """One program to keep running; ``ready`` is the address that answers 200 once it works."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    ready: str | None = None
    process: asyncio.subprocess.Process | None = None
    starts: int = 0
    ended: list[int] = field(default_factory=list)


class Supervisor:
    """Runs programs until told to stop; ``say`` hears what a person should know.

    ``pids_file`` always holds the process ids of what runs, by name, as JSON.
    """

    def __init__(self, say: Callable[[str], None], pids_file: Path | None = None) -> None:
        self._say = say
        self._pids_file = pids_file
        self._programs: dict[str, Program] = {}
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._stopping = False

    def pids(self) -> dict[str, int]:
        """The process ids of what runs now, by name."""
        return {
            name: one.process.pid
            for name, one in self._programs.items()
            if one.process is not None and one.process.returncode is None
        }

    async def start(self, program: Program) -> None:
        """Start a program and keep it running."""
        self._programs[program.name] = program
        await self._launch(program)
        self._keepers[program.name] = asyncio.create_task(self._keep(program), name=f"keep {program.name}")

    async def ready(self, *names: str, within_s: float = 60.0) -> None:
        """Wait until the named programs say that they are ready."""
        deadline = time.monotonic() + within_s
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as http:
            for name in names:
                program = self._programs[name]
                while not await self._answers(http, program):
                    if program.ended and program.starts > 3:
                        raise OutsideFailed(f"{name} ends as soon as it starts; its log: {_tail(program.log)}")
                    if time.monotonic() > deadline:
                        raise OutsideFailed(
                            f"{name} was not ready within {within_s:.0f} s; its log: {_tail(program.log)}"
                        )
                    await asyncio.sleep(0.1)

    async def stop(self, *names: str, within_s: float = 6.0) -> None:
        """End the named programs, or all: SIGTERM, then SIGKILL for what is still there."""
        chosen = [one for name, one in self._programs.items() if not names or name in names]
        if not names:
            self._stopping = True
        for program in chosen:
            keeper = self._keepers.pop(program.name, None)
            if keeper is not None:
                keeper.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await keeper
            _signal(program, signal.SIGTERM)
        running = [one.process.wait() for one in chosen if one.process is not None and one.process.returncode is None]
        if running:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.gather(*running), within_s)
        for program in chosen:
            if program.process is not None and program.process.returncode is None:
                self._say(f"{program.name} did not end in {within_s:.0f} s: killed")
                _signal(program, signal.SIGKILL)
                await program.process.wait()

    async def _launch(self, program: Program) -> None:
        program.starts += 1
        with program.log.open("ab") as log:
            program.process = await asyncio.create_subprocess_exec(
                *program.command,
                env={**os.environ, **program.environment},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if self._pids_file is not None:
            temporary = self._pids_file.with_suffix(".tmp")
            temporary.write_text(json.dumps(self.pids()), encoding="utf-8")
            temporary.replace(self._pids_file)

    async def _keep(self, program: Program) -> None:
        while program.process is not None:
            code = await program.process.wait()
            program.ended.append(code)
            if self._stopping:
                return
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            self._say(f"{program.name} {how}: starting it again")
            await asyncio.sleep(_RESTART_AFTER_S)
            await self._launch(program)

    async def _answers(self, http: aiohttp.ClientSession, program: Program) -> bool:
        if program.ready is None:
            return True
        try:
            async with http.get(program.ready) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False


def _signal(program: Program, which: signal.Signals) -> None:
    if program.process is not None and program.process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            program.process.send_signal(which)


def _tail(log: Path, lines: int = 15) -> str:
    try:
        text = log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
    except OSError as missing:
        return str(missing)
    return f"{log}\n  " + "\n  ".join(text)
