"""The control agent: wakes, forgets, and sets aside what it cannot read."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from agents.control import Wake
from agents.setting_aside import Aside
from schemas.codec import encode
from schemas.reputation import Control
from schemas.sending import Pace
from schemas.topics import CONTROL, DEAD_LETTERS
from streams.metrics import Metrics
from tests.agents.doubles import Outbox

TOLD = Control(
    campaign="spring-sale",
    epoch=7,
    may_send=False,
    pace=Pace(),
    state="isolated",
    reason="trap hit",
    at=1_764_000_000_000,
)


@dataclass
class Message:
    value: bytes | None
    key: bytes | None = b"spring-sale"
    topic: str = CONTROL
    partition: int = 1
    offset: int = 42
    headers: Any = None
    timestamp: Any = None


@dataclass
class Woken:
    controls: list[Control] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)

    def heard(self, control: Control) -> None:
        self.controls.append(control)

    def forgotten(self, campaign: str) -> None:
        self.deleted.append(campaign)


@pytest.fixture
def outbox() -> Outbox:
    return Outbox()


@pytest.fixture
def woken() -> Woken:
    return Woken()


@pytest.fixture
def wake(woken: Woken, outbox: Outbox) -> Wake:
    return Wake(woken, Aside(outbox, Metrics()))


async def test_a_control_wakes_the_reconciler_with_all_that_it_says(wake: Wake, woken: Woken, outbox: Outbox) -> None:
    await wake.handle(Message(encode(TOLD)))

    assert woken.controls == [TOLD]
    assert outbox.sent == []


async def test_a_tombstone_is_told(wake: Wake, woken: Woken, outbox: Outbox) -> None:
    await wake.handle(Message(None, key="Frühling".encode()))

    assert woken.deleted == ["Frühling"]
    assert outbox.sent == []


async def test_a_tombstone_without_a_key_harms_nobody(wake: Wake, woken: Woken) -> None:
    await wake.handle(Message(None, key=None))

    assert woken.deleted == [""]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"{", "not_json"),
        (b"\xff\xfe", "not_json"),
        (b'{"v":1,"campaign":"c"}', "wrong_field"),
        (b'{"v":2,"campaign":"c"}', "unknown_version"),
        (encode(TOLD).replace(b'"isolated"', b'"asleep"'), "wrong_field"),
        (encode(TOLD).replace(b'"epoch":7', b'"epoch":0'), "wrong_field"),
    ],
)
async def test_what_cannot_be_read_is_set_aside_whole_and_wakes_nobody(
    wake: Wake, woken: Woken, outbox: Outbox, raw: bytes, reason: str
) -> None:
    await wake.handle(Message(raw))

    [letter] = outbox.to(DEAD_LETTERS)
    assert (letter.topic, letter.partition, letter.offset, letter.reason) == (CONTROL, 1, 42, reason)
    assert woken == Woken()
