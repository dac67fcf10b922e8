"""Route: admitted messages into the outbound topic of their campaign.

Not an agent of its own but the second half of validate's event: a topic between the two would double the cost and
add a place of repeats.
"""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from aiokafka.errors import KafkaError

from agents.ports import Publish
from policy.admission import Admission
from policy.naming import outbound_topic
from policy.routing import frames
from schemas.codec import DecodedRequest
from schemas.sending import Refused
from streams.admin import TopicRefused

Headers = Sequence[tuple[str, bytes]]


class Topics(Protocol):
    """Knows which outbound topics exist."""

    async def partitions(self, campaign: str) -> int:
        """How many partitions the campaign's topic has, which is there when this returns."""


class Route:
    """Sends the frames of one request, at the same time."""

    def __init__(self, outlet: Publish, topics: Topics) -> None:
        self._outlet = outlet
        self._topics = topics

    async def send(self, admission: Admission, request: DecodedRequest, *, headers: Headers, now: int) -> list[Refused]:
        """Send what was admitted; answers what cannot be routed, if the broker refuses to make the topic."""
        if not admission.messages:
            return []
        campaign = request.request.campaign
        try:
            partitions = await self._topics.partitions(campaign)
        except TopicRefused as refused:
            return [
                self._refused(admission, request, refused, number, now) for number in range(len(admission.messages))
            ]
        topic = outbound_topic(campaign)
        sends = [
            self._outlet.publish(topic, frame, partition=partition, headers=headers)
            for partition, frame in frames(admission, request.request, partitions=partitions, now=now).items()
        ]
        if len(sends) == 1:
            await sends[0]
        else:
            await asyncio.gather(*sends)
        return []

    @staticmethod
    def _refused(admission: Admission, request: DecodedRequest, why: KafkaError, number: int, now: int) -> Refused:
        message = admission.messages[number]
        return Refused(
            request_id=request.request.request_id,
            message_id=message.message_id,
            campaign=request.request.campaign,
            address_hash=message.address_hash,
            stage="route",
            reason="no_topic",
            explain=f"the campaign has no outbound topic and {why}; create it, then send this message again",
            at=now,
        )
