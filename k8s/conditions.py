"""What a campaign's resource says about its sender: five conditions, each with the decision's own sentence.

``Ready``: mail may leave and all wanted replicas are ready.  ``Isolated``: nothing runs and nothing could leave.
``Throttled``: less than its own pace, everywhere or at some providers.  ``EgressIPVerified``: a sender has seen the
address that the campaign asks for as its own.  ``AutomationPaused``: the policy judges, and nothing follows.

Pure: a condition is a function of the decision and of what was seen.  Programs go by status and reason; reasons are
names that stay.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from k8s.cluster import CLOSED_STATES, MAX_REASON, SenderStatus, kept_reason
from k8s.times import rfc3339
from schemas.reputation import Control

Answer = Literal["True", "False", "Unknown"]
Type = Literal["Ready", "Isolated", "Throttled", "EgressIPVerified", "AutomationPaused"]


class Condition(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One condition, as it stands in the resource."""

    type: str
    status: str
    reason: str
    message: str
    last_transition_time: str
    observed_generation: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was seen of a campaign's sender, and what was asked of it.

    ``status`` is None when there is no sender at all.  ``ready`` counts pods that are ready, ``wanted`` those that the
    resource asks for.  ``address`` is what ``spec.egress`` asks for, ``can_see`` whether senders have a server that
    tells them theirs.  ``paused``: is the brake on the automation pulled?  ``unfit``: what is wrong with the newest
    edit of the resource, so that the campaign sends by what was registered before; empty when nothing is.
    """

    status: SenderStatus | None
    ready: int
    wanted: int = 1
    address: str | None = None
    can_see: bool = True
    paused: bool = False
    dry_run: bool = False
    unfit: str = ""


_Said = tuple[Answer, str, str]
_MOST_REFUSED = 300


def conditions(
    control: Control, seen: Seen, *, generation: int, now: int, before: Iterable[Condition] = ()
) -> tuple[Condition, ...]:
    """All five conditions; ``before`` are those told last, whose time stays where the status does.

    ``generation`` is that of the resource which was read; ``now`` in milliseconds.  ``Ready`` does not observe
    an edit that is not registered: its generation stays, so that nobody who waits for it takes the old for the new.
    """
    said: Mapping[Type, _Said] = {
        "Ready": _ready(control, seen),
        "Isolated": _isolated(control, seen.status),
        "Throttled": _throttled(control),
        "EgressIPVerified": _verified(seen),
        "AutomationPaused": _paused(control, seen),
    }
    told = {one.type: one for one in before}
    registered = told["Ready"].observed_generation if "Ready" in told else 0
    return tuple(
        Condition(
            type=kind,
            status=status,
            reason=reason,
            message=message,
            last_transition_time=told[kind].last_transition_time
            if kind in told and told[kind].status == status
            else rfc3339(now),
            observed_generation=registered if seen.unfit and kind == "Ready" else generation,
        )
        for kind, (status, reason, message) in said.items()
    )


def _ready(control: Control, seen: Seen) -> _Said:
    status, reason, message = _sends(control, seen)
    if not seen.unfit:
        return status, reason, message
    unfit = f"the newest edit is not registered, what was registered before holds: {seen.unfit[:MAX_REASON]}"
    return status, "EditRefused" if status == "True" else reason, f"{unfit}; {message}"


def _sends(control: Control, seen: Seen) -> _Said:
    why, status = kept_reason(control), seen.status
    if not control.may_send:
        return "False", control.state.capitalize(), why
    if status is None or not status.exists:
        return "False", "NotInPlace", f"parts of the sender are missing; {why}"
    if not _obeys(status, control) or not status.egress_open:
        return "False", "Opening", f"the sender is being opened; {why}"
    if seen.wanted == 0:
        return "False", "NoReplicasWanted", f"spec.replicas is 0; {why}"
    if seen.ready < seen.wanted:
        return _starting(status, seen, why)
    return "True", "Sending", why


def _starting(status: SenderStatus, seen: Seen, why: str) -> _Said:
    if status.refused:
        return "False", "PodsRefused", f"{status.refused[:_MOST_REFUSED]}; {why}"
    return "False", "Starting", f"{seen.ready} of {seen.wanted} replicas are ready; {why}"


def _isolated(control: Control, status: SenderStatus | None) -> _Said:
    why = kept_reason(control)
    if control.state not in CLOSED_STATES:
        return "False", "NotIsolated", why
    if status is not None and status.running:
        return "False", "Draining", f"{status.running} still finish their mail; {why}"
    if status is not None and not (status.wanted == 0 and not status.egress_open and _obeys(status, control)):
        return "False", "Draining", f"the sender is being closed; {why}"
    return "True", control.state.capitalize(), why


def _throttled(control: Control) -> _Said:
    why = kept_reason(control)
    if not control.may_send:
        return "False", "Stopped", why
    if control.state == "throttled":
        return "True", "Throttled", why
    if control.providers:
        at = "; ".join(f"{name}: {one.state}, {one.reason}" for name, one in sorted(control.providers.items()))
        return "True", "AtProviders", at if len(at) <= MAX_REASON else f"{at[: MAX_REASON - 1]}…"
    return "False", "FullPace", why


def _verified(seen: Seen) -> _Said:
    if seen.address is None:
        return "Unknown", "NotAsked", "spec.egress names no address: mail leaves from whatever the cluster gives it"
    if not seen.can_see:
        return (
            "Unknown",
            "NoMirror",
            "MAILCORDON_EGRESS_SEEN_BY names no server that tells senders which address it sees",
        )
    if seen.status is not None and seen.address in seen.status.leaves_from:
        return "True", "Verified", f"a sender that is ready has seen {seen.address} as its own address"
    return "False", "NotVerified", f"no sender is ready: none sees {seen.address} as its own address"


def _paused(control: Control, seen: Seen) -> _Said:
    if seen.paused:
        return "True", "Brake", "the brake on the automation is pulled: the policy judges, and nothing follows"
    if control.operator == "overridden":
        return "True", "Overridden", kept_reason(control)
    if seen.dry_run:
        return "True", "DryRun", "the campaign is in dry run: the policy judges, and nothing follows"
    return "False", "Running", "what the policy decides is done"


def _obeys(status: SenderStatus, control: Control) -> bool:
    """Do all parts of the sender carry this decision?"""
    return status.agreed and (status.epoch, status.state) == (control.epoch, control.state)
