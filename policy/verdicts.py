"""Verdicts: is a rate above its limit?  Three answers: within, breach, or too few to tell.

The test may be looked at after every message.  For each metric the case against "the true rate is at most the
limit" is an e-value: the average of likelihood ratios between higher rates (1.5 to 32 times the odds of the limit)
and the limit itself.  While the true rate stays at or below the limit, such an average grows beyond 1/a with a chance
of at most a, however often one looks (Ville's inequality).  A breach is called at 1/ALPHA; at five times that it is
beyond doubt.  A bare ratio with a minimum volume has no such promise: looked at after every message
it crosses any line sooner or later.

Three windows are looked at together, because a campaign that was good for a day and turns bad must be seen in
minutes: 24h with 85 % of the error budget, 1h and 5m with 7.5 % of a day's budget each, shared among the 24 and 288
windows of a day.  Exactly proven is one window start: a campaign that stays at its limit is ever called a breach with
a chance of at most 0.86 * ALPHA.  A window that slides has many starts; there the rate was measured (docs/verdicts.md;
``tests/policy/test_verdicts.py`` repeats both).  Signals that come late only make the case weaker for the while.

The lines and the alternatives are a compromise that the simulation found (``benchmarks/verdicts.py``): soon enough at
twice the limit, rarely enough wrong at the limit itself.

The interval that is shown is Wilson's, 95 %, two-sided, of the window that decided; ``within`` means that its upper
end lies below the limit.
"""

import math
from collections.abc import Callable, Mapping
from functools import lru_cache

import msgspec

from policy.counts import complaints, isolating_trap_events, trap_events
from policy.fixed_limits import fixed_verdict
from schemas.reputation import Answer, Counts, Prior, Verdict
from schemas.sending import Limits

ALPHA = 0.01
BREACH = 1 / ALPHA
GRAVE = 5 / ALPHA  # beyond doubt
WARNING = 20.0  # worth a look; a campaign at its limit gets there on one day in twenty at most

DECIDING = "24h"
WEIGHTS: Mapping[str, float] = {DECIDING: 0.85, "1h": 0.075 / 24, "5m": 0.075 / 288}
REST = 1 - sum(WEIGHTS.values())  # the part of the budget that bets on nothing: no news is 1
_MOST = 1e300  # JSON knows no infinity

_ODDS = (1.5, 2.0, 2.8, 4.5, 10.0, 32.0)
_SHARES = (0.12, 0.38, 0.18, 0.12, 0.10, 0.10)
_Z = 1.959963984540054  # 97.5 % of the normal distribution
_Z2 = _Z * _Z

Events = Callable[[Counts], tuple[int, int]]

WIDEST = 4.0  # times a limit of blocks, by what everybody is told at a provider

METRICS: Mapping[str, Events] = {
    "hard_bounce": lambda counts: (counts.hard_bounce, counts.accepted + counts.hard_bounce + counts.soft_bounce),
    "complaint": complaints,
    "trap_hit": lambda counts: (trap_events(counts), max(counts.accepted, counts.trap_hit)),
    "block": lambda counts: (counts.block, max(counts.attempts, counts.block)),
}
"""Events and trials of each metric.

Hard bounces are counted against the recipients whose first outcome is final; complaints and trap hits against what
was accepted (only that can be complained about); blocks against the answers of servers.  Trap hits count by weight.
"""

_NOTHING = Counts()
_NO_PRIORS: Mapping[str, Prior] = {}


def verdicts(
    windows: Mapping[str, Counts], limits: Limits, priors: Mapping[str, Prior] = _NO_PRIORS
) -> dict[str, Verdict]:
    """The verdict on each metric; a window that is missing is empty.  What priors do: :mod:`policy.priors`."""
    if limits.judging == "fixed":
        return {metric: _fixed(of, windows, limits, getattr(limits, metric)) for metric, of in METRICS.items()}
    seen = _seen(windows)
    if priors and limits.prior_mails:
        return {metric: _with_prior(metric, seen, limits, priors.get(metric)) for metric in METRICS}
    return {
        "hard_bounce": _verdict(METRICS["hard_bounce"], seen, limits.hard_bounce),
        "complaint": _verdict(METRICS["complaint"], seen, limits.complaint),
        "trap_hit": _verdict(METRICS["trap_hit"], seen, limits.trap_hit),
        "block": _verdict(METRICS["block"], seen, limits.block),
    }


