"""The sender's clock: the machine's wall clock, unless that jumps.

Expiry is final, so a wall clock that is set forward by days must not expire a campaign, and one that is set back must
not let deferred mail wait for days.  What the wall clock says is held against the time since the machine's start,
which nobody sets (CLOCK_BOOTTIME; it goes on while the machine sleeps).  A wall clock that runs a little faster or
slower is followed.  One that jumps is believed only when it has stayed where it jumped to: then somebody meant it.
"""

import asyncio
import time
from collections.abc import Callable

import structlog

log = structlog.get_logger()

_FOLLOWED_MS = 2_000  # between two looks, which come many times a second while there is anything to do
BELIEVED_AFTER_MS = 15 * 60_000


class SteadyClock:
    """Time for a sender."""

    def __init__(
        self,
        *,
        wall_ms: Callable[[], int] | None = None,
        steady_ms: Callable[[], int] | None = None,
    ) -> None:
        wall_ms, steady_ms = wall_ms or _wall_ms, steady_ms or _since_start_ms
        self._wall_ms = wall_ms
        self._steady_ms = steady_ms
        self._offset_ms = wall_ms() - steady_ms()
        self._jump_ms = 0
        self._jumped_at = 0

    def now(self) -> int:
        """Milliseconds since the epoch."""
        steady = self._steady_ms()
        expected = steady + self._offset_ms
        off = self._wall_ms() - expected
        if -_FOLLOWED_MS <= off <= _FOLLOWED_MS:
            self._offset_ms += off
            self._jump_ms = 0
            return expected + off
        if abs(off - self._jump_ms) > _FOLLOWED_MS:
            self._jump_ms, self._jumped_at = off, steady
            log.warning("the clock was set: not believed yet", by_s=round(off / 1000))
        elif steady - self._jumped_at >= BELIEVED_AFTER_MS:
            log.warning("the clock was set: believed", by_s=round(off / 1000))
            self._offset_ms += off
            self._jump_ms = 0
            return expected + off
        return expected

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # the former is Linux


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _since_start_ms() -> int:
    return time.clock_gettime_ns(_BOOTTIME) // 1_000_000
