"""A message counts once, by the time at which it was sent, as saved, held or slowed."""

import pytest

from cli.backtest_holds import Holds
from cli.backtest_records import Accepted, Bounced, Deferred, Result
from schemas.delivery import Outcome
from schemas.feedback import FeedbackEvent, FeedbackKind


def one(at: int, outcome: Outcome = "accepted", category: str | None = None, provider: str = "google") -> Result:
    if outcome == "accepted":
        return Accepted(at=at, provider=provider)
    kind = Bounced if outcome == "bounced" else Deferred
    return kind(message_id="m", at=at, class_=category, provider=provider)


def said(
    kind: FeedbackKind, *, at: int = 500, sent_at: int | None = None, message_id: str | None = "m"
) -> FeedbackEvent:
    return FeedbackEvent(kind=kind, campaign="spring", at=at, sent_at=sent_at, message_id=message_id)


@pytest.fixture
def holds() -> Holds:
    """Throttled from 100, isolated from 200, released to a tenth from 300, healthy from 400."""
    made = Holds()
    made.enter("throttled", 100)
    made.enter("isolated", 200)
    made.enter("throttled", 300)
    made.enter("healthy", 400)
    return made


RESULTS = {
    "before_all": (one(99), (0, 0, 0)),
    "throttled": (one(100), (0, 0, 1)),
    "isolated": (one(200), (0, 1, 0)),
    "isolated_to_the_last": (one(299), (0, 1, 0)),
    "released": (one(300), (0, 0, 1)),
    "healthy_again": (one(400), (0, 0, 0)),
    "bounced_hard": (one(250, "bounced", "invalid_recipient"), (1, 0, 0)),
    "a_block_is_no_bad_message": (one(250, "bounced", "reputation_ip"), (0, 0, 0)),
    "a_deferral_is_none_either": (one(250, "deferred", "transient"), (0, 0, 0)),
}


@pytest.mark.parametrize(("result", "counts"), RESULTS.values(), ids=RESULTS)
def test_results_count_by_the_state_in_which_they_were_sent(
    holds: Holds, result: Result, counts: tuple[int, int, int]
) -> None:
    holds.results([result])

    assert (holds.bad_messages, holds.good_messages, holds.slowed_messages) == counts


FEEDBACK = {
    "complaint": (said("complaint", sent_at=250), (1, 0)),
    "trap": (said("trap_hit", sent_at=250), (1, 0)),
    "late_bounce": (said("hard_bounce", sent_at=250), (1, 0)),
    "sent_before": (said("complaint", sent_at=150), (0, 1)),
    "without_a_time_it_was_sent_when_it_came": (said("complaint", at=250), (1, 0)),
    "unsubscribing_is_no_bad_message": (said("unsubscribe", sent_at=250), (0, 1)),
}


@pytest.mark.parametrize(("event", "counts"), FEEDBACK.values(), ids=FEEDBACK)
def test_feedback_makes_a_good_message_a_bad_one(holds: Holds, event: FeedbackEvent, counts: tuple[int, int]) -> None:
    holds.results([one(250)])

    holds.feedback(event)

    assert (holds.bad_messages, holds.good_messages) == counts


def test_a_message_that_is_bad_twice_is_one_message(holds: Holds) -> None:
    holds.results([one(250)])

    holds.feedback(said("complaint", sent_at=250))
    holds.feedback(said("trap_hit", sent_at=250))

    assert holds.bad == {"hard_bounce": 0, "complaint": 1, "trap_hit": 1}
    assert (holds.bad_messages, holds.good_messages) == (1, 0)


def test_feedback_may_come_before_the_result(holds: Holds) -> None:
    holds.feedback(said("complaint", sent_at=250))

    holds.results([one(250)])

    assert (holds.bad_messages, holds.good_messages) == (1, 0)


def test_a_provider_that_is_paused_by_itself_holds_its_own_mail_only() -> None:
    made = Holds()
    made.enter("paused", 100, "yahoo")

    made.results([one(150, provider=provider) for provider in ("google", "yahoo", "other")])

    assert (made.good_messages, made.slowed_messages) == (1, 0)
    assert [made.is_held(150, name) for name in ("google", "yahoo", None)] == [False, True, False]


def test_of_campaign_and_provider_the_stricter_holds() -> None:
    made = Holds()
    made.enter("throttled", 100)
    made.enter("paused", 100, "yahoo")
    made.enter("isolated", 200)

    assert [made.is_held(at, name) for at in (150, 250) for name in ("yahoo", "google")] == [True, False, True, True]


def test_a_signal_that_comes_before_its_bounce_makes_no_second_message_of_it(holds: Holds) -> None:
    holds.results([one(250)])

    holds.feedback(said("hard_bounce", sent_at=250, message_id="m"))
    holds.results([one(250, "bounced", "invalid_recipient")])

    assert (holds.bad_messages, holds.good_messages) == (1, 1)
