"""What our nodes make of pods: processes that start, are looked after, and end, in order or by force."""

import json
import os
import signal
from typing import Any

import pytest

from tests.cluster.conftest import until
from tests.cluster.workload import LABELS, Sender, first_word, furnished, gone, played, runs, said, working
from tests.control_plane.plane import ControlPlane
from tests.control_plane.pod_words import here
from tests.control_plane.rest import Body, Rest

GATE = "mailcordon.example.com/egress-verified"


@pytest.fixture
def sender(rest: Rest, namespace: str) -> Sender:
    return Sender(rest, namespace)


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


# Several containers, and probes


def script(name: str, text: str, **more: Any) -> Body:
    """A container that runs some Python in a volume which it shares with the others of its pod."""
    mounted = {"name": "shared", "mountPath": "/shared"}
    return {"name": name, "image": "python", "args": ["-c", text, "/shared/said"], "volumeMounts": [mounted], **more}


SAY = "import sys; open(sys.argv[1], 'a').write('{}\\n');"
LISTEN = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); time.sleep(600)"
TELL = "import sys; print(open(sys.argv[1]).read().split())"


async def ended(rest: Rest, sender: Sender, pod: Body) -> Any:
    """Run a pod on its own until it has ended."""
    shared = {"volumes": [{"name": "shared", "emptyDir": {}}], "restartPolicy": "Never", **pod}
    (await rest.create(f"/api/v1/namespaces/{sender.namespace}/pods", _alone(shared))).wanted()

    async def told() -> Any:
        (now,) = await sender.pods()
        return now if now["status"].get("phase") in {"Succeeded", "Failed"} else None

    return await until(told, what="the pod has ended")


async def test_init_containers_run_before_and_sidecars_beside_the_others(
    own_plane: ControlPlane, rest: Rest, sender: Sender
) -> None:
    first = script("first", SAY.format("first"))
    there = {"exec": {"command": ["grep", "-q", "beside", "/shared/said"]}}
    beside = script("beside", SAY.format("beside") + LISTEN, restartPolicy="Always", startupProbe=there)
    pod = {"initContainers": [first, beside], "containers": [script("sender", TELL)]}

    now = await ended(rest, sender, pod)

    assert said(own_plane, now).read_text() == "['first', 'beside']\n"
    assert now["status"]["phase"] == "Succeeded"


async def test_a_failed_init_container_ends_a_pod_that_is_run_once(
    own_plane: ControlPlane, rest: Rest, sender: Sender
) -> None:
    pod = {"initContainers": [script("first", "exit(3)")], "containers": [script("sender", TELL)]}

    now = await ended(rest, sender, pod)

    assert now["status"]["phase"] == "Failed"
    assert now["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 3


async def test_a_container_that_does_not_live_is_started_again(
    own_plane: ControlPlane, rest: Rest, sender: Sender
) -> None:
    lives = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1}
    await sender.apply(
        1, {"containers": [{"name": "sender", "image": "x", "command": ["sleep", "600"], "livenessProbe": lives}]}
    )

    async def restarted() -> bool:
        pods = await sender.pods()
        return any(one["restartCount"] for pod in pods for one in pod["status"].get("containerStatuses", []))

    await until(restarted, what="a restart")


async def test_what_is_to_be_done_before_the_end_is_done_before_sigterm(
    own_plane: ControlPlane, rest: Rest, sender: Sender
) -> None:
    before = {"preStop": {"exec": {"command": ["sh", "-c", "echo before"]}}}
    told = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit('told'));"
    text = f"{told} print('up', flush=True); time.sleep(600)"
    await sender.apply(
        1, {"containers": [{"name": "sender", "image": "python", "args": ["-c", text], "lifecycle": before}]}
    )
    (pod,) = await sender.running(1)

    async def up() -> bool:
        return said(own_plane, pod).is_file() and bool(said(own_plane, pod).read_text())

    await until(up, what="the process is there")
    await sender.scale(0)
    await sender.gone()

    assert said(own_plane, pod).read_text().split() == ["up", "before", "told"]
