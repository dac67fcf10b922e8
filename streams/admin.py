"""The admin edge: ask Kafka which topics there are, create and delete them.

A thin layer over aiokafka's client, because its own admin client lets a metadata request create topics and
has no deadline.  Whoever calls gives the deadline; when it passes, the error says which Kafka did not answer.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from aiokafka import AIOKafkaClient, TopicPartition
from aiokafka.admin.config_resource import ConfigResourceType
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    LeaderNotAvailableError,
    NoError,
    NotControllerError,
    NotLeaderForPartitionError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.admin import CreateTopicsRequest, DeleteTopicsRequest, DescribeConfigsRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.offset import OffsetRequest

from streams.kafka_security import connection
from streams.refusals import refusal

T = TypeVar("T")

BATCH = 100  # one topic at a time costs 34 ms each, a hundred in one request 0.6 ms each
LEADER_MOVED = (NotLeaderForPartitionError, LeaderNotAvailableError, UnknownTopicOrPartitionError)

_PAUSE_S = 0.1
_WHY_WITHIN_S = 2.0  # who tries again must not wait long for the reason
_ATTEMPTS = 10
_LATEST, _EARLIEST = -1, -2


class TopicRefused(KafkaError):  # type: ignore[misc]  # noqa: N818 - aiokafka has no types; it says what happened
    """The broker would not create or delete a topic; the message holds its own words."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A topic as it should be."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str]


@contextlib.asynccontextmanager
async def admin(bootstrap: str, *, within_s: float, client_id: str = "mailcordon-admin") -> AsyncIterator["Admin"]:
    """An admin connection for at most ``within_s`` seconds in all."""
    try:
        async with (
            asyncio.timeout(within_s),
            connected(bootstrap, client_id=client_id, request_timeout_s=within_s / 2) as edge,
        ):
            yield edge
    except TimeoutError as late:
        raise KafkaConnectionError(f"Kafka at {bootstrap} did not answer within {within_s:.0f} s") from late


@contextlib.asynccontextmanager
async def connected(bootstrap: str, *, client_id: str, request_timeout_s: float) -> AsyncIterator["Admin"]:
    """An admin connection to whichever broker answers."""
    client = AIOKafkaClient(
        **connection(bootstrap), client_id=client_id, request_timeout_ms=max(1000, int(request_timeout_s * 1000))
    )
    try:
        try:
            await client.bootstrap()
        except KafkaConnectionError as silent:
            raise KafkaConnectionError(
                await refusal(bootstrap, within_s=_WHY_WITHIN_S)
                or f"no Kafka answers at {bootstrap}; start it, or set MAILCORDON_KAFKA to one that runs"
            ) from silent
        yield Admin(client)
    finally:
        await client.close()


