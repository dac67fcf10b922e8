"""From a campaign of the replay to its picture: the metric that decided, or else the one with the most evidence."""

from pathlib import Path

from cli.backtest_report import Report
from cli.backtest_tracked import Tracked
from cli.failures import WrongUse
from policy.naming import campaign_scope
from policy.plotting import Chart, Mark, Point, svg
from policy.transitions import RUNGS
from policy.verdicts import METRICS

NAMES = {
    "hard_bounce": "hard bounces",
    "complaint": "complaints",
    "trap_hit": "trap hits",
    "block": "blocks",
}


def worst(made: Report) -> str | None:
    """The campaign to draw when none is named: of those that came furthest up the one that did so first."""
    lines = [one for one in made.campaigns if one.first] or made.campaigns
    if not lines:
        return None

    def badness(name: str) -> tuple[int, int]:
        first = next(one.first for one in lines if one.campaign == name)
        top = max(first, key=lambda state: RUNGS[state], default=None)
        return (0, 0) if top is None else (-RUNGS[top], first[top])

    return min((one.campaign for one in lines), key=badness)


def picture(one: Tracked, begin: int, end: int) -> str:
    """The picture of a campaign, as SVG."""
    metric = _metric(one)
    points = [] if one.trace is None else one.trace.points
    scope = campaign_scope(one.campaign.campaign)
    own = [decision for decision in one.decisions if decision.scope == scope and decision.to != decision.from_]
    return svg(
        Chart(
            title=f"{one.campaign.campaign}: {NAMES[metric]}",
            metric=NAMES[metric],
            limit=getattr(one.campaign.limits, metric),
            begin=begin,
            end=end,
            points=[
                Point(at, found.rate, found.low, found.high, found.evidence)
                for at, verdicts in points
                if (found := verdicts.get(metric)) is not None
            ],
            marks=[Mark(decision.at, decision.to, decision.reason) for decision in own],
        )
    )


def _metric(one: Tracked) -> str:
    by_rung = sorted(one.decisions, key=lambda decision: -RUNGS[decision.to])
    rules = ["trap_hit" if decision.rule == "pristine_trap" else decision.rule for decision in by_rung]
    decided = next((rule for rule in rules if rule in METRICS), None)
    if decided is not None:
        return decided
    points = [] if one.trace is None else one.trace.points
    most = {metric: max((found[metric].evidence for _, found in points), default=0.0) for metric in METRICS}
    return max(most, key=lambda metric: most[metric])


def write(file: Path, picture: str) -> None:
    """Write a picture."""
    try:
        file.write_text(picture, encoding="utf-8")
    except OSError as wrong:
        raise WrongUse(f"--plot {file}: {wrong.strerror or wrong}") from wrong
