"""Counts and decisions on a real broker, with workers that are killed in between."""

import asyncio
import random
import time
from typing import Any

import pytest

from agents.ports import now_ms
from policy.naming import campaign_scope
from schemas.delivery import DeliveryFrame, DeliveryResult, Position
from schemas.feedback import Feedback, Suppression, Trap
from schemas.reputation import Command, Control, Counts, Decision, RatesSnapshot
from schemas.sending import Campaign, Limits
from schemas.topics import COMMANDS, CONTROL, DECISIONS, FEEDBACK, RATES, RESULTS, SUPPRESSIONS
from tests.agents.doubles import campaign
from tests.agents.plant import WITHIN_S, Plant, Worker, json_of

pytestmark = pytest.mark.kafka

MINUTE = 60_000
TOLERANT = Limits(hard_bounce=1.0, complaint=1.0, trap_hit=1.0, block=1.0)


class Traffic:
    """What a sender and the return path would publish about one campaign, and what it comes to."""

    def __init__(self, name: str, chance: random.Random) -> None:
        self.name = name
        self._chance = chance
        self._now = now_ms()
        self._ledger = [0, 0]
        self._frames: list[DeliveryFrame] = []
        self._messages = 0
        self._told: set[tuple[str, str]] = set()
        self.accepted = self.bounced = self.complaints = 0

    def chunk(self, frames: int) -> list[tuple[str, str, Any]]:
        """Some frames with feedback among them; one frame in five, and every second signal, comes twice."""
        records: list[tuple[str, str, Any]] = []
        for _ in range(frames):
            self._frames.append(self._frame())
            records.append((RESULTS, self.name, self._frames[-1]))
            if self._chance.random() < 0.2:
                records.append((RESULTS, self.name, self._chance.choice(self._frames[-3:])))
            result = self._chance.choice(self._frames[-1].results)
            signals = [self._complaint(result) for _ in range(self._chance.randint(0, 2))]
            records += [(FEEDBACK, self.name, one) for one in signals]
        return records

    def _frame(self) -> DeliveryFrame:
        partition = self._chance.randrange(2)
        self._ledger[partition] += 1
        return DeliveryFrame(
            campaign=self.name,
            sender="s-0",
            covers=[],
            results=[self._result() for _ in range(self._chance.randint(1, 60))],
            ledger=Position(topic="mail.ledger.x", partition=partition, offset=self._ledger[partition]),
        )

    def _result(self) -> DeliveryResult:
        self._messages += 1
        bounced = self._chance.random() < 0.1
        self.bounced += bounced
        self.accepted += not bounced
        return DeliveryResult(
            message_id=f"m-{self._messages}",
            outcome="bounced" if bounced else "accepted",
            at=self._now - self._chance.choice((0, 1, 30, 600)) * MINUTE,
            provider=self._chance.choice(("google", "other")),
            ip="192.0.2.1",
            class_="invalid_recipient" if bounced else None,
        )

    def _complaint(self, result: DeliveryResult) -> Feedback:
        if (result.message_id, "complaint") not in self._told:
            self._told.add((result.message_id, "complaint"))
            self.complaints += 1
        return Feedback(
            kind="complaint", campaign=self.name, at=self._now, message_id=result.message_id, sent_at=result.at
        )

    @property
    def truth(self) -> Counts:
        return Counts(
            accepted=self.accepted,
            hard_bounce=self.bounced,
            complaint=self.complaints,
            attempts=self.accepted + self.bounced,
        )


async def day_of(worker: Worker, name: str) -> dict[str, int]:
    _, text = await worker.get(f"/stats/campaigns/{name}")
    found: dict[str, int] = json_of(text).get("windows", {}).get("24h", {})
    return found


async def comes_to(worker: Worker, name: str, truth: Counts) -> None:
    """Wait until the page says so."""
    deadline = time.monotonic() + WITHIN_S
    found: dict[str, int] = {}
    while time.monotonic() < deadline:
        found = await day_of(worker, name)
        if found and Counts(**found) == truth:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"{found} is not {truth}")


async def test_counts_are_exact_through_kills_repeats_and_late_feedback(
    plant: Plant, worker: Worker, unique: str
) -> None:
    await plant.register(campaign(unique, limits=TOLERANT))
    traffic = Traffic(unique, random.Random(7))

    for _ in range(3):
        await plant.publish(*traffic.chunk(40))
        worker.kill()  # in the middle of it
        worker.start()
        await plant.publish(*traffic.chunk(20))
        await worker.ready()
    await comes_to(worker, unique, traffic.truth)

    assert worker.stop() == 0
    worker.start()
    await plant.publish(*traffic.chunk(5))
    await worker.ready()
    await comes_to(worker, unique, traffic.truth)

    snapshots: list[RatesSnapshot] = await plant.read(
        RATES, lambda found: found[-1:] != [] and found[-1].windows["24h"] == traffic.truth, of_scope(unique)
    )
    assert max(one.windows["24h"].accepted for one in snapshots) == traffic.accepted


def of_scope(name: str) -> Any:
    return lambda one: one.scope == campaign_scope(name)


async def isolated(plant: Plant, name: str) -> Decision:
    decisions: list[Decision] = await plant.read(
        DECISIONS, lambda found: found != [], lambda one: one.campaign == name and one.to == "isolated"
    )
    return decisions[0]


