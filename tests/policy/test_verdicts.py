"""The error rates of the test are stated and kept; more evidence never speaks for a sender."""

import math
import random
from decimal import MAX_EMAX, MIN_EMIN, Decimal, localcontext

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.verdicts import (
    _ODDS,
    _SHARES,
    ALPHA,
    BREACH,
    GRAVE,
    METRICS,
    WARNING,
    WEIGHTS,
    e_value,
    interval,
    verdicts,
)
from schemas.reputation import Counts, Verdict
from schemas.sending import Limits

LIMITS = Limits()


def judged(events: int, trials: int, limit: float = 0.02) -> Verdict:
    """The verdict on hard bounces of a campaign younger than five minutes: all windows hold the same."""
    counts = Counts(hard_bounce=events, accepted=trials - events)
    windows = dict.fromkeys(WEIGHTS, counts)
    return verdicts(windows, Limits(hard_bounce=limit))["hard_bounce"]


def breach_line(limit: float, trials: int, start: int) -> int:
    """The fewest events out of ``trials`` that are called a breach."""
    events = start
    while events <= trials and judged(events, trials, limit).answer != "breach":
        events += 1
    return events


def chance_of_ever_a_breach(rate: float, limit: float, trials: int) -> float:
    """Exact: the share of all campaigns with this true rate that are called a breach at any of the first messages."""
    alive = [1.0]  # alive[k]: not called a breach so far, k events
    crossed = 0.0
    line = 1
    for n in range(1, trials + 1):
        alive = [
            (alive[k] if k < len(alive) else 0.0) * (1 - rate) + (alive[k - 1] if k else 0.0) * rate
            for k in range(len(alive) + 1)
        ]
        line = breach_line(limit, n, max(1, line - 1))
        crossed += sum(alive[line:])
        del alive[line:]
    return crossed


AT_THE_LIMIT = {
    "hard_bounce": (0.02, 0.02, 3_000),
    "block": (0.05, 0.05, 1_500),
    "complaint": (0.001, 0.001, 6_000),
    "half_of_the_limit": (0.01, 0.02, 2_000),
}


@pytest.mark.parametrize(("rate", "limit", "trials"), AT_THE_LIMIT.values(), ids=AT_THE_LIMIT.keys())
def test_a_campaign_at_its_limit_is_hardly_ever_called_a_breach_however_often_one_looks(
    rate: float, limit: float, trials: int
) -> None:
    """Ville's inequality, exactly: after every single message, not only at the end."""
    assert chance_of_ever_a_breach(rate, limit, trials) <= ALPHA * sum(WEIGHTS.values())


def test_the_exact_chance_is_not_zero_so_that_the_law_says_something() -> None:
    assert chance_of_ever_a_breach(0.02, 0.02, 1_000) > ALPHA / 1_000
    assert chance_of_ever_a_breach(0.06, 0.02, 1_000) > 0.95


@pytest.mark.parametrize("trials", [1, 10, 50, 200])
@pytest.mark.parametrize(("rate", "limit"), [(0.02, 0.02), (0.01, 0.02), (0.3, 0.3), (0.0001, 0.001)])
def test_the_e_value_is_at_most_1_on_average_below_the_limit(trials: int, rate: float, limit: float) -> None:
    expected = sum(
        math.comb(trials, k) * rate**k * (1 - rate) ** (trials - k) * e_value(k, trials, limit)
        for k in range(trials + 1)
    )
    assert expected <= 1.0


def plain_e_value(events: int, trials: int, limit: float) -> float:
    """The definition, in as many digits as it takes."""
    with localcontext() as exact:
        exact.prec, exact.Emax, exact.Emin = 60, MAX_EMAX, MIN_EMIN
        at = Decimal(limit)
        terms = (
            Decimal(share) * Decimal(odds) ** events / (1 - at + Decimal(odds) * at) ** trials
            for odds, share in zip(_ODDS, _SHARES, strict=True)
        )
        return float(min(sum(terms, Decimal()), Decimal("1e300")))


def same(one: float, other: float) -> bool:
    """Beyond 1e290 nobody counts."""
    return math.isclose(min(one, 1e290), min(other, 1e290), rel_tol=1e-8)


@settings(max_examples=200)
@given(st.integers(1, 3_000), st.integers(1, 100_000), st.sampled_from([0.0002, 0.001, 0.02, 0.05, 0.5]))
def test_the_e_value_is_the_average_of_likelihood_ratios_that_it_says_it_is(
    events: int, trials: int, limit: float
) -> None:
    trials = max(trials, events)
    if events > trials * limit:
        assert same(e_value(events, trials, limit), plain_e_value(events, trials, limit))


@pytest.mark.parametrize("events", [100, 150, 170, 173, 174, 180, 190, 191, 195, 196, 200, 250, 400, 1_000, 100_000])
def test_many_events_and_nothing_else_are_no_trouble_to_a_float(events: int) -> None:
    for trials in (events, 20 * events):
        assert same(e_value(events, trials, 0.02), plain_e_value(events, trials, 0.02))


