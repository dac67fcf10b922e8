"""Campaigns, controls and specs as the tests of this folder need them."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from k8s.cluster import SenderSpec
from k8s.plan import desired
from schemas.reputation import Control, State
from schemas.sending import Campaign, Mailbox, Pace

NOW = 1_764_000_000_000


@dataclass
class Decided:
    """The truth as a test writes it."""

    campaigns: dict[str, Campaign] = field(default_factory=dict)
    controls: dict[str, Control] = field(default_factory=dict)

    def say(self, told: Control) -> None:
        self.campaigns[told.campaign] = campaign(told.campaign)
        self.controls[told.campaign] = told


def campaign(name: str = "spring-sale", *, tenant: str = "shop", labels: dict[str, str] | None = None) -> Campaign:
    return Campaign(
        campaign=name,
        from_=Mailbox(address="news@shop.example"),
        return_path_domain="bounces.shop.example",
        tenant=tenant,
        labels=labels or {},
    )


def control(
    state: State = "healthy", *, name: str = "spring-sale", epoch: int = 1, reason: str = "", at: int = NOW
) -> Control:
    return Control(
        campaign=name,
        epoch=epoch,
        may_send=state in {"healthy", "watched", "throttled"},
        pace=Pace(),
        state=state,
        reason=reason or f"{state} by epoch {epoch}",
        at=at,
    )


def spec(name: str = "spring-sale", *, replicas: int = 1, grace_s: int = 20) -> SenderSpec:
    return desired(name, campaign(name), None, replicas=replicas, grace_s=grace_s).spec


async def until(told: Callable[[], Awaitable[bool]], *, within_s: float = 20.0, what: str = "it") -> None:
    """Wait for a condition; say what was missing."""
    deadline = time.monotonic() + within_s
    while not await told():
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        await asyncio.sleep(0.01)
