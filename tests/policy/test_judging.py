"""One look at a campaign: its own ladder, single providers that do not want it, and its trial by other limits."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from policy.judging import differences, judge
from policy.ladder import CALM, Standing, control, start, step
from policy.signals import PAUSE_MS
from schemas.reputation import Counts, Decision, RatesSnapshot
from schemas.sending import Campaign, Limits
from tests.policy.test_ladder import (
    BREACH,
    CAMPAIGN,
    GRAVE,
    HOUR,
    MINUTE,
    SCOPE,
    T0,
    asks,
    campaign_of,
    counts_of,
    in_state,
    rates,
)

REFUSES = Counts(accepted=200, block=300, deferral=300, attempts=500)  # one provider
WELCOMES = Counts(accepted=4_000, attempts=4_000)
TOGETHER = Counts(accepted=4_200, block=300, deferral=300, attempts=4_500)


def windows(counts: Counts) -> dict[str, Counts]:
    return dict.fromkeys(("5m", "1h", "24h", "7d"), counts)


def split(at: int = T0, whole: Counts = TOGETHER, **providers: Counts) -> RatesSnapshot:
    given_providers = providers or {"google": REFUSES, "yahoo": WELCOMES}
    return msgspec.structs.replace(
        rates(whole, at), providers={name: windows(counts) for name, counts in given_providers.items()}
    )


def look(standing: Standing, snapshot: RatesSnapshot, campaign: Campaign = CAMPAIGN) -> tuple[Standing, list[Decision]]:
    return judge(standing, scope=SCOPE, campaign=campaign, now=snapshot.at, rates=snapshot)


# -- single providers


def test_a_provider_that_refuses_is_paused_and_the_campaign_goes_on_elsewhere() -> None:
    standing, decisions = look(start(T0), split())
    assert [(one.scope, one.to, one.epoch) for one in decisions] == [(f"{SCOPE}/provider:google", "paused", 2)]
    assert (standing.state, standing.epoch) == ("healthy", 2)
    said = control(standing, CAMPAIGN, T0)
    assert (said.may_send, said.pace) == (True, CAMPAIGN.pace)
    assert list(said.providers) == ["google"]
    assert not said.providers["google"].may_send
    assert "300 of 500 answers of servers turned the sender away" in said.providers["google"].reason


def test_without_the_split_the_campaign_itself_answers_for_it() -> None:
    assert look(start(T0), rates(TOGETHER))[0].state != "healthy"


def test_when_all_refuse_the_campaign_is_stopped_too() -> None:
    both = Counts(accepted=400, block=600, deferral=600, attempts=1_000)
    whole = Counts(accepted=550, block=750, deferral=750, attempts=1_300)
    standing, decisions = look(start(T0), split(whole=whole, google=both))
    assert [one.scope.rpartition(":")[2] for one in decisions] == ["google", "spring-sale"]
    assert [one.epoch for one in decisions] == [2, 3]
    assert standing.state == "paused", "by what no provider explains: 150 of 300"


def test_other_trouble_is_judged_by_all_mail() -> None:
    whole = msgspec.structs.replace(TOGETHER, hard_bounce=400, attempts=TOGETHER.attempts + 400)
    standing, decisions = look(start(T0), split(whole=whole))
    assert {one.scope for one in decisions} == {f"{SCOPE}/provider:google", SCOPE}
    assert standing.state == "isolated"


def test_a_provider_comes_back_after_its_pause() -> None:
    standing, _ = look(start(T0), split())
    over = T0 + PAUSE_MS
    standing, decisions = judge(standing, scope=SCOPE, campaign=CAMPAIGN, now=over, command=asks("review", over))
    assert [(one.from_, one.to) for one in decisions] == [("paused", "throttled")]
    assert control(standing, CAMPAIGN, over).providers["google"].may_send
    for minute in range(1, 4 * 125):
        standing, _ = look(standing, split(over + minute * MINUTE, google=more_than(REFUSES, 20 * minute)))
    assert standing.providers["google"].state == "healthy", "what it said before the pause is remembered for a week"
    assert control(standing, CAMPAIGN, over).providers == {}


def more_than(counts: Counts, accepted: int) -> Counts:
    return msgspec.structs.replace(counts, accepted=counts.accepted + accepted, attempts=counts.attempts + accepted)


def test_what_a_provider_was_paused_for_is_not_held_against_the_campaign_when_it_comes_back() -> None:
    standing, _ = look(start(T0), split())
    at = T0 + PAUSE_MS
    whole = Counts(accepted=2_800, block=300, deferral=300, attempts=3_100)
    later = Counts(accepted=800, block=300, deferral=300, attempts=1_100)  # nothing new in it
    providers = {"google": later, "yahoo": Counts(accepted=2_000, attempts=2_000)}
    states = []
    for minutes in range(0, 12 * 60, 5):
        snapshot = split(at + minutes * MINUTE, whole, **providers)
        quiet = Counts(accepted=50, attempts=50)
        for windows_ in (snapshot.windows, *snapshot.providers.values()):
            windows_.update({"5m": quiet, "1h": quiet})
        standing, decisions = look(standing, snapshot)
        states += [(one.scope.removeprefix(SCOPE), one.to) for one in decisions]
    assert {part for part, _ in states} == {"/provider:google"}
    assert states[-1][1] == "healthy"


def test_a_release_of_the_campaign_forgives_its_providers() -> None:
    standing, _ = look(start(T0), split())
    command = asks("release", T0 + HOUR)
    standing, decisions = judge(standing, scope=SCOPE, campaign=CAMPAIGN, now=T0 + HOUR, command=command)
    assert [one.rule for one in decisions] == ["release"]
    assert control(standing, CAMPAIGN, T0).providers == {}
    standing, decisions = look(standing, split(T0 + HOUR + MINUTE))
    assert decisions == [], "what they said before counts no more"
    worse = Counts(accepted=200, block=600, deferral=600, attempts=800)
    _, decisions = look(standing, split(T0 + HOUR + 2 * MINUTE, whole=TOGETHER, google=worse))
    assert [one.to for one in decisions] == ["paused"]


@given(st.lists(st.tuples(counts_of, st.integers(1, 120)), max_size=8), st.booleans())
def test_epochs_grow_by_one_decision_by_decision(history: list[tuple[Counts, int]], is_split: bool) -> None:
    standing, now, epochs = start(T0), T0, [1]
    for counts, minutes in history:
        now += minutes * MINUTE
        snapshot = split(now, whole=counts, google=counts) if is_split else rates(counts, now)
        standing, decisions = look(standing, snapshot)
        epochs += [one.epoch for one in decisions]
        assert standing.epoch == epochs[-1]
    assert epochs == list(range(1, len(epochs) + 1))


@given(st.lists(st.tuples(counts_of, st.integers(1, 120)), max_size=8))
def test_without_providers_and_shadow_limits_it_is_the_ladder_and_nothing_else(
    history: list[tuple[Counts, int]],
) -> None:
    one, other, now = start(T0), start(T0), T0
    for counts, minutes in history:
        now += minutes * MINUTE
        snapshot = rates(counts, now)
        one, decisions = look(one, snapshot)
        other, decision = step(other, scope=SCOPE, campaign=CAMPAIGN, now=now, rates=snapshot, around=CALM)
        assert (one, decisions) == (other, [] if decision is None else [decision])


# -- the trial by shadow limits

STRICT = campaign_of(shadow_limits=Limits(hard_bounce=0.005))


def test_shadow_limits_are_judged_beside_those_in_force_and_followed_by_nothing() -> None:
    counts = Counts(accepted=9_830, hard_bounce=170, attempts=10_000)  # 1.7 %: below 2 %, far above 0.5 %
    standing, decisions = look(start(T0), rates(counts), STRICT)
    assert [(one.scope, one.to, one.dry_run) for one in decisions] == [(f"{SCOPE}/shadow", "isolated", True)]
    assert (standing.state, standing.epoch) == ("healthy", 1)
    assert control(standing, STRICT, T0).may_send
    assert look(standing, rates(counts, T0 + MINUTE), STRICT)[1] == []


def test_both_decide_by_their_own_limits() -> None:
    standing, decisions = look(start(T0), rates(GRAVE), STRICT)
    assert [(one.scope, one.to, one.dry_run) for one in decisions] == [
        (SCOPE, "isolated", False),
        (f"{SCOPE}/shadow", "isolated", True),
    ]
    assert standing.trial is not None


def test_when_shadow_limits_are_taken_away_nothing_of_them_is_left() -> None:
    standing, _ = look(start(T0), rates(GRAVE), STRICT)
    assert look(standing, rates(GRAVE, T0 + MINUTE))[0].trial is None


def test_the_difference_between_what_holds_and_what_the_shadow_says() -> None:
    counts = Counts(accepted=9_830, hard_bounce=170, attempts=10_000)
    found = differences(look(start(T0), rates(counts), STRICT)[1])
    held, tried = found["spring-sale"]
    assert held is None
    assert tried is not None
    assert tried.to == "isolated"
    assert differences(look(start(T0), rates(GRAVE), STRICT)[1]) == {}


# -- evidence


@given(st.lists(st.tuples(counts_of, counts_of, st.integers(1, 90)), max_size=8))
def test_a_decision_can_be_made_again_from_its_evidence(history: list[tuple[Counts, Counts, int]]) -> None:
    standing, now = start(T0), T0
    for counts, shorter, minutes in history:
        now += minutes * MINUTE
        standing, decisions = look(standing, rates(counts, now, shorter=shorter))
        for one in decisions:
            if "windows" in one.evidence:  # what time alone decides is decided by the clock
                assert again(one) == one


def again(decision: Decision) -> Decision | None:
    """The decision that follows from nothing but a decision's evidence."""
    judged = decision.evidence["judged"]
    standing = Standing(
        epoch=decision.epoch - 1,
        since=judged["since"],
        reason="",
        state=judged["state"],
        evidence=judged["e_values"],
        isolations=[],
    )
    told = {name: Counts(**counts) for name, counts in decision.evidence["windows"].items()}
    snapshot = RatesSnapshot(scope=decision.scope, at=decision.at, windows=told)
    found = step(standing, scope=decision.scope, campaign=CAMPAIGN, now=decision.at, rates=snapshot)[1]
    if found is None:
        return None
    evidence = found.evidence | {name: decision.evidence[name] for name in ("counts", "recent")}
    return msgspec.structs.replace(found, evidence=evidence, until=decision.until)


def test_a_state_is_reached_the_same_way_through_both_doors() -> None:
    assert in_state("throttled") == look(start(T0 - HOUR), rates(BREACH))[0]
