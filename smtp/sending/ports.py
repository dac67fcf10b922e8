"""What a sender needs of the world, in its own words.  ``streams.sender_kafka`` is the real thing for most of it."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from policy.templates import BadContent, Template
from schemas.codec import Malformed
from schemas.delivery import DeliveryFrame, LedgerEntry, Position
from schemas.reputation import Brake, Control
from schemas.sending import Campaign, OutboundFrame

Taken = tuple[Position, OutboundFrame | Malformed]


class Owner(Protocol):
    """Who is told which partitions are ours."""

    async def assigned(self, partitions: Sequence[int]) -> None:
        """These are ours now; nothing of them is handed out before :meth:`Inbox.open`."""

    async def revoked(self, partitions: Sequence[int]) -> None:
        """These go to somebody else as soon as this returns."""


class Inbox(Protocol):
    """The campaign's outbound topic, seen by a member of its group."""

    async def start(self, owner: Owner) -> None:
        """Join; returns before partitions are assigned."""

    def open(self, partition: int) -> None:
        """Begin to hand out frames of an assigned partition, from the first one that was not committed."""

    async def take(self, most: int, *, timeout_s: float) -> Sequence[Taken]:
        """Up to ``most`` frames in the order of their partitions; with 0 only show that we are alive.

        A frame that cannot be read is a dead letter already.
        """

    def assured(self, partition: int) -> bool:
        """Is the partition ours beyond doubt?  No when the group has not confirmed it for too long."""

    async def confirm(self) -> bool:
        """Ask the group whether we are still a member; False when we are not."""

    async def commit(self, offsets: Mapping[int, int]) -> bool:
        """Everything before these offsets is done with; False when it is not ours to say any more."""

    async def stop(self) -> None:
        """Leave the group."""


class Ledger(Protocol):
    """Where intents and results are written down; partitions as the inbox."""

    @property
    def topic(self) -> str:
        """The name of the topic, for the positions that frames carry."""

    async def append(self, partition: int, entry: LedgerEntry) -> int:
        """Write and wait until it is safe; answers its offset, raises when it cannot be written in time."""

    def read(self, partition: int, *, start: int) -> AsyncIterator[tuple[int, LedgerEntry]]:
        """All entries from ``start`` to the end as it is now, or from the first one if that comes later."""

    def pick(self, partition: int, offsets: Sequence[int]) -> AsyncIterator[tuple[int, LedgerEntry]]:
        """The entries at these offsets, which ascend; those that are not there any more are left out."""

    async def forget(self, partition: int, *, before: int) -> None:
        """Delete the entries before an offset; nothing bad comes of it if that cannot be done."""


class Results(Protocol):
    """Where results are told to everybody else."""

    async def publish(self, frame: DeliveryFrame) -> None:
        """Publish and wait until it is safe; frames of one sender stay in order; raises when it cannot."""


class Board(Protocol):
    """What is known about campaigns now (the catalogue)."""

    @property
    def campaigns(self) -> Mapping[str, Campaign]:
        """Campaigns by id."""

    @property
    def templates(self) -> Mapping[tuple[str, str], Template | BadContent]:
        """Compiled contents by campaign and content id."""

    @property
    def controls(self) -> Mapping[str, Control]:
        """What each campaign may do, by id."""

    @property
    def brakes(self) -> Mapping[str, Brake]:
        """The brakes on all campaigns, by name."""

    def suppressed(self, address_hash: str, campaign: str) -> str | None:
        """Why an address gets no mail, None if it may."""

    def heard_at(self) -> float:
        """The moment (monotonic seconds) up to which everything that was published is known."""

    async def caught_up(self, timeout_s: float) -> bool:
        """Wait until everything is known that was published when this was called."""


class Clock(Protocol):
    """Time, which tests move by hand."""

    def now(self) -> int:
        """Milliseconds since the epoch."""

    def monotonic(self) -> float:
        """Seconds that never go back."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""