def _with_prior(metric: str, seen: list[tuple[str, float, Counts]], limits: Limits, prior: Prior | None) -> Verdict:
    limit = getattr(limits, metric)
    if prior is None:
        return _verdict(METRICS[metric], seen, limit)
    if metric == "block":
        limit = min(1.0, max(limit, min(prior.rate, WIDEST * limit)))
    found = _verdict(METRICS[metric], seen, limit)
    mails = min(prior.mails, limits.prior_mails)
    high = interval(found.events + mails * prior.rate, found.trials + mails)[1]
    answer: Answer = found.answer
    if answer != "breach":
        answer = "within" if found.trials and high < limit else "too_few"
    return msgspec.structs.replace(found, answer=answer, high=max(high, found.rate))


def isolating_traps(windows: Mapping[str, Counts], limits: Limits) -> Verdict:
    """The verdict on the trap hits that may isolate: confirmed ones that no slip of a hand explains."""
    if limits.judging == "fixed":
        return _fixed(isolating, windows, limits, limits.trap_hit)
    return _verdict(isolating, _seen(windows), limits.trap_hit)


def _fixed(of: Events, windows: Mapping[str, Counts], limits: Limits, limit: float) -> Verdict:
    return fixed_verdict(windows, limits, limit, of, interval, breach=BREACH, grave=GRAVE)


def isolating(counts: Counts) -> tuple[int, int]:
    """Events and trials of the trap hits that may isolate."""
    return isolating_trap_events(counts), max(counts.accepted, counts.trap_hit)


def _seen(windows: Mapping[str, Counts]) -> list[tuple[str, float, Counts]]:
    return [(name, weight, windows.get(name, _NOTHING)) for name, weight in WEIGHTS.items()]


def _verdict(of: Events, seen: list[tuple[str, float, Counts]], limit: float) -> Verdict:
    evidence = REST
    strongest = -1.0
    window, events, trials = DECIDING, 0, 0
    before, value = (-1, -1), 0.0
    for name, weight, counts in seen:
        both = of(counts)
        if both != before:  # young campaigns have the same in all windows
            before, value = both, e_value(*both, limit)
        weighted = weight * value
        evidence += weighted
        if name == DECIDING or (weighted > strongest and evidence >= BREACH):
            strongest, window, (events, trials) = weighted, name, both
    low, high = interval(events, trials)
    answer: Answer = "breach" if evidence >= BREACH else "within" if trials and high < limit else "too_few"
    return Verdict(
        answer=answer,
        rate=events / trials if trials else 0.0,
        low=low,
        high=high,
        limit=limit,
        events=events,
        trials=trials,
        window=window,
        evidence=min(evidence, _MOST),
    )


def e_value(events: int, trials: int, limit: float) -> float:
    """The strength of the case that the true rate is above ``limit``; 1 when nothing is known, at most 1e300.

    Below the limit the exact value is under 1 and does not matter; 0 is given for it, which costs no time and can
    only err for the campaign.
    """
    if trials == 0:
        return 1.0
    if events <= trials * limit:
        return 0.0
    if limit <= 0.0:
        return _MOST
    exp = math.exp
    value = 0.0
    try:
        for rise, fall, share in _grid(limit):
            value += exp(events * rise - trials * fall + share)
    except OverflowError:
        return _MOST
    return min(value, _MOST)


@lru_cache(maxsize=1024)
def _grid(limit: float) -> tuple[tuple[float, float, float], ...]:
    """For each alternative: what an event adds, what a trial takes, and its share, as logarithms."""
    return tuple(
        (math.log(odds), math.log(1 - limit + odds * limit), math.log(share))
        for odds, share in zip(_ODDS, _SHARES, strict=True)
    )


def interval(events: float, trials: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a share; 0 to 1 when nothing was tried."""
    if trials == 0:
        return 0.0, 1.0
    share = events / trials
    added = _Z2 / trials
    widened = 1 + added
    centre = share + added / 2
    half = _Z * math.sqrt((share * (1 - share) + added / 4) / trials)
    low = 0.0 if events == 0 else max(0.0, (centre - half) / widened)
    high = 1.0 if events == trials else min(1.0, (centre + half) / widened)
    return low, high
