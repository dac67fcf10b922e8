"""How a campaign that was stopped comes back: by stages, each of which has to show something."""

import msgspec
import pytest

from policy.ladder import Standing, control, step
from policy.warming import ENGAGED_MS, SHOWS_SOMETHING, STAGE_MS, STAGES, WITHOUT_MAIL_MS, is_over, paced
from schemas.reputation import Counts, Decision, RatesSnapshot
from schemas.sending import Campaign, Pace
from tests.policy.test_ladder import CAMPAIGN, GRAVE, HOUR, MINUTE, SCOPE, T0, asks, in_state, rates, seen

FAST = msgspec.structs.replace(CAMPAIGN, pace=Pace(per_second=100.0, connections=20))


def back(at: int = T0 + HOUR) -> Standing:
    """A campaign that was isolated and is released in the ordinary way."""
    command = asks("release", at, at_once=False)
    return step(in_state("isolated"), scope=SCOPE, campaign=CAMPAIGN, now=at, command=command)[0]


def goes_on(standing: Standing, minutes: range) -> tuple[Standing, list[Decision]]:
    """Minutes after the release with 50 good messages each, on top of what led to the isolation."""
    decisions = []
    for minute in minutes:
        snapshot = at_minute(minute, accepted=50 * minute)
        standing, decision = step(standing, scope=SCOPE, campaign=CAMPAIGN, now=snapshot.at, rates=snapshot)
        decisions += [] if decision is None else [decision]
    return standing, decisions


def at_minute(minute: int, *, accepted: int, hard_bounce: int = 0) -> RatesSnapshot:
    """The rates so many minutes after the release."""
    whole = Counts(
        accepted=GRAVE.accepted + accepted,
        hard_bounce=GRAVE.hard_bounce + hard_bounce,
        attempts=GRAVE.attempts + accepted + hard_bounce,
    )
    windows = {"5m": Counts(), "1h": Counts(), "24h": whole, "7d": whole}
    return RatesSnapshot(scope=SCOPE, at=T0 + HOUR + minute * MINUTE, windows=windows)


def test_a_released_campaign_begins_with_a_tenth_of_the_pace_for_engaged_recipients() -> None:
    told = control(back(), FAST, T0 + HOUR)
    assert (told.state, told.may_send) == ("throttled", True)
    assert told.pace == Pace(per_second=10.0, connections=2)
    assert told.engaged_since == T0 + HOUR - ENGAGED_MS


def test_it_goes_up_stage_by_stage_and_is_healthy_at_the_end() -> None:
    standing, decisions = goes_on(back(), range(1, 3 * 30 + 5))
    assert [(one.rule, one.from_, one.to) for one in decisions] == [
        ("warmed", "throttled", "throttled"),
        ("warmed", "throttled", "throttled"),
        ("warmed", "throttled", "healthy"),
    ]
    assert [one.at - T0 - HOUR for one in decisions] == [30 * MINUTE, 60 * MINUTE, 90 * MINUTE]
    assert "1,500 messages were accepted in this stage, and no rate warns: now 25% of the pace" in decisions[0].reason
    assert (standing.state, standing.stage) == ("healthy", None)


def test_the_pace_grows_with_the_stages_and_everybody_gets_mail_from_the_second_on() -> None:
    paces = []
    standing = back()
    for number in range(len(STAGES)):
        told = control(standing, FAST, T0)
        paces.append((told.pace.per_second, told.engaged_since is not None))
        standing, _ = goes_on(standing, range(number * 30 + 1, number * 30 + 31))
    assert paces == [(10.0, True), (25.0, False), (50.0, False)]


def test_without_mail_a_stage_takes_two_hours() -> None:
    standing = back()
    for minutes in range(1, 121):
        assert standing.stage == 0
        snapshot = rates(GRAVE, T0 + HOUR + minutes * MINUTE, shorter=Counts())
        standing, _ = step(standing, scope=SCOPE, campaign=CAMPAIGN, now=snapshot.at, rates=snapshot)
    assert standing.stage == 1


