"""What the tests of this folder rely on: what a real control plane does, in outages too, and how it ends."""

import asyncio
import json
import sys
from pathlib import Path

import aiohttp
import pytest

from tests.cluster.conftest import until
from tests.cluster.workload import Sender, children, first_word, furnished, gone, played, runs, said, working
from tests.control_plane.plane import ControlPlane
from tests.control_plane.rest import Body, Rest

ROOT = Path(__file__).resolve().parents[2]
FENCE = "mailcordon.example.com/fence"


@pytest.fixture
def sender(rest: Rest, namespace: str) -> Sender:
    return Sender(rest, namespace)


# The API


async def test_nodes_are_ready(rest: Rest) -> None:
    nodes = (await rest.get("/api/v1/nodes")).wanted()["items"]
    ready = [
        node
        for node in nodes
        if any(one["type"] == "Ready" and one["status"] == "True" for one in node["status"]["conditions"])
    ]

    assert ready == nodes != []


async def test_a_field_of_another_manager_is_a_conflict_without_force(rest: Rest, sender: Sender) -> None:
    await sender.apply(1, played())

    other = {"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 5}}

    assert (await rest.apply(sender.path, other, manager="other", force=False)).status == 409


async def test_a_watch_tells_changes(rest: Rest, sender: Sender, namespace: str) -> None:
    pods = f"/api/v1/namespaces/{namespace}/pods"
    version = (await rest.get(pods)).wanted()["metadata"]["resourceVersion"]

    await sender.apply(1, played())

    async for event in rest.watch(pods, version, timeoutSeconds=60):
        assert event["type"] == "ADDED"
        break


async def test_an_admission_policy_refuses_a_step_back(rest: Rest, sender: Sender, namespace: str) -> None:
    admission = "/apis/admissionregistration.k8s.io/v1"
    rule = {
        "apiGroups": ["apps"],
        "apiVersions": ["v1"],
        "operations": ["UPDATE"],
        "resources": ["deployments"],
    }
    newer = f"int(object.metadata.annotations['{FENCE}']) >= int(oldObject.metadata.annotations['{FENCE}'])"
    fenced = f"has(oldObject.metadata.annotations) && '{FENCE}' in oldObject.metadata.annotations"
    policy = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [rule]},
            "matchConditions": [{"name": "fenced", "expression": fenced}],
            "validations": [{"expression": newer, "message": "stale decision"}],
        },
    }
    where = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    binding = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "spec": {"policyName": namespace, "validationActions": ["Deny"], "matchResources": where},
    }
    paths = [f"{admission}/validatingadmissionpolic{end}/{namespace}" for end in ("ies", "ybindings")]
    try:
        for path, body in zip(paths, (policy, binding), strict=True):
            (await rest.apply(path, body)).wanted()
        await sender.apply(0, played())
        (await rest.merge(sender.path, {"metadata": {"annotations": {FENCE: "7"}}})).wanted()

        async def refused() -> str:
            back = {"metadata": {"annotations": {FENCE: "6"}}}
            answer = await rest.merge(sender.path, back, dryRun="All")
            return answer.message if answer.status == 422 else ""

        assert "stale decision" in await until(refused, what="the policy works, some time after it was stored")
        assert (await rest.merge(sender.path, {"metadata": {"annotations": {FENCE: "8"}}})).ok
    finally:
        for path in paths:
            await rest.delete(path)


async def test_who_was_granted_nothing_may_do_nothing(own_plane: ControlPlane, namespace: str) -> None:
    async with Rest(own_plane.kubeconfig("viewer")) as viewer:
        answer = await viewer.get(f"/api/v1/namespaces/{namespace}/secrets")

    assert answer.status == 403


