"""Traps: our own, by keyed hash; what a hit of each kind weighs; how long ago a dead address makes a recycled one.

A pristine trap says that a list was harvested or bought, a recycled one that bounces were not heeded, a typo one that
a person's hand slipped: they do not weigh the same.  Weights are whole hundredths of a pristine hit, so that sums of
them are exact in any order.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from policy.addresses import hostname
from policy.tokens import Keys, address_hash
from schemas.feedback import FeedbackEvent, RegisteredTrap, Trap, TrapKind

What = Literal["address", "domain", "decoy"]

WHOLE = 100  # the weight of one pristine hit
WEIGHTS: Mapping[TrapKind, int] = {"pristine": WHOLE, "recycled": 40, "typo": 15, "suspected": WHOLE}
CONFIRMED_FROM = 1.0  # strength: a trap of our own received the mail
ISOLATING: frozenset[TrapKind] = frozenset({"pristine", "recycled"})  # confirmed ones; others throttle at most

_STRANGERS = "return_path"


@dataclass(frozen=True, slots=True)
class TrapFact:
    """What is known of one trap of ours: its kind, how sure that is, where it was planted, since when it is one."""

    kind: TrapKind = "pristine"
    strength: float = 1.0
    where: str = ""
    what: What = "address"
    since: int = 0

    @property
    def trap(self) -> Trap:
        """As it stands in feedback."""
        return Trap(kind=self.kind, strength=self.strength, where=self.where)


def fact_of(record: RegisteredTrap) -> TrapFact:
    """What a record of the registry says."""
    return TrapFact(
        kind=record.kind, strength=record.strength, where=record.planted, what=record.what, since=record.since
    )


def domain_hash(keys: Keys, domain: str) -> str:
    """What stands for every address of a domain: the hash of ``@`` and the domain."""
    return address_hash(keys, f"@{hostname(domain) or domain.lower()}")


def weight_of(event: FeedbackEvent) -> int:
    """What a trap hit weighs, in hundredths; 0: it counts for nothing.

    What is only suspected, and was told to us by mail, anybody could have made up.
    """
    trap = event.trap
    if trap is None:
        return WHOLE
    if trap.kind == "suspected" and event.source == _STRANGERS:
        return 0
    return round(WEIGHTS[trap.kind] * trap.strength)


def is_confirmed(trap: Trap | None) -> bool:
    """Did one of our own traps receive the mail?  A hit of which nothing more is said counts as one."""
    return trap is None or (trap.strength >= CONFIRMED_FROM and trap.kind != "suspected")
