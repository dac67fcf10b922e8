"""The ladder: healthy, watched, throttled, paused, isolated, retired, and how a campaign moves on it.

Signals are found in rates, in time and in commands (:mod:`policy.signals`); where they lead is one table
(:mod:`policy.transitions`); here the standing is moved and the decision written.

Rates that are older than those already seen change nothing, so a replay cannot release anybody; a command is carried
out once, and a release only if it was given after what it releases from.  In dry run policy moves only the shadow
(see :mod:`policy.standing`); an operator's word counts.
"""

from typing import assert_never

import msgspec

from policy.reasons import of_command, operator_of
from policy.signals import PAUSE_MS, Found, in_rates, in_time, is_clean
from policy.standing import (
    Standing,
    against,
    is_old,
    with_baseline,
    with_command,
    with_rates,
    without_old_baseline,
)
from policy.transitions import RUNGS, SENDS, TRANSITIONS
from policy.verdicts import METRICS, verdicts
from schemas.reputation import Command, Control, Decision, RatesSnapshot
from schemas.sending import Campaign, Pace

__all__ = ["Standing", "control", "refusal", "start", "step", "throttled"]

LONGEST_PAUSE_MS = 24 * 3_600_000
THROTTLED_TO = 0.1
THROTTLED_AT_LEAST_PER_S = 1.0
THROTTLED_WITHOUT_LIMIT_PER_S = 10.0


def start(now: int) -> Standing:
    """The standing of a campaign that nobody has judged yet."""
    return Standing(epoch=1, since=now, reason="new; nothing is known against it")


def step(
    standing: Standing,
    *,
    scope: str,
    campaign: Campaign,
    now: int,
    rates: RatesSnapshot | None = None,
    command: Command | None = None,
) -> tuple[Standing, Decision | None]:
    """Take notice of rates or a command (``review``: of the time), and decide whether the state changes.

    With an operator's command the rates are only remembered.  A command that makes no decision has a reason for it:
    :func:`refusal`.
    """
    if standing.shadow is not None and not campaign.dry_run:
        standing = msgspec.structs.replace(standing, shadow=None)
    if rates is not None and is_old(standing, rates):
        rates = None
    if command is not None and command.command != "review":
        known = standing if rates is None else with_rates(standing, rates)
        return _obey(known, scope, campaign, now, command)
    if rates is not None:
        standing, found = _judge(standing, campaign, now, rates)
        if found is not None:
            return _move(standing, scope, campaign, now, rates.at, found)
    found = in_time(standing, campaign, now)
    if found is not None:
        return _move(standing, scope, campaign, now, now, found)
    return standing, None


def control(standing: Standing, campaign: Campaign, now: int) -> Control:
    """What the campaign's sender may do."""
    reason = standing.reason
    if standing.shadow is not None:
        reason = f"dry run, would be {standing.shadow}: {reason}"
    return Control(
        campaign=campaign.campaign,
        epoch=standing.epoch,
        may_send=standing.state in SENDS,
        pace=campaign.pace if standing.state in ("healthy", "watched") else throttled(campaign.pace),
        state=standing.state,
        reason=reason,
        at=now,
    )


def throttled(pace: Pace) -> Pace:
    """A tenth of a pace, at least one message per second, never more than before; 10 per second if it has no limit."""
    cut = max(THROTTLED_AT_LEAST_PER_S, pace.per_second * THROTTLED_TO)
    return Pace(
        per_second=min(cut, pace.per_second) if pace.per_second > 0 else THROTTLED_WITHOUT_LIMIT_PER_S,
        connections=max(1, int(pace.connections * THROTTLED_TO)),
    )


def refusal(standing: Standing, command: Command) -> str | None:
    """Why a command will not be carried out, as a sentence for the operator; None when it will be."""
    if command.id in standing.commands:
        return "this command was carried out before; give it again to have it done again"
    match command.command:
        case "review":
            return None
        case "release":
            return _refusal_to_release(standing, command)
        case "isolate" | "retire":
            if RUNGS[standing.state] >= RUNGS["isolated" if command.command == "isolate" else "retired"]:
                return f"the campaign is {standing.state} already: {standing.reason}"
            if command.at < standing.commanded_at:
                return "a later command was carried out before this one arrived; look at the status and give it again"
            return None
        case _:
            assert_never(command.command)


