"""Reasons: the sentences with the numbers, and the evidence beside them, of every change of state."""

from typing import Any

import msgspec

from schemas.reputation import Command, RatesSnapshot, Verdict

_REFERENCES = 20
_SAID = {
    "hard_bounce": "messages bounced hard",
    "complaint": "messages were complained about",
    "trap_hit": "messages hit spam traps",
    "block": "answers of servers turned the sender away",
}
_DONE = {"isolate": "isolated", "release": "released", "retire": "retired"}

Evidence = dict[str, Any]  # Any: JSON, as it stands in Decision.evidence


def of_verdict(metric: str, verdict: Verdict, addition: str = "") -> str:
    """``7 of 213 messages bounced hard (3.3 %, at least 1.6 %), limit 2 %, window 24h``."""
    return (
        f"{verdict.events:,} of {verdict.trials:,} {_SAID[metric]} ({percent(verdict.rate)}, at least "
        f"{percent(verdict.low)}), limit {percent(verdict.limit)}, window {verdict.window}{addition}"
    )


def of_pristine_trap(hits: int) -> str:
    """Zero tolerance needs no rate."""
    messages = "1 message" if hits == 1 else f"{hits:,} messages"
    return f"{messages} hit a confirmed pristine trap, an address that nobody can have signed up; one is enough"


def of_recovery(metric: str, verdict: Verdict | None, dwell_min: int) -> str:
    """Why a restriction is taken back a step."""
    if verdict is None or metric not in _SAID:
        return f"all rates were below half of their limits for {dwell_min} min"
    if verdict.events == 0:
        return f"none of {verdict.trials:,} {_SAID[metric]} in window {verdict.window}, for {dwell_min} min"
    return (
        f"{verdict.events:,} of {verdict.trials:,} {_SAID[metric]} (at most {percent(verdict.high)}), below half of "
        f"the limit {percent(verdict.limit)} for {dwell_min} min"
    )


def of_command(command: Command) -> str:
    """``released by operator:ann: the list was cleaned``."""
    return f"{_DONE[command.command]} by {operator_of(command)}: {command.reason.strip() or 'no reason given'}"


def operator_of(command: Command) -> str:
    """Who gave a command, in the form that decisions carry."""
    return command.by if command.by.startswith("operator:") else f"operator:{command.by}"


def evidence_of(rule: str, metric: str, verdict: Verdict, rates: RatesSnapshot) -> Evidence:
    """Everything that one needs to check a decision."""
    counts = rates.windows.get(verdict.window)
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
        "counts": None if counts is None else msgspec.to_builtins(counts),
        "recent": msgspec.to_builtins(recent[-_REFERENCES:]),
    }


def percent(share: float) -> str:
    """A share in per cent with two digits that mean something."""
    value = 100 * share
    return f"{value:.0f} %" if value >= 9.95 else f"{value:.2g} %" if value >= 0.0001 else "0 %"
