"""What operators say on the command line, to a real worker on a real broker."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result

from agents.ports import now_ms
from cli.main import main
from schemas.delivery import DeliveryFrame, DeliveryResult
from schemas.reputation import Control
from schemas.sending import Limits
from schemas.topics import CONTROL, RESULTS
from tests.agents.doubles import campaign
from tests.agents.plant import WITHIN_S, Plant, Worker

pytestmark = pytest.mark.kafka


class Desk:
    """An operator at the command line."""

    def __init__(self, plant: Plant, name: str) -> None:
        self.plant = plant
        self.name = name

    def __call__(self, *arguments: str) -> Result:
        return CliRunner().invoke(main, [*arguments, "--kafka", self.plant.bootstrap])

    def lines(self, *arguments: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self(*arguments, "--json").stdout.splitlines() if line.startswith("{")]

    def until(self, *arguments: str, when: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """Ask again until there are lines that say so."""
        deadline = time.monotonic() + WITHIN_S
        while not (found := [one for one in self.lines(*arguments) if when(one)]):
            assert time.monotonic() < deadline, self(*arguments).output
        return found

    def status(self) -> dict[str, Any]:
        [found] = [one for one in self.lines("status") if one["campaign"] == self.name]
        return found

    def control(self, *, state: str, epoch: int = 0) -> Control:
        """The first control that says so, in an epoch after that one."""

        async def read() -> Control:
            found = await self.plant.read(
                CONTROL,
                lambda some: any(one.state == state and one.epoch > epoch for one in some),
                lambda one: one.campaign == self.name,
            )
            control: Control = next(one for one in found if one.state == state and one.epoch > epoch)
            return control

        return asyncio.run(read())

    def results(self, *, accepted: int, bounced: int) -> None:
        now = now_ms()
        results = [
            DeliveryResult(
                message_id=f"m-{number}",
                outcome="accepted" if number < accepted else "bounced",
                class_=None if number < accepted else "invalid_recipient",
                at=now,
                provider="google",
            )
            for number in range(accepted + bounced)
        ]
        frame = DeliveryFrame(campaign=self.name, sender="s", covers=[], results=results)
        asyncio.run(self.plant.publish((RESULTS, self.name, frame)))


@pytest.fixture
def desk(plant: Plant, worker: Worker, unique: str) -> Desk:
    record = campaign(unique, tenant=unique, shadow_limits=Limits(hard_bounce=0.5))
    asyncio.run(plant.register(record))
    made = Desk(plant, unique)
    made.control(state="healthy")
    return made


def test_override_release_and_why_of_a_campaign_that_the_policy_isolated(desk: Desk) -> None:
    desk.results(accepted=400, bounced=60)
    isolated = desk.control(state="isolated")
    assert (isolated.system, isolated.operator, isolated.by) == ("isolated", "enabled", "policy")

    refused = desk("override", desk.name, "--for", "3d", "--reason", "resets")
    assert refused.exit_code == 1
    assert "within 24 hours" in refused.stdout
    assert desk("override", desk.name, "--for", "soon", "--reason", "resets").exit_code == 2

    assert desk("override", desk.name, "--for", "1h", "--reason", "resets have to go out").exit_code == 0
    overridden = desk.control(state="watched", epoch=isolated.epoch)
    assert (overridden.may_send, overridden.system, overridden.operator) == (True, "isolated", "overridden")
    assert desk.status()["operator"] == "overridden"

    released = desk("release", desk.name, "--reason", "the list was cleaned")
    assert released.exit_code == 0, released.output
    warming = desk.control(state="throttled", epoch=overridden.epoch)
    assert (warming.may_send, warming.engaged_since is not None) == (True, True)
    assert "release" in desk("why", desk.name).stdout
    rules = [one["rule"] for one in desk.lines("why", desk.name, "--last", "9")]
    assert rules == ["release", "override", "hard_bounce"]


def test_a_release_at_once_needs_no_warming_up(desk: Desk) -> None:
    assert desk("isolate", desk.name, "--reason", "asked by the abuse desk").exit_code == 0
    isolated = desk.control(state="isolated")
    assert (isolated.system, isolated.operator) == ("healthy", "isolated")
    assert desk("release", desk.name, "--reason", "a false alarm", "--at-once").exit_code == 0
    assert desk.control(state="healthy", epoch=isolated.epoch).engaged_since is None


def test_with_the_brake_on_the_automation_decides_and_nothing_follows(desk: Desk) -> None:
    assert desk("brake", "status").exit_code == 0
    try:
        assert desk("brake", "on", "automation", "--reason", "the trap list is being checked").exit_code == 0
        status = desk("brake", "status")
        assert status.exit_code == 1
        assert "automation: on" in status.stdout
        desk.results(accepted=400, bounced=60)
        [dry] = desk.until("why", desk.name, when=lambda one: one["to"] == "isolated")
        assert dry["dry_run"]
        assert desk.status()["may_send"]
    finally:
        assert desk("brake", "off", "automation", "--reason", "checked").exit_code == 0
    desk.results(accepted=10, bounced=2)
    assert not desk.control(state="isolated").may_send


def test_shadow_shows_what_other_limits_would_have_done(desk: Desk) -> None:
    desk.results(accepted=400, bounced=60)
    desk.control(state="isolated")
    found = [one for one in desk.lines("shadow") if one["campaign"] == desk.name]
    assert found == [], "a trial that decided nothing differs in nothing"


def test_shadow_says_who_would_stand_elsewhere(plant: Plant, worker: Worker, unique: str) -> None:
    asyncio.run(plant.register(campaign(unique, tenant=unique, shadow_limits=Limits(hard_bounce=0.0001))))
    desk = Desk(plant, unique)
    desk.control(state="healthy")
    desk.results(accepted=495, bounced=5)
    found = desk.until("shadow", when=lambda one: one["campaign"] == unique)
    assert (found[0]["is"], found[0]["would_be"]) == ("healthy", "isolated")
    assert desk.status()["state"] == "healthy"
