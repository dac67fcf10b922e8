"""Who climbs, who comes back, who needs a human; and that a replay releases nobody."""

import itertools
from collections.abc import Callable
from typing import get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.counts import WINDOWS_MIN
from policy.ladder import Standing, control, refusal, start, step, throttled
from policy.signals import DWELL_MS, FRESH_MS, PAUSE_MS
from policy.transitions import RUNGS, SENDS, TRANSITIONS, Signal
from policy.verdicts import verdicts
from schemas.feedback import Trap
from schemas.reputation import Command, CommandName, Counts, Decision, RatesSnapshot, Reference, State
from schemas.sending import Campaign, Limits, Mailbox, Pace

T0 = 1_764_000_000_000
MINUTE = 60_000
HOUR = 3_600_000
SCOPE = "campaign:spring-sale"
STATES: tuple[State, ...] = get_args(State)
SIGNALS: tuple[Signal, ...] = get_args(Signal)


def campaign_of(**fields: object) -> Campaign:
    basic = {
        "campaign": "spring-sale",
        "from_": Mailbox(address="news@shop.example"),
        "return_path_domain": "b.shop.example",
    }
    return Campaign(**(basic | fields))  # type: ignore[arg-type]


CAMPAIGN = campaign_of()
DRY = campaign_of(dry_run=True)

CLEAN = Counts(accepted=20_000, hard_bounce=20, attempts=20_200)
WARNS = Counts(accepted=382, hard_bounce=18, attempts=400)
BREACH = Counts(accepted=380, hard_bounce=20, attempts=400)
GRAVE = Counts(accepted=940, hard_bounce=60, attempts=1_000)
BLOCK = Counts(accepted=177, block=23, deferral=23, attempts=200)
GRAVE_BLOCK = Counts(accepted=700, block=300, deferral=300, attempts=1_000)
COMPLAINTS = Counts(accepted=2_000, complaint=30, attempts=2_000)
TRAPS = Counts(accepted=2_000, trap_hit=30, trap_hit_recycled=30, trap_weight=1_200, attempts=2_000)
TYPOS = Counts(accepted=2_000, trap_hit=900, trap_hit_typo=900, trap_weight=13_500, attempts=2_000)
SUSPECTED = Counts(accepted=2_000, trap_hit=60, trap_weight=1_800, attempts=2_000)
MIXED = Counts(
    accepted=2_000, trap_hit=930, trap_hit_recycled=30, trap_hit_typo=900, trap_weight=14_700, attempts=2_000
)
PRISTINE = Counts(accepted=50_000, trap_hit=1, trap_hit_pristine=1, attempts=50_000)


def rates(
    counts: Counts, at: int = T0, *, applied: tuple[int, int] | None = None, shorter: Counts | None = None
) -> RatesSnapshot:
    """Rates of a campaign whose mail is all younger than five minutes, or else ``shorter`` in 5m and 1h."""
    windows = {
        "5m": counts if shorter is None else shorter,
        "1h": counts if shorter is None else shorter,
        "24h": counts,
        "7d": counts,
    }
    return RatesSnapshot(scope=SCOPE, at=at, windows=windows, applied=list(applied or ()))


def asks(name: CommandName, at: int = T0, *, number: str = "1", by: str = "operator:ann", **fields: object) -> Command:
    """A command; a release is one without warming up, unless that is said."""
    basic = {
        "id": f"{name}-{number}",
        "scope": SCOPE,
        "campaign": "spring-sale",
        "command": name,
        "reason": "list cleaned",
        "by": by,
        "at": at,
        "at_once": name == "release",
    }
    return Command(**(basic | fields))  # type: ignore[arg-type]


def seen(
    standing: Standing, counts: Counts, at: int = T0, campaign: Campaign = CAMPAIGN
) -> tuple[Standing, Decision | None]:
    return step(standing, scope=SCOPE, campaign=campaign, now=at, rates=rates(counts, at))


def told(
    standing: Standing, name: CommandName, at: int = T0, campaign: Campaign = CAMPAIGN, number: str = "1"
) -> tuple[Standing, Decision | None]:
    return step(standing, scope=SCOPE, campaign=campaign, now=at, command=asks(name, at, number=number))


def in_state(state: State) -> Standing:
    """A campaign that came to a state in the ordinary way, at T0."""
    standing = start(T0 - HOUR)
    match state:
        case "healthy":
            return standing
        case "watched":
            return seen(standing, WARNS)[0]
        case "throttled":
            return seen(standing, BREACH)[0]
        case "paused":
            return seen(standing, GRAVE_BLOCK)[0]
        case "isolated":
            return seen(standing, GRAVE)[0]
        case "retired":
            return told(standing, "retire")[0]


@pytest.mark.parametrize("state", STATES)
def test_every_state_is_reached(state: State) -> None:
    assert in_state(state).state == state


# -- the table


def test_every_state_knows_every_signal() -> None:
    assert {state: set(answers) for state, answers in TRANSITIONS.items()} == {state: set(SIGNALS) for state in STATES}


def test_nothing_leads_out_of_retired() -> None:
    assert set(TRANSITIONS["retired"].values()) == {"retired"}


def test_only_commands_lead_out_of_isolated() -> None:
    assert {signal for signal, to in TRANSITIONS["isolated"].items() if to != "isolated"} == {"release", "retire"}


@pytest.mark.parametrize("state", STATES)
def test_only_recovery_and_release_lead_down(state: State) -> None:
    down = {signal for signal, to in TRANSITIONS[state].items() if RUNGS[to] < RUNGS[state]}
    assert down <= {"clean", "cooled_down", "warmed", "release"}


@pytest.mark.parametrize("signal", ["pristine_trap", "grave", "breach", "warning", "isolate", "retire"])
def test_a_signal_never_leads_lower_from_a_higher_state(signal: Signal) -> None:
    rungs = [RUNGS[TRANSITIONS[state][signal]] for state in sorted(STATES, key=RUNGS.__getitem__)]
    assert rungs == sorted(rungs)


# -- up


