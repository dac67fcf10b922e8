"""What a backtest tells: per campaign when it would have been stopped, why, what that saves and costs; the totals."""

from collections.abc import Collection, Iterable
from typing import Any, Literal

import msgspec

from cli.backtest_holds import BAD
from cli.backtest_input import Bad
from cli.backtest_replay import Replay
from cli.backtest_run import Read
from cli.backtest_shared import Scope
from cli.backtest_tracked import Tracked
from policy.naming import campaign_scope
from policy.obeying import effective
from policy.transitions import RUNGS
from schemas.reputation import Decision, State
from schemas.sending import Limits

SAME_WITHIN_MS = 60_000  # a timer of the workers may be that late
STEPS: tuple[State, ...] = ("watched", "throttled", "paused", "isolated")

How = Literal["same", "earlier", "later", "never", "not really"]


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """When a campaign came to a state, here and in reality; None for never."""

    state: State
    backtest: int | None
    really: int | None
    how: How


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """What the decisions would have done to the mail."""

    bad_saved: int = 0
    good_held: int = 0
    slowed: int = 0
    by_kind: dict[str, int] = {}


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One campaign; ``first`` is when it would first have come to each state, ``state`` where it would be now."""

    campaign: str
    tenant: str
    known: bool
    limits: Limits
    pristine_trap: str
    results: int
    feedback: int
    state: State
    first: dict[State, int]
    saved: Saved
    decisions: list[Decision]
    really: list[Decision]
    differences: list[Difference] | None


class SharedLine(msgspec.Struct, frozen=True, kw_only=True):
    """What several campaigns share; ``touched`` says since when which of them was allowed less."""

    scope: str
    state: State
    first: dict[State, int]
    touched: dict[str, int]
    decisions: list[Decision]
    really: list[Decision]
    differences: list[Difference] | None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The whole answer; ``differences`` of campaigns are None when nothing is known of what was really decided."""

    begin: int | None = msgspec.field(name="from")
    end: int | None = msgspec.field(name="to")
    read: dict[str, Any]  # Any: numbers, and the bad lines
    totals: dict[str, int]
    campaigns: list[Line]
    shared: list[SharedLine]


def report(
    replay: Replay,
    read: Read,
    bad: Bad,
    *,
    only: Collection[str] = (),
    is_compared: bool,
    other_topics: int = 0,
) -> Report:
    """Make the report; campaigns that something happens to come first, the worst before all.

    ``only`` are the campaigns that are told of, with what they share; none for all.
    """
    shown = [one for name, one in replay.tracked.items() if not only or name in only]
    lines = [_line(one, is_compared=is_compared) for one in shown]
    lines.sort(key=lambda one: (-max((RUNGS[state] for state in one.first), default=0), one.campaign))
    shared = [
        _shared(scope, one, is_compared=is_compared)
        for scope, one in sorted(replay.sharing.scopes.items())
        if not only or any(name in only for name in one.touched)
    ]
    countings = [one.counting for one in shown]
    return Report(
        begin=read.begin,
        end=read.end,
        read={
            "lines": read.lines,
            "results": sum(one.results for one in countings),
            "feedback": sum(one.events for one in countings),
            "repeats": sum(one.repeats for one in countings),
            "left_out": sum(one.left_out for one in countings),
            "elsewhere": read.elsewhere,
            "other_topics": other_topics,
            "bad": bad.count,
            "bad_lines": [{"line": line, "explain": why} for line, why in bad.shown],
        },
        totals={
            "campaigns": len(lines),
            **{state: sum(state in one.first for one in lines) for state in STEPS},
            "bad_saved": sum(one.saved.bad_saved for one in lines),
            "good_held": sum(one.saved.good_held for one in lines),
            "slowed": sum(one.saved.slowed for one in lines),
            **{kind: sum(one.saved.by_kind.get(kind, 0) for one in lines) for kind in BAD},
            "shared": sum(bool(one.first) for one in shared),
        },
        campaigns=lines,
        shared=shared,
    )


def _line(one: Tracked, *, is_compared: bool) -> Line:
    scope = campaign_scope(one.campaign.campaign)
    first = _first(one.decisions, scope)
    return Line(
        campaign=one.campaign.campaign,
        tenant=one.campaign.tenant,
        known=one.is_known,
        limits=one.campaign.limits,
        pristine_trap=one.campaign.pristine_trap,
        results=one.counting.results,
        feedback=one.counting.events,
        state=_state(one),
        first=first,
        saved=Saved(
            bad_saved=one.holds.bad_messages,
            good_held=one.holds.good_messages,
            slowed=one.holds.slowed_messages,
            by_kind=dict(one.holds.bad),
        ),
        decisions=one.decisions,
        really=one.really,
        differences=_differences(first, _first(one.really, scope)) if is_compared else None,
    )


def _state(one: Tracked) -> State:
    """Where a campaign stands by itself and by what it shares; one in dry run, where it would stand by itself."""
    if one.standing is None:
        return "healthy"
    if one.campaign.dry_run or one.standing.shadow is not None:
        return one.standing.judged
    return effective(one.standing)


def _shared(scope: str, one: Scope, *, is_compared: bool) -> SharedLine:
    first = _first(one.decisions, scope)
    return SharedLine(
        scope=scope,
        state="healthy" if one.held is None else one.held.standing.judged,
        first=first,
        touched=dict(sorted(one.touched.items())),
        decisions=one.decisions,
        really=one.really,
        differences=_differences(first, _first(one.really, scope)) if is_compared else None,
    )


def _first(decisions: Iterable[Decision], scope: str) -> dict[State, int]:
    """When the campaign itself first came up to each state that is worse than where it was."""
    found: dict[State, int] = {}
    for one in decisions:
        if one.scope == scope and RUNGS[one.to] > RUNGS[one.from_]:
            found.setdefault(one.to, one.at)
    return found


def _differences(here: dict[State, int], really: dict[State, int]) -> list[Difference]:
    return [
        Difference(state=state, backtest=here.get(state), really=really.get(state), how=_how(here, really, state))
        for state in STEPS
        if state in here or state in really
    ]


def _how(here: dict[State, int], really: dict[State, int], state: State) -> How:
    if state not in here:
        return "never"
    if state not in really:
        return "not really"
    apart = here[state] - really[state]
    return "same" if abs(apart) <= SAME_WITHIN_MS else "earlier" if apart < 0 else "later"
