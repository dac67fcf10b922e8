"""What the tests of this folder rely on: what a real control plane does, and what our nodes make of pods."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.cluster.conftest import until
from tests.control_plane.plane import ControlPlane
from tests.control_plane.pod_words import here
from tests.control_plane.rest import Body, Rest

WORKER = Path(__file__).parent / "worker.py"
ROOT = Path(__file__).resolve().parents[2]
GATE = "mailcordon.example.com/egress-verified"
FENCE = "mailcordon.example.com/fence"
LABELS = {"app": "sender"}


def deployment(replicas: int, pod: Body) -> Body:
    template = {"metadata": {"labels": LABELS}, "spec": pod}
    spec = {"replicas": replicas, "selector": {"matchLabels": LABELS}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "sender"}, "spec": spec}


def played(**more: Any) -> Body:
    return {"containers": [{"name": "sender", "image": "registry.k8s.io/pause:3.10"}], **more}


def working(manner: str = "polite", *, grace_s: int = 10, **more: Any) -> Body:
    """A pod of the worker beside this file."""
    container = {
        "name": "sender",
        "image": "python:3.13",
        "args": [str(WORKER), manner, "0.0.0.0:8080", "/etc/seen/greeting"],
        "env": [
            {"name": "SEEN_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "SEEN_ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "SEEN_KEY", "valueFrom": {"secretKeyRef": {"name": "key", "key": "value"}}},
            {"name": "SEEN_BOTH", "value": "$(SEEN_KEY) and $$(SEEN_KEY)"},
        ],
        "ports": [{"name": "web", "containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/", "port": "web"}, "periodSeconds": 1},
        "volumeMounts": [{"name": "seen", "mountPath": "/etc/seen"}],
    }
    volumes = [{"name": "seen", "configMap": {"name": "seen"}}]
    return {"containers": [container], "volumes": volumes, "terminationGracePeriodSeconds": grace_s, **more}


async def furnished(rest: Rest, namespace: str) -> None:
    """What the worker's pod names."""
    base = f"/api/v1/namespaces/{namespace}"
    (await rest.create(f"{base}/configmaps", {"metadata": {"name": "seen"}, "data": {"greeting": "hello"}})).wanted()
    (await rest.create(f"{base}/secrets", {"metadata": {"name": "key"}, "stringData": {"value": "s3"}})).wanted()


class Sender:
    """The Deployment of a test."""

    def __init__(self, rest: Rest, namespace: str) -> None:
        self.rest, self.namespace = rest, namespace
        self.path = f"/apis/apps/v1/namespaces/{namespace}/deployments/sender"

    async def apply(self, replicas: int, pod: Body) -> None:
        (await self.rest.apply(self.path, deployment(replicas, pod))).wanted()

    async def scale(self, replicas: int) -> None:
        (await self.rest.merge(f"{self.path}/scale", {"spec": {"replicas": replicas}})).wanted()

    async def pods(self) -> list[Any]:
        listed = await self.rest.get(f"/api/v1/namespaces/{self.namespace}/pods", labelSelector="app=sender")
        return list(listed.wanted()["items"])

    async def running(self, count: int) -> list[Any]:
        async def told() -> list[Any]:
            pods = [pod for pod in await self.pods() if pod["status"].get("phase") == "Running"]
            return pods if len(pods) == count else []

        return await until(told, what=f"{count} pods run")

    async def ready(self, count: int) -> list[Any]:
        async def told() -> bool:
            status = (await self.rest.get(self.path)).wanted()["status"]
            return bool(status.get("readyReplicas", 0) == count)

        await until(told, what=f"{count} replicas are ready")
        return await self.pods()

    async def gone(self) -> None:
        async def told() -> bool:
            return not await self.pods()

        await until(told, what="no pod is left")


@pytest.fixture
def sender(rest: Rest, namespace: str) -> Sender:
    return Sender(rest, namespace)


def said(plane: ControlPlane, pod: Any, container: str = "sender") -> Path:
    metadata = pod["metadata"]
    return plane.pods_folder / "logs" / f"{metadata['namespace']}_{metadata['name']}_{container}.log"


async def first_word(plane: ControlPlane, pod: Any) -> Any:
    """What a worker has said of itself."""

    async def told() -> Any:
        log = said(plane, pod)
        return json.loads(log.read_text().splitlines()[0]) if log.is_file() and log.read_text() else None

    return await until(told, what="the pod's process says something")