UP = {
    "clean_stays_healthy": ("healthy", CLEAN, "healthy"),
    "warning_is_watched": ("healthy", WARNS, "watched"),
    "first_breach_is_throttled": ("healthy", BREACH, "throttled"),
    "watched_breach_is_throttled": ("watched", BREACH, "throttled"),
    "grave_bounces_isolate": ("healthy", GRAVE, "isolated"),
    "grave_bounces_isolate_a_throttled_one": ("throttled", GRAVE, "isolated"),
    "grave_bounces_isolate_a_paused_one": ("paused", GRAVE, "isolated"),
    "grave_complaints_isolate": ("healthy", COMPLAINTS, "isolated"),
    "grave_traps_isolate": ("healthy", TRAPS, "isolated"),
    "grave_traps_isolate_among_typos": ("healthy", MIXED, "isolated"),
    "typo_traps_throttle": ("healthy", TYPOS, "throttled"),
    "typo_traps_never_pause_nor_isolate": ("throttled", TYPOS, "throttled"),
    "typo_traps_do_not_lead_out_of_paused": ("paused", TYPOS, "paused"),
    "suspected_traps_throttle": ("healthy", SUSPECTED, "throttled"),
    "suspected_traps_never_isolate": ("paused", SUSPECTED, "paused"),
    "typo_traps_that_weigh_less_than_one_hit": (
        "healthy",
        Counts(accepted=2_000, trap_hit=6, trap_hit_typo=6, trap_weight=90, attempts=2_000),
        "healthy",
    ),
    "traps_of_rates_without_weights": ("healthy", Counts(accepted=2_000, trap_hit=12, attempts=2_000), "throttled"),
    "first_blocks_throttle": ("healthy", BLOCK, "throttled"),
    "grave_blocks_pause": ("healthy", GRAVE_BLOCK, "paused"),
    "grave_blocks_pause_a_throttled_one": ("throttled", GRAVE_BLOCK, "paused"),
    "grave_blocks_never_isolate": ("paused", GRAVE_BLOCK, "paused"),
    "a_pristine_trap_isolates_at_once": ("healthy", PRISTINE, "isolated"),
    "a_pristine_trap_isolates_from_paused": ("paused", PRISTINE, "isolated"),
    "isolated_stays_isolated": ("isolated", CLEAN, "isolated"),
    "retired_stays_retired": ("retired", GRAVE, "retired"),
}


@pytest.mark.parametrize(("before", "counts", "after"), UP.values(), ids=UP.keys())
def test_rates_lead_up(before: State, counts: Counts, after: State) -> None:
    standing = in_state(before)
    moved, decision = seen(standing, counts, T0 + MINUTE)
    assert moved.state == after
    if before == after:
        assert decision is None
        assert moved.epoch == standing.epoch
    else:
        assert decision is not None
        assert (decision.from_, decision.to, decision.epoch) == (before, after, standing.epoch + 1)


def test_one_pristine_hit_among_millions_isolates() -> None:
    counts = Counts(accepted=5_000_000, trap_hit=1, trap_hit_pristine=1, attempts=5_000_000)
    assert seen(start(T0), counts)[0].state == "isolated"


def test_a_pristine_hit_is_seen_in_the_longest_window() -> None:
    snapshot = msgspec.structs.replace(rates(CLEAN), windows=rates(CLEAN).windows | {"7d": PRISTINE})
    moved, decision = step(start(T0), scope=SCOPE, campaign=CAMPAIGN, now=T0, rates=snapshot)
    assert moved.state == "isolated"
    assert decision is not None
    assert decision.rule == "pristine_trap"


@pytest.mark.parametrize(("counts", "rule"), [(PRISTINE, "pristine_trap"), (COMPLAINTS, "complaint"), (CLEAN, "")])
def test_the_control_says_in_a_word_what_led_to_it(counts: Counts, rule: str) -> None:
    assert control(seen(start(T0), counts)[0], CAMPAIGN, T0).rule == rule


def test_a_campaign_may_have_pristine_traps_judged_like_others() -> None:
    campaign = campaign_of(pristine_trap="judge")
    assert seen(start(T0), PRISTINE, campaign=campaign)[0].state == "healthy"


@pytest.mark.parametrize(
    ("before", "after", "state"),
    [
        (TYPOS, Counts(accepted=4_000, trap_hit=3_000, trap_hit_typo=3_000, trap_weight=45_000), "throttled"),
        (SUSPECTED, Counts(accepted=4_000, trap_hit=300, trap_weight=9_000), "throttled"),
        (
            TYPOS,
            Counts(accepted=4_000, trap_hit=3_050, trap_hit_recycled=50, trap_hit_typo=3_000, trap_weight=47_000),
            "isolated",
        ),
    ],
    ids=["typo", "suspected", "and_recycled"],
)
def test_hits_of_traps_that_grow_while_throttled_isolate_only_when_confirmed(
    before: Counts, after: Counts, state: State
) -> None:
    standing = seen(start(T0), before)[0]
    assert standing.state == "throttled"
    assert seen(standing, after, T0 + DWELL_MS)[0].state == state


def test_what_was_known_before_a_release_weighs_nothing_after_it() -> None:
    for counts in (TRAPS, Counts(accepted=2_000, trap_hit=2_000, trap_hit_pristine=2_000, attempts=2_000)):
        standing = told(seen(start(T0), counts)[0], "release", T0 + HOUR)[0]
        weighed = msgspec.structs.replace(counts, trap_weight=max(counts.trap_weight, 100 * counts.trap_hit_pristine))
        standing = seen(standing, counts, T0 + HOUR + 1)[0]
        assert seen(standing, weighed, T0 + HOUR + MINUTE)[0].state == "healthy"


