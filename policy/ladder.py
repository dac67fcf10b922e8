"""The ladder: healthy, watched, throttled, paused, isolated, retired, and how a campaign moves on it.

Signals are found in rates, in time and in commands (:mod:`policy.signals`); where they lead is one table
(:mod:`policy.transitions`); here the standing is moved and the decision written.

Rates that are older than those already seen change nothing, so a replay cannot release anybody; a command is carried
out once, and a release only if it was given after what it releases from.  In dry run policy moves only the shadow
(see :mod:`policy.standing`); an operator's word counts.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from policy.narrowing import is_narrowed, without
from policy.obeying import OVERRIDDEN, effective, obey, refusal, under_ceiling
from policy.priors import EVERYWHERE
from policy.reasons import of_override_over, of_stage
from policy.signals import FRESH_MS, PAUSE_MS, Found, in_rates, in_time, is_clean
from policy.standing import (
    Standing,
    against,
    decided,
    in_favour,
    is_old,
    with_baseline,
    with_rates,
    without_old_baseline,
)
from policy.transitions import RUNGS, SENDS, TRANSITIONS
from policy.verdicts import METRICS, verdicts
from policy.warming import ENGAGED_MS, STAGES, is_over, paced
from schemas.reputation import Command, Control, Counts, Decision, Narrowed, RatesSnapshot, State
from schemas.sending import Campaign, Pace

__all__ = ["CALM", "Around", "Standing", "control", "refusal", "start", "step", "throttled"]

LONGEST_PAUSE_MS = 24 * 3_600_000
STALE_MS = 3_600_000  # rates that are older decide nothing
THROTTLED_TO = 0.1
_ISOLATIONS_KEPT = 3


@dataclass(frozen=True, slots=True)
class Around:
    """What holds for all campaigns: whether the automation is stopped, and why nobody may be isolated by it now."""

    is_stopped: bool = False
    capped: str | None = None


CALM = Around()
_NOTHING: Mapping[str, Counts] = {}


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
    around: Around = CALM,
    left_out: Mapping[str, Counts] = _NOTHING,
) -> tuple[Standing, Decision | None]:
    """Take notice of rates or a command (``review``: of the time), and decide whether the state changes.

    With an operator's command the rates are only remembered.  A command that makes no decision has a reason for it:
    :func:`refusal`.  ``left_out`` are answers, by window, that a smaller scope is judged by.
    """
    if standing.shadow is not None and not _is_shadowed(standing, campaign, around):
        standing = msgspec.structs.replace(standing, shadow=None)
    if rates is not None and (is_old(standing, rates) or now - rates.at > STALE_MS):
        rates = None
    if command is not None and command.command != "review":
        known = standing if rates is None else with_rates(standing, rates)
        act = under_ceiling if command.command == "ceiling" else obey
        return act(known, scope, campaign, now, command)
    if standing.override_until is not None and now >= standing.override_until:
        return _override_over(standing, scope, campaign, now)
    if rates is not None:
        standing, found = _judge(standing, campaign, now, rates, around, left_out)
        if found is not None:
            return _move(standing, scope, campaign, now, rates.at, found, around)
    found = in_time(standing, campaign, now)
    if found is not None:
        return _move(standing, scope, campaign, now, now, found, around)
    return _warm(standing, scope, campaign, now, around)


def _is_shadowed(standing: Standing, campaign: Campaign, around: Around) -> bool:
    """Does policy move only the shadow?"""
    return campaign.dry_run or around.is_stopped or standing.operator == "overridden"


def control(standing: Standing, campaign: Campaign, now: int) -> Control:
    """What the campaign's sender may do."""
    state, reason = standing.state if campaign.dry_run else effective(standing), standing.reason
    if state != standing.state:
        source, ceiling = max(standing.ceilings.items(), key=lambda pair: RUNGS[pair[1].state])
        reason = f"{source}: {ceiling.reason}"
    elif standing.operator == "overridden":
        reason = f"{reason} (the policy says {standing.judged})"
    elif standing.shadow is not None:
        reason = f"dry run, would be {standing.shadow}: {reason}"
    stage = STAGES[standing.stage] if standing.stage is not None and state == "throttled" else None
    share = 1.0 if state in ("healthy", "watched") else THROTTLED_TO if stage is None else stage.share
    return Control(
        campaign=campaign.campaign,
        epoch=standing.epoch,
        may_send=state in SENDS,
        pace=campaign.pace if share == 1.0 else paced(campaign.pace, share),
        state=state,
        reason=reason,
        at=now,
        system=standing.judged if standing.under is None else standing.under,
        operator=standing.operator,
        by=standing.by,
        providers={
            name: Narrowed(
                may_send=one.state in SENDS,
                pace=throttled(campaign.pace),
                state=one.state,
                reason=one.reason,
                until=one.until,
            )
            for name, one in standing.providers.items()
            if is_narrowed(one.state)
        },
        engaged_since=standing.stage_since - ENGAGED_MS if stage is not None and stage.engaged_only else None,
        rule=_rule(standing, state),
    )


