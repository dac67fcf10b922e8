"""Retained: where a scope stood, as far as the decisions about it say.

A decision tells the new state, when, why and by whom, and in its evidence what follows for the next one; the rates
that were seen since it was made it does not tell.  So a standing is folded from decisions in their order, and whoever
has the counts of that time gives them beside (``seen``).
"""

import msgspec

from policy.auditing import REFUSED
from policy.judging import PROVIDER, TRIAL, its_rates
from policy.ladder import start
from policy.obeying import OVERRIDDEN, dated, effective, obeyed
from policy.standing import Ceiling, Standing, in_favour, with_baseline, with_command, with_rates
from policy.transitions import RUNGS
from policy.warming import STAGES
from schemas.reputation import Decision, RatesSnapshot, State

_ISOLATIONS_KEPT = 3
_TRAP = "pristine_trap"
_COMMANDS = ("isolate", "release", "retire", "override")


def campaign_as_decided(
    standing: Standing | None, scope: str, decision: Decision, seen: RatesSnapshot | None = None
) -> Standing:
    """A campaign's standing after a decision about it, about its mail to one provider, or by its shadow limits."""
    before = start(decision.at) if standing is None else standing
    if decision.rule == REFUSED:
        return before
    if seen is not None:
        before = _having_seen(before, seen)
    part = decision.scope.removeprefix(scope)
    if part == TRIAL:
        if seen is not None:  # its verdicts are by the limits in force
            seen = msgspec.structs.replace(seen, verdicts={})
        trial = as_decided(before.trial, msgspec.structs.replace(decision, dry_run=False), seen)
        return msgspec.structs.replace(before, trial=trial)
    if not part.startswith(PROVIDER):
        return as_decided(before, decision, seen)
    if decision.epoch <= before.epoch:
        return before
    name = part.removeprefix(PROVIDER)
    its_own = None if seen is None or name not in seen.providers else its_rates(scope, name, seen)
    providers = {**before.providers, name: as_decided(before.providers.get(name), decision, its_own)}
    if providers[name].judged == "healthy" and providers[name].baseline_at is None:
        del providers[name]
    return msgspec.structs.replace(before, epoch=decision.epoch, providers=providers)


def _having_seen(standing: Standing, seen: RatesSnapshot) -> Standing:
    """Rates are remembered of whatever is not healthy, whichever of it was decided about."""
    providers = {
        name: with_rates(one, its_rates(seen.scope, name, seen)) if name in seen.providers else one
        for name, one in standing.providers.items()
    }
    if standing.state == standing.judged == "healthy":
        return msgspec.structs.replace(standing, providers=providers)
    return msgspec.structs.replace(with_rates(standing, seen), providers=providers)


def as_decided(standing: Standing | None, decision: Decision, seen: RatesSnapshot | None = None) -> Standing:
    """The standing after a decision that was really made; an older one than those it knows changes nothing."""
    before = start(decision.at) if standing is None else standing
    if decision.epoch <= before.epoch or decision.rule == REFUSED:
        return before
    if seen is not None:
        before = with_rates(before, seen)
    if decision.rule == "ceiling":
        return _under_ceiling(before, decision)
    moved = msgspec.structs.replace(
        before,
        epoch=decision.epoch,
        since=decision.at,
        cause_at=decision.at,
        reason=decision.reason,
        by=decision.by,
        clean_since=None,
        calm_since=None,
    )
    if decision.command_id is not None:
        moved = with_command(moved, decision.command_id, decision.at)
    return dated(before, _moved(before, moved, decision, seen))


def _moved(before: Standing, moved: Standing, decision: Decision, seen: RatesSnapshot | None) -> Standing:
    if decision.rule in _COMMANDS:
        is_approved = "approved_by" in decision.evidence
        return obeyed(
            before,
            moved,
            decision.rule,
            after=decision.to,
            at=decision.at,
            until=decision.until,
            is_approved=is_approved,
        )
    if decision.rule == "override_over":
        return msgspec.structs.replace(
            moved,
            state=OVERRIDDEN if decision.dry_run else decision.to,
            shadow=decision.to if decision.dry_run else None,
            operator="enabled",
            override_until=None,
            is_approved=False,
            cause_at=before.cause_at,
            calm_since=before.calm_since,
            clean_since=before.clean_since,
        )
    return _judged(before, moved, decision, seen)


