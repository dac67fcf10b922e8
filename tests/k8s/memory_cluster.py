"""A cluster in memory that remembers what was asked of it, for the reconciler's tests; it passes the contract."""

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from k8s.cluster import SenderSpec, SenderStatus, Unfit, check_fence, check_may_ensure, kept_reason
from schemas.reputation import Control
from schemas.sending import Campaign


@dataclass
class World:
    """What outlives a controller."""

    senders: dict[str, SenderStatus] = field(default_factory=dict)
    shown: dict[str, tuple[str, int, bool, int]] = field(default_factory=dict)
    said: list[tuple[str, int]] = field(default_factory=list)
    defined: dict[str, Campaign | Unfit] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    claimed: list[str] = field(default_factory=list)
    unfit: dict[str, Unfit | None] = field(default_factory=dict)
    hold_drain: bool = False


class MemoryCluster:
    """``trouble`` is asked before every call and may raise.

    ``acts`` remembers what was done, in order; ``overlaps`` counts two at the same sender at once.
    """

    def __init__(self, world: World | None = None) -> None:
        self.world = world or World()
        self.acts: list[tuple[str, str, int]] = []
        self.reads = 0
        self.trouble: Callable[[str, str], None] = lambda *_: None
        self.now_acting: set[str] = set()
        self.overlaps = 0
        self.changed: Callable[[str], None] = lambda _: None

    def fingerprint(self, spec: SenderSpec) -> str:
        return f"shape of {spec.name} x{spec.replicas} {spec.labels}"

    async def read(self, spec: SenderSpec) -> SenderStatus | None:
        self.trouble("read", spec.campaign)
        self.reads += 1
        await asyncio.sleep(0)
        there = self.world.senders.get(spec.name)
        if there is not None and there.wanted < there.running and not self.world.hold_drain:
            there = self.world.senders[spec.name] = dataclasses.replace(there, running=there.wanted)
        return there

    async def list(self) -> Sequence[SenderStatus]:
        self.trouble("list", "")
        return list(self.world.senders.values())

    async def ensure(self, spec: SenderSpec, control: Control) -> None:
        check_may_ensure(self.world.senders.get(spec.name), control)
        await self._act("ensure", spec, control, replicas=spec.replicas)

    async def release(self, spec: SenderSpec, control: Control) -> None:
        await self._act("release", spec, control, replicas=spec.replicas)

    async def isolate(self, spec: SenderSpec, control: Control, *, cut: bool = False) -> None:
        await self._act("cut" if cut else "isolate", spec, control, replicas=0, cut=cut)

    async def retire(self, spec: SenderSpec, control: Control, *, cut: bool = False) -> None:
        await self._act("retire", spec, control, replicas=0, cut=cut)

    def shows(self, spec: SenderSpec, control: Control, *, paused: bool, unfit: Unfit | None = None) -> bool:
        says = self.world.shown.get(spec.campaign) == self._shown(spec, control, paused=paused)
        return says and self.world.unfit.get(spec.campaign) == unfit

    async def show(self, spec: SenderSpec, control: Control, *, paused: bool, unfit: Unfit | None = None) -> None:
        if self.shows(spec, control, paused=paused, unfit=unfit):
            return
        self.trouble("show", spec.campaign)
        before = self.world.shown.get(spec.campaign)
        if before is None or before[1] < control.epoch:
            self.world.said.append((spec.campaign, control.epoch))
        self.world.shown[spec.campaign] = self._shown(spec, control, paused=paused)
        self.world.unfit[spec.campaign] = unfit

    def _shown(self, spec: SenderSpec, control: Control, *, paused: bool) -> tuple[str, int, bool, int]:
        there = self.world.senders.get(spec.name)
        return control.state, control.epoch, paused, 0 if there is None else there.running

    def definition(self, spec: SenderSpec) -> Campaign | Unfit | None:
        return self.world.defined.get(spec.campaign)

    def defined(self) -> Sequence[str]:
        return list(self.world.defined)

    async def refuse(self, spec: SenderSpec, unfit: Unfit) -> None:
        self.world.refused.append(unfit.explain)

    async def claim(self, spec: SenderSpec) -> None:
        self.trouble("claim", spec.campaign)
        self.world.claimed.append(spec.campaign)

    async def watch(self, changed: Callable[[str], None]) -> None:
        self.changed = changed
        await asyncio.Event().wait()

    def notes(self) -> Sequence[str]:
        return ()

    async def close(self) -> None:
        pass

    async def _act(self, act: str, spec: SenderSpec, control: Control, *, replicas: int, cut: bool = False) -> None:
        self.trouble(act, spec.campaign)
        self.overlaps += spec.name in self.now_acting
        self.now_acting.add(spec.name)
        try:
            await asyncio.sleep(0)
            before = self.world.senders.get(spec.name)
            check_fence(spec.name, asked=control.epoch, fence=before.epoch if before else 0)
            running = max(replicas, 0 if before is None or cut else before.running)
            self.world.senders[spec.name] = SenderStatus(
                campaign=spec.campaign,
                name=spec.name,
                exists=True,
                wanted=replicas,
                running=running,
                egress_open=replicas > 0 or (running > 0 and not cut),
                epoch=control.epoch,
                state=control.state,
                reason=kept_reason(control),
                shape=self.fingerprint(spec),
            )
            self.acts.append((act, spec.campaign, control.epoch))
        finally:
            self.now_acting.discard(spec.name)
