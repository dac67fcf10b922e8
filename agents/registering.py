"""Registering campaigns that were made where senders run: as a Kubernetes resource instead of a record."""

import structlog

from agents.ports import now_ms
from policy.naming import campaign_scope
from policy.registering import Flaw, flaw_of, look_at, with_link
from policy.settings import Settings
from schemas.sending import Campaign
from schemas.topics import CAMPAIGNS, COMMANDS
from streams.outlet import Outlet
from streams.topics import create_for_campaigns

log = structlog.get_logger()

BY = "controller"


class Registrar:
    """Makes a campaign known as ``mailcordon campaign apply`` does: its topics, its record, a look by the judge."""

    def __init__(self, bootstrap: str, settings: Settings, outlet: Outlet) -> None:
        self._bootstrap, self._settings, self._outlet = bootstrap, settings, outlet

    async def register(self, made: Campaign) -> None:
        """Register it, and return when it is safe."""
        await create_for_campaigns(self._bootstrap, [made.campaign], self._settings)
        await self._outlet.publish(CAMPAIGNS, made, key=made.campaign)
        await self._outlet.settled()
        await self._outlet.publish(
            COMMANDS, look_at(made.campaign, by=BY, at=now_ms()), key=campaign_scope(made.campaign)
        )
        log.info("campaign registered from its resource", campaign=made.campaign)

    def completed(self, made: Campaign) -> Campaign:
        """The campaign as it would be registered."""
        return with_link(made, self._settings.unsubscribe_url)

    def flaw(self, made: Campaign) -> Flaw | None:
        """Why it cannot be registered."""
        return flaw_of(made)