def _judged(before: Standing, moved: Standing, decision: Decision, seen: RatesSnapshot | None) -> Standing:
    """What policy decided."""
    after, at = decision.to, decision.at
    if decision.rule == _TRAP and before.operator == "overridden" and not before.is_approved:
        moved = msgspec.structs.replace(moved, operator="enabled", override_until=None)
    is_next_stage = decision.rule == "warmed" and after == "throttled"
    if not is_next_stage or before.judged != after:
        moved = _with_state(moved, after, is_shadowed=decision.dry_run)
    if is_next_stage:
        counts = in_favour(moved, moved.windows, moved.seen_at).get("24h")
        return msgspec.structs.replace(
            moved,
            stage=_stage(decision),
            stage_since=at,
            stage_accepted=0 if counts is None else counts.accepted,
            cause_at=before.cause_at,
            calm_since=before.calm_since,
            clean_since=before.clean_since,
        )
    has_relapsed = before.stage is not None and decision.from_ == after == "throttled"
    moved = msgspec.structs.replace(
        moved, stage=0 if has_relapsed else None, stage_since=at, stage_accepted=0, until=decision.until
    )
    if decision.rule == "cooled_down":
        moved = msgspec.structs.replace(with_baseline(moved, at), stage=0, calm_since=at)
    is_worse = RUNGS[after] > RUNGS[decision.from_]
    return msgspec.structs.replace(
        moved,
        rule=_rule(before, decision),
        pauses=before.pauses + 1 if after == "paused" else 0 if after == "healthy" else before.pauses,
        isolations=[*before.isolations, at][-_ISOLATIONS_KEPT:] if after == "isolated" else before.isolations,
        is_trapped=decision.rule == _TRAP or (before.is_trapped and RUNGS[after] >= RUNGS[decision.from_]),
        evidence=_e_values(decision, seen) if is_worse else {},
        windows={} if after == "healthy" else moved.windows,
    )


def _with_state(standing: Standing, state: State, *, is_shadowed: bool) -> Standing:
    if is_shadowed:
        return msgspec.structs.replace(standing, shadow=state)
    return msgspec.structs.replace(standing, state=state, shadow=None)


def _stage(decision: Decision) -> int:
    stage = decision.evidence.get("stage")
    return stage if isinstance(stage, int) and 0 <= stage < len(STAGES) else 0


def _rule(before: Standing, decision: Decision) -> str:
    """The metric by which it stands where it does."""
    if decision.to == "healthy":
        return ""
    metric = decision.evidence.get("metric")
    return metric if isinstance(metric, str) else before.rule


def _e_values(decision: Decision, seen: RatesSnapshot | None) -> dict[str, float]:
    """The evidence that it was decided on; of other metrics than its own only the counts know."""
    known = {} if seen is None else {metric: one.evidence for metric, one in seen.verdicts.items()}
    metric, value = decision.evidence.get("metric"), decision.evidence.get("e_value")
    return {**known, metric: float(value)} if isinstance(metric, str) and isinstance(value, int | float) else known


def _under_ceiling(before: Standing, decision: Decision) -> Standing:
    """What a wider scope allows; which one, what, and by which word, is in the evidence and the reason."""
    source = str(decision.evidence.get("source", ""))
    ceilings = {name: one for name, one in before.ceilings.items() if name != source}
    state = _ceiling(decision, effective(msgspec.structs.replace(before, ceilings=ceilings)))
    if state != "healthy":
        reason = decision.reason.removeprefix(f"{source}: ")
        ceilings[source] = Ceiling(state=state, reason=reason, at=decision.at)
    return msgspec.structs.replace(before, ceilings=ceilings, epoch=decision.epoch, held_since=decision.at)


def _ceiling(decision: Decision, without: State) -> State:
    """What the source allows; older decisions say only what holds then, be it by the source or ``without`` it."""
    said = decision.evidence.get("ceiling")
    for state in RUNGS:
        if said == state:
            return state
    is_by_source = decision.to != without and RUNGS[decision.to] >= RUNGS["throttled"]
    return decision.to if is_by_source else "healthy"
