"""Decisions on their way out: into their topic, and into the audit log of their scope.

An item is ``[source, offset, decision, entry]``: the event that led to a decision, and the decision's entry in the log
without the decision itself.  Items are kept in the table value of their scope, so that they can be told again, and the
log goes on from the newest entry, whatever is restarted.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from agents.ports import Message, Publish
from policy import auditing
from policy.auditing import BEGUN, Head, Seal
from policy.standing import Standing
from schemas.delivery import Position
from schemas.reputation import Decision
from schemas.topics import AUDIT, DECISIONS

KEPT = 8  # items in a table value; all but those of the last event are on the broker, see AuditLog.tell

Item = list[Any]  # Any: JSON; see the module's docstring


class AuditLog:
    """Makes entries and publishes them with their decisions."""

    def __init__(self, outlet: Publish, seal: Seal | None = None) -> None:
        self._outlet = outlet
        self._seal = seal
        self._told: dict[str, int] = {}  # by scope: the newest entry that went out from here

    def items(
        self,
        message: Message,
        source: int,
        *,
        scope: str,
        campaign: str,
        standing: Standing,
        head: Head,
        decisions: Sequence[Decision],
    ) -> list[Item]:
        """Decisions with their entries; before the first of a scope, where it stood."""
        noted = [(auditing.audited_as(one), one) for one in decisions]
        if not head.seq:
            at = round(message.timestamp * 1000) if message.timestamp else standing.since
            begun = auditing.begun(
                scope, campaign, state=standing.state, epoch=standing.epoch, reason=standing.reason, at=at
            )
            noted = [("begun", begun), *noted]
        cause = Position(topic=message.topic, partition=message.partition, offset=message.offset)
        found: list[Item] = []
        for what, one in noted:
            decision = msgspec.to_builtins(one)
            entry = auditing.entry(head, scope=scope, what=what, decision=decision, cause=cause, seal=self._seal)
            head = auditing.head_of(entry)
            found.append([source, message.offset, decision, entry])
        return found

    async def tell(self, scope: str, kept: Iterable[Item], items: Sequence[Item]) -> None:
        """Publish the decisions of some items, when the table has them.

        Were they told before, a crash in between would have the event judged again, at another time, and the same
        place of the log would have two contents.  Said again, an entry is the same bytes.

        Two agents write into the log of a scope.  Killed, both begin again where they were, so that the one may come
        to a later entry first: before an entry, all go out that are kept from before it and did not go out from here.
        """
        kept = list(kept)
        decided = [decision for _, _, decision, *_ in items if decision["rule"] != BEGUN]
        if decided:
            await self._outlet.settled()
        for _, _, decision, *entries in kept:
            for entry in entries:  # there is none with what an older version wrote
                if entry["seq"] > self._told.get(scope, 0):
                    self._told[scope] = entry["seq"]
                    await self._outlet.forward(AUDIT, auditing.whole(entry, decision), key=scope)
        for decision in decided:
            told = msgspec.convert(decision, Decision)
            await self._outlet.publish(DECISIONS, told, key=told.scope)


def head_of(items: Sequence[Item]) -> Head:
    """Where the log stands after the last of these items; before the first, when there are none."""
    return auditing.head_of(items[-1][3]) if items and len(items[-1]) > 3 else Head()
