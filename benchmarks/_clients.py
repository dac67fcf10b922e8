"""Turns of SMTP clients alone: ours, and Postfix's ``smtp-source`` with the same messages to the same sink."""

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import _client
from benchmarks._harness import Turn
from benchmarks._running import ROOT, Failed

_WITHIN_S = 300.0


@dataclass(frozen=True, slots=True)
class Ours:
    """Our client, in a process that stays; the start of the interpreter is not what is compared."""

    process: asyncio.subprocess.Process

    async def turn(self, *, port: int, messages: int, size: int, connections: int) -> Turn:
        """Send; what counts is measured by the process itself."""
        order = _client.Order(port=port, messages=messages, size=size, connections=connections)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        answer = await asyncio.wait_for(self.process.stdout.readline(), _WITHIN_S)
        if not answer:
            raise Failed("our client ended; what it said stands above")
        said = json.loads(answer)
        if said["accepted"] != messages:
            raise Failed(f"our client had {said['accepted']:,} of {messages:,} messages accepted")
        return Turn(messages, said["cpu_s"], said["wall_s"])


@contextlib.asynccontextmanager
async def ours() -> AsyncIterator[Ours]:
    """Start our client."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        _client.__name__,
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Ours(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@dataclass(frozen=True, slots=True)
class SmtpSource:
    """Postfix's own generator of load, in C, with connections that are kept (``-d``)."""

    program: Path

    async def turn(self, *, port: int, messages: int, size: int, connections: int) -> Turn:
        """Run it once."""
        arguments = ["-d", "-s", str(connections), "-m", str(messages), "-l", str(size)]
        arguments += ["-f", "bounces@shop.example", "-t", "ann@rcpt.example", f"127.0.0.1:{port}"]
        began = time.monotonic()
        cpu_s = await asyncio.to_thread(_cpu_of, [str(self.program), *arguments])
        return Turn(messages, cpu_s, time.monotonic() - began)


def _cpu_of(command: Sequence[str]) -> float:
    pid = os.posix_spawn(command[0], command, os.environ)
    _, status, used = os.wait4(pid, 0)
    if status:
        raise Failed(f"{command[0]} ended with {os.waitstatus_to_exitcode(status)}")
    return used.ru_utime + used.ru_stime
