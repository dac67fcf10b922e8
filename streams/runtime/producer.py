"""Whether everything that was sent has arrived.

Faust's own answer is given up after 0.1 s, and a record that the broker refused is a warning in the log.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any

from faust.exceptions import ProducerSendError
from faust.transport.drivers import aiokafka as driver
from faust.types.tuples import FutureMessage, RecordMetadata

from streams.producing import Producer
from streams.runtime.table import SafeTable

# Faust stops all streams while more table writes than this wait to be sent (100 in Faust: less than the writes of
# one frame); a write is some hundred bytes.
TABLE_WRITES_IN_HAND = 10_000


class SafeProducer(driver.Producer):
    """``flush`` returns when all that was sent before is on the broker, and raises if something is not."""

    def __init__(self, *args: Any, **options: Any) -> None:  # Any: handed through to Faust
        self._in_flight: set[asyncio.Future[RecordMetadata]] = set()
        self._lost: asyncio.Future[RecordMetadata] | None = None
        super().__init__(*args, **options)
        self.buffer.max_messages = TABLE_WRITES_IN_HAND

    @property
    def _producer_type(self) -> type[Producer]:
        return Producer

    def _watch(self, future: asyncio.Future[RecordMetadata]) -> None:
        self._in_flight.add(future)
        future.add_done_callback(self._landed)

    def _landed(self, future: asyncio.Future[RecordMetadata]) -> None:
        self._in_flight.discard(future)
        if future.cancelled() or future.exception() is not None:
            self._lost = self._lost or future

    def send_soon(self, fut: FutureMessage) -> None:
        """Queue a table's changelog record."""
        self._watch(fut)
        super().send_soon(fut)

    async def send(self, *args: Any, **options: Any) -> Awaitable[RecordMetadata]:  # Any: as in the base class
        """Hand a record to the client; the future answers when the broker has it."""
        future = await super().send(*args, **options)
        assert isinstance(future, asyncio.Future), "aiokafka's answer"  # noqa: S101 - the base class says Awaitable
        self._watch(future)
        return future

    async def flush(self) -> None:
        """Write out what tables owe, and wait for what is in flight then; what is sent meanwhile does not hold this up.

        A record that was lost once is never forgotten: no commit after it succeeds, and the process ends.  Its
        restart reads the events again whose effects were lost.
        """
        for table in self.app.tables.values():
            if isinstance(table, SafeTable):
                await table.write_out()
        ours = set(self._in_flight)
        while ours and self._lost is None and not self.buffer.crashed:
            _, ours = await asyncio.wait(ours, timeout=1.0)  # look up: a crashed buffer leaves futures undone
        if self._lost is not None:
            cause = None if self._lost.cancelled() else self._lost.exception()
            raise ProducerSendError(f"a record was not written: {cause!r}") from cause
        if ours:
            raise ProducerSendError("the buffer of table writes has crashed") from self.buffer.crash_reason
