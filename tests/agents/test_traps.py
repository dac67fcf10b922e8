"""From the registry to the verdict, on a real broker: a trap is registered, mail for it comes to the return path, the
worker counts and judges it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from agents.ports import now_ms
from cli.access import producer
from cli.main import main
from cli.return_path_role import _Publish
from cli.secrets import load_or_make
from policy.naming import campaign_scope
from policy.settings import Endpoint
from policy.tokens import Keys, address_hash, return_path
from schemas.delivery import DeliveryFrame, DeliveryResult
from schemas.feedback import Feedback, Suppression
from schemas.reputation import Decision, RatesSnapshot, State
from schemas.sending import Campaign, Mailbox
from schemas.topics import CAMPAIGNS, DECISIONS, FEEDBACK, RATES, RESULTS, SUPPRESSIONS, TRAPS
from smtp.known import Known
from smtp.return_path import ReturnPath
from smtp.returned import Context
from streams.catalogue import Catalogue
from tests.agents.plant import Plant, Worker
from tests.smtp.mailroom import read_here
from tests.smtp.wire import Wire

pytestmark = pytest.mark.kafka
DOMAIN = "b.shop.example"
DAY = 86_400_000


def campaign(name: str) -> Campaign:
    return Campaign(campaign=name, from_=Mailbox(address="news@shop.example"), return_path_domain=DOMAIN)


class Registry:
    """The command line with keys of its own."""

    def __init__(self, plant: Plant, folder: Path) -> None:
        self.keys = load_or_make(folder / "secret")
        self._options = ["--kafka", plant.bootstrap, "--secret-file", str(folder / "secret")]

    async def add(self, *arguments: str) -> None:
        result = await asyncio.to_thread(CliRunner().invoke, main, ["traps", "add", *arguments, *self._options])
        assert result.exit_code == 0, result.output


@asynccontextmanager
async def listening(plant: Plant, keys: Keys) -> AsyncIterator[ReturnPath]:
    """The return path, joined as the role joins it."""
    catalogue = Catalogue(plant.bootstrap, (CAMPAIGNS, TRAPS), client_id="return-path")
    await catalogue.start()
    known = Known(catalogue.campaigns, keys=keys, registered=catalogue.trap)
    async with producer(plant.bootstrap) as out:
        listener = ReturnPath(
            Endpoint("127.0.0.1", 0),
            context=Context(keys=keys, known=known, provider_of=lambda _: "other"),
            understand=read_here,
            publish=_Publish(out),
            hostname="mx.shop.example",
        )
        await listener.start()
        try:
            yield listener
        finally:
            await listener.stop(grace_s=2.0)
            await catalogue.stop()


async def arrive(listener: ReturnPath, keys: Keys, name: str, addresses: list[str]) -> None:
    """Messages of a campaign reach these addresses."""
    wire = await Wire.connect(listener.endpoint)
    for number, address in enumerate(addresses):
        sender = return_path(
            keys,
            campaign=name,
            message_id=f"m-{number}",
            address_hash=address_hash(keys, address),
            sent_at=now_ms() - 1_000,
            domain=DOMAIN,
        )
        reply = await wire.deliver(sender, address, b"Subject: Sale\r\n\r\nOnly today.\r\n")
        assert reply.startswith("250"), reply
    wire.close()


def accepted(name: str, count: int) -> DeliveryFrame:
    at = now_ms() - 1_000
    results = [DeliveryResult(message_id=f"m-{number}", outcome="accepted", at=at) for number in range(count)]
    return DeliveryFrame(campaign=name, sender="s-0", covers=[], results=results)


async def decisions(plant: Plant, name: str, state: State) -> list[Decision]:
    """Those up to the one that leads to a state."""
    return await plant.read(
        DECISIONS, lambda found: any(one.to == state for one in found), lambda one: one.campaign == name
    )


async def test_mail_in_a_registered_trap_isolates_with_the_place_where_it_was_planted(
    plant: Plant, worker: Worker, unique: str, tmp_path: Path
) -> None:
    registry = Registry(plant, tmp_path)
    await plant.register(campaign(unique))
    async with listening(plant, registry.keys) as listener:
        wire = await Wire.connect(listener.endpoint)
        assert not (await wire.deliver("", f"rosa@{unique}.example", b"Subject: x\r\n\r\n")).startswith("250")
        wire.close()
        await registry.add(f"@{unique}.example", "--planted", "hidden link of www.shop.example")
        await known_to(listener, f"rosa@{unique}.example")
        await plant.publish((RESULTS, unique, accepted(unique, 100)))
        await arrive(listener, registry.keys, unique, [f"rosa@{unique}.example"])

    [hit] = await plant.read(FEEDBACK, lambda found: found != [], lambda one: one.campaign == unique)
    assert (hit.kind, hit.message_id, hit.source) == ("trap_hit", "m-0", "return_path")
    assert (hit.trap.kind, hit.trap.strength, hit.trap.where) == ("pristine", 1.0, "hidden link of www.shop.example")
    [decision] = await decisions(plant, unique, "isolated")
    assert (decision.to, decision.rule) == ("isolated", "pristine_trap")
    assert "(planted: hidden link of www.shop.example)" in decision.reason
    hashed = address_hash(registry.keys, f"rosa@{unique}.example")
    [left] = await plant.read(SUPPRESSIONS, lambda found: found != [], lambda one: one.address_hash == hashed)
    assert (left.scope, left.reason) == ("platform", "trap_hit")


async def test_typo_traps_alone_throttle_and_never_isolate(
    plant: Plant, worker: Worker, unique: str, tmp_path: Path
) -> None:
    registry = Registry(plant, tmp_path)
    await plant.register(campaign(unique))
    await registry.add(f"@{unique}.example", "--kind", "typo")
    count = 140
    async with listening(plant, registry.keys) as listener:
        await known_to(listener, f"p0@{unique}.example")
        await plant.publish((RESULTS, unique, accepted(unique, 200)))
        await arrive(listener, registry.keys, unique, [f"p{number}@{unique}.example" for number in range(count)])

    rates: list[RatesSnapshot] = await plant.read(
        RATES,
        lambda found: found != [] and found[-1].windows["24h"].trap_hit == count,
        lambda one: one.scope == campaign_scope(unique),
    )
    counts = rates[-1].windows["24h"]
    assert (counts.trap_hit_typo, counts.trap_weight, counts.trap_hit_pristine) == (count, 15 * count, 0)
    assert (rates[-1].verdicts["trap_hit"].events, rates[-1].verdicts["trap_hit"].answer) == (21, "breach")
    found = await decisions(plant, unique, "throttled")
    assert {one.to for one in found} <= {"watched", "throttled"}
    assert "typo; weighed as" in found[-1].reason


async def test_an_address_that_was_dead_for_half_a_year_and_takes_mail_is_a_signal_counted_once(
    plant: Plant, worker: Worker, unique: str, tmp_path: Path
) -> None:
    await plant.register(campaign(unique))
    now = now_ms()
    hashed = address_hash(load_or_make(tmp_path / "secret"), f"ann@{unique}.example")
    dead = Suppression(
        address_hash=hashed,
        scope="platform",
        reason="invalid_recipient",
        since=now - 200 * DAY,
        until=now - 10 * DAY,
    )
    await plant.publish((SUPPRESSIONS, f"{hashed}|platform", dead))
    probe = Catalogue(plant.bootstrap, (SUPPRESSIONS,), client_id="probe")
    await probe.start()
    assert (probe.recycled(hashed, now_ms()) or "").startswith("bounced as dead 200 days ago")
    await probe.stop()

    result = DeliveryResult(message_id="m-1", outcome="accepted", at=now - 1_000, address_hash=hashed, ip="192.0.2.1")
    frame = DeliveryFrame(campaign=unique, sender="s-0", covers=[], results=[result])

    seen = asyncio.Event()

    async def again() -> None:
        """The worker reads suppressions beside the results: until it has seen this one."""
        while not seen.is_set():
            await plant.publish((RESULTS, unique, frame), (RESULTS, unique, frame))

    publishing = asyncio.create_task(again())
    try:
        signals: list[Feedback] = await plant.read(
            FEEDBACK, lambda found: len(found) > 1, lambda one: one.campaign == unique
        )
    finally:
        seen.set()
        await publishing
    assert {(one.class_, one.source, one.ip, one.message_id) for one in signals} == {
        ("recycled_signature", "worker", "192.0.2.1", "m-1")
    }
    rates: list[RatesSnapshot] = await plant.read(
        RATES,
        lambda found: found != [] and found[-1].windows["24h"].trap_hit > 0,
        lambda one: one.scope == campaign_scope(unique),
    )
    assert (rates[-1].windows["24h"].trap_hit, rates[-1].windows["24h"].trap_weight) == (1, 32)


async def known_to(listener: ReturnPath, address: str) -> None:
    """Wait until the listener takes mail for an address."""
    async with asyncio.timeout(20):
        while True:
            wire = await Wire.connect(listener.endpoint)
            replies = [await wire.say(line) for line in ("MAIL FROM:<>", f"RCPT TO:<{address}>")]
            wire.close()
            if replies[-1].startswith("250"):
                return
            await asyncio.sleep(0.05)
