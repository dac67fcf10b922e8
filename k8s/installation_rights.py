"""What the controller's identity may do: everything that its Roles grant, and nothing that could undo an isolation.

Also the probes of the guard: writes that are only pretended (``dryRun``), and must be refused.  Pure.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from k8s import labels, patches
from k8s.cluster import SenderSpec
from k8s.installation import APPLY, Body, Denied, Finding
from k8s.patches import Site
from policy.naming import sender_name
from schemas.reputation import Control
from schemas.sending import Pace

CONTROLLER = "mailcordon-controller"


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """A verb on a resource (``deployments``, ``campaigns/status``); ``name`` where it holds for one object only."""

    verb: str
    group: str
    resource: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}{f' {self.name}' if self.name else ''}"

    def asked(self, namespace: str) -> Body:
        """As a review asks for it (authorization.k8s.io/v1, resourceAttributes)."""
        resource, _, subresource = self.resource.partition("/")
        return {
            "namespace": namespace,
            "verb": self.verb,
            "group": self.group,
            "resource": resource,
            "subresource": subresource,
            "name": self.name,
        }


def granted(documents: Iterable[Body], account: str = CONTROLLER) -> list[Right]:
    """What the Roles among these documents grant to an account by their bindings."""
    listed = list(documents)
    bound = {
        (one["roleRef"]["kind"], one["roleRef"]["name"])
        for one in listed
        if one["kind"] in {"RoleBinding", "ClusterRoleBinding"}
        and any((who["kind"], who["name"]) == ("ServiceAccount", account) for who in one["subjects"])
    }
    return sorted(
        {
            Right(verb, group, resource, name)
            for one in listed
            if (one["kind"], one["metadata"]["name"]) in bound
            for rule in one["rules"]
            for verb in rule["verbs"]
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for name in rule.get("resourceNames") or [""]
        }
    )


_ADMISSION = "admissionregistration.k8s.io"
_OURS = (
    ("apps", "deployments"),
    ("networking.k8s.io", "networkpolicies"),
    ("policy", "poddisruptionbudgets"),
    ("mailcordon.dev", "campaigns"),
    ("", "services"),
    ("", "serviceaccounts"),
    ("", "pods"),
)
FORBIDDEN: tuple[Right, ...] = (
    *(Right(verb, "", "secrets") for verb in ("get", "list", "watch", "create", "patch", "update")),
    *(Right(verb, group, resource) for group, resource in _OURS for verb in ("delete", "deletecollection")),
    *(Right("create", "", one) for one in ("pods", "pods/exec", "pods/eviction", "serviceaccounts/token")),
    *(Right(verb, "rbac.authorization.k8s.io", "roles") for verb in ("create", "patch", "update", "escalate")),
    *(Right(verb, "rbac.authorization.k8s.io", "rolebindings") for verb in ("create", "patch", "update")),
    *(Right(verb, _ADMISSION, "validatingadmissionpolicies") for verb in ("patch", "update", "delete")),
    *(Right(verb, _ADMISSION, "validatingadmissionpolicybindings") for verb in ("patch", "update", "delete")),
    *(Right(verb, "", "namespaces") for verb in ("patch", "update", "delete")),
)
"""Nothing that reads keys, takes the fence away by deleting what carries it, or gives itself more rights."""


def rights(needed: Sequence[Right], may: Mapping[Right, bool | Denied], *, namespace: str) -> list[Finding]:
    """Compare what the identity needs and must not have with what the API server says that it may."""
    check = f"rights of {CONTROLLER}"
    denied = next((answer for answer in may.values() if isinstance(answer, Denied)), None)
    if denied is not None:
        fix = "ask as somebody who may create SubjectAccessReviews"
        return [Finding(check, "unknown", f"you may not ask what others may: {denied.why}", fix)]
    lacking = [right for right in needed if not may.get(right)]
    excess = [right for right in FORBIDDEN if may.get(right)]
    findings = []
    if lacking:
        findings.append(Finding(check, "missing", f"may not: {_listed(lacking)}", APPLY))
    if excess:
        who = f"system:serviceaccount:{namespace}:{CONTROLLER}"
        fix = f"find the binding: kubectl auth can-i --list --as {who} --namespace {namespace}"
        findings.append(Finding(check, "wrong", f"may, and must not: {_listed(excess)}", fix))
    return findings or [Finding(check, "ok", f"{len(needed)} that it needs, none of {len(FORBIDDEN)} that it must not")]


def _listed(some: Sequence[Right], most: int = 6) -> str:
    shown = ", ".join(str(one) for one in some[:most])
    return shown if len(some) <= most else f"{shown} and {len(some) - most} more"


@dataclass(frozen=True, slots=True)
class Pretended:
    """A write that was only pretended: whether it would have been done, and what the API server said if not."""

    what: str
    done: bool
    said: str = ""


def forbidden_writes(site: Site) -> dict[str, Body]:
    """Objects of a campaign that never was, isolated by their own words, and with a way to send all the same."""
    campaign = "mailcordon-install-check"
    spec = SenderSpec(campaign=campaign, name=sender_name(campaign))
    isolated = Control(
        campaign=campaign, epoch=1, may_send=False, pace=Pace(), state="isolated", reason="a probe of the guard", at=1
    )
    return {
        "a Deployment that is isolated and has a replica": patches.deployment(spec, site, isolated, replicas=1),
        "a NetworkPolicy that is isolated and lets mail out": patches.network_policy(
            spec, site, isolated, is_open=True
        ),
        "a Campaign whose labels say what no decision says": {
            "apiVersion": "mailcordon.dev/v1alpha1",
            "kind": "Campaign",
            "metadata": {"name": spec.name, "namespace": site.namespace, "labels": {labels.STOPPED: "true"}},
            "spec": {"campaign": campaign, "from": {"address": "a@example.com"}, "returnPathDomain": "example.com"},
        },
    }


def guard(tried: Iterable[Pretended]) -> list[Finding]:
    """Do the admission policies refuse what they must?  Being there is not enough: a binding may miss its namespace."""
    return [_guarded(one) for one in tried]


def _guarded(one: Pretended) -> Finding:
    check = f"guard: {one.what}"
    if one.done:
        fix = f"see the lines of the admission policies and of the namespace's label; {APPLY}"
        return Finding(check, "wrong", "would have been taken", fix)
    if "ValidatingAdmissionPolicy 'mailcordon-" in one.said:
        return Finding(check, "ok", "is refused")
    said = one.said or "the API server knows no such kind"
    return Finding(check, "unknown", f"could not be tried: {said}", "mend the lines above, or ask as an administrator")
