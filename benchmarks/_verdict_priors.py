"""What borrowing from other campaigns does: tiny campaigns among good ones, and blocks where everybody has them.

A hundred campaigns of one installation send a thousand mails each to one provider; their true rates are spread about
a mean.  From them a prior is made, as the workers make it; then other campaigns are judged with it and without it.
"""

import random
from collections.abc import Mapping

from benchmarks._harness import Json
from policy.priors import EVERYWHERE, fitted
from policy.verdicts import verdicts
from schemas.reputation import Counts, Prior
from schemas.sending import Limits

OTHERS, MAILS = 100, 1_000
TRIED = 200
BORROWS = Limits(prior_mails=200)
STEP = 10  # mails between two looks
LONGEST = 2_000

CASES: Mapping[str, tuple[str, float, float, int]] = {
    # metric, rate of the others and of the campaign as multiples of the limit, mails
    "100 good mails among good campaigns": ("hard_bounce", 0.2, 0.2, 100),
    "100 mails at 5 times the limit among good campaigns": ("hard_bounce", 0.2, 5.0, 100),
    "2,000 mails, twice the limit of blocks as everybody": ("block", 2.0, 2.0, LONGEST),
    "2,000 mails, 6 times the limit of blocks, others twice": ("block", 2.0, 6.0, LONGEST),
    "2,000 mails, 6 times the limit of blocks, others a fifth": ("block", 0.2, 6.0, LONGEST),
}


def prior_figures(seed: int) -> Json:
    """By case: the shares of campaigns that end within and as a breach, without and with a prior."""
    return {name: _case(random.Random(f"{seed}/prior/{name}"), *case) for name, case in CASES.items()}


def _case(chance: random.Random, metric: str, others: float, own: float, mails: int) -> Json:
    limit = getattr(BORROWS, metric)
    prior = fitted([(_events(chance, _spread(chance, others * limit), MAILS), MAILS) for _ in range(OTHERS)])
    priors = {EVERYWHERE: {metric: prior}} if prior is not None else {}
    found: dict[str, dict[str, int]] = {
        name: {"within": 0, "breach": 0, "too_few": 0} for name in ("without", "with_prior")
    }
    for _ in range(TRIED):
        course = [_events(chance, own * limit, STEP) for _ in range(mails // STEP)]
        found["without"][_end(metric, course, {})] += 1
        found["with_prior"][_end(metric, course, priors.get(EVERYWHERE, {}))] += 1
    shares = {name: {answer: number / TRIED for answer, number in one.items()} for name, one in found.items()}
    return {**shares, "prior_mails": 0 if prior is None else round(min(prior.mails, BORROWS.prior_mails))}


def _end(metric: str, course: list[int], priors: Mapping[str, Prior]) -> str:
    """A breach if there ever was one, else what is said in the end."""
    events, answer = 0, "too_few"
    for number, more in enumerate(course, start=1):
        events += more
        trials = number * STEP
        counts = Counts(**{metric: events, "accepted": trials - events, "attempts": trials})
        answer = verdicts(dict.fromkeys(("24h", "1h", "5m"), counts), BORROWS, priors)[metric].answer
        if answer == "breach":
            return answer
    return answer


def _spread(chance: random.Random, mean: float) -> float:
    """Drawn about a mean, with a standard deviation of two thirds of it or less."""
    return chance.betavariate(2, 2 / mean - 2)


def _events(chance: random.Random, rate: float, mails: int) -> int:
    return sum(chance.random() < rate for _ in range(mails))
