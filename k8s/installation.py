"""What an installation in a cluster must have, judged from the objects that are there: pure, a finding per line.

``k8s.installation_reading`` reads, ``cli.install`` prints.  Every finding says what was looked at, the answer, one
sentence, and what to do about it.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from k8s.patches import KAFKA, Site
from policy.settings import Settings, WrongSetting, read

Body = dict[str, Any]  # Any: JSON of the Kubernetes API
Answer = Literal["ok", "missing", "wrong", "unknown", "skipped"]

OLDEST = (1, 30)
"""ValidatingAdmissionPolicy, on which the guard stands, is stable since then (KEP-3488)."""

ROLES = ("mailcordon-worker", "mailcordon-controller", "mailcordon-return-path")
APPLY = "kubectl kustomize OVERLAY | kubectl apply --server-side -f -"
_PREFIX = "MAILCORDON_"
_PLACEHOLDER = ".invalid/"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; ``fix`` is empty where there is nothing to do."""

    check: str
    answer: Answer
    says: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Denied:
    """We may not look, or the API would not tell; the sentence is the API's."""

    why: str


Seen = Body | Denied | None
"""An object, or that we may not see it, or that there is none."""


def is_well(findings: Iterable[Finding]) -> bool:
    """Is everything there?  What could not be looked at is not known to be well."""
    return all(one.answer in {"ok", "skipped"} for one in findings)


def version(told: Body) -> Finding:
    """Is the API server young enough for admission policies?  Clouds write its minor number as ``30+``."""
    name = str(told.get("gitVersion", "?"))
    if (_number(told.get("major")), _number(told.get("minor"))) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        return Finding("API server", "wrong", f"{name} is older than {oldest}", "upgrade the cluster")
    return Finding("API server", "ok", name)


def _number(text: object) -> int:
    digits = re.match(r"\d+", str(text or ""))
    return int(digits[0]) if digits else 0


def absent(check: str, seen: Denied | None, *, fix: str = APPLY) -> Finding:
    """The finding about an object that is not there, or that we may not see."""
    if seen is None:
        return Finding(check, "missing", "not there", fix)
    return Finding(check, "unknown", f"you may not look: {seen.why}", "ask somebody who may")


def as_shipped(check: str, seen: Seen, shipped: Body) -> Finding:
    """Is everything there that we ship?  What the API server adds by itself, or others do, is no difference."""
    if not isinstance(seen, dict):
        return absent(check, seen)
    where = difference(shipped.get("spec"), seen.get("spec"), "spec")
    if where is not None:
        return Finding(check, "wrong", f"differs from this mailcordon's at {where}", APPLY)
    return Finding(check, "ok", "as shipped")


def difference(shipped: Any, live: Any, path: str) -> str | None:  # Any: JSON
    """Where the live value lacks what is shipped; None when it has everything."""
    if isinstance(shipped, dict) and isinstance(live, dict):
        found = (difference(value, live.get(key), f"{path}.{key}") for key, value in shipped.items())
        return next((one for one in found if one is not None), None)
    if isinstance(shipped, list) and isinstance(live, list) and len(shipped) == len(live):
        found = (difference(a, b, f"{path}[{i}]") for i, (a, b) in enumerate(zip(shipped, live, strict=True)))
        return next((one for one in found if one is not None), None)
    left_out_by_the_server = live is None and shipped in ({}, [], "", False, None)
    return None if shipped == live or left_out_by_the_server else path


def established(crd: Seen) -> Finding | None:
    """Does the API server serve the Campaign resource yet?  None: yes, or there is none."""
    if not isinstance(crd, dict) or condition(crd, "Established") == ("True", ""):
        return None
    _, why = condition(crd, "Established")
    return Finding("Campaign resource", "wrong", f"not served: {why or 'not established yet'}", "kubectl describe crd")


def namespace(seen: Seen, name: str, *, wanted: Mapping[str, str]) -> list[Finding]:
    """The namespace and the labels that switch on Pod Security and the guard."""
    check = f"namespace {name}"
    if not isinstance(seen, dict):
        return [absent(check, seen)]
    found = seen["metadata"].get("labels", {})
    return [
        Finding(f"{check}, label {key}", "ok", value)
        if found.get(key) == value
        else Finding(
            f"{check}, label {key}",
            "wrong" if key in found else "missing",
            f"is {found.get(key, 'not there')!r} instead of {value!r}",
            f"kubectl label namespace {name} --overwrite {key}={value}",
        )
        for key, value in wanted.items()
    ]


