"""What operators say, beside what the policy says; who may override what, and for how long."""

import msgspec
import pytest

from policy.judging import judge
from policy.ladder import Around, Standing, control, refusal, start, step
from policy.obeying import LONGEST_OVERRIDE_MS, in_force_since
from schemas.reputation import Command, Counts, Decision
from tests.policy.test_ladder import (
    CAMPAIGN,
    CLEAN,
    DRY,
    GRAVE,
    HOUR,
    MINUTE,
    PRISTINE,
    SCOPE,
    T0,
    WARNS,
    asks,
    in_state,
    rates,
    seen,
    told,
)


def override(at: int = T0 + MINUTE, hours: float = 4, **fields: object) -> Command:
    return asks("override", at, until=at + int(hours * HOUR), **fields)  # type: ignore[arg-type]


def obeyed(standing: Standing, command: Command, now: int | None = None) -> tuple[Standing, Decision | None]:
    return step(standing, scope=SCOPE, campaign=CAMPAIGN, now=now or command.at, command=command)


# -- override


def test_an_override_lets_a_stopped_campaign_send_while_the_policy_stands_by_its_word() -> None:
    standing, decision = obeyed(in_state("isolated"), override())
    assert decision is not None
    assert (decision.from_, decision.to, decision.until) == ("isolated", "watched", T0 + MINUTE + 4 * HOUR)
    said = control(standing, CAMPAIGN, T0)
    assert (said.may_send, said.state, said.system, said.operator) == (True, "watched", "isolated", "overridden")
    assert said.pace == CAMPAIGN.pace
    assert said.reason == "overridden by operator:ann: list cleaned (the policy says isolated)"


def test_when_an_override_is_over_what_the_policy_says_holds() -> None:
    standing, _ = obeyed(in_state("throttled"), override())
    standing, _ = seen(standing, GRAVE, T0 + 2 * HOUR)  # it goes on judging
    assert (standing.state, standing.judged) == ("watched", "isolated")
    before = step(standing, scope=SCOPE, campaign=CAMPAIGN, now=T0 + 4 * HOUR, command=asks("review", T0 + 4 * HOUR))
    assert before[1] is None
    over = T0 + MINUTE + 4 * HOUR
    standing, decision = step(standing, scope=SCOPE, campaign=CAMPAIGN, now=over, command=asks("review", over))
    assert decision is not None
    assert (decision.rule, decision.from_, decision.to) == ("override_over", "watched", "isolated")
    assert (standing.state, standing.operator, standing.epoch) == ("isolated", "enabled", decision.epoch)
    assert not control(standing, CAMPAIGN, over).may_send


@pytest.mark.parametrize(
    ("standing", "command", "why"),
    [
        (in_state("isolated"), asks("override", T0 + MINUTE), "within 24 hours"),
        (in_state("isolated"), override(hours=25), "within 24 hours"),
        (in_state("isolated"), override(hours=-1), "within 24 hours"),
        (in_state("isolated"), override(at=T0 - MINUTE), "after this command was given"),
        (in_state("healthy"), override(), "nothing to override"),
        (in_state("watched"), override(), "nothing to override"),
        (in_state("retired"), override(), "an operator has retired"),
        (told(start(T0), "isolate", T0)[0], override(), "an operator has isolated"),
        (seen(start(T0), PRISTINE)[0], override(), "second person"),
        (seen(start(T0), PRISTINE)[0], override(approved_by="ann"), "second person"),
        (seen(start(T0), PRISTINE)[0], override(approved_by="operator:Ann "), "second person"),
    ],
)
def test_what_cannot_be_overridden_is_refused_with_the_reason(standing: Standing, command: Command, why: str) -> None:
    assert why in (refusal(standing, command) or "")
    assert obeyed(standing, command) == (standing, None)


def test_the_longest_override_is_a_day() -> None:
    command = asks("override", T0 + 1, until=T0 + 1 + LONGEST_OVERRIDE_MS)
    assert refusal(in_state("paused"), command) is None


def test_two_people_may_override_a_pristine_trap_and_both_are_named() -> None:
    standing, decision = obeyed(seen(start(T0), PRISTINE)[0], override(approved_by="bob"))
    assert decision is not None
    assert (standing.state, decision.evidence["approved_by"]) == ("watched", "bob")


def test_a_pristine_trap_ends_an_override_that_nobody_approved() -> None:
    standing, _ = obeyed(in_state("throttled"), override())
    standing, decision = seen(standing, PRISTINE, T0 + HOUR)
    assert decision is not None
    assert (decision.to, decision.dry_run) == ("isolated", False)
    assert (standing.state, standing.operator, standing.override_until) == ("isolated", "enabled", None)