def test_a_trap_says_its_kind_and_where_it_was_planted() -> None:
    traps = [
        Trap(kind="recycled", where="the old shop"),
        Trap(kind="typo", where="form\nof 2026"),
        Trap(kind="recycled", where="the old shop"),
        Trap(kind="pristine", where="x" * 200),
        Trap(kind="typo"),
    ]
    recent = [
        Reference(topic="mail.feedback", partition=0, offset=n, kind="trap_hit", trap=trap)
        for n, trap in enumerate(traps)
    ]

    def reason(counts: Counts) -> str:
        snapshot = msgspec.structs.replace(rates(counts), recent=recent)
        decision = step(start(T0), scope=SCOPE, campaign=CAMPAIGN, now=T0, rates=snapshot)[1]
        assert decision is not None
        assert decision.evidence["recent"][0]["trap"]["where"] == "the old shop"
        return decision.reason

    assert reason(PRISTINE) == (
        f"1 message hit a confirmed pristine trap (planted: {'x' * 80}…), an address that nobody can have signed up; "
        "one is enough"
    )
    assert reason(MIXED) == (
        f"930 of 2,000 messages hit spam traps (30 recycled, 900 typo; planted: {'x' * 80}…, the old shop, "
        "form of 2026; weighed as 147) (7.3 %, at least 6.3 %), limit 0.02 %, window 24h; beyond doubt"
    )


def test_suspected_traps_alone_are_judged_by_their_rate() -> None:
    assert seen(start(T0), Counts(accepted=50_000, trap_hit=1, attempts=50_000))[0].state == "healthy"


def test_the_gravest_of_several_signals_decides() -> None:
    counts = Counts(accepted=940, hard_bounce=60, block=60, attempts=1_060)
    moved, decision = seen(start(T0), counts)
    assert moved.state == "isolated"
    assert decision is not None
    assert decision.rule == "hard_bounce"


MORE = Counts(accepted=594, hard_bounce=27, attempts=621)
LASTING = {
    "before_the_dwell": (DWELL_MS - 1, MORE, "throttled"),
    "after_the_dwell_and_worse": (DWELL_MS, MORE, "isolated"),
    "after_the_dwell_and_better": (DWELL_MS, Counts(accepted=385, hard_bounce=20, attempts=405), "throttled"),
    "after_the_dwell_and_the_same": (DWELL_MS, BREACH, "throttled"),
}


@pytest.mark.parametrize(("later_ms", "counts", "after"), LASTING.values(), ids=LASTING.keys())
def test_a_breach_that_goes_on_while_throttled_isolates(later_ms: int, counts: Counts, after: State) -> None:
    assert verdicts(rates(counts).windows, Limits())["hard_bounce"].answer == "breach"
    assert seen(in_state("throttled"), counts, T0 + later_ms)[0].state == after


def test_blocks_that_go_on_while_throttled_pause() -> None:
    standing = seen(start(T0), BLOCK)[0]
    moved, decision = seen(standing, Counts(accepted=281, block=32, attempts=313), T0 + DWELL_MS)
    assert moved.state == "paused"
    assert decision is not None
    assert decision.until == T0 + DWELL_MS + PAUSE_MS


def test_the_same_rates_twice_are_one_decision() -> None:
    for counts in (WARNS, BREACH, GRAVE, GRAVE_BLOCK, PRISTINE):
        moved, decision = seen(start(T0), counts)
        again, second = seen(moved, counts)
        assert decision is not None
        assert second is None
        assert again == moved


def test_a_healthy_campaign_costs_no_write() -> None:
    standing = start(T0)
    assert seen(standing, CLEAN, T0 + MINUTE)[0] is standing


def test_verdicts_that_come_with_the_rates_are_taken() -> None:
    answers = verdicts(rates(GRAVE).windows, Limits())
    snapshot = msgspec.structs.replace(rates(CLEAN), verdicts=answers)
    moved, _ = step(start(T0), scope=SCOPE, campaign=CAMPAIGN, now=T0, rates=snapshot)
    assert moved.state == "throttled"  # the windows do not show that it is more than a burst


def test_the_campaigns_own_limits_count() -> None:
    tolerant = campaign_of(limits=Limits(hard_bounce=0.2))
    assert seen(start(T0), GRAVE, campaign=tolerant)[0].state == "healthy"


# -- down


def after_good_rates(standing: Standing, begin: int, end: int, every: int = MINUTE) -> tuple[Standing, list[Decision]]:
    decisions = []
    for at in range(begin, end + 1, every):
        standing, decision = seen(standing, CLEAN, at)
        decisions += [decision] if decision is not None else []
    return standing, decisions


def test_watched_goes_back_after_half_an_hour_of_good_rates() -> None:
    standing, decisions = after_good_rates(in_state("watched"), T0 + MINUTE, T0 + 30 * MINUTE)
    assert (standing.state, decisions) == ("watched", [])
    standing, decision = seen(standing, CLEAN, T0 + 31 * MINUTE)
    assert standing.state == "healthy"
    assert decision is not None
    assert (decision.rule, decision.by) == ("clean", "policy")


def test_throttled_goes_back_step_by_step() -> None:
    standing, decisions = after_good_rates(in_state("throttled"), T0 + MINUTE, T0 + 3 * HOUR)
    assert standing.state == "healthy"
    assert [(one.from_, one.to) for one in decisions] == [("throttled", "watched"), ("watched", "healthy")]
    assert decisions[1].at - decisions[0].at >= DWELL_MS


def test_a_bad_look_in_between_begins_the_half_hour_anew() -> None:
    standing, _ = after_good_rates(in_state("throttled"), T0 + MINUTE, T0 + 29 * MINUTE)
    standing, _ = seen(standing, WARNS, T0 + 30 * MINUTE)
    standing, decisions = after_good_rates(standing, T0 + 31 * MINUTE, T0 + 60 * MINUTE)
    assert (standing.state, decisions) == ("throttled", [])


def test_below_the_limit_is_not_yet_good_half_of_it_is_asked() -> None:
    between = Counts(accepted=19_720, hard_bounce=280, attempts=20_000)
    standing = in_state("throttled")
    for minute in range(1, 120):
        standing, _ = seen(standing, between, T0 + minute * MINUTE)
    assert standing.state == "throttled"


