"""What we read of Kubernetes objects, and what it says about a sender.  Everything else in them is ignored."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from k8s import labels
from k8s.cluster import CLOSED_STATES, SenderStatus, SourceAddress
from k8s.patches import combined

_ALL_KINDS = ("Campaign", "Deployment", "NetworkPolicy", "Service", "ServiceAccount", "PodDisruptionBudget")
_STATED = ("Deployment", "NetworkPolicy", "Campaign")


class Metadata(msgspec.Struct, frozen=True, rename="camel"):
    """Names, versions, labels and annotations of an object."""

    name: str = ""  # a bookmark has none
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}

    @property
    def mark(self) -> str:
        """Changes when anybody changes what the object asks for (kinds without a generation: anything at all)."""
        return f"{self.uid}/g{self.generation}" if self.generation else f"{self.uid}/v{self.resource_version}"


class Condition(msgspec.Struct, frozen=True, rename="camel"):
    """One line of an object's status: is this so, since when, and why."""

    type: str
    status: str = "Unknown"
    reason: str = ""
    message: str = ""
    last_transition_time: str | None = None
    observed_generation: int = 0


class _Spec(msgspec.Struct, frozen=True, rename="camel"):
    replicas: int | None = None
    egress: Any = None  # Any: a list of rules in a NetworkPolicy, an address in a Campaign
    campaign: str = ""
    origin: str = ""
    decision: dict[str, Any] = {}  # Any: compared as it is


class _Status(msgspec.Struct, frozen=True, rename="camel"):
    phase: str = ""
    replicas: int | None = None
    observed_generation: int = 0
    conditions: tuple[Condition, ...] = ()
    parts: dict[str, str] = {}
    announced_epoch: int = 0
    selector: str = ""
    sender: str = ""


class Thing(msgspec.Struct, frozen=True, rename="camel"):
    """Any object, as far as we read it; ``raw`` is a Campaign that a person made, whole."""

    metadata: Metadata
    spec: _Spec = _Spec()
    status: _Status = _Status()
    raw: bytes = b""

    @property
    def fence(self) -> int:
        """The newest epoch that was applied; what cannot be read counts as none and is overwritten."""
        decided = self.spec.decision.get("epoch", 0)
        text = self.metadata.annotations.get(labels.FENCE, "")
        applied = int(text) if text.isascii() and text.isdigit() else 0
        return max(applied, decided if isinstance(decided, int) else 0)

    @property
    def told(self) -> tuple[int, str | None, str | None]:
        """Epoch, state and reason as this object tells them."""
        words = self.spec.decision or self.metadata.annotations
        keys = ("state", "reason") if self.spec.decision else (labels.STATE, labels.REASON)
        return self.fence, words.get(keys[0]), words.get(keys[1])

    @property
    def campaign(self) -> str:
        """The campaign id as its owner wrote it; empty when the object does not tell."""
        return self.spec.campaign or self.metadata.annotations.get(labels.CAMPAIGN, "")

    @property
    def is_claimed(self) -> bool:
        """Was this resource of a person's taken as the one that speaks for its campaign?"""
        return bool(self.status.sender or self.spec.decision)

    @property
    def view(self) -> tuple[object, ...]:
        """All that a look at the object can tell us: two versions with the same view are the same to us."""
        words = {key: value for key, value in self.metadata.annotations.items() if labels.DOMAIN in key}
        return self.metadata.mark, self.metadata.labels, words, self.spec, self.status


class ListMeta(msgspec.Struct, frozen=True, rename="camel"):
    """Where the next page of a list begins, and where a watch goes on from it."""

    continue_: str = msgspec.field(name="continue", default="")
    resource_version: str = ""


class Page(msgspec.Struct, frozen=True):
    """A page of a list; its objects are read one by one."""

    items: list[msgspec.Raw] | None = None
    metadata: ListMeta = ListMeta()


class WatchEvent(msgspec.Struct, frozen=True):
    """One line of a watch."""

    type: str
    object: msgspec.Raw


class Told(msgspec.Struct, frozen=True):
    """What a watch told: ADDED, MODIFIED, DELETED, or BOOKMARK, whose object has a version and nothing else."""

    type: str
    thing: Thing


