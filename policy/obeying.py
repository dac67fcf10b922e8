"""Obeying: what operators' commands do to a standing, and why one is refused.

What policy says and what operators say are two things; the stricter holds.  An operator who isolates a campaign adds
to what policy says, and a release takes both away.  An *override* is the one way around policy: for at most a day, and
with a reason, a campaign sends although it was stopped, while policy goes on judging in its shadow.  Against a
confirmed pristine trap it takes a second person, and so does releasing a campaign that policy isolated twice within a
month.
"""

from typing import assert_never

import msgspec

from policy.reasons import of_command, operator_of
from policy.standing import Ceiling, Standing, decided, with_baseline, with_command
from policy.transitions import RUNGS, SENDS, TRANSITIONS
from schemas.reputation import Command, Decision, State
from schemas.sending import Campaign

LONGEST_OVERRIDE_MS = 24 * 3_600_000
TWICE_WITHIN_MS = 30 * 86_400_000
OVERRIDDEN: State = "watched"  # where a campaign stands whose stop is overridden


def refusal(standing: Standing, command: Command) -> str | None:
    """Why a command will not be carried out, as a sentence for the operator; None when it will be."""
    if command.id in standing.commands:
        return "this command was carried out before; give it again to have it done again"
    match command.command:
        case "review" | "ceiling":
            return None
        case "release":
            return _refusal_to_release(standing, command)
        case "override":
            return _refusal_to_override(standing, command)
        case "isolate" | "retire":
            if RUNGS[standing.state] >= RUNGS["isolated" if command.command == "isolate" else "retired"]:
                return f"the campaign is {standing.state} already: {standing.reason}"
            return _overtaken(standing, command)
        case _:
            assert_never(command.command)


def _overtaken(standing: Standing, command: Command) -> str | None:
    if command.at < standing.commanded_at:
        return "a later command was carried out before this one arrived; look at the status and give it again"
    return None


def _refusal_to_release(standing: Standing, command: Command) -> str | None:
    if standing.state == "retired":
        return "a retired campaign stays retired; send under a new campaign id"
    is_nothing = standing.state == "healthy" and standing.shadow in (None, "healthy")
    if is_nothing and not standing.providers and standing.stage is None:
        return "the campaign is healthy; there is nothing to release it from"
    if command.at < (standing.since if standing.cause_at is None else standing.cause_at):
        return (
            f"the campaign became {standing.judged} after this command was given; look at the status and give it again"
        )
    recent = [at for at in standing.isolations if standing.since - at < TWICE_WITHIN_MS]
    if standing.judged == "isolated" and len(recent) > 1 and _second(command) is None:
        return (
            "the policy has isolated the campaign twice within 30 days; a second person has to agree "
            "(--approved-by NAME), or retire it"
        )
    return None


def _refusal_to_override(standing: Standing, command: Command) -> str | None:
    if standing.operator == "isolated" or standing.state == "retired":
        return f"an operator has {standing.state} the campaign, not the policy: there is nothing to override"
    if standing.state in SENDS and standing.state != "throttled":
        return f"the campaign is {standing.state} and sends; there is nothing to override"
    if command.until is None or not command.at < command.until <= command.at + LONGEST_OVERRIDE_MS:
        return "an override ends within 24 hours: give --for, such as 4h"
    if command.at < standing.since:
        return f"the campaign became {standing.judged} after this command was given; look at it and give it again"
    if standing.is_trapped and _second(command) is None:
        return "a confirmed pristine trap stopped the campaign; a second person has to agree (--approved-by NAME)"
    return _overtaken(standing, command)


def _second(command: Command) -> str | None:
    """Who else agreed."""
    second = (command.approved_by or "").removeprefix("operator:").strip()
    return second if second and second.lower() != command.by.removeprefix("operator:").strip().lower() else None


def obey(
    standing: Standing, scope: str, campaign: Campaign, now: int, command: Command
) -> tuple[Standing, Decision | None]:
    """Carry a command out, unless it is refused."""
    if refusal(standing, command) is not None:
        return standing, None
    match command.command:
        case "review" | "ceiling":
            return standing, None
        case "override":
            after = OVERRIDDEN
        case "release" if command.at_once:
            after = "healthy"
        case name:
            stands = standing.judged if standing.operator == "overridden" else standing.state
            after = TRANSITIONS[stands][name]
    before = standing.judged if standing.state == after else standing.state
    moved = _moved(standing, now, command, after)
    counts = standing.windows.get("24h")
    return moved, decided(
        moved,
        scope,
        campaign.campaign,
        before=before,
        after=after,
        rule=command.command,
        evidence={
            "rule": command.command,
            "window": "24h",
            "counts": None if counts is None else msgspec.to_builtins(counts),
            "overrides": standing.reason,
            **({"approved_by": second} if (second := _second(command)) else {}),
        },
        until=command.until if command.command == "override" else None,
        command_id=command.id,
    )


