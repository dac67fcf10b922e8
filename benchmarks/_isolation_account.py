"""The account of ``isolation.py``: when each object showed an isolation, and the figures by stage."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from benchmarks._latency_account import percentile
from k8s import labels

Sight = Literal["guard", "replicas_0", "pods_gone", "policy_emptied", "isolated"]
SIGHTS: tuple[Sight, ...] = ("guard", "replicas_0", "pods_gone", "policy_emptied", "isolated")
PERCENTILES = (50, 99)
_SENDING_WITHIN_S = 0.5  # a campaign without MAIL FROM for so long before the hit was not sending
Body = dict[str, Any]  # Any: JSON of the Kubernetes API


@dataclass(slots=True)
class Shown:
    """What a watch has shown of each campaign: the first moment (µs) of each sight of its isolation."""

    at: dict[str, dict[Sight, int]] = field(default_factory=dict)
    pods: dict[str, set[str]] = field(default_factory=dict)

    def take(self, kind: str, event: Body, at_us: int) -> None:
        """One event of a watch, in the order in which the API server sent it."""
        body = event["object"]
        campaign = body.get("metadata", {}).get("annotations", {}).get(labels.CAMPAIGN)
        if kind == "Campaign":
            campaign = body["spec"]["campaign"]
        if campaign is None:
            return
        if kind == "Pod":
            self._pod(campaign, body["metadata"]["uid"], is_gone=event["type"] == "DELETED", at_us=at_us)
            return
        for sight in _seen(kind, body):
            self.at.setdefault(campaign, {}).setdefault(sight, at_us)

    def _pod(self, campaign: str, uid: str, *, is_gone: bool, at_us: int) -> None:
        there = self.pods.setdefault(campaign, set())
        if not is_gone:
            there.add(uid)
            return
        there.discard(uid)
        if not there:
            self.at.setdefault(campaign, {})["pods_gone"] = at_us


def _seen(kind: str, body: Body) -> list[Sight]:
    """What of an isolation an object shows.  A Deployment without replicas that was never open shows none."""
    state = body["metadata"].get("annotations", {}).get(labels.STATE)
    match kind:
        case "Campaign":
            conditions = {one["type"]: one["status"] for one in body.get("status", {}).get("conditions", ())}
            armed: list[Sight] = ["guard"] if body["spec"].get("decision", {}).get("state") == "isolated" else []
            return [*armed, "isolated"] if armed and conditions.get("Isolated") == "True" else armed
        case "Deployment" if state == "isolated" and not body["spec"].get("replicas", 1):
            return ["replicas_0"]
        case "NetworkPolicy" if state == "isolated" and not body["spec"].get("egress"):
            return ["policy_emptied"]
        case _:
            return []


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One campaign that was hit; moments in µs since the epoch, None for what was never seen."""

    hit_at: int
    decision_at: int | None
    shown: Mapping[Sight, int]
    mail_from: Sequence[int]

    @property
    def failure(self) -> str | None:
        """Why this trial shows nothing, or what was never shown."""
        before = [at for at in self.mail_from if at <= self.hit_at]
        if not before or self.hit_at - before[-1] > _SENDING_WITHIN_S * 1e6:
            return "was not sending when it was hit"
        if self.decision_at is None:
            return "was never isolated"
        missing = [sight for sight in SIGHTS if sight not in self.shown]
        return f"never shown: {', '.join(missing)}" if missing else None

    def stages_ms(self) -> dict[str, float]:
        """By stage; Kafka's times are whole milliseconds, so that one may look shorter than nothing: then it is."""
        decided = self.decision_at or 0
        objects = max(self.shown[one] for one in SIGHTS)
        spans = {
            "event_to_decision": decided - self.hit_at,
            **{f"decision_to_{sight}": self.shown[sight] - decided for sight in SIGHTS},
            "event_to_last_mail_from": max(self.hit_at, *self.mail_from) - self.hit_at,
            "event_to_replicas_0": self.shown["replicas_0"] - self.hit_at,
            "event_to_objects": objects - self.hit_at,
        }
        return {stage: max(0, span) / 1000 for stage, span in spans.items()}


def figures(trials: Iterable[Trial]) -> dict[str, float | int]:
    """Percentiles of each stage, of the trials that did not fail."""
    trials = list(trials)
    whole = [one.stages_ms() for one in trials if one.failure is None]
    found: dict[str, float | int] = {"trials": len(trials), "failed": len(trials) - len(whole)}
    for stage in whole[0] if whole else ():
        found |= percentiles(stage, [one[stage] for one in whole])
    return found


def percentiles(stage: str, values_ms: Sequence[float]) -> dict[str, float]:
    """Median and p99 of a stage."""
    return {f"{stage}_p{percent}_ms": round(percentile(values_ms, percent), 1) for percent in PERCENTILES}
