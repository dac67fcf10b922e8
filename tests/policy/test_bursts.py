"""A burst slows a campaign down; to stop it takes more than one cause may explain."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.bursts import Rest, without_burst
from policy.ladder import start, step
from policy.verdicts import METRICS, WARNING, verdicts
from schemas.reputation import Counts, Decision, RatesSnapshot, State
from schemas.sending import Campaign, Limits, Mailbox

LIMITS = Limits()
NAMES = ("7d", "24h", "1h", "5m")


def counts(events: int, trials: int, metric: str = "hard_bounce") -> Counts:
    match metric:
        case "hard_bounce":
            return Counts(accepted=trials - events, hard_bounce=events, attempts=trials)
        case "complaint":
            return Counts(accepted=trials, complaint=events, attempts=trials)
        case "trap_hit":
            hits = {"trap_hit": events, "trap_hit_pristine": events, "trap_weight": 100 * events}
            return Counts(accepted=trials, attempts=trials, **hits)
        case _:
            return Counts(accepted=trials - events, block=events, attempts=trials)


def rest(events: int, trials: int, limits: Limits = LIMITS, metric: str = "hard_bounce") -> Rest:
    windows = dict.fromkeys(NAMES, counts(events, trials, metric))
    return without_burst(metric, verdicts(windows, limits)[metric], windows, limits)


def judged(
    windows: dict[str, Counts], limits: Limits = LIMITS, before: State = "healthy"
) -> tuple[State, Decision | None]:
    campaign = Campaign(
        campaign="c",
        from_=Mailbox(address="news@example.com"),
        return_path_domain="bounces.example.com",
        limits=limits,
        pristine_trap="judge",
    )
    rates = RatesSnapshot(scope="campaign:c", at=60_000, windows=windows)
    standing, decision = step(start(0), scope="campaign:c", campaign=campaign, now=60_000, rates=rates)
    return standing.state, decision


def state(events: int, trials: int, limits: Limits = LIMITS, metric: str = "hard_bounce") -> State:
    return judged(dict.fromkeys(NAMES, counts(events, trials, metric)), limits)[0]


STATES: dict[str, tuple[int, int, str, State]] = {
    "five bounces among thirty mails": (5, 30, "hard_bounce", "throttled"),
    "five complaints among four hundred": (5, 400, "complaint", "throttled"),
    "five pristine traps, tolerated": (5, 2_000, "trap_hit", "throttled"),
    "servers turn eight mails away": (8, 25, "block", "throttled"),
    "twelve bounces": (12, 100, "hard_bounce", "isolated"),
    "twice the limit for long": (60, 1_200, "hard_bounce", "isolated"),
    "fourteen blocks": (14, 40, "block", "paused"),
    "every second of the first mails": (4, 8, "hard_bounce", "isolated"),
}


@pytest.mark.parametrize(("events", "trials", "metric", "expected"), STATES.values(), ids=STATES.keys())
def test_one_burst_throttles_and_more_than_a_burst_stops(
    events: int, trials: int, metric: str, expected: State
) -> None:
    assert state(events, trials, metric=metric) == expected


def test_a_list_that_comes_in_larger_bursts_says_so() -> None:
    assert state(20, 100) == "isolated"
    assert state(20, 100, Limits(burst=20)) == "throttled"


def test_events_that_come_singly_are_judged_as_they_are() -> None:
    assert state(5, 30, Limits(burst=1)) == "isolated"
    assert rest(5, 30, Limits(burst=1)).stands


def test_fixed_limits_know_no_bursts() -> None:
    fixed = Limits(judging="fixed", min_volume=10, burst=1000)
    assert state(5, 20, fixed) == "isolated"


def test_the_reason_says_that_one_cause_may_explain_it_and_the_evidence_how_much_is_left() -> None:
    _, decision = judged(dict.fromkeys(NAMES, counts(5, 30)))
    assert decision is not None
    assert decision.reason.endswith("; up to 6 of them may have one cause, and the rest proves too little")
    left = decision.evidence["without_burst"]
    assert left["burst"] == 6
    assert left["e_value"] < left["needed"]


def test_a_burst_in_the_last_minutes_of_a_good_day_throttles() -> None:
    day, minutes = counts(60, 10_000), counts(7, 20)
    windows = {"7d": day, "24h": day, "1h": minutes, "5m": minutes}
    assert judged(windows)[0] == "throttled"
    assert judged(windows, Limits(burst=1))[0] == "isolated"


EVENTS = st.integers(0, 60)
GOOD = st.integers(0, 3_000)
BURST = st.integers(1, 40)
METRIC = st.sampled_from(sorted(METRICS))


@settings(max_examples=300)
@given(EVENTS, GOOD, BURST, METRIC)
def test_one_more_event_never_saves_a_campaign(events: int, good: int, burst: int, metric: str) -> None:
    limits = Limits(burst=burst)
    before, after = (rest(events + more, good + events + more, limits, metric) for more in (0, 1))
    assert after.stands or not before.stands


@settings(max_examples=300)
@given(EVENTS, GOOD, BURST, METRIC)
def test_a_larger_burst_leaves_less_of_the_case(events: int, good: int, burst: int, metric: str) -> None:
    smaller, larger = (rest(events, good + events, Limits(burst=one), metric) for one in (burst + 1, burst + 2))
    assert larger.e_value <= smaller.e_value


@given(st.integers(1, 6), st.integers(0, 5_000))
def test_one_burst_alone_stops_nobody_who_has_sent_the_mails_in_which_one_is_no_wonder(events: int, good: int) -> None:
    enough = int(LIMITS.burst / WARNING / LIMITS.hard_bounce) + 1
    assert not rest(events, good + enough + events).stands
