"""What nobody has read in campaigns' outbound topics, and who reads there."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    NoError,
    NotCoordinatorForGroupError,
    for_code,
)

from policy.naming import ledger_topic, outbound_topic, sender_group
from streams.admin import Admin, connected
from streams.kafka_security import connection

T = TypeVar("T")

ANSWER_WITHIN_S = 30.0
_CLOSE_WITHIN_S = 5.0
_PAUSE_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """A campaign's ``topics`` that are there, and those of them that cannot be asked because they have no leader.

    ``unread`` counts records of the outbound one that its senders have not read, ``readers`` those senders that run.
    """

    topics: tuple[str, ...]
    leaderless: tuple[str, ...]
    unread: int
    readers: int


class Leftovers:
    """Asks about one campaign after another; ``named`` are all topics, as of the beginning."""

    def __init__(self, edge: Admin, groups: AIOKafkaAdminClient, named: frozenset[str]) -> None:
        self._edge, self._groups, self._named = edge, groups, named

    async def of(self, campaign: str) -> Left | None:
        """What is left of a campaign; None when it has no topics."""
        outbound = outbound_topic(campaign)
        topics = tuple(name for name in (outbound, ledger_topic(campaign)) if name in self._named)
        if not topics:
            return None
        leaders = await self._edge.leaders(topics)
        led = {place.topic for place in leaders}
        own = {place: node for place, node in leaders.items() if place.topic == outbound}
        begins, ends = await self._edge.begins(own), await self._edge.ends(own)
        read = await self._read(campaign)
        unread = sum(max(0, end - max(begins[place], read.get(place, 0))) for place, end in ends.items())
        leaderless = tuple(name for name in topics if name not in led)
        return Left(topics=topics, leaderless=leaderless, unread=unread, readers=await self._readers(campaign))

    async def delete(self, left: Left) -> list[str]:
        """Delete the topics; answers those that were there."""
        return await self._edge.delete(left.topics)

    async def _read(self, campaign: str) -> Mapping[TopicPartition, int]:
        """Up to where the campaign's senders have read."""
        committed = await _coordinated(lambda: self._groups.list_consumer_group_offsets(sender_group(campaign)))
        return {TopicPartition(*place): one.offset for place, one in committed.items()}

    async def _readers(self, campaign: str) -> int:
        """How many senders are members of the campaign's group."""
        [answer] = await _coordinated(lambda: self._groups.describe_consumer_groups([sender_group(campaign)]))
        members = 0
        for code, _group, _state, _protocol_type, _protocol, there, *_ in answer.groups:
            if for_code(code) is not NoError:
                raise for_code(code)(f"group {sender_group(campaign)}")
            members += len(there)
        return members


@contextlib.asynccontextmanager
async def leftovers(bootstrap: str) -> AsyncIterator[Leftovers]:
    """Connected; each question is given up after a while, all together may take long."""
    name = "mailcordon-leftovers"
    within_ms = int(ANSWER_WITHIN_S * 1000)
    groups = AIOKafkaAdminClient(**connection(bootstrap), client_id=name, request_timeout_ms=within_ms)
    async with connected(bootstrap, client_id=name, request_timeout_s=ANSWER_WITHIN_S) as edge:
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                await groups.start()
            yield Leftovers(edge, groups, frozenset(await groups.list_topics()))
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_WITHIN_S):
                    await groups.close()


async def _coordinated(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask until a group has its coordinator: a broker that is new makes its topic of offsets first."""
    deadline = time.monotonic() + ANSWER_WITHIN_S
    while True:
        try:
            return await ask()
        except (GroupCoordinatorNotAvailableError, GroupLoadInProgressError, NotCoordinatorForGroupError):
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(_PAUSE_S)