def test_an_override_of_a_campaign_that_is_in_dry_run_by_now_ends_in_its_shadow_alone() -> None:
    standing, _ = obeyed(in_state("isolated"), override(hours=1))
    standing, decision = step(standing, scope=SCOPE, campaign=DRY, now=T0 + 2 * HOUR)
    assert decision is not None
    assert (decision.rule, decision.to, decision.dry_run) == ("override_over", "isolated", True)
    assert (standing.state, standing.shadow, control(standing, DRY, T0).may_send) == ("watched", "isolated", True)


def test_a_trap_that_only_throttled_because_of_the_cap_takes_two_people_to_override_all_the_same() -> None:
    standing, decision = step(
        start(T0), scope=SCOPE, campaign=CAMPAIGN, now=T0, rates=rates(PRISTINE, T0), around=Around(capped="enough")
    )
    assert decision is not None
    assert (decision.to, decision.evidence["wanted"]) == ("throttled", "isolated")
    assert "a second person" in str(refusal(standing, override()))
    assert refusal(standing, override(approved_by="bob")) is None
    assert control(standing, CAMPAIGN, T0).rule == "pristine_trap"


def test_an_operator_ends_an_override_by_the_next_word() -> None:
    standing, _ = obeyed(in_state("isolated"), override())
    standing, _ = told(standing, "isolate", T0 + 2 * MINUTE, number="2")
    assert (standing.state, standing.operator, standing.override_until) == ("isolated", "isolated", None)


def test_a_release_from_an_override_warms_up_like_one_from_what_it_overrode() -> None:
    standing, _ = obeyed(in_state("isolated"), override())
    standing, decision = obeyed(standing, asks("release", T0 + 2 * MINUTE, at_once=False))
    assert decision is not None
    assert (decision.to, standing.stage, standing.operator) == ("throttled", 0, "enabled")


# -- operator and policy


def test_what_an_operator_isolates_is_isolated_and_where_the_policy_had_it_is_said() -> None:
    standing, _ = told(in_state("throttled"), "isolate", T0 + MINUTE)
    said = control(standing, CAMPAIGN, T0)
    assert (said.state, said.system, said.operator, said.by) == ("isolated", "throttled", "isolated", "operator:ann")


def test_two_isolations_within_a_month_take_a_second_person_to_release() -> None:
    standing = in_state("isolated")
    standing, _ = told(standing, "release", T0 + HOUR)
    standing, _ = seen(standing, rates_of_a_new_day(), T0 + 20 * 24 * HOUR)
    assert standing.state == "isolated"
    alone = asks("release", T0 + 21 * 24 * HOUR, number="alone")
    assert "twice within 30 days" in (refusal(standing, alone) or "")
    together = asks("release", T0 + 21 * 24 * HOUR, number="together", approved_by="bob")
    assert obeyed(standing, together)[0].state == "healthy"


def test_after_a_month_one_person_is_enough_again() -> None:
    standing, _ = told(in_state("isolated"), "release", T0 + HOUR)
    standing, _ = seen(standing, rates_of_a_new_day(), T0 + 32 * 24 * HOUR)
    assert refusal(standing, asks("release", T0 + 33 * 24 * HOUR, number="2")) is None


def rates_of_a_new_day() -> Counts:
    return msgspec.structs.replace(GRAVE, accepted=900, hard_bounce=100)


# -- ceilings


def ceiling(state: str, at: int = T0 + MINUTE, source: str = "tenant:shop", number: str = "1") -> Command:
    fields = {"ceiling": state, "source": source, "reason": "its campaigns together bounce too much", "by": "policy"}
    return asks("ceiling", at, number=number, **fields)


def test_a_wider_scope_allows_less_than_the_campaign_by_itself() -> None:
    standing, decision = obeyed(start(T0), ceiling("throttled"))
    assert decision is not None
    assert (decision.from_, decision.to, decision.rule) == ("healthy", "throttled", "ceiling")
    said = control(standing, CAMPAIGN, T0)
    assert (said.state, said.system) == ("throttled", "healthy")
    assert said.reason == "tenant:shop: its campaigns together bounce too much"
    standing, decision = obeyed(standing, ceiling("healthy", T0 + HOUR, number="2"))
    assert decision is not None
    assert (decision.from_, decision.to) == ("throttled", "healthy")
    assert control(standing, CAMPAIGN, T0).pace == CAMPAIGN.pace


def test_the_strictest_of_several_counts_and_an_old_word_is_not_heard() -> None:
    standing, _ = obeyed(start(T0), ceiling("paused", T0 + 2 * MINUTE))
    standing, decision = obeyed(standing, ceiling("throttled", T0 + 3 * MINUTE, source="ip:192.0.2.1", number="2"))
    assert decision is None
    standing, decision = obeyed(standing, ceiling("healthy", T0 + MINUTE, number="3"))
    assert decision is None
    assert control(standing, CAMPAIGN, T0).state == "paused"
    assert control(standing, CAMPAIGN, T0).rule == "ceiling"


