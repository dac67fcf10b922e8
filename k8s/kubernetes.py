"""Senders as Kubernetes Deployments: read, server-side apply, read back.

What this module relies on (all measured against a real API server):

* Server-side apply of everything that we own, forced, under one field manager: the same apply again changes
  nothing, so it may be repeated at any time; whoever else set one of our fields loses it.
* An apply that carries the ``resourceVersion`` that was read is refused (409) when anybody wrote in between.
  Fence and write are one step by that: read, compare the epoch, apply what was compared.  Two controllers may run.
* An apply makes what is missing; a resourceVersion does not stop that (:data:`k8s.api.NO_OBJECT_HAS_THIS_VERSION`).
* Replicas are in every apply of the Deployment: a field left out is given up, and falls back to one.

Order: a way out is opened before there are pods, and emptied after the last has ended.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any

from k8s import api, labels, objects, patches
from k8s.api import Api, Body, Conflict, Kind
from k8s.cluster import SenderSpec, SenderStatus, Stale, Temporary, check_fence, check_may_ensure
from k8s.objects import Parts, Thing
from k8s.patches import Site
from policy.naming import sender_name
from schemas.reputation import Control

CONFLICTS = 6
CONFLICT_PAUSE_S = 0.02

_KINDS: tuple[Kind, ...] = ("Deployment", "NetworkPolicy", "Service", "ServiceAccount")
_SENDERS = f"{labels.MANAGED_BY}=mailcordon,{labels.COMPONENT}=sender"


class KubernetesCluster:
    """The senders of an installation, in one namespace, by one API client."""

    def __init__(self, api: Api, site: Site) -> None:
        self.site = site
        self._api = api
        self._marks: dict[tuple[str, str], tuple[str, str]] = {}  # kind and name -> how we left the object

    @classmethod
    async def connect(cls, site: Site, *, kubeconfig: str | None = None) -> "KubernetesCluster":
        """With the pod's own identity, or with the one of a kubeconfig file."""
        return cls(await api.connect(site.namespace, kubeconfig=kubeconfig), site)

    def fingerprint(self, spec: SenderSpec) -> str:
        """What a sender of this spec is made from here."""
        return patches.fingerprint(spec, self.site)

    async def read(self, spec: SenderSpec) -> SenderStatus | None:
        """What is there of this sender."""
        return self._status(spec.campaign, spec.name, await self._parts(spec))

    async def list(self) -> Sequence[SenderStatus]:
        """Every sender in the namespace, by one list per kind."""
        *found, pods = await _all(*(self._api.list(kind, _SENDERS) for kind in (*_KINDS, "Pod")))
        by_name = [{thing.metadata.name: thing for thing in things} for things in found]
        alive = objects.grouped(pod for pod in pods if not objects.has_ended(pod))
        statuses = []
        for name in sorted(set().union(*by_name)):
            there = [things.get(name) for things in by_name]
            campaign = objects.campaign_of(thing for thing in there if thing)
            if sender_name(campaign) != name:
                continue  # it has our labels and is none of ours
            spec = SenderSpec(campaign=campaign, name=name)
            parts = _parts(there, pods=len(alive.get(patches.selector(spec)[labels.CAMPAIGN], ())))
            status = self._status(campaign, name, parts)
            if status is not None:
                statuses.append(status)
        return statuses

    async def ensure(self, spec: SenderSpec, control: Control) -> None:
        """Let an open sender exist in this shape."""
        parts = await self._fenced(spec, control)
        check_may_ensure(self._status(spec.campaign, spec.name, parts), control)
        await self._open(spec, control, parts)

    async def release(self, spec: SenderSpec, control: Control) -> None:
        """Open a sender that was closed."""
        await self._open(spec, control, await self._fenced(spec, control))

    async def isolate(self, spec: SenderSpec, control: Control, *, cut: bool = False) -> None:
        """Replicas to 0; the way out emptied once the last pod has ended, or before all else with ``cut``."""
        parts = await self._fenced(spec, control)
        empty = patches.network_policy(spec, self.site, control, is_open=False)
        if cut:
            await self._apply("NetworkPolicy", empty, control, parts.policy)
        still = patches.deployment(spec, self.site, control, replicas=0)
        await self._apply("Deployment", still, control, parts.deployment)
        if not cut and not (now := await self._parts(spec)).running:
            await self._apply("NetworkPolicy", empty, control, now.policy)

    async def retire(self, spec: SenderSpec, control: Control, *, cut: bool = False) -> None:
        """As isolation: what stays keeps the fence, costs nothing and needs no right to delete."""
        await self.isolate(spec, control, cut=cut)

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()

    async def _open(self, spec: SenderSpec, control: Control, parts: Parts) -> None:
        await _all(
            self._apply("ServiceAccount", patches.service_account(spec, self.site), control, parts.account),
            self._apply("Service", patches.service(spec, self.site), control, parts.service),
        )
        way_out = patches.network_policy(spec, self.site, control, is_open=True)
        await self._apply("NetworkPolicy", way_out, control, parts.policy)
        pods = patches.deployment(spec, self.site, control, replicas=spec.replicas)
        await self._apply("Deployment", pods, control, parts.deployment)

    async def _fenced(self, spec: SenderSpec, control: Control) -> Parts:
        """What is there, after the epoch was compared with every part of it: one may have been deleted."""
        parts = await self._parts(spec)
        check_fence(spec.name, asked=control.epoch, fence=parts.fence)
        return parts

    async def _apply(self, kind: Kind, body: Body, control: Control, live: Thing | None) -> None:
        """Apply a body over what was read; when somebody else was faster, read again and compare again.

        Two controllers, A with epoch 7 (isolate) and B with 6 (release), both have read version 10 with fence 5.
        If A writes first, B's apply carries version 10 and gets 409; B reads fence 7 and gives up.  If B writes
        first, A gets 409, reads fence 6 and writes over it.
        """
        name = body["metadata"]["name"]
        for attempt in range(CONFLICTS):
            if live is not None:
                check_fence(f"{kind} {name}", asked=control.epoch, fence=live.metadata.fence)
            try:
                applied = await self._api.apply(kind, body, over=live)
            except Conflict:
                await asyncio.sleep(CONFLICT_PAUSE_S * attempt)
                live = await self._api.get(kind, name)
            else:
                self._marks[kind, name] = applied.metadata.mark
                return
        raise Temporary(f"{kind} {name}: others wrote to it {CONFLICTS} times while we tried")

    async def _parts(self, spec: SenderSpec) -> Parts:
        query = ",".join(f"{key}={value}" for key, value in patches.selector(spec).items())
        *there, pods = await _all(*(self._api.get(kind, spec.name) for kind in _KINDS), self._api.list("Pod", query))
        return _parts(there, pods=sum(not objects.has_ended(pod) for pod in pods))

    def _status(self, campaign: str, name: str, parts: Parts) -> SenderStatus | None:
        untouched = {
            kind: self._marks.get((kind, name)) == thing.metadata.mark for kind, thing in parts.by_kind.items()
        }
        return objects.status_of(campaign, name, parts, untouched=untouched)


def _parts(there: Sequence[Thing | None], *, pods: int) -> Parts:
    deployment, policy, service, account = there
    return Parts(deployment=deployment, policy=policy, service=service, account=account, pods=pods)


async def _all(*calls: Awaitable[Any]) -> Sequence[Any]:  # Any: calls of different kinds
    """Answers of calls made at once; if one fails its error is raised, after all have ended."""
    answers = await asyncio.gather(*calls, return_exceptions=True)
    errors = [answer for answer in answers if isinstance(answer, BaseException)]
    if errors:
        raise next((error for error in errors if isinstance(error, Stale)), errors[0])
    return answers
