"""Which outbound topics exist, and how many partitions they have; asked once per campaign, then remembered.

A send to a topic that does not exist would block its partition for a minute and then end the worker.  So nobody
sends to a topic that is not in here.  A campaign that is registered but whose topic is missing gets it made.
"""

import asyncio

import structlog
from aiokafka.errors import KafkaConnectionError

from policy.naming import outbound_topic
from policy.settings import Settings
from streams.admin import admin
from streams.topics import create_for_campaigns

log = structlog.get_logger()

_WITHIN_S = 10.0
_ATTEMPTS = 6


class OutboundTopics:
    """The outbound topics that are known to be there."""

    def __init__(self, bootstrap: str, settings: Settings) -> None:
        self._bootstrap = bootstrap
        self._settings = settings
        self._partitions: dict[str, int] = {}

    async def partitions(self, campaign: str) -> int:
        """How many partitions the campaign's topic has; made if it is missing.

        Raises ``TopicRefused`` if the broker will not make it, ``KafkaConnectionError`` if none answers for a minute.
        """
        topic = outbound_topic(campaign)
        known = self._partitions.get(topic)
        if known is None:
            known = self._partitions[topic] = await self._look_up(campaign, topic)
        return known

    async def _look_up(self, campaign: str, topic: str) -> int:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                async with admin(self._bootstrap, within_s=_WITHIN_S) as edge:
                    found = await edge.partitions([topic])
                if topic not in found:
                    log.warning("outbound topic missing, creating it", campaign=campaign, topic=topic)
                    report = await create_for_campaigns(self._bootstrap, [campaign], self._settings, within_s=_WITHIN_S)
                    found = report.partitions
                return found[topic]
            except KafkaConnectionError as silent:
                if attempt == _ATTEMPTS:
                    raise
                log.warning("no answer about a topic, asking again", topic=topic, cause=str(silent))
                await asyncio.sleep(attempt)
        raise AssertionError("the loop returns or raises")
