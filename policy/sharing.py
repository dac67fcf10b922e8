"""Sharing: what campaigns have in common – a tenant, a sending domain, an address – and how the sum of them is judged.

A list that is bad in small pieces shows in no single campaign.  So the rates of campaigns that share something are
judged together, too: those that nothing is held against by themselves, since for the others the smaller scope has
answered already.  So it has for the blocks of a provider at which a campaign is slowed or paused: they are left out,
and all else that the campaign did there counts (:mod:`policy.narrowing`).  Such a scope is never isolated by the
policy, because that would stop many for the sake of a sum: it is throttled, or paused for blocks, and what it allows
is told to its campaigns as a *ceiling* (:mod:`policy.obeying`).

Campaigns are counted in many partitions.  Each has its *part* of a scope, told when it moves and once a minute; where
the scope is judged the parts are added.  The workers and the backtest both do it with what is here, so that they
cannot differ.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field

import msgspec

from policy import ladder
from policy.counts import MINUTE_MS, Rolling, summed
from policy.ladder import Around
from policy.naming import campaign_scope
from policy.narrowing import Windows, answers_of, without
from policy.standing import Standing
from policy.transitions import RUNGS
from policy.verdicts import METRICS
from schemas.reputation import Command, Control, Counts, Decision, RatesSnapshot, State
from schemas.sending import Campaign, Limits, Mailbox

KINDS = ("tenant:", "domain:", "ip:")
PART = "/partition:"
EVERY_MS = 10_000
AGAIN_MS = 60_000
LASTS_MS = 4 * AGAIN_MS  # a part that is older counts no more: its worker is gone, or all is quiet
NOBODY = "default"  # the tenant of campaigns that name none
AT_LEAST = 2  # campaigns; one alone answers for itself
_CAPPED = "what several campaigns share is isolated by people only"
_UNHELD = frozenset({"healthy", "watched"})
_NOTHING = Counts()
_NO_STATES: Mapping[str, State] = {}
_JUDGED_AS = Campaign(
    campaign="*",
    from_=Mailbox(address="nobody@invalid.example"),
    return_path_domain="invalid.example",
    pristine_trap="judge",
)

Share = tuple[str, Windows]  # whose, and what
_Known = dict[str, tuple[Campaign, Windows, Set[str], list[tuple[str, Share]]]]


def is_shared(scope: str) -> bool:
    """Is this one partition's part of a scope that campaigns share?"""
    return scope.startswith(KINDS) and PART in scope and "/provider:" not in scope


def added(one: Mapping[str, Counts], other: Mapping[str, Counts]) -> Windows:
    """The sums of two scopes, window by window."""
    return {name: summed(one.get(name, _NOTHING), other.get(name, _NOTHING)) for name in one.keys() | other.keys()}


@dataclass(frozen=True, slots=True)
class Member:
    """A campaign, what its sender may do, what was counted of it, and in which partition."""

    campaign: Campaign
    control: Control | None
    rolling: Rolling
    partition: int


