"""The agenda of a replay: what time alone leads to, each at the moment at which the workers' timers would do it."""

import heapq
from collections.abc import Iterator, Sequence

from agents.reviews import AGAIN_MS, EVERY_S
from agents.snapshots import EVERY_MS
from cli.backtest_counting import LENGTHS_MIN
from cli.backtest_tracked import Tracked
from policy.counts import MINUTE_MS
from policy.sharing import EVERY_MS as PARTS_EVERY_MS
from policy.standing import Standing
from policy.transitions import TRANSITIONS

LATE, PROVIDERS, MINUTE, PARTS, REVIEW = range(5)
"""What is due; of one time, in this order."""

SELDOM_MS = 3_600_000  # between reviews of what time alone does not move

_COMMANDS = {"isolate", "release", "retire"}
_STAYS = {
    state
    for state, leads in TRANSITIONS.items()
    if state != "healthy" and all(to == state for signal, to in leads.items() if signal not in _COMMANDS)
}
_LATE_MS = 250  # how often the workers look for campaigns that wait for their second
_PROVIDERS_MS = 5_000  # how often the workers look at single providers
_SECOND_MS = int(EVERY_S * 1000)

Due = tuple[int, int, str]  # when, what, and for which campaign; a minute and the parts are for all


class Agenda:
    """What is due when."""

    def __init__(self) -> None:
        self._due: list[Due] = []
        self._minutes: dict[int, set[str]] = {}

    def take(self, until: int) -> Iterator[Due]:
        """What is due until then, in order; what is added meanwhile takes its place."""
        due = self._due
        while due and due[0][0] <= until:
            at, what, name = heapq.heappop(due)
            if what == MINUTE:
                for campaign in sorted(self._minutes.pop(at // MINUTE_MS)):
                    yield at, MINUTE, campaign
            else:
                yield at, what, name

    def late(self, name: str, published_at: int) -> None:
        """A campaign that is well is looked at when its second is over."""
        heapq.heappush(self._due, (-(-(published_at + EVERY_MS) // _LATE_MS) * _LATE_MS, LATE, name))

    def providers(self, name: str, now: int) -> None:
        """A campaign's providers are looked at next time."""
        heapq.heappush(self._due, ((now // _PROVIDERS_MS + 1) * _PROVIDERS_MS, PROVIDERS, name))

    def parts(self, now: int) -> None:
        """What campaigns share is told at the next round ten seconds."""
        heapq.heappush(self._due, ((now // PARTS_EVERY_MS + 1) * PARTS_EVERY_MS, PARTS, ""))

    def review(self, name: str, at: int) -> None:
        """A campaign is reviewed then."""
        heapq.heappush(self._due, (at, REVIEW, name))

    def counted(self, name: str, fresh: Sequence[int], now: int) -> None:
        """Counts of these minutes will enter windows, if they lie ahead, and leave them."""
        this = now // MINUTE_MS
        for minute in fresh:
            for ahead in (0, *LENGTHS_MIN):
                due = minute + ahead
                if due <= this:
                    continue
                names = self._minutes.get(due)
                if names is None:
                    names = self._minutes[due] = set()
                    heapq.heappush(self._due, (due * MINUTE_MS, MINUTE, ""))
                names.add(name)


def next_review(one: Tracked, now: int) -> int:
    """Every ten seconds, whatever happens between them; at the next second, if the last one was long ago."""
    if one.review_at is None:
        return max(-(-now // _SECOND_MS) * _SECOND_MS, one.reviewed_at + AGAIN_MS)
    if one.review_at - now <= AGAIN_MS:
        return one.review_at
    return one.reviewed_at + ((now - one.reviewed_at) // AGAIN_MS + 1) * AGAIN_MS  # it was asked seldom


def review_after(standing: Standing | None, now: int) -> int:
    """The review that follows one that has led to nothing."""
    return now + (SELDOM_MS if standing is not None and _time_moves_nothing(standing) else AGAIN_MS)


def _time_moves_nothing(standing: Standing) -> bool:
    return (
        standing.judged in _STAYS
        and standing.operator == "enabled"
        and not standing.providers
        and standing.trial is None
    )
