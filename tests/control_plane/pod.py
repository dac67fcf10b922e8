"""The life of one pod on a node: volumes, containers, what the API is told of them, and an end in order."""

import asyncio
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from tests.control_plane import volumes
from tests.control_plane.container import Container, Order, stamp
from tests.control_plane.images import PROGRAMS, bare
from tests.control_plane.pod_words import (
    Pod,
    Sources,
    Unplayable,
    Words,
    expanded,
    here,
    needed_objects,
    variables_of,
    wanted_command,
)
from tests.control_plane.rest import Rest

AGAIN_AFTER_S = 0.5
"""What a pod waits for may come; what the API could not be told is told again."""
NO_ANSWER = (aiohttp.ClientError, OSError, TimeoutError)

_PATHS = {"ConfigMap": "configmaps", "Secret": "secrets"}


@dataclass(frozen=True, slots=True)
class Ground:
    """What all pods of a kubelet share."""

    rest: Rest
    folder: Path
    images: Mapping[str, Sequence[str]]
    server: str

    @property
    def logs(self) -> Path:
        return self.folder / "logs"


class PodLife:
    """One pod, from the moment it was bound to a node until the API has forgotten it."""

    def __init__(self, pod: Pod, address: str, ground: Ground) -> None:
        self.pod, self.address = pod, address
        self._ground = ground
        self._home = ground.folder / "pods" / pod["metadata"]["uid"]
        self._began = stamp()
        self._changed, self._ending, self._gone = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._told: dict[str, Any] = {}
        self._since: dict[str, tuple[bool, str]] = {}
        self._initialized = False
        specs = pod["spec"]
        self.init = [self._container(spec) for spec in specs.get("initContainers") or ()]
        self.containers = [self._container(spec) for spec in specs["containers"]]

    @property
    def name(self) -> str:
        """Namespace and name."""
        return f"{self.pod['metadata']['namespace']}/{self.pod['metadata']['name']}"

    @property
    def _path(self) -> str:
        return f"/api/v1/namespaces/{self.pod['metadata']['namespace']}/pods/{self.pod['metadata']['name']}"

    @property
    def _grace_s(self) -> float:
        return float(self.pod["spec"].get("terminationGracePeriodSeconds", 30))

    def see(self, pod: Pod) -> None:
        """The API has a newer version of it."""
        self.pod = pod
        if pod["metadata"].get("deletionTimestamp"):
            self._ending.set()
        self._changed.set()

    def forgotten(self) -> None:
        """The API has no such pod any more: nothing of it may go on."""
        self._gone.set()
        self._ending.set()

    async def run(self) -> None:
        """Live, and end when the API asks for it."""
        self.see(self.pod)
        telling = asyncio.create_task(self._keep_telling())
        living = asyncio.create_task(self._live())
        living.add_done_callback(self._has_lived)
        try:
            await self._ending.wait()
            await self._stop()
            living.cancel()
            await asyncio.gather(living, return_exceptions=True)
            await self._let_go()
        finally:
            for task in (living, telling):
                task.cancel()
            await asyncio.gather(living, telling, return_exceptions=True)
            shutil.rmtree(self._home, ignore_errors=True)

    def _has_lived(self, living: asyncio.Task[None]) -> None:
        """A pod that the kubelet itself has failed: say so, because the API is not told."""
        if not living.cancelled() and (odd := living.exception()) is not None:
            print(f"{self.name}: {odd!r}", flush=True)

    async def _live(self) -> None:
        """Prepare, then run what is to be run; stays when everything has ended, until the pod is deleted."""
        while True:
            try:
                orders = await self._orders()
                break
            except Unplayable as why:
                self._wait_for(why.reason, str(why))
            except NO_ANSWER as why:
                self._wait_for("ContainerCreating", f"the API does not answer: {why!r}")
            shutil.rmtree(self._home, ignore_errors=True)
            await asyncio.sleep(AGAIN_AFTER_S)
        async with asyncio.TaskGroup() as running:
            for one in self.init:
                task = running.create_task(one.run(orders[one.name]))
                if orders[one.name].restart == "Always":  # a sidecar: the next one starts beside it
                    await one.comes_up()
                    continue
                await task
                if self._ending.is_set() or one.exit_code != 0:
                    return
            self._initialized = True
            self._changed.set()
            await asyncio.gather(*(one.run(orders[one.name]) for one in self.containers))
            await self._stop_in_order(self._grace_s)  # sidecars, when all others have ended for good

    async def _orders(self) -> dict[str, Order]:
        """What each container runs, after its volumes were written; raises Unplayable."""
        if all(one.is_played for one in self.init + self.containers):
            return {one.name: self._order(spec, None, {}, Words()) for spec, one in self._pairs()}
        self._home.mkdir(parents=True, exist_ok=True)
        sources = Sources(self.pod, await self._objects(), here(self.address))
        there = await volumes.written(self.pod, self._home / "volumes", sources, self._ground.rest)
        orders = {}
        for spec, one in self._pairs():
            mounted = volumes.mounts(spec, there)
            words = Words(mounted, here(self.address))
            variables = variables_of(spec, sources)
            environment = self._surroundings(mounted) | {key: words.placed(text) for key, text in variables.items()}
            if one.is_played:
                command = None
            else:
                entry_point = self._ground.images.get(bare(one.image))
                head, tail = wanted_command(spec, entry_point, one.image)
                command = [*head, *(words.placed(expanded(word, variables)) for word in tail)]
            orders[one.name] = self._order(spec, command, environment, words)
        return orders

    def _order(self, spec: Pod, command: list[str] | None, environment: dict[str, str], words: Words) -> Order:
        policy = self.pod["spec"].get("restartPolicy", "Always")
        if spec in (self.pod["spec"].get("initContainers") or ()):
            policy = spec.get("restartPolicy") or ("Never" if policy == "Never" else "OnFailure")
        folder = Path(words.placed(spec["workingDir"])) if spec.get("workingDir") else self._home
        log = self._ground.logs / f"{self.name.replace('/', '_')}_{spec['name']}.log"
        return Order(spec, command, environment, words, folder, log, policy, self._grace_s)

    def _surroundings(self, mounted: Mapping[str, Path]) -> dict[str, str]:
        """What every container finds in its environment: this machine's programs, the pod's name, the API."""
        metadata = self.pod["metadata"]
        host, _, port = self._ground.server.removeprefix("https://").rpartition(":")
        found = {
            "PATH": f"{PROGRAMS}:{os.environ.get('PATH', os.defpath)}",
            "HOME": str(self._home),
            "HOSTNAME": metadata["name"],
            "LANG": "C.UTF-8",
            "KUBERNETES_SERVICE_HOST": host,
            "KUBERNETES_SERVICE_PORT": port,
        }
        if "/tmp" in mounted:  # noqa: S108 - a mount point of the pod
            found["TMPDIR"] = str(mounted["/tmp"])  # noqa: S108 - as above
        identity = volumes.identity(mounted, self._home, metadata["namespace"], self._ground.server)
        return found | ({"KUBECONFIG": str(identity)} if identity else {})

    async def _objects(self) -> dict[tuple[str, str], Pod | None]:
        """The ConfigMaps and Secrets that the pod names; None for those that are not there."""
        found: dict[tuple[str, str], Pod | None] = {}
        for kind, name in sorted(needed_objects(self.pod)):
            path = f"/api/v1/namespaces/{self.pod['metadata']['namespace']}/{_PATHS[kind]}/{name}"
            answer = await self._ground.rest.get(path)
            found[kind, name] = answer.body if answer.ok else None
        return found

    def _container(self, spec: Pod) -> Container:
        return Container(spec["name"], spec["image"], self._changed.set)

    def _pairs(self) -> list[tuple[Pod, Container]]:
        specs = [*(self.pod["spec"].get("initContainers") or ()), *self.pod["spec"]["containers"]]
        return list(zip(specs, self.init + self.containers, strict=True))

    def _wait_for(self, reason: str, message: str) -> None:
        for one in self.init + self.containers:
            one.waits(reason, message)

    async def _stop(self) -> None:
        """End the containers within the grace period; at once when the API has forgotten the pod."""
        grace_s = float(self.pod["metadata"].get("deletionGracePeriodSeconds") or 0)
        stopping = asyncio.create_task(self._stop_in_order(grace_s))
        forgotten = asyncio.create_task(self._gone.wait())
        await asyncio.wait({stopping, forgotten}, return_when=asyncio.FIRST_COMPLETED)
        if not stopping.done():
            stopping.cancel()
            await asyncio.gather(
                stopping, *(one.stop(0) for one in self.containers + self.init), return_exceptions=True
            )
        forgotten.cancel()

    async def _stop_in_order(self, grace_s: float) -> None:
        """The containers first, then those that started before them, within one grace period."""
        clock = asyncio.get_running_loop().time
        until = clock() + grace_s
        await asyncio.gather(*(one.stop(grace_s) for one in self.containers))
        await asyncio.gather(*(one.stop(max(0.0, until - clock())) for one in self.init))

    async def _let_go(self) -> None:
        """Tell how it ended, then let the API forget it."""
        uid = self.pod["metadata"]["uid"]
        while not self._gone.is_set():
            try:
                if self._told:  # else nothing of it has ever run here
                    await self._tell()
                answer = await self._ground.rest.delete(
                    self._path, {"gracePeriodSeconds": 0, "preconditions": {"uid": uid}}
                )
                if answer.ok or answer.status in {404, 409}:
                    return
            except NO_ANSWER:
                pass  # told again below
            await asyncio.sleep(AGAIN_AFTER_S)

    async def _keep_telling(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                if not await self._tell():
                    return
            except NO_ANSWER:
                await asyncio.sleep(AGAIN_AFTER_S)
                self._changed.set()

    async def _tell(self) -> bool:
        """Tell the API what it does not know; is the pod still there?"""
        status = self._status()
        if status == self._told and not self._misunderstood(status):
            return True
        answer = await self._ground.rest.strategic(f"{self._path}/status", {"status": status})
        if answer.status == 429 or answer.status >= 500:
            raise OSError(f"the API answered {answer.status}: {answer.message}")
        if not answer.ok and answer.status != 404:
            print(f"{self.name}: the API refused its status: {answer.message}", flush=True)
        self._told = status
        return answer.status != 404

    def _misunderstood(self, status: dict[str, Any]) -> bool:
        """Has somebody else changed what only we know?"""
        there = {one["type"]: one["status"] for one in self.pod.get("status", {}).get("conditions") or ()}
        return any(there.get(one["type"]) != one["status"] for one in status["conditions"])

    def _status(self) -> dict[str, Any]:
        ready = all(one.ready for one in self.containers)
        conditions = {
            "PodReadyToStartContainers": True,
            "Initialized": self._initialized,
            "ContainersReady": ready,
            "Ready": ready and self._gates_are_open(),
        }
        return {
            "phase": self._phase(),
            "startTime": self._began,
            "hostIP": "127.0.0.1",
            "podIP": self.address,
            "podIPs": [{"ip": self.address}],
            "conditions": [self._condition(kind, holds) for kind, holds in conditions.items()],
            "initContainerStatuses": [one.status() for one in self.init],
            "containerStatuses": [one.status() for one in self.containers],
        }

    def _phase(self) -> str:
        if not self._initialized:
            return "Failed" if any(one.exit_code for one in self.init) else "Pending"
        codes = [one.exit_code for one in self.containers]
        if all(code is not None for code in codes):
            return "Failed" if any(codes) else "Succeeded"
        creating = any(one.state.get("waiting", {}).get("reason") == "ContainerCreating" for one in self.containers)
        return "Pending" if creating else "Running"

    def _gates_are_open(self) -> bool:
        told = {one["type"]: one["status"] for one in self.pod.get("status", {}).get("conditions") or ()}
        gates = self.pod["spec"].get("readinessGates") or ()
        return all(told.get(gate["conditionType"]) == "True" for gate in gates)

    def _condition(self, kind: str, holds: bool) -> dict[str, Any]:
        before = self._since.get(kind)
        if before is None or before[0] != holds:
            self._since[kind] = (holds, stamp())
        told = {"type": kind, "status": "True" if holds else "False", "lastTransitionTime": self._since[kind][1]}
        if holds:
            return told | {"reason": None}
        closed = kind == "Ready" and all(one.ready for one in self.containers)
        return told | {"reason": "ReadinessGatesNotReady" if closed else "ContainersNotReady"}
