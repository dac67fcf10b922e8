"""Striking: strikes of enough campaigns become a suppression, and those that are too old are taken out of the topic.

What follows depends only on what stands in ``mail.suppressions``, of which every worker has a copy: whoever leads
publishes it until it is in the topic, and doing so twice is harmless.  No result waits for it.
"""

from collections.abc import Mapping
from itertools import islice
from typing import Protocol

from agents.suppressing import key_of
from policy.strikes import enough
from policy.trap_signals import DAY_MS
from schemas.base import Record
from schemas.feedback import Suppression
from schemas.sending import Campaign
from schemas.topics import SUPPRESSIONS
from streams.strikes import Strikes
from streams.suppressed import Suppressed

EVERY_S = 5.0
AT_ONCE = 1_000
CLEANED_EVERY_MS = 60_000
GRACE_MS = DAY_MS  # results that come again some hours later write the same strikes again


class Known(Protocol):
    """What the topics say."""

    @property
    def campaigns(self) -> Mapping[str, Campaign]:
        """By campaign id."""

    @property
    def suppressions(self) -> Suppressed:
        """Who gets no mail, and who got none."""

    @property
    def strikes(self) -> Strikes:
        """Soft failures of the last weeks."""


class Outlet(Protocol):
    """The way out."""

    async def publish(self, topic: str, record: Record, *, key: str) -> None:
        """Send one record."""

    async def remove(self, topic: str, key: str) -> None:
        """Send a tombstone."""


class Striking:
    """Looks at strikes that came since the last look; ``days`` is how long a suppression for them lasts."""

    def __init__(self, known: Known, outlet: Outlet, *, days: int) -> None:
        self._known = known
        self._outlet = outlet
        self._lasts_ms = days * DAY_MS
        self._cleaned_at = 0

    async def act(self, now: int, *, leads: bool) -> None:
        """Publish what is due, if this worker leads; the others only find out what is no more."""
        for hashed, category in self._known.strikes.due(AT_ONCE):
            wanted = self._wanted(hashed, category)
            if not wanted:
                self._known.strikes.judged((hashed, category))
            elif leads:
                for one in wanted:
                    await self._outlet.publish(SUPPRESSIONS, one, key=key_of(one))
        if leads and now - self._cleaned_at >= CLEANED_EVERY_MS:
            self._cleaned_at = now
            for key in list(islice(self._known.strikes.over(now - GRACE_MS), AT_ONCE)):
                await self._outlet.remove(SUPPRESSIONS, key)

    def _wanted(self, hashed: str, category: str) -> list[Suppression]:
        """The suppressions that the strikes of an address ask for and that are not in the topic."""
        strikes = self._known.strikes.of(hashed, category)
        known = {one.campaign: self._known.campaigns.get(one.campaign) for one in strikes}
        tenants = {name: one.tenant for name, one in known.items() if one is not None}
        ended: dict[str, int] = {}
        for scope in ("platform", *{f"tenant:{tenant}" for tenant in tenants.values()}):
            for _, _, until in self._known.suppressions.past(hashed, (scope,)):
                ended[scope] = max(one.at for one in strikes) if until is None else until
        return [
            Suppression(address_hash=hashed, scope=scope, reason=category, since=last, until=last + self._lasts_ms)
            for scope, last in enough(category, strikes, tenants, ended).items()
        ]
