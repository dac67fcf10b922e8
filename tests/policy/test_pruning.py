"""When the topics of a retired campaign may go."""

import pytest

from policy.pruning import DAY_MS, Remains, is_over, objections
from schemas.reputation import Control, Pace, State

NOW = 1_764_000_000_000


def control(state: State, *, days_ago: float) -> Control:
    return Control(
        campaign="c", epoch=3, may_send=False, pace=Pace(), state=state, reason="", at=NOW - int(days_ago * DAY_MS)
    )


@pytest.mark.parametrize(
    ("state", "days_ago", "over"),
    [("retired", 31, True), ("retired", 30, True), ("retired", 29.9, False), ("isolated", 900, False)],
)
def test_only_what_is_retired_for_long_is_over(state: State, days_ago: float, over: bool) -> None:
    assert is_over(control(state, days_ago=days_ago), now=NOW, days=30) is over


def test_what_is_empty_may_go() -> None:
    assert objections(Remains()) == ()


@pytest.mark.parametrize("field", Remains.__dataclass_fields__)
def test_whatever_is_left_is_named_with_its_count(field: str) -> None:
    [said] = objections(Remains(**{field: 1204}))

    assert said.startswith("1,204 ")
