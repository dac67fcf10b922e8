"""Doubles that remember: what agents publish, what they know, and a table in memory."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from policy.templates import BadContent, Template, compile_content
from policy.traps import TrapFact
from schemas.base import Record
from schemas.codec import decode, encode
from schemas.reputation import Brake, Control, RatesSnapshot
from schemas.sending import Campaign, Content, Mailbox
from streams.admin import TopicRefused


@dataclass
class Sent:
    topic: str
    record: Any
    key: str | None
    partition: int | None
    headers: Sequence[tuple[str, bytes]]


@dataclass
class Outbox:
    """Takes what is published, after a trip through the codec: what cannot be encoded fails here as it would there."""

    sent: list[Sent] = field(default_factory=list)
    settled_after: list[int] = field(default_factory=list)
    forwarded: list[tuple[str, bytes, str, Sequence[tuple[str, bytes]]]] = field(default_factory=list)

    async def publish(
        self,
        topic: str,
        record: Record,
        *,
        key: str | None = None,
        partition: int | None = None,
        headers: Sequence[tuple[str, bytes]] | None = None,
    ) -> None:
        read = decode(type(record), encode(record), max_bytes=8_388_608)
        assert read == record
        self.sent.append(Sent(topic, record, key, partition, headers or ()))

    async def settled(self) -> None:
        self.settled_after.append(len(self.forwarded))

    async def forward(
        self, topic: str, value: bytes, *, key: str, headers: Sequence[tuple[str, bytes]] | None = None
    ) -> None:
        self.forwarded.append((topic, value, key, headers or ()))

    def to(self, topic: str) -> list[Any]:
        return [one.record for one in self.sent if one.topic == topic]


@dataclass
class Knowledge:
    """A catalogue whose news arrive when somebody waits for them."""

    campaigns: dict[str, Campaign] = field(default_factory=dict)
    templates: dict[tuple[str, str], Template | BadContent] = field(default_factory=dict)
    controls: dict[str, Control] = field(default_factory=dict)
    rates: dict[str, RatesSnapshot] = field(default_factory=dict)
    brakes: dict[str, Brake] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    traps: dict[str, TrapFact] = field(default_factory=dict)
    arriving: list[Campaign | Content] = field(default_factory=list)
    waits: int = 0
    asked_as_of: int | None = None

    def suppressed_in(self, campaign: str, *, as_of: int | None = None) -> Callable[[str], str | None]:
        self.asked_as_of = as_of
        return self.reasons.get

    def trap(self, hashed: str) -> TrapFact | None:
        return self.traps.get(hashed)

    async def caught_up(self, timeout_s: float) -> bool:
        self.waits += 1
        for one in self.arriving:
            self.learn(one)
        self.arriving = []
        return True

    def learn(self, one: Campaign | Content) -> None:
        match one:
            case Campaign():
                self.campaigns[one.campaign] = one
            case Content():
                self.templates[one.campaign, one.content] = compile_content(one)


class Panes:
    """The windowed table, with the rule of the real one: offsets never go back."""

    def __init__(self, oldest_s: float = 0.0) -> None:
        self.held: dict[tuple[str, float], Any] = {}
        self.writes = 0
        self._oldest_s = oldest_s

    def at(self, key: Any, at_seconds: float) -> Any:
        return self.held.get((key, at_seconds // 60 * 60))

    def put(self, key: Any, at_seconds: float, value: Any) -> None:
        before = self.at(key, at_seconds)
        assert before is None or all(new >= old for new, old in zip(value[0], before[0], strict=True))
        self.held[key, at_seconds // 60 * 60] = value
        self.writes += 1

    def keeps(self, at_seconds: float) -> bool:
        return at_seconds >= self._oldest_s

    def owned(self, *, since: float | None = None) -> Iterator[tuple[Any, Any]]:
        for (key, start), value in self.held.items():
            yield (key, (start, start + 59.9)), value


@dataclass
class Topics:
    """Outbound topics with four partitions each, or a broker that refuses to make them."""

    refuses: bool = False

    async def partitions(self, campaign: str) -> int:
        if self.refuses:
            raise TopicRefused("the broker did not create topic x: not authorized")
        return 4


@dataclass
class Arrived:
    """A consumed record."""

    value: bytes | None
    topic: str = "mail.send.requests"
    partition: int = 0
    offset: int = 0
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = ()
    timestamp: float | None = None  # seconds


def campaign(name: str = "spring", tenant: str = "shop", **fields: Any) -> Campaign:
    return Campaign(
        campaign=name,
        tenant=tenant,
        from_=Mailbox(address="news@shop.example", name="The Shop"),
        return_path_domain="bounces.shop.example",
        **fields,
    )


def content(name: str = "spring", text: str = "Dear {{name}}") -> Content:
    return Content(campaign=name, content="hello", subject="Hello {{name}}", text=text)
