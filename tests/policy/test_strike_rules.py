"""Strikes: which failures leave one, and when there are enough of them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.replies import category_of
from policy.strikes import Strike, enough, is_strike, of_feedback, of_result, read_scope
from policy.trap_signals import DAY_MS
from schemas.delivery import DeliveryResult
from schemas.feedback import FeedbackEvent

ANN = "ab" * 32
NOW = 1_764_000_000_000
TENANTS = dict.fromkeys("abcdef", "shop")


def result(outcome: str, class_: str | None, **fields: Any) -> DeliveryResult:
    basic: dict[str, Any] = {"message_id": "m-1", "at": NOW, "provider": "other", "address_hash": ANN}
    return DeliveryResult(outcome=outcome, class_=class_, **(basic | fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("outcome", "class_", "fields", "category"),
    [
        ("bounced", "mailbox_full", {}, "mailbox_full"),
        ("bounced", "relay_denied", {}, "relay_denied"),
        ("expired", "mailbox_full", {"code": 452}, "mailbox_full"),
        ("expired", "greylisted", {"code": 451}, "expired"),
        pytest.param("expired", "connection", {}, None, id="nobody was reached"),
        pytest.param("expired", "expired", {}, None, id="we had no time for it"),
        pytest.param("deferred", "mailbox_full", {"code": 452}, None, id="it is tried again"),
        pytest.param("bounced", "invalid_recipient", {}, None, id="that proves it at once"),
        pytest.param("bounced", "spam_content", {}, None, id="not the recipient's fault"),
        pytest.param("bounced", "mailbox_full", {"address_hash": None}, None, id="nobody is named"),
        pytest.param("accepted", None, {}, None, id="accepted"),
    ],
)
def test_which_results_leave_a_strike(
    outcome: str, class_: str | None, fields: dict[str, Any], category: str | None
) -> None:
    strike = of_result("Spring: 1|2", result(outcome, class_, **fields))

    assert (strike.reason if strike else None) == category
    if strike is not None:
        assert read_scope(strike.scope) == (category, "Spring: 1|2")
        assert (strike.since, strike.until) == (NOW, NOW + 30 * DAY_MS)


@pytest.mark.parametrize(
    ("fields", "category"),
    [
        ({"kind": "soft_bounce", "class_": "mailbox_full", "source": "return_path"}, "mailbox_full"),
        ({"kind": "soft_bounce", "class_": "expired", "source": "return_path"}, "expired"),
        pytest.param({"kind": "soft_bounce", "class_": "expired", "source": "webhook"}, None, id="told by others"),
        pytest.param({"kind": "soft_bounce", "class_": None, "source": "return_path"}, None, id="no class"),
        pytest.param({"kind": "complaint", "class_": "mailbox_full", "source": "return_path"}, None, id="complaint"),
    ],
)
def test_which_feedback_leaves_a_strike(fields: dict[str, Any], category: str | None) -> None:
    strike = of_feedback(FeedbackEvent(campaign="spring", at=NOW, address_hash=ANN, **fields))

    assert (strike.reason if strike else None) == category


@pytest.mark.parametrize("scope", ["platform", "tenant:strike:x", "strike:", "strike:mailbox_full", "strike::spring"])
def test_what_is_no_strike(scope: str) -> None:
    assert read_scope(scope) is None
    assert is_strike(scope) is scope.startswith("strike:")


DAYS: list[tuple[list[tuple[str, int]], dict[str, int]]] = [
    ([("a", 0), ("b", 1), ("c", 2)], {"platform": 2}),
    ([("a", 0), ("b", 30), ("c", 15)], {"platform": 30}),
    ([("a", 0), ("b", 31), ("c", 15)], {}),
    ([("a", 0), ("a", 1), ("b", 2)], {}),
    ([("a", 0), ("b", 2)], {}),
    ([], {}),
]


@pytest.mark.parametrize(("days", "expected"), DAYS)
def test_so_many_campaigns_within_so_many_days(days: list[tuple[str, int]], expected: dict[str, int]) -> None:
    strikes = [Strike(name, NOW + day * DAY_MS) for name, day in days]

    assert enough("mailbox_full", strikes, TENANTS, {}) == {
        scope: NOW + day * DAY_MS for scope, day in expected.items()
    }


def test_what_had_happened_when_a_suppression_ended_is_forgiven() -> None:
    strikes = [Strike(name, NOW + day) for day, name in enumerate("abcd")]

    assert enough("mailbox_full", strikes, TENANTS, {"platform": NOW}) == {"platform": NOW + 3}
    assert enough("mailbox_full", strikes, TENANTS, {"platform": NOW + 1}) == {}


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 90)), unique_by=lambda one: one[0]), st.randoms())
def test_the_order_of_strikes_does_not_matter_and_more_never_undo(days: list[tuple[str, int]], chance: Any) -> None:
    strikes = [Strike(name, NOW + day * DAY_MS) for name, day in days]
    shuffled = chance.sample(strikes, len(strikes))
    found = enough("relay_denied", strikes, TENANTS, {})

    assert enough("relay_denied", shuffled, TENANTS, {}) == found
    category = category_of("relay_denied")
    if found:
        last = found["platform"]
        near = {one.campaign for one in strikes if 0 <= last - one.at <= category.after_days * DAY_MS}
        assert len(near) >= category.after_campaigns
