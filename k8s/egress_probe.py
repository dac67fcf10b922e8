"""Does the network really filter what leaves?  A pod like an isolated sender's tries to connect, and must fail.

NetworkPolicies are only as good as the network plugin: an API server stores them whether anybody enforces them or not.
A connection that fails proves something only where the same one would succeed without policies, so the default target
is a port of ours that is known to listen and that lets everybody in: the return path's.
"""

import asyncio
from dataclasses import replace
from enum import IntEnum
from typing import Literal

from k8s import labels
from k8s.cluster import Permanent
from k8s.installation import Answer, Body, Finding
from k8s.installation_reading import Reader
from k8s.patches import USER_ID, Site
from policy.settings import Endpoint

RETURN_PATH = "mailcordon-return-path"
TRY_S = 10.0
"""How long a connection is waited for; what is filtered is most often dropped in silence."""
POD_WITHIN_S = 120.0
_LOOK_EVERY_S = 0.5


Listens = Literal["seen", "told", "unknown"]
"""Does the target take connections: have we seen it, did somebody say so, or is it not known?"""


class Tried(IntEnum):
    """What became of the connection, as the pod's exit code."""

    SILENT = 0
    CONNECTED = 1
    REFUSED = 4
    NO_SUCH_NAME = 5
    UNREACHABLE = 6
    FORBIDDEN = 7


_FIRST_OF = (Tried.CONNECTED, Tried.REFUSED, Tried.SILENT, Tried.FORBIDDEN, Tried.UNREACHABLE)
"""Which counts of several addresses.  Unreachable is last: most names have an IPv6 address, most pods have none."""


def default_target(site: Site) -> Endpoint:
    """Port 25 of the return path: it listens, and its own policy lets everybody in."""
    return Endpoint(f"{RETURN_PATH}.{site.namespace}.svc", 25)


