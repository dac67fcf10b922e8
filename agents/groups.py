"""What several campaigns share: a tenant, a sending domain, an IP address.

A list that is bad in small pieces shows in no single campaign.  So the rates of campaigns that share something are
judged together, too: those that nothing is held against by themselves, since for the others the smaller scope has
answered already.  Such a scope is never isolated by the policy, because that would stop many for the sake of a sum: it
is throttled, or paused for blocks, and what it allows is told to its campaigns as a *ceiling* (:mod:`policy.obeying`).

The workers that count publish their part of each scope into the partition where it is judged, at least once a minute;
there the parts are added.  They are kept in memory alone, since the next ones come soon.  A table value is
``[[offset], standing, {campaign: ceiling}, commands, [item, …]]`` (items: :mod:`agents.audit_log`); there is none for a
scope that nothing was ever held against.
"""

import hashlib
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import Any

import msgspec
import structlog

from agents.audit_log import KEPT, AuditLog, Item, head_of
from agents.live import Live, Windows
from agents.ports import Known, Message, Publish, now_ms
from agents.setting_aside import Aside
from policy import ladder
from policy.counts import MINUTE_MS, summed
from policy.ladder import Around, Standing
from policy.naming import campaign_scope
from policy.transitions import RUNGS
from policy.verdicts import METRICS
from schemas.reputation import Command, Counts, Decision, RatesSnapshot, State
from schemas.sending import Campaign, Limits, Mailbox
from schemas.topics import COMMANDS, RATES
from streams.home import home

log = structlog.get_logger()

KINDS = ("tenant:", "domain:", "ip:")
EVERY_S = 10.0
AGAIN_MS = 60_000
LASTS_MS = 4 * AGAIN_MS  # a part that is older counts no more: its worker is gone, or all is quiet
NOBODY = "default"  # the tenant of campaigns that name none
AT_LEAST = 2  # campaigns; one alone answers for itself
_PART = "/partition:"
_PEOPLE = Around(capped="what several campaigns share is isolated by people only")
_UNHELD = frozenset({"healthy", "watched"})
_JUDGED_AS = Campaign(
    campaign="*",
    from_=Mailbox(address="nobody@invalid.example"),
    return_path_domain="invalid.example",
    pristine_trap="judge",
)

_ITEMS = 4  # place of the items

Value = list[Any]  # Any: JSON; see the module's docstring


def is_shared(scope: str) -> bool:
    """Is this one worker's part of a scope that campaigns share?"""
    return scope.startswith(KINDS) and _PART in scope and "/provider:" not in scope


