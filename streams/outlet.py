"""The one way out of an agent: a record to a topic, on its way when the call returns.

Mostly nobody waits for the broker's answer here: the runtime commits an event only when everything that was sent
before is acknowledged, and ends the process when something was lost.
"""

from collections.abc import Sequence

from schemas.base import Record
from schemas.codec import encode
from streams.metrics import Metrics
from streams.runtime import SafeApp
from streams.runtime.producer import SafeProducer

Headers = Sequence[tuple[str, bytes]]


class Outlet:
    """Publishes through the app's producer, and counts what it publishes."""

    def __init__(self, app: SafeApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def publish(
        self,
        topic: str,
        record: Record,
        *,
        key: str | None = None,
        partition: int | None = None,
        headers: Headers | None = None,
    ) -> None:
        """Send one record; a partition that is given wins over the key."""
        raw_key = None if key is None else key.encode()
        await self._app.producer.send(
            topic, raw_key, encode(record), partition, None, list(headers) if headers else None
        )
        self._metrics.published(topic)

    async def remove(self, topic: str, key: str) -> None:
        """Send a tombstone."""
        await self._app.producer.send(topic, key.encode(), None, None, None, None)
        self._metrics.published(topic)

    async def settled(self) -> None:
        """Wait until everything that was sent so far, and written to tables, is on the broker."""
        producer = self._app.producer
        assert isinstance(producer, SafeProducer), "set by the app"  # noqa: S101 - narrows the type
        await producer.flush()

    async def forward(self, topic: str, value: bytes, *, key: str, headers: Headers | None = None) -> None:
        """Send bytes as they came, under another key."""
        await self._app.producer.send(topic, key.encode(), value, None, None, list(headers) if headers else None)
        self._metrics.published(topic)