async def tried(target: Endpoint, *, timeout_s: float = TRY_S) -> Tried:
    """Try to connect to each address of the target, and let go at once."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            found = await loop.getaddrinfo(target.host, target.port, type=1)  # 1: a stream
    except (OSError, TimeoutError):
        return Tried.NO_SUCH_NAME
    addresses = {str(one[4][0]) for one in found}
    outcomes = await asyncio.gather(*(_tried(address, target.port, timeout_s) for address in addresses))
    return min(outcomes, key=_FIRST_OF.index)


async def _tried(address: str, port: int, timeout_s: float) -> Tried:
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(address, port)
    except ConnectionRefusedError:
        return Tried.REFUSED
    except TimeoutError:
        return Tried.SILENT
    except PermissionError:  # the kernel's own word: nothing has left the node
        return Tried.FORBIDDEN
    except OSError:
        return Tried.UNREACHABLE
    writer.close()
    return Tried.CONNECTED


def probe_pod(site: Site, name: str, target: Endpoint) -> Body:
    """A pod with the labels of a sender that is nobody's: the base's policies hold for it, no sender's own does.

    It is not marked as ours to manage, so the controller does not take it for a sender's.
    """
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": site.namespace,
            "labels": {labels.NAME: "mailcordon", labels.COMPONENT: "sender", labels.CAMPAIGN: name},
        },
        "spec": {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": int(POD_WITHIN_S),
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 1,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER_ID,
                "runAsGroup": USER_ID,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "probe",
                    "image": site.image,
                    "imagePullPolicy": "IfNotPresent",
                    "args": ["install", "--try", str(target)],
                    "resources": {
                        "requests": {"cpu": "50m", "memory": "96Mi", "ephemeral-storage": "16Mi"},
                        "limits": {"memory": "256Mi", "ephemeral-storage": "64Mi"},
                    },
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                        "readOnlyRootFilesystem": True,
                    },
                }
            ],
        },
    }


def found(target: Endpoint, exit_code: int | None, *, listens: Listens, trouble: str = "") -> Finding:
    """What the pod's end says about the network.

    Silence counts where somebody says that the target takes connections; a refusal, which is what a host without a
    listener answers too, and no way there, as to a host that is down, only where we have seen that it does.
    """
    fix = "name a host that takes connections: --probe HOST:PORT"
    answer: Answer = "unknown"
    match exit_code:
        case Tried.CONNECTED:
            answer, says = "wrong", "egress is NOT filtered: a pod like an isolated sender's could connect"
            fix = "use a network plugin that enforces NetworkPolicies (Cilium, Calico, OVN-Kubernetes, Antrea …)"
        case Tried.SILENT if listens != "unknown":
            answer, says, fix = "ok", "is filtered: a pod like an isolated sender's cannot connect", ""
        case Tried.REFUSED | Tried.UNREACHABLE if listens == "seen":
            answer, says, fix = "ok", "is filtered: a pod like an isolated sender's is rejected", ""
        case Tried.FORBIDDEN:
            answer, says, fix = "ok", "is filtered: a pod like an isolated sender's is forbidden to connect", ""
        case Tried.SILENT:
            says = "no connection, but nobody may be listening there"
        case Tried.REFUSED:
            says = "refused at once: nobody listens there, or a policy rejects"
        case Tried.UNREACHABLE:
            says = "no way leads there, or a policy rejects"
        case Tried.NO_SUCH_NAME:
            says, fix = (
                "the name could not be looked up",
                "name an address that takes connections: --probe ADDRESS:PORT",
            )
        case _:
            says, fix = f"the pod did not tell: {trouble or exit_code}", "kubectl get events"
    return Finding(f"way out to {target}", answer, says, fix)


async def probe(reader: Reader, site: Site, name: str, target: Endpoint | None) -> Finding:
    """Make the pod, wait for its end, take it away, and say what it found."""
    listens: Listens = "told" if target else "seen" if await _return_path_is_ready(reader, site) else "unknown"
    where = target or default_target(site)
    pods = f"/api/v1/namespaces/{site.namespace}/pods"
    try:
        await reader.create(pods, probe_pod(replace(site, image=await _image(reader, site)), name, where))
    except Permanent as refused:
        return found(where, None, listens=listens, trouble=str(refused))
    exit_code, trouble = None, f"not within {POD_WITHIN_S:g} s"
    try:
        async with asyncio.timeout(POD_WITHIN_S):
            exit_code, trouble = await _end(reader, f"{pods}/{name}")
    except TimeoutError:
        pass  # the finding says so
    finally:
        await reader.delete(f"{pods}/{name}")
    return found(where, exit_code, listens=listens, trouble=trouble)


async def _end(reader: Reader, path: str) -> tuple[int | None, str]:
    while True:
        pod = await reader.get(path)
        if not isinstance(pod, dict):
            return None, "it is gone"
        status = pod.get("status", {})
        states = [one.get("state", {}) for one in status.get("containerStatuses") or ()]
        if status.get("phase") in {"Succeeded", "Failed"}:
            ended = next((one["terminated"] for one in states if "terminated" in one), None)
            return (None, str(status.get("message", "failed"))) if ended is None else (int(ended["exitCode"]), "")
        await asyncio.sleep(_LOOK_EVERY_S)


async def _image(reader: Reader, site: Site) -> str:
    """What senders run there; what we were told where nobody says."""
    seen = await reader.get(f"/api/v1/namespaces/{site.namespace}/configmaps/{site.config}")
    data = (seen.get("data") or {}) if isinstance(seen, dict) else {}
    return str(data.get("MAILCORDON_IMAGE") or site.image)


async def _return_path_is_ready(reader: Reader, site: Site) -> bool:
    seen = await reader.get(f"/apis/apps/v1/namespaces/{site.namespace}/deployments/{RETURN_PATH}")
    return isinstance(seen, dict) and seen.get("status", {}).get("readyReplicas", 0) > 0
