"""Trap signals: what accepted mail and replies say about traps that nobody reports, each with a stated strength.

None of them proves a hit.  A message is worth one signal, the strongest, and only what our own traps receive is more
than a suspicion; a campaign can be throttled by these, not isolated.
"""

from collections.abc import Iterable

import msgspec

from policy.replies import category_of
from policy.traps import WEIGHTS
from schemas.feedback import Trap, TrapKind

DAY_MS = 86_400_000
WEAK, MEDIUM, STRONG = 0.2, 0.5, 0.8
MEDIUM_FROM_MS, STRONG_FROM_MS = 30 * DAY_MS, 180 * DAY_MS
CLUSTER_FROM = 3  # look-alikes of providers behind one mail server
BAD_DOMAIN = "bad_domain"
ALIVE_AGAIN = "alive_again"  # the reason of a suppression that is over because mail was taken again
REPLY_TEXT = "reply_text"


class TrapSignal(msgspec.Struct, frozen=True):
    """What speaks for a trap, how strongly, and which kind it would be; ``name`` is the class that feedback has."""

    name: str
    kind: TrapKind
    strength: float

    @property
    def trap(self) -> Trap:
        """As it stands in feedback."""
        return Trap(kind=self.kind, strength=self.strength)

    @property
    def weight(self) -> float:
        """What it would weigh, to tell the strongest of several."""
        return WEIGHTS[self.kind] * self.strength


def gap_strength(gap_ms: int) -> float:
    """How much it says that something dead took mail again after so long.

    Within a month a mail system had a bad day.  Traps are made of addresses and domains that refuse for many months,
    so that everybody who heeds bounces has forgotten them.
    """
    if gap_ms >= STRONG_FROM_MS:
        return STRONG
    return MEDIUM if gap_ms >= MEDIUM_FROM_MS else WEAK


def recycled_signature(bounced_at: int, accepted_at: int) -> TrapSignal | None:
    """An address that bounced as dead takes mail again."""
    if accepted_at <= bounced_at:
        return None
    return TrapSignal("recycled_signature", "recycled", gap_strength(accepted_at - bounced_at))


def domain_resurrection(missing_at: int, accepted_at: int) -> TrapSignal | None:
    """A domain that did not exist, or took no mail, takes mail now.  Within a month that is no news."""
    if accepted_at - missing_at < MEDIUM_FROM_MS:
        return None
    return TrapSignal("domain_resurrection", "recycled", gap_strength(accepted_at - missing_at))


def typo_domain(look_alikes: int) -> TrapSignal:
    """A domain like a large provider's took mail at a server that is not the provider's.

    ``look_alikes`` is how many such domains the server answers for: one may be anybody's, many are a collection.
    """
    if look_alikes >= CLUSTER_FROM:
        return TrapSignal("mx_cluster", "typo", STRONG)
    return TrapSignal("typo_domain", "typo", MEDIUM)


def reply_text(strength: float) -> TrapSignal | None:
    """A server turned us away and spoke of traps, or of a list that is fed by them."""
    return TrapSignal(REPLY_TEXT, "suspected", min(strength, STRONG)) if strength > 0.0 else None


def strongest(signals: Iterable[TrapSignal | None]) -> TrapSignal | None:
    """The one that counts; of equals the first."""
    return max((one for one in signals if one is not None), key=lambda one: one.weight, default=None)


def is_dead(reason: str) -> bool:
    """Was this the reason of a suppression because nobody is there?"""
    return reason == "hard_bounce" or category_of(reason).counts == "hard_bounce"


def is_alive(dead_since: int, accepted_at: int) -> bool:
    """Whether mail that was taken shows that nothing was ever wrong: too soon for anybody to have made a trap of it."""
    return 0 < accepted_at - dead_since < MEDIUM_FROM_MS


def why_recycled(dead_since: int, now: int, *, is_domain: bool) -> str | None:
    """Why an address or a whole domain may be a recycled trap today; continues ``the address …``."""
    gap = now - dead_since
    if gap < MEDIUM_FROM_MS:
        return None
    days = gap // DAY_MS
    if is_domain:
        return f"has a domain that took no mail {days:,} days ago; one that comes back may be run by a trap network"
    return f"bounced as dead {days:,} days ago; one that is alive again after so long is often a recycled spam trap"
