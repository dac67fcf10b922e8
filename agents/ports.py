"""What agents ask of the world, in their own words; the real ones are in ``streams``, tests bring doubles."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from policy.templates import BadContent, Template
from policy.traps import TrapFact
from schemas.base import Record
from schemas.reputation import Brake, Control, RatesSnapshot
from schemas.sending import Campaign


class Message(Protocol):
    """A record as it was consumed."""

    topic: str
    partition: int
    offset: int
    key: Any  # Any: bytes or None, but Faust types it more widely
    value: Any
    headers: Any
    timestamp: Any  # Any: seconds, of the producer or the broker


class Publish(Protocol):
    """Sends records; a record that does not arrive ends the process, so nobody waits for it here."""

    async def publish(
        self,
        topic: str,
        record: Record,
        *,
        key: str | None = None,
        partition: int | None = None,
        headers: Sequence[tuple[str, bytes]] | None = None,
    ) -> None:
        """Send one record; a partition that is given wins over the key."""

    async def settled(self) -> None:
        """Wait until everything that was sent so far, and written to tables, is on the broker."""

    async def forward(
        self, topic: str, value: bytes, *, key: str, headers: Sequence[tuple[str, bytes]] | None = None
    ) -> None:
        """Send bytes as they came, under another key."""


class Known(Protocol):
    """What is known of campaigns: the catalogue."""

    @property
    def campaigns(self) -> Mapping[str, Campaign]:
        """By campaign id."""

    @property
    def templates(self) -> Mapping[tuple[str, str], Template | BadContent]:
        """By campaign and content id."""

    @property
    def controls(self) -> Mapping[str, Control]:
        """By campaign id."""

    @property
    def rates(self) -> Mapping[str, RatesSnapshot]:
        """By scope."""

    @property
    def brakes(self) -> Mapping[str, Brake]:
        """By name."""

    def suppressed_in(self, campaign: str, *, as_of: int | None = None) -> Callable[[str], str | None]:
        """Answers, for an address hash, why it gets no mail of a campaign; None if it may get it."""

    def trap(self, hashed: str) -> TrapFact | None:
        """What is known of the trap whose address, or ``@`` and domain, has this keyed hash."""

    async def caught_up(self, timeout_s: float) -> bool:
        """Wait until everything is in that was published before this call."""


def now_ms() -> int:
    """The time, in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000
