"""Senders as Kubernetes objects: read, server-side apply, read back.

What this module relies on (all measured against a real API server):

* Server-side apply of everything that we own, forced, under one field manager: the same apply again changes
  nothing, so it may be repeated at any time; whoever else set one of our fields loses it.
* An apply that carries the ``resourceVersion`` that was read is refused (409) when anybody wrote in between.
  Fence and write are one step by that: read, compare the epoch, apply what was compared.  Two controllers may run,
  and a look into the mirror of the watches is as good as a call: if it is old, the write is refused.
* An apply makes what is missing; a resourceVersion does not stop that (:data:`k8s.api.NO_OBJECT_HAS_THIS_VERSION`).
* Replicas are in every apply of the Deployment: a field left out is given up, and falls back to one.

Order: the Campaign tells the decision first, which arms the guard inside the API server; a way out is opened before
there are pods, and emptied after the last has ended; the Campaign's status says so last.
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence

import msgspec
import structlog

from k8s import api, labels, objects, patches
from k8s.answers import Conflict, Forbidden, NotServed, Outdated, Undeclared
from k8s.api import Api, Body, Kind
from k8s.cluster import (
    ClusterError,
    Permanent,
    SenderSpec,
    SenderStatus,
    Stale,
    Temporary,
    Unfit,
    check_fence,
    check_may_ensure,
)
from k8s.metrics import Metrics
from k8s.objects import Parts, Thing
from k8s.patches import Site
from k8s.reading import KINDS, Reading, all_of
from k8s.resource import Refused, campaign_body, record_of
from k8s.showing import (
    claimed_status,
    event_body,
    is_shown,
    refusal_body,
    refused_status,
    says_claimed,
    says_refused,
    shown,
)
from policy.naming import sender_name
from schemas.reputation import Control
from schemas.sending import Campaign

log = structlog.get_logger()

CONFLICTS = 6
CONFLICT_PAUSE_S = 0.02

_OLDER = "campaigns are defined by an older version here: apply k8s/manifests/base, then restart the controller"


def wall_clock() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class KubernetesCluster:
    """The senders of an installation, in one namespace, by one API client.

    ``now`` in milliseconds; ``chance`` (0 to 1) spreads what would happen at the same time.
    """

    def __init__(
        self,
        api: Api,
        site: Site,
        *,
        now: Callable[[], int] = wall_clock,
        chance: Callable[[], float] = random.random,
        metrics: Metrics | None = None,
    ) -> None:
        self.site, self._now = site, now
        self._api, counts = api, metrics or Metrics()
        api.counted = counts.count_call
        self._reading = Reading(api, chance=chance, restarted=counts.count_watch_restart)
        self._left: dict[tuple[Kind, str], str] = {}  # kind and name -> the mark with which we left the object
        self._said: dict[str, tuple[object, ...]] = {}  # of what the Campaign says all that there is to say
        self._is_ahead = False  # of the definition of Campaigns in this cluster
        self._prints: dict[str, tuple[SenderSpec, tuple[Kind, ...], str]] = {}

    @classmethod
    async def connect(
        cls, site: Site, *, kubeconfig: str | None = None, metrics: Metrics | None = None
    ) -> "KubernetesCluster":
        """With the pod's own identity, or with the one of a kubeconfig file."""
        return cls(await api.connect(site.namespace, kubeconfig=kubeconfig), site, metrics=metrics)

    def fingerprint(self, spec: SenderSpec) -> str:
        """What a sender of this spec is made from here; the Campaign, which only shows it, is no part of that."""
        without = tuple(kind for kind in KINDS if not self._reading.watches.serves(kind))
        known = self._prints.get(spec.campaign)
        if known is None or known[:2] != (spec, without):
            shape = patches.fingerprint(spec, self.site, without=without)
            known = self._prints[spec.campaign] = (spec, without, shape)
        return known[2]

    async def read(self, spec: SenderSpec) -> SenderStatus | None:
        """What is there of this sender."""
        return self._status(spec, await self._reading.parts(spec))

    async def list(self) -> Sequence[SenderStatus]:
        """Every sender in the namespace: as the watches tell, and by a list of each kind that none tells of."""
        statuses = []
        for campaign in await self._reading.campaigns():
            spec = SenderSpec(campaign=campaign, name=sender_name(campaign))
            if (status := self._status(spec, self._reading.known(spec))) is not None:
                statuses.append(status)
        return statuses

    async def ensure(self, spec: SenderSpec, control: Control) -> None:
        """Let an open sender exist in this shape."""
        parts = await self._fenced(spec, control)
        check_may_ensure(self._status(spec, parts), control)
        await self._open(spec, control, parts)

    async def release(self, spec: SenderSpec, control: Control) -> None:
        """Open a sender that was closed."""
        await self._open(spec, control, await self._fenced(spec, control))

    async def isolate(self, spec: SenderSpec, control: Control, *, cut: bool = False) -> None:
        """Replicas to 0; the way out emptied once the last pod has ended, or before all else with ``cut``.

        What goes wrong with the Campaign is raised when the sender is closed: it must not keep it open.
        """
        parts = await self._fenced(spec, control)
        bodies = self._bodies(spec, control, replicas=0, is_open=False)
        untold: ClusterError | None = None
        try:
            await self._declare(spec, control, parts)
        except (Temporary, Permanent) as wrong:
            untold = wrong
        if cut:
            await self._apply("NetworkPolicy", bodies["NetworkPolicy"], control, parts)
        await self._apply("Deployment", bodies["Deployment"], control, parts)
        if not cut and await self._has_ended(spec):
            await self._apply("NetworkPolicy", bodies["NetworkPolicy"], control, await self._reading.parts(spec))
        if untold is not None:
            raise untold

    async def retire(self, spec: SenderSpec, control: Control, *, cut: bool = False) -> None:
        """As isolation: what stays keeps the fence, costs nothing and needs no right to delete."""
        await self.isolate(spec, control, cut=cut)

    def shows(self, spec: SenderSpec, control: Control, *, paused: bool, unfit: Unfit | None = None) -> bool:
        """Does the Campaign say what its record, the decision and the sender are?"""
        if self._latecomers(spec):
            return False
        parts = self._reading.known(spec)
        asked = (spec.record, control, paused, unfit, *parts.by_kind.values(), *parts.pods)
        said = self._said.get(spec.campaign, ())
        if len(asked) == len(said) and all(now is then for now, then in zip(asked, said, strict=True)):
            return True  # the very things of the last look: a thousand looks at what has not changed must cost nothing
        if self._says_all(spec, control, parts, paused=paused, unfit=unfit):
            self._said[spec.campaign] = asked
            return True
        return False

    async def show(self, spec: SenderSpec, control: Control, *, paused: bool, unfit: Unfit | None = None) -> None:
        """Let the Campaign say it: record and decision, an Event for each decision, then the status."""
        for late in self._latecomers(spec):
            await self._refuse(late, self._duplicate(spec))
        parts = self._reading.known(spec)
        if self.shows(spec, control, paused=paused, unfit=unfit):
            return
        await self._declare(spec, control, parts)
        for attempt in range(CONFLICTS):
            parts = self._reading.known(spec)
            live = parts.by_kind.get("Campaign")
            if live is None or live.fence > control.epoch:
                return
            body = self._shown(spec, control, parts, live, paused=paused, unfit=unfit)
            try:
                if live.status.announced_epoch < control.epoch:
                    await self._note(event_body(control, live, namespace=self.site.namespace, now=self._now()))
                if not is_shown(body, live):
                    self._reading.wrote("Campaign", await self._api.apply("Campaign", body, over=live, status=True))
            except Conflict:
                await asyncio.sleep(CONFLICT_PAUSE_S * attempt)
                await self._reading.look("Campaign", live.metadata.name)
            else:
                return
        raise Temporary(f"status of campaign {spec.campaign}: others wrote to it {CONFLICTS} times while we tried")

    def definition(self, spec: SenderSpec) -> Campaign | Unfit | None:
        """What a person's resource says; one that comes after another about the same campaign is unfit."""
        live, made = self._reading.resource(spec), self._reading.made(spec)
        if made is None:
            return None
        if made is not live and (live is not None or spec.record is not None):
            return self._duplicate(spec)
        match record_of(msgspec.json.decode(made.raw)):
            case Refused(where, explain):
                return Unfit(f"{where}: {explain}")
            case record:
                return record

    def defined(self) -> Sequence[str]:
        """The campaigns of all resources that people made."""
        return sorted({thing.campaign for thing in self._reading.mirror.all("Campaign").values() if thing.raw})

    async def refuse(self, spec: SenderSpec, unfit: Unfit) -> None:
        """An Event about the resource, one for each edit of it; and its status, unless that is about a sender."""
        made = self._reading.made(spec)
        if made is not None:
            await self._refuse(made, unfit)

    async def claim(self, spec: SenderSpec) -> None:
        """Its name for the sender into the resource's status: what counts from now on is told by what is stored."""
        made = self._reading.made(spec)
        if made is not None and not made.spec.decision and not says_claimed(made):
            now = self._now()
            await self._tell(made, claimed_status(spec.name, made, namespace=self.site.namespace, now=now))

    async def watch(self, changed: Callable[[str], None]) -> None:
        """Follow the objects of the namespace."""
        await self._reading.watches.run(changed)

    def notes(self) -> Sequence[str]:
        """Kinds that are not here for us, and a definition that is older than we are."""
        return [*self._reading.watches.notes(), *([_OLDER] if self._is_ahead else [])]

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()

    async def _open(self, spec: SenderSpec, control: Control, parts: Parts) -> None:
        bodies = self._bodies(spec, control, replicas=spec.replicas, is_open=True)
        await self._declare(spec, control, parts)
        beside: tuple[Kind, ...] = ("ServiceAccount", "Service", "PodDisruptionBudget")
        await all_of(*(self._apply(kind, bodies[kind], control, parts) for kind in beside if kind in parts.kinds))
        await self._apply("NetworkPolicy", bodies["NetworkPolicy"], control, parts)
        await self._apply("Deployment", bodies["Deployment"], control, parts)

    def _bodies(self, spec: SenderSpec, control: Control, *, replicas: int, is_open: bool) -> dict[Kind, Body]:
        """All objects that a sender is made from."""
        return {
            "ServiceAccount": patches.service_account(spec, self.site),
            "Service": patches.service(spec, self.site),
            "PodDisruptionBudget": patches.pod_disruption_budget(spec, self.site),
            "NetworkPolicy": patches.network_policy(spec, self.site, control, is_open=is_open),
            "Deployment": patches.deployment(spec, self.site, control, replicas=replicas),
        }

    def _campaign(self, spec: SenderSpec, control: Control) -> Body:
        """The Campaign as we own it; one that a person made keeps its definition."""
        live = self._reading.resource(spec)
        name = live.metadata.name if live is not None and live.spec.origin == "Resource" else None
        body = campaign_body(spec, self.site, control, None if self._is_ahead else spec.record, name=name)
        definition = {key: value for key, value in body["spec"].items() if key != "decision"}
        body["metadata"]["annotations"] = {labels.SHAPE: patches.combined(definition)}
        return body

    def _says_all(self, spec: SenderSpec, control: Control, parts: Parts, *, paused: bool, unfit: Unfit | None) -> bool:
        live = parts.by_kind.get("Campaign")
        if "Campaign" not in parts.kinds or parts.fence > control.epoch:
            return True
        if live is None or not self._is_as_left("Campaign", self._campaign(spec, control), parts):
            return False
        return is_shown(self._shown(spec, control, parts, live, paused=paused, unfit=unfit), live)

    async def _declare(self, spec: SenderSpec, control: Control, parts: Parts) -> None:
        """The decision into the Campaign, where there are any."""
        if "Campaign" not in parts.kinds:
            return
        try:
            await self._apply("Campaign", self._campaign(spec, control), control, parts)
        except NotServed as absent:
            self._reading.watches.lacks("Campaign", absent)
        except Undeclared as older:
            if self._is_ahead:
                raise
            self._is_ahead = True  # until we are started anew: the decision counts more than the definition
            log.warning("campaigns are shown without their definition", why=str(older), fix=_OLDER)
            await self._apply("Campaign", self._campaign(spec, control), control, parts)

    def _latecomers(self, spec: SenderSpec) -> Sequence[Thing]:
        """Resources that people made about this campaign after another, and that do not say so yet."""
        about = list(self._reading.mirror.campaigns(spec.campaign))
        if len(about) == 1:
            return ()  # the usual case costs nothing
        first = self._reading.resource(spec) or self._reading.made(spec)
        late = [thing for thing in about if thing.raw and thing is not first]
        return [thing for thing in late if not says_refused(self._duplicate(spec), thing)]

    def _duplicate(self, spec: SenderSpec) -> Unfit:
        live = self._reading.resource(spec)
        if live is not None and live.spec.origin == "Resource":
            why = f"campaign {spec.campaign} has a resource already: edit {live.metadata.name}"
            return Unfit(why, "DuplicateCampaign")
        why = f"campaign {spec.campaign} comes from the topic mail.campaigns: use `mailcordon campaign apply`"
        return Unfit(why, "OwnedByTopic")

    async def _refuse(self, made: Thing, unfit: Unfit) -> None:
        """The status first: of a resource that another controller has claimed since we looked, nothing is told."""
        where, now = self.site.namespace, self._now()
        # a sender goes on as it was registered before, and its conditions tell: ``show`` writes them
        is_of_a_sender = unfit.reason == "Invalid" and made.spec.decision
        if not (is_of_a_sender or says_refused(unfit, made)):
            await self._tell(made, refused_status(unfit, made, namespace=where, now=now))
        await self._note(refusal_body(unfit.explain, made, namespace=where, now=now))

    async def _tell(self, made: Thing, status: Body) -> None:
        """The status of a resource as it was read."""
        try:
            self._reading.wrote("Campaign", await self._api.apply("Campaign", status, over=made, status=True))
        except Conflict as busy:
            await self._reading.look("Campaign", made.metadata.name)
            raise Temporary(f"status of campaign {made.campaign}: it is being changed") from busy

    async def _note(self, event: Body) -> None:
        """Write an Event that has a name of its own: whoever comes second finds it there."""
        try:
            await self._api.create("Event", event)
        except Conflict:
            return
        except Forbidden as no_right:  # it is the least of what we do: it must hold up no status
            log.warning("event not written", why=str(no_right))

    async def _has_ended(self, spec: SenderSpec) -> bool:
        """Does nothing run any more?  Asked of the API server itself, because the way out is closed after it."""
        if (await self._reading.parts(spec, kinds=("Deployment",))).running:
            return False
        return not self._reading.watches.follows("Pod") or not await self._reading.pods(spec)

    async def _fenced(self, spec: SenderSpec, control: Control) -> Parts:
        """What is there, after the epoch was compared with every part of it: one may have been deleted."""
        parts = await self._reading.parts(spec)
        check_fence(spec.name, asked=control.epoch, fence=parts.fence)
        return parts

    async def _apply(self, kind: Kind, body: Body, control: Control, parts: Parts) -> None:
        """Apply a body over what was read; when somebody else was faster, read again and compare again.

        Two controllers, A with epoch 7 (isolate) and B with 6 (release), both have read version 10 with fence 5.
        If A writes first, B's apply carries version 10 and gets 409; B reads fence 7 and gives up.  If B writes
        first, A gets 409, reads fence 6 and writes over it.
        """
        name, live = body["metadata"]["name"], parts.by_kind.get(kind)
        if self._is_as_left(kind, body, parts):
            return
        for attempt in range(CONFLICTS):
            if live is not None:
                check_fence(f"{kind} {name}", asked=control.epoch, fence=live.fence)
            try:
                applied = await self._api.apply(kind, body, over=live)
            except Outdated as refused:
                fence = max(control.epoch, live.fence if live else 0)
                raise Stale(name, asked=control.epoch, fence=fence, why=str(refused)) from refused
            except Conflict:
                await asyncio.sleep(CONFLICT_PAUSE_S * attempt)
                live = await self._reading.look(kind, name)
            else:
                self._left[kind, name] = applied.metadata.mark
                self._reading.wrote(kind, applied)
                return
        raise Temporary(f"{kind} {name}: others wrote to it {CONFLICTS} times while we tried")

    def _is_left(self, kind: Kind, parts: Parts) -> bool:
        """Is a part as we, or the controller before us, left it?"""
        thing = parts.by_kind.get(kind)
        if thing is None:
            return False
        campaign = parts.by_kind.get("Campaign")
        noted = campaign.status.parts.get(kind) if campaign is not None else None
        return thing.metadata.mark in {self._left.get((kind, thing.metadata.name)), noted}

    def _is_as_left(self, kind: Kind, body: Body, parts: Parts) -> bool:
        """Would applying this body change nothing?"""
        live = parts.by_kind.get(kind)
        return live is not None and self._is_left(kind, parts) and objects.says(body, live)

    def _shown(
        self, spec: SenderSpec, control: Control, parts: Parts, live: Thing, *, paused: bool, unfit: Unfit | None
    ) -> Body:
        left: dict[str, str] = {}
        for kind in self._reading.kinds():
            if self._is_left(kind, parts):
                left[kind] = parts.by_kind[kind].metadata.mark
        status = self._status(spec, parts)
        return shown(spec, self.site, control, status, live, left=left, now=self._now(), paused=paused, unfit=unfit)

    def _status(self, spec: SenderSpec, parts: Parts) -> SenderStatus | None:
        untouched: dict[str, bool] = {kind: self._is_left(kind, parts) for kind in KINDS}
        return objects.status_of(spec.campaign, spec.name, parts, untouched=untouched)