def _refusal_to_release(standing: Standing, command: Command) -> str | None:
    if standing.state == "retired":
        return "a retired campaign stays retired; send under a new campaign id"
    if standing.state == "healthy" and standing.shadow in (None, "healthy"):
        return "the campaign is healthy; there is nothing to release it from"
    if command.at < (standing.since if standing.cause_at is None else standing.cause_at):
        return (
            f"the campaign became {standing.judged} after this command was given; look at the status and give it again"
        )
    return None


def _obey(
    standing: Standing, scope: str, campaign: Campaign, now: int, command: Command
) -> tuple[Standing, Decision | None]:
    if command.command == "review" or refusal(standing, command) is not None:
        return standing, None
    after = TRANSITIONS[standing.state][command.command]
    before = standing.judged if standing.state == after else standing.state
    reason = of_command(command)
    counts = standing.windows.get("24h")
    moved = msgspec.structs.replace(
        with_command(standing, command.id, command.at),
        state=after,
        shadow=None,
        epoch=standing.epoch + 1,
        since=now,
        cause_at=command.at,
        rule=command.command,
        reason=reason,
        by=operator_of(command),
        until=None,
        clean_since=None,
        pauses=0,
        evidence={},
    )
    if command.command == "release":
        moved = msgspec.structs.replace(with_baseline(moved, now), windows={})
    decision = Decision(
        scope=scope,
        campaign=campaign.campaign,
        from_=before,
        to=after,
        at=now,
        epoch=moved.epoch,
        rule=command.command,
        reason=reason,
        evidence={
            "rule": command.command,
            "window": "24h",
            "counts": None if counts is None else msgspec.to_builtins(counts),
            "overrides": standing.reason,
        },
        by=moved.by,
        command_id=command.id,
    )
    return moved, decision


def _judge(standing: Standing, campaign: Campaign, now: int, rates: RatesSnapshot) -> tuple[Standing, Found | None]:
    """Take notice of rates: the signal that leads furthest up from here, if any, and else since when all is well.

    A healthy standing is left as it is, so that a healthy campaign costs no write.
    """
    standing = without_old_baseline(standing, rates.at)
    is_healthy = standing.state == standing.judged == "healthy"
    if not is_healthy or (standing.baseline_at is not None and not standing.baseline):
        standing = with_rates(standing, rates)
    windows = against(standing, rates.windows, rates.at)
    answers = rates.verdicts
    if standing.baseline_at is not None or not METRICS.keys() <= answers.keys():
        answers = verdicts(windows, campaign.limits)
    found = in_rates(standing, campaign, now, rates, windows, answers)
    rungs = [RUNGS[TRANSITIONS[standing.judged][one.signal]] for one in found]
    if rungs and max(rungs) > RUNGS[standing.judged]:
        evidence = {metric: one.evidence for metric, one in answers.items()}
        return msgspec.structs.replace(with_rates(standing, rates), evidence=evidence), found[rungs.index(max(rungs))]
    if is_healthy:
        return standing, None
    is_well = not found and is_clean(standing, campaign.limits)
    clean_since = (standing.clean_since or rates.at) if is_well else None
    return msgspec.structs.replace(standing, clean_since=clean_since), None


def _move(
    standing: Standing, scope: str, campaign: Campaign, now: int, cause_at: int, found: Found
) -> tuple[Standing, Decision]:
    before = standing.judged
    after = TRANSITIONS[before][found.signal]
    pauses = standing.pauses + 1 if after == "paused" else 0 if after == "healthy" else standing.pauses
    until = now + min(PAUSE_MS << min(pauses - 1, 10), LONGEST_PAUSE_MS) if after == "paused" else None
    if found.signal == "cooled_down":
        standing = with_baseline(standing, now)
    moved = msgspec.structs.replace(
        standing,
        state=standing.state if campaign.dry_run else after,
        shadow=after if campaign.dry_run else None,
        epoch=standing.epoch + 1,
        since=now,
        cause_at=cause_at,
        rule="" if after == "healthy" else found.metric,
        reason=found.reason,
        by="policy",
        until=until,
        clean_since=None,
        pauses=pauses,
        evidence=standing.evidence if RUNGS[after] > RUNGS[before] else {},
        windows={} if after == "healthy" else standing.windows,
    )
    decision = Decision(
        scope=scope,
        campaign=campaign.campaign,
        from_=before,
        to=after,
        at=now,
        epoch=moved.epoch,
        rule=found.rule,
        reason=found.reason,
        evidence=found.evidence,
        until=until,
        dry_run=campaign.dry_run,
    )
    return moved, decision
