"""Our own rule in the simulation: the decision code as it runs live, asked as the judge asks it.

A look that can change nothing is left out: a healthy campaign whose evidence is below a warning, and a watched or
throttled one that has no reason to go up or down.  ``tests/benchmarks/test_verdicts.py`` holds this against a judge
that leaves nothing out.
"""

import math
from dataclasses import dataclass

from benchmarks._verdict_course import Panes
from policy import ladder
from policy.counts import WINDOWS_MIN
from policy.judging import judge
from policy.transitions import SENDS
from policy.verdicts import BREACH, WARNING, WEIGHTS, e_value, interval, verdicts
from schemas.reputation import Counts, Decision, RatesSnapshot
from schemas.sending import Campaign, Limits, Mailbox, Pace

METRICS = ("hard_bounce", "complaint", "trap_hit")
SCOPE = "campaign:simulated"
SHIPPED = Limits()
_SPANS = [(WINDOWS_MIN[name], weight) for name, weight in WEIGHTS.items()]
_REST = 1 - sum(WEIGHTS.values())

# An e-value is at most exp(z²), with z the distance from the limit in standard deviations: no alternative fits better
# than the observed rate, whose case (n times its divergence from the limit) is at most z².  So a look at three windows
# that stay below these lines is below a warning.
_SURELY_QUIET = [
    (WINDOWS_MIN[name], math.log((WARNING - 1) / len(WEIGHTS) / weight)) for name, weight in WEIGHTS.items()
]


def campaign_of(per_minute: float, limits: Limits) -> Campaign:
    """A campaign in which single pristine hits are judged like others."""
    return Campaign(
        campaign="simulated",
        from_=Mailbox(address="news@example.com"),
        return_path_domain="bounces.example.com",
        pace=Pace(per_second=per_minute / 60),
        limits=limits,
        pristine_trap="judge",
    )


def limit_of(metric: str) -> float:
    """The limit that we ship."""
    return float(getattr(SHIPPED, metric))


def counts_of(metric: str, events: int, trials: int) -> Counts:
    """A window of a campaign that has trouble with one metric only."""
    match metric:
        case "hard_bounce":
            return Counts(accepted=trials - events, hard_bounce=events, attempts=trials)
        case "complaint":
            return Counts(accepted=trials, complaint=events, attempts=trials)
        case _:
            return Counts(
                accepted=trials, trap_hit=events, trap_hit_pristine=events, trap_weight=100 * events, attempts=trials
            )


@dataclass(frozen=True, slots=True)
class Ours:
    """The rule, by the limits that we ship unless others are given; with ``at_every_look`` nothing is left out."""

    metric: str
    at_every_look: bool = False
    name: str = "mailcordon"
    marks: tuple[int, ...] = ()
    limits: Limits = SHIPPED

    def begin(self, per_minute: float) -> "OurJudge":
        """A campaign that nobody knows yet."""
        return OurJudge(self.metric, campaign_of(per_minute, self.limits), at_every_look=self.at_every_look)


class OurJudge:
    """One campaign on the ladder."""

    def __init__(self, metric: str, campaign: Campaign, *, at_every_look: bool = False) -> None:
        self.decisions: list[Decision] = []
        self.pace = 1.0
        self.slowed = False
        self._metric = metric
        self._campaign = campaign
        self._limit = getattr(campaign.limits, metric)
        self._standing = ladder.start(0)
        self._at_every_look = at_every_look

    def look(self, now: int, panes: Panes) -> None:
        """What follows from the counts, by way of a snapshot like those that are published."""
        if not self._at_every_look and self._can_change_nothing(panes):
            return
        windows = {name: counts_of(self._metric, *panes.window(minutes)) for name, minutes in WINDOWS_MIN.items()}
        rates = RatesSnapshot(scope=SCOPE, at=now, windows=windows, verdicts=verdicts(windows, self._campaign.limits))
        self._standing, decisions = judge(self._standing, scope=SCOPE, campaign=self._campaign, now=now, rates=rates)
        if decisions:
            self.decisions += decisions
            self.pace = self._pace(now)
            self.slowed = self._standing.state == "throttled"

    def _pace(self, now: int) -> float:
        if self._standing.state not in SENDS:
            return 0.0
        allowed = ladder.control(self._standing, self._campaign, now).pace.per_second
        return allowed / self._campaign.pace.per_second

    def _can_change_nothing(self, panes: Panes) -> bool:
        standing = self._standing
        if standing.clean_since is not None or standing.baseline_at is not None:
            return False
        limit = self._limit
        if standing.state == "healthy":
            for minutes, line in _SURELY_QUIET:
                events, trials = panes.window(minutes)
                more = events - trials * limit
                if more > 0.0 and more * more > line * trials * limit * (1.0 - limit):
                    break
            else:
                return True
        found = _REST + sum([weight * e_value(*panes.window(minutes), limit) for minutes, weight in _SPANS])
        if standing.state == "healthy":
            return found < WARNING
        if standing.state not in ("watched", "throttled"):
            return False
        if found >= WARNING:
            return found < BREACH
        events, trials = panes.window(WINDOWS_MIN["24h"])
        return events > 0 and interval(events, trials)[1] >= limit / 2
