"""The process kubelet: nodes that really start a pod's containers, as child processes, and really end them.

It registers nodes, renews their leases, takes the pods that the scheduler has bound to them, and tells the API what
becomes of each.  What it does not do is in the README of this folder.
"""

import argparse
import asyncio
import contextlib
import random
import shlex
import signal
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from tests.control_plane.container import stamp
from tests.control_plane.images import IMAGES
from tests.control_plane.pod import AGAIN_AFTER_S, NO_ANSWER, Ground, PodLife
from tests.control_plane.pod_words import Pod
from tests.control_plane.rest import APPLY, Rest

LEASE_S = 40
RENEW_EVERY_S = 10.0
_PORT = 10250
_ROOM = {"cpu": "1k", "memory": "4Ti", "pods": "2000", "ephemeral-storage": "64Ti"}
"""More than there is: nothing is measured, so what pods ask for must not keep them from being bound."""


class Addresses:
    """Pod addresses 10.N.x.y that no other kubelet of this machine uses, and that nobody uses twice at a time."""

    def __init__(self) -> None:
        self._claim, network = _claimed()
        self._free = [f"10.{network}.{high}.{low}" for high in range(255, 0, -1) for low in range(254, 0, -1)]

    def take(self) -> str:
        """One that is free."""
        return self._free.pop()

    def give_back(self, address: str) -> None:
        """Nobody listens there any more; it is used again as late as possible."""
        self._free.insert(0, address)


def _claimed() -> tuple[socket.socket, int]:
    """Claim one network of loopback by listening in it, as long as this process lives."""
    for network in random.sample(range(100, 255), 155):
        claim = socket.socket()
        try:
            claim.bind((f"127.{network}.0.1", _PORT))
            claim.listen()
        except OSError:
            claim.close()
            continue
        return claim, network
    raise OSError("no free network of loopback between 127.100.0.0 and 127.254.0.0")