def test_a_small_campaign_goes_back_when_its_trouble_has_left_the_day() -> None:
    few = Counts(accepted=40, attempts=40)
    standing = in_state("throttled")
    for minute in range(1, 130):
        standing, _ = seen(standing, few, T0 + minute * MINUTE)
    assert standing.state == "healthy"


def test_the_clock_alone_takes_nothing_back_when_the_rates_are_stale() -> None:
    standing, _ = seen(in_state("throttled"), CLEAN, T0 + MINUTE)
    late = T0 + MINUTE + DWELL_MS
    assert late - (T0 + MINUTE) > FRESH_MS
    assert told(standing, "review", late)[0].state == "throttled"


def test_a_review_takes_back_what_fresh_rates_allow() -> None:
    standing, _ = after_good_rates(in_state("throttled"), T0 + MINUTE, T0 + 30 * MINUTE)
    moved, decision = told(standing, "review", T0 + 32 * MINUTE)
    assert moved.state == "watched"
    assert decision is not None


def test_trouble_of_another_kind_keeps_it_where_it_is() -> None:
    also_warns = Counts(accepted=20_000, hard_bounce=20, attempts=20_000, complaint=36)
    assert verdicts(rates(also_warns).windows, Limits())["complaint"].answer == "too_few"
    standing = in_state("throttled")
    for minute in range(1, 120):
        standing, decision = seen(standing, also_warns, T0 + minute * MINUTE)
        assert decision is None


def test_a_pause_ends_after_two_hours_and_tries_again_throttled() -> None:
    standing = in_state("paused")
    assert told(standing, "review", T0 + PAUSE_MS - 1)[0].state == "paused"
    moved, decision = told(standing, "review", T0 + PAUSE_MS)
    assert moved.state == "throttled"
    assert decision is not None
    assert (decision.rule, decision.from_) == ("cooled_down", "paused")


def test_after_a_pause_only_what_is_new_is_judged() -> None:
    standing = told(in_state("paused"), "review", T0 + PAUSE_MS)[0]
    same = rates(GRAVE_BLOCK, T0 + PAUSE_MS + MINUTE, shorter=Counts())
    assert step(standing, scope=SCOPE, campaign=CAMPAIGN, now=same.at, rates=same)[0].state == "throttled"
    worse = rates(
        Counts(accepted=740, block=360, deferral=360, attempts=1_100),
        T0 + PAUSE_MS + 6 * MINUTE,
        shorter=Counts(accepted=40, block=60, attempts=100),
    )
    assert step(standing, scope=SCOPE, campaign=CAMPAIGN, now=worse.at, rates=worse)[0].state == "paused"


def test_trouble_that_goes_on_after_a_pause_pauses_again_although_it_is_smaller() -> None:
    standing = told(in_state("paused"), "review", T0 + PAUSE_MS)[0]
    smaller = Counts(accepted=902, block=398, deferral=398, attempts=1_300)
    for later_ms, state in ((MINUTE, "throttled"), (DWELL_MS, "paused")):
        snapshot = rates(smaller, T0 + PAUSE_MS + later_ms, shorter=Counts())
        standing, _ = step(standing, scope=SCOPE, campaign=CAMPAIGN, now=snapshot.at, rates=snapshot)
        assert standing.state == state