async def test_an_account_has_the_rights_that_are_bound_to_it(
    own_plane: ControlPlane, rest: Rest, namespace: str
) -> None:
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    rule = {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["list"]}
    subject = {"kind": "ServiceAccount", "name": "default", "namespace": namespace}
    binding = {
        "metadata": {"name": "reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
        "subjects": [subject],
    }
    (await rest.create(f"{rbac}/roles", {"metadata": {"name": "reader"}, "rules": [rule]})).wanted()
    (await rest.create(f"{rbac}/rolebindings", binding)).wanted()

    async with Rest(own_plane.account_kubeconfig(namespace, "default")) as account:

        async def may() -> bool:
            return (await account.get(f"/apis/apps/v1/namespaces/{namespace}/deployments")).ok

        await until(may, what="the new binding counts")
        assert (await account.get(f"/api/v1/namespaces/{namespace}/pods")).status == 403


async def test_a_custom_resource_keeps_its_rules(rest: Rest, namespace: str) -> None:
    group = f"{namespace}.example.com"
    rule = {"rule": "self.generation >= oldSelf.generation", "message": "must not go backwards"}
    spec = {
        "type": "object",
        "properties": {"generation": {"type": "integer"}},
        "x-kubernetes-validations": [rule],
    }
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}},
    }
    names = {"kind": "Trial", "plural": "trials", "singular": "trial"}
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": [version]},
    }
    defined = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/trials.{group}"
    one = f"/apis/{group}/v1/namespaces/{namespace}/trials/one"

    def trial(generation: int) -> Body:
        return {"apiVersion": f"{group}/v1", "kind": "Trial", "spec": {"generation": generation}}

    (await rest.apply(defined, crd)).wanted()
    try:

        async def stored() -> bool:
            return (await rest.apply(one, trial(2))).ok

        await until(stored, what="the new kind is served")
        back = await rest.apply(one, trial(1))
        assert (back.status, "must not go backwards" in back.message) == (422, True)
    finally:
        await rest.delete(defined)


# Outages


async def test_pods_outlive_an_outage_of_the_api_and_what_was_stored_is_there_after_it(
    own_plane: ControlPlane, rest: Rest, sender: Sender
) -> None:
    await furnished(rest, sender.namespace)
    await sender.apply(1, working())
    (pod,) = await sender.ready(1)
    pid = (await first_word(own_plane, pod))["pid"]

    own_plane.stop_api()
    with pytest.raises(aiohttp.ClientConnectionError):
        await rest.get("/readyz")
    assert runs(pid)
    own_plane.start_api()
    own_plane.wake_controllers()

    assert [one["metadata"]["uid"] for one in await sender.ready(1)] == [pod["metadata"]["uid"]]
    await sender.scale(0)
    await sender.gone()
    assert not runs(pid)


async def test_pods_of_a_node_that_lost_power_run_again_when_it_is_back(
    own_plane: ControlPlane, rest: Rest, sender: Sender
) -> None:
    await furnished(rest, sender.namespace)
    await sender.apply(1, working())
    (pod,) = await sender.ready(1)
    before = (await first_word(own_plane, pod))["pid"]

    own_plane.stop_kubelet()
    await until(lambda: gone(before), what="its process is gone")
    own_plane.start_kubelet()

    async def again() -> bool:
        return len(said(own_plane, pod).read_text().splitlines()) == 2

    await until(again, what="the process runs again")
    assert [one["metadata"]["uid"] for one in await sender.ready(1)] == [pod["metadata"]["uid"]]


async def test_a_frozen_api_answers_nothing_until_it_goes_on(own_plane: ControlPlane) -> None:
    async with Rest(own_plane.kubeconfig(), timeout_s=0.5) as hasty:
        own_plane.freeze_api()
        try:
            with pytest.raises(TimeoutError):
                await hasty.get("/readyz")
        finally:
            own_plane.thaw_api()

    async with Rest(own_plane.kubeconfig()) as patient:
        assert (await patient.get("/readyz")).ok


# The end


_ALONE = """
import json, pathlib, sys, time
from tests.control_plane.plane import ControlPlane

plane = ControlPlane(pathlib.Path(sys.argv[1]), nodes=1, say=lambda line: print(line, file=sys.stderr))
plane.start()
plane.run_kubectl("create", "deployment", "x", "--image=python", "--", "sleep", "600")
print(json.dumps(plane.pids()), flush=True)
time.sleep(600)
"""


async def test_nothing_of_a_plane_outlives_whoever_started_it(own_plane: ControlPlane, tmp_path: Path) -> None:
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _ALONE, str(tmp_path / "plane"), stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    assert owner.stdout is not None
    pids = json.loads(await asyncio.wait_for(owner.stdout.readline(), 120))

    async def pods() -> list[int]:
        return children(pids["kubelet"])

    processes = [*pids.values(), *await until(pods, what="the pod has a process")]

    owner.kill()
    await owner.wait()

    await until(lambda: gone(*processes), what="every process is gone")
    assert len(processes) == 6
