"""``mailcordon install --check``: everything that an installation needs is looked at, and judged in order of need."""

import asyncio
from collections.abc import Mapping, Sequence

from k8s import installation as judge
from k8s import installation_rights as rights
from k8s import installation_traffic as traffic
from k8s import labels, patches
from k8s.cluster import CLOSED_STATES, SenderSpec
from k8s.installation import Body, Denied, Finding, Seen
from k8s.installation_reading import MERGE, Reader, shipped
from k8s.patches import Site
from policy.naming import sender_name

_ADMISSION = "/apis/admissionregistration.k8s.io/v1"
_PATHS = {
    "ValidatingAdmissionPolicy": f"{_ADMISSION}/validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": f"{_ADMISSION}/validatingadmissionpolicybindings",
    "CustomResourceDefinition": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
}


async def check(reader: Reader, site: Site) -> list[Finding]:
    """All findings, the cause before its consequences: cluster, namespace, rights, roles, and what senders meet.

    Raises Temporary or Permanent when the API server gives no answer at all.
    """
    told = await reader.get("/version")
    look = _Look(reader, site, shipped(), await _senders(reader, site))
    parts = await asyncio.gather(
        look.definitions(),
        look.namespace(),
        look.guard(),
        look.rights(),
        look.settings(),
        look.roles(),
        look.networks(),
    )
    return [judge.version(told if isinstance(told, dict) else {}), *(one for part in parts for one in part)]


