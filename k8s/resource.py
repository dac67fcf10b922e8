"""The custom resource of a campaign as plain data: what the controller applies, and what a person's resource means.

Pure builders; the golden files beside their tests show them.  A resource has three authors, one per field:

* the owner of the definition: the topic ``mail.campaigns`` (origin ``Topic``) or a person (origin ``Resource``);
* people and autoscalers own ``spec.replicas`` and ``spec.egress``; the controller never writes them;
* the controller owns ``spec.decision``, the labels that the admission policies select by, and the status.

Decisions flow from the topics to here and never back.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from k8s import labels
from k8s.cluster import CLOSED_STATES, SenderSpec, SenderStatus, kept_reason
from k8s.conditions import Condition, Seen, conditions
from k8s.patches import Body, Site, selector
from k8s.times import rfc3339
from schemas.camel import spelled, to_camel, to_snake
from schemas.reputation import Control
from schemas.sending import Campaign

API_VERSION = "mailcordon.dev/v1alpha1"
KIND, PLURAL = "Campaign", "campaigns"

Origin = Literal["Topic", "Resource"]

_OURS = frozenset({"campaign", "origin", "replicas", "egress", "decision"})
_AT = re.compile(r" - at `(?:key in )?\$?(?P<path>[^`]*)`\Z")


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a resource is no campaign: the field, and what is wrong with it."""

    field: str
    explain: str


def campaign_body(
    spec: SenderSpec, site: Site, control: Control, record: Campaign | None, *, name: str | None = None
) -> Body:
    """All that the controller owns of a campaign's resource.

    With ``name`` it is a resource that a person made, which the definition stays in; ``record`` is not looked at.
    Without, it is the projection of the topic, named like the sender; a record of None leaves the definition out,
    because nobody vouches for the campaign any more.
    """
    body: Body = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": name or spec.name, "namespace": site.namespace, "labels": _labels(spec, control)},
        "spec": {"decision": _decision(spec, control)},
    }
    if name is None:
        definition = {} if record is None else to_camel(record)
        body["spec"] |= definition | {"campaign": spec.campaign, "origin": "Topic"}
    return body


def status_body(
    spec: SenderSpec,
    site: Site,
    status: SenderStatus | None,
    control: Control,
    *,
    observed_generation: int,
    now: int,
    ready: int,
    replicas: int = 1,
    egress_address: str | None = None,
    can_see: bool = True,
    automation_paused: bool = False,
    dry_run: bool = False,
    unfit: str = "",
    before: Iterable[Condition] = (),
    name: str | None = None,
) -> Body:
    """The whole status of a campaign's resource.

    ``observed_generation`` and ``before`` are of the resource that was read, ``replicas`` what its spec asks for,
    ``ready`` how many pods are ready; ``now`` in milliseconds.  ``unfit``: what is wrong with the newest edit; then the
    status is still about the generation before it.
    """
    seen = Seen(
        status=status,
        ready=ready,
        wanted=replicas,
        address=egress_address,
        can_see=can_see,
        paused=automation_paused,
        dry_run=dry_run,
        unfit=unfit,
    )
    told = conditions(control, seen, generation=observed_generation, now=now, before=before)
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": name or spec.name, "namespace": site.namespace},
        "status": {
            "observedGeneration": next(one.observed_generation for one in told if one.type == "Ready"),
            "replicas": 0 if status is None else status.running,
            "selector": pods_of(spec),
            "sender": spec.name,
            "conditions": [msgspec.to_builtins(one) for one in told],
        },
    }


def record_of(thing: Mapping[str, Any]) -> Campaign | Refused:  # Any: JSON of the Kubernetes API
    """The record that a person's resource asks for, or the field that is wrong."""
    spec = thing.get("spec") or {}
    written = {field: value for field, value in spec.items() if field not in _OURS}
    known = {spelled(field.encode_name) for field in msgspec.structs.fields(Campaign)}
    odd = next((field for field in written if field not in known), None)
    if odd is not None:
        return Refused(f"spec.{odd}", "this version of mailcordon does not know the field")
    try:
        return msgspec.convert(to_snake(written, Campaign) | {"v": 1, "campaign": spec.get("campaign")}, Campaign)
    except msgspec.ValidationError as wrong:
        return _refused(str(wrong))


def origin_of(thing: Mapping[str, Any]) -> Origin:  # Any: as above
    """Who owns the definition of a resource."""
    return "Topic" if (thing.get("spec") or {}).get("origin") == "Topic" else "Resource"


def pods_of(spec: SenderSpec) -> str:
    """The sender's pods as a label selector in one line, as a scale subresource tells it."""
    return ",".join(f"{key}={value}" for key, value in selector(spec).items())


def _labels(spec: SenderSpec, control: Control) -> dict[str, str]:
    tenant = {labels.TENANT: labels.label_value(spec.tenant)} if spec.tenant else {}
    stopped = {labels.STOPPED: "true"} if control.state in CLOSED_STATES else {}
    told = {labels.MANAGED_BY: "mailcordon", labels.STATE: control.state}
    return tenant | selector(spec) | told | stopped


def _decision(spec: SenderSpec, control: Control) -> Body:
    since = {"since": rfc3339(control.at)} if control.at else {}
    return {
        "epoch": control.epoch,
        "state": control.state,
        "maySend": control.may_send,
        "reason": kept_reason(control),
        "by": control.by[:300],
        "rule": control.rule[:128],
        "sender": spec.name,
    } | since


def _refused(message: str) -> Refused:
    """The answer of the codec in the resource's words."""
    where = _AT.search(message)
    said = _AT.sub("", message)
    path = [spelled(name) for name in (where["path"] if where else "").strip(".").split(".") if name]
    missing = re.match(r"Object missing required field `(\w+)`", said)
    if missing:
        return Refused(".".join(["spec", *path, spelled(missing[1])]), "the field is missing")
    return Refused(".".join(["spec", *path]), said[0].lower() + said[1:])
