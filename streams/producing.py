"""A producer that keeps track of every topic it sends to.

aiokafka asks the brokers about the topics that it was told of, and forgets all others with each answer.  It is told of
a topic only when that is not known yet; and as long as it was told of none, it asks about all of them (Faust makes it
do so when it creates a topic, and so does a lost connection).  The first topic that is new after that makes it forget
the leaders of the others, and a record that waits for its turn goes on waiting: until the next one for the same topic
comes, or, if none does, until it is too old and lost.
"""

from collections.abc import Awaitable
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.structs import RecordMetadata


class Producer(AIOKafkaProducer):  # type: ignore[misc]  # aiokafka has no types
    """aiokafka's producer, whose records do not depend on what is sent to other topics."""

    async def send(self, topic: str, *args: Any, **options: Any) -> Awaitable[RecordMetadata]:  # Any: as in the base
        """Hand a record over; the awaitable answers when the brokers have it."""
        self.client.add_topic(topic)
        sent: Awaitable[RecordMetadata] = await super().send(topic, *args, **options)
        return sent
