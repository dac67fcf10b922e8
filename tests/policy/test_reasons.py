"""Numbers as people read them."""

import pytest

from policy.reasons import of_pristine_trap, of_recovery, percent
from schemas.reputation import Verdict

PERCENTS = {
    0.0: "0 %",
    0.0000001: "0 %",
    0.0002: "0.02 %",
    0.001: "0.1 %",
    0.0123: "1.2 %",
    0.02: "2 %",
    0.0328: "3.3 %",
    0.0994: "9.9 %",
    0.0996: "10 %",
    0.123: "12 %",
    0.996: "100 %",
    1.0: "100 %",
}


@pytest.mark.parametrize(("share", "text"), PERCENTS.items(), ids=PERCENTS.values())
def test_a_share_in_per_cent(share: float, text: str) -> None:
    assert percent(share) == text


def test_one_and_more_pristine_hits() -> None:
    assert of_pristine_trap(1).startswith("1 message hit")
    assert of_pristine_trap(2_000).startswith("2,000 messages hit")


def verdict(events: int) -> Verdict:
    return Verdict(answer="within", rate=events / 2_000, low=0.0, high=0.004, limit=0.02, events=events, trials=2_000)


RECOVERIES = {
    "rate": (
        "hard_bounce",
        verdict(3),
        "3 of 2,000 messages bounced hard (at most 0.4 %), below half of the limit 2 % for 30 min",
    ),
    "none": ("hard_bounce", verdict(0), "none of 2,000 messages bounced hard in window 24h, for 30 min"),
    "unknown": ("", None, "all rates were below half of their limits for 30 min"),
}


@pytest.mark.parametrize(("metric", "said", "text"), RECOVERIES.values(), ids=RECOVERIES.keys())
def test_a_recovery(metric: str, said: Verdict | None, text: str) -> None:
    assert of_recovery(metric, said, 30) == text