class ApiStatus(msgspec.Struct, frozen=True, rename="camel"):
    """What the API server says when it says no."""

    message: str = ""
    reason: str = ""
    code: int = 0


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of one sender that are there, by kind, its pods that have not ended, and the kinds it should have."""

    by_kind: dict[str, Thing] = {}
    pods: tuple[Thing, ...] = ()
    kinds: Sequence[str] = _ALL_KINDS

    @property
    def is_whole(self) -> bool:
        """Is every part there?"""
        return all(kind in self.by_kind for kind in self.kinds)

    @property
    def running(self) -> int:
        """Pods that have not ended, the draining ones too, which a Deployment's own count leaves out.

        A Deployment scaled to 0 whose controller has not seen that yet may still start one: it counts as one.
        """
        deployment = self.by_kind.get("Deployment")
        if deployment is None:
            return len(self.pods)
        told = deployment.status
        unseen = told.observed_generation < deployment.metadata.generation
        return max(len(self.pods), told.replicas or 0, int(unseen and _wanted(deployment) == 0))

    @property
    def fence(self) -> int:
        """The newest epoch that any part has seen: a part that was deleted does not take the fence along."""
        return max((thing.fence for thing in self.by_kind.values()), default=0)


def thing_of(raw: bytes) -> Thing:
    """Read an object."""
    thing = _decode(raw)
    return msgspec.structs.replace(thing, raw=bytes(raw)) if thing.spec.origin == "Resource" else thing


_decode = msgspec.json.Decoder(Thing).decode


def has_ended(pod: Thing) -> bool:
    """Has this pod ended for good?  One that is being deleted has not: it may still be sending."""
    return pod.status.phase in {"Succeeded", "Failed"}


def is_ready(pod: Thing) -> bool:
    """Does this pod say of itself that it can work?"""
    return any(one.type == "Ready" and one.status == "True" for one in pod.status.conditions)


def campaign_of(things: Iterable[Thing]) -> str:
    """The campaign id as its owner wrote it; empty when no object tells."""
    return next((found for thing in things if (found := thing.campaign)), "")


def status_of(campaign: str, name: str, parts: Parts, *, untouched: Mapping[str, bool]) -> SenderStatus | None:
    """Put the parts together; ``untouched`` says by kind whether a part is as we left it."""
    there = parts.by_kind
    if not parts.pods and not parts.fence and there.keys() <= {"Campaign"}:
        return None  # nothing, or a resource that a person made and nobody has decided about
    deployment, policy = there.get("Deployment"), there.get("NetworkPolicy")
    state, reason = _state(parts)
    made = {kind: thing for kind, thing in there.items() if kind != "Campaign"}  # which only shows what the others are
    ours = parts.is_whole and all(untouched.get(kind, False) for kind in made)
    shapes = {kind: thing.metadata.annotations.get(labels.SHAPE, "") for kind, thing in made.items()}
    declared = "Campaign" in there or "Campaign" not in parts.kinds
    return SenderStatus(
        campaign=campaign,
        name=name,
        exists=parts.is_whole,
        wanted=_wanted(deployment),
        running=parts.running,
        ready=sum(map(is_ready, parts.pods)),
        leaves_from=frozenset(
            pod.metadata.annotations[labels.SOURCE]
            for pod in parts.pods
            if is_ready(pod) and labels.SOURCE in pod.metadata.annotations
        ),
        refused=_refused(deployment),
        asked=there["Campaign"].spec.replicas if "Campaign" in there else None,
        source=_source(there.get("Campaign")),
        egress_open=policy is None or bool(policy.spec.egress),  # without a policy all is allowed
        epoch=parts.fence,
        state=state,
        reason=reason,
        agreed=declared and len({thing.told for thing in _stated(parts)}) == 1,
        shape=combined(shapes) if ours else "",
    )


def says(body: Mapping[str, Any], live: Thing) -> bool:
    """Does an object say everything that a body of ours says, as far as people and we read it?"""
    asked, there = body["metadata"], live.metadata
    spec = body.get("spec", {})
    return (
        asked.get("labels", {}).items() <= there.labels.items()
        and asked.get("annotations", {}).items() <= there.annotations.items()
        and spec.get("decision", {}).items() <= live.spec.decision.items()
        and ("replicas" not in spec or spec["replicas"] == live.spec.replicas)
        and ("egress" not in spec or bool(spec["egress"]) == bool(live.spec.egress))
    )


def _refused(deployment: Thing | None) -> str:
    """Why the API server takes no more of a Deployment's pods.  It begins with a pod's name, another at every try."""
    conditions = deployment.status.conditions if deployment else ()
    failing = next((one for one in conditions if one.type == "ReplicaFailure" and one.status == "True"), None)
    return failing.message.rpartition(" is forbidden: ")[2] if failing else ""


def _source(campaign: Thing | None) -> SourceAddress | None:
    asked = campaign.spec.egress if campaign is not None else None
    if not isinstance(asked, dict) or not isinstance(asked.get("address"), str):
        return None
    name = asked.get("heloName")
    return SourceAddress(asked["address"], name if isinstance(name, str) else None)


def _wanted(deployment: Thing | None) -> int:
    if deployment is None:
        return 0
    return 1 if deployment.spec.replicas is None else deployment.spec.replicas  # the API server's own default


def _state(parts: Parts) -> tuple[str, str]:
    """State and reason; where the parts disagree (somebody was interrupted) the closed one counts, then the newer."""
    told = [thing.told for thing in _stated(parts)]
    if not told:
        return "", ""
    _, state, reason = max(told, key=lambda one: (one[1] in CLOSED_STATES, one[0]))
    return state or "", reason or ""


def _stated(parts: Parts) -> list[Thing]:
    return [parts.by_kind[kind] for kind in _STATED if kind in parts.by_kind]
