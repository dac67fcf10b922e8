"""What is to be done about one sender: a table over what should be and what is.

Pure: the same input gives the same steps, so the reconciler may ask as often as it likes.  An empty list means
that what is, is what should be.
"""

from dataclasses import dataclass, replace

from k8s.cluster import CLOSED_STATES, SenderSpec, SenderStatus, kept_reason
from policy.naming import sender_name
from schemas.reputation import Control
from schemas.sending import Campaign, Pace

DRAIN_MARGIN_MS = 15_000
"""How long after the sender's own grace the way out is cut although something still runs."""

ORPHAN = "nobody vouches for this sender: its campaign or its control record is missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """What should be: the sender as it would be built, whether its campaign is registered, and the newest Control."""

    spec: SenderSpec
    registered: bool
    control: Control | None


@dataclass(frozen=True, slots=True)
class Ensure:
    """Make an open sender whole."""

    spec: SenderSpec
    control: Control


@dataclass(frozen=True, slots=True)
class Release:
    """Open a closed sender."""

    spec: SenderSpec
    control: Control


@dataclass(frozen=True, slots=True)
class Isolate:
    """Close a sender; ``cut`` when its time to finish is over."""

    spec: SenderSpec
    control: Control
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Retire:
    """Close a sender for good."""

    spec: SenderSpec
    control: Control
    cut: bool = False


Step = Ensure | Release | Isolate | Retire


def desired(
    campaign_id: str, campaign: Campaign | None, control: Control | None, *, grace_s: int, replicas: int = 1
) -> Desired:
    """Join the two records of a campaign into what should be; either may be missing."""
    spec = SenderSpec(
        campaign=campaign_id,
        name=sender_name(campaign_id),
        replicas=replicas,
        grace_s=grace_s,
        tenant=campaign.tenant if campaign else None,
        labels=tuple(sorted(campaign.labels.items())) if campaign else (),
        record=campaign,
    )
    return Desired(spec=spec, registered=campaign is not None, control=control)


def as_asked(wish: Desired, status: SenderStatus | None, *, most: int) -> Desired:
    """With what people and autoscalers ask for in the place itself: address and replicas, never more than ``most``."""
    asked = wish.spec.replicas if status is None or status.asked is None else status.asked
    replicas = max(0, min(asked, most))
    source = None if status is None else status.source
    if (replicas, source) == (wish.spec.replicas, wish.spec.source):
        return wish
    return replace(wish, spec=replace(wish.spec, replicas=replicas, source=source))


def plan(wish: Desired, status: SenderStatus | None, *, shape: str, draining_ms: int = 0) -> list[Step]:
    """The steps from what is to what should be, in order.

    ``shape`` is the place's fingerprint of the spec.  ``draining_ms`` is how long it has been that no replica is
    wanted and one still runs: it, and not the age of the decision, ends the patience with mail in flight, because
    a controller that was away must not cut what it has only now asked to stop.
    """
    spec, control = wish.spec, wish.control
    cut = draining_ms > spec.grace_s * 1000 + DRAIN_MARGIN_MS
    if control is not None and status is not None and control.epoch < status.epoch:
        return []  # somebody who knows more was here: wait until we know it too
    if control is None or _is_orphan(wish):
        return _orphan(spec, status, control, cut=cut)
    if control.state in CLOSED_STATES:
        return _closing(spec, control, status, cut=cut)
    return _opening(spec, control, status, shape=shape)


def holds(wish: Desired, status: SenderStatus | None) -> Control | None:
    """What is in force for this sender: its Control, or that it is closed because nobody vouches for it.

    None when there is nothing to say: no sender, or one that obeys a newer decision than the one we know.
    """
    control = wish.control
    if status is None or (control is not None and control.epoch < status.epoch):
        return None
    return _closing_of(wish.spec, status, control) if _is_orphan(wish) else control


def is_urgent(control: Control | None) -> bool:
    """Does this campaign's work go before all that only starts or changes senders?"""
    return control is not None and control.state in CLOSED_STATES


def _opening(spec: SenderSpec, control: Control, status: SenderStatus | None, *, shape: str) -> list[Step]:
    if status is None:
        return [Ensure(spec, control)]
    if status.closed:
        return [Release(spec, control)]
    whole = status.exists and status.egress_open and status.wanted == spec.replicas and status.shape == shape
    return [] if whole and _knows(status, control) else [Ensure(spec, control)]


def _closing(spec: SenderSpec, control: Control, status: SenderStatus | None, *, cut: bool) -> list[Step]:
    if status is None and control.state == "retired":
        return []  # nothing to stop, and nothing worth keeping
    if status is not None and _is_shut(status) and _knows(status, control):
        return []
    return [Retire(spec, control, cut)] if control.state == "retired" else [Isolate(spec, control, cut)]


def _orphan(spec: SenderSpec, status: SenderStatus | None, control: Control | None, *, cut: bool) -> list[Step]:
    """Nobody vouches for it, so it does not send; the fence stays, so that its Control can open it again."""
    if status is None or _is_shut(status):
        return []
    return [Isolate(spec, _closing_of(spec, status, control), cut)]


def _is_orphan(wish: Desired) -> bool:
    return wish.control is None or (not wish.registered and wish.control.state not in CLOSED_STATES)


def _closing_of(spec: SenderSpec, status: SenderStatus, control: Control | None) -> Control:
    epoch = max(1, status.epoch, control.epoch if control else 0)
    return Control(
        campaign=spec.campaign, epoch=epoch, may_send=False, pace=Pace(), state="isolated", reason=ORPHAN, at=0
    )


def _knows(status: SenderStatus, control: Control) -> bool:
    told = (status.epoch, status.state, status.reason)
    return status.agreed and told == (control.epoch, control.state, kept_reason(control))


def _is_shut(status: SenderStatus) -> bool:
    return status.wanted == 0 and status.running == 0 and not status.egress_open