def _rule(standing: Standing, state: State) -> str:
    """What led to where the campaign is, in a word."""
    if state != standing.state:
        return "ceiling"
    return "pristine_trap" if standing.is_trapped and standing.rule == "trap_hit" else standing.rule


def throttled(pace: Pace) -> Pace:
    """A tenth of a pace, at least one message per second, never more than before; 10 per second if it has no limit."""
    return paced(pace, THROTTLED_TO)


def _judge(
    standing: Standing,
    campaign: Campaign,
    now: int,
    rates: RatesSnapshot,
    around: Around,
    left_out: Mapping[str, Counts],
) -> tuple[Standing, Found | None]:
    """Take notice of rates: the signal that leads furthest up from here, if any, and else since when all is well.

    A healthy standing is left as it is, so that a healthy campaign costs no write.
    """
    standing = without_old_baseline(standing, rates.at)
    is_healthy = standing.state == standing.judged == "healthy"
    if not is_healthy or (standing.baseline_at is not None and not standing.baseline):
        standing = with_rates(standing, rates)
    windows = against(standing, rates.windows, rates.at)
    if left_out:
        windows = without(windows, left_out)
    answers = rates.verdicts
    if standing.baseline_at is not None or left_out or not METRICS.keys() <= answers.keys():
        answers = verdicts(windows, campaign.limits, rates.priors.get(EVERYWHERE, {}))
    found = in_rates(standing, campaign, now, rates, windows, answers)
    if around.capped is not None and not _is_shadowed(standing, campaign, around):
        found = [_capped(standing, one, around.capped) for one in found]
    rungs = [RUNGS[TRANSITIONS[standing.judged][one.signal]] for one in found]
    if rungs and max(rungs) > RUNGS[standing.judged]:
        evidence = {metric: one.evidence for metric, one in answers.items()}
        return msgspec.structs.replace(with_rates(standing, rates), evidence=evidence), found[rungs.index(max(rungs))]
    if is_healthy:
        return standing, None
    relapse = next((one for one in found if one.signal != "warning"), None)
    if relapse is not None and standing.stage and standing.judged == "throttled":
        return with_rates(standing, rates), msgspec.structs.replace(relapse, signal="breach")
    is_well = not found and is_clean(standing, campaign.limits)
    return msgspec.structs.replace(
        standing,
        clean_since=(standing.clean_since or rates.at) if is_well else None,
        calm_since=None if found else (standing.calm_since or rates.at),
    ), None


def _capped(standing: Standing, found: Found, why: str) -> Found:
    """A signal that would isolate, while the policy may not isolate anybody: it throttles, and a person is asked."""
    if TRANSITIONS[standing.judged][found.signal] != "isolated" or standing.judged == "isolated":
        return found
    return Found(
        "breach",
        found.metric,
        found.rule,
        f"{found.reason}; to be isolated, but {why}: isolate it by hand, or look what is wrong",
        lambda: {**found.evidence(), "wanted": "isolated", "cap": why},
    )


