"""The pauses grow, are spread, respect what a category asks for, and end."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.replies import shipped
from policy.retries import next_attempt

NOW = 1_764_000_000_000
MINUTE_S = 60
HOUR_S = 3_600
DAY_S = 86_400


def pause_s(attempt: int, category: str = "transient", jitter: float = 0.0) -> float:
    due = next_attempt(attempt=attempt, category=category, first_at=NOW, now=NOW, max_age_s=30 * DAY_S, jitter=jitter)
    assert due is not None
    return (due - NOW) / 1000


PLAN = {
    1: 5 * MINUTE_S,
    2: 15 * MINUTE_S,
    3: 30 * MINUTE_S,
    4: HOUR_S,
    5: 2 * HOUR_S,
    6: 4 * HOUR_S,
    7: 6 * HOUR_S,
    8: 6 * HOUR_S,
    1_000: 6 * HOUR_S,
    10**9: 6 * HOUR_S,
}


@pytest.mark.parametrize(("attempt", "expected"), PLAN.items(), ids=map(str, PLAN))
def test_the_plan(attempt: int, expected: int) -> None:
    assert pause_s(attempt) == expected


@pytest.mark.parametrize(("attempt", "expected"), [(1, 5), (2, 60), (9, 60)])
def test_another_plan(attempt: int, expected: int) -> None:
    due = next_attempt(
        attempt=attempt, category="transient", first_at=NOW, now=NOW, max_age_s=DAY_S, jitter=0, plan_s=(5, 60)
    )
    assert due == NOW + expected * 1000


JITTERS = {"earliest": (-1.0, 0.8), "half": (0.5, 1.1), "latest": (1.0, 1.2), "nonsense_is_bounded": (99.0, 1.2)}


@pytest.mark.parametrize(("jitter", "factor"), JITTERS.values(), ids=JITTERS.keys())
def test_a_pause_is_moved_by_a_fifth_at_most(jitter: float, factor: float) -> None:
    assert pause_s(3, jitter=jitter) == pytest.approx(30 * MINUTE_S * factor)


ASKED = {
    "greylisted": (1, 5 * MINUTE_S),
    "rate_limited_ip": (1, 15 * MINUTE_S),
    "mailbox_full": (1, 4 * HOUR_S),
    "recipient_rate": (1, HOUR_S),
    "reputation_ip": (2, HOUR_S),
    "a category of tomorrow": (1, 5 * MINUTE_S),
}


@pytest.mark.parametrize(("category", "asked"), ASKED.items(), ids=ASKED.keys())
def test_a_category_may_ask_for_a_longer_pause(category: str, asked: tuple[int, int]) -> None:
    attempt, expected = asked
    assert pause_s(attempt, category) == expected


@given(st.sampled_from(sorted(shipped().categories)), st.floats(-1, 1))
def test_no_jitter_comes_earlier_than_the_category_asks(category: str, jitter: float) -> None:
    assert pause_s(1, category, jitter) >= shipped().categories[category].after_s


def test_messages_that_must_wait_do_not_all_come_back_at_once() -> None:
    pauses = Counter(pause_s(1, "greylisted", jitter / 10) for jitter in range(-10, 11))
    assert max(pauses.values()) <= 2


def test_a_full_mailbox_is_tried_three_times_in_all() -> None:
    dues = [
        next_attempt(attempt=n, category="mailbox_full", first_at=NOW, now=NOW, max_age_s=30 * DAY_S, jitter=0)
        for n in (1, 2, 3)
    ]
    assert [due is not None for due in dues] == [True, True, False]


def test_a_message_expires_when_the_next_attempt_would_come_too_late() -> None:
    late = NOW + DAY_S * 1000 - 300_000
    assert next_attempt(attempt=1, category="transient", first_at=NOW, now=late, max_age_s=DAY_S, jitter=0) is not None
    assert next_attempt(attempt=1, category="transient", first_at=NOW, now=late + 1, max_age_s=DAY_S, jitter=0) is None


@settings(max_examples=300)
@given(
    st.integers(-5, 10**6),
    st.sampled_from([*shipped().categories, "unheard of"]),
    st.integers(0, 10**10),
    st.integers(60, 30 * DAY_S),
    st.floats(-1, 1),
)
def test_the_next_attempt_lies_ahead_and_within_the_messages_life(
    attempt: int, category: str, age_ms: int, max_age_s: int, jitter: float
) -> None:
    due = next_attempt(
        attempt=attempt, category=category, first_at=NOW, now=NOW + age_ms, max_age_s=max_age_s, jitter=jitter
    )
    if due is not None:
        assert NOW + age_ms < due <= NOW + max_age_s * 1000


@given(st.integers(1, 40), st.sampled_from(sorted(shipped().categories)))
def test_pauses_never_get_shorter(attempt: int, category: str) -> None:
    if shipped().categories[category].tries is None:
        assert pause_s(attempt + 1, category) >= pause_s(attempt, category)


def test_every_message_ends() -> None:
    now, attempt = NOW, 1
    while True:
        due = next_attempt(
            attempt=attempt, category="transient", first_at=NOW, now=now, max_age_s=2 * DAY_S, jitter=-1.0
        )
        if due is None:
            break
        now, attempt = due, attempt + 1
    assert 10 < attempt < 25
