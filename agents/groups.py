"""What several campaigns share: a tenant, a sending domain, an IP address.

How it is judged, and what follows, is :mod:`policy.sharing`.  The workers that count publish their part of each scope
into the partition where it is judged; there the parts are kept in memory alone, since the next ones come soon.  A
table value is ``[[offset], standing, {campaign: ceiling}, commands, [item, …]]`` (items: :mod:`agents.audit_log`);
there is none for a scope that nothing was ever held against.
"""

from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any

import msgspec
import structlog

from agents.audit_log import KEPT, AuditLog, Item, head_of
from agents.live import Live
from agents.ports import Known, Message, Publish, now_ms
from agents.setting_aside import Aside
from policy import sharing
from policy.brakes import is_pulled
from policy.ladder import Standing
from policy.sharing import PART, Member, Shared, Sums
from schemas.reputation import Command, RatesSnapshot
from schemas.topics import COMMANDS, RATES
from streams.home import home

log = structlog.get_logger()

EVERY_S = sharing.EVERY_MS / 1000

_ITEMS = 4  # place of the items

Value = list[Any]  # Any: JSON; see the module's docstring


class Parts:
    """Publishes this worker's part of each shared scope."""

    def __init__(self, live: Mapping[str, Live], *, known: Known, outlet: Publish, partitions: int) -> None:
        self._live = live
        self._known = known
        self._outlet = outlet
        self._partitions = partitions
        self._parts = sharing.Parts()

    async def publish(self, now: int) -> None:
        """Publish what moved, and now and then what did not."""
        for part in self._parts.due(self._members(), now):
            target = home(part.scope.partition(PART)[0], self._partitions)
            await self._outlet.publish(RATES, part, key=part.scope, partition=target)

    def _members(self) -> Iterable[Member]:
        for name, live in self._live.items():
            campaign = self._known.campaigns.get(name)
            if campaign is not None:
                yield Member(campaign, self._known.controls.get(name), live.rolling, home(name, self._partitions))


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
        self._sums = Sums()

    async def part(self, message: Message, snapshot: RatesSnapshot) -> None:
        """Add one worker's part to the others, judge their sum, and tell the campaigns what it allows."""
        scope = snapshot.scope.partition(PART)[0]
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
        try:
            looked = sharing.look(
                scope,
                None if held is None else Shared(msgspec.convert(held[1], Standing), held[2]),
                self._sums.take(snapshot, now),
                self._known.campaigns,
                now=now,
                is_stopped=is_pulled(self._known.brakes, "automation"),
            )
        except Exception as error:
            log.exception("judge failed", scope=scope, partition=message.partition, offset=message.offset)
            await self._aside.failed(message, "judge", error)
            return
        if looked.is_nothing:
            return
        decision, standing = looked.decision, looked.after.standing
        told = [msgspec.to_builtins(one) for one in looked.commands]
        found: list[Item] = []
        if decision is not None:
            found = self._log.items(
                message,
                0,
                scope=scope,
                campaign=decision.campaign,
                standing=looked.before,
                head=head_of(kept),
                decisions=[decision],
            )
        kept = [*kept[-KEPT:], *found]
        self._standings[scope] = [[message.offset], msgspec.to_builtins(standing), dict(looked.after.told), told, kept]
        if decision is not None:
            await self._log.tell(scope, kept, found)
            log.info("decision", scope=scope, state=decision.to, epoch=decision.epoch, reason=decision.reason)
        await self._tell(told)

    async def _tell(self, commands: Iterable[Mapping[str, Any]]) -> None:
        for one in commands:
            command = msgspec.convert(one, Command)
            await self._outlet.publish(COMMANDS, command, key=command.scope)
