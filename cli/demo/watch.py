"""Following the demo's topics: the books of each campaign, and the rates that the judge looks at."""

import asyncio
import time
from collections.abc import Iterable

import aiokafka

from cli.access import MAX_REQUEST_BYTES, REQUEST_TIMEOUT_S
from cli.account import Books
from policy.naming import campaign_scope, outbound_topic
from schemas.base import Record
from schemas.codec import Malformed, decode
from schemas.delivery import DeliveryFrame
from schemas.reputation import Control, Decision, RatesSnapshot
from schemas.sending import OutboundFrame, Refused
from schemas.topics import CONTROL, DECISIONS, RATES, REFUSED, RESULTS
from streams.admin import admin
from streams.stopping import stop

_RECORDS: dict[str, type[Record]] = {
    REFUSED: Refused,
    RESULTS: DeliveryFrame,
    DECISIONS: Decision,
    CONTROL: Control,
    RATES: RatesSnapshot,
}


class Watch:
    """Reads everything about some campaigns from the beginning of the topics, and keeps reading."""

    def __init__(self, bootstrap: str, campaigns: Iterable[str]) -> None:
        self._bootstrap = bootstrap
        self.books = {campaign: Books(campaign) for campaign in campaigns}
        self.rates: dict[str, RatesSnapshot] = {}
        self.moved_at = {campaign: time.monotonic() for campaign in self.books}
        self._outbound = {outbound_topic(campaign): campaign for campaign in self.books}
        self._scopes = {campaign_scope(campaign): campaign for campaign in self.books}
        self._consumer = aiokafka.AIOKafkaConsumer(
            bootstrap_servers=bootstrap,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=MAX_REQUEST_BYTES,
        )
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to follow; the topics must exist."""
        async with admin(self._bootstrap, within_s=REQUEST_TIMEOUT_S) as edge:
            partitions = list(await edge.leaders((*_RECORDS, *self._outbound)))
        await self._consumer.start()
        self._consumer.assign(partitions)
        await self._consumer.seek_to_beginning(*partitions)
        self._task = asyncio.create_task(self._follow(), name="watch")

    async def stop(self) -> None:
        """Stop following."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await stop(self._consumer)

    async def _follow(self) -> None:
        while True:
            for batch in (await self._consumer.getmany(timeout_ms=200)).values():
                for record in batch:
                    self._take(record.topic, record.value)

    def _take(self, topic: str, value: bytes | None) -> None:
        campaign = self._outbound.get(topic)
        found = decode(OutboundFrame if campaign else _RECORDS[topic], value, max_bytes=MAX_REQUEST_BYTES)
        match found:
            case Malformed():
                return
            case RatesSnapshot():
                if found.scope in self._scopes:
                    self.rates[self._scopes[found.scope]] = found
                return
            case OutboundFrame() | Refused() | DeliveryFrame() | Decision() | Control():
                books = self.books.get(found.campaign or "")
        if books is None:
            return
        before = len(books.final), len(books.deferred), len(books.waiting)
        books.add(found)
        if before != (len(books.final), len(books.deferred), len(books.waiting)):
            self.moved_at[books.campaign] = time.monotonic()
