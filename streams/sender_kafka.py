"""The Kafka side of a sender: its inbox, its ledger, and the results that everybody reads.

Nothing here decides what is sent.  Two things are promised to the one who does.  A frame is handed out only after
its partition was opened.  And ``assured`` is a lease: a partition counts as ours only for a part of the session
time after the group has last confirmed our membership, so that a process that was frozen, or cut off from its
broker, stops before anybody else can have been given the partition.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from policy.naming import ledger_topic, outbound_topic, sender_group
from schemas.base import Record
from schemas.codec import Malformed, decode, encode
from schemas.delivery import DeliveryFrame, LedgerEntry, Position
from schemas.sending import OutboundFrame
from schemas.topics import BY_NAME, DEAD_LETTERS, LEDGER, OUTBOUND, RESULTS
from streams.dead_letters import dead_letter
from streams.fetching import hasten
from streams.kafka_security import connection
from streams.producing import Producer

log = structlog.get_logger()

T = TypeVar("T")

SESSION_S = 6.0
LEASE_SHARE = 0.6  # of the session time
WRITE_WITHIN_S = 30.0  # then a broker is taken for gone
ANSWER_WITHIN_S = 10.0
CLOSE_WITHIN_S = 10.0
READ_WITHIN_S = 60.0  # from the first try on
_READ_AGAIN_S = 0.5
_LEAP = 500  # ledger entries: reading on through fewer is cheaper than asking anew
_NEVER_IDLE_MS = 2**31 - 1  # a sender that waits for its gate polls nothing; heartbeats and the lease say it lives


class CannotWrite(KafkaError):  # type: ignore[misc]  # noqa: N818 - aiokafka has no types; it says what happened
    """The broker did not acknowledge a record in time; nothing may go on as if it had."""


class Owner(Protocol):
    """Who is told which partitions are ours."""

    async def assigned(self, partitions: Sequence[int]) -> None:
        """These are ours now."""

    async def revoked(self, partitions: Sequence[int]) -> None:
        """These go to somebody else as soon as this returns."""


class Writer:
    """A producer whose every record is acknowledged by all replicas, in order, or raises."""

    def __init__(self, bootstrap: str, *, client_id: str, within_s: float = WRITE_WITHIN_S) -> None:
        self._within_s = within_s
        self._producer = Producer(
            **connection(bootstrap),
            client_id=client_id,
            acks="all",
            enable_idempotence=True,
            max_request_size=max(topic.max_bytes for topic in BY_NAME.values()),
            request_timeout_ms=int(ANSWER_WITHIN_S * 1000),
        )

    async def start(self) -> None:
        """Connect."""
        await self._producer.start()

    async def stop(self) -> None:
        """Close; what is still on its way after some seconds is given up."""
        await _closed(self._producer.stop())

    async def write(self, topic: str, record: Record, *, key: str | None = None, partition: int | None = None) -> int:
        """Write one record and wait until it is safe; answers its offset."""
        try:
            async with asyncio.timeout(self._within_s):
                sent = await self._producer.send(
                    topic, encode(record), key=None if key is None else key.encode(), partition=partition
                )
                offset: int = (await sent).offset
        except (TimeoutError, KafkaError) as silent:
            raise CannotWrite(f"no acknowledgement from topic {topic} within {self._within_s:.0f} s") from silent
        return offset


class KafkaLedger:
    """A campaign's ledger topic."""

    def __init__(self, bootstrap: str, campaign: str, writer: Writer, *, client_id: str) -> None:
        self.topic = ledger_topic(campaign)
        self._bootstrap = bootstrap
        self._writer = writer
        self._client_id = client_id

    async def append(self, partition: int, entry: LedgerEntry) -> int:
        """Write an entry and wait until it is safe; answers its offset."""
        return await self._writer.write(self.topic, entry, partition=partition)

    async def read(self, partition: int, *, start: int) -> AsyncIterator[tuple[int, LedgerEntry]]:
        """All entries from ``start`` to the end as it is now.

        An entry of a newer version ends the reading with an error: it may say that a message was sent.
        """
        place = TopicPartition(self.topic, partition)
        async with self._reader(place) as (consumer, end):
            if start:
                consumer.seek(place, start)
            while await _within(consumer.position(place), WRITE_WITHIN_S) < end:
                for record in (await consumer.getmany(place, timeout_ms=1000)).get(place, ()):
                    entry = self._entry(record)
                    if entry is not None:
                        yield record.offset, entry

    async def pick(self, partition: int, offsets: Sequence[int]) -> AsyncIterator[tuple[int, LedgerEntry]]:
        """The entries at these offsets, which ascend; a gap that is wide is leapt over."""
        place = TopicPartition(self.topic, partition)
        async with self._reader(place) as (consumer, end):
            wanted = deque(offset for offset in offsets if offset < end)
            at = -_LEAP
            while wanted and at < end:
                if wanted[0] - at >= _LEAP:
                    consumer.seek(place, wanted[0])
                for record in (await consumer.getmany(place, timeout_ms=1000)).get(place, ()):
                    while wanted and wanted[0] < record.offset:
                        wanted.popleft()  # deleted
                    if wanted and wanted[0] == record.offset:
                        wanted.popleft()
                        entry = self._entry(record)
                        if entry is not None:
                            yield record.offset, entry
                at = await _within(consumer.position(place), WRITE_WITHIN_S)

    async def forget(self, partition: int, *, before: int) -> None:
        """Delete the entries before an offset; when the broker will not, they stay and do no harm."""
        client = AIOKafkaAdminClient(**connection(self._bootstrap), client_id=f"{self._client_id}-ledger")
        try:
            await _within(client.start(), WRITE_WITHIN_S)
            wanted = {TopicPartition(self.topic, partition): RecordsToDelete(before_offset=before)}
            await _within(client.delete_records(wanted), WRITE_WITHIN_S)
        except (KafkaError, OSError, TimeoutError) as failed:
            log.warning(
                "old ledger entries stay",
                topic=self.topic,
                partition=partition,
                before=before,
                cause=str(failed)[:300] or type(failed).__name__,
            )
        finally:
            await _closed(client.close())

    @contextlib.asynccontextmanager
    async def _reader(self, place: TopicPartition) -> AsyncIterator[tuple[AIOKafkaConsumer, int]]:
        """A consumer of one partition, at its beginning, and the partition's end.

        A broker that is away for a while is waited for: what is in flight meanwhile must not end by our reading.
        """
        consumer, end = await self._connected(place)
        try:
            yield consumer, end
        finally:
            await _closed(consumer.stop())

    async def _connected(self, place: TopicPartition) -> tuple[AIOKafkaConsumer, int]:
        deadline = time.monotonic() + READ_WITHIN_S
        while True:
            consumer = AIOKafkaConsumer(
                **connection(self._bootstrap),
                client_id=f"{self._client_id}-ledger",
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                max_partition_fetch_bytes=BY_NAME[LEDGER].max_bytes,
            )
            hasten(consumer)
            try:
                await _within(consumer.start(), WRITE_WITHIN_S)
                consumer.assign([place])
                end: int = (await _within(consumer.end_offsets([place]), WRITE_WITHIN_S))[place]
            except (KafkaError, OSError, TimeoutError) as away:
                await _closed(consumer.stop())
                if time.monotonic() > deadline:
                    raise
                log.info("ledger cannot be read, trying again", topic=self.topic, cause=str(away)[:300])
                await asyncio.sleep(_READ_AGAIN_S)
            except BaseException:
                await _closed(consumer.stop())
                raise
            else:
                return consumer, end

    @staticmethod
    def _entry(record: ConsumerRecord) -> LedgerEntry | None:
        read = decode(LedgerEntry, record.value, max_bytes=BY_NAME[LEDGER].max_bytes)
        if not isinstance(read, Malformed):
            return read
        if read.reason == "unknown_version":
            raise CannotRead(f"{record.topic}, partition {record.partition}, offset {record.offset}: {read.explain}")
        log.error(
            "no ledger entry, skipped",
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            explain=read.explain[:300],
        )
        return None


