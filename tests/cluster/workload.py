"""A Deployment as the tests need it: what its pods run, what becomes of them, what they have said."""

import json
from pathlib import Path
from typing import Any

from tests.cluster.conftest import until
from tests.control_plane.plane import ControlPlane
from tests.control_plane.rest import Body, Rest

WORKER = Path(__file__).parent / "worker.py"
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
