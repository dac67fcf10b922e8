"""What each outcome and signal counts as, and sums that are exact whatever the order of arrival."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.counts import (
    VECTOR,
    WINDOWS_MIN,
    Cells,
    Rolling,
    booked,
    booked_feedback,
    cell_key,
    complaints,
    counts_of,
    merge,
)
from schemas.delivery import DeliveryResult, Outcome
from schemas.feedback import FeedbackEvent, FeedbackKind, Trap
from schemas.reputation import Counts

MINUTE = 60_000
AT = 1_000 * MINUTE


def result(
    outcome: Outcome, class_: str | None = None, *, at: int = AT, provider: str = "google", ip: str | None = "192.0.2.1"
) -> DeliveryResult:
    return DeliveryResult(message_id="m", outcome=outcome, at=at, class_=class_, provider=provider, ip=ip)


def event(
    kind: FeedbackKind,
    *,
    at: int = AT,
    sent_at: int | None = None,
    trap: Trap | None = None,
    provider: str | None = "google",
) -> FeedbackEvent:
    return FeedbackEvent(
        kind=kind,
        campaign="c",
        at=at,
        sent_at=sent_at,
        provider=provider,
        ip="192.0.2.1",
        trap=trap,
        source="return_path",
    )


def only(minutes: dict[int, Cells]) -> dict[str, int]:
    """The one cell of the one minute, without its zeros."""
    (cells,) = minutes.values()
    (vector,) = cells.values()
    return {name: number for name, number in zip(VECTOR, vector, strict=True) if number}


OUTCOMES = {
    "accepted": ("accepted", None, {"accepted": 1, "attempts": 1}),
    "accepted_whatever_its_class": ("accepted", "policy_block", {"accepted": 1, "attempts": 1}),
    "deferred_greylisted": ("deferred", "greylisted", {"deferral": 1, "attempts": 1}),
    "deferred_transient": ("deferred", "transient", {"deferral": 1, "attempts": 1}),
    "deferred_rate_limited": ("deferred", "rate_limited_ip", {"deferral": 1, "block": 1, "attempts": 1}),
    "deferred_reputation": ("deferred", "reputation_ip", {"deferral": 1, "block": 1, "attempts": 1}),
    "deferred_content": ("deferred", "spam_content", {"deferral": 1, "block": 1, "attempts": 1}),
    "deferred_too_many_connections": ("deferred", "too_many_connections", {"deferral": 1, "attempts": 1}),
    "deferred_config": ("deferred", "auth_failure", {"deferral": 1, "attempts": 1}),
    "deferred_without_class": ("deferred", None, {"deferral": 1, "attempts": 1}),
    "bounced_unknown_user": ("bounced", "invalid_recipient", {"hard_bounce": 1, "attempts": 1}),
    "bounced_bad_domain": ("bounced", "bad_domain", {"hard_bounce": 1, "attempts": 1}),
    "bounced_inactive": ("bounced", "inactive_mailbox", {"hard_bounce": 1, "attempts": 1}),
    "bounced_blocklisted": ("bounced", "blocklisted_ip", {"block": 1, "attempts": 1}),
    "bounced_content": ("bounced", "spam_content", {"block": 1, "attempts": 1}),
    "bounced_policy": ("bounced", "policy_block", {"block": 1, "attempts": 1}),
    "bounced_full": ("bounced", "mailbox_full", {"soft_bounce": 1, "attempts": 1}),
    "bounced_config": ("bounced", "auth_failure", {"soft_bounce": 1, "attempts": 1}),
    "bounced_bug": ("bounced", "malformed_message", {"soft_bounce": 1, "attempts": 1}),
    "bounced_other": ("bounced", "other", {"soft_bounce": 1, "attempts": 1}),
    "bounced_unheard_of": ("bounced", "a class of tomorrow", {"soft_bounce": 1, "attempts": 1}),
    "bounced_without_class": ("bounced", None, {"soft_bounce": 1, "attempts": 1}),
    "expired": ("expired", "reputation_ip", {"soft_bounce": 1}),
}


@pytest.mark.parametrize(("outcome", "class_", "expected"), OUTCOMES.values(), ids=OUTCOMES.keys())
def test_an_outcome_counts_as(outcome: Outcome, class_: str | None, expected: dict[str, int]) -> None:
    assert only(booked([result(outcome, class_)])) == expected


@pytest.mark.parametrize("outcome", ["suppressed", "in_doubt"])
def test_what_no_server_answered_counts_nothing(outcome: Outcome) -> None:
    assert booked([result(outcome)]) == {}


PRISTINE = Trap(kind="pristine", strength=1.0)
FEEDBACK = {
    "hard_bounce": ("hard_bounce", None, {"hard_bounce": 1}),
    "soft_bounce": ("soft_bounce", None, {"soft_bounce": 1}),
    "block": ("block", None, {"block": 1}),
    "complaint": ("complaint", None, {"complaint": 1, "complaint_unheard": 1}),
    "unsubscribe": ("unsubscribe", None, {"unsubscribe": 1}),
    "confirmed_pristine_trap": ("trap_hit", PRISTINE, {"trap_hit": 1, "trap_hit_pristine": 1, "trap_weight": 100}),
    "suspected_pristine_trap": (
        "trap_hit",
        Trap(kind="pristine", strength=0.99),
        {"trap_hit": 1, "trap_weight": 99},
    ),
    "trap_that_a_stranger_claims": ("trap_hit", Trap(kind="suspected", strength=0.2), None),
    "trap_that_is_nothing": ("trap_hit", Trap(kind="typo", strength=0.0), None),
    "recycled_trap": (
        "trap_hit",
        Trap(kind="recycled", strength=1.0),
        {"trap_hit": 1, "trap_hit_recycled": 1, "trap_weight": 40},
    ),
    "recycled_signature": ("trap_hit", Trap(kind="recycled", strength=0.7), {"trap_hit": 1, "trap_weight": 28}),
    "typo_trap": ("trap_hit", Trap(kind="typo", strength=1.0), {"trap_hit": 1, "trap_hit_typo": 1, "trap_weight": 15}),
    "typo_domain": ("trap_hit", Trap(kind="typo", strength=0.3), {"trap_hit": 1, "trap_hit_typo": 1, "trap_weight": 4}),
    "trap_of_unknown_kind": ("trap_hit", None, {"trap_hit": 1, "trap_weight": 100}),
    "complaint_with_a_trap": ("complaint", PRISTINE, {"complaint": 1, "complaint_unheard": 1}),
}


@pytest.mark.parametrize(("kind", "trap", "expected"), FEEDBACK.values(), ids=FEEDBACK.keys())
def test_feedback_counts_as(kind: FeedbackKind, trap: Trap | None, expected: dict[str, int] | None) -> None:
    minutes = booked_feedback([event(kind, trap=trap)])
    assert (only(minutes) if minutes else None) == expected


@pytest.mark.parametrize("kind", ["not_spam", "auto_reply"])
def test_what_is_no_signal_against_the_sender_counts_nothing(kind: FeedbackKind) -> None:
    assert booked_feedback([event(kind)]) == {}


def test_complaints_are_divided_by_the_mail_of_those_who_pass_them_on() -> None:
    sent = [result("accepted", provider=provider) for provider in ("yahoo", "google", "google", "microsoft")]
    cells = booked(sent)[AT // MINUTE]
    assert {key.partition("|")[0]: counts_of(vector).accepted_heard for key, vector in cells.items()} == {
        "yahoo": 1,
        "google": 0,
        "microsoft": 1,
    }
    told = booked_feedback([event("complaint", provider=provider) for provider in ("yahoo", "google", None)])
    assert [counts_of(vector).complaint_unheard for vector in told[AT // MINUTE].values()] == [0, 1, 0]


COMPLAINTS = {
    "all_heard": (Counts(accepted=1_000, accepted_heard=200, complaint=2), (2, 200)),
    "nobody_is_heard": (Counts(accepted=1_000, complaint=2, complaint_unheard=2), (2, 1_000)),
    "an_older_record": (Counts(accepted=1_000, complaint=2), (2, 1_000)),
    "one_that_came_otherwise": (Counts(accepted=1_000, accepted_heard=200, complaint=3, complaint_unheard=1), (2, 200)),
    "most_came_otherwise": (Counts(accepted=1_000, accepted_heard=900, complaint=9, complaint_unheard=8), (9, 1_000)),
    "more_complaints_than_mail": (Counts(accepted=10, accepted_heard=1, complaint=5), (5, 5)),
}


@pytest.mark.parametrize(("counts", "pair"), COMPLAINTS.values(), ids=COMPLAINTS.keys())
def test_what_complaints_are_divided_by(counts: Counts, pair: tuple[int, int]) -> None:
    assert complaints(counts) == pair


SENT = {
    "sent_earlier": (AT - 5 * MINUTE, 995),
    "sent_time_unknown": (None, 1_000),
    "sent_after_it_came_back": (AT + 5 * MINUTE, 1_000),
}


@pytest.mark.parametrize(("sent_at", "minute"), SENT.values(), ids=SENT.keys())
def test_feedback_counts_in_the_minute_in_which_its_message_was_sent(sent_at: int | None, minute: int) -> None:
    assert list(booked_feedback([event("complaint", sent_at=sent_at)])) == [minute]


def test_results_are_told_apart_by_minute_provider_and_address() -> None:
    minutes = booked(
        [
            result("accepted"),
            result("accepted", at=AT + MINUTE - 1),
            result("accepted", at=AT + MINUTE),
            result("accepted", provider="yahoo"),
            result("accepted", ip=None),
            result("accepted"),
        ]
    )
    accepted = {minute: {key: vector[0] for key, vector in cells.items()} for minute, cells in minutes.items()}
    assert accepted == {
        1_000: {"google|192.0.2.1": 3, "yahoo|192.0.2.1": 1, "google|": 1},
        1_001: {"google|192.0.2.1": 1},
    }


def test_the_key_of_a_cell() -> None:
    assert (cell_key("google", "192.0.2.1"), cell_key(None, None)) == ("google|192.0.2.1", "other|")


results = st.lists(
    st.builds(
        DeliveryResult,
        message_id=st.just("m"),
        outcome=st.sampled_from(["accepted", "deferred", "bounced", "expired", "suppressed", "in_doubt"]),
        at=st.integers(0, 5 * MINUTE),
        provider=st.sampled_from(["google", "other"]),
        ip=st.sampled_from([None, "192.0.2.1"]),
        class_=st.sampled_from([None, "invalid_recipient", "reputation_ip", "greylisted"]),
    ),
    max_size=30,
)


@given(results, st.randoms(use_true_random=False))
def test_the_order_of_results_does_not_matter(given_results: list[DeliveryResult], chance: object) -> None:
    shuffled = list(given_results)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert booked(shuffled) == booked(given_results)


@given(results, results)
def test_booking_twice_and_merging_is_booking_once(one: list[DeliveryResult], other: list[DeliveryResult]) -> None:
    together = booked(one)
    for minute, cells in booked(other).items():
        together[minute] = merge(together.get(minute, {}), cells)
    assert together == booked([*one, *other])


def test_merging_leaves_what_is_added_as_it_is() -> None:
    more: Cells = {"google|": [1] * len(VECTOR)}
    into = merge({}, more)
    merge(into, more)
    assert more == {"google|": [1] * len(VECTOR)}
    assert into == {"google|": [2] * len(VECTOR)}


def test_the_vector_is_the_record() -> None:
    assert counts_of(range(len(VECTOR))) == Counts(**{name: at for at, name in enumerate(VECTOR)})


KEYS = ["google|192.0.2.1", "google|192.0.2.2", "yahoo|192.0.2.1", "other|"]


def recounted(adds: list[tuple[int, Cells]], now: int, key_matches: object = None) -> dict[str, Counts]:
    sums = {name: [0] * len(VECTOR) for name in WINDOWS_MIN}
    for minute, cells in adds:
        for name, length in WINDOWS_MIN.items():
            if now - length < minute <= now:
                for key, vector in cells.items():
                    if key_matches is None or key_matches(key):  # type: ignore[operator]
                        sums[name] = [have + more for have, more in zip(sums[name], vector, strict=True)]
    return {name: counts_of(vector) for name, vector in sums.items()}


vectors = st.lists(st.integers(0, 5), min_size=len(VECTOR), max_size=len(VECTOR))
cells_of = st.dictionaries(st.sampled_from(KEYS), vectors, min_size=1, max_size=3)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(-11_000, 40), cells_of),
        st.tuples(st.just("add"), st.integers(-8, 3), cells_of),
        st.tuples(st.just("ask"), st.just(0)),
        st.tuples(st.just("go"), st.sampled_from([0, 1, 1, 2, 4, 5, 59, 60, 61, 1_439, 1_440, 10_079, 10_080, 30_000])),
    ),
    max_size=30,
)


@settings(max_examples=400)
@given(steps)
def test_running_sums_are_exact_for_late_early_and_disordered_minutes(given_steps: list[tuple[object, ...]]) -> None:
    now = 100_000
    rolling, adds = Rolling(), []
    rolling.windows(now)
    for step in given_steps:
        if step[0] == "add":
            minute, cells = now + step[1], step[2]  # type: ignore[operator]
            rolling.add(minute, cells)  # type: ignore[arg-type]
            adds.append((minute, cells))
        elif step[0] == "ask":
            parts_are_exact(rolling, adds, now)
        else:
            now += step[1]  # type: ignore[operator]
            assert rolling.windows(now) == recounted(adds, now)  # type: ignore[arg-type]
    assert rolling.windows(now) == recounted(adds, now)  # type: ignore[arg-type]
    parts_are_exact(rolling, adds, now)


def parts_are_exact(rolling: Rolling, adds: list[tuple[int, Cells]], now: int) -> None:
    for provider, sums in rolling.by_provider(now).items():
        assert sums == recounted(adds, now, lambda key, its=provider: key.partition("|")[0] == its)
    for ip, sums in rolling.by_ip(now).items():
        assert sums == recounted(adds, now, lambda key, its=ip: key.partition("|")[2] == its)
    for (ip, provider), sums in rolling.by_ip_provider(now).items():
        assert sums == recounted(adds, now, lambda key, its=f"{provider}|{ip}": key == its)
    counted = [sums["7d"].accepted for sums in rolling.by_provider(now).values()]
    assert sum(counted) == rolling.windows(now)["7d"].accepted


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 12_000), cells_of), max_size=20), st.randoms(use_true_random=False))
def test_sums_rebuilt_after_a_restart_are_the_same(adds: list[tuple[int, Cells]], chance: object) -> None:
    lived, rebuilt = Rolling(), Rolling()
    for minute, cells in sorted(adds, key=lambda one: one[0]):
        lived.windows(minute)
        lived.add(minute, cells)
    shuffled = list(adds)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    for minute, cells in shuffled:
        rebuilt.add(minute, cells)
    assert lived.windows(12_000) == rebuilt.windows(12_000)


def test_nothing_is_kept_of_what_has_left_every_window() -> None:
    rolling = Rolling()
    for minute in range(0, 30_000, 100):
        rolling.add(minute, {"google|": [1] * len(VECTOR)})
        rolling.windows(minute)
    assert len(rolling._minutes) <= 10_080 // 100 + 1
    rolling.windows(90_000)
    assert (len(rolling._minutes), rolling.by_provider(90_000)) == (0, {})


def test_time_does_not_run_backwards() -> None:
    rolling = Rolling()
    rolling.add(1_000, {"google|": [1] * len(VECTOR)})
    assert rolling.windows(1_005)["5m"].accepted == 0
    assert rolling.windows(1_000)["5m"].accepted == 0


def test_what_was_added_can_be_changed_afterwards_without_harm() -> None:
    rolling, cells = Rolling(), {"google|": [1] * len(VECTOR)}
    rolling.add(10, cells)
    merge(cells, cells)
    assert rolling.windows(10)["5m"].accepted == 1