def test_each_pause_takes_twice_as_long_up_to_a_day() -> None:
    standing, now, lengths = start(T0), T0, []
    for number in range(7):
        counts = Counts(accepted=0, block=1_000 * (number + 1), attempts=1_000 * (number + 1))
        standing, decision = seen(standing, counts, now)
        assert decision is not None
        assert decision.until is not None
        lengths.append((decision.until - now) // HOUR)
        standing, _ = told(standing, "review", decision.until)
        assert standing.state == "throttled"
        now = decision.until + 8 * 24 * HOUR
    assert lengths == [2, 4, 8, 16, 24, 24, 24]


# -- commands


COMMANDS = {
    ("healthy", "isolate"): "isolated",
    ("healthy", "release"): None,
    ("healthy", "retire"): "retired",
    ("healthy", "review"): None,
    ("healthy", "override"): None,
    ("healthy", "ceiling"): None,
    ("watched", "isolate"): "isolated",
    ("watched", "release"): "healthy",
    ("watched", "retire"): "retired",
    ("watched", "review"): None,
    ("watched", "override"): None,
    ("watched", "ceiling"): None,
    ("throttled", "isolate"): "isolated",
    ("throttled", "release"): "healthy",
    ("throttled", "retire"): "retired",
    ("throttled", "review"): None,
    ("throttled", "override"): "watched",
    ("throttled", "ceiling"): None,
    ("paused", "isolate"): "isolated",
    ("paused", "release"): "healthy",
    ("paused", "retire"): "retired",
    ("paused", "review"): None,
    ("paused", "override"): "watched",
    ("paused", "ceiling"): None,
    ("isolated", "isolate"): None,
    ("isolated", "release"): "healthy",
    ("isolated", "retire"): "retired",
    ("isolated", "review"): None,
    ("isolated", "override"): "watched",
    ("isolated", "ceiling"): None,
    ("retired", "isolate"): None,
    ("retired", "release"): None,
    ("retired", "retire"): None,
    ("retired", "review"): None,
    ("retired", "override"): None,
    ("retired", "ceiling"): None,
}


def test_the_table_of_commands_is_whole() -> None:
    assert set(COMMANDS) == set(itertools.product(STATES, get_args(CommandName)))


@pytest.mark.parametrize(("pair", "after"), COMMANDS.items(), ids=["-".join(pair) for pair in COMMANDS])
def test_an_operators_command(pair: tuple[State, CommandName], after: State | None) -> None:
    before, name = pair
    standing = in_state(before)
    command = asks(name, T0 + MINUTE, number="2", until=T0 + HOUR)
    moved, decision = step(standing, scope=SCOPE, campaign=CAMPAIGN, now=T0 + MINUTE, command=command)
    if after is None:
        assert decision is None
        assert (moved.state, moved.epoch) == (before, standing.epoch)
        assert (refusal(standing, command) is None) is (name in ("review", "ceiling"))
    else:
        assert refusal(standing, command) is None
        assert decision is not None
        assert (decision.from_, decision.to, decision.epoch) == (before, after, standing.epoch + 1)
        assert (decision.by, decision.command_id) == ("operator:ann", command.id)
        said = {"healthy": "released", "watched": "overridden"}.get(after, after)
        assert decision.reason == f"{said} by operator:ann: list cleaned"
        assert moved.state == after


def test_a_command_is_carried_out_once() -> None:
    standing = told(in_state("isolated"), "release", T0 + MINUTE)[0]
    standing = told(standing, "isolate", T0 + 2 * MINUTE)[0]
    again = asks("release", T0 + MINUTE)
    moved, decision = step(standing, scope=SCOPE, campaign=CAMPAIGN, now=T0 + 3 * MINUTE, command=again)
    assert (moved.state, decision) == ("isolated", None)
    assert "before" in (refusal(standing, again) or "")


def test_a_release_that_was_given_before_the_isolation_does_not_release() -> None:
    early = asks("release", T0 - 1, number="early")
    standing = in_state("isolated")
    assert step(standing, scope=SCOPE, campaign=CAMPAIGN, now=T0 + MINUTE, command=early)[0].state == "isolated"
    assert "after this command" in (refusal(standing, early) or "")


def test_isolate_and_release_given_at_once_are_both_carried_out_however_late_they_arrive() -> None:
    late = T0 + HOUR
    standing, _ = step(start(T0), scope=SCOPE, campaign=CAMPAIGN, now=late, command=asks("isolate", T0 + 1))
    standing, decision = step(standing, scope=SCOPE, campaign=CAMPAIGN, now=late, command=asks("release", T0 + 2))
    assert standing.state == "healthy"
    assert decision is not None


def test_an_isolate_that_was_overtaken_by_a_release_does_not_isolate() -> None:
    standing = told(in_state("isolated"), "release", T0 + HOUR)[0]
    old = asks("isolate", T0 + MINUTE, number="old")
    assert step(standing, scope=SCOPE, campaign=CAMPAIGN, now=T0 + HOUR, command=old)[1] is None


def test_the_operator_is_named_whatever_form_the_command_has() -> None:
    command = asks("isolate", by="bob")
    decision = step(start(T0), scope=SCOPE, campaign=CAMPAIGN, now=T0, command=command)[1]
    assert decision is not None
    assert decision.by == "operator:bob"


def test_rates_that_come_with_a_command_are_remembered_and_not_judged() -> None:
    moved, decision = step(
        in_state("throttled"),
        scope=SCOPE,
        campaign=CAMPAIGN,
        now=T0 + 1,
        rates=rates(GRAVE, T0 + 1),
        command=asks("release", T0 + 1),
    )
    assert moved.state == "healthy"
    assert decision is not None
    assert seen(moved, GRAVE, T0 + 2)[0].state == "healthy"


# -- after a release


def released(at: int = T0 + HOUR) -> Standing:
    return told(in_state("isolated"), "release", at)[0]


def test_what_led_to_the_isolation_does_not_isolate_again() -> None:
    """As it leaves one window after the other, until nothing of it is left."""
    standing = released()
    for minute in range(1, 24 * 60 + 10, 7):
        windows = {name: GRAVE if minute < length else Counts() for name, length in WINDOWS_MIN.items()}
        snapshot = RatesSnapshot(scope=SCOPE, at=T0 + HOUR + minute * MINUTE, windows=windows)
        standing, decision = step(standing, scope=SCOPE, campaign=CAMPAIGN, now=snapshot.at, rates=snapshot)
        assert decision is None
    assert standing.state == "healthy"


def test_what_is_new_does() -> None:
    standing = released()
    more = Counts(accepted=1_860, hard_bounce=140, attempts=2_000)
    assert seen(standing, more, T0 + HOUR + 2 * MINUTE)[0].state in ("throttled", "isolated")


def test_a_window_that_began_after_the_release_is_taken_as_it_is() -> None:
    standing = released()
    snapshot = rates(GRAVE, T0 + HOUR + 6 * MINUTE, shorter=BREACH)
    snapshot = msgspec.structs.replace(snapshot, windows=snapshot.windows | {"1h": GRAVE, "5m": GRAVE})
    assert step(standing, scope=SCOPE, campaign=CAMPAIGN, now=snapshot.at, rates=snapshot)[0].state == "isolated"


def test_old_mail_that_leaves_the_window_is_no_evidence() -> None:
    """The window holds fewer old messages than at the release, and as many new good ones."""
    standing = released()
    snapshot = rates(Counts(accepted=945, hard_bounce=55, attempts=1_000), T0 + HOUR + 3 * MINUTE)
    assert step(standing, scope=SCOPE, campaign=CAMPAIGN, now=snapshot.at, rates=snapshot)[1] is None


def test_a_few_new_bounces_while_old_mail_leaves_the_window_are_no_breach() -> None:
    """Six new ones; of the old mail forty messages more have left the window than new ones have come."""
    standing = released()
    snapshot = rates(Counts(accepted=900, hard_bounce=66, attempts=966), T0 + HOUR + 3 * MINUTE)
    assert step(standing, scope=SCOPE, campaign=CAMPAIGN, now=snapshot.at, rates=snapshot)[1] is None


def test_a_late_signal_for_old_mail_has_its_mail_among_the_trials() -> None:
    standing = released()
    late = msgspec.structs.replace(GRAVE, complaint=1, hard_bounce=63)
    assert seen(standing, late, T0 + HOUR + MINUTE)[1] is None


def test_a_pristine_hit_from_before_the_release_is_forgiven_and_a_new_one_is_not() -> None:
    standing = told(seen(start(T0), PRISTINE)[0], "release", T0 + HOUR)[0]
    old = rates(PRISTINE, T0 + HOUR + MINUTE, shorter=Counts())
    standing, decision = step(standing, scope=SCOPE, campaign=CAMPAIGN, now=old.at, rates=old)
    assert (standing.state, decision) == ("healthy", None)
    second = msgspec.structs.replace(PRISTINE, trap_hit=2, trap_hit_pristine=2)
    new = rates(second, T0 + HOUR + 2 * MINUTE, shorter=Counts())
    assert step(standing, scope=SCOPE, campaign=CAMPAIGN, now=new.at, rates=new)[0].state == "isolated"


def test_a_new_pristine_hit_is_seen_although_an_old_one_leaves_the_window_meanwhile() -> None:
    standing = told(seen(start(T0), PRISTINE)[0], "release", T0 + HOUR)[0]
    one = Counts(accepted=50, trap_hit=1, trap_hit_pristine=1, attempts=50)
    snapshot = rates(PRISTINE, T0 + HOUR + 6 * MINUTE, shorter=one)
    assert step(standing, scope=SCOPE, campaign=CAMPAIGN, now=snapshot.at, rates=snapshot)[0].state == "isolated"


def test_a_release_without_known_counts_takes_the_next_rates_as_its_line() -> None:
    standing = told(start(T0), "isolate", T0 + 1)[0]
    standing = told(standing, "release", T0 + 2)[0]
    standing, decision = seen(standing, GRAVE, T0 + 3)
    assert (standing.state, decision) == ("healthy", None)
    worse = Counts(accepted=1_700, hard_bounce=300, attempts=2_000)
    assert seen(standing, worse, T0 + 4)[0].state == "isolated"


LONG_AGO = {
    "before_it_recovered": lambda: after_good_rates(in_state("throttled"), T0 + MINUTE, T0 + 3 * HOUR)[0],
    "before_an_earlier_release": lambda: told(in_state("isolated"), "release", T0 + HOUR)[0],
}


@pytest.mark.parametrize("recovered", LONG_AGO.values(), ids=LONG_AGO.keys())
def test_counts_from_long_ago_are_never_the_line(recovered: Callable[[], Standing]) -> None:
    standing, later = recovered(), T0 + 10 * 24 * HOUR
    standing = told(standing, "isolate", later, number="later")[0]
    standing = told(standing, "release", later + 1, number="later")[0]
    standing, decision = seen(standing, Counts(accepted=9_000, hard_bounce=600, attempts=9_600), later + 2)
    assert (standing.state, decision) == ("healthy", None)


def test_the_line_is_forgotten_after_seven_days() -> None:
    standing = released()
    later = T0 + HOUR + 7 * 24 * HOUR + 2 * MINUTE
    standing, _ = seen(standing, CLEAN, later)
    assert standing.baseline_at is None
    assert standing.baseline == {}


def test_old_good_mail_does_not_help_a_campaign_back() -> None:
    """After a pause, 50 new answers without a block beside 50,000 old ones are too few to call it well."""
    before = Counts(accepted=45_000, block=5_000, attempts=50_000)
    standing = seen(start(T0), before)[0]
    assert standing.state == "paused"
    standing = told(standing, "review", T0 + PAUSE_MS)[0]
    for minute in range(1, 60):
        few = Counts(accepted=45_050, block=5_000, attempts=50_050)
        snapshot = rates(few, T0 + PAUSE_MS + minute * MINUTE, shorter=Counts(accepted=50, attempts=50))
        standing, _ = step(standing, scope=SCOPE, campaign=CAMPAIGN, now=snapshot.at, rates=snapshot)
    assert standing.state == "throttled"


# -- dry run


def test_in_dry_run_the_decision_is_made_and_the_state_stays() -> None:
    moved, decision = seen(start(T0), GRAVE, campaign=DRY)
    assert decision is not None
    assert (decision.to, decision.dry_run, decision.epoch) == ("isolated", True, 2)
    assert (moved.state, moved.shadow) == ("healthy", "isolated")
    assert control(moved, DRY, T0).may_send
    assert control(moved, DRY, T0).pace == DRY.pace
    assert "would be isolated" in control(moved, DRY, T0).reason


def test_in_dry_run_the_same_rates_twice_are_one_decision() -> None:
    moved, _ = seen(start(T0), GRAVE, campaign=DRY)
    again, decision = seen(moved, GRAVE, campaign=DRY)
    assert decision is None
    assert again.epoch == moved.epoch


def test_when_dry_run_ends_the_next_rates_act() -> None:
    moved, _ = seen(start(T0), GRAVE, campaign=DRY)
    acted, decision = seen(moved, GRAVE, T0 + MINUTE)
    assert acted.state == "isolated"
    assert decision is not None
    assert (decision.from_, decision.dry_run) == ("healthy", False)


def test_in_dry_run_an_operator_can_isolate_what_only_would_be_isolated() -> None:
    moved, decision = told(seen(start(T0), GRAVE, campaign=DRY)[0], "isolate", T0 + 1, campaign=DRY)
    assert (moved.state, moved.shadow) == ("isolated", None)
    assert decision is not None
    assert (decision.from_, decision.to) == ("healthy", "isolated")


def test_in_dry_run_a_release_clears_the_shadow_with_its_evidence() -> None:
    moved, decision = told(seen(start(T0), GRAVE, campaign=DRY)[0], "release", T0 + 1, campaign=DRY)
    assert (moved.state, moved.shadow) == ("healthy", None)
    assert decision is not None
    assert (decision.from_, decision.to) == ("isolated", "healthy")
    assert seen(moved, GRAVE, T0 + 2, campaign=DRY)[1] is None


def test_in_dry_run_an_operators_word_counts() -> None:
    moved, decision = told(start(T0), "isolate", campaign=DRY)
    assert moved.state == "isolated"
    assert decision is not None
    assert not decision.dry_run
    assert not control(moved, DRY, T0).may_send


def test_switching_dry_run_on_releases_nobody() -> None:
    standing = in_state("isolated")
    moved, decision = seen(standing, CLEAN, T0 + HOUR, campaign=DRY)
    assert (moved.state, decision) == ("isolated", None)


# -- control


@pytest.mark.parametrize("state", STATES)
def test_control_says_who_may_send(state: State) -> None:
    standing = in_state(state)
    said = control(standing, CAMPAIGN, T0 + 5)
    assert said.may_send is (state in {"healthy", "watched", "throttled"}) is (state in SENDS)
    assert (said.state, said.epoch, said.reason, said.at) == (state, standing.epoch, standing.reason, T0 + 5)
    assert said.campaign == "spring-sale"


PACES = {
    "a_tenth": (Pace(per_second=100, connections=20), Pace(per_second=10, connections=2)),
    "at_least_one": (Pace(per_second=5, connections=5), Pace(per_second=1, connections=1)),
    "never_more_than_before": (Pace(per_second=0.5, connections=1), Pace(per_second=0.5, connections=1)),
    "no_limit_of_its_own": (Pace(per_second=0, connections=100), Pace(per_second=10, connections=10)),
}


@pytest.mark.parametrize(("pace", "cut"), PACES.values(), ids=PACES.keys())
def test_throttled_is_a_tenth_of_the_pace(pace: Pace, cut: Pace) -> None:
    assert throttled(pace) == cut
    campaign = campaign_of(pace=pace)
    assert control(in_state("throttled"), campaign, T0).pace == cut
    assert control(in_state("watched"), campaign, T0).pace == pace


# -- what a decision carries


def test_the_reason_is_one_sentence_with_the_numbers() -> None:
    decision = seen(start(T0), BREACH)[1]
    assert decision is not None
    assert decision.reason == "20 of 400 messages bounced hard (5 %, at least 3.3 %), limit 2 %, window 24h"


REASONS = {
    "typos": (
        TYPOS,
        (
            "900 of 2,000 messages hit spam traps (900 typo; weighed as 135) (6.8 %, at least 5.7 %), limit 0.02 %, "
            "window 24h; too little of it is confirmed to isolate"
        ),
    ),
    "suspected": (
        SUSPECTED,
        (
            "60 of 2,000 messages hit spam traps (60 suspected; weighed as 18) (0.9 %, at least 0.57 %), limit 0.02 %, "
            "window 24h; too little of it is confirmed to isolate"
        ),
    ),
    "grave": (GRAVE, "60 of 1,000 messages bounced hard (6 %, at least 4.7 %), limit 2 %, window 24h; beyond doubt"),
    "watched": (
        WARNS,
        "18 of 400 messages bounced hard (4.5 %, at least 2.9 %), limit 2 %, window 24h; not yet a breach",
    ),
    "pristine": (
        PRISTINE,
        "1 message hit a confirmed pristine trap, an address that nobody can have signed up; one is enough",
    ),
    "complaint": (
        COMPLAINTS,
        "30 of 2,000 messages were complained about (1.5 %, at least 1.1 %), limit 0.1 %, window 24h; beyond doubt",
    ),
    "block": (
        GRAVE_BLOCK,
        (
            "300 of 1,000 answers of servers turned the sender away (30 %, at least 27 %), limit 5 %, window 24h; "
            "beyond doubt"
        ),
    ),
}


@pytest.mark.parametrize(("counts", "reason"), REASONS.values(), ids=REASONS.keys())
def test_reasons(counts: Counts, reason: str) -> None:
    moved, decision = seen(start(T0), counts)
    assert decision is not None
    assert decision.reason == reason == moved.reason


def test_the_evidence_can_be_checked() -> None:
    recent = [
        Reference(topic="mail.feedback", partition=0, offset=n, kind=kind)
        for n, kind in enumerate(["complaint", "hard_bounce", "hard_bounce"])
    ]
    snapshot = msgspec.structs.replace(rates(GRAVE), recent=recent)
    decision = step(start(T0), scope=SCOPE, campaign=CAMPAIGN, now=T0, rates=snapshot)[1]
    assert decision is not None
    evidence = decision.evidence
    assert (evidence["rule"], evidence["window"], evidence["events"], evidence["trials"]) == (
        "hard_bounce",
        "24h",
        60,
        1_000,
    )
    assert evidence["interval"][0] < evidence["rate"] < evidence["interval"][1]
    assert evidence["limit"] == 0.02
    assert evidence["e_value"] > 1e6
    assert evidence["counts"]["hard_bounce"] == 60
    assert [one["offset"] for one in evidence["recent"]] == [1, 2]


def test_standing_decision_and_control_survive_being_written_down() -> None:
    standing, now = start(T0), T0
    for counts in (WARNS, BREACH, GRAVE_BLOCK, GRAVE):
        now += MINUTE
        standing, decision = seen(standing, counts, now)
        assert msgspec.convert(msgspec.to_builtins(standing), Standing) == standing
        assert msgspec.json.decode(msgspec.json.encode(standing), type=Standing) == standing
        assert decision is not None
        assert msgspec.json.decode(msgspec.json.encode(decision), type=Decision) == decision


def test_a_standing_that_was_lost_is_made_from_its_control_record() -> None:
    """The judge fills in what mail.control says; a release from before that state must still not count."""
    lost = msgspec.structs.replace(start(T0), state="isolated", epoch=7, reason="as published", since=T0)
    old, new = asks("release", T0 - 1, number="old"), asks("release", T0 + 1, number="new")
    assert step(lost, scope=SCOPE, campaign=CAMPAIGN, now=T0 + 2, command=old)[0].state == "isolated"
    moved, decision = step(lost, scope=SCOPE, campaign=CAMPAIGN, now=T0 + 2, command=new)
    assert moved.state == "healthy"
    assert decision is not None
    assert decision.epoch == 8


def test_a_throttled_standing_made_from_its_control_record_comes_back_when_all_is_well() -> None:
    lost = msgspec.structs.replace(start(T0), state="throttled", epoch=7, reason="as published", since=T0)
    standing, _ = after_good_rates(lost, T0 + MINUTE, T0 + 3 * HOUR)
    assert standing.state == "healthy"


# -- laws


counts_of = st.sampled_from(
    [CLEAN, WARNS, BREACH, GRAVE, BLOCK, GRAVE_BLOCK, COMPLAINTS, TRAPS, TYPOS, PRISTINE, Counts()]
)
events = st.lists(
    st.one_of(
        st.tuples(st.just("rates"), counts_of, st.integers(0, 3 * HOUR)),
        st.tuples(st.just("again"), st.integers(0, 30), st.integers(0, HOUR)),
        st.tuples(st.just("command"), st.sampled_from(get_args(CommandName)), st.integers(0, 3 * HOUR)),
        st.tuples(st.just("command_again"), st.integers(0, 30), st.integers(0, HOUR)),
    ),
    max_size=25,
)


@settings(max_examples=200)
@given(events, st.booleans())
def test_epochs_grow_by_one_and_standing_and_decision_always_agree(
    given_events: list[tuple[object, ...]], is_dry: bool
) -> None:
    campaign = DRY if is_dry else CAMPAIGN
    standing, now = start(T0), T0
    snapshots: list[RatesSnapshot] = []
    commands: list[Command] = []
    for number, (kind, what, later) in enumerate(given_events):
        now += later  # type: ignore[operator]
        snapshot, command = None, None
        if kind == "rates":
            snapshot = rates(what, now, applied=(number, number))  # type: ignore[arg-type]
            snapshots.append(snapshot)
        elif kind == "again" and snapshots:
            snapshot = snapshots[what % len(snapshots)]  # type: ignore[operator]
        elif kind == "command":
            command = asks(what, now, number=str(number))  # type: ignore[arg-type]
            commands.append(command)
        elif kind == "command_again" and commands:
            command = commands[what % len(commands)]  # type: ignore[operator]
        before = standing
        standing, decision = step(before, scope=SCOPE, campaign=campaign, now=now, rates=snapshot, command=command)
        if decision is None:
            assert (standing.epoch, standing.state, standing.judged) == (before.epoch, before.state, before.judged)
            continue
        assert decision.epoch == standing.epoch == before.epoch + 1
        assert decision.from_ in (before.state, before.judged)
        assert decision.to == (standing.state if decision.rule == "override" else standing.judged)
        assert decision.from_ != decision.to or decision.rule == "warmed"
        assert decision.reason
        if decision.dry_run:
            assert standing.state == before.state
        if RUNGS[decision.from_] >= RUNGS["isolated"]:
            assert decision.by.startswith("operator:")
        if kind == "again":
            assert decision.rule in {"clean", "cooled_down"} or RUNGS[decision.to] > RUNGS[decision.from_]


@settings(max_examples=200)
@given(
    st.lists(st.tuples(counts_of, st.integers(1, HOUR)), min_size=1, max_size=8),
    st.sampled_from(["throttled", "paused", "isolated", "retired"]),
    st.randoms(use_true_random=False),
)
def test_a_replay_of_old_rates_in_any_order_releases_nobody(
    history: list[tuple[Counts, int]], state: State, chance: object
) -> None:
    """Everything before the newest rates again, shuffled, while half a day passes but no pause ends."""
    now, snapshots = T0 - 20 * HOUR, []
    for number, (counts, later) in enumerate(history):
        now += later
        snapshots.append(rates(counts, now, applied=(number, number)))
    standing = in_state(state)
    newest = rates(standing.windows.get("24h", CLEAN), T0, applied=(1_000, 1_000))
    standing, _ = step(standing, scope=SCOPE, campaign=CAMPAIGN, now=T0, rates=newest)
    assert standing.state == state
    chance.shuffle(snapshots)  # type: ignore[attr-defined]
    for number, snapshot in enumerate(snapshots):
        standing, decision = step(
            standing, scope=SCOPE, campaign=CAMPAIGN, now=T0 + number * 10 * MINUTE, rates=snapshot
        )
        assert (standing.state, decision) == (state, None)


def test_rates_of_a_worker_whose_clock_is_behind_count_by_their_offsets() -> None:
    standing, _ = step(start(T0), scope=SCOPE, campaign=CAMPAIGN, now=T0, rates=rates(BREACH, T0, applied=(10, 5)))
    newer = rates(GRAVE, T0 - 30_000, applied=(11, 5))
    assert step(standing, scope=SCOPE, campaign=CAMPAIGN, now=T0, rates=newer)[0].state == "isolated"
    older = rates(GRAVE, T0 + 30_000, applied=(9, 5))
    assert step(standing, scope=SCOPE, campaign=CAMPAIGN, now=T0, rates=older)[0].state == "throttled"


def test_rates_without_offsets_go_by_their_time() -> None:
    standing = seen(start(T0), BREACH)[0]
    older = rates(GRAVE, T0 - 1)
    assert step(standing, scope=SCOPE, campaign=CAMPAIGN, now=T0, rates=older)[0].state == "throttled"


def test_topics_that_were_made_anew_do_not_blind_the_judge() -> None:
    standing, _ = step(start(T0), scope=SCOPE, campaign=CAMPAIGN, now=T0, rates=rates(BREACH, T0, applied=(10, 5)))
    anew = rates(GRAVE, T0 + 2 * HOUR, applied=(0, 0))
    assert step(standing, scope=SCOPE, campaign=CAMPAIGN, now=anew.at, rates=anew)[0].state == "isolated"


@settings(max_examples=200)
@given(st.sampled_from(STATES), counts_of, st.sampled_from([None, *get_args(CommandName)]), st.integers(0, 3 * HOUR))
def test_every_state_has_an_answer_to_every_input(
    state: State, counts: Counts, name: CommandName | None, later: int
) -> None:
    standing, now = in_state(state), T0 + later
    command = None if name is None else asks(name, now, number="x")
    moved, _ = step(standing, scope=SCOPE, campaign=CAMPAIGN, now=now, rates=rates(counts, now), command=command)
    assert moved.state in STATES
    assert control(moved, CAMPAIGN, now).epoch == moved.epoch


def test_other_scopes_are_judged_the_same_way() -> None:
    scope = "campaign:spring-sale/provider:google"
    decision = step(start(T0), scope=scope, campaign=CAMPAIGN, now=T0, rates=rates(GRAVE))[1]
    assert decision is not None
    assert decision.scope == scope
