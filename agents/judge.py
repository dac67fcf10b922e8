"""Judge: where each campaign stands, and what its sender may do.

Rates and commands come in, keyed by scope; policy.ladder decides; decisions and control go out.  The standing is in
a table, so that epochs only grow and a stopped campaign stays stopped, whatever is restarted or replayed.

A table value is ``[[applied rates offset, applied commands offset], standing, [[source, offset, decision, entry], …],
[number and hash of the newest entry]]``; for the entries see :mod:`agents.audit_log`.
Rates that change nothing are not written: applied again, they would change nothing again.  Commands always are.  The
last decisions are kept with the event that led to them: when that event comes again, they go out again.
"""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import msgspec
import structlog

from agents.audit_log import KEPT, AuditLog, Item, head_of
from agents.groups import Together
from agents.homing import Homing
from agents.ports import Known, Message, Publish, now_ms
from agents.setting_aside import Aside
from policy import ladder
from policy.auditing import REFUSED, Head, Seal
from policy.brakes import WITHIN_MS, capped, is_pulled
from policy.judging import judge
from policy.ladder import Around, Standing
from policy.naming import campaign_scope
from policy.obeying import in_force_since
from policy.sharing import is_shared
from schemas.codec import Malformed, decode
from schemas.reputation import Command, Decision, RatesSnapshot
from schemas.sending import Campaign
from schemas.topics import CONTROL
from streams.metrics import Metrics

log = structlog.get_logger()

BARRIER_WITHIN_S = 5.0
RATES, COMMANDS = 0, 1  # places of the offsets
_SCOPE = campaign_scope("")

_DELETED = "the campaign was deleted after a worker had given this command"
_AUDIT = 3  # place of the audit log's head

Value = list[Any]  # Any: JSON; see the module's docstring