def poisson(chance: random.Random, mean: float) -> int:
    bound, product, number = math.exp(-mean), chance.random(), 0
    while product > bound:
        product *= chance.random()
        number += 1
    return number


def days_with_a_false_breach(limit: float, per_minute: float, campaigns: int, days: int, line: float) -> int:
    """Campaigns that stay at their limit, looked at after every minute of sliding windows."""
    chance = random.Random(20_241)
    lengths = {"24h": 1440, "1h": 60, "5m": 5}
    found = 0
    for _ in range(campaigns):
        minutes: list[tuple[int, int]] = []
        sums = {name: [0, 0] for name in lengths}
        false_days = set()
        for minute in range(days * 1440):
            trials = poisson(chance, per_minute)
            events = sum(chance.random() < limit for _ in range(trials))
            minutes.append((events, trials))
            for name, length in lengths.items():
                sums[name][0] += events - (minutes[minute - length][0] if minute >= length else 0)
                sums[name][1] += trials - (minutes[minute - length][1] if minute >= length else 0)
            if events and minute // 1440 not in false_days:
                evidence = sum(WEIGHTS[name] * e_value(*sums[name], limit) for name in lengths)
                if evidence >= line:
                    false_days.add(minute // 1440)
        found += len(false_days)
    return found


def test_sliding_windows_keep_the_error_rate_per_day() -> None:
    """At one in twenty, so that a small simulation can see it; 9,600 campaign days gave a tenth of the budget."""
    alpha, campaigns, days = 0.05, 30, 4
    found = days_with_a_false_breach(0.02, 8.0, campaigns, days, 1 / alpha)
    assert found <= alpha * campaigns * days


FOUND = {"hard_bounce": 0.02, "complaint": 0.001, "block": 0.05}


@pytest.mark.parametrize("limit", FOUND.values(), ids=FOUND.keys())
def test_three_times_the_limit_is_found_within_a_bounded_number_of_messages(limit: float) -> None:
    """Half of them with about 18 events, all of them before 40 / limit messages: 2,000 for hard bounces."""
    needed = []
    for seed in range(200):
        chance = random.Random(seed)
        events = trials = 0
        while judged(events, trials, limit).answer != "breach":
            trials += int(math.log(1 - chance.random()) / math.log(1 - 3 * limit)) + 1
            events += 1
        needed.append(trials)
    assert max(needed) <= 40 / limit
    assert sorted(needed)[100] <= 8 / limit


TABLE = {
    # events, trials, limit, answer
    "nothing": (0, 0, 0.02, "too_few"),
    "one_of_one": (1, 1, 0.02, "too_few"),
    "two_of_two": (2, 2, 0.02, "too_few"),
    "three_of_three": (3, 3, 0.02, "breach"),
    "seven_of_213": (7, 213, 0.02, "too_few"),
    "twenty_of_213": (20, 213, 0.02, "breach"),
    "none_of_100": (0, 100, 0.02, "too_few"),
    "none_of_200": (0, 200, 0.02, "within"),
    "half_the_limit": (20, 2_000, 0.02, "within"),
    "at_the_limit": (400, 20_000, 0.02, "too_few"),
    "one_complaint_in_100": (1, 100, 0.001, "too_few"),
    "three_complaints_in_1000": (3, 1_000, 0.001, "too_few"),
    "twenty_complaints_in_2000": (20, 2_000, 0.001, "breach"),
    "two_traps_in_100": (2, 100, 0.0002, "too_few"),
    "four_traps_in_100": (4, 100, 0.0002, "breach"),
    "limit_of_nothing": (1, 1_000, 0.0, "breach"),
    "limit_of_nothing_kept": (0, 1_000, 0.0, "too_few"),
    "limit_of_everything": (1_000, 1_000, 1.0, "too_few"),
    "huge": (10**9, 10**10, 0.02, "breach"),
}


@pytest.mark.parametrize(("events", "trials", "limit", "answer"), TABLE.values(), ids=TABLE.keys())
def test_the_answer(events: int, trials: int, limit: float, answer: str) -> None:
    verdict = judged(events, trials, limit)
    assert verdict.answer == answer, verdict
    assert (verdict.events, verdict.trials, verdict.limit) == (events, trials, limit)


# events, trials, per cent: values of a reference implementation
WILSON = {
    "1/100": (1, 100, 0.177, 5.449),
    "3/1000": (3, 1_000, 0.102, 0.878),
    "5/1000": (5, 1_000, 0.214, 1.165),
    "6/2000": (6, 2_000, 0.138, 0.653),
    "30/10000": (30, 10_000, 0.210, 0.428),
    "20/400": (20, 400, 3.260, 7.596),
    "0/1000": (0, 1_000, 0.0, 0.383),
}


@pytest.mark.parametrize(("events", "trials", "low", "high"), WILSON.values(), ids=WILSON.keys())
def test_the_interval_is_wilsons(events: int, trials: int, low: float, high: float) -> None:
    assert [100 * end for end in interval(events, trials)] == pytest.approx([low, high], abs=0.0006)


def test_nothing_known_is_an_evidence_of_1_and_an_interval_of_everything() -> None:
    verdict = verdicts({}, LIMITS)["complaint"]
    assert (verdict.evidence, verdict.low, verdict.high, verdict.rate) == (pytest.approx(1.0), 0.0, 1.0, 0.0)


DENOMINATORS = {
    "hard_bounce": (Counts(hard_bounce=1, accepted=10, soft_bounce=5, block=7, attempts=50), (1, 16)),
    "complaint": (Counts(complaint=2, accepted=10, hard_bounce=5, attempts=50), (2, 10)),
    "trap_hit": (Counts(trap_hit=3, trap_hit_pristine=1, accepted=10, attempts=50), (3, 10)),
    "block": (Counts(block=4, accepted=10, attempts=50), (4, 50)),
    "complaint without its message": (Counts(complaint=2), (2, 2)),
    "block by a bounce alone": (Counts(block=4), (4, 4)),
}


@pytest.mark.parametrize("name", DENOMINATORS)
def test_every_metric_has_its_own_denominator(name: str) -> None:
    counts, expected = DENOMINATORS[name]
    assert METRICS[name.split(maxsplit=1)[0]](counts) == expected


def test_there_is_a_verdict_for_every_limit() -> None:
    assert set(verdicts({}, LIMITS)) == set(METRICS)
    assert set(METRICS) <= set(Limits.__struct_fields__)


def test_a_campaign_that_turns_bad_after_a_good_day_is_seen_in_minutes() -> None:
    good = Counts(accepted=1_000_000, hard_bounce=1_000)
    hour = Counts(accepted=42_000, hard_bounce=250)
    minutes = Counts(accepted=3_300, hard_bounce=200)
    verdict = verdicts({"24h": good, "1h": hour, "5m": minutes}, LIMITS)["hard_bounce"]
    assert (verdict.answer, verdict.window, verdict.events) == ("breach", "5m", 200)
    assert verdicts({"24h": good}, LIMITS)["hard_bounce"].answer == "within"


def test_the_longest_window_decides_when_all_say_the_same() -> None:
    assert judged(50, 500).window == "24h"


events_of = st.integers(0, 400)
trials_of = st.integers(0, 20_000)
limits_of = st.sampled_from([0.0, 0.0002, 0.001, 0.02, 0.05, 0.5, 1.0])


@settings(max_examples=600)
@given(events_of, trials_of, limits_of, st.integers(1, 5))
def test_more_events_never_turn_a_breach_into_anything_else(events: int, trials: int, limit: float, more: int) -> None:
    trials = max(trials, events)
    before, after = judged(events, trials, limit), judged(events + more, trials + more, limit)
    assert after.evidence >= before.evidence * (1 - 1e-9) or trials == 0
    assert before.answer != "breach" or after.answer == "breach"


@settings(max_examples=600)
@given(events_of, trials_of, limits_of, st.integers(1, 500))
def test_more_good_messages_never_make_a_breach(events: int, trials: int, limit: float, more: int) -> None:
    trials = max(trials, events)
    before, after = judged(events, trials, limit), judged(events, trials + more, limit)
    assert before.answer == "breach" or after.answer != "breach"
    assert before.answer != "within" or after.answer == "within"


@settings(max_examples=600)
@given(events_of, trials_of, limits_of)
def test_the_parts_of_a_verdict_agree(events: int, trials: int, limit: float) -> None:
    trials = max(trials, events)
    verdict = judged(events, trials, limit)
    assert 0.0 <= verdict.low <= verdict.rate <= verdict.high <= 1.0
    assert math.isfinite(verdict.evidence)
    assert verdict.evidence >= 0.0
    assert (verdict.answer == "breach") == (verdict.evidence >= BREACH)
    if verdict.answer == "breach":
        assert verdict.rate > limit
    if verdict.answer == "within":
        assert verdict.high < limit


@given(events_of, trials_of)
def test_a_lower_limit_is_never_milder(events: int, trials: int) -> None:
    trials = max(trials, events)
    answers = [judged(events, trials, limit).answer == "breach" for limit in (0.001, 0.02, 0.05, 0.5)]
    assert answers == sorted(answers, reverse=True)


def test_the_lines_stand_in_order() -> None:
    assert 1 < WARNING < BREACH < GRAVE
    assert sum(WEIGHTS.values()) <= 1
    assert WEIGHTS["24h"] + 24 * WEIGHTS["1h"] + 288 * WEIGHTS["5m"] == pytest.approx(1.0)
