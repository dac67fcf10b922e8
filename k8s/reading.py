"""What is there of senders: from the mirror where a watch tells, and by asking where none does."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from k8s import objects, patches
from k8s.answers import Forbidden, NotServed
from k8s.api import Api, Kind
from k8s.cluster import SenderSpec, Stale
from k8s.mirror import Mirror
from k8s.objects import Parts, Thing
from k8s.watching import Watches
from policy.naming import campaign_name, sender_name

KINDS: tuple[Kind, ...] = (
    "Campaign",
    "Deployment",
    "NetworkPolicy",
    "Service",
    "ServiceAccount",
    "PodDisruptionBudget",
)


class Reading:
    """The parts of senders in one namespace."""

    def __init__(self, api: Api, *, chance: Callable[[], float], restarted: Callable[[str], None]) -> None:
        self._api, self.mirror = api, Mirror()
        self.watches = Watches(api, self.mirror, (*KINDS, "Pod"), chance=chance, restarted=restarted)
        self._pods_seen: dict[str, tuple[Thing, ...]] = {}  # by campaign, where no watch tells

    async def campaigns(self) -> list[str]:
        """The campaigns of which there is anything, after a list of each kind that no watch tells of."""
        await self.watches.first_look()
        await all_of(*(self._list(kind) for kind in (*KINDS, "Pod") if not self.watches.is_current(kind)))
        named = {
            thing.campaign
            for kind in self.kinds()
            for name, thing in self.mirror.all(kind).items()
            if name == sender_name(thing.campaign) or (kind == "Campaign" and thing.spec.origin == "Resource")
        }
        if not self.watches.follows("Pod"):
            self._pods_seen = {one: self._mirrored_pods(one) for one in named}
        return sorted(named - {""})

    def resource(self, spec: SenderSpec) -> Thing | None:
        """The resource that is about this campaign: the oldest, so that nobody takes a campaign over with another.

        One that a person made counts from when it was claimed: until then the campaign may be somebody else's, who has
        registered it in the topic and of whose campaign nothing is shown here yet.
        """
        found = [
            thing
            for thing in self.mirror.campaigns(spec.campaign)
            if thing.metadata.name == spec.name or (thing.spec.origin == "Resource" and thing.is_claimed)
        ]
        return min(found, key=_age, default=None)

    def made(self, spec: SenderSpec) -> Thing | None:
        """The resource about this campaign that a person made: the one that counts, else the first that might."""
        live = self.resource(spec)
        if live is not None and live.raw:
            return live
        return min((thing for thing in self.mirror.campaigns(spec.campaign) if thing.raw), key=_age, default=None)

    def kinds(self) -> tuple[Kind, ...]:
        """The kinds that a whole sender has here."""
        return tuple(kind for kind in KINDS if self.watches.serves(kind))

    def known(self, spec: SenderSpec) -> Parts:
        """What is there, as far as it was told or asked."""
        kinds = self.kinds()
        found = {
            kind: self.resource(spec) if kind == "Campaign" else self.mirror.get(kind, spec.name) for kind in kinds
        }
        is_told = self.watches.follows("Pod")
        pods = self._mirrored_pods(spec.campaign) if is_told else self._pods_seen.get(spec.campaign, ())
        return Parts(by_kind={kind: one for kind, one in found.items() if one is not None}, pods=pods, kinds=kinds)

    async def parts(self, spec: SenderSpec, *, kinds: Sequence[Kind] = KINDS) -> Parts:
        """What is there, asked where no watch tells."""
        asked = [kind for kind in kinds if self.watches.serves(kind) and not self.watches.follows(kind)]
        calls: list[Awaitable[Any]] = [self.look(kind, spec.name) for kind in asked]  # Any: calls of different kinds
        if not self.watches.follows("Pod"):
            *_, self._pods_seen[spec.campaign] = await all_of(*calls, self.pods(spec))
        else:
            await all_of(*calls)
        return self.known(spec)

    async def pods(self, spec: SenderSpec) -> tuple[Thing, ...]:
        """The pods that have not ended, asked of the API server."""
        query = ",".join(f"{key}={value}" for key, value in patches.selector(spec).items())
        return tuple(pod for pod in (await self._api.list("Pod", query)).things if not objects.has_ended(pod))

    async def look(self, kind: Kind, name: str) -> Thing | None:
        """Ask for one object, past the mirror."""
        try:
            found = await self._api.get(kind, name)
        except Forbidden as no_right:
            self.watches.lacks(kind, no_right)
            return None
        if found is not None and self.watches.follows(kind):
            self.mirror.wrote(kind, found)
        else:
            self.mirror.looked(kind, name, found)
        return found

    def _mirrored_pods(self, campaign: str) -> tuple[Thing, ...]:
        return tuple(pod for pod in self.mirror.pods(campaign_name(campaign)) if not objects.has_ended(pod))

    async def _list(self, kind: Kind) -> None:
        try:
            await self.watches.look(kind)
        except (Forbidden, NotServed) as absent:
            self.watches.lacks(kind, absent)

    def wrote(self, kind: Kind, thing: Thing) -> None:
        """The answer to a write of ours."""
        self.watches.nudge()
        if self.watches.follows(kind):
            self.mirror.wrote(kind, thing)
        else:
            self.mirror.looked(kind, thing.metadata.name, thing)


async def all_of(*calls: Awaitable[Any]) -> Sequence[Any]:  # Any: calls of different kinds
    """Answers of calls made at once; if one fails its error is raised, after all have ended."""
    answers = await asyncio.gather(*calls, return_exceptions=True)
    errors = [answer for answer in answers if isinstance(answer, BaseException)]
    if errors:
        raise next((error for error in errors if isinstance(error, Stale)), errors[0])
    return answers


def _age(thing: Thing) -> tuple[str, bool, str]:
    """What is older, by the second; within one, what has a decision already: it must not be taken over."""
    return thing.metadata.creation_timestamp or "", not thing.spec.decision, thing.metadata.name