class Kubelet:
    """All nodes of a control plane in one process."""

    def __init__(self, ground: Ground, nodes: int) -> None:
        self._ground = ground
        self._nodes = [f"node-{number}" for number in range(1, nodes + 1)]
        self._addresses = Addresses()
        self._pods: dict[str, PodLife] = {}
        self._lives: set[asyncio.Task[None]] = set()

    async def run(self, ready: Callable[[], None]) -> None:
        """Be these nodes until cancelled; ``ready`` is called when the API knows them all and pods are followed."""
        for node in self._nodes:
            await self._register(node)
        try:
            async with asyncio.TaskGroup() as forever:
                for node in self._nodes:
                    forever.create_task(self._renew(node))
                forever.create_task(self._follow(ready))
        finally:
            for life in self._lives:
                life.cancel()
            await asyncio.gather(*self._lives, return_exceptions=True)

    async def _register(self, node: str) -> None:
        labels = {"kubernetes.io/hostname": node, "kubernetes.io/os": "linux", "topology.kubernetes.io/zone": node}
        body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node, "labels": labels}}
        answer = await self._ground.rest.create("/api/v1/nodes", body)
        assert answer.ok or answer.status == 409, answer.message  # 409: from an earlier start
        await self._tell_ready(node)
        (await self._ground.rest.merge(f"/api/v1/nodes/{node}", {"spec": {"taints": None}})).wanted()

    async def _tell_ready(self, node: str) -> None:
        addresses = [{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": node}]
        condition = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": stamp()}
        status = {"capacity": _ROOM, "allocatable": _ROOM, "addresses": addresses, "conditions": [condition]}
        await self._ground.rest.strategic(f"/api/v1/nodes/{node}/status", {"status": status})

    async def _renew(self, node: str) -> None:
        """A node whose lease nobody renews is dead; an API that is away is no reason to stop."""
        path = f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{node}"
        while True:
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            lease = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": node},
                "spec": {"holderIdentity": node, "leaseDurationSeconds": LEASE_S, "renewTime": now},
            }
            pause_s = RENEW_EVERY_S
            try:
                await self._ground.rest.call("PATCH", path, lease, kind=APPLY, fieldManager="kubelet", force="true")
                await self._tell_ready(node)
            except NO_ANSWER as away:
                print(f"{node}: its lease was not renewed: {type(away).__name__}", flush=True)
                pause_s = AGAIN_AFTER_S
            await asyncio.sleep(pause_s)

    async def _follow(self, ready: Callable[[], None]) -> None:
        """List, then watch; again whenever the watch ends."""
        while True:
            try:
                listed = (await self._ground.rest.get("/api/v1/pods")).wanted()
                self._compare(listed["items"])
                ready()
                watched = self._ground.rest.watch("/api/v1/pods", listed["metadata"]["resourceVersion"])
                async with contextlib.aclosing(watched) as events:
                    async for event in events:
                        if event["type"] == "ERROR":  # the version is too old: list again
                            break
                        self._take(event)
            except (*NO_ANSWER, AssertionError, ValueError) as away:
                print(f"pods cannot be followed: {type(away).__name__}: {str(away)[:200]}", flush=True)
                await asyncio.sleep(AGAIN_AFTER_S)

    def _compare(self, pods: list[Pod]) -> None:
        """What a list says of pods that are new, changed, or no longer there."""
        for pod in pods:
            self._take({"type": "MODIFIED", "object": pod})
        there = {pod["metadata"]["uid"] for pod in pods}
        for uid in [uid for uid in self._pods if uid not in there]:
            self._pods[uid].forgotten()

    def _take(self, event: Pod) -> None:
        pod = event["object"]
        if event["type"] == "BOOKMARK" or pod["spec"].get("nodeName") not in self._nodes:
            return
        known = self._pods.get(pod["metadata"]["uid"])
        match event["type"], known:
            case "DELETED", None:
                pass
            case "DELETED", PodLife() as life:
                life.forgotten()
            case _, None:
                if pod["status"].get("phase") not in {"Succeeded", "Failed"} or pod["metadata"].get(
                    "deletionTimestamp"
                ):
                    self._begin(pod)
            case _, PodLife() as life:
                life.see(pod)

    def _begin(self, pod: Pod) -> None:
        life = PodLife(pod, self._addresses.take(), self._ground)
        self._pods[pod["metadata"]["uid"]] = life
        task = asyncio.create_task(self._lived(life), name=life.name)
        self._lives.add(task)
        task.add_done_callback(self._lives.discard)

    async def _lived(self, life: PodLife) -> None:
        try:
            await life.run()
        except Exception as odd:  # noqa: BLE001 - one pod's trouble must not end the nodes; it is told here
            print(f"{life.name}: {odd!r}", flush=True)
        finally:
            self._pods.pop(life.pod["metadata"]["uid"], None)
            self._addresses.give_back(life.address)


async def serve(kubeconfig: Path, folder: Path, nodes: int, images: dict[str, list[str]]) -> None:
    """Be the nodes until told to end."""
    for part in ("logs", "pods"):
        (folder / part).mkdir(mode=0o700, parents=True, exist_ok=True)
    async with Rest(kubeconfig) as rest:
        ground = Ground(rest, folder, {**IMAGES, **images}, rest.server)
        running = asyncio.create_task(Kubelet(ground, nodes).run((folder / "ready").touch))
        for which in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(which, running.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await running


def _images(texts: list[str]) -> Iterator[tuple[str, list[str]]]:
    for text in texts:
        name, _, command = text.partition("=")
        yield name, shlex.split(command)


def main() -> None:
    """The command line, as the control plane writes it."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--kubeconfig", type=Path, required=True)
    options.add_argument("--folder", type=Path, required=True)
    options.add_argument("--nodes", type=int, default=1)
    options.add_argument("--image", action="append", default=[], metavar="NAME=COMMAND")
    given = options.parse_args()
    asyncio.run(serve(given.kubeconfig, given.folder, given.nodes, dict(_images(given.image))))
