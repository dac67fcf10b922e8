"""One campaign from its first mail to its last, or until a rule stops it: minutes, mails, and what went wrong.

Time moves in steps that lose nothing: only an event, a mail that makes a sample large enough for some rule (a mark),
and the beginning of a minute can change what a rule says, so it is asked then and only then.  Between two events the
mails are counted, not played.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

MINUTE_MS = 60_000
NEVER = 1 << 62
_ROUNDING = 1e-6  # of a mail

Event = tuple[int, int]
"""The number of the mail after which something is seen, and the number of the mail to which it belongs."""


class Panes:
    """Events and trials of one campaign by the minute in which a mail was sent; sums of any window in constant time.

    The same sums as those of ``policy.counts.Rolling`` (``tests/benchmarks/test_verdicts.py``).
    """

    __slots__ = ("_events", "_trials", "events", "trials")

    def __init__(self) -> None:
        self.events = 0
        self.trials = 0
        self._events = [0]  # before each minute
        self._trials = [0]

    @property
    def minute(self) -> int:
        """The minute that runs."""
        return len(self._events) - 1

    def window(self, minutes: int) -> tuple[int, int]:
        """Events and trials of the last minutes, the one that runs included."""
        begin = len(self._events) - minutes
        if begin <= 0:
            return self.events, self.trials
        return self.events - self._events[begin], self.trials - self._trials[begin]

    def last(self, mails: int) -> tuple[int, int]:
        """Events and trials of the last mails, and of those that share a minute with the first of them."""
        begin = bisect_right(self._trials, self.trials - mails) - 1
        if begin <= 0:
            return self.events, self.trials
        return self.events - self._events[begin], self.trials - self._trials[begin]

    def count(self, mail: int) -> None:
        """Count an event in the minute in which its mail was sent."""
        self.events += 1
        if mail > self._trials[-1]:
            return
        minute = bisect_right(self._trials, mail - 1) - 1
        for later in range(minute + 1, len(self._events)):
            self._events[later] += 1

    def next_minute(self) -> None:
        """Begin the next minute."""
        self._events.append(self.events)
        self._trials.append(self.trials)


class Judge(Protocol):
    """A rule at work on one campaign; ``pace`` is the part of its pace at which that may send, 0 when stopped.

    One that is slowed down may still have its full pace: that of a tiny campaign is no danger to anybody.
    """

    pace: float
    slowed: bool

    def look(self, now: int, panes: Panes) -> None:
        """Take notice of the counts; ``now`` is in milliseconds."""


class Rule(Protocol):
    """Something that stops campaigns.  It looks also when exactly so many mails are out (``marks``)."""

    @property
    def name(self) -> str:
        """Its key in the figures."""

    @property
    def marks(self) -> Sequence[int]:
        """In ascending order."""

    def begin(self, per_minute: float) -> Judge:
        """Take up a campaign of which nothing is known."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a campaign: mails until it was slowed down, until it was stopped (None: never), and in all."""

    slowed_at: int | None
    stopped_at: int | None
    mails: int
    minutes: int


@dataclass(frozen=True, slots=True)
class Course:
    """How much a campaign sends, evenly, and when it ends by itself."""

    per_minute: float
    mails: int = NEVER
    minutes: int = NEVER

    def run(self, judge: Judge, events: Iterable[Event], marks: Sequence[int] = ()) -> Fate:
        """Send until the end or until the judge stops it."""
        panes = Panes()
        coming = iter(events)
        seen, mail = next(coming, (NEVER, 0))
        ahead = [*marks, NEVER]
        slowed_at: int | None = None
        owed = 0.0  # a part of a mail
        while panes.minute < self.minutes and panes.trials < self.mails:
            start = panes.minute * MINUTE_MS
            if panes.trials:
                judge.look(start, panes)
            left = 1.0  # of the minute
            while judge.pace > 0.0:
                pace = judge.pace
                if judge.slowed and slowed_at is None:
                    slowed_at = panes.trials
                speed = self.per_minute * pace
                stop = min(panes.trials + int(owed + speed * left + _ROUNDING), self.mails)
                point = min(seen, ahead[0])
                if point > stop:
                    owed += speed * left - (stop - panes.trials)
                    panes.trials = stop
                    break
                took = point - panes.trials
                if took > 0:
                    left -= max(0.0, took - owed) / speed
                    owed = max(0.0, owed - took)
                    panes.trials = point
                while seen == point:
                    panes.count(mail)
                    seen, mail = next(coming, (NEVER, 0))
                while ahead[0] == point:
                    del ahead[0]
                judge.look(start + min(MINUTE_MS - 1, int((1.0 - left) * MINUTE_MS)), panes)
            if judge.pace == 0.0:
                return Fate(slowed_at, panes.trials, panes.trials, panes.minute)
            panes.next_minute()
        return Fate(slowed_at, None, panes.trials, panes.minute)


def whole(events: Iterator[Event], mails: int) -> list[Event]:
    """The events of the first mails as a list, so that several rules meet the same."""
    found: list[Event] = []
    for event in events:
        if event[0] > mails:
            break
        found.append(event)
    return found