def config(seen: Seen, name: str) -> list[Finding]:
    """The settings of all roles and senders: readable, pointing at a Kafka and an image."""
    check = f"ConfigMap {name}"
    if not isinstance(seen, dict):
        return [absent(check, seen)]
    data = {key: str(value) for key, value in (seen.get("data") or {}).items() if value}
    fix = f"set it in your overlay's config.yaml; {APPLY}"
    findings = [
        Finding(f"{check}, {key}", "missing", "not set", fix)
        for key in ("MAILCORDON_KAFKA", "MAILCORDON_BACKEND", "MAILCORDON_IMAGE")
        if key not in data
    ]
    findings += _settings(check, data, fix)
    return findings or [Finding(check, "ok", f"Kafka is {data['MAILCORDON_KAFKA']}, image {data['MAILCORDON_IMAGE']}")]


def _settings(check: str, data: Mapping[str, str], fix: str) -> list[Finding]:
    known = {f"{_PREFIX}{name.upper()}": name for name in Settings.__dataclass_fields__}
    findings = [
        Finding(f"{check}, {key}", "wrong", "is no setting of this mailcordon", "see `mailcordon settings`")
        for key in sorted(data)
        if key.startswith(_PREFIX) and key not in known
    ]
    try:
        settings = read({known[key]: (value, key) for key, value in data.items() if key in known})
    except WrongSetting as wrong:
        return [*findings, Finding(check, "wrong", str(wrong), fix)]
    if "MAILCORDON_BACKEND" in data and settings.backend != "kubernetes":
        findings.append(Finding(f"{check}, MAILCORDON_BACKEND", "wrong", f"is {settings.backend}, not kubernetes", fix))
    if _PLACEHOLDER in data.get("MAILCORDON_IMAGE", ""):
        says = "is the placeholder of the production overlay: no pod can start"
        findings.append(
            Finding(f"{check}, MAILCORDON_IMAGE", "wrong", says, "set `images` in your overlay's kustomization.yaml")
        )
    return findings


def secrets(found: Mapping[str, Seen], site: Site, settings: Mapping[str, str]) -> list[Finding]:
    """Are the Secrets there?  Only that is asked; what is in them is never read.

    ``settings`` are the data of the ConfigMap: where they name a file of Kafka's Secret, that one is needed.
    """
    needed = {site.secret: "kubectl create secret generic {name} --from-file=secrets.json"}
    if any(value.startswith(f"{KAFKA}/") for key, value in settings.items() if key.startswith(f"{_PREFIX}KAFKA_")):
        needed[site.kafka] = "kubectl create secret generic {name} --from-file=ca.crt --from-file=tls.crt …"
    findings = []
    for name in (site.secret, site.kafka, site.dkim, site.egress):
        check, seen = f"Secret {name}", found.get(name)
        if name not in needed and seen is None:
            findings.append(Finding(check, "skipped", "not there, and nothing asks for it"))
            continue
        fix = needed.get(name, "").format(name=name)
        where = f"{fix}  (--namespace {site.namespace}; docs/guide/kubernetes.md)"
        there = Finding(check, "ok", "there; what is in it is not read")
        findings.append(there if isinstance(seen, dict) else absent(check, seen, fix=where))
    return findings


def role(name: str, seen: Seen) -> Finding:
    """Does a role of ours run?"""
    check = f"Deployment {name}"
    if not isinstance(seen, dict):
        return absent(check, seen)
    wanted, ready = seen["spec"].get("replicas", 1), seen.get("status", {}).get("readyReplicas", 0)
    failing = replica_failure(seen)
    if failing:
        return Finding(check, "wrong", f"its pods are refused: {failing}", "see the line of the quota, or Pod Security")
    if ready < wanted or not wanted:
        fix = f"kubectl describe pods -l app.kubernetes.io/component={name.removeprefix('mailcordon-')}"
        return Finding(check, "wrong", f"{ready} of {wanted} pods are ready", fix)
    return Finding(check, "ok", f"{ready} of {wanted} pods are ready")


def refused_senders(deployments: Iterable[Body]) -> list[Finding]:
    """Senders whose pods the API server refuses: a quota that is used up, most often."""
    return [
        Finding(
            f"sender {one['metadata']['name']}",
            "wrong",
            f"its pods are refused: {failing}",
            "raise the ResourceQuota (docs/guide/kubernetes.md), or retire campaigns",
        )
        for one in deployments
        if (failing := replica_failure(one))
    ]


def replica_failure(deployment: Body) -> str:
    """Why the pods of a Deployment are refused; empty when they are not."""
    status, why = condition(deployment, "ReplicaFailure")
    return why if status == "True" else ""


def condition(body: Body, kind: str) -> tuple[str, str]:
    """Status and message of a condition; the message is empty where it says nothing bad."""
    for one in body.get("status", {}).get("conditions") or ():
        if one.get("type") == kind:
            said = str(one.get("message", ""))[:300]
            return str(one.get("status")), "" if (kind, one.get("status")) == ("Established", "True") else said
    return "Unknown", ""