def trap_hit(name: str, number: int = 1) -> Feedback:
    return Feedback(
        kind="trap_hit",
        campaign=name,
        at=now_ms(),
        message_id=f"m-{number}",
        address_hash="ef" * 32,
        trap=Trap(kind="pristine"),
        source="return_path",
    )


async def newest_control(plant: Plant, name: str, epoch: int) -> Control:
    controls: list[Control] = await plant.read(
        CONTROL, lambda found: any(one.epoch >= epoch for one in found), lambda one: one.campaign == name
    )
    return controls[-1]


async def test_a_new_campaign_gets_its_control(plant: Plant, worker: Worker, unique: str) -> None:
    await plant.register(campaign(unique))

    control = await newest_control(plant, unique, 1)

    assert (control.epoch, control.may_send, control.state) == (1, True, "healthy")


async def test_a_pristine_trap_isolates_and_a_restart_wakes_nobody(plant: Plant, worker: Worker, unique: str) -> None:
    await plant.register(campaign(unique))
    await plant.publish((FEEDBACK, unique, trap_hit(unique)))

    decision = await isolated(plant, unique)
    assert (decision.from_, decision.by) == ("healthy", "policy")
    control = await newest_control(plant, unique, decision.epoch)
    assert (control.may_send, control.reason) == (False, decision.reason)

    worker.kill()
    worker.start()
    await worker.ready()
    await plant.publish((RESULTS, unique, frame_of(unique)))
    await plant.read(RATES, lambda found: found[-1:] != [] and found[-1].windows["24h"].accepted == 1, of_scope(unique))
    again = Command(
        id=f"again-{unique}",
        scope=campaign_scope(unique),
        campaign=unique,
        command="review",
        reason="",
        by="policy",
        at=now_ms(),
    )
    before = len(await plant.read(CONTROL, lambda _: True, lambda one: one.campaign == unique))
    await plant.publish((COMMANDS, again.scope, again))
    controls: list[Control] = await plant.read(
        CONTROL, lambda found: len(found) > before, lambda one: one.campaign == unique
    )
    assert controls[-1].may_send is False
    assert controls[-1].epoch == decision.epoch
    suppressed: list[Suppression] = await plant.read(
        SUPPRESSIONS, lambda found: found != [], lambda one: one.address_hash == "ef" * 32
    )
    assert suppressed[0].scope == "platform"


def frame_of(name: str) -> DeliveryFrame:
    accepted = DeliveryResult(message_id="m-1", outcome="accepted", at=now_ms())
    return DeliveryFrame(campaign=name, sender="s-0", covers=[], results=[accepted])


async def test_an_operators_word_is_done_and_answered(plant: Plant, worker: Worker, unique: str) -> None:
    await plant.register(campaign(unique))
    epochs = []
    for number, (kind, state) in enumerate((("isolate", "isolated"), ("release", "throttled"))):
        given = Command(
            id=f"{unique}-{number}",
            scope=campaign_scope(unique),
            campaign=unique,
            command=kind,  # type: ignore[arg-type]
            reason="the owner says so",
            by="operator:eve",
            at=now_ms(),
        )
        await plant.publish((COMMANDS, given.scope, given), partition=0)  # wherever a stranger's client puts it
        (decision,) = await plant.read(
            DECISIONS, lambda found: found != [], lambda one, given=given: one.command_id == given.id
        )
        assert (decision.to, decision.by) == (state, "operator:eve")
        control = await newest_control(plant, unique, decision.epoch)
        assert control.may_send is (state == "throttled")
        epochs.append(control.epoch)
    assert epochs == [2, 3]


async def test_every_worker_gives_the_same_answer(plant: Plant, worker: Worker, unique: str) -> None:
    campaigns: list[Campaign] = [campaign(f"{unique}/{number} ü%") for number in range(6)]
    await plant.register(*campaigns)
    await plant.publish(*((RESULTS, one.campaign, frame_of(one.campaign)) for one in campaigns))
    other = plant.worker()
    other.start()
    await other.ready()
    await worker.ready()

    deadline = time.monotonic() + WITHIN_S
    pages = [f"/stats/campaigns/{unique}%2F{number}%20%C3%BC%25" for number in range(6)]
    while True:
        answers = [[await one.get(page) for page in ["/stats/", *pages]] for one in (worker, other)]
        counted = all(
            status == 200 and json_of(text)["windows"].get("24h", {}).get("accepted") == 1
            for status, text in answers[0][1:]
        )
        if counted and answers[0] == answers[1]:
            break
        assert time.monotonic() < deadline, answers
        await asyncio.sleep(0.1)
    assert other.stop() == 0

    status, text = await worker.get("/stats/campaigns/nobody%2F")
    assert (status, json_of(text)["error"]) == (404, "unknown_campaign")
    status, text = await worker.get("/stats/", accept="text/html,application/xhtml+xml,*/*;q=0.8")
    assert text.startswith("<!doctype html>")
    status, text = await worker.get("/healthz")
    assert (status, json_of(text)["alive"]) == (200, True)
    status, text = await worker.get("/metrics")
    assert 'mailcordon_campaign_state{campaign="' in text
    assert "mailcordon_ready 1.0" in text