def test_a_ceiling_wakes_nobody() -> None:
    standing, decision = obeyed(in_state("isolated"), ceiling("throttled"))
    assert decision is None
    assert control(standing, CAMPAIGN, T0).state == "isolated"


def test_since_is_when_what_holds_began_to_hold_whatever_the_campaign_does_by_itself() -> None:
    standing, _ = obeyed(start(T0), ceiling("throttled", T0 + MINUTE))
    assert in_force_since(standing) == T0 + MINUTE
    standing, decision = judge(standing, scope=SCOPE, campaign=CAMPAIGN, now=T0 + HOUR, rates=rates(WARNS, T0 + HOUR))
    assert [one.to for one in decision] == ["watched"]
    assert (control(standing, CAMPAIGN, T0).state, in_force_since(standing)) == ("throttled", T0 + MINUTE)
    standing, _ = obeyed(standing, ceiling("healthy", T0 + 2 * HOUR, number="2"))
    assert (control(standing, CAMPAIGN, T0).state, in_force_since(standing)) == ("watched", T0 + 2 * HOUR)
    standing, [stopped] = judge(
        standing, scope=SCOPE, campaign=CAMPAIGN, now=T0 + 3 * HOUR, rates=rates(GRAVE, T0 + 3 * HOUR)
    )
    assert (stopped.to, in_force_since(standing)) == ("isolated", T0 + 3 * HOUR)


def test_a_ceiling_moves_no_clock_of_the_campaign_itself() -> None:
    paused = msgspec.structs.replace(in_state("paused"), until=T0 + HOUR)
    standing, decision = obeyed(in_state("throttled"), ceiling("paused", T0 + HOUR))
    assert (decision is not None, standing.since, standing.cause_at) == (True, T0, in_state("throttled").cause_at)
    assert obeyed(paused, ceiling("throttled", T0 + HOUR))[0].since == paused.since


def test_a_ceiling_leaves_the_sender_of_a_campaign_in_dry_run_alone() -> None:
    standing, decision = step(start(T0), scope=SCOPE, campaign=DRY, now=T0 + MINUTE, command=ceiling("throttled"))
    assert decision is None
    assert control(standing, DRY, T0).state == "healthy"


# -- brakes


def test_while_the_automation_is_stopped_only_the_shadow_moves_and_afterwards_the_rates_count() -> None:
    stopped = Around(is_stopped=True)
    standing, decision = step(start(T0), scope=SCOPE, campaign=CAMPAIGN, now=T0, rates=rates(GRAVE, T0), around=stopped)
    assert decision is not None
    assert (decision.to, decision.dry_run, standing.state, standing.judged) == ("isolated", True, "healthy", "isolated")
    standing, decision = seen(standing, GRAVE, T0 + MINUTE)
    assert decision is not None
    assert (standing.state, decision.dry_run) == ("isolated", False)


def test_beyond_the_cap_the_policy_throttles_and_asks_a_person() -> None:
    capped = Around(capped="the policy has isolated 3 of 10 campaigns within an hour, the most it may")
    standing, decision = step(start(T0), scope=SCOPE, campaign=CAMPAIGN, now=T0, rates=rates(GRAVE, T0), around=capped)
    assert decision is not None
    assert (decision.to, decision.evidence["wanted"]) == ("throttled", "isolated")
    assert "isolate it by hand" in decision.reason
    again = step(standing, scope=SCOPE, campaign=CAMPAIGN, now=T0 + 1, rates=rates(GRAVE, T0 + 1), around=capped)
    assert again[1] is None
    assert seen(standing, GRAVE, T0 + HOUR)[0].state == "isolated"


def test_the_cap_does_not_keep_dry_runs_from_saying_what_they_would_do() -> None:
    capped = Around(capped="enough")
    decision = step(start(T0), scope=SCOPE, campaign=DRY, now=T0, rates=rates(GRAVE, T0), around=capped)[1]
    assert decision is not None
    assert decision.to == "isolated"


def test_rates_from_hours_ago_decide_nothing() -> None:
    old = rates(GRAVE, T0 - 2 * HOUR)
    assert step(start(T0 - 3 * HOUR), scope=SCOPE, campaign=CAMPAIGN, now=T0, rates=old)[1] is None
    assert step(start(T0 - 3 * HOUR), scope=SCOPE, campaign=CAMPAIGN, now=T0, rates=rates(CLEAN, T0))[1] is None