def _moved(standing: Standing, now: int, command: Command, after: State) -> Standing:
    moved = msgspec.structs.replace(
        with_command(standing, command.id, command.at),
        epoch=standing.epoch + 1,
        since=now,
        cause_at=command.at,
        reason=of_command(command),
        by=operator_of(command),
        clean_since=None,
        calm_since=None,
    )
    is_approved = _second(command) is not None
    return obeyed(standing, moved, command.command, after=after, at=now, until=command.until, is_approved=is_approved)


def obeyed(
    before: Standing, moved: Standing, word: str, *, after: State, at: int, until: int | None, is_approved: bool
) -> Standing:
    """What a command makes of a standing, live or read from its decision; ``moved`` says when, why and by whom."""
    moved = msgspec.structs.replace(
        moved,
        state=after,
        shadow=None,
        rule=word,
        until=None,
        pauses=0,
        evidence={},
        operator="enabled",
        under=None,
        override_until=None,
        is_approved=False,
        is_trapped=before.is_trapped and word != "release",
        stage=None,
    )
    match word:
        case "release":
            return msgspec.structs.replace(
                with_baseline(moved, at),
                windows={},
                providers={name: forgiven(one, at) for name, one in before.providers.items()},
                stage=0 if after == "throttled" else None,
                stage_since=at,
                stage_accepted=0,
                calm_since=at,
            )
        case "override":
            return msgspec.structs.replace(
                moved,
                shadow=before.judged,
                operator="overridden",
                override_until=until,
                is_approved=is_approved,
                rule=before.rule,
                until=before.until,
                pauses=before.pauses,
                evidence=before.evidence,
            )
        case "isolate":
            return msgspec.structs.replace(moved, operator="isolated", under=before.judged)
        case _:
            return moved


def forgiven(standing: Standing, now: int) -> Standing:
    """The standing at a provider when the campaign is released: what the provider has said so far counts no more."""
    forgiven = msgspec.structs.replace(
        standing, state="healthy", shadow=None, since=now, rule="", until=None, pauses=0, evidence={}, stage=None
    )
    return msgspec.structs.replace(with_baseline(forgiven, now), windows={})


def under_ceiling(
    standing: Standing, scope: str, campaign: Campaign, now: int, command: Command
) -> tuple[Standing, Decision | None]:
    """Take notice of what a wider scope allows; a decision if that changes what the campaign may do."""
    source, state = command.source, command.ceiling
    held = standing.ceilings.get(source or "")
    if source is None or state is None or (held is not None and command.at < held.at):
        return standing, None
    ceilings = {name: one for name, one in standing.ceilings.items() if name != source}
    if state != "healthy":
        ceilings[source] = Ceiling(state=state, reason=command.reason, at=command.at)
    before, after = effective(standing), effective(msgspec.structs.replace(standing, ceilings=ceilings))
    if before == after or campaign.dry_run:
        return msgspec.structs.replace(standing, ceilings=ceilings), None
    moved = msgspec.structs.replace(standing, ceilings=ceilings, epoch=standing.epoch + 1, held_since=now)
    decision = Decision(
        scope=scope,
        campaign=campaign.campaign,
        from_=before,
        to=after,
        at=now,
        epoch=moved.epoch,
        rule="ceiling",
        reason=f"{source}: {command.reason}",
        evidence={"rule": "ceiling", "source": source, "ceiling": state, "by_itself": standing.state},
    )
    return moved, decision


def dated(before: Standing, after: Standing) -> Standing:
    """The standing after a look at it, with the time since which what holds does; moves beneath a ceiling are none."""
    if after.since == before.since or not (before.ceilings or before.held_since):
        return after
    is_as_before = bool(before.ceilings) and effective(before) == effective(after)
    return msgspec.structs.replace(after, held_since=in_force_since(before) if is_as_before else None)


def in_force_since(standing: Standing) -> int:
    """Since when what holds does."""
    return standing.since if standing.held_since is None else standing.held_since


def effective(standing: Standing) -> State:
    """What holds: the stricter of what the campaign's own standing says and what wider scopes allow."""
    return max((standing.state, *(one.state for one in standing.ceilings.values())), key=RUNGS.__getitem__)
