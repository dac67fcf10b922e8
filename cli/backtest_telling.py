"""Telling of a backtest: a table for people with a sentence per decision, or one JSON object."""

from collections.abc import Mapping, Sequence

import click
import msgspec

from cli.backtest_holds import BAD
from cli.backtest_report import STEPS, Difference, Line, Report, SharedLine
from cli.views import moment, print_json
from policy.judging import PROVIDER, TRIAL
from policy.naming import campaign_scope
from policy.transitions import RUNGS
from schemas.reputation import Decision

LINES = 12  # decisions of one campaign that are printed


def tell(made: Report, *, as_json: bool) -> None:
    """Print the report."""
    if as_json:
        print_json(msgspec.to_builtins(made))
        return
    click.echo(f"{moment(made.begin)} to {moment(made.end)}")
    read = made.read
    click.echo(
        f"{read['results']:,} results and {read['feedback']:,} signals of {_campaigns(made.totals['campaigns'])} in "
        f"{read['lines']:,} records; {read['repeats']:,} came twice and count once"
    )
    shown = [one for one in made.campaigns if one.decisions or one.differences]
    if shown:
        _table(shown)
    _shared(made.shared)
    calm = len(made.campaigns) - len(shown)
    if calm:
        click.echo(f"\n{_campaigns(calm)} would have stayed healthy")
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
        _decisions(one.decisions, campaign_scope(one.campaign))
        for difference in one.differences or ():
            click.echo(f"    {_sentence(difference)}")


def _shared(shared: Sequence[SharedLine]) -> None:
    """What campaigns share: where that would have been throttled or paused, and whom it would have touched."""
    for one in shared:
        if not one.decisions and not one.differences:
            continue
        click.echo(f"\n{one.scope}, now {one.state}; {_touched(one.touched)}")
        _decisions(one.decisions, one.scope)
        for difference in one.differences or ():
            click.echo(f"    {_sentence(difference)}")


def _touched(touched: Mapping[str, int]) -> str:
    if not touched:
        return "it would have touched no campaign"
    return f"it would have touched {_campaigns(len(touched))}: {_some(list(touched))}"


def _decisions(decisions: Sequence[Decision], scope: str) -> None:
    for decision in decisions[:LINES]:
        dry = " (dry run)" if decision.dry_run else ""
        where = decision.scope.removeprefix(scope)
        where = (
            f" [{where.removeprefix(PROVIDER)}]" if where and where != TRIAL else " [shadow limits]" if where else ""
        )
        click.echo(f"    {moment(decision.at)}  {decision.from_} -> {decision.to}{where}{dry}: {decision.reason}")
    if len(decisions) > LINES:
        click.echo(f"    and {len(decisions) - LINES:,} more; --json has all")


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
        click.echo(f"  of {_campaigns(len(unknown))} there is no record, so the default limits hold: {_some(unknown)}")


def _campaigns(count: int) -> str:
    return "1 campaign" if count == 1 else f"{count:,} campaigns"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def duration(ms: int) -> str:
    """A length of time as people say it."""
    minutes = round(ms / 60_000)
    if minutes < 120:
        return f"{minutes} min"
    hours = ms / 3_600_000
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"
