"""Judging by bare rates: what happens at the limit, at its multiple, and below the minimum."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.ladder import start, step
from policy.verdicts import BREACH, GRAVE, METRICS, verdicts
from schemas.reputation import Counts, State
from schemas.sending import Limits
from tests.policy.test_ladder import SCOPE, T0, campaign_of, rates

SES = Limits(hard_bounce=0.05, complaint=0.001, judging="fixed", min_volume=1000, grave_factor=2.0)
BY_SES = campaign_of(limits=SES)


def windows(day: Counts, week: Counts | None = None) -> dict[str, Counts]:
    return {"5m": day, "1h": day, "24h": day, "7d": week or day}


@pytest.mark.parametrize(
    ("bounced", "of", "state"),
    [
        (500, 999, "healthy"),
        (49, 1_000, "healthy"),
        (50, 1_000, "throttled"),
        (99, 1_000, "throttled"),
        (100, 1_000, "isolated"),
    ],
)
def test_review_at_the_limit_and_pause_at_twice_the_limit(bounced: int, of: int, state: State) -> None:
    counts = Counts(accepted=of - bounced, hard_bounce=bounced, attempts=of)
    standing, _ = step(start(T0), scope=SCOPE, campaign=BY_SES, now=T0, rates=rates(counts))
    assert standing.state == state


def test_what_surely_is_twice_the_limit_waits_for_its_own_factor() -> None:
    slow = campaign_of(limits=Limits(complaint=0.001, judging="fixed", grave_factor=5.0))
    counts = Counts(accepted=100_000, complaint=400, attempts=100_000)
    standing, _ = step(start(T0), scope=SCOPE, campaign=slow, now=T0, rates=rates(counts))
    assert standing.state == "throttled"


def test_a_day_that_is_too_small_is_judged_by_the_week() -> None:
    day = Counts(accepted=90, hard_bounce=10, attempts=100)
    week = Counts(accepted=1_900, hard_bounce=120, attempts=2_020)
    verdict = verdicts(windows(day, week), SES)["hard_bounce"]
    assert (verdict.answer, verdict.window, verdict.events, verdict.trials) == ("breach", "7d", 120, 2_020)


def test_nothing_happened_is_no_breach_even_of_a_limit_of_zero() -> None:
    none = Limits(trap_hit=0.0, judging="fixed")
    assert verdicts(windows(Counts(accepted=5_000, attempts=5_000)), none)["trap_hit"].answer == "within"


@given(st.integers(0, 3_000), st.integers(0, 3_000))
def test_evidence_is_one_of_three_and_agrees_with_the_answer(accepted: int, bounced: int) -> None:
    counts = Counts(accepted=accepted, hard_bounce=bounced, attempts=accepted + bounced)
    for metric, verdict in verdicts(windows(counts), SES).items():
        assert metric in METRICS
        assert verdict.evidence in (1.0, BREACH, GRAVE)
        assert (verdict.answer == "breach") == (verdict.evidence >= BREACH)
        assert (verdict.answer == "too_few") == (verdict.trials < SES.min_volume)
