"""What a well-behaved campaign feels of the one beside it: turns alone, beside one that breaches its limits until it is
isolated, beside one as well-behaved as itself, and beside one whose provider hangs.

The time of a message is from its request to the moment when the mail server has it.  All senders are started before
the first turn, so that in all turns the same processes are there.
"""

import asyncio
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from benchmarks._latency_account import percentile
from benchmarks._latency_load import HANG_DOMAIN, request, trap_hit
from benchmarks._latency_system import System
from benchmarks._latency_trials import Clock, Span
from benchmarks._running import Failed, say
from policy.naming import campaign_scope
from schemas.reputation import Command
from schemas.sending import SendRequest
from schemas.topics import COMMANDS, FEEDBACK, REQUESTS

Beside = Literal["alone", "breaching", "behaving", "hanging"]
NEIGHBOUR = "neighbour"
_EVERY_S = 0.02  # a request
_RECIPIENTS = 2  # of a request
_BESIDE_PER_SECOND = 50.0
_MOST = 500  # messages of the one beside it: one request
_UNKNOWN = 0.05  # share of the breaching campaign's recipients that do not exist
_ARRIVED_WITHIN_S = 30.0
_CALM_S = 0.3
_WARM_S = 2.0
_DRAWS = 2_000


@dataclass(slots=True)
class Turns:
    """The times (ms) of all messages, by turn; and messages that did not arrive."""

    times: dict[Beside, list[list[float]]] = field(default_factory=dict)
    lost: int = 0

    def p99(self, beside: Beside) -> float:
        """The p99 of all messages of such turns."""
        return percentile([one for turn in self.times[beside] for one in turn], 99)

    def ratio(self, beside: Beside, other: Beside) -> float:
        """The median, over the turns, of the p99 in turns of one kind by the p99 in those of the other.

        What slows the whole machine for some seconds slows both turns of a pair, or spoils one ratio of many; the p99
        of all messages would be that of the worst turn.
        """
        return statistics.median(self._ratios(beside, other))

    def spread(self, beside: Beside, other: Beside, chance: random.Random) -> tuple[float, float]:
        """Between what that median lies nine times in ten, when it is taken of other turns like these (bootstrap)."""
        ratios = self._ratios(beside, other)
        drawn = [statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(_DRAWS)]
        return percentile(drawn, 5), percentile(drawn, 95)

    def _ratios(self, beside: Beside, other: Beside) -> list[float]:
        pairs = zip(self.times[beside], self.times[other], strict=True)
        return [percentile(one, 99) / percentile(another, 99) for one, another in pairs]


async def turns(running: System, kinds: Sequence[Beside], *, runs: int, turn_s: float, seed: int) -> tuple[Turns, Span]:
    """So many turns of each kind, in an order by chance; ``alone`` is one of them."""
    chance = random.Random(seed)
    found = Turns({kind: [] for kind in kinds})
    await running.begin([(NEIGHBOUR, 0.0)])
    for kind in kinds:
        if kind != "alone":
            beside = [(f"{kind}-{number}", _BESIDE_PER_SECOND) for number in range(runs)]
            await running.begin(beside, domain=_domain(kind))
    await _turn(running, found, "warm", "alone", _WARM_S)
    found.times["alone"].clear()
    clock = Clock()
    for number in range(runs):
        for kind in chance.sample(kinds, len(kinds)):
            await _turn(running, found, str(number), kind, turn_s)
        told = ", ".join(f"{kind} {percentile(found.times[kind][-1], 99):.0f} ms" for kind in kinds)
        say(f"turn {number + 1} of {runs}: p99 {told}")
    return found, clock.span()


async def _turn(running: System, found: Turns, number: str, kind: Beside, turn_s: float) -> None:
    await running.calm()
    await asyncio.sleep(_CALM_S)
    beside = f"{kind}-{number}"
    if kind != "alone":
        await running.publish(REQUESTS, beside, _beside(beside, kind, int(_BESIDE_PER_SECOND * turn_s)))
    asked = await _feed(running, f"{kind}-{number}", turn_s, hit=beside if kind == "breaching" else None)
    deadline = time.monotonic() + _ARRIVED_WITHIN_S
    while (missing := [name for name in asked if name not in running.sink.taken]) and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
        running.sink.read()
    found.lost += len(missing)
    times = [running.sink.taken[name] / 1000 - at * 1000 for name, at in asked.items() if name in running.sink.taken]
    if not times:
        raise Failed("none of the neighbour's messages arrived")
    found.times[kind].append(times)
    if kind == "hanging":  # or it would hang in the turns that follow, too
        await running.publish(COMMANDS, campaign_scope(beside), _isolate(beside))


async def _feed(running: System, mark: str, turn_s: float, *, hit: str | None) -> dict[str, float]:
    """The neighbour's requests at a steady clock; in the middle the one beside it hits a trap."""
    asked: dict[str, float] = {}
    began = time.monotonic()
    requests = int(turn_s / _EVERY_S)
    for number in range(requests):
        await asyncio.sleep(max(0.0, began + number * _EVERY_S - time.monotonic()))
        names = [f"{mark}-n-{number}-{within}" for within in range(_RECIPIENTS)]
        at = await running.publish(
            REQUESTS, f"{mark}-{number}", request(NEIGHBOUR, names, request_id=f"{mark}-{number}")
        )
        asked |= dict.fromkeys(names, at)
        if hit is not None and number == requests // 2:
            await running.publish(FEEDBACK, hit, trap_hit(hit, f"{hit}-first", at=int(at * 1000)))
    return asked


def _beside(campaign: str, kind: Beside, count: int) -> SendRequest:
    every = round(1 / _UNKNOWN)
    bad = range(0, count, every) if kind == "breaching" else range(0)
    names = [f"{'unknown-' if number in bad else ''}{campaign}-{number}" for number in range(min(count, _MOST))]
    return request(campaign, names, request_id=campaign, domain=_domain(kind))


def _domain(kind: Beside) -> str:
    return HANG_DOMAIN if kind == "hanging" else "inbox.example"


def _isolate(campaign: str) -> Command:
    at = time.time_ns() // 1_000_000
    return Command(
        id=f"bench-{at}",
        scope=campaign_scope(campaign),
        campaign=campaign,
        command="isolate",
        reason="its turn is over",
        by="operator:bench",
        at=at,
    )
