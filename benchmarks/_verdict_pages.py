"""The figures of the simulation as Markdown, for the page about verdicts."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks._harness import Json
from benchmarks._verdict_ours import limit_of
from schemas.generate import filled

MARK = "simulation"
NAMES = {
    "mailcordon": "**mailcordon**",
    "mailcordon_burst_1": "mailcordon, `burst` 1",
    "mailcordon_burst_20": "mailcordon, `burst` 20",
    "ratio_200": "ratio, 200 mails at least",
    "ratio_1000": "ratio, 1,000 mails at least",
    "ratio_2000": "ratio, 2,000 mails at least",
    "wilson_nominal": "Wilson at every event, 99.9 %",
    "wilson_calibrated": "Wilson at every event, as rarely wrong as ours",
    "exact_checkpoints": "exact test at checkpoints",
    "ses_like": "SES-like",
    "posthog_like": "PostHog-like",
}
METRICS = {"hard_bounce": "Hard bounces", "complaint": "Complaints", "trap_hit": "Trap hits"}
BY = ("without", "with_prior")
BORROWED = (
    "Of hard bounces in the first two rows, of blocks in the others: the share of campaigns that are called within "
    "their limit in the end, and the share that is ever called a breach, without and with `prior_mails` 200:"
)
TINY_SHOWN = (("0.5", "500"), ("1", "500"), ("5", "100"), ("5", "500"), ("20", "50"), ("20", "500"))


def into_page(page: Path, told: Json) -> None:
    """Write the tables between the marks of a page."""
    page.write_text(filled(page.read_text(encoding="utf-8"), MARK, tables(told)), encoding="utf-8")


def tables(told: Mapping[str, Any]) -> str:
    """All tables, a section for each metric."""
    facts, cost = told["facts"], told["figures"]["look_us"]
    metrics = told["figures"]["metrics"]
    only = "" if list(metrics) == list(METRICS) else "".join(f" --metric {metric}" for metric in metrics)
    size = f"--seed {facts['seed']} --days {facts['days']} --runs {facts['runs']}{only}"
    command = f".venv/bin/python benchmarks/verdicts.py --json {size}"
    intro = (
        f"From `{command}`: {facts['days']:,} campaign days of ours and of the calibrated Wilson bound at each "
        "allowed rate, a tenth of that of every other rule; "
        f"{facts['runs']:,} campaigns of every forbidden kind."
    )
    costs = (
        f"The verdicts on all four metrics, three windows each, took {cost['quiet']:.1f} µs of processor for a "
        f"campaign that is well, {cost['bad_in_one']:.1f} µs for one that is bad in one metric and "
        f"{cost['bad_in_three']:.1f} µs for one that is bad in three ({told['machine']['cpu']}, "
        f"Python {told['machine']['python']})."
    )
    parts = [intro, *(_section(metric, found) for metric, found in metrics.items())]
    parts += ["### Borrowing from other campaigns", BORROWED, _borrowed(told["figures"]["priors"])]
    return "\n\n".join([*parts, "### What a look costs", costs])


def _borrowed(cases: Mapping[str, Any]) -> str:
    rows = [
        [name, *(f"{100 * found[by][answer]:.0f} %" for answer in ("within", "breach") for by in BY)]
        for name, found in cases.items()
    ]
    return table(["campaigns", "within", "within, borrowing", "breach", "breach, borrowing"], rows)


def _section(metric: str, found: Mapping[str, Any]) -> str:
    falses = (
        "False isolations per 1,000 campaign days, by the true rate as a multiple of the limit; the last three at "
        "half the limit, when events do not come singly:"
    )
    parts = [
        f"### {METRICS[metric]}",
        falses,
        _falses(found),
        "Mails until isolation, median and 90th percentile; – means that it mostly never came:",
        _waits(found, found["mails_to_isolation"], "times the limit", limit_of(metric)),
        "Mails since the rate changed, since the bad block began, or since the beginning:",
        _waits(found, found["mails_otherwise"]),
        "Small campaigns: the share that is stopped before its last mail:",
        _tiny(found["tiny_share_stopped"]),
    ]
    return "\n\n".join(parts)


def _falses(found: Mapping[str, Any]) -> str:
    steady, bursts = found["false_per_1000_days"], found["bursts_per_1000_days"]
    kinds, in_bursts = list(steady["mailcordon"]), list(bursts["mailcordon"])
    rows = [
        [
            NAMES[rule],
            *(_rate(steady[rule][kind]) for kind in kinds),
            *(_rate(bursts[rule][kind]) for kind in in_bursts),
        ]
        for rule in NAMES
    ]
    slowed = [_rate(found["throttled_per_1000_days"][kind]) for kind in kinds]
    slowed += [_rate(found["throttled_in_bursts_per_1000_days"][kind]) for kind in in_bursts]
    rows.insert(1, ["mailcordon, throttled or more", *slowed])
    return table(["rule", *kinds, *in_bursts], rows)


def _waits(found: Mapping[str, Any], waits: Mapping[str, Any], unit: str = "", limit: float | None = None) -> str:
    kinds = list(waits["mailcordon"])
    rows = [[NAMES[rule], *(_mails(waits[rule][kind]) for kind in kinds)] for rule in NAMES]
    if limit is not None:
        slowed = found["mails_to_throttling"]
        rows.insert(1, ["mailcordon, until throttled", *(_mails(slowed[kind]) for kind in kinds)])
        least = [f"{least_mails(limit, float(kind) * limit):,.0f} on average" for kind in kinds]
        rows.append(["*the least, for 1 error in 1,000*", *least])
    return table(["rule", *(f"{kind} {unit}".strip() for kind in kinds)], rows)


def least_mails(limit: float, rate: float) -> float:
    """The fewest mails, on average, for any rule that stops at most one in a thousand campaigns at the limit (Wald)."""
    divergence = rate * math.log(rate / limit) + (1 - rate) * math.log((1 - rate) / (1 - limit))
    return math.log(1_000) / divergence


def _tiny(shares: Mapping[str, Any]) -> str:
    heads = [f"{size} mails at {multiple} times" for multiple, size in TINY_SHOWN]
    rows = [
        [NAMES[rule], *(f"{100 * shares[rule][multiple][size]:.0f} %" for multiple, size in TINY_SHOWN)]
        for rule in NAMES
    ]
    return table(["rule", *heads], rows)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, its first column words and the others numbers."""
    lines = [heads, ["---", *("--:" for _ in heads[1:])], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def summary(told: Mapping[str, Any]) -> str:
    """For a terminal: what the goals are about."""
    lines: list[str] = []
    for metric, found in told["figures"]["metrics"].items():
        false, waits = found["false_per_1000_days"], found["mails_to_isolation"]
        kinds, above = list(false["mailcordon"]), list(waits["mailcordon"])
        heads = [*(f"false {kind}" for kind in kinds), *(f"mails {kind}" for kind in above)]
        lines += [f"{metric:20}" + "".join(f"{head:>12}" for head in heads)]
        for rule in NAMES:
            cells = [*(_rate(false[rule][kind]) for kind in kinds), *(_mails(waits[rule][kind]) for kind in above)]
            lines.append(f"{rule:20}" + "".join(f"{cell:>12}" for cell in cells))
        lines.append("")
    cost = told["figures"]["look_us"]
    return "\n".join([*lines, "a look, µs: " + ", ".join(f"{name} {one}" for name, one in cost.items())])


def _rate(per_1000: float) -> str:
    return f"{per_1000:.0f}" if per_1000 >= 10 else f"{per_1000:.2f}" if per_1000 else "0"


def _mails(found: Mapping[str, Any]) -> str:
    return f"{_number(found['median'])} / {_number(found['p90'])}"


def _number(mails: int | None) -> str:
    return "–" if mails is None else f"{mails:,}"
