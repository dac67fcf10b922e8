"""What an installation puts into a cluster before its first campaign, put into a test's namespace."""

import asyncio
from pathlib import Path
from typing import Any

import yaml

from k8s import labels
from tests.cluster.conftest import until
from tests.control_plane.rest import Answer, Body, Rest

BASE = Path(__file__).parents[2] / "k8s" / "manifests" / "base"
CAMPAIGNS = "/apis/mailcordon.dev/v1alpha1"
_RBAC = "/apis/rbac.authorization.k8s.io/v1"
_ADMISSION = "/apis/admissionregistration.k8s.io/v1"
_PATHS = {
    "CustomResourceDefinition": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "ValidatingAdmissionPolicy": f"{_ADMISSION}/validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": f"{_ADMISSION}/validatingadmissionpolicybindings",
    "ClusterRole": f"{_RBAC}/clusterroles",
    "Role": f"{_RBAC}/namespaces/{{namespace}}/roles",
}


def manifests(*files: str) -> list[Body]:
    """The objects in files of the base."""
    return [one for file in files for one in yaml.safe_load_all((BASE / file).read_text(encoding="utf-8"))]


async def install(rest: Rest, namespace: str) -> None:
    """The resource, the guard and the roles, until all of them hold in this namespace.

    The plane's user ``controller`` gets both roles of the controller, its user ``viewer`` may edit as people may.
    """
    answers = await asyncio.gather(
        *(
            rest.apply(f"{_PATHS[body['kind']].format(namespace=namespace)}/{body['metadata']['name']}", body)
            for body in manifests("crd.yaml", "rbac.yaml", "admission.yaml")
            if body["kind"] in _PATHS
        ),
        rest.merge(f"/api/v1/namespaces/{namespace}", {"metadata": {"labels": {labels.GUARDED: "true"}}}),
        _bind(rest, namespace, "Role", "mailcordon-reconciler", "mailcordon-controller"),
        _bind(rest, namespace, "Role", "mailcordon-deployer", "mailcordon-controller"),
        _bind(rest, namespace, "ClusterRole", "edit", "viewer"),
    )
    for answer in answers:
        answer.wanted()

    async def holds() -> bool:
        answers = [await rest.create(f"{path}?dryRun=All", body) for path, body in _forbidden(namespace)]
        return all("denied request" in answer.message for answer in answers) and await _people_may_edit(rest, namespace)

    await until(holds, what="the resource is served, and the policies refuse what they should")


async def _bind(rest: Rest, namespace: str, kind: str, role: str, user: str) -> Answer:
    body = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    }
    return await rest.apply(f"{_RBAC}/namespaces/{namespace}/rolebindings/{role}", body)


def _forbidden(namespace: str) -> list[tuple[str, Body]]:
    """One request for each policy that it refuses whatever else is there."""
    closed = {labels.STATE: "isolated"}
    pod = {"containers": [{"name": "one", "image": "registry.k8s.io/pause:3.10"}]}
    chosen = {"app": "nobody"}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "nobody", "annotations": closed},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": chosen},
            "template": {"metadata": {"labels": chosen}, "spec": pod},
        },
    }
    campaign = {
        "apiVersion": "mailcordon.dev/v1alpha1",
        "kind": "Campaign",
        "metadata": {"name": "nobody", "labels": {labels.STOPPED: "true"}},
        "spec": {"campaign": "nobody", "from": {"address": "a@b.example"}, "returnPathDomain": "b.example"},
    }
    return [
        (f"/apis/apps/v1/namespaces/{namespace}/deployments", deployment),
        (f"{CAMPAIGNS}/namespaces/{namespace}/campaigns", campaign),
    ]


async def _people_may_edit(rest: Rest, namespace: str) -> bool:
    asked: dict[str, Any] = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": "viewer",
            "resourceAttributes": {
                "namespace": namespace,
                "group": "mailcordon.dev",
                "resource": "campaigns",
                "verb": "create",
            },
        },
    }
    answer: Answer = await rest.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", asked)
    return bool(answer.wanted()["status"]["allowed"])
