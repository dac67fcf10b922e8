"""What a backtest tells: per campaign when it would have been stopped, why, what that saves and costs; the totals."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import click
import msgspec

from cli.backtest_holds import BAD
from cli.backtest_input import Bad
from cli.backtest_replay import Replay, Tracked
from cli.backtest_run import Read
from cli.views import moment, print_json
from policy.judging import PROVIDER, TRIAL
from policy.naming import campaign_scope
from policy.transitions import RUNGS, SENDS
from schemas.reputation import Decision, State
from schemas.sending import Limits

SAME_WITHIN_MS = 60_000  # a timer of the workers may be that late
LINES = 12  # decisions of one campaign that are printed
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


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The whole answer; ``differences`` of campaigns are None when nothing is known of what was really decided."""

    begin: int | None = msgspec.field(name="from")
    end: int | None = msgspec.field(name="to")
    read: dict[str, Any]  # Any: numbers, and the bad lines
    totals: dict[str, int]
    campaigns: list[Line]


def report(replay: Replay, read: Read, bad: Bad, *, is_compared: bool, other_topics: int = 0) -> Report:
    """Make the report; campaigns that something happens to come first, the worst before all."""
    lines = [_line(one, is_compared=is_compared) for one in replay.tracked.values()]
    lines.sort(key=lambda one: (-max((RUNGS[state] for state in one.first), default=0), one.campaign))
    countings = [one.counting for one in replay.tracked.values()]
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
        },
        campaigns=lines,
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
        state="healthy" if one.standing is None else one.standing.judged,
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


# -- for people and for machines


def tell(made: Report, *, as_json: bool) -> None:
    """Print the report."""
    if as_json:
        print_json(msgspec.to_builtins(made))
        return
    click.echo(f"{moment(made.begin)} to {moment(made.end)}")
    read = made.read
    click.echo(
        f"{read['results']:,} results and {read['feedback']:,} signals of {made.totals['campaigns']:,} campaigns in "
        f"{read['lines']:,} records; {read['repeats']:,} came twice and count once"
    )
    shown = [one for one in made.campaigns if one.decisions or one.differences]
    if shown:
        _table(shown)
    calm = len(made.campaigns) - len(shown)
    if calm:
        click.echo(f"\n{calm:,} campaigns would have stayed healthy")
    _totals(made)


def _table(shown: Sequence[Line]) -> None:
    width = max(len("CAMPAIGN"), *(len(one.campaign) for one in shown))
    click.echo(
        f"\n{'CAMPAIGN':<{width}}  {'WORST':<9}  {'SINCE':<23}  {'RESULTS':>11}  {'BAD SAVED':>9}  {'GOOD HELD':>9}  "
        f"{'SLOWED':>9}"
    )
    for one in shown:
        worst = max(one.first, key=lambda state: RUNGS[state], default=one.state)
        click.echo(
            f"{one.campaign:<{width}}  {worst:<9}  {moment(one.first.get(worst)):<23}  {one.results:>11,}  "
            f"{one.saved.bad_saved:>9,}  {one.saved.good_held:>9,}  {one.saved.slowed:>9,}"
        )
        _decisions(one)
        for difference in one.differences or ():
            click.echo(f"    {_sentence(difference)}")


def _decisions(one: Line) -> None:
    for decision in one.decisions[:LINES]:
        dry = " (dry run)" if decision.dry_run else ""
        where = decision.scope.removeprefix(campaign_scope(one.campaign))
        where = (
            f" [{where.removeprefix(PROVIDER)}]" if where and where != TRIAL else " [shadow limits]" if where else ""
        )
        click.echo(f"    {moment(decision.at)}  {decision.from_} -> {decision.to}{where}{dry}: {decision.reason}")
    if len(one.decisions) > LINES:
        click.echo(f"    and {len(one.decisions) - LINES:,} more; --json has all")


def _sentence(one: Difference) -> str:
    match one.how:
        case "same":
            return f"really: {one.state} at the same time"
        case "never":
            return f"really: {one.state} at {moment(one.really)}, here never"
        case "not really":
            return f"really: never {one.state}"
        case _:
            apart = duration(abs((one.backtest or 0) - (one.really or 0)))
            return f"really: {one.state} at {moment(one.really)}; here {apart} {one.how}"


def _totals(made: Report) -> None:
    totals = made.totals
    kinds = ", ".join(f"{totals[kind]:,} {kind}" for kind in BAD if totals[kind])
    steps = ", ".join(f"{totals[state]:,} {state}" for state in STEPS if totals[state]) or "no campaign restricted"
    click.echo(f"\nin all: {steps}")
    click.echo(f"  {totals['bad_saved']:,} bad messages would not have been sent" + (f" ({kinds})" if kinds else ""))
    click.echo(f"  {totals['good_held']:,} good messages would have been held, {totals['slowed']:,} sent more slowly")
    unknown = [one.campaign for one in made.campaigns if not one.known]
    if unknown:
        click.echo(f"  of {len(unknown):,} campaigns there is no record, so the default limits hold: {_some(unknown)}")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def duration(ms: int) -> str:
    """A length of time as people say it."""
    minutes = round(ms / 60_000)
    if minutes < 120:
        return f"{minutes} min"
    hours = ms / 3_600_000
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"


def stopped(made: Report) -> list[str]:
    """The campaigns that would have been stopped for a while or for good."""
    return [one.campaign for one in made.campaigns if any(state not in SENDS for state in one.first)]
