"""What we read of Kubernetes objects, and what it says about a sender.  Everything else in them is ignored."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from k8s import labels
from k8s.cluster import CLOSED_STATES, SenderStatus
from k8s.patches import combined


class Metadata(msgspec.Struct, frozen=True, rename="camel"):
    """Names, versions, labels and annotations of an object."""

    name: str
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}

    @property
    def mark(self) -> tuple[str, str]:
        """Changes when anybody changes what the object asks for (kinds without a generation: anything at all)."""
        return self.uid, f"g{self.generation}" if self.generation else f"v{self.resource_version}"

    @property
    def fence(self) -> int:
        """The newest epoch that was applied; what cannot be read counts as none and is overwritten."""
        text = self.annotations.get(labels.FENCE, "")
        return int(text) if text.isascii() and text.isdigit() else 0


class _Spec(msgspec.Struct, frozen=True, rename="camel"):
    replicas: int | None = None
    egress: list[Any] | None = None  # Any: only whether there is a rule matters


class _Status(msgspec.Struct, frozen=True, rename="camel"):
    phase: str = ""
    replicas: int | None = None
    observed_generation: int = 0


class Thing(msgspec.Struct, frozen=True, rename="camel"):
    """Any object, as far as we read it."""

    metadata: Metadata
    spec: _Spec = _Spec()
    status: _Status = _Status()


class ListMeta(msgspec.Struct, frozen=True, rename="camel"):
    """Where the next page of a list begins."""

    continue_: str = msgspec.field(name="continue", default="")


class Things(msgspec.Struct, frozen=True, rename="camel"):
    """A page of a list."""

    items: list[Thing] | None = None
    metadata: ListMeta = ListMeta()


class ApiStatus(msgspec.Struct, frozen=True, rename="camel"):
    """What the API server says when it says no."""

    message: str = ""
    reason: str = ""


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of one sender that are there, and how many of its pods have not ended."""

    deployment: Thing | None = None
    policy: Thing | None = None
    service: Thing | None = None
    account: Thing | None = None
    pods: int = 0

    @property
    def by_kind(self) -> dict[str, Thing]:
        """The objects that are there."""
        named = {
            "Deployment": self.deployment,
            "NetworkPolicy": self.policy,
            "Service": self.service,
            "ServiceAccount": self.account,
        }
        return {kind: thing for kind, thing in named.items() if thing is not None}

    @property
    def running(self) -> int:
        """Pods that have not ended, the draining ones too, which a Deployment's own count leaves out.

        A Deployment scaled to 0 whose controller has not seen that yet may still start one: it counts as one.
        """
        if self.deployment is None:
            return self.pods
        told = self.deployment.status
        unseen = told.observed_generation < self.deployment.metadata.generation
        return max(self.pods, told.replicas or 0, int(unseen and _wanted(self.deployment) == 0))

    @property
    def fence(self) -> int:
        """The newest epoch that any part has seen: a part that was deleted does not take the fence along."""
        return max((thing.metadata.fence for thing in self.by_kind.values()), default=0)


def has_ended(pod: Thing) -> bool:
    """Has this pod ended for good?  One that is being deleted has not: it may still be sending."""
    return pod.status.phase in {"Succeeded", "Failed"}


def campaign_of(things: Iterable[Thing]) -> str:
    """The campaign id as its owner wrote it; empty when no object tells."""
    return next((found for thing in things if (found := thing.metadata.annotations.get(labels.CAMPAIGN))), "")


def status_of(campaign: str, name: str, parts: Parts, *, untouched: Mapping[str, bool]) -> SenderStatus | None:
    """Put the parts together; ``untouched`` says by kind whether a part is as we left it."""
    there = parts.by_kind
    if not there and not parts.pods:
        return None
    state, reason = _state(parts)
    complete = len(there) == 4
    ours = complete and all(untouched.get(kind, False) for kind in there)
    shapes = {kind: thing.metadata.annotations.get(labels.SHAPE, "") for kind, thing in there.items()}
    return SenderStatus(
        campaign=campaign,
        name=name,
        exists=complete,
        wanted=_wanted(parts.deployment),
        running=parts.running,
        egress_open=parts.policy is None or bool(parts.policy.spec.egress),  # without a policy all is allowed
        epoch=parts.fence,
        state=state,
        reason=reason,
        agreed=len({_told(thing) for thing in _stated(parts)}) == 1,
        shape=combined(shapes) if ours else "",
    )


def grouped(things: Iterable[Thing], key: str = labels.CAMPAIGN) -> dict[str, list[Thing]]:
    """Objects by the campaign's name in their label."""
    groups: dict[str, list[Thing]] = {}
    for thing in things:
        groups.setdefault(thing.metadata.labels.get(key, ""), []).append(thing)
    return groups


def _wanted(deployment: Thing | None) -> int:
    if deployment is None:
        return 0
    return 1 if deployment.spec.replicas is None else deployment.spec.replicas  # the API server's own default


def _state(parts: Parts) -> tuple[str, str]:
    """State and reason; where the parts disagree (somebody was interrupted) the closed one counts, then the newer."""
    told = [(thing.metadata.annotations.get(labels.STATE, ""), thing) for thing in _stated(parts)]
    if not told:
        return "", ""
    state, thing = max(told, key=lambda one: (one[0] in CLOSED_STATES, one[1].metadata.fence))
    return state, thing.metadata.annotations.get(labels.REASON, "")


def _stated(parts: Parts) -> list[Thing]:
    return [thing for thing in (parts.deployment, parts.policy) if thing is not None]


def _told(thing: Thing) -> tuple[int, str | None, str | None]:
    words = thing.metadata.annotations
    return thing.metadata.fence, words.get(labels.STATE), words.get(labels.REASON)
