import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.trap_signals import (
    DAY_MS,
    MEDIUM,
    STRONG,
    WEAK,
    TrapSignal,
    domain_resurrection,
    gap_strength,
    is_alive,
    is_dead,
    recycled_signature,
    reply_text,
    strongest,
    typo_domain,
    why_recycled,
)
from policy.traps import weight_of
from schemas.feedback import FeedbackEvent, Trap

GAPS = [
    (1, WEAK),
    (30 * DAY_MS - 1, WEAK),
    (30 * DAY_MS, MEDIUM),
    (180 * DAY_MS - 1, MEDIUM),
    (180 * DAY_MS, STRONG),
    (2_000 * DAY_MS, STRONG),
]


@pytest.mark.parametrize(("gap_ms", "strength"), GAPS)
def test_the_longer_it_was_dead_the_stronger_the_signal(gap_ms: int, strength: float) -> None:
    assert gap_strength(gap_ms) == strength
    assert recycled_signature(5, 5 + gap_ms) == TrapSignal("recycled_signature", "recycled", strength)


def test_mail_that_was_accepted_before_the_bounce_says_nothing() -> None:
    assert recycled_signature(5, 5) is None
    assert recycled_signature(6, 5) is None
    assert domain_resurrection(6, 5) is None


@pytest.mark.parametrize(("gap_ms", "strength"), GAPS)
def test_a_domain_that_is_back_within_a_month_is_no_news(gap_ms: int, strength: float) -> None:
    found = domain_resurrection(5, 5 + gap_ms)

    assert found == (None if strength == WEAK else TrapSignal("domain_resurrection", "recycled", strength))
    assert is_alive(5, 5 + gap_ms) is (strength == WEAK)


def test_many_look_alikes_behind_one_server_say_more_than_one() -> None:
    assert [typo_domain(number).name for number in (1, 2, 3, 9)] == [
        *("typo_domain", "typo_domain"),
        *("mx_cluster", "mx_cluster"),
    ]
    assert typo_domain(1).strength < typo_domain(3).strength


def test_a_reply_says_what_its_words_prove_and_never_all() -> None:
    assert reply_text(0.0) is None
    assert reply_text(0.3) == TrapSignal("reply_text", "suspected", 0.3)
    assert reply_text(1.0) == TrapSignal("reply_text", "suspected", STRONG)


def test_the_signal_that_weighs_most_counts() -> None:
    typo, recycled = typo_domain(3), recycled_signature(0, 200 * DAY_MS)

    assert strongest([None, typo, recycled, None]) == recycled
    assert strongest([None]) is None
    assert strongest([]) is None


@given(st.integers(-(10**13), 10**13), st.integers(0, 100), st.floats(0, 1))
def test_no_signal_is_more_than_a_suspicion(gap: int, look_alikes: int, trap: float) -> None:
    signals = [recycled_signature(0, gap), domain_resurrection(0, gap), typo_domain(look_alikes), reply_text(trap)]
    for one in signals:
        if one is not None:
            assert 0 < one.strength < 1
            event = FeedbackEvent(kind="trap_hit", campaign="c", at=1, trap=one.trap, source="worker")
            assert weight_of(event) <= 80
            assert one.trap == Trap(kind=one.kind, strength=one.strength)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("invalid_recipient", True),
        ("bad_domain", True),
        ("inactive_mailbox", True),
        ("hard_bounce", True),
        ("complaint", False),
        ("unsubscribe", False),
        ("manual", False),
        ("trap_hit", False),
        ("recipient_policy", False),
        ("alive_again", False),
        ("", False),
    ],
)
def test_only_what_was_dead_can_come_back(reason: str, expected: bool) -> None:
    assert is_dead(reason) is expected


def test_why_an_address_may_be_a_trap_today() -> None:
    assert why_recycled(0, 29 * DAY_MS, is_domain=False) is None
    assert (why_recycled(0, 400 * DAY_MS, is_domain=False) or "").startswith("bounced as dead 400 days ago;")
    assert (why_recycled(0, 1_400 * DAY_MS, is_domain=True) or "").startswith(
        "has a domain that took no mail 1,400 days"
    )
