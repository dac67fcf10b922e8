"""Feeding in turns a process that stands still meanwhile: what is measured is its work, not the waiting for its feed.

A turn is what a backlog is: all of it lies in Kafka when the process goes on.  The others wait for nothing but Kafka,
and cost next to nothing.
"""

import contextlib
import signal
import time
from collections.abc import Iterator, Sequence

from benchmarks._feeding import Feed, Side
from benchmarks._harness import Turn
from benchmarks._running import Running, say

_WARM_AT_ONCE = 500_000


async def turns(feed: Feed, sides: Sequence[Side], *, warm: int, runs: int) -> list[list[Turn]]:
    """All sides in turn, again and again, when each has done ``warm`` events; answers the turns of each side."""
    say("waiting until all are warm ...")
    for side in sides:
        left = warm
        while left > 0:
            made = side.meet(min(left, _WARM_AT_ONCE))
            await feed.turn(side, made)
            left -= sum(item.events for item in made)
    measured: list[list[Turn]] = [[] for _ in sides]
    for number in range(runs):
        for side, of_side in zip(sides, measured, strict=True):
            of_side.append(await _turn(feed, side))
        shown = ", ".join(f"{of_side[-1].per_cpu_s:,.0f}" for of_side in measured)
        say(f"turn {number + 1} of {runs}: {shown} results per CPU second")
    return measured


async def _turn(feed: Feed, side: Side) -> Turn:
    made = side.make(side.amount)
    cpu_before, began = side.process.cpu_s, time.monotonic()
    with _held(side.process):
        await feed.publish(made)
    await feed.done(side.process, side.group, side.topics)
    return Turn(sum(item.events for item in made), side.process.cpu_s - cpu_before, time.monotonic() - began)


@contextlib.contextmanager
def _held(process: Running) -> Iterator[None]:
    process.popen.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.popen.send_signal(signal.SIGCONT)
