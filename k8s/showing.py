"""What people see of a decision in Kubernetes: the Campaign's status, and one Event.

Pure.  The status also keeps two things for the next controller: how each part was left, so that it need not apply a
thousand unchanged ones, and which decision was announced, so that none is twice.
"""

from collections.abc import Mapping

import msgspec

from k8s import conditions
from k8s.cluster import CLOSED_STATES, SenderSpec, SenderStatus, Unfit, kept_reason
from k8s.objects import Condition, Thing
from k8s.patches import Body, Site
from k8s.resource import API_VERSION, KIND, status_body
from k8s.times import rfc3339
from schemas.reputation import Control

COMPONENT = "mailcordon-controller"

_CLAIMED = "Registering"
_MOST_NOTE = 1024
_HARSH = CLOSED_STATES | {"paused", "throttled"}


def shown(
    spec: SenderSpec,
    site: Site,
    control: Control,
    status: SenderStatus | None,
    live: Thing,
    *,
    left: Mapping[str, str],
    now: int,
    paused: bool,
    unfit: Unfit | None = None,
) -> Body:
    """The whole status of a Campaign; ``left`` is by kind how each part was left."""
    asked = live.spec.egress
    body = status_body(
        spec,
        site,
        status,
        control,
        observed_generation=live.metadata.generation,
        now=now,
        ready=0 if status is None else status.ready,
        replicas=0 if status is None else status.wanted,
        egress_address=asked.get("address") if isinstance(asked, dict) else None,
        can_see=site.sees_addresses,
        automation_paused=paused,
        dry_run=spec.record is not None and spec.record.dry_run,
        unfit=unfit.explain if unfit is not None and unfit.reason == "Invalid" else "",
        before=[_told(one) for one in live.status.conditions if one.last_transition_time],
        name=live.metadata.name,
    )
    body["status"] |= {"parts": dict(left), "announcedEpoch": max(control.epoch, live.status.announced_epoch)}
    return body


def is_shown(body: Body, live: Thing) -> bool:
    """Does a Campaign say all of this already?"""
    there, asked = (msgspec.json.decode(msgspec.json.encode(one)) for one in (live.status, body["status"]))
    return all(there.get(field) == value for field, value in asked.items())


def event_body(control: Control, live: Thing, *, namespace: str, now: int) -> Body:
    """The Event of a decision about a Campaign; the same for whoever writes it."""
    about = _about(live, f"{live.metadata.name}.{control.epoch}", namespace=namespace, now=now)
    note = kept_reason(control)[:_MOST_NOTE] or control.state
    harsh = control.state in _HARSH
    return about | {"reason": _reason(control, live), "message": note, "type": "Warning" if harsh else "Normal"}


def refusal_body(explain: str, live: Thing, *, namespace: str, now: int) -> Body:
    """The Event of a resource that is not registered as it is."""
    name = f"{live.metadata.name}.refused-{live.metadata.generation}"
    about = _about(live, name, namespace=namespace, now=now)
    return about | {"reason": "Refused", "message": explain[:_MOST_NOTE], "type": "Warning"}


def refused_status(unfit: Unfit, live: Thing, *, namespace: str, now: int) -> Body:
    """The status of a resource that no sender obeys, because it is not registered as it is."""
    body = _first_status(live, unfit.reason, unfit.explain[:_MOST_NOTE], namespace=namespace, now=now)
    if live.status.sender:
        body["status"]["sender"] = live.status.sender  # it was claimed, and stays so
    return body


def claimed_status(sender: str, live: Thing, *, namespace: str, now: int) -> Body:
    """The status of a resource that speaks for its campaign from now on, and of which nothing is decided yet."""
    message = "the campaign is being registered; its sender begins with the first decision"
    body = _first_status(live, _CLAIMED, message, namespace=namespace, now=now)
    body["status"]["sender"] = sender
    return body


def says_claimed(live: Thing) -> bool:
    """Does a resource say already that it speaks for its campaign?  One that was refused since says why instead."""
    return bool(live.status.sender) and any(
        (one.type, one.reason) == ("Ready", _CLAIMED) for one in live.status.conditions
    )


def _first_status(live: Thing, reason: str, message: str, *, namespace: str, now: int) -> Body:
    ready = {
        "type": "Ready",
        "status": "False",
        "reason": reason,
        "message": message,
        "lastTransitionTime": rfc3339(now),
        "observedGeneration": live.metadata.generation,
    }
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": live.metadata.name, "namespace": namespace},
        "status": {"observedGeneration": live.metadata.generation, "conditions": [ready]},
    }


def says_refused(unfit: Unfit, live: Thing) -> bool:
    """Does a resource say already that it is not registered, and why?"""
    asked = ("Ready", unfit.reason, unfit.explain[:_MOST_NOTE])
    return any((one.type, one.reason, one.message) == asked for one in live.status.conditions)


def _about(live: Thing, name: str, *, namespace: str, now: int) -> Body:
    at = rfc3339(now)[:-5] + "Z"  # the legacy fields have whole seconds
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "name": live.metadata.name,
            "namespace": namespace,
            "uid": live.metadata.uid,
        },
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "reportingInstance": COMPONENT,
    }


def _reason(control: Control, live: Thing) -> str:
    """The state's name, or Released for one that was closed until now."""
    was = next((one for one in live.status.conditions if one.type == "Isolated"), None)
    was_closed = was is not None and (was.status == "True" or was.reason == "Draining")
    return "Released" if was_closed and control.state not in CLOSED_STATES else control.state.capitalize()


def _told(one: Condition) -> conditions.Condition:
    return msgspec.convert(msgspec.to_builtins(one), conditions.Condition)
