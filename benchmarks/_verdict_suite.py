"""The scenarios, and what they say of one rule: how often it stops a good campaign, how soon a bad one."""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks._verdict_course import Course, Event, Rule
from benchmarks._verdict_rules import DAY_MIN, Highest
from benchmarks._verdict_streams import clustered, delayed, patched, steady, turning

Stream = Callable[[random.Random], Iterator[Event]]

BELOW = (0.5, 0.8, 1.0)
ABOVE = (1.5, 2.0, 5.0, 20.0)
TINY = (20, 50, 100, 200, 500)
TINY_MULTIPLES = (0.5, 1.0, 5.0, 20.0)
DAYS_EACH = 2  # of a campaign; on the second one its windows slide
VOLUMES = 1_000, 50_000  # mails a day
BLAST_PER_MIN = 600.0
DRIFT_DAY = 20_000  # mails of the good day before the turn
MOST_EXPECTED = 200  # events at the limit: a campaign that was not stopped by then is let go,
AT_LEAST = 100_000  # but not before it had some hours


@dataclass(frozen=True, slots=True)
class Falses:
    """Campaign days at a rate that is allowed, those on which the campaign was stopped, and on which slowed down."""

    days: int
    stopped: int
    slowed: int

    def __add__(self, other: "Falses") -> "Falses":
        return Falses(self.days + other.days, self.stopped + other.stopped, self.slowed + other.slowed)


@dataclass(frozen=True, slots=True)
class Waits:
    """Mails until a campaign was stopped, and until it was slowed down or stopped, run by run; infinite: never."""

    stopped: tuple[float, ...]
    slowed: tuple[float, ...]

    def __add__(self, other: "Waits") -> "Waits":
        return Waits(self.stopped + other.stopped, self.slowed + other.slowed)


def below(limit: float) -> dict[str, Stream]:
    """Rates that are allowed, by multiple of the limit; and half the limit when events do not come singly."""
    return {
        **{f"{multiple:.1f}": partial(steady, rate=multiple * limit) for multiple in BELOW},
        "0.5 in fives": partial(clustered, rate=0.5 * limit, size=5),
        "0.5 in twenties": partial(clustered, rate=0.5 * limit, size=20),
        "0.5 known late": partial(delayed, rate=0.5 * limit, every=500),
    }


def false_days(rule: Rule, stream: Stream, key: str, numbers: Sequence[int]) -> Falses:
    """Let campaigns of any volume send evenly; one that is stopped begins anew on the next day."""
    days = stopped = slowed = 0
    for number in numbers:
        per_minute = _volume(key, number) / DAY_MIN
        left = DAYS_EACH
        while left > 0:
            events = stream(random.Random(f"{key}/{number}/{left}"))
            fate = Course(per_minute, minutes=left * DAY_MIN).run(rule.begin(per_minute), events, rule.marks)
            slowed += fate.slowed_at is not None or fate.stopped_at is not None
            if fate.stopped_at is None:
                break
            stopped += 1
            left -= fate.minutes // DAY_MIN + 1
        days += DAYS_EACH
    return Falses(days, stopped, slowed)


def highest_scores(limit: float, stream: Stream, key: str, numbers: Sequence[int]) -> list[float]:
    """The highest score of each campaign day, measured against the limit."""
    found: list[float] = []
    for number in numbers:
        per_minute = _volume(key, number) / DAY_MIN
        highest = Highest(limit)
        events = stream(random.Random(f"{key}/{number}/{DAYS_EACH}"))
        Course(per_minute, minutes=DAYS_EACH * DAY_MIN).run(highest, events)
        found += [highest.by_day.get(day, 0.0) for day in range(DAYS_EACH)]
    return found


def _volume(key: str, number: int) -> float:
    low, high = VOLUMES
    return math.exp(random.Random(f"{key}/{number}").uniform(math.log(low), math.log(high)))


@dataclass(frozen=True, slots=True)
class Chase:
    """Campaigns that are to be stopped; mails count from mail ``since`` on."""

    stream: Stream
    per_minute: float
    mails: int
    since: int = 0


def chases(limit: float) -> dict[str, Chase]:
    """Rates above the limit by multiple, and the other ways to be bad."""
    most = max(AT_LEAST, int(MOST_EXPECTED / limit))
    slow = DRIFT_DAY / DAY_MIN
    list_length = int(400 / limit)
    start, stop = list_length // 2, list_length // 2 + list_length // 20
    turned = {
        f"drift to {multiple:g}": Chase(
            partial(turning, before=0.2 * limit, after=multiple * limit, turn=DRIFT_DAY),
            slow,
            DRIFT_DAY + int(MOST_EXPECTED / limit),
            DRIFT_DAY,
        )
        for multiple in ABOVE[1:]
    }
    block = partial(patched, rate=0.5 * limit, bad=20 * limit, start=start, stop=stop)
    return {
        **{f"{multiple:g}": Chase(partial(steady, rate=multiple * limit), BLAST_PER_MIN, most) for multiple in ABOVE},
        **turned,
        "mixed, shuffled": Chase(partial(steady, rate=(0.95 * 0.5 + 0.05 * 20) * limit), BLAST_PER_MIN, list_length),
        "mixed, in a block": Chase(block, BLAST_PER_MIN, list_length, start),
        "5 known late": Chase(partial(delayed, rate=5 * limit, every=int(5 / limit)), BLAST_PER_MIN, most),
    }


def tiny(limit: float) -> dict[str, Chase]:
    """Campaigns of a few hundred mails."""
    return {
        f"{multiple:g}": Chase(partial(steady, rate=multiple * limit), BLAST_PER_MIN, TINY[-1])
        for multiple in TINY_MULTIPLES
    }


def waits(rule: Rule, chase: Chase, key: str, numbers: Sequence[int]) -> Waits:
    """Mails until each campaign is stopped; one that is stopped before it turns bad was stopped after 0 mails."""
    stopped: list[float] = []
    slowed: list[float] = []
    for number in numbers:
        course = Course(chase.per_minute, mails=chase.mails)
        fate = course.run(rule.begin(chase.per_minute), chase.stream(random.Random(f"{key}/{number}")), rule.marks)
        stopped.append(_since(fate.stopped_at, chase.since))
        slowed.append(min(_since(fate.slowed_at, chase.since), stopped[-1]))
    return Waits(tuple(stopped), tuple(slowed))


def _since(mail: int | None, since: int) -> float:
    return math.inf if mail is None else max(0, mail - since)
