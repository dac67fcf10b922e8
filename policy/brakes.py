"""Brakes on ourselves: what keeps an automation that errs from stopping everybody.

- The **cap**: policy isolates at most a share of all campaigns within an hour, and never fewer than a handful.  If more
  seem to need it, something else is wrong (a trap list that holds a real domain, a mail server that refuses all): those
  are throttled, and a person is asked.
- The **brake on the automation**: policy goes on judging and publishing, as in dry run, and nothing follows.
- The **brake on all sending**: no sender begins another message.
"""

from collections.abc import Mapping
from math import ceil

from schemas.reputation import Brake, BrakeName, Control

WITHIN_MS = 3_600_000
WITHIN = "an hour"


def is_pulled(brakes: Mapping[str, Brake], name: BrakeName) -> bool:
    """Is this brake on?"""
    brake = brakes.get(name)
    return brake is not None and brake.on


def capped(
    controls: Mapping[str, Control], *, campaign: str, now: int, share: float, at_least: int, recent: Mapping[str, int]
) -> str | None:
    """Why policy may not isolate a campaign now; None if it may.

    ``controls`` are those of all campaigns, ``recent`` isolations of our own (campaign, when) that may not be among
    them yet.
    """
    begin = now - WITHIN_MS
    isolated = {name for name, at in recent.items() if at > begin}
    isolated |= {
        name for name, one in controls.items() if one.state == "isolated" and one.by == "policy" and one.at > begin
    }
    isolated.discard(campaign)
    sending = sum(one.state != "retired" for one in controls.values())
    most = max(at_least, ceil(share * sending))
    if len(isolated) < most:
        return None
    return f"the policy has isolated {len(isolated):,} of {sending:,} campaigns within {WITHIN}, the most it may"
