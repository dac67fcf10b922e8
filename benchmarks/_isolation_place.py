"""Where the senders of ``isolation.py`` run: a real control plane, its watcher, and a Deployment of nobody's."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks._isolation_account import Body, Shown
from benchmarks._plane import ACCOUNT, NAMESPACE, install
from benchmarks._running import Failed
from cli.settings import as_environment
from k8s.patches import Site
from policy.naming import sender_name
from policy.settings import Settings
from tests.control_plane.plane import ControlPlane
from tests.control_plane.rest import Rest

_DEPLOYMENTS = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"
_WATCHED = {
    "Campaign": f"/apis/mailcordon.dev/v1alpha1/namespaces/{NAMESPACE}/campaigns",
    "Deployment": _DEPLOYMENTS,
    "NetworkPolicy": f"/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/networkpolicies",
    "Pod": f"/api/v1/namespaces/{NAMESPACE}/pods",
}
_PLAIN = "plain"
_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Place:
    """The control plane, furnished."""

    plane: ControlPlane
    site: Site

    def prepared(self, settings: Settings) -> tuple[Settings, Mapping[str, str]]:
        """Settings of roles whose senders run here, and the variables beside them."""
        here = replace(settings, backend="kubernetes", namespace=NAMESPACE, image=self.site.image)
        config = {"metadata": {"name": self.site.config}, "data": as_environment(here)}
        keys = (settings.secret_file or settings.data / "secrets.json").read_text()
        secret = {"metadata": {"name": self.site.secret}, "stringData": {"secrets.json": keys}}
        for kind, body in (("ConfigMap", config), ("Secret", secret)):
            whole = json.dumps({"apiVersion": "v1", "kind": kind, **body})
            self.plane.run_kubectl("apply", f"--namespace={NAMESPACE}", "--filename=-", stdin=whole)
        return here, {"KUBECONFIG": str(self.plane.account_kubeconfig(NAMESPACE, ACCOUNT))}


def furnished(plane: ControlPlane) -> Place:
    """An installation without a campaign."""
    install(plane)
    return Place(plane, Site(namespace=NAMESPACE))


@dataclass(frozen=True, slots=True)
class Watched:
    """What watches have shown so far."""

    shown: Shown
    watches: "Sequence[asyncio.Task[None]]"

    def must_run(self) -> None:
        """Raise what ended a watch: without it nothing more would be seen."""
        for one in self.watches:
            if one.done():
                one.result()


@contextlib.asynccontextmanager
async def watching(rest: Rest) -> AsyncIterator[Watched]:
    """Note what the API server shows of campaigns, in order, by our clock when it arrives."""
    shown = Shown()
    watches = [asyncio.create_task(_watch(rest, kind, path, shown)) for kind, path in _WATCHED.items()]
    try:
        yield Watched(shown, watches)
    finally:
        for one in watches:
            one.cancel()
        await asyncio.gather(*watches, return_exceptions=True)


async def _watch(rest: Rest, kind: str, path: str, shown: Shown) -> None:
    """A watch that ends goes on where it ended: between two of them nothing is lost."""
    await _until(lambda: _is_served(rest, path), what=f"{kind} is served")
    version = (await rest.get(path)).wanted()["metadata"]["resourceVersion"]
    while True:
        async for event in rest.watch(path, version):
            if event["type"] == "ERROR":
                raise Failed(f"the watch of {kind} ended: {event['object'].get('message')}")
            version = event["object"]["metadata"]["resourceVersion"]
            if event["type"] != "BOOKMARK":
                shown.take(kind, event, time.time_ns() // 1000)


async def _is_served(rest: Rest, path: str) -> bool:
    """A definition may be established some moments before its objects are served."""
    return (await rest.get(path)).ok


async def scaled_down_ms(place: Place, rest: Rest, campaign: str) -> tuple[float, float]:
    """The baseline: a Deployment of the same sender that no controller of ours knows, from the start of ``kubectl
    scale --replicas=0`` until the API server shows 0 replicas, and until its pod is gone."""
    path = f"{_DEPLOYMENTS}/{_PLAIN}"
    theirs = (await rest.get(f"{_DEPLOYMENTS}/{sender_name(campaign)}")).wanted()
    (await rest.create(_DEPLOYMENTS, _plain(theirs))).wanted()

    async def ready() -> bool:
        return bool((await rest.get(path)).wanted().get("status", {}).get("readyReplicas"))

    async def no_replicas() -> bool:
        return not (await rest.get(path)).wanted()["spec"].get("replicas")

    async def gone() -> bool:
        pods = await rest.get(f"/api/v1/namespaces/{NAMESPACE}/pods", labelSelector=f"app={_PLAIN}")
        return not pods.wanted()["items"]

    await _until(ready, what="the plain Deployment is ready")
    began = time.monotonic()
    command = ("scale", f"--namespace={NAMESPACE}", f"deployment/{_PLAIN}", "--replicas=0")
    asked = asyncio.create_task(asyncio.to_thread(place.plane.run_kubectl, *command))
    await _until(no_replicas, what="the plain Deployment has 0 replicas")
    scaled_ms = (time.monotonic() - began) * 1000
    await _until(gone, what="the plain pod is gone")
    gone_ms = (time.monotonic() - began) * 1000
    await asked
    (await rest.delete(path)).wanted()
    return scaled_ms, gone_ms


def _plain(theirs: Body) -> Body:
    """The same pods, under a name and labels that mean nothing to us."""
    chosen = {"app": _PLAIN}
    template = theirs["spec"]["template"] | {"metadata": {"labels": chosen}}
    spec = {"replicas": 1, "selector": {"matchLabels": chosen}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": _PLAIN}, "spec": spec}


async def _until(told: Callable[[], Awaitable[bool]], *, what: str) -> None:
    deadline = time.monotonic() + _WITHIN_S
    while not await told():
        if time.monotonic() > deadline:
            raise Failed(f"not within {_WITHIN_S:.0f} s: {what}")
        await asyncio.sleep(0.01)
