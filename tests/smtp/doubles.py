"""The world of a sender in memory: topics, a consumer group, a board, a clock that is moved by hand."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

from policy.templates import BadContent, Template, compile_content
from schemas.codec import Malformed, decode
from schemas.delivery import DeliveryFrame, LedgerEntry, Position
from schemas.reputation import Brake, Control
from schemas.sending import Campaign, Content, OutboundFrame
from smtp.sending.ports import Owner, Taken


class MovedClock:
    """The real clock, put forward by hand."""

    def __init__(self) -> None:
        self._ahead_ms = 0

    def advance(self, seconds: float) -> None:
        self._ahead_ms += round(seconds * 1000)

    def now(self) -> int:
        return time.time_ns() // 1_000_000 + self._ahead_ms

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class MemoryBoard:
    """What is known of campaigns, said by the test."""

    def __init__(self) -> None:
        self.campaigns: dict[str, Campaign] = {}
        self.templates: dict[tuple[str, str], Template | BadContent] = {}
        self.controls: dict[str, Control] = {}
        self.brakes: dict[str, Brake] = {}
        self.suppressions: dict[str, str] = {}
        self.is_deaf = False

    def content(self, content: Content) -> None:
        self.templates[content.campaign, content.content] = compile_content(content)

    def suppressed(self, address_hash: str, campaign: str) -> str | None:
        del campaign
        return self.suppressions.get(address_hash)

    def heard_at(self) -> float:
        return time.monotonic() - (1000.0 if self.is_deaf else 0.0)

    async def caught_up(self, timeout_s: float) -> bool:
        del timeout_s
        return True


@dataclass
class MemoryBroker:
    """Topics of one campaign and its consumer group."""

    partitions: int = 2
    outbound: list[list[bytes]] = field(default_factory=list)
    ledger: list[list[LedgerEntry]] = field(default_factory=list)
    results: list[DeliveryFrame] = field(default_factory=list)
    committed: dict[int, int] = field(default_factory=dict)
    dead_letters: list[tuple[int, int]] = field(default_factory=list)
    members: list["MemoryInbox"] = field(default_factory=list)
    forgotten: dict[int, int] = field(default_factory=dict)
    ledger_is_broken: bool = False
    results_are_broken: bool = False
    moving: asyncio.Lock = field(default_factory=asyncio.Lock)
    delay_s: float = 0.0

    def __post_init__(self) -> None:
        self.outbound = [[] for _ in range(self.partitions)]
        self.ledger = [[] for _ in range(self.partitions)]

    async def move(self) -> None:
        """Take all partitions back and give them out anew, as an eager group does."""
        async with self.moving:
            for member in list(self.members):
                await member.give_up()
            for number, member in enumerate(self.members):
                await member.take_over([p for p in range(self.partitions) if p % len(self.members) == number])


class MemoryInbox:
    def __init__(self, broker: MemoryBroker, topic: str) -> None:
        self._broker = broker
        self._topic = topic
        self._next: dict[int, int] = {}
        self._opened: set[int] = set()
        self._moving: asyncio.Task[None] | None = None
        self.is_fenced = False

    async def start(self, owner: Owner) -> None:
        self._owner = owner
        self._broker.members.append(self)
        self._moving = asyncio.create_task(self._broker.move())

    async def give_up(self) -> None:
        if self._next:
            await self._owner.revoked(sorted(self._next))
        self._next.clear()
        self._opened.clear()

    async def take_over(self, partitions: Sequence[int]) -> None:
        self._next = {partition: self._broker.committed.get(partition, 0) for partition in partitions}
        await self._owner.assigned(partitions)

    def open(self, partition: int) -> None:
        self._opened.add(partition)

    async def take(self, most: int, *, timeout_s: float) -> Sequence[Taken]:
        taken: list[Taken] = []
        for partition in sorted(self._opened):
            while len(taken) < most and self._next[partition] < len(self._broker.outbound[partition]):
                offset = self._next[partition]
                frame = decode(OutboundFrame, self._broker.outbound[partition][offset])
                if isinstance(frame, Malformed):
                    self._broker.dead_letters.append((partition, offset))
                taken.append((Position(topic=self._topic, partition=partition, offset=offset), frame))
                self._next[partition] += 1
        await asyncio.sleep(0 if taken else min(timeout_s, 0.01))
        return taken

    def assured(self, partition: int) -> bool:
        return partition in self._next and not self.is_fenced

    async def confirm(self) -> bool:
        return not self.is_fenced

    async def commit(self, offsets: Mapping[int, int]) -> bool:
        if self.is_fenced:
            return False
        self._broker.committed.update(offsets)
        return True

    async def stop(self) -> None:
        if self in self._broker.members:
            self._broker.members.remove(self)
        if self._moving is not None and not self._moving.done():
            self._moving.cancel()
        self._next.clear()


class MemoryLedger:
    def __init__(self, broker: MemoryBroker, topic: str) -> None:
        self.topic = topic
        self._broker = broker

    async def append(self, partition: int, entry: LedgerEntry) -> int:
        await asyncio.sleep(self._broker.delay_s)
        if self._broker.ledger_is_broken:
            raise OSError("the ledger cannot be written")
        self._broker.ledger[partition].append(entry)
        return len(self._broker.ledger[partition]) - 1

    async def read(self, partition: int, *, start: int) -> AsyncIterator[tuple[int, LedgerEntry]]:
        await asyncio.sleep(0)
        first = max(start, self._broker.forgotten.get(partition, 0))
        for offset, entry in list(enumerate(self._broker.ledger[partition]))[first:]:
            yield offset, entry

    async def pick(self, partition: int, offsets: Sequence[int]) -> AsyncIterator[tuple[int, LedgerEntry]]:
        await asyncio.sleep(0)
        for offset in offsets:
            if offset >= self._broker.forgotten.get(partition, 0):
                yield offset, self._broker.ledger[partition][offset]

    async def forget(self, partition: int, *, before: int) -> None:
        self._broker.forgotten[partition] = before


class MemoryResults:
    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    async def publish(self, frame: DeliveryFrame) -> None:
        await asyncio.sleep(self._broker.delay_s)
        if self._broker.results_are_broken:
            raise OSError("results cannot be published")
        self._broker.results.append(frame)
