"""Watches: the objects of the namespace as they are, and whose sender somebody else has changed.

One task per kind lists and then follows; it never lists twice at a time, goes on where a watch ended, which is normal
every few minutes, and lists anew only when its place is too old to go on from (410).  What we write ourselves goes
into the mirror with its answer, so the echo in the watch changes nothing and wakes nobody.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable

import structlog

from k8s import labels, objects
from k8s.answers import Expired, Forbidden, NotServed
from k8s.api import Api, Kind
from k8s.cluster import ClusterError, Permanent, Temporary
from k8s.mirror import Change, Mirror

log = structlog.get_logger()

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 10.0
NO_RIGHT_PAUSE_S = 60.0
CERTAIN = 8
"""So many refusals in a row, about half a minute, are no API server that has just started and knows no Roles yet."""
STEADY_S = 5.0
"""A watch that lasted for so long was a good one: the next pause is the first again."""

OPTIONAL: frozenset[Kind] = frozenset({"Campaign", "PodDisruptionBudget"})
SENDERS = f"{labels.MANAGED_BY}=mailcordon,{labels.COMPONENT}=sender"

_LACKS = {
    "Campaign": "campaigns are neither seen nor guarded here: apply k8s/manifests/base (crd, admission, rbac)",
    "PodDisruptionBudget": "senders get no disruption budgets here: apply k8s/manifests/base (rbac)",
}


def selected(kind: Kind) -> str:
    """The labels by which objects of a kind are listed; campaigns that people make have none of ours yet."""
    return "" if kind == "Campaign" else SENDERS


class Watches:
    """The watches of one namespace.  ``restarted`` is told the kind of each that has to begin with a list again."""

    def __init__(
        self,
        api: Api,
        mirror: Mirror,
        kinds: Iterable[Kind],
        *,
        chance: Callable[[], float],
        restarted: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._api, self._mirror, self._kinds = api, mirror, tuple(kinds)
        self._chance, self._restarted = chance, restarted
        self._synced = {kind: asyncio.Event() for kind in self._kinds}  # listed, and followed since
        self._tried = {kind: asyncio.Event() for kind in self._kinds}
        self._absent: set[Kind] = set()
        self._said: set[Kind] = set()
        self._listing = {kind: asyncio.Lock() for kind in self._kinds}
        self._versions: dict[Kind, str] = {}
        self._broken: dict[Kind, str] = {}
        self._begun = False
        self._nudged = asyncio.Event()

    def follows(self, kind: Kind) -> bool:
        """Does the mirror hold what there is of a kind, as of a moment ago or of when the API was last heard?"""
        return self._synced[kind].is_set()

    def is_current(self, kind: Kind) -> bool:
        """Is it as of a moment ago?"""
        return self._synced[kind].is_set() and kind not in self._broken

    def serves(self, kind: Kind) -> bool:
        """Is this kind here at all, as far as is known?"""
        return kind not in self._absent

    def lacks(self, kind: Kind, why: ClusterError) -> None:
        """A look said that a kind is not here for us; it is said once."""
        if kind not in OPTIONAL:
            raise why
        self._absent.add(kind)
        if kind not in self._said:
            self._said.add(kind)
            log.warning("going on without a kind of objects", kind=kind, fix=_LACKS[kind], why=str(why))

    def nudge(self) -> None:
        """The API server has answered us: watches that are broken need not wait any longer."""
        if self._broken:
            nudged, self._nudged = self._nudged, asyncio.Event()
            nudged.set()

    def notes(self) -> list[str]:
        """What is missing here, and the fix."""
        return [_LACKS[kind] for kind in sorted(self._absent)]

    async def first_look(self) -> None:
        """Wait until each kind was listed, or could not be; at once when nobody watches."""
        if self._begun:
            await asyncio.gather(*(tried.wait() for tried in self._tried.values()))

    async def look(self, kind: Kind) -> list[Change]:
        """List a kind into the mirror; what was different there.  One list of a kind at a time."""
        async with self._listing[kind]:
            self._mirror.lists(kind)
            listed = await self._api.list(kind, selected(kind))
            changes = self._mirror.listed(kind, listed.things, listed.version)
            self._versions[kind] = listed.version
            self._absent.discard(kind)
            return changes

    async def run(self, changed: Callable[[str], None]) -> None:
        """Follow until cancelled; ``changed`` is told the campaign of each change that is not our own."""
        self._begun = True
        try:
            async with asyncio.TaskGroup() as tasks:
                for kind in self._kinds:
                    tasks.create_task(self._keep(kind, changed), name=f"watch {kind}")
        finally:
            self._begun = False
            for synced in self._synced.values():
                synced.clear()

    async def _keep(self, kind: Kind, changed: Callable[[str], None]) -> None:
        version, failures = "", 0
        while True:
            begun = time.monotonic()
            try:
                if not version:
                    version = await self._list(kind, changed)
                version = await self._follow(kind, version, changed)
                self._broken.pop(kind, None)
                failures = 0 if time.monotonic() - begun >= STEADY_S else failures + 1
                pause_s = self._pause_s(failures) if failures else 0.0  # one that ends at once is not asked in a loop
            except Expired as too_old:
                version = ""
                self._restarted(kind)
                log.info("watch begins anew with a list", kind=kind, why=str(too_old))
                failures = 0 if time.monotonic() - begun >= STEADY_S else failures + 1
                pause_s = self._pause_s(failures) if failures else 0.0
            except (Forbidden, NotServed) as absent:
                failures = 1 if time.monotonic() - begun >= STEADY_S else failures + 1
                pause_s = self._pause_s(failures, longest_s=NO_RIGHT_PAUSE_S)
                if failures >= CERTAIN or not self.follows(kind):
                    version = ""
                    self._without(kind, absent)
                else:
                    self._broken[kind] = str(absent)
            except (Temporary, Permanent) as broken:
                failures = 1 if time.monotonic() - begun >= STEADY_S else failures + 1
                pause_s = self._pause_s(failures)
                if isinstance(broken, Temporary) and broken.retry_after_s:
                    pause_s = max(pause_s, broken.retry_after_s)
                self._broken[kind] = str(broken)
                if failures == 3:  # in a row; one is an API server that is being replaced
                    log.warning("watch broken, will try again", kind=kind, why=str(broken))
            self._tried[kind].set()
            await self._rest(kind, pause_s * (1 + self._chance()))

    async def _rest(self, kind: Kind, pause_s: float) -> None:
        """Wait before the next try; a broken watch no longer than until something of ours was answered."""
        if kind not in self._broken:
            await asyncio.sleep(pause_s)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._nudged.wait()

    def _pause_s(self, failures: int, *, longest_s: float = LONGEST_PAUSE_S) -> float:
        return min(longest_s, FIRST_PAUSE_S * 2.0 ** min(failures - 1, 20))

    def _without(self, kind: Kind, why: Forbidden | NotServed) -> None:
        """No right to list or watch it, or no such kind: an older installation, looked after by asking."""
        self._synced[kind].clear()
        if kind in OPTIONAL:
            self.lacks(kind, why)
        elif kind not in self._said:
            self._said.add(kind)
            log.warning(
                "a kind of objects is not watched, changes by others wait for a resync", kind=kind, why=str(why)
            )

    async def _list(self, kind: Kind, changed: Callable[[str], None]) -> str:
        first = not self._tried[kind].is_set()
        changes = await self.look(kind)
        self._broken.pop(kind, None)
        self._synced[kind].set()
        self._tried[kind].set()
        if not first:  # whoever runs us compares everything once at the start
            _tell(changes, changed)
        return self._versions[kind]

    async def _follow(self, kind: Kind, version: str, changed: Callable[[str], None]) -> str:
        """Follow until the API server ends it; the version to go on from."""
        async for told in self._api.watch(kind, selected(kind), version):
            self._broken.pop(kind, None)
            version = told.thing.metadata.resource_version or version
            if told.type == "BOOKMARK":
                self._mirror.heard(kind, version)
            elif (change := self._mirror.told(kind, told.thing, is_gone=told.type == "DELETED")) is not None:
                _tell([change], changed)
        return version


def _tell(changes: Iterable[Change], changed: Callable[[str], None]) -> None:
    for campaign in {objects.campaign_of(thing for thing in change if thing) for change in changes}:
        if campaign:
            changed(campaign)