class CannotRead(RuntimeError):  # noqa: N818 - says what happened
    """The ledger was written by a newer mailcordon; update this one before it sends anything."""


class KafkaResults:
    """``mail.delivery.results``, keyed by campaign."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    async def publish(self, frame: DeliveryFrame) -> None:
        """Publish a frame and wait until it is safe."""
        await self._writer.write(RESULTS, frame, key=frame.campaign)


class KafkaInbox:
    """A campaign's outbound topic, as a member of the campaign's group.

    ``session_s`` is how long the broker waits for a member that says nothing; its partitions go to others then.
    ``drain_s`` is how long the group waits for us to finish what is in flight when partitions move.
    """

    def __init__(
        self,
        bootstrap: str,
        campaign: str,
        writer: Writer,
        *,
        client_id: str,
        session_s: float = SESSION_S,
        drain_s: float = 30.0,
    ) -> None:
        self._topic = outbound_topic(campaign)
        self._writer = writer
        self._lease_s = session_s * LEASE_SHARE
        self._consumer = AIOKafkaConsumer(
            **connection(bootstrap),
            client_id=client_id,
            group_id=sender_group(campaign),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=int(session_s * 1000),
            heartbeat_interval_ms=int(session_s * 250),
            rebalance_timeout_ms=int((drain_s + session_s) * 1000),
            max_poll_interval_ms=_NEVER_IDLE_MS,
            request_timeout_ms=int((drain_s + session_s + ANSWER_WITHIN_S) * 1000),
        )
        hasten(self._consumer)
        self._offsets: dict[int, int] = {}  # of each assigned partition, what was committed last
        self._opened: set[int] = set()
        self._sure_until = 0.0
        self._one_commit = asyncio.Lock()
        self._keeping: asyncio.Task[None] | None = None
        self._told: asyncio.Task[None] | None = None
        self._failure: BaseException | None = None

    async def start(self, owner: Owner) -> None:
        """Join the group; returns before partitions are assigned."""
        await self._consumer.start()
        self._consumer.subscribe([self._topic], listener=_Listener(self, owner))
        self._keeping = asyncio.create_task(self._keep_lease(), name="keep lease")

    def open(self, partition: int) -> None:
        """Hand out frames of this partition from now on."""
        self._opened.add(partition)

    async def take(self, most: int, *, timeout_s: float) -> Sequence[tuple[Position, OutboundFrame | Malformed]]:
        """Up to ``most`` frames of opened partitions; raises what went wrong when partitions moved.

        Frames that were read before partitions moved, while a dead letter was on its way, are not handed out: when
        such a partition comes back to us, the frames before them are read again, and must be known first.
        """
        if self._failure is not None:
            raise self._failure
        opened = self._opened
        if not opened or most <= 0:
            await asyncio.sleep(timeout_s)
            return []
        try:
            async with asyncio.timeout(timeout_s + 1.0):  # while partitions move nothing is handed out
                places = [TopicPartition(self._topic, partition) for partition in opened]
                found = await self._consumer.getmany(*places, timeout_ms=int(timeout_s * 1000), max_records=most)
        except (TimeoutError, IllegalStateError):
            return []
        if self._opened is not opened:
            await self._unread(found)
            return []
        taken = [await self._frame(record) for records in found.values() for record in records]
        return taken if self._opened is opened else []

    async def _unread(self, found: Mapping[TopicPartition, Sequence[ConsumerRecord]]) -> None:
        """Partitions moved while we waited for frames: those of the new time come again when their ledger was read.

        What was left from the time before lies behind the position that the group has set since, which then stays.
        """
        for place, records in found.items():
            try:
                position = await _within(self._consumer.position(place), ANSWER_WITHIN_S)
                self._consumer.seek(place, min(position, records[0].offset))
            except (TimeoutError, IllegalStateError):
                continue  # it is not ours any more

    def assured(self, partition: int) -> bool:
        """Is the partition ours beyond doubt?"""
        return partition in self._offsets and time.monotonic() < self._sure_until

    async def confirm(self) -> bool:
        """Ask the group; only a member's commit is accepted."""
        return await self.commit({})

    async def commit(self, offsets: Mapping[int, int]) -> bool:
        """Commit, and by that renew the lease; False when we are no member any more, or nobody answers."""
        async with self._one_commit:
            offsets = {partition: offset for partition, offset in offsets.items() if partition in self._offsets}
            wanted = offsets or dict(self._offsets)
            if not wanted:
                return False
            asked_at = time.monotonic()
            try:
                await _within(
                    self._consumer.commit(
                        {TopicPartition(self._topic, partition): offset for partition, offset in wanted.items()}
                    ),
                    ANSWER_WITHIN_S,
                )
            except (CommitFailedError, IllegalStateError) as fenced:
                self._sure_until = 0.0
                log.warning("not a member of the group any more", topic=self._topic, why=str(fenced)[:300])
                return False
            except (TimeoutError, KafkaError, OSError) as failed:
                log.warning("the group does not answer", topic=self._topic, why=str(failed)[:300])
                return False
            for partition in offsets:
                if partition in self._offsets:
                    self._offsets[partition] = max(self._offsets[partition], offsets[partition])
            self._sure_until = max(self._sure_until, asked_at + self._lease_s)
            return True

    async def stop(self) -> None:
        """Leave the group."""
        for task in (self._keeping, self._told):
            if task is not None:
                task.cancel()
        await _closed(self._consumer.stop())

    async def _keep_lease(self) -> None:
        while True:
            await asyncio.sleep(self._lease_s / 4)
            if self._offsets and self._sure_until - time.monotonic() < self._lease_s * 0.7:
                await self.commit({})

    async def _frame(self, record: ConsumerRecord) -> tuple[Position, OutboundFrame | Malformed]:
        position = Position(topic=record.topic, partition=record.partition, offset=record.offset)
        frame = decode(OutboundFrame, record.value, max_bytes=BY_NAME[OUTBOUND].max_bytes)
        if isinstance(frame, Malformed):
            await self._writer.write(
                DEAD_LETTERS,
                dead_letter(
                    topic=record.topic,
                    partition=record.partition,
                    offset=record.offset,
                    key=record.key,
                    value=record.value,
                    headers=record.headers,
                    reason=frame.reason,
                    explain=frame.explain,
                    now=time.time_ns() // 1_000_000,
                ),
                key=record.topic,
            )
        return position, frame

    async def moved_here(self, partitions: Iterable[TopicPartition], owner: Owner) -> None:
        """The group has given us these partitions."""
        now = time.monotonic()
        found = {
            place.partition: await _within(self._consumer.committed(place), ANSWER_WITHIN_S) or 0
            for place in partitions
        }
        self._offsets = found
        self._sure_until = now + self._lease_s
        await owner.assigned(sorted(found))

    async def moved_away(self, owner: Owner) -> None:
        """The group takes all partitions back before it gives them out anew."""
        ours = sorted(self._offsets)
        self._opened = set()
        try:
            await owner.revoked(ours)
        finally:
            self._offsets = {}
            self._sure_until = 0.0

    async def tell(self, telling: Awaitable[None]) -> None:
        """aiokafka logs what a listener raises and goes on; here it ends the sender, by way of ``take``."""
        self._told = asyncio.ensure_future(telling)
        try:
            await self._told
        except asyncio.CancelledError:
            if not self._told.cancelled():
                raise
        except BaseException as failed:  # noqa: BLE001 - raised again by take()
            self._failure = failed


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    def __init__(self, inbox: KafkaInbox, owner: Owner) -> None:
        self._inbox = inbox
        self._owner = owner

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        if revoked:
            await self._inbox.tell(self._inbox.moved_away(self._owner))

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        await self._inbox.tell(self._inbox.moved_here(assigned, self._owner))


async def _within(waiting: Awaitable[T], seconds: float) -> T:
    return await asyncio.wait_for(waiting, seconds)


async def _closed(closing: Awaitable[None]) -> None:
    """Let a client close, for some seconds; without a broker it may hang, or end with its own tasks' cancellation."""
    task = asyncio.ensure_future(closing)
    await asyncio.wait({task}, timeout=CLOSE_WITHIN_S)
    task.cancel()
    if task.done() and not task.cancelled() and (failed := task.exception()) is not None:
        log.info("client closed with an error", cause=f"{type(failed).__name__}: {failed}"[:300])
