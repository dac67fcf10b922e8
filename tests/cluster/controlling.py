"""A controller in a test's namespace, and what lasts there of its work."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from k8s import labels
from k8s.kubernetes import KubernetesCluster
from k8s.metrics import Metrics
from k8s.patches import Site
from k8s.reconcile import Habits, Reconciler
from k8s.registering import Registrar
from policy.naming import sender_name
from schemas.reputation import Control, State
from tests.cluster.conftest import Given, until
from tests.cluster.installed import CAMPAIGNS, install
from tests.control_plane.images import PLAYED
from tests.control_plane.plane import ControlPlane
from tests.control_plane.rest import Body, Rest
from tests.k8s.builders import Decided, control

CAMPAIGN = "spring-sale"
NAME = sender_name(CAMPAIGN)
HABITS = Habits(settle_s=0.05, resync_s=3600, longest_pause_s=1.0)
"""No resync: whatever happens, happens because a watch told of it."""


@dataclass
class Field:
    """A namespace with everything that an installation has, and somebody who looks and meddles there."""

    plane: ControlPlane | Given
    rest: Rest
    namespace: str
    truth: Decided = field(default_factory=Decided)
    epochs: int = 0
    image: str = f"{PLAYED}:1"

    @property
    def site(self) -> Site:
        return Site(namespace=self.namespace, image=self.image, sees_addresses=True)

    @property
    def paths(self) -> dict[str, str]:
        return {
            "Campaign": f"{CAMPAIGNS}/namespaces/{self.namespace}/campaigns",
            "Deployment": f"/apis/apps/v1/namespaces/{self.namespace}/deployments",
            "NetworkPolicy": f"/apis/networking.k8s.io/v1/namespaces/{self.namespace}/networkpolicies",
            "Service": f"/api/v1/namespaces/{self.namespace}/services",
            "ServiceAccount": f"/api/v1/namespaces/{self.namespace}/serviceaccounts",
            "PodDisruptionBudget": f"/apis/policy/v1/namespaces/{self.namespace}/poddisruptionbudgets",
        }

    def decide(self, state: State, *, reason: str = "") -> Control:
        """The next decision about the campaign."""
        self.epochs += 1
        told = control(state, epoch=self.epochs, reason=reason or f"it is {state}", at=time.time_ns() // 1_000_000)
        self.truth.say(told)
        return told

    async def cluster(self, metrics: Metrics | None = None) -> KubernetesCluster:
        return await KubernetesCluster.connect(
            self.site, kubeconfig=str(self.plane.kubeconfig("controller")), metrics=metrics
        )

    @contextlib.asynccontextmanager
    async def controller(
        self, truth: Decided | None = None, habits: Habits = HABITS, registrar: Registrar | None = None
    ) -> AsyncIterator[Reconciler]:
        """One that works until the block ends."""
        metrics = Metrics()
        cluster = await self.cluster(metrics)
        one = Reconciler(
            cluster,
            truth or self.truth,
            now=lambda: time.time_ns() // 1_000_000,
            chance=random.random,
            habits=habits,
            metrics=metrics,
            registrar=registrar,
        )
        working = asyncio.create_task(one.run())
        try:
            yield one
        finally:
            working.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await working
            await cluster.close()

    async def get(self, kind: str, name: str = NAME) -> Any:
        """An object as it is now; None when there is none."""
        answer = await self.rest.get(f"{self.paths[kind]}/{name}")
        return None if answer.status == 404 else answer.wanted()

    async def pods(self) -> list[Body]:
        found = await self.rest.get(f"/api/v1/namespaces/{self.namespace}/pods")
        return [
            pod
            for pod in found.wanted()["items"]
            if labels.CAMPAIGN in pod["metadata"]["labels"]
            and pod["status"].get("phase") not in {"Succeeded", "Failed"}
        ]

    async def conditions(self) -> dict[str, tuple[str, str]]:
        """Status and reason of each condition of the Campaign."""
        campaign = await self.get("Campaign")
        told = (campaign or {}).get("status", {}).get("conditions", ())
        return {one["type"]: (one["status"], one["reason"]) for one in told}

    async def events(self, of: str | None = None) -> list[tuple[str, str]]:
        """Reason and sentence of every Event about campaigns, or about one resource of a name, in order."""
        found = (await self.rest.get(f"/api/v1/namespaces/{self.namespace}/events")).wanted()["items"]
        about = [one for one in found if one["involvedObject"]["kind"] == "Campaign"]
        about = [one for one in about if of in (None, one["involvedObject"]["name"])]
        about.sort(key=lambda one: int(one["metadata"]["name"].rpartition(".")[2]))
        return [(one["reason"], one["message"]) for one in about]

    async def lasting(self) -> dict[str, Any]:
        """What lasts of a controller's work, without versions and times; two histories are compared by it."""
        shown: dict[str, Any] = {"pods": len(await self.pods()), "conditions": await self.conditions()}
        for kind in self.paths:
            if (body := await self.get(kind)) is not None:
                metadata = body["metadata"]
                words = {key: said for key, said in metadata.get("annotations", {}).items() if labels.DOMAIN in key}
                spec = body.get("spec", {}) | {"decision": body.get("spec", {}).get("decision", {}) | {"since": ""}}
                del spec["decision"]["since"]
                shown[kind] = (metadata["labels"], {k: v for k, v in words.items() if k != labels.SINCE}, spec)
        return shown

    async def reaches(self, **wanted: tuple[str, str]) -> None:
        """Wait until the conditions of the Campaign are these, of the newest decision."""
        seen: list[Any] = []

        async def told() -> bool:
            campaign = await self.get("Campaign") or {}
            newest = campaign.get("spec", {}).get("decision", {}).get("epoch") == self.epochs
            seen.append(await self.conditions())
            return bool(newest and all(seen[-1].get(kind) == said for kind, said in wanted.items()))

        try:
            await until(told, what=str(wanted))
        except AssertionError as missed:
            raise AssertionError(f"{missed}; last seen: {seen[-1:]}") from missed

    async def is_open(self) -> None:
        await self.reaches(Ready=("True", "Sending"), Isolated=("False", "NotIsolated"))

    async def is_isolated(self) -> None:
        await self.reaches(Isolated=("True", "Isolated"))
        await self.stays_isolated()

    async def stays_isolated(self) -> None:
        """Nothing runs and nothing could leave, now."""
        deployment, policy = await self.get("Deployment"), await self.get("NetworkPolicy")
        assert (deployment["spec"]["replicas"], policy["spec"].get("egress", [])) == (0, [])
        assert await self.pods() == []


async def furnished(plane: ControlPlane | Given, rest: Rest, namespace: str) -> Field:
    """An installation in a namespace of the test's own; senders are played: ready at once, ended at once."""
    await install(rest, namespace)
    one = Field(plane, rest, namespace)
    base = f"/api/v1/namespaces/{namespace}"
    config = {"metadata": {"name": one.site.config}, "data": {"HOLD": f"/nonexistent/{namespace}"}}
    (await rest.create(f"{base}/configmaps", config)).wanted()
    (await rest.create(f"{base}/secrets", {"metadata": {"name": one.site.secret}})).wanted()
    return one