def _move(
    standing: Standing, scope: str, campaign: Campaign, now: int, cause_at: int, found: Found, around: Around
) -> tuple[Standing, Decision]:
    ends_override = found.signal == "pristine_trap" and standing.operator == "overridden" and not standing.is_approved
    if ends_override:  # nobody agreed to that
        standing = msgspec.structs.replace(standing, operator="enabled", override_until=None)
    before = standing.judged
    after = TRANSITIONS[before][found.signal]
    is_shadowed = _is_shadowed(standing, campaign, around)
    pauses = standing.pauses + 1 if after == "paused" else 0 if after == "healthy" else standing.pauses
    until = now + min(PAUSE_MS << min(pauses - 1, 10), LONGEST_PAUSE_MS) if after == "paused" else None
    if found.signal == "cooled_down":
        standing = msgspec.structs.replace(with_baseline(standing, now), stage=0, stage_since=now, stage_accepted=0)
    else:  # trouble of any kind begins the warming up anew, or ends it
        has_relapsed = standing.stage is not None and before == after == "throttled"
        standing = msgspec.structs.replace(
            standing, stage=0 if has_relapsed else None, stage_since=now, stage_accepted=0
        )
    isolations = standing.isolations
    if after == "isolated":
        isolations = [*isolations, now][-_ISOLATIONS_KEPT:]
    moved = msgspec.structs.replace(
        standing,
        state=standing.state if is_shadowed else after,
        shadow=after if is_shadowed else None,
        epoch=standing.epoch + 1,
        since=now,
        cause_at=cause_at,
        rule="" if after == "healthy" else found.metric,
        reason=found.reason,
        by="policy",
        until=until,
        clean_since=None,
        calm_since=now if found.signal == "cooled_down" else None,
        pauses=pauses,
        isolations=isolations,
        is_trapped=found.rule == "pristine_trap" or (standing.is_trapped and RUNGS[after] >= RUNGS[before]),
        evidence=standing.evidence if RUNGS[after] > RUNGS[before] else {},
        windows={} if after == "healthy" else standing.windows,
    )
    return moved, decided(
        moved,
        scope,
        campaign.campaign,
        before=before,
        after=after,
        rule=found.rule,
        evidence=found.evidence(),
        until=until,
        dry_run=is_shadowed,
    )


def _warm(
    standing: Standing, scope: str, campaign: Campaign, now: int, around: Around
) -> tuple[Standing, Decision | None]:
    """The next stage of warming up, when the one before has shown what it had to."""
    if standing.stage is None or standing.judged != "throttled":
        return standing, None
    counts = in_favour(standing, standing.windows, standing.seen_at).get("24h")
    so_far = 0 if counts is None else counts.accepted
    accepted = max(0, so_far - standing.stage_accepted)
    if accepted and now - standing.seen_at > FRESH_MS:
        return standing, None
    if not is_over(began=standing.stage_since, calm_since=standing.calm_since, accepted=accepted, now=now):
        return standing, None
    following = standing.stage + 1
    reason = of_stage(STAGES[following].says if following < len(STAGES) else None, accepted)
    evidence = {"rule": "warmed", "stage": following, "accepted": accepted, "calm_since": standing.calm_since}
    if following == len(STAGES):
        return _move(
            standing, scope, campaign, now, now, Found("warmed", "", "warmed", reason, lambda: evidence), around
        )
    moved = msgspec.structs.replace(
        standing,
        stage=following,
        stage_since=now,
        stage_accepted=so_far,
        epoch=standing.epoch + 1,
        since=now,
        reason=reason,
        by="policy",
    )
    return moved, decided(
        moved,
        scope,
        campaign.campaign,
        before="throttled",
        after="throttled",
        rule="warmed",
        evidence=evidence,
        dry_run=_is_shadowed(standing, campaign, around),
    )


def _override_over(standing: Standing, scope: str, campaign: Campaign, now: int) -> tuple[Standing, Decision]:
    """An override ends: what policy said meanwhile holds."""
    after = standing.judged
    reason = of_override_over(standing.reason, after)
    moved = msgspec.structs.replace(
        standing,
        state=OVERRIDDEN if campaign.dry_run else after,
        shadow=after if campaign.dry_run else None,
        operator="enabled",
        override_until=None,
        is_approved=False,
        epoch=standing.epoch + 1,
        since=now,
        reason=reason,
        by="policy",
    )
    return moved, decided(
        moved,
        scope,
        campaign.campaign,
        before=standing.state,
        after=after,
        rule="override_over",
        evidence={"rule": "override_over", "overrides": standing.reason},
        dry_run=campaign.dry_run,
    )
