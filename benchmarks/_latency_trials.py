"""The trials of ``latency.py``: campaigns that send, and each is hit by a pristine trap.

Senders are started some at a time, and nothing is measured while they start.  Then one campaign after the other
begins to send at a steady pace, and is hit a little later; so that a few of them send at any moment.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks._latency_account import STOPPED_WITHIN_S, Trial
from benchmarks._latency_load import request, return_path, trap_hit
from benchmarks._latency_system import System
from benchmarks._running import say
from schemas.topics import FEEDBACK, REQUESTS

PER_SECOND = 50.0  # messages of a trial's campaign
MESSAGES = 500  # ten seconds of mail
LEAD_S = 0.8  # of mail before the hit
_BETWEEN_S = (0.25, 0.5)  # hits
_CALM_S = 1.0  # after the start of senders
_AFTER_S = 1.0  # so long mail is looked for after the last one was seen to stop
_LOOK_AGAIN_S = 0.1
_IDLE = 3  # place in /proc/stat


@dataclass(frozen=True, slots=True)
class Span:
    """A time in which was measured, and the share of it in which the processors had nothing to do."""

    begin: float
    end: float
    idle: float


class Clock:
    """Begins a span."""

    def __init__(self) -> None:
        self._began = time.time()
        self._jiffies = _jiffies()

    def span(self) -> Span:
        """The time since the beginning."""
        idle, all_ = (now - before for now, before in zip(_jiffies(), self._jiffies, strict=True))
        return Span(self._began, time.time(), idle / max(1, all_))


def _jiffies() -> tuple[int, int]:
    """Idle ones and all, of all processors since the machine's start (proc(5), /proc/stat)."""
    counted = [int(one) for one in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return counted[_IDLE], sum(counted)


async def trials(running: System, *, count: int, at_once: int, seed: int) -> tuple[list[Trial], list[Span]]:
    """So many trials, and when they were."""
    chance = random.Random(seed)
    hits: dict[str, float] = {}
    spans: list[Span] = []
    names = [f"trial-{number:04}" for number in range(count)]
    for start in range(0, count, at_once):
        batch = names[start : start + at_once]
        began = time.monotonic()
        await running.begin((name, PER_SECOND) for name in batch)
        started_s = time.monotonic() - began
        await running.calm()
        await asyncio.sleep(_CALM_S)
        clock = Clock()
        hits |= await _hit_all(running, batch, chance)
        await _stopped(running, batch)
        spans.append(clock.span())
        say(f"trials {start + 1} to {start + len(batch)} of {count}; their senders took {started_s:.1f} s to start")
    running.sink.read()
    return [_trial(running, name, at) for name, at in hits.items()], spans


async def _hit_all(running: System, batch: Sequence[str], chance: random.Random) -> dict[str, float]:
    """Let each send and hit it, on a schedule that does not wait for anything."""
    began, hits = time.monotonic() + 0.1, {}
    due = 0.0
    steps: list[tuple[float, bool, str]] = []
    for name in batch:
        steps += [(due, False, name), (due + LEAD_S, True, name)]
        due += chance.uniform(*_BETWEEN_S)
    for at, is_hit, name in sorted(steps):
        await asyncio.sleep(max(0.0, began + at - time.monotonic()))
        if is_hit:
            event = trap_hit(name, f"{name}-first", at=time.time_ns() // 1_000_000)
            hits[name] = await running.publish(FEEDBACK, name, event)
        else:
            mail = request(name, [f"{name}-{number:03}" for number in range(MESSAGES)], request_id=name)
            await running.publish(REQUESTS, name, mail)
    return hits


async def _stopped(running: System, batch: Sequence[str]) -> None:
    """Wait until all have stopped and are quiet, or should have been long ago."""
    deadline = time.monotonic() + STOPPED_WITHIN_S
    while time.monotonic() < deadline:
        if all(name in running.seen.control_at and running.gate_closed_at(name) is not None for name in batch):
            break
        await asyncio.sleep(_LOOK_AGAIN_S)
    await asyncio.sleep(_AFTER_S)


def _trial(running: System, name: str, hit_at: float) -> Trial:
    return Trial(
        campaign=name,
        hit_at=round(hit_at * 1e6),
        snapshot_at=running.seen.snapshot_at.get(name),
        control_at=running.seen.control_at.get(name),
        told_at=running.seen.told_at.get(name),
        gate_at=running.gate_closed_at(name),
        mail_from=running.sink.mail_from[return_path(name)],
        asked=MESSAGES + 1,
    )
