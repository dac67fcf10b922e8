"""What waits to be reconciled: each campaign once, urgent ones first, never two at the same campaign.

The rules of a controller's work queue: a campaign that is asked for again while it waits is not doubled; one that
is asked for while it is being worked on comes again when that is done; one that failed comes again after its delay,
or at once when somebody asks anew.
"""

import asyncio
import heapq
import itertools
from collections.abc import Callable


class WorkQueue:
    """A queue of campaign ids for workers of one event loop; ``clock`` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ready: list[tuple[int, int, str]] = []  # (urgency, arrival, campaign); stale entries are skipped
        self._waiting: dict[str, tuple[int, int]] = {}  # campaign -> its newest entry in _ready
        self._later: list[tuple[float, int, str, bool]] = []
        self._due: dict[str, float] = {}
        self._busy: set[str] = set()
        self._again: dict[str, bool] = {}  # asked for while busy -> urgent?
        self._numbers = itertools.count()
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._again)

    @property
    def delayed(self) -> int:
        """How many wait for their time."""
        return len(self._due)

    def add(self, campaign: str, *, urgent: bool = False) -> None:
        """Ask for a campaign now."""
        self._due.pop(campaign, None)
        if campaign in self._busy:
            self._again[campaign] = self._again.get(campaign, False) or urgent
            return
        known = self._waiting.get(campaign)
        if known is not None and known[0] <= (0 if urgent else 1):
            return
        entry = (0 if urgent else 1, next(self._numbers))
        self._waiting[campaign] = entry
        heapq.heappush(self._ready, (*entry, campaign))
        self._changed.set()

    def add_later(self, campaign: str, delay_s: float, *, urgent: bool = False) -> None:
        """Ask for a campaign after a delay; asking for it in any other way meanwhile takes its place."""
        if campaign in self._waiting or campaign in self._again:
            return
        due = self._clock() + delay_s
        self._due[campaign] = due
        heapq.heappush(self._later, (due, next(self._numbers), campaign, urgent))
        self._changed.set()

    async def get(self) -> str:
        """The next campaign; the caller says :meth:`done` when its work has ended, however it ended."""
        while True:
            self._promote()
            campaign = self._next()
            if campaign is not None:
                self._busy.add(campaign)
                return campaign
            self._changed.clear()
            try:
                async with asyncio.timeout(self._until_due()):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def done(self, campaign: str) -> None:
        """The work on a campaign has ended; what was asked for meanwhile is asked for now."""
        self._busy.discard(campaign)
        if campaign in self._again:
            self.add(campaign, urgent=self._again.pop(campaign))

    def _next(self) -> str | None:
        while self._ready:
            urgency, number, campaign = heapq.heappop(self._ready)
            if self._waiting.get(campaign) == (urgency, number):
                del self._waiting[campaign]
                return campaign
        return None

    def _promote(self) -> None:
        now = self._clock()
        while self._later and self._later[0][0] <= now:
            due, _, campaign, urgent = heapq.heappop(self._later)
            if self._due.get(campaign) == due:
                self.add(campaign, urgent=urgent)

    def _until_due(self) -> float | None:
        return max(0.0, self._later[0][0] - self._clock()) if self._later else None