@dataclass(slots=True)
class Parts:
    """The parts of shared scopes on the side that counts, and what was told of each."""

    _told: dict[str, tuple[int, list[Share], Windows]] = field(default_factory=dict)
    _shares: _Known = field(default_factory=dict)

    def due(self, members: Iterable[Member], now: int) -> list[RatesSnapshot]:
        """The parts that moved, and those that were not told for a minute; all that count are among ``members``."""
        found: dict[str, list[Share]] = {}
        known, self._shares = self._shares, {}
        for member in members:
            control = member.control
            if control is None or (control.system or control.state) in _UNHELD:
                for part, share in self._of(member, known, now // MINUTE_MS):
                    found.setdefault(part, []).append(share)
        self._told = {part: told for part, told in self._told.items() if part in found}
        due = []
        for part, shares in sorted(found.items()):
            at, before, windows = self._told.get(part, (0, [], {}))
            if shares != before:
                held, windows = windows, _sum(windows for _, windows in shares)
                at = 0 if windows != held else at
            if now - at >= AGAIN_MS:
                at = now
                names = sorted(name for name, _ in shares)
                due.append(RatesSnapshot(scope=part, at=now, windows=windows, campaigns=names))
            self._told[part] = (at, shares, windows)
        return due

    @property
    def is_empty(self) -> bool:
        """Was nothing found to tell of?"""
        return not self._told

    def _of(self, member: Member, known: _Known, minute: int) -> list[tuple[str, Share]]:
        """A campaign's share in each part; worked out anew when it has moved."""
        campaign, windows = member.campaign, member.rolling.windows(minute)
        narrowed: Set[str] = set() if member.control is None else member.control.providers.keys()
        before, seen, apart, shares = known.get(campaign.campaign, (None, None, None, []))
        if before is not campaign or seen is not windows or apart != narrowed:
            shares = [
                (f"{scope}{PART}{member.partition}", (campaign.campaign, its_windows))
                for scope, its_windows in _scopes(campaign, member.rolling, minute, narrowed)
            ]
        self._shares[campaign.campaign] = (campaign, windows, narrowed, shares)
        return shares


def _scopes(campaign: Campaign, rolling: Rolling, minute: int, narrowed: Set[str]) -> Iterable[tuple[str, Windows]]:
    """What a campaign adds to each scope, but for what providers answered at which it is ``narrowed``."""
    windows = rolling.windows(minute)
    if all(counts == _NOTHING for counts in windows.values()):
        return
    told = rolling.by_provider(minute) if narrowed else {}
    windows = without(windows, answers_of(told[name] for name in narrowed & told.keys()))
    if campaign.tenant != NOBODY:
        yield f"tenant:{campaign.tenant}", windows
    yield f"domain:{campaign.from_.address.rpartition('@')[2].lower()}", windows
    there = rolling.by_ip_provider(minute) if narrowed else {}
    for ip, its_windows in rolling.by_ip(minute).items():
        answers = answers_of(there[ip, name] for name in narrowed if (ip, name) in there)
        yield f"ip:{ip}", without(its_windows, answers)


def _sum(parts: Iterable[Windows]) -> Windows:
    total: Windows = {}
    for one in parts:
        total = added(total, one) if total else one
    return total


@dataclass(frozen=True, slots=True)
class Shared:
    """What is remembered of a shared scope, and what its campaigns know of it."""

    standing: Standing
    told: Mapping[str, State] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Looked:
    """What one look at a shared scope led to."""

    before: Standing
    after: Shared
    decision: Decision | None
    commands: Sequence[Command]

    @property
    def is_nothing(self) -> bool:
        """Is all as it was?  Nearly always."""
        return self.decision is None and not self.commands and self.after.standing == self.before


@dataclass(slots=True)
class Sums:
    """The newest parts of each shared scope, where it is judged."""

    _parts: dict[str, dict[str, RatesSnapshot]] = field(default_factory=dict)

    def take(self, part: RatesSnapshot, now: int) -> list[RatesSnapshot]:
        """Take in a part; answers the newest of each partition.  What is too old is forgotten."""
        scope, _, partition = part.scope.partition(PART)
        if scope not in self._parts and len(self._parts) % 1000 == 999:
            self._parts = {name: kept for name, one in self._parts.items() if (kept := _fresh(one, now))}
        parts = self._parts[scope] = _fresh(self._parts.get(scope, {}) | {partition: part}, now)
        return list(parts.values())


def _fresh(parts: Mapping[str, RatesSnapshot], now: int) -> dict[str, RatesSnapshot]:
    return {partition: one for partition, one in parts.items() if one.at > now - LASTS_MS}


def look(
    scope: str,
    held: Shared | None,
    parts: Sequence[RatesSnapshot],
    campaigns: Mapping[str, Campaign],
    *,
    now: int,
    is_stopped: bool = False,
) -> Looked:
    """Judge the sum of its parts, and say what it allows its campaigns; ``campaigns`` are all that exist."""
    before = ladder.start(now) if held is None else held.standing
    names = sorted({name for part in parts for name in part.campaigns})
    rates = None
    if len(names) >= AT_LEAST:
        windows = _sum(one.windows for one in parts)
        rates = RatesSnapshot(scope=scope, at=max(one.at for one in parts), windows=windows, campaigns=names)
    judged_as = msgspec.structs.replace(
        _JUDGED_AS, campaign=names[0] if names else "*", limits=_limits(names, campaigns)
    )
    around = Around(is_stopped=is_stopped, capped=_CAPPED)
    after, decision = ladder.step(before, scope=scope, campaign=judged_as, now=now, rates=rates, around=around)
    told = _NO_STATES if held is None else held.told
    concerned = {name for name in (*names, *told) if name in campaigns}
    ceiling = allows(after)
    commands = [
        _told(name, scope, after, ceiling, now) for name in sorted(concerned) if told.get(name, "healthy") != ceiling
    ]
    known: dict[str, State] = {} if ceiling == "healthy" else dict.fromkeys(concerned, ceiling)
    return Looked(before, Shared(after, known), decision, commands)


def allows(standing: Standing) -> State:
    """The most that a scope which stands so allows its campaigns; healthy for anything."""
    return standing.state if RUNGS[standing.state] >= RUNGS["throttled"] else "healthy"


def _limits(names: Iterable[str], campaigns: Mapping[str, Campaign]) -> Limits:
    """The loosest that its campaigns have: a sum is not to be blamed for what each of them may do."""
    found = [campaigns[name].limits for name in names if name in campaigns]
    return Limits(**{metric: max(getattr(one, metric) for one in found) for metric in METRICS}) if found else Limits()


def _told(name: str, scope: str, standing: Standing, ceiling: State, now: int) -> Command:
    digest = hashlib.sha256(f"{scope}|{standing.epoch}|{name}".encode()).hexdigest()[:32]
    return Command(
        id=f"ceiling-{digest}",
        scope=campaign_scope(name),
        campaign=name,
        command="ceiling",
        reason=standing.reason[:500],
        by="policy",
        at=now,
        ceiling=ceiling,
        source=scope[:300],
    )
