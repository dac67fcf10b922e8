"""A campaign that was made as a resource is made known as `campaign apply` does it, in that order."""

from typing import Any

import msgspec
import pytest

from agents import registering
from agents.registering import Registrar
from policy.registering import Flaw
from policy.settings import Settings
from schemas.sending import Campaign, Mailbox

MADE = Campaign(campaign="c", from_=Mailbox(address="news@shop.example"), return_path_domain="b.shop.example")


class Steps:
    """Remembers what was done, in order."""

    def __init__(self) -> None:
        self.done: list[tuple[str, str]] = []

    async def create(self, _bootstrap: str, campaigns: list[str], _settings: Settings) -> None:
        self.done += [("topics", one) for one in campaigns]

    async def publish(self, topic: str, _record: Any, *, key: str) -> None:
        self.done.append((topic, key))

    async def settled(self) -> None:
        self.done.append(("settled", ""))


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    one = Steps()
    monkeypatch.setattr(registering, "create_for_campaigns", one.create)
    return one


async def test_topics_are_there_before_the_record_and_the_record_before_the_judge_is_asked(steps: Steps) -> None:
    await Registrar("broker", Settings(), steps).register(MADE)  # type: ignore[arg-type]

    assert steps.done == [("topics", "c"), ("mail.campaigns", "c"), ("settled", ""), ("mail.commands", "campaign:c")]


async def test_a_flaw_is_told_before_anything_is_done(steps: Steps) -> None:
    odd = msgspec.structs.replace(MADE, return_path_domain="no domain")
    flaw = Registrar("broker", Settings(), steps).flaw(odd)  # type: ignore[arg-type]

    assert flaw == Flaw("return_path_domain", "'no domain' is no domain name")
    assert steps.done == []