class Parts:
    """Publishes this worker's part of each shared scope."""

    def __init__(self, live: Mapping[str, Live], *, known: Known, outlet: Publish, partitions: int) -> None:
        self._live = live
        self._known = known
        self._outlet = outlet
        self._partitions = partitions
        self._told: dict[str, tuple[int, Windows]] = {}

    async def publish(self, now: int) -> None:
        """Publish what moved, and now and then what did not."""
        parts: dict[str, tuple[Windows, list[str]]] = {}
        for name, live in list(self._live.items()):
            campaign = self._known.campaigns.get(name)
            control = self._known.controls.get(name)
            if campaign is None or (control is not None and (control.system or control.state) not in _UNHELD):
                continue
            own = home(name, self._partitions)
            for scope, windows in _scopes(campaign, live, now // MINUTE_MS):
                part = f"{scope}{_PART}{own}"
                held = parts.get(part)
                parts[part] = (windows, [name]) if held is None else (added(held[0], windows), [*held[1], name])
        self._told = {part: told for part, told in self._told.items() if part in parts}
        for part, (windows, names) in parts.items():
            at, before = self._told.get(part, (0, {}))
            if windows == before and now - at < AGAIN_MS:
                continue
            self._told[part] = (now, windows)
            snapshot = RatesSnapshot(scope=part, at=now, windows=windows, campaigns=sorted(names))
            target = home(part.partition(_PART)[0], self._partitions)
            await self._outlet.publish(RATES, snapshot, key=part, partition=target)


def _scopes(campaign: Campaign, live: Live, minute: int) -> Iterable[tuple[str, Windows]]:
    windows = live.rolling.windows(minute)
    if campaign.tenant != NOBODY:
        yield f"tenant:{campaign.tenant}", windows
    yield f"domain:{campaign.from_.address.rpartition('@')[2].lower()}", windows
    by_ip: dict[str, Windows] = {}
    for (ip, _), its_windows in live.rolling.by_ip_provider(minute).items():
        by_ip[ip] = added(by_ip[ip], its_windows) if ip in by_ip else its_windows
    for ip, its_windows in by_ip.items():
        yield f"ip:{ip}", its_windows


def added(one: Mapping[str, Counts], other: Mapping[str, Counts]) -> Windows:
    """The sums of two scopes, window by window."""
    nothing = Counts()
    return {name: summed(one.get(name, nothing), other.get(name, nothing)) for name in one.keys() | other.keys()}


class Together:
    """Judges shared scopes."""

    def __init__(
        self,
        *,
        standings: MutableMapping[str, Value],
        known: Known,
        outlet: Publish,
        log: AuditLog,
        aside: Aside,
        partitions: int,
    ) -> None:
        self._log = log
        self._standings = standings
        self._known = known
        self._outlet = outlet
        self._aside = aside
        self._partitions = partitions
        self._parts: dict[str, dict[str, RatesSnapshot]] = {}

    async def part(self, message: Message, snapshot: RatesSnapshot) -> None:
        """Add one worker's part to the others, judge their sum, and tell the campaigns what it allows."""
        scope, _, partition = snapshot.scope.partition(_PART)
        if home(scope, self._partitions) != message.partition:
            return  # the number of partitions was changed: the next part goes where it belongs
        held = self._standings.get(scope)
        kept: list[Item] = [] if held is None or len(held) <= _ITEMS else held[_ITEMS]
        if held is not None and message.offset <= held[0][0]:
            again = [one for one in kept if one[1] == message.offset]
            if again:
                await self._log.tell(scope, kept, again)
            await self._tell(held[3])
            return
        now = now_ms()
        parts = self._known_parts(scope, partition, snapshot, now)
        names = sorted({name for part in parts for name in part.campaigns})
        standing = ladder.start(now) if held is None else msgspec.convert(held[1], Standing)
        try:
            after, decision = self._judged(scope, standing, parts, names, now)
        except Exception as error:
            log.exception("judge failed", scope=scope, partition=message.partition, offset=message.offset)
            await self._aside.failed(message, "judge", error)
            return
        commands, ceilings = _ceilings(scope, after, names, {} if held is None else held[2], now)
        if decision is None and not commands and after == standing:
            return  # nearly always
        told = [msgspec.to_builtins(one) for one in commands]
        found: list[Item] = []
        if decision is not None:
            found = self._log.items(
                message,
                0,
                scope=scope,
                campaign=decision.campaign,
                standing=standing,
                head=head_of(kept),
                decisions=[decision],
            )
        kept = [*kept[-KEPT:], *found]
        self._standings[scope] = [[message.offset], msgspec.to_builtins(after), ceilings, told, kept]
        if decision is not None:
            await self._log.tell(scope, kept, found)
            log.info("decision", scope=scope, state=decision.to, epoch=decision.epoch, reason=decision.reason)
        await self._tell(told)

    def _known_parts(self, scope: str, partition: str, snapshot: RatesSnapshot, now: int) -> list[RatesSnapshot]:
        """The newest part of each partition; what is too old is forgotten, of all scopes now and then."""
        if scope not in self._parts and len(self._parts) % 1000 == 999:
            self._parts = {name: kept for name, one in self._parts.items() if (kept := _fresh(one, now))}
        parts = self._parts[scope] = _fresh(self._parts.get(scope, {}) | {partition: snapshot}, now)
        return list(parts.values())

    def _judged(
        self, scope: str, standing: Standing, parts: Sequence[RatesSnapshot], names: list[str], now: int
    ) -> tuple[Standing, Decision | None]:
        rates = None
        if len(names) >= AT_LEAST:
            windows: Windows = {}
            for one in parts:
                windows = added(windows, one.windows)
            rates = RatesSnapshot(scope=scope, at=max(one.at for one in parts), windows=windows, campaigns=names)
        judged_as = msgspec.structs.replace(_JUDGED_AS, campaign=names[0] if names else "*", limits=self._limits(names))
        return ladder.step(standing, scope=scope, campaign=judged_as, now=now, rates=rates, around=_PEOPLE)

    def _limits(self, names: Iterable[str]) -> Limits:
        """The loosest that its campaigns have: a sum is not to be blamed for what each of them may do."""
        found = [self._known.campaigns[name].limits for name in names if name in self._known.campaigns]
        return Limits(**{field: max(getattr(one, field) for one in found) for field in METRICS}) if found else Limits()

    async def _tell(self, commands: Iterable[Mapping[str, Any]]) -> None:
        for one in commands:
            command = msgspec.convert(one, Command)
            await self._outlet.publish(COMMANDS, command, key=command.scope)


def _fresh(parts: Mapping[str, RatesSnapshot], now: int) -> dict[str, RatesSnapshot]:
    return {partition: one for partition, one in parts.items() if one.at > now - LASTS_MS}


def _ceilings(
    scope: str, standing: Standing, names: Iterable[str], told: Mapping[str, State], now: int
) -> tuple[list[Command], dict[str, State]]:
    """The commands that tell campaigns what has changed for them, and what all of them know then."""
    ceiling: State = standing.judged if RUNGS[standing.judged] >= RUNGS["throttled"] else "healthy"
    commands = []
    for name in sorted({*names, *told}):
        if told.get(name, "healthy") == ceiling:
            continue
        digest = hashlib.sha256(f"{scope}|{standing.epoch}|{name}".encode()).hexdigest()[:32]
        commands.append(
            Command(
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
        )
    known: dict[str, State] = {} if ceiling == "healthy" else dict.fromkeys({*names, *told}, ceiling)
    return commands, known
