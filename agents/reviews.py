"""The judge's own clock: commands ``review`` for campaigns that nothing else would bring to mind.

A campaign without control cannot send; one whose record changed may have other limits and pace; one that is not
healthy may have sat out its time.  Any worker may ask, and asking twice is harmless, so the leader does.
"""

import itertools

from agents.ports import Known, Publish
from policy.naming import campaign_scope
from schemas.reputation import Command, Control
from schemas.topics import COMMANDS

EVERY_S = 1.0
AGAIN_MS = 10_000

_numbers = itertools.count()


class Reviews:
    """Remembers what it asked for, and when."""

    def __init__(self, known: Known, outlet: Publish) -> None:
        self._known = known
        self._outlet = outlet
        self._changed: set[str] = set()
        self._asked_at: dict[str, int] = {}

    def changed(self, campaign: str) -> None:
        """A campaign's record is new or other than it was."""
        self._changed.add(campaign)

    async def ask(self, now: int) -> list[str]:
        """Publish a review for each campaign that is due; answers their ids."""
        due = {name: why for name in self._known.campaigns if (why := self._due(name, now)) is not None}
        self._changed.clear()
        for name, why in due.items():
            self._asked_at[name] = now
            await self._outlet.publish(COMMANDS, _review(name, why, now), key=campaign_scope(name))
        self._asked_at = {name: at for name, at in self._asked_at.items() if name in self._known.campaigns}
        return list(due)

    def _due(self, name: str, now: int) -> str | None:
        """Why a campaign is due for review; None if it is not."""
        if name in self._changed:
            return "the campaign's record is new or has changed"
        if now - self._asked_at.get(name, 0) < AGAIN_MS:
            return None
        control = self._known.controls.get(name)
        if control is None:
            return "the campaign has no control record"
        return why_again(control)


def why_again(control: Control) -> str | None:
    """Why a campaign is to be looked at every few seconds; None if it is not."""
    if control.state == "retired" or (control.state == "healthy" and not control.providers):
        return None
    return f"the campaign is {control.state}" + (" elsewhere" if control.state == "healthy" else "")


def _review(campaign: str, why: str, now: int) -> Command:
    return Command(
        id=f"review-{now}-{next(_numbers)}",
        scope=campaign_scope(campaign),
        campaign=campaign,
        command="review",
        reason=why,
        by="policy",
        at=now,
    )
