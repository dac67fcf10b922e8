"""Bursts: does the case against a campaign stand when several of its events have one cause?

Verdicts believe that each mail has a chance of its own.  But a domain that has died bounces all its addresses, and in a
list sorted by domain they stand together: five bounces in ten mails look like a rate of fifty per cent and are one
piece of bad luck.  Slowing down for that is right, since it costs little and ends by itself.  What stops a campaign –
isolation, or a pause for blocks – asks more: with up to ``limits.burst`` events taken as one, in each window, the rest
must still be worth a warning.

Of a campaign that has just begun it asks less, because a burst among its first mails would be a strange chance: at the
limit there is one burst in ``burst / limit`` mails.  While a tenth of that is out, a tenth of the evidence is enough.

How the simulation came to this, and what minutes and their dispersion could not tell: docs/verdicts.md.
"""

from collections.abc import Mapping
from typing import NamedTuple

from policy.verdicts import BREACH, DECIDING, GRAVE, METRICS, REST, WARNING, WEIGHTS, e_value, isolating
from schemas.reputation import Counts, Verdict
from schemas.sending import Limits

_NOTHING = Counts()


class Rest(NamedTuple):
    """What is left of a case when one burst counts once: its e-value, and the e-value that is enough."""

    burst: int
    e_value: float
    needed: float

    @property
    def stands(self) -> bool:
        """Is it enough to stop a campaign?"""
        return self.e_value >= self.needed

    @property
    def lasts(self) -> bool:
        """Is it enough after half an hour of sending slowly that made it no better?  The whole case needs less then."""
        return self.e_value >= self.needed * BREACH / GRAVE


ALL_OF_IT = Rest(1, 1.0, 0.0)


def without_burst(metric: str, verdict: Verdict, windows: Mapping[str, Counts], limits: Limits) -> Rest:
    """The rest of the case of a verdict; ``windows`` are those that it was made of.

    Of trap hits only those count that may isolate.  With a ``burst`` of 1, or by fixed limits, nothing is left out.
    """
    if limits.burst == 1 or limits.judging == "fixed":
        return ALL_OF_IT
    of = isolating if metric == "trap_hit" else METRICS[metric]
    limit, beyond_one = verdict.limit, limits.burst - 1
    evidence = REST
    for name, weight in WEIGHTS.items():
        events, trials = of(windows.get(name, _NOTHING))
        evidence += weight * e_value(max(0, events - beyond_one), trials, limit)
    events, trials = of(windows.get(DECIDING, _NOTHING))
    share = min(1.0, (trials - events) * limit / limits.burst)
    return Rest(limits.burst, max(1.0, evidence), WARNING * share)