class Admin:
    """Questions and orders about topics."""

    def __init__(self, client: AIOKafkaClient) -> None:
        self._client = client

    async def partitions(self, topics: Sequence[str]) -> dict[str, int]:
        """How many partitions the topics have, for those that exist and whose partitions all have a leader."""
        counts: Counter[str] = Counter()
        for partition in await self.leaders(topics):
            counts[partition.topic] += 1
        return dict(counts)

    async def leaders(self, topics: Sequence[str]) -> dict[TopicPartition, int]:
        """The node that leads each partition; a topic that is missing, or lacks a leader, is left out whole."""
        found: dict[TopicPartition, int] = {}
        for names in _batches(topics):
            request = MetadataRequest(list(names), allow_auto_topic_creation=False)
            answer = await self._client.send(self._client.get_random_node(), request)
            for code, name, _internal, partitions in answer.topics:
                error = for_code(code)
                if error is NoError and all(part[2] >= 0 for part in partitions):
                    found |= {TopicPartition(name, part[1]): part[2] for part in partitions}
                elif error not in {NoError, UnknownTopicOrPartitionError, LeaderNotAvailableError}:
                    raise error(f"topic {name}")
        return found

    async def ends(self, leaders: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """The offset after the last record of each partition, as its leader says now."""
        return await self._offsets(leaders, _LATEST)

    async def begins(self, leaders: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """The offset of the first record that each partition still has, or of the one that comes next."""
        return await self._offsets(leaders, _EARLIEST)

    async def _offsets(self, leaders: Mapping[TopicPartition, int], at: int) -> dict[TopicPartition, int]:
        by_node: dict[int, dict[str, list[tuple[int, int]]]] = {}
        for partition, node in leaders.items():
            by_node.setdefault(node, {}).setdefault(partition.topic, []).append((partition.partition, at))
        found: dict[TopicPartition, int] = {}
        for node, topics in by_node.items():
            answer = await self._client.send(node, OffsetRequest(-1, 0, list(topics.items())))
            for topic, partitions in answer.topics:
                for number, code, _at, offset in partitions:
                    if for_code(code) is not NoError:
                        raise for_code(code)(f"offsets of {topic}, partition {number}")
                    found[TopicPartition(topic, number)] = offset
        return found

    async def configs(self, topics: Sequence[str]) -> dict[str, dict[str, str]]:
        """The settings in force, per topic."""
        found: dict[str, dict[str, str]] = {}
        for names in _batches(topics):
            request = DescribeConfigsRequest([(ConfigResourceType.TOPIC, name, None) for name in names])
            answer = await self._client.send(self._client.get_random_node(), request)
            for code, said, _kind, name, entries in answer.resources:
                if for_code(code) is not NoError:
                    raise for_code(code)(f"topic {name}: {said}")
                found[name] = {entry[0]: entry[1] or "" for entry in entries}
        return found

    async def create(self, topics: Sequence[Planned]) -> list[str]:
        """Create topics and wait until each has its leaders; answers those that were not there before."""
        created = []
        for plans in _batches(topics):
            wire: list[Any] = [
                (one.name, one.partitions, one.replication, [], list(one.config.items())) for one in plans
            ]
            answer = await self._to_controller(CreateTopicsRequest(wire, 30_000, validate_only=False))
            for name, code, said in answer.topic_errors:
                error = for_code(code)
                if error is NoError:
                    created.append(name)
                elif error is not TopicAlreadyExistsError:
                    raise TopicRefused(f"the broker did not create topic {name}: {said or error.__name__}")
            await self._led([one.name for one in plans])
        return created

    async def delete(self, topics: Sequence[str]) -> list[str]:
        """Delete topics; answers those that were there."""
        deleted = []
        for names in _batches(topics):
            answer = await self._to_controller(DeleteTopicsRequest(list(names), 30_000))
            for name, code in answer.topic_error_codes:
                error = for_code(code)
                if error is NoError:
                    deleted.append(name)
                elif error is not UnknownTopicOrPartitionError:
                    raise TopicRefused(f"the broker did not delete topic {name}: {error.__name__}")
        return deleted

    async def _led(self, topics: Sequence[str]) -> None:
        while len(await self.partitions(topics)) < len(topics):  # noqa: ASYNC110 - only the broker knows when
            await asyncio.sleep(_PAUSE_S)

    async def _to_controller(self, request: Any) -> Any:  # Any: aiokafka's protocol classes have no types
        """Send to the controller; asks again who that is while the cluster is electing one."""
        for attempt in range(_ATTEMPTS):
            controller = self._client.cluster.controller
            node = controller.nodeId if controller is not None else self._client.get_random_node()
            answer = await self._client.send(node, request)
            codes = {error[1] for error in getattr(answer, "topic_errors", None) or answer.topic_error_codes}
            if not any(for_code(code) is NotControllerError for code in codes):
                return answer
            await asyncio.sleep(_PAUSE_S * (attempt + 1))
            await self._client.force_metadata_update()
        raise NotControllerError("the cluster has no controller")


def _batches(items: Iterable[T]) -> Iterable[Sequence[T]]:
    whole = list(items)
    return (whole[start : start + BATCH] for start in range(0, len(whole), BATCH))
