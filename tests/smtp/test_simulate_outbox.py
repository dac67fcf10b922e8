"""What a provider owes the return path is not lost: to a refusal for now, to a kill, to a return path that is away."""

import os
import shutil
from pathlib import Path

import pytest

from policy.settings import Endpoint
from smtp.return_path import ReturnPath
from smtp.simulate import Config, SimulatedProviders, outbox
from smtp.simulate.outbox import Outbox, Parcel
from tests.smtp.mailroom import DOMAIN, NOW, TRAP, Kafka, context, read_here, running, signed
from tests.smtp.wire import Wire, until

NOWHERE = Endpoint("127.0.0.1", 1)
BUY = b"Subject: buy\r\n\r\nnow\r\n"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "_FIRST_WAIT_MS", 10)


def _parcel(id_: str, rcpt: str = TRAP, due: int = 0) -> Parcel:
    return Parcel(id=id_, kind="trap", due=due, mail_from=signed(id_), rcpt=rcpt, raw=BUY)


async def test_what_was_not_sent_is_found_again_after_a_kill_and_what_was_sent_is_not(tmp_path: Path) -> None:
    kafka = Kafka()
    async with running(kafka) as listener:
        first = Outbox(tmp_path, "google", listener.endpoint, hostname="mx.google.example")
        first.add(_parcel("sent"))
        first.add(_parcel("waits", due=2**50))
        first.start()
        await until(lambda: len(first) == 1)
        await first.stop()
    with (tmp_path / "google.outbox").open("ab") as file:
        file.write(b'{"id":"cut of')

    second = Outbox(tmp_path, "google", NOWHERE, hostname="mx.google.example")

    assert [one.id for one in second.waiting] == ["waits"]
    await second.stop()


async def test_a_refusal_for_now_is_tried_again_until_it_is_taken(tmp_path: Path) -> None:
    kafka = Kafka(is_down=True)
    async with running(kafka) as listener:
        box = Outbox(tmp_path, "google", listener.endpoint, hostname="mx.google.example")
        box.add(_parcel("m-1"))
        box.start()
        await until(lambda: kafka.asked >= 3)
        assert len(box) == 1

        kafka.is_down = False

        await until(lambda: len(box) == 0)
        await box.stop()

    assert [one.message_id for one in kafka.feedback] == ["m-1"]


async def test_a_refusal_for_good_is_counted_and_not_tried_again(tmp_path: Path) -> None:
    kafka = Kafka()
    async with running(kafka) as listener:
        box = Outbox(tmp_path, "google", listener.endpoint, hostname="mx.google.example")
        box.add(_parcel("m-1", rcpt="someone@other.example"))
        box.add(_parcel("m-2"))
        box.start()
        await until(lambda: len(box) == 0)
        await box.stop()

    assert box.refused == 1
    assert [one.message_id for one in kafka.feedback] == ["m-2"]


async def test_a_return_path_that_is_away_gets_everything_when_it_is_back(tmp_path: Path) -> None:
    kafka = Kafka()
    async with running(kafka) as listener:
        endpoint = listener.endpoint
    box = Outbox(tmp_path, "google", endpoint, hostname="mx.google.example")
    for number in range(20):
        box.add(_parcel(f"m-{number}"))
    box.start()

    back = ReturnPath(
        endpoint,
        context=context(),
        understand=read_here,
        publish=kafka,
        hostname="mx.shop.example",
        now=lambda: NOW,
    )
    await back.start()
    await until(lambda: len(box) == 0)
    await box.stop()
    await back.stop()

    assert {one.message_id for one in kafka.feedback} == {f"m-{number}" for number in range(20)}


async def test_a_trap_hit_survives_the_kill_of_its_provider(tmp_path: Path) -> None:
    killed = SimulatedProviders(Config(logs=tmp_path / "run", return_path=NOWHERE))
    await killed.start()
    wire = await Wire.connect(killed.servers["traps"].endpoint)
    assert (await wire.deliver(signed("m-1"), TRAP, BUY)).startswith("250")
    wire.close()
    shutil.copytree(tmp_path / "run", tmp_path / "left")  # what a kill at this moment leaves behind
    await killed.stop()

    kafka = Kafka()
    async with (
        running(kafka) as listener,
        SimulatedProviders(Config(logs=tmp_path / "left", return_path=listener.endpoint)) as again,
    ):
        await until(lambda: again.waiting == 0)

    assert [(one.kind, one.message_id) for one in kafka.feedback] == [("trap_hit", "m-1")]


async def test_an_outbox_that_cannot_be_written_is_no_250(tmp_path: Path) -> None:
    async with SimulatedProviders(Config(logs=tmp_path, return_path=NOWHERE)) as running_providers:
        box = running_providers.servers["traps"].outbox
        assert box is not None
        kept, box._descriptor = box._descriptor, os.open("/dev/full", os.O_WRONLY)
        wire = await Wire.connect(running_providers.servers["traps"].endpoint)
        said = await wire.deliver(signed("m-1"), TRAP, BUY)
        wire.close()
        os.close(box._descriptor)
        box._descriptor = kept

    assert said.startswith("451")


def test_the_domain_of_the_tests_is_an_own_one() -> None:
    assert context().known.is_own(DOMAIN, NOW)
