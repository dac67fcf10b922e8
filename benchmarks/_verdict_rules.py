"""The rules that ours is measured beside, each as good as we can make it from what is known of it.

All of them look after every event, at every minute, and at the mail that completes their smallest sample.  A rate is
that of the last 24 hours, unless the rule says otherwise.  What is known of the two that are named after a product is
in docs/verdicts.md; where nothing is known (how much mail is representative, how often it is looked at) an assumption
in their favour is made and written down here.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks._verdict_course import MINUTE_MS, Panes

DAY_MIN, HOUR_MIN = 1440, 60
CHECKPOINTS = tuple(
    sorted(digit * 10**power for power in range(2, 8) for digit in (1, 2, 5) if digit * 10**power >= 200)
)
REPRESENTATIVE, REPRESENTATIVE_AT_LEAST = 10_000, 1_000

Stops = Callable[[Panes], bool]


class Watch:
    """A rule that stops a campaign for good when its condition is met."""

    def __init__(self, stops: Stops) -> None:
        self.pace = 1.0
        self.slowed = False
        self._stops = stops

    def look(self, now: int, panes: Panes) -> None:
        """Stop, or let go on."""
        if self._stops(panes):
            self.pace = 0.0


@dataclass(frozen=True, slots=True)
class Ratio:
    """More than the limit, once ``minimum`` mails are out."""

    limit: float
    minimum: int

    @property
    def name(self) -> str:
        """By its minimum."""
        return f"ratio_{self.minimum}"

    @property
    def marks(self) -> Sequence[int]:
        """The mail that makes enough."""
        return (self.minimum,)

    def begin(self, per_minute: float) -> Watch:
        """A campaign."""
        return Watch(self._stops)

    def _stops(self, panes: Panes) -> bool:
        events, trials = panes.window(DAY_MIN)
        return trials >= self.minimum and events > self.limit * trials


@dataclass(frozen=True, slots=True)
class Wilson:
    """The lower end of Wilson's interval above the limit, looked at after every event.

    That end lies above the limit when the number of events lies more than ``z`` standard deviations above what the
    limit leads one to expect: Wilson's interval is the score test turned round.
    """

    limit: float
    z: float
    name: str
    marks: tuple[int, ...] = ()

    def begin(self, per_minute: float) -> Watch:
        """A campaign."""
        return Watch(self._stops)

    def _stops(self, panes: Panes) -> bool:
        return score(*panes.window(DAY_MIN), self.limit) > self.z


def score(events: int, trials: int, limit: float) -> float:
    """How many standard deviations more events there are than the limit leads one to expect."""
    if not trials:
        return 0.0
    return (events - trials * limit) / math.sqrt(trials * limit * (1.0 - limit))


class Highest:
    """No rule: it writes down the highest score of each day, to find out where a line would have to be."""

    def __init__(self, limit: float) -> None:
        self.pace = 1.0
        self.slowed = False
        self.by_day: dict[int, float] = {}
        self._limit = limit

    def look(self, now: int, panes: Panes) -> None:
        """Keep it if it is higher."""
        day = now // (DAY_MIN * MINUTE_MS)
        found = score(*panes.window(DAY_MIN), self._limit)
        if found > self.by_day.get(day, 0.0):
            self.by_day[day] = found


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """An exact binomial test of all mail so far, at 200, 500, 1,000, 2,000, 5,000 … mails and at no other time."""

    limit: float
    alpha: float
    name: str = "exact_checkpoints"
    marks: tuple[int, ...] = CHECKPOINTS

    def begin(self, per_minute: float) -> Watch:
        """A campaign."""
        critical = {trials: critical_value(trials, self.limit, self.alpha) for trials in CHECKPOINTS[:12]}

        def stops(panes: Panes) -> bool:
            line = critical.get(panes.trials)
            return line is not None and panes.events >= line

        return Watch(stops)


_CRITICAL: dict[tuple[int, float, float], int] = {}


def critical_value(trials: int, limit: float, alpha: float) -> int:
    """The fewest events that a rate at the limit leads to with a chance of at most ``alpha``."""
    key = trials, limit, alpha
    if key not in _CRITICAL:
        mean = trials * limit
        events = min(trials, int(mean + 12 * math.sqrt(mean) + 20))
        tail = _chance(events, trials, limit)
        while events > 0 and tail + _chance(events - 1, trials, limit) <= alpha:
            events -= 1
            tail += _chance(events, trials, limit)
        _CRITICAL[key] = events
    return _CRITICAL[key]


def _chance(events: int, trials: int, rate: float) -> float:
    lost = math.lgamma(events + 1) + math.lgamma(trials - events + 1)
    return math.exp(math.lgamma(trials + 1) - lost + events * math.log(rate) + (trials - events) * math.log1p(-rate))


SES_PAUSES = {"hard_bounce": 0.10, "complaint": 0.005}


@dataclass(frozen=True, slots=True)
class SesLike:
    """Pause at 10 % bounces or 0.5 % complaints over a representative volume: here the last 10,000 mails, if 1,000.

    Review (5 %, 0.1 %) stops nothing.  Traps have no line.
    """

    metric: str
    name: str = "ses_like"
    marks: tuple[int, ...] = (REPRESENTATIVE_AT_LEAST,)

    def begin(self, per_minute: float) -> Watch:
        """A campaign."""
        line = SES_PAUSES.get(self.metric, math.inf)

        def stops(panes: Panes) -> bool:
            events, trials = panes.last(REPRESENTATIVE)
            return trials >= REPRESENTATIVE_AT_LEAST and events >= line * trials

        return Watch(stops)


POSTHOG_PAUSES = {  # minutes, rate, mails at least, events at least
    "hard_bounce": ((HOUR_MIN, 0.10, 200, 20), (DAY_MIN, 0.05, 1_000, 50)),
    "complaint": ((HOUR_MIN, 0.01, 200, 5), (DAY_MIN, 0.003, 1_000, 10)),
}


@dataclass(frozen=True, slots=True)
class PosthogLike:
    """Two windows with a rate, a volume and a number of events each, checked once in an hour.  Traps have no line."""

    metric: str
    name: str = "posthog_like"
    marks: tuple[int, ...] = ()

    def begin(self, per_minute: float) -> Watch:
        """A campaign."""
        lines = POSTHOG_PAUSES.get(self.metric, ())
        checked = 0

        def stops(panes: Panes) -> bool:
            nonlocal checked
            if panes.minute % HOUR_MIN or panes.minute == checked:
                return False
            checked = panes.minute
            for minutes, rate, mails, events in lines:
                found, trials = panes.window(minutes)
                if trials >= mails and found >= events and found >= rate * trials:
                    return True
            return False

        return Watch(stops)