def runs(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def gone(*pids: int) -> bool:
    return not any(runs(pid) for pid in pids)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


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


# Pods


async def test_a_closed_readiness_gate_keeps_a_running_pod_unready(
    rest: Rest, sender: Sender, own_plane: ControlPlane
) -> None:
    await sender.apply(1, played(readinessGates=[{"conditionType": GATE}]))
    (pod,) = await sender.running(1)
    assert "readyReplicas" not in (await rest.get(sender.path)).wanted()["status"]

    opened = {"status": {"conditions": [{"type": GATE, "status": "True"}]}}
    path = f"/api/v1/namespaces/{sender.namespace}/pods/{pod['metadata']['name']}/status"
    (await rest.strategic(path, opened)).wanted()

    assert await sender.ready(1)


async def test_a_pod_is_a_process_that_gets_what_its_specification_says(
    own_plane: ControlPlane, rest: Rest, sender: Sender
) -> None:
    await furnished(rest, sender.namespace)
    await sender.apply(1, working())
    (pod,) = await sender.ready(1)

    word = await first_word(own_plane, pod)

    assert runs(word["pid"])
    assert word["file"] == "hello"
    assert word["environment"] == {
        "SEEN_NAME": pod["metadata"]["name"],
        "SEEN_ADDRESS": here(pod["status"]["podIP"]),
        "SEEN_KEY": "s3",
        "SEEN_BOTH": "s3 and $(SEEN_KEY)",
    }


async def test_two_pods_listen_on_the_same_port_and_stand_behind_one_service(
    own_plane: ControlPlane, rest: Rest, sender: Sender
) -> None:
    base = f"/api/v1/namespaces/{sender.namespace}"
    service = {
        "metadata": {"name": "sender"},
        "spec": {"selector": LABELS, "ports": [{"port": 80, "targetPort": "web"}]},
    }
    (await rest.create(f"{base}/services", service)).wanted()
    await furnished(rest, sender.namespace)
    await sender.apply(2, working())
    pods = await sender.ready(2)

    async def endpoints() -> list[str]:
        path = f"/apis/discovery.k8s.io/v1/namespaces/{sender.namespace}/endpointslices"
        slices = (await rest.get(path)).wanted()["items"]
        ready = [
            address
            for one in slices
            for endpoint in one["endpoints"] or []
            if endpoint["conditions"]["ready"]
            for address in endpoint["addresses"]
        ]
        return ready if len(ready) == 2 else []

    assert sorted(await until(endpoints, what="both are endpoints")) == sorted(pod["status"]["podIP"] for pod in pods)


async def test_scale_to_zero_ends_the_process_by_sigterm(own_plane: ControlPlane, rest: Rest, sender: Sender) -> None:
    await furnished(rest, sender.namespace)
    await sender.apply(1, working())
    (pod,) = await sender.ready(1)
    pid = (await first_word(own_plane, pod))["pid"]

    ended = await _ended(rest, sender, pod)

    assert (ended["exitCode"], runs(pid)) == (0, False)


async def test_a_process_that_ignores_sigterm_is_killed_after_its_grace(
    own_plane: ControlPlane, rest: Rest, sender: Sender
) -> None:
    await furnished(rest, sender.namespace)
    await sender.apply(1, working("stubborn", grace_s=1))
    (pod,) = await sender.ready(1)
    pid = (await first_word(own_plane, pod))["pid"]

    ended = await _ended(rest, sender, pod)

    assert (ended["exitCode"], ended["signal"], runs(pid)) == (137, signal.SIGKILL, False)


async def _ended(rest: Rest, sender: Sender, pod: Any) -> Any:
    """Scale to nothing; how the container ended, as the pod's last status told."""
    await sender.scale(0)
    pods, version = f"/api/v1/namespaces/{sender.namespace}/pods", pod["metadata"]["resourceVersion"]
    states = []
    async for event in rest.watch(pods, version, timeoutSeconds=60):
        if event["type"] == "DELETED":
            break
        if event["type"] == "MODIFIED":
            states += [one["state"] for one in event["object"]["status"]["containerStatuses"]]
    await sender.gone()
    return states[-1]["terminated"]


async def test_a_crashed_container_starts_again_in_the_same_pod(
    own_plane: ControlPlane, rest: Rest, sender: Sender
) -> None:
    await furnished(rest, sender.namespace)
    await sender.apply(1, working())
    (pod,) = await sender.ready(1)
    os.kill((await first_word(own_plane, pod))["pid"], signal.SIGKILL)

    async def restarted() -> Any:
        (now,) = await sender.pods()
        status = now["status"]["containerStatuses"][0]
        return now if status["restartCount"] == 1 and status["ready"] else None

    now = await until(restarted, what="it runs again")
    assert now["metadata"]["uid"] == pod["metadata"]["uid"]
    assert now["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 137


async def test_a_pod_waits_for_what_it_names(own_plane: ControlPlane, rest: Rest, sender: Sender) -> None:
    await sender.apply(1, working())

    async def waits() -> bool:
        pods = await sender.pods()
        states = [one["state"] for pod in pods for one in pod["status"].get("containerStatuses", [])]
        return [state.get("waiting", {}).get("reason") for state in states] == ["CreateContainerConfigError"]

    await until(waits, what="the pod says what it lacks")
    await furnished(rest, sender.namespace)

    assert await sender.ready(1)


async def test_a_pod_that_is_deleted_by_force_leaves_no_process(
    own_plane: ControlPlane, rest: Rest, sender: Sender
) -> None:
    await furnished(rest, sender.namespace)
    (await rest.create(f"/api/v1/namespaces/{sender.namespace}/pods", _alone(working("stubborn")))).wanted()
    (pod,) = await sender.running(1)
    pid = (await first_word(own_plane, pod))["pid"]

    path = f"/api/v1/namespaces/{sender.namespace}/pods/alone"
    (await rest.delete(path, {"gracePeriodSeconds": 0})).wanted()

    await until(lambda: gone(pid), what="its process is gone")


def _alone(pod: Body) -> Body:
    return {"metadata": {"name": "alone", "labels": LABELS}, "spec": pod}


async def test_a_pod_acts_by_the_rights_of_its_account(own_plane: ControlPlane, rest: Rest, sender: Sender) -> None:
    kubectl = {
        "name": "sender",
        "image": "kubectl",
        "command": [str(own_plane.kubectl), "auth", "whoami", "-o", "json"],
    }
    pod = {"containers": [kubectl], "restartPolicy": "Never"}
    (await rest.create(f"/api/v1/namespaces/{sender.namespace}/pods", _alone(pod))).wanted()

    async def done() -> Any:
        (now,) = await sender.pods()
        return now if now["status"].get("phase") in {"Succeeded", "Failed"} else None

    now = await until(done, what="the pod has ended")
    text = said(own_plane, now).read_text()
    assert now["status"]["phase"] == "Succeeded", text
    assert json.loads(text)["status"]["userInfo"]["username"] == f"system:serviceaccount:{sender.namespace}:default"


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