class _Look:
    def __init__(self, reader: Reader, site: Site, documents: Sequence[Body], senders: Sequence[Body]) -> None:
        self._reader, self._site, self._documents, self._senders = reader, site, documents, senders

    async def definitions(self) -> list[Finding]:
        """What is the whole cluster's: the Campaign resource and the admission policies, as we ship them."""
        wanted = [one for one in self._documents if one["kind"] in _PATHS]
        seen = await asyncio.gather(
            *(self._reader.get(f"{_PATHS[one['kind']]}/{one['metadata']['name']}") for one in wanted)
        )
        findings = []
        for body, live in zip(wanted, seen, strict=True):
            is_definition = body["kind"] == "CustomResourceDefinition"
            check = "Campaign resource" if is_definition else f"{body['kind']} {body['metadata']['name']}"
            not_served = judge.established(live) if is_definition else None
            findings.append(not_served or judge.as_shipped(check, live, body))
        return findings

    async def namespace(self) -> list[Finding]:
        """The namespace, and the labels that switch things on."""
        wanted = {labels.GUARDED: "true", "pod-security.kubernetes.io/enforce": "restricted"}
        return judge.namespace(
            await self._reader.get(f"/api/v1/namespaces/{self._site.namespace}"), self._site.namespace, wanted=wanted
        )

    async def guard(self) -> list[Finding]:
        """Does the guard refuse what it must?  Tried with objects that never were, and on a stopped sender if any."""
        deployments = self._in("apps/v1", "deployments")
        tries = [
            self._reader.pretend(what, "POST", self._in(body["apiVersion"], _plural(body["kind"])), body)
            for what, body in rights.forbidden_writes(self._site).items()
        ]
        fenced = next((one for one in self._senders if _annotation(one, labels.FENCE) not in {"", "0"}), None)
        if fenced is not None:
            name, older = fenced["metadata"]["name"], {"metadata": {"annotations": {labels.FENCE: "0"}}}
            what = f"an older epoch for {name}"
            tries.append(self._reader.pretend(what, "PATCH", f"{deployments}/{name}", older, kind=MERGE))
        stopped = next((one for one in self._senders if _annotation(one, labels.STATE) in CLOSED_STATES), None)
        if stopped is not None:
            name, more = stopped["metadata"]["name"], {"spec": {"replicas": 1}}
            what = f"a replica for {name}, which is stopped"
            tries.append(self._reader.pretend(what, "PATCH", f"{deployments}/{name}/scale", more, kind=MERGE))
        return rights.guard(await asyncio.gather(*tries))

    async def rights(self) -> list[Finding]:
        """May the controller do what it needs, and nothing that it must not?"""
        needed = rights.granted(self._documents)
        user = f"system:serviceaccount:{self._site.namespace}:{rights.CONTROLLER}"
        may = await self._reader.who_may({*needed, *rights.FORBIDDEN}, user, self._site.namespace)
        return rights.rights(needed, may, namespace=self._site.namespace)

    async def settings(self) -> list[Finding]:
        """The ConfigMap and the Secrets."""
        name = self._site.config
        seen = await self._reader.get(f"{self._in('v1', 'configmaps')}/{name}")
        data: Mapping[str, str] = (seen.get("data") or {}) if isinstance(seen, dict) else {}
        named = (self._site.secret, self._site.kafka, self._site.dkim, self._site.egress)
        path = self._in("v1", "secrets")
        there = await asyncio.gather(*(self._reader.get(f"{path}/{one}", names_only=True) for one in named))
        found: dict[str, Seen] = dict(zip(named, there, strict=True))
        return [*judge.config(seen, name), *judge.secrets(found, self._site, data)]

    async def roles(self) -> list[Finding]:
        """Do our roles run, and are senders' pods admitted?"""
        path = self._in("apps/v1", "deployments")
        seen = await asyncio.gather(*(self._reader.get(f"{path}/{name}") for name in judge.ROLES))
        findings = [judge.role(name, one) for name, one in zip(judge.ROLES, seen, strict=True)]
        return findings + judge.refused_senders(self._senders)

    async def networks(self) -> list[Finding]:
        """Policies, autoscalers, quotas."""
        policies, hpas, scaled, quotas = await asyncio.gather(
            self._reader.items(self._in("networking.k8s.io/v1", "networkpolicies")),
            self._reader.items(self._in("autoscaling/v2", "horizontalpodautoscalers")),
            self._reader.items(self._in("keda.sh/v1alpha1", "scaledobjects")),
            self._reader.items(self._in("v1", "resourcequotas")),
        )
        findings = []
        if isinstance(policies, Denied):
            findings.append(_unseen("NetworkPolicies", policies))
        else:
            findings += self._base_policies(policies) + traffic.ways_out(policies, self._pods())
        if isinstance(hpas, Denied) or isinstance(scaled, Denied):
            findings.append(_unseen("autoscalers", hpas if isinstance(hpas, Denied) else scaled))
        else:
            findings += traffic.autoscalers(hpas, scaled, [one["metadata"]["name"] for one in self._senders])
        if isinstance(quotas, Denied):
            return [*findings, _unseen("ResourceQuota", quotas)]
        return findings + traffic.quota(quotas, self._site)

    def _base_policies(self, live: Sequence[Body]) -> list[Finding]:
        """The base's policies by name; what they allow is the installation's own matter, but nothing comes first."""
        there = {one["metadata"]["name"]: one for one in live}
        wanted = [one for one in self._documents if one["kind"] == "NetworkPolicy"]
        names = [one["metadata"]["name"] for one in wanted]
        lost = [name for name in names if name not in there]
        if lost:
            return [Finding("NetworkPolicies of the base", "missing", f"not there: {', '.join(lost)}", judge.APPLY)]
        first = judge.as_shipped(
            "NetworkPolicy default-deny", there["default-deny"], wanted[names.index("default-deny")]
        )
        return [first, Finding("NetworkPolicies of the base", "ok", f"all {len(names)} are there")]

    def _pods(self) -> dict[str, Mapping[str, str]]:
        """The labels of senders' pods: of those that are there, and of one that may come."""
        campaign = "a-campaign-that-may-come"
        coming = SenderSpec(campaign=campaign, name=sender_name(campaign))
        pods: dict[str, Mapping[str, str]] = {"any sender": patches.selector(coming)}
        return pods | {
            one["metadata"]["name"]: one["spec"]["template"]["metadata"].get("labels", {}) for one in self._senders
        }

    def _in(self, group_version: str, plural: str) -> str:
        return _path(self._site, group_version, plural)


async def _senders(reader: Reader, site: Site) -> list[Body]:
    """The Deployments of senders; none where we may not look, which the roles' lines say."""
    chosen = f"{labels.MANAGED_BY}%3Dmailcordon,{labels.COMPONENT}%3Dsender"
    found = await reader.items(f"{_path(site, 'apps/v1', 'deployments')}?labelSelector={chosen}")
    return [] if isinstance(found, Denied) else found


def _path(site: Site, group_version: str, plural: str) -> str:
    prefix = f"/apis/{group_version}" if "/" in group_version else f"/api/{group_version}"
    return f"{prefix}/namespaces/{site.namespace}/{plural}"


def _plural(kind: str) -> str:
    return {"Deployment": "deployments", "NetworkPolicy": "networkpolicies", "Campaign": "campaigns"}[kind]


def _annotation(body: Body, key: str) -> str:
    return str((body["metadata"].get("annotations") or {}).get(key, ""))


def _unseen(check: str, denied: Denied | Sequence[Body]) -> Finding:
    why = denied.why if isinstance(denied, Denied) else ""
    return Finding(check, "unknown", f"you may not look: {why}", "ask somebody who may")
