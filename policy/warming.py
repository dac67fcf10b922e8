"""Warming up again: how a campaign that was stopped comes back.

A campaign that was released, or whose pause is over, has nothing to say for itself yet: what is known of it is what led
there.  So it goes in stages, each for half an hour in which no rate warns: a tenth of its pace to engaged recipients
alone (they complain least, and no trap is among them), a quarter of the pace to all, half of it, and then all of it.  A
stage in which too little was accepted to show anything, because hardly an engaged recipient was left, ends after two
hours.  A rate that warns makes the half hour begin anew; a breach leads back to the first stage, if not further.
"""

from typing import NamedTuple

from schemas.sending import Pace

STAGE_MIN = 30
STAGE_MS = STAGE_MIN * 60_000
WITHOUT_MAIL_MS = 4 * STAGE_MS
SHOWS_SOMETHING = 100  # accepted messages
ENGAGED_MS = 90 * 86_400_000  # whoever was seen within 90 days; domain practice is 30 to 90

SLOWEST_PER_S = 1.0
WITHOUT_LIMIT_PER_S = 100.0  # what a pace without a limit is taken to be


class Stage(NamedTuple):
    """The share of the pace, and whether only engaged recipients get mail."""

    share: float
    engaged_only: bool

    @property
    def says(self) -> str:
        """As people read it."""
        return f"{self.share:.0%} of the pace" + (", engaged recipients only" if self.engaged_only else "")


STAGES = (Stage(0.1, engaged_only=True), Stage(0.25, engaged_only=False), Stage(0.5, engaged_only=False))


def paced(pace: Pace, share: float) -> Pace:
    """A share of a pace, at least one message per second, never more than before."""
    per_second = pace.per_second if pace.per_second > 0 else WITHOUT_LIMIT_PER_S
    return Pace(
        per_second=min(per_second, max(SLOWEST_PER_S, per_second * share)),
        connections=max(1, int(pace.connections * share)),
    )


def is_over(*, began: int, calm_since: int | None, accepted: int, now: int) -> bool:
    """May the next stage begin?  ``accepted`` are messages that were taken in this one."""
    if calm_since is None:
        return False
    calm_ms = now - max(began, calm_since)
    return calm_ms >= (STAGE_MS if accepted >= SHOWS_SOMETHING else WITHOUT_MAIL_MS)
