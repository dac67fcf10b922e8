"""Standing: what is remembered of a campaign (or another scope) between two looks at it.

It is a table value, so it is plain data.  Two things deserve a word.

The shadow: a campaign in dry run is judged like any other, but only its shadow moves; ``state``, by which its sender
goes, stays.

The baseline: when an operator releases a campaign, or a pause is over, the windows still hold what led to it.  From
then on only what is new is judged.  A window that began after that moment holds nothing old and is taken as it is.
In a longer one, events are counted above those known at that moment.  Against the campaign they stand beside all
trials of the window: old minutes that leave it meanwhile can only make the case weaker, and a signal that comes late
for an old message has its message among the trials.  In its favour they stand beside new trials alone.  After seven
days nothing old is left and the baseline is forgotten.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from policy.counts import MINUTE_MS, VECTOR, WINDOWS_MIN
from schemas.reputation import Counts, Decision, OperatorState, RatesSnapshot, State

_COMMANDS_KEPT = 20
_MADE_ANEW_MS = 3_600_000
_EVENTS = (
    *("hard_bounce", "block", "complaint"),
    *("trap_hit", "trap_hit_pristine", "trap_hit_recycled", "trap_hit_typo", "trap_weight"),
)
_NOTHING = Counts()


class Ceiling(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The most that a scope allows the campaigns in it."""

    state: State
    reason: str
    at: int