class Judge:
    """Judges one event after the other."""

    def __init__(
        self,
        *,
        standings: MutableMapping[str, Value],
        known: Known,
        outlet: Publish,
        metrics: Metrics,
        partitions: int,
        isolate_share: float = 0.2,
        isolate_at_least: int = 3,
        seal: Seal | None = None,
    ) -> None:
        self._standings = standings
        self._known = known
        self._outlet = outlet
        self._metrics = metrics
        self._aside = Aside(outlet, metrics)
        self._homing = Homing(outlet, self._aside, partitions)
        self._log = AuditLog(outlet, seal)
        self._together = Together(
            standings=standings,
            known=known,
            outlet=outlet,
            log=self._log,
            aside=self._aside,
            partitions=partitions,
        )
        self._isolate_share = isolate_share
        self._isolate_at_least = isolate_at_least
        self._isolated: dict[str, int] = {}  # by ourselves within the hour, and when

    async def rates(self, message: Message) -> None:
        """Judge a campaign by its live windows; scopes within a campaign are for its sender and for people."""
        if message.value is None:  # a tombstone: nothing is known of a scope any more, and nothing follows
            return
        match decode(RatesSnapshot, message.value):
            case Malformed() as malformed:
                await self._aside.malformed(message, malformed)
            case snapshot:
                if is_shared(snapshot.scope):
                    await self._together.part(message, snapshot)
                    return
                name = snapshot.scope.removeprefix(_SCOPE)
                if not snapshot.scope.startswith(_SCOPE) or name not in self._known.campaigns:
                    return
                if not await self._homing.away(message, snapshot.scope):
                    await self._judge(message, RATES, snapshot.scope, self._known.campaigns[name], rates=snapshot)

    async def commands(self, message: Message) -> None:
        """Do what an operator, or our own clock, asks."""
        match decode(Command, message.value):
            case Malformed() as malformed:
                await self._aside.malformed(message, malformed)
            case Command(scope=scope, campaign=name) if scope != campaign_scope(name):
                explain = f"field scope of Command: expected {campaign_scope(name)[:200]!r} for this campaign"
                await self._aside.put(message, "wrong_field", explain)
            case command:
                if await self._homing.away(message, command.scope):
                    return
                campaign = await self._campaign(command.campaign)
                if campaign is None and command.by == "policy":  # our own word, and its campaign was deleted since
                    self._metrics.commands_dropped.labels(command.command, "campaign_deleted").inc()
                    log.info("command dropped", campaign=command.campaign, command=command.command, why=_DELETED)
                elif campaign is None:
                    explain = f"field campaign of Command: {command.campaign!r} is not known"
                    await self._aside.put(message, "unknown_campaign", explain)
                else:
                    await self._judge(message, COMMANDS, command.scope, campaign, command=command)

    async def _campaign(self, name: str) -> Campaign | None:
        """The campaign's record; before it counts as unknown, everything published so far is read."""
        if name not in self._known.campaigns:
            while not await self._known.caught_up(BARRIER_WITHIN_S):
                log.warning("waiting for the catalogue")
                await asyncio.sleep(0.1)
        return self._known.campaigns.get(name)

    async def _judge(
        self,
        message: Message,
        source: int,
        scope: str,
        campaign: Campaign,
        *,
        rates: RatesSnapshot | None = None,
        command: Command | None = None,
    ) -> None:
        now = now_ms()
        held = self._standings.get(scope)
        if held is not None and message.offset <= held[0][source]:
            await self._again(message, source, scope, campaign, held)
            return
        standing = self._first(campaign, now) if held is None else msgspec.convert(held[1], Standing)
        try:
            after, decisions = self._judged(standing, scope, campaign, now, rates, command)
        except Exception as error:
            log.exception("judge failed", scope=scope, partition=message.partition, offset=message.offset)
            await self._aside.failed(message, "judge", error)
            return
        if not decisions and command is not None and (refused := _refused(standing, scope, command, now)) is not None:
            decisions = [refused]
        found = self._log.items(
            message,
            source,
            scope=scope,
            campaign=campaign.campaign,
            standing=standing,
            head=Head() if held is None or len(held) <= _AUDIT else Head(*held[_AUDIT]),
            decisions=decisions,
        )
        if found or command is not None or after != standing:
            self._standings[scope] = _value(held, source, message.offset, after, found)
        is_told = held is None or command is not None or bool(decisions)
        if is_told and held is not None:
            await self._control(after, campaign)  # a sender that has to stop waits for nobody
        if found:
            await self._log.tell(scope, self._standings[scope][2], found)
        for decision in decisions:
            self._metrics.decisions.labels(decision.to, decision.rule).inc()
            log.info(
                "decision",
                campaign=campaign.campaign,
                scope=decision.scope,
                state=decision.to,
                epoch=decision.epoch,
                reason=decision.reason,
            )
        if is_told and held is None:  # were it ahead of the table, a restart would take it for all that is known
            await self._control(after, campaign)

    def _judged(
        self,
        standing: Standing,
        scope: str,
        campaign: Campaign,
        now: int,
        rates: RatesSnapshot | None,
        command: Command | None,
    ) -> tuple[Standing, list[Decision]]:
        """Judge; and once more, if that would isolate more campaigns than policy may within an hour."""
        is_stopped = is_pulled(self._known.brakes, "automation")
        around = Around(is_stopped=is_stopped)
        after, decisions = judge(
            standing, scope=scope, campaign=campaign, now=now, rates=rates, command=command, around=around
        )
        if not any(one.to == "isolated" and one.by == "policy" and not one.dry_run for one in decisions):
            return after, decisions
        self._isolated = {name: at for name, at in self._isolated.items() if at > now - WITHIN_MS}
        why = capped(
            self._known.controls,
            campaign=campaign.campaign,
            now=now,
            share=self._isolate_share,
            at_least=self._isolate_at_least,
            recent=self._isolated,
        )
        if why is None:
            self._isolated[campaign.campaign] = now
            return after, decisions
        around = Around(is_stopped=is_stopped, capped=why)
        return judge(standing, scope=scope, campaign=campaign, now=now, rates=rates, command=command, around=around)

    def _first(self, campaign: Campaign, now: int) -> Standing:
        """The standing of a campaign that the table does not know.

        If there is a control record all the same, the table has been lost or begun anew: what the record says
        stays in force, since the epochs that senders have seen must go on growing.
        """
        fresh = ladder.start(now)
        control = self._known.controls.get(campaign.campaign)
        if control is None:
            return fresh
        return msgspec.structs.replace(
            fresh, state=control.state, epoch=control.epoch, reason=control.reason, since=control.at, rule=control.rule
        )

    async def _again(self, message: Message, source: int, scope: str, campaign: Campaign, held: Value) -> None:
        """An event that was applied before: what followed from it may not have reached its topics."""
        again = [one for one in held[2] if one[:2] == [source, message.offset]]
        if again:
            await self._log.tell(scope, held[2], again)
        await self._control(msgspec.convert(held[1], Standing), campaign)

    async def _control(self, standing: Standing, campaign: Campaign) -> None:
        """Said again it is the same record, and ``at`` is since when what it says holds."""
        control = ladder.control(standing, campaign, in_force_since(standing))
        await self._outlet.publish(CONTROL, control, key=campaign.campaign)


def _refused(standing: Standing, scope: str, command: Command, now: int) -> Decision | None:
    """The answer to a command that is not carried out: a decision that changes nothing, and says why."""
    why = ladder.refusal(standing, command)
    if why is None:
        return None
    return Decision(
        scope=scope,
        campaign=command.campaign,
        from_=standing.state,
        to=standing.state,
        at=now,
        epoch=standing.epoch,
        rule=REFUSED,
        reason=why,
        by=command.by,
        command_id=command.id,
    )


def _value(held: Value | None, source: int, offset: int, standing: Standing, found: list[Item]) -> Value:
    offsets, kept = ([-1, -1], []) if held is None else (list(held[0]), list(held[2]))
    offsets[source] = offset
    kept = [*kept[-KEPT:], *found]
    head = held[_AUDIT] if held is not None and len(held) > _AUDIT and not found else [*head_of(kept)]
    return [offsets, msgspec.to_builtins(standing), kept, head]
