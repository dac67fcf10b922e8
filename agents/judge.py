"""Judge: where each campaign stands, and what its sender may do.

Rates and commands come in, keyed by scope; policy.ladder decides; decisions and control go out.  The standing is in
a table, so that epochs only grow and a stopped campaign stays stopped, whatever is restarted or replayed.

A table value is ``[[applied rates offset, applied commands offset], standing, [[source, offset, decision], …]]``.
Rates that change nothing are not written: applied again, they would change nothing again.  Commands always are.  The
last decisions are kept with the event that led to them: when that event comes again, they go out again.
"""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import msgspec
import structlog

from agents.homing import Homing
from agents.ports import Known, Message, Publish, now_ms
from agents.setting_aside import Aside
from policy import ladder
from policy.ladder import Standing
from policy.naming import campaign_scope
from schemas.codec import Malformed, decode
from schemas.reputation import Command, Decision, RatesSnapshot
from schemas.sending import Campaign
from schemas.topics import CONTROL, DECISIONS
from streams.metrics import Metrics

log = structlog.get_logger()

BARRIER_WITHIN_S = 5.0
RATES, COMMANDS = 0, 1  # places of the offsets
REFUSED = "refused"  # the rule of a decision that changes nothing
_KEPT = 8
_SCOPE = campaign_scope("")

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
    ) -> None:
        self._standings = standings
        self._known = known
        self._outlet = outlet
        self._metrics = metrics
        self._aside = Aside(outlet, metrics)
        self._homing = Homing(outlet, self._aside, partitions)

    async def rates(self, message: Message) -> None:
        """Judge a campaign by its live windows; scopes within a campaign are for its sender and for people."""
        if message.value is None:  # a tombstone: nothing is known of a scope any more, and nothing follows
            return
        match decode(RatesSnapshot, message.value):
            case Malformed() as malformed:
                await self._aside.malformed(message, malformed)
            case snapshot:
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
                if campaign is None:
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
            after, decision = ladder.step(
                standing, scope=scope, campaign=campaign, now=now, rates=rates, command=command
            )
        except Exception as error:
            log.exception("judge failed", scope=scope, partition=message.partition, offset=message.offset)
            await self._aside.failed(message, "judge", error)
            return
        if decision is None and command is not None:
            decision = _refused(standing, scope, command, now)
        if held is None or command is not None or decision is not None or after != standing:
            self._standings[scope] = _value(held, source, message.offset, after, decision)
        if decision is not None:
            await self._decided(decision)
            self._metrics.decisions.labels(decision.to, decision.rule).inc()
            log.info(
                "decision", campaign=campaign.campaign, state=decision.to, epoch=decision.epoch, reason=decision.reason
            )
        if held is None or command is not None or decision is not None:
            await self._control(after, campaign)

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
            fresh, state=control.state, epoch=control.epoch, reason=control.reason, since=control.at
        )

    async def _again(self, message: Message, source: int, scope: str, campaign: Campaign, held: Value) -> None:
        """An event that was applied before: what followed from it may not have reached its topics."""
        for its_source, offset, decision in held[2]:
            if (its_source, offset) == (source, message.offset):
                await self._decided(msgspec.convert(decision, Decision))
        await self._control(msgspec.convert(held[1], Standing), campaign)

    async def _decided(self, decision: Decision) -> None:
        await self._outlet.publish(DECISIONS, decision, key=decision.scope)

    async def _control(self, standing: Standing, campaign: Campaign) -> None:
        """Control dates from the decision: said again it is the same record, and ``at`` is since when it holds."""
        control = ladder.control(standing, campaign, standing.since)
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


def _value(held: Value | None, source: int, offset: int, standing: Standing, decision: Decision | None) -> Value:
    offsets, kept = ([-1, -1], []) if held is None else (list(held[0]), list(held[2]))
    offsets[source] = offset
    if decision is not None:
        kept = [*kept, [source, offset, msgspec.to_builtins(decision)]][-_KEPT:]
    return [offsets, msgspec.to_builtins(standing), kept]
