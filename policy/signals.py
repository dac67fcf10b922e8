"""Signals: what rates, or the mere passing of time, say about a standing.  Where they lead is not decided here."""

from collections.abc import Callable, Mapping
from functools import partial

import msgspec

from policy.bursts import ALL_OF_IT, Rest, without_burst
from policy.reasons import Evidence, Judged, evidence_of, of_pristine_trap, of_recovery, of_traps, of_verdict, planted
from policy.standing import Standing, in_favour
from policy.transitions import Signal
from policy.verdicts import BREACH, GRAVE, METRICS, WARNING, interval, isolating_traps, verdicts
from schemas.reputation import Counts, RatesSnapshot, Verdict
from schemas.sending import Campaign, Limits

DWELL_MIN = 30
DWELL_MS = DWELL_MIN * 60_000
PAUSE_MS = 2 * 3_600_000
FRESH_MS = 10 * 60_000  # rates that are older take nothing back


class Found(msgspec.Struct, frozen=True):
    """A signal, what led to it, and what is said of it; its evidence is put together when a decision follows."""

    signal: Signal
    metric: str
    rule: str
    reason: str
    evidence: Callable[[], Evidence]


def is_clean(standing: Standing, limits: Limits) -> bool:
    """Is the metric that led here (or every one, if none is known) surely below half of its limit?

    When no event of it is left in a whole day, that is enough, however few messages there were.
    """
    answers = verdicts(in_favour(standing, standing.windows, standing.seen_at), limits)
    return all(
        one.high < one.limit / 2 or (one.events == 0 and standing.baseline_at is None)
        for metric, one in answers.items()
        if standing.rule not in METRICS or metric == standing.rule
    )


def in_rates(
    standing: Standing,
    campaign: Campaign,
    now: int,
    rates: RatesSnapshot,
    windows: Mapping[str, Counts],
    answers: Mapping[str, Verdict],
) -> list[Found]:
    """All signals in the rates; ``windows`` and ``answers`` hold what is to be judged of them."""
    found: list[Found] = []
    if campaign.pristine_trap == "isolate":
        window = max(windows, key=lambda name: windows[name].trap_hit_pristine, default="7d")
        hits = windows[window].trap_hit_pristine if windows else 0
        if hits > 0:
            verdict = _of_pristine(hits, windows[window], window)
            evidence = partial(evidence_of, "pristine_trap", "trap_hit", verdict, rates, windows, _judged(standing))
            reason = of_pristine_trap(hits, planted(rates.recent, "pristine"))
            found.append(Found("pristine_trap", "trap_hit", "pristine_trap", reason, evidence))
    for metric, verdict in answers.items():
        rest: Rest | None = None
        if verdict.answer == "breach":
            rest = without_burst(metric, verdict, windows, campaign.limits)
            if metric == "trap_hit":
                signal, addition = _breach_of_traps(standing, now, verdict, windows, campaign.limits, rest)
            else:
                signal, addition = _breach(standing, now, metric, verdict, campaign.limits, rest)
        elif verdict.evidence >= WARNING:
            signal, addition = "warning", "; not yet a breach"
        else:
            continue
        if metric == "trap_hit":
            reason = of_traps(verdict, windows, planted(rates.recent), addition)
        else:
            reason = of_verdict(metric, verdict, addition)
        evidence = partial(evidence_of, metric, metric, verdict, rates, windows, _judged(standing), rest)
        found.append(Found(signal, metric, metric, reason, evidence))
    return found


def _judged(standing: Standing) -> Judged:
    return Judged(state=standing.judged, since=standing.since, e_values=standing.evidence)


def _breach(
    standing: Standing, now: int, metric: str, verdict: Verdict, limits: Limits, rest: Rest
) -> tuple[Signal, str]:
    is_block = metric == "block"
    is_surely_twice = limits.judging == "sequential" and verdict.low >= 2 * verdict.limit
    is_grave = verdict.evidence >= GRAVE or is_surely_twice
    if is_grave and rest.stands:
        return "grave_block" if is_block else "grave", "; beyond doubt"
    has_grown = verdict.evidence > standing.evidence.get(metric, 0.0)
    if standing.judged == "throttled" and now - standing.since >= DWELL_MS and has_grown and rest.lasts:
        return "lasting_block" if is_block else "lasting", f"; it grew while throttled for {DWELL_MIN} min"
    return "breach", f"; up to {rest.burst} of them may have one cause, and the rest proves too little" * is_grave


def _breach_of_traps(
    standing: Standing, now: int, verdict: Verdict, windows: Mapping[str, Counts], limits: Limits, rest: Rest
) -> tuple[Signal, str]:
    """What is only suspected, or may be a slip of somebody's hand, throttles; the rest must be enough by itself."""
    signal, addition = _breach(standing, now, "trap_hit", verdict, limits, ALL_OF_IT)
    if signal == "breach":
        return signal, addition
    confirmed = isolating_traps(windows, limits)
    if confirmed.answer == "breach":
        return _breach(standing, now, "trap_hit", confirmed, limits, rest)
    return "breach", "; too little of it is confirmed to isolate"


def _of_pristine(hits: int, counts: Counts, window: str) -> Verdict:
    trials = max(hits, counts.accepted)
    low, high = interval(hits, trials)
    return Verdict(
        answer="breach",
        rate=hits / trials,
        low=low,
        high=high,
        limit=0.0,
        events=hits,
        trials=trials,
        window=window,
        evidence=BREACH,
    )


def in_time(standing: Standing, campaign: Campaign, now: int) -> Found | None:
    """What follows from time alone: a pause that is over, or half an hour of good rates."""
    if standing.judged == "paused":
        until = standing.since + PAUSE_MS if standing.until is None else standing.until
        if now < until:
            return None
        hours = round((until - standing.since) / 3_600_000, 1)
        reason = f"the pause of {hours:g} h is over; a tenth of the pace shows whether it has helped"
        return Found(
            "cooled_down", standing.rule, "cooled_down", reason, lambda: {"rule": "cooled_down", "paused_for_h": hours}
        )
    if standing.judged not in ("watched", "throttled") or standing.clean_since is None:
        return None
    begin = max(standing.since, standing.clean_since)
    if now - begin < DWELL_MS or now - standing.seen_at > FRESH_MS:
        return None
    windows = in_favour(standing, standing.windows, standing.seen_at)
    verdict = verdicts(windows, campaign.limits).get(standing.rule)
    evidence: Evidence = {"rule": "clean", "metric": standing.rule or None, "clean_since": standing.clean_since}
    if verdict is not None:
        evidence["verdict"] = msgspec.to_builtins(verdict)
    return Found("clean", standing.rule, "clean", of_recovery(standing.rule, verdict, DWELL_MIN), lambda: evidence)
