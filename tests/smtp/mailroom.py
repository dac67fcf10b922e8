"""A return path for tests: keys, two campaigns, and a Kafka that remembers, or is down."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from policy.providers import Providers
from policy.settings import Endpoint
from policy.tokens import Keys, address_hash, return_path
from schemas.dead_letters import DeadLetter
from schemas.feedback import Feedback
from schemas.sending import Campaign, Mailbox
from smtp.findings import Finding
from smtp.known import Known
from smtp.return_path import ReturnPath
from smtp.returned import Context, Returned
from smtp.understand import understand

KEYS = Keys(address=b"a" * 32, return_path=b"r" * 32)
OTHER_KEYS = Keys(address=b"a" * 32, return_path=b"x" * 32)
DOMAIN = "bounces.shop.example"
TRAP = "rosa@traps.example"
NOW = 1_764_000_000_000
SENT_AT = NOW - 3_600_000
DAY_MS = 86_400_000


def campaign(name: str, domain: str = DOMAIN) -> Campaign:
    return Campaign(
        campaign=name, from_=Mailbox(address="news@shop.example"), return_path_domain=domain, sending_domains=[]
    )


CAMPAIGNS = {name: campaign(name) for name in ("spring-sale", "bought-list")}


def signed(
    message_id: str = "m-1",
    *,
    name: str = "spring-sale",
    sent_at: int = SENT_AT,
    keys: Keys = KEYS,
    to: str = TRAP,
) -> str:
    """The return path of a message to ``to``."""
    hashed = address_hash(keys, to)
    return return_path(keys, campaign=name, message_id=message_id, address_hash=hashed, sent_at=sent_at, domain=DOMAIN)


def known(campaigns: dict[str, Campaign] | None = None) -> Known:
    return Known(
        CAMPAIGNS if campaigns is None else campaigns, own_domains=["fbl.shop.example"], trap_domains=["traps.example"]
    )


def context(campaigns: dict[str, Campaign] | None = None) -> Context:
    return Context(keys=KEYS, known=known(campaigns), provider_of=Providers({"gmail.example": "google"}).of)


def returned(raw: bytes, *, rcpt: str | None = None, mail_from: str = "", at: int = NOW) -> Returned:
    return Returned(mail_from=mail_from, rcpt=signed() if rcpt is None else rcpt, raw=raw, at=at)


@dataclass
class Kafka:
    """Remembers what was acknowledged; ``is_down`` raises, ``gate`` (when closed) never answers."""

    records: list[Feedback | DeadLetter] = field(default_factory=list)
    asked: int = 0
    is_down: bool = False
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    async def __call__(self, record: Feedback | DeadLetter, /) -> None:
        self.asked += 1
        await self.gate.wait()
        if self.is_down:
            raise ConnectionError("no broker")
        self.records.append(record)

    @property
    def feedback(self) -> list[Feedback]:
        return [one for one in self.records if isinstance(one, Feedback)]

    @property
    def letters(self) -> list[DeadLetter]:
        return [one for one in self.records if isinstance(one, DeadLetter)]


async def read_here(raw: bytes) -> list[Finding]:
    """Reads messages without a process of its own, which would take a tenth of a second to begin."""
    return understand(raw)


@asynccontextmanager
async def running(kafka: Kafka, **changes: Any) -> AsyncIterator[ReturnPath]:
    settings: dict[str, Any] = {
        "context": context(),
        "understand": read_here,
        "hostname": "mx.shop.example",
        "now": lambda: NOW,
    } | changes
    listener = ReturnPath(Endpoint("127.0.0.1", 0), publish=kafka, **settings)
    await listener.start()
    try:
        yield listener
    finally:
        await listener.stop(grace_s=2.0)


def counted(listener: ReturnPath, name: str, **labels: str) -> float:
    return listener.metrics.registry.get_sample_value(f"mailcordon_return_path_{name}", labels) or 0.0
