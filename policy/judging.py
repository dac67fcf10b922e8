"""Judging: everything that one look at a campaign decides.

Beside the ladder of the campaign itself (:mod:`policy.ladder`) these are

- **single providers**: blocks are one server's opinion.  A provider that turns a campaign away is judged by its own
  answers, on the same ladder, and only mail to it is slowed or paused.  What such a provider said is then left out of
  the campaign's own rate of blocks: the smallest scope that explains the trouble answers for it.  So is what a
  provider says that turns away everybody (:mod:`policy.priors`).
- **the trial**: where the campaign would stand by its shadow limits.  Its decisions are published under a scope of
  their own, marked as dry run, and followed by nothing.

The live judge and the backtest both call :func:`judge`, so that they cannot differ.
"""

from collections.abc import Mapping, Set

import msgspec

from policy.ladder import CALM, Around, Standing, start, step
from policy.narrowing import answers_of, is_narrowed
from policy.obeying import dated
from policy.priors import EVERYWHERE
from policy.standing import against
from schemas.reputation import Command, Counts, Decision, RatesSnapshot
from schemas.sending import Campaign

TRIAL = "/shadow"
PROVIDER = "/provider:"


def judge(
    standing: Standing,
    *,
    scope: str,
    campaign: Campaign,
    now: int,
    rates: RatesSnapshot | None = None,
    command: Command | None = None,
    around: Around = CALM,
) -> tuple[Standing, list[Decision]]:
    """Take notice of rates or a command; the decisions come in the order of their epochs."""
    before = standing
    decisions: list[Decision] = []
    left_out: dict[str, Counts] = {}
    is_ours = command is None or command.command == "review"
    if is_ours and (standing.providers or (rates is not None and rates.providers)):
        standing, found = _providers(standing, scope, campaign, now, rates, around)
        decisions += found
        if rates is not None:
            left_out = _left_out(standing, rates, _excused(before, scope, campaign, now, rates, around))
    standing, decision = step(
        standing,
        scope=scope,
        campaign=campaign,
        now=now,
        rates=rates,
        command=command,
        around=around,
        left_out=left_out,
    )
    if decision is not None:
        decisions.append(decision)
    if is_ours and (campaign.shadow_limits is not None or standing.trial is not None):
        standing, found = _trial(standing, scope, campaign, now, rates)
        decisions += found
    return dated(before, standing), decisions


def _providers(
    standing: Standing, scope: str, campaign: Campaign, now: int, rates: RatesSnapshot | None, around: Around
) -> tuple[Standing, list[Decision]]:
    """Judge each provider by its own answers; each decision is an epoch of the campaign."""
    decisions: list[Decision] = []
    held = dict(standing.providers)
    told = {} if rates is None else rates.providers
    for name in sorted(held.keys() | told.keys()):
        after, decision = step(
            held.get(name, start(now)),
            scope=f"{scope}{PROVIDER}{name}",
            campaign=campaign,
            now=now,
            rates=None if rates is None or name not in told else its_rates(scope, name, rates),
            around=around,
        )
        if decision is not None:
            standing = msgspec.structs.replace(standing, epoch=standing.epoch + 1)
            after = msgspec.structs.replace(after, epoch=standing.epoch)
            decisions.append(msgspec.structs.replace(decision, epoch=standing.epoch))
        if after.judged == "healthy" and after.baseline_at is None:
            held.pop(name, None)
        else:
            held[name] = after
    if held != standing.providers:
        standing = msgspec.structs.replace(standing, providers=held)
    return standing, decisions


def its_rates(scope: str, provider: str, rates: RatesSnapshot) -> RatesSnapshot:
    """What a provider is judged by: its own answers, blocks and attempts."""
    windows = answers_of([rates.providers[provider]])
    priors = {EVERYWHERE: rates.priors[provider]} if provider in rates.priors else {}
    return RatesSnapshot(scope=f"{scope}{PROVIDER}{provider}", at=rates.at, windows=windows, priors=priors)


def _left_out(standing: Standing, rates: RatesSnapshot, excused: Set[str]) -> dict[str, Counts]:
    """What providers answer for themselves, by window; of one that came back, the blocks from before its return.

    A campaign that came back itself has a line of its own, and what lies before that is left out already.
    """
    parts = [rates.providers[name] for name in sorted(excused)]
    for name, one in standing.providers.items():
        if name not in rates.providers or name in excused:
            continue
        windows = rates.providers[name]
        if is_narrowed(one.judged):
            parts.append(windows)
        elif standing.baseline_at is None:
            new = against(one, windows, rates.at)
            parts.append({window: Counts(block=counts.block - new[window].block) for window, counts in windows.items()})
    return answers_of(parts)


def _excused(
    before: Standing, scope: str, campaign: Campaign, now: int, rates: RatesSnapshot, around: Around
) -> set[str]:
    """Providers that would be narrowed, were others not turned away there as well.

    The campaign is not to answer for what they are excused for, nor where it is not known what others show at the rest
    of its providers.
    """
    found: set[str] = set()
    for name in rates.providers.keys() & rates.priors.keys():
        alone = msgspec.structs.replace(its_rates(scope, name, rates), priors={})
        held = before.providers.get(name, start(now))
        after, _ = step(held, scope=alone.scope, campaign=campaign, now=now, rates=alone, around=around)
        if is_narrowed(after.judged):
            found.add(name)
    return found


def _trial(
    standing: Standing, scope: str, campaign: Campaign, now: int, rates: RatesSnapshot | None
) -> tuple[Standing, list[Decision]]:
    """Judge once more, by the shadow limits."""
    if campaign.shadow_limits is None:
        return msgspec.structs.replace(standing, trial=None), []
    tried = msgspec.structs.replace(campaign, limits=campaign.shadow_limits, dry_run=False)
    before = start(now) if standing.trial is None else standing.trial
    if rates is not None:  # the verdicts that came with them are by the limits in force
        rates = msgspec.structs.replace(rates, verdicts={})
    after, decision = step(before, scope=f"{scope}{TRIAL}", campaign=tried, now=now, rates=rates)
    if after is not standing.trial and (decision is not None or standing.trial is not None or after != before):
        standing = msgspec.structs.replace(standing, trial=after)
    return standing, [] if decision is None else [msgspec.structs.replace(decision, dry_run=True)]


def differences(decisions: list[Decision]) -> Mapping[str, tuple[Decision | None, Decision | None]]:
    """By campaign: the newest decision that holds, and the newest of its trial, where the two differ."""
    newest: dict[str, list[Decision | None]] = {}
    for one in sorted(decisions, key=lambda one: (one.at, one.epoch)):
        if PROVIDER in one.scope or one.rule == "refused":
            continue
        newest.setdefault(one.campaign, [None, None])[one.scope.endswith(TRIAL)] = one
    states = {name: [None if one is None else one.to for one in pair] for name, pair in newest.items()}
    return {
        name: (held, tried)
        for name, (held, tried) in newest.items()
        if tried is not None and (states[name][0] or "healthy") != states[name][1]
    }