class Standing(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a scope stands.

    ``epoch`` grows with every decision.  ``since`` is when the newest decision was made, ``cause_at`` the time of the
    rates or the command that led to it, ``rule`` the metric or word by which it was made.  ``until`` is the end of a
    pause, ``pauses`` how many there were since the scope was last healthy.  ``evidence`` are the e-values at the
    newest decision.  ``clean_since`` is the time from which the rates have been good enough to go back a step.
    ``windows``, ``seen_at`` and ``applied`` are from the newest rates seen while not healthy.  ``commands`` are the
    ids of the newest commands carried out, ``commanded_at`` the time of the newest.

    ``operator`` is what operators say.  While they have isolated the campaign, ``under`` is where policy had it; while
    they have overridden policy, which ends at ``override_until``, policy moves the shadow, and ``is_approved`` says
    that a second person agreed.  ``isolations`` are the times at which policy isolated it, the newest three;
    ``is_trapped`` says that a confirmed pristine trap led to where it is.

    ``stage`` counts the steps of its warming up, which began at ``stage_since`` with ``stage_accepted`` messages;
    ``calm_since`` is the time from which no rate has warned.  ``providers`` are the standings at single providers that
    do not want it, ``ceilings`` what wider scopes allow, by scope; ``trial`` is where it would stand by its shadow
    limits.  ``held_since`` is when what holds began to hold, where that is not ``since``: wider scopes have their own
    time, and so has a campaign beneath them.
    """

    epoch: int
    since: int
    reason: str
    state: State = "healthy"
    by: str = "policy"
    rule: str = ""
    until: int | None = None
    shadow: State | None = None
    cause_at: int | None = None
    clean_since: int | None = None
    pauses: int = 0
    evidence: dict[str, float] = {}
    windows: dict[str, Counts] = {}
    seen_at: int = 0
    applied: list[int] = []
    baseline: dict[str, Counts] = {}
    baseline_at: int | None = None
    commands: list[str] = []
    commanded_at: int = 0
    operator: OperatorState = "enabled"
    under: State | None = None
    override_until: int | None = None
    is_approved: bool = False
    isolations: list[int] = []
    is_trapped: bool = False
    stage: int | None = None
    stage_since: int = 0
    stage_accepted: int = 0
    calm_since: int | None = None
    providers: "dict[str, Standing]" = {}
    ceilings: dict[str, Ceiling] = {}
    held_since: int | None = None
    trial: "Standing | None" = None

    @property
    def judged(self) -> State:
        """The state that policy goes by: the shadow's, in dry run."""
        return self.state if self.shadow is None else self.shadow


def is_old(standing: Standing, rates: RatesSnapshot) -> bool:
    """Were these rates, or newer ones, seen before?  Rates that are repeated exactly are not old, only harmless.

    The offsets that they were made from tell the order, whatever the clocks of two workers say, unless they go back
    an hour or more after the newest: then their topics were made anew.
    """
    if standing.applied and len(rates.applied) == len(standing.applied) and rates.applied != standing.applied:
        went_back = any(now < then for now, then in zip(rates.applied, standing.applied, strict=True))
        return went_back and rates.at - standing.seen_at < _MADE_ANEW_MS
    return rates.at < standing.seen_at


def with_rates(standing: Standing, rates: RatesSnapshot) -> Standing:
    """Remember the newest rates; a baseline that waits for its counts takes them from here."""
    awaited = standing.baseline_at is not None and not standing.baseline
    return msgspec.structs.replace(
        standing,
        windows=rates.windows,
        seen_at=max(rates.at, standing.seen_at),
        applied=rates.applied,
        baseline=rates.windows if awaited else standing.baseline,
    )


def with_baseline(standing: Standing, now: int) -> Standing:
    """From now on judge only what is new.  When no counts are known yet, the next rates set the line."""
    return msgspec.structs.replace(standing, baseline=standing.windows, baseline_at=now)


def with_command(standing: Standing, command_id: str, at: int) -> Standing:
    """Remember a command that was carried out."""
    commands = [*standing.commands, command_id][-_COMMANDS_KEPT:]
    return msgspec.structs.replace(standing, commands=commands, commanded_at=max(at, standing.commanded_at))


def decided(
    moved: Standing,
    scope: str,
    campaign: str,
    *,
    before: State,
    after: State,
    rule: str,
    evidence: dict[str, Any],
    until: int | None = None,
    dry_run: bool = False,
    command_id: str | None = None,
) -> Decision:
    """The decision by which a standing has just moved: its time, epoch, reason and author are the standing's."""
    return Decision(
        scope=scope,
        campaign=campaign,
        from_=before,
        to=after,
        at=moved.since,
        epoch=moved.epoch,
        rule=rule,
        reason=moved.reason,
        evidence=evidence,
        until=until,
        by=moved.by,
        dry_run=dry_run,
        command_id=command_id,
    )


def against(standing: Standing, windows: Mapping[str, Counts], at: int) -> dict[str, Counts]:
    """What may be held against a scope of windows as they were at ``at``: new events, out of all trials."""
    return _since_baseline(standing, windows, at, _EVENTS)


def in_favour(standing: Standing, windows: Mapping[str, Counts], at: int) -> dict[str, Counts]:
    """What may be said for it: new events, out of new trials alone, so that old mail does not dilute them."""
    return _since_baseline(standing, windows, at, VECTOR)


def _since_baseline(
    standing: Standing, windows: Mapping[str, Counts], at: int, fields: tuple[str, ...]
) -> dict[str, Counts]:
    if standing.baseline_at is None:
        return dict(windows)
    begin = standing.baseline_at // MINUTE_MS
    end = at // MINUTE_MS
    new: dict[str, Counts] = {}
    for name, counts in windows.items():
        known = standing.baseline.get(name, _NOTHING)
        is_all_new = end - WINDOWS_MIN.get(name, 0) >= begin
        new[name] = counts if is_all_new else _above(counts, known, fields)
    return new


def without_old_baseline(standing: Standing, at: int) -> Standing:
    """Forget a baseline when even the longest window has nothing from before it."""
    if standing.baseline_at is None:
        return standing
    if at // MINUTE_MS - max(WINDOWS_MIN.values()) < standing.baseline_at // MINUTE_MS:
        return standing
    return msgspec.structs.replace(standing, baseline={}, baseline_at=None)


def _above(counts: Counts, known: Counts, fields: tuple[str, ...]) -> Counts:
    return msgspec.structs.replace(
        counts, **{name: max(0, getattr(counts, name) - getattr(known, name)) for name in fields}
    )