def test_a_breach_on_the_way_leads_back_to_the_first_stage() -> None:
    standing, _ = goes_on(back(), range(1, 41))
    assert standing.stage == 1
    snapshot = at_minute(41, accepted=2_000, hard_bounce=92)
    standing, decision = step(standing, scope=SCOPE, campaign=CAMPAIGN, now=snapshot.at, rates=snapshot)
    assert decision is not None
    assert (decision.from_, decision.to, decision.rule) == ("throttled", "throttled", "hard_bounce")
    assert (standing.state, standing.stage, standing.epoch) == ("throttled", 0, decision.epoch)


def test_what_is_beyond_doubt_isolates_on_the_way_as_ever() -> None:
    standing, _ = goes_on(back(), range(1, 6))
    worse = Counts(accepted=1_700, hard_bounce=600, attempts=2_300)
    standing, _ = seen(standing, worse, T0 + HOUR + 6 * MINUTE)
    assert standing.state == "isolated"
    assert standing.stage is None


def test_a_rate_that_warns_makes_the_half_hour_begin_anew() -> None:
    standing, _ = goes_on(back(), range(1, 21))
    warns = at_minute(21, accepted=1_050, hard_bounce=64)
    standing, decision = step(standing, scope=SCOPE, campaign=CAMPAIGN, now=warns.at, rates=warns)
    assert (decision, standing.calm_since) == (None, None)
    standing, decisions = goes_on(standing, range(22, 60))
    assert [one.at - T0 - HOUR for one in decisions] == [52 * MINUTE]


def test_a_pause_that_is_over_warms_up_too() -> None:
    standing = in_state("paused")
    assert standing.until is not None
    standing, decision = step(
        standing, scope=SCOPE, campaign=CAMPAIGN, now=standing.until, command=asks("review", standing.until)
    )
    assert decision is not None
    assert (standing.state, standing.stage) == ("throttled", 0)


def test_stale_rates_show_nothing() -> None:
    standing, _ = goes_on(back(), range(1, 11))
    much_later = T0 + 9 * HOUR
    again, decision = step(standing, scope=SCOPE, campaign=CAMPAIGN, now=much_later, command=asks("review", much_later))
    assert (again.stage, decision) == (0, None)


@pytest.mark.parametrize(
    ("accepted", "calm_ms", "over"),
    [
        (SHOWS_SOMETHING, STAGE_MS, True),
        (SHOWS_SOMETHING, STAGE_MS - 1, False),
        (SHOWS_SOMETHING - 1, STAGE_MS, False),
        (0, WITHOUT_MAIL_MS, True),
    ],
)
def test_what_ends_a_stage(accepted: int, calm_ms: int, over: bool) -> None:
    assert is_over(began=T0, calm_since=T0 - 1, accepted=accepted, now=T0 + calm_ms) is over
    assert not is_over(began=T0, calm_since=None, accepted=accepted, now=T0 + calm_ms)


@pytest.mark.parametrize(
    ("pace", "share", "cut"),
    [
        (Pace(per_second=100, connections=20), 0.25, Pace(per_second=25, connections=5)),
        (Pace(per_second=0, connections=4), 0.1, Pace(per_second=10, connections=1)),
        (Pace(per_second=0.5, connections=1), 0.1, Pace(per_second=0.5, connections=1)),
    ],
)
def test_a_share_of_a_pace(pace: Pace, share: float, cut: Pace) -> None:
    assert paced(pace, share) == cut


def test_a_campaign_that_may_do_anything_again_needs_no_stage() -> None:
    assert control(step_at_once(), CAMPAIGN, T0).engaged_since is None


def step_at_once(campaign: Campaign = CAMPAIGN) -> Standing:
    command = asks("release", T0 + HOUR)
    return step(in_state("isolated"), scope=SCOPE, campaign=campaign, now=T0 + HOUR, command=command)[0]
