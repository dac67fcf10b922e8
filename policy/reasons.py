"""Reasons: the sentences with the numbers, and the evidence beside them, of every change of state."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from policy.bursts import Rest
from policy.counts import trap_events
from policy.priors import EVERYWHERE
from schemas.reputation import Command, Counts, RatesSnapshot, Reference, State, Verdict

_REFERENCES = 20
_PLACES = 3
_PLACE_LENGTH = 80
_SAID = {
    "hard_bounce": "messages bounced hard",
    "complaint": "messages were complained about",
    "trap_hit": "messages hit spam traps",
    "block": "answers of servers turned the sender away",
}
_DONE = {"isolate": "isolated", "release": "released", "retire": "retired", "override": "overridden"}

Evidence = dict[str, Any]  # Any: JSON, as it stands in Decision.evidence


def of_verdict(metric: str, verdict: Verdict, addition: str = "") -> str:
    """``7 of 213 messages bounced hard (3.3 %, at least 1.6 %), limit 2 %, window 24h``."""
    return (
        f"{verdict.events:,} of {verdict.trials:,} {_SAID[metric]} ({percent(verdict.rate)}, at least "
        f"{percent(verdict.low)}), limit {percent(verdict.limit)}, window {verdict.window}{addition}"
    )


def of_traps(verdict: Verdict, windows: Mapping[str, Counts], places: Sequence[str], addition: str = "") -> str:
    """``7 of 213 messages hit spam traps (2 recycled, 5 typo; planted: footer; weighed as 1) (0.47 %, at least …``."""
    counts = windows.get(verdict.window)
    if counts is None or not counts.trap_hit:
        return of_verdict("trap_hit", verdict, addition)
    said = [_kinds(counts)]
    if places:
        said.append(f"planted: {', '.join(places)}")
    if trap_events(counts) != counts.trap_hit:
        said.append(f"weighed as {trap_events(counts):,}")
    return (
        f"{counts.trap_hit:,} of {verdict.trials:,} {_SAID['trap_hit']} ({'; '.join(said)}) ({percent(verdict.rate)}, "
        f"at least {percent(verdict.low)}), limit {percent(verdict.limit)}, window {verdict.window}{addition}"
    )


def _kinds(counts: Counts) -> str:
    known = {
        "pristine": counts.trap_hit_pristine,
        "recycled": counts.trap_hit_recycled,
        "typo": counts.trap_hit_typo,
    }
    known["suspected"] = counts.trap_hit - sum(known.values())
    return ", ".join(f"{number:,} {kind}" for kind, number in known.items() if number > 0)


def planted(recent: Sequence[Reference], kind: str | None = None) -> list[str]:
    """Where the traps that were hit last had been planted, newest first, each place once."""
    places: dict[str, None] = {}
    for one in reversed(recent):
        if one.trap is not None and one.trap.where and kind in (None, one.trap.kind):
            text = "".join(letter if letter.isprintable() else " " for letter in one.trap.where)
            places[text if len(text) <= _PLACE_LENGTH else f"{text[:_PLACE_LENGTH]}…"] = None
    return list(places)[:_PLACES]


def of_pristine_trap(hits: int, places: Sequence[str] = ()) -> str:
    """Zero tolerance needs no rate."""
    messages = "1 message" if hits == 1 else f"{hits:,} messages"
    where = f" (planted: {', '.join(places)})" if places else ""
    return f"{messages} hit a confirmed pristine trap{where}, an address that nobody can have signed up; one is enough"


def of_recovery(metric: str, verdict: Verdict | None, dwell_min: int) -> str:
    """Why a restriction is taken back a step."""
    if verdict is None or metric not in _SAID:
        return f"all rates were below half of their limits for {dwell_min} min"
    if verdict.events == 0 and metric == "trap_hit":
        return (
            f"trap hits among {verdict.trials:,} messages weigh nothing in window {verdict.window}, for {dwell_min} min"
        )
    if verdict.events == 0:
        return f"none of {verdict.trials:,} {_SAID[metric]} in window {verdict.window}, for {dwell_min} min"
    return (
        f"{verdict.events:,} of {verdict.trials:,} {_SAID[metric]} (at most {percent(verdict.high)}), below half of "
        f"the limit {percent(verdict.limit)} for {dwell_min} min"
    )


def of_command(command: Command) -> str:
    """``released by operator:ann: the list was cleaned``."""
    return f"{_DONE[command.command]} by {operator_of(command)}: {command.reason.strip() or 'no reason given'}"


def of_stage(following: str | None, accepted: int) -> str:
    """Why a campaign that warms up may do more: ``following`` is what, None for everything."""
    shown = (
        f"{accepted:,} messages were accepted in this stage, and no rate warns"
        if accepted
        else ("hardly anybody was left to show it, and no rate warns")
    )
    return f"{shown}: now {following}" if following else f"{shown}: it is warm"


def of_override_over(overridden: str, state: str) -> str:
    """Why a campaign that was allowed to send goes back to where policy has it."""
    return f"the override is over ({overridden}); the policy says {state}"


def operator_of(command: Command) -> str:
    """Who gave a command, in the form that decisions carry."""
    return command.by if command.by.startswith("operator:") else f"operator:{command.by}"


class Judged(NamedTuple):
    """Where a scope stood when it was judged: the rest of what a decision depends on, beside the windows."""

    state: State
    since: int
    e_values: Mapping[str, float]


def evidence_of(
    rule: str,
    metric: str,
    verdict: Verdict,
    rates: RatesSnapshot,
    windows: Mapping[str, Counts],
    judged: Judged,
    rest: Rest | None = None,
) -> Evidence:
    """Everything that one needs to check a decision, or to make it again.

    ``counts`` are all that the window holds, ``windows`` what was held against the scope, without zeros.
    ``without_burst`` is what is left of a breach when one burst counts once (:mod:`policy.bursts`), ``prior`` what
    other campaigns show, when the campaign's limits borrow from them.
    """
    counts = rates.windows.get(verdict.window)
    prior = rates.priors.get(EVERYWHERE, {}).get(metric)
    recent = [one for one in rates.recent if one.kind in (metric, None)]
    return {
        "rule": rule,
        "metric": metric,
        "window": verdict.window,
        "events": verdict.events,
        "trials": verdict.trials,
        "rate": verdict.rate,
        "interval": [verdict.low, verdict.high],
        "limit": verdict.limit,
        "e_value": verdict.evidence,
        "without_burst": None if rest is None else rest._asdict(),
        "prior": None if prior is None else msgspec.to_builtins(prior),
        "counts": None if counts is None else msgspec.to_builtins(counts),
        "windows": {name: _without_zeros(one) for name, one in windows.items()},
        "judged": {"state": judged.state, "since": judged.since, "e_values": dict(judged.e_values)},
        "recent": msgspec.to_builtins(recent[-_REFERENCES:]),
    }


def _without_zeros(counts: Counts) -> dict[str, int]:
    return {name: number for name, number in msgspec.structs.asdict(counts).items() if number}


def percent(share: float) -> str:
    """A share in per cent with two digits that mean something."""
    value = 100 * share
    return f"{value:.0f} %" if value >= 9.95 else f"{value:.2g} %" if value >= 0.0001 else "0 %"
