"""The controller on a real Kafka with real processes: it follows decisions, and may be killed at any time."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from agents.controller_app import controller_app
from agents.places import processes, site_of
from cli.kafka import EmbeddedKafka
from k8s.process import ProcessCluster
from policy.naming import sender_name
from policy.settings import Endpoint, Proxy, Relay, Settings, WrongSetting
from schemas.base import Record
from schemas.codec import encode
from schemas.reputation import Control, State
from schemas.sending import Campaign, Mailbox, Pace
from schemas.topics import CAMPAIGNS, CONTROL, DEAD_LETTERS
from streams.topics import create
from tests.agents.controller_process import command

ROOT = Path(__file__).parents[2]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def told(name: str, state: State, epoch: int) -> Control:
    return Control(
        campaign=name,
        epoch=epoch,
        may_send=state == "healthy",
        pace=Pace(),
        state=state,
        reason=f"{state} by epoch {epoch}",
        at=now_ms(),
    )


class Rig:
    """Controllers as processes, their folder of senders, and a producer of decisions."""

    def __init__(self, bootstrap: str, folder: Path, prefix: str, producer: AIOKafkaProducer) -> None:
        self.bootstrap, self.folder, self.prefix, self.producer = bootstrap, folder, prefix, producer
        self.campaign = f"{prefix}-sale"
        self.controllers: list[subprocess.Popen[bytes]] = []
        self.senders = ProcessCluster(folder / "senders", command=command, environment=lambda *_: {})

    def start(self) -> tuple[subprocess.Popen[bytes], str]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        log = (self.folder / f"controller-{len(self.controllers)}.log").open("wb")
        arguments = [self.bootstrap, str(self.folder / "senders"), str(port), self.prefix]
        with log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.agents.controller_process", *arguments], cwd=ROOT, stdout=log, stderr=log
            )
        self.controllers.append(process)
        return process, f"http://127.0.0.1:{port}"

    async def publish(self, topic: str, key: str, record: Record | bytes) -> None:
        value = record if isinstance(record, bytes) else encode(record)
        await self.producer.send_and_wait(topic, value, key=key.encode())

    async def decide(self, state: State, epoch: int) -> None:
        await self.publish(CONTROL, self.campaign, told(self.campaign, state, epoch))

    def pids(self) -> tuple[int, ...]:
        return self.senders.pids().get(sender_name(self.campaign), ())

    async def until(self, true: Callable[[], bool], what: str, within_s: float = 40.0) -> None:
        deadline = time.monotonic() + within_s
        while not true():
            assert time.monotonic() < deadline, f"not within {within_s} s: {what}; {self.tails()}"
            await asyncio.sleep(0.02)

    def tails(self) -> str:
        return "\n".join(file.read_text(errors="replace")[-2000:] for file in self.folder.glob("controller-*.log"))


@pytest.fixture
async def rig(kafka: EmbeddedKafka, unique: str, tmp_path: Path) -> AsyncIterator[Rig]:
    await create(kafka.bootstrap, Settings())
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, acks="all")
    await producer.start()
    one = Rig(kafka.bootstrap, tmp_path, unique, producer)
    try:
        yield one
    finally:
        await producer.stop()
        for process in one.controllers:
            process.kill()
            process.wait()
        await one.senders.stop_all(grace_s=0)


def registered(name: str) -> Campaign:
    return Campaign(campaign=name, from_=Mailbox(address="a@b.example"), return_path_domain="b.example")


async def answer(url: str) -> tuple[int, str]:
    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as http, http.get(url) as got:
            return got.status, await got.text()
    return 0, ""


async def ready(rig: Rig, url: str) -> None:
    deadline = time.monotonic() + 60
    while (await answer(f"{url}/readyz"))[0] != 200:
        assert time.monotonic() < deadline, f"not ready: {await answer(f'{url}/readyz')}; {rig.tails()}"
        await asyncio.sleep(0.05)


@pytest.mark.kafka
async def test_it_follows_decisions_and_survives_kill_9(rig: Rig) -> None:
    controller, url = rig.start()
    await rig.publish(CAMPAIGNS, rig.campaign, registered(rig.campaign))
    await ready(rig, url)
    assert rig.pids() == (), "a campaign without control gets no sender"

    await rig.decide("healthy", 1)
    await rig.until(lambda: len(rig.pids()) == 1, "a sender runs")
    [sender] = rig.pids()

    controller.kill()
    controller.wait()
    os.kill(sender, 0)
    await rig.decide("isolated", 2)
    second, url = rig.start()
    await rig.until(lambda: rig.pids() == (), "what was decided meanwhile is done")

    second.kill()
    second.wait()
    third, url = rig.start()
    await ready(rig, url)
    await rig.decide("healthy", 1)  # a replayed topic releases nobody
    await rig.publish(CONTROL, rig.campaign, b"{not json")
    await rig.publish(CAMPAIGNS, rig.campaign, registered(rig.campaign))
    assert rig.pids() == ()

    await rig.decide("healthy", 3)
    await rig.until(lambda: len(rig.pids()) == 1, "released")
    [again] = rig.pids()
    assert again != sender

    released = 'mailcordon_controller_control_to_done_seconds_count{act="release"} 1.0'
    deadline = time.monotonic() + 40
    while released not in (metrics := (await answer(f"{url}/metrics"))[1]):  # counted when it was read back
        assert time.monotonic() < deadline, metrics
        await asyncio.sleep(0.05)
    assert (await answer(f"{url}/healthz"))[0] == 200
    third.send_signal(signal.SIGTERM)
    assert third.wait(timeout=30) == 0
    os.kill(again, 0)  # senders go on
    assert await dead_letters(rig) == 1


async def dead_letters(rig: Rig) -> int:
    """How many records of mail.control were set aside, once there is one at all."""
    consumer = AIOKafkaConsumer(DEAD_LETTERS, bootstrap_servers=rig.bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    count, deadline = 0, time.monotonic() + 20
    try:
        while not count and time.monotonic() < deadline:
            found = await consumer.getmany(timeout_ms=500)
            count += sum(b"mail.control" in (one.value or b"") for records in found.values() for one in records)
    finally:
        await consumer.stop()
    return count


@pytest.mark.kafka
async def test_two_controllers_start_one_sender(rig: Rig) -> None:
    _, one = rig.start()
    _, other = rig.start()
    await ready(rig, one)
    await ready(rig, other)

    await rig.publish(CAMPAIGNS, rig.campaign, registered(rig.campaign))
    await rig.decide("healthy", 1)
    await rig.until(lambda: len(rig.pids()) == 1, "a sender runs")
    log = rig.folder / "senders" / f"{sender_name(rig.campaign)}.0.log"
    await rig.until(lambda: log.exists() and "here" in log.read_text(), "it says so")

    await rig.decide("isolated", 2)
    await rig.until(lambda: rig.pids() == (), "isolated")
    assert log.read_text().count("here") == 1


def test_without_a_broker_it_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(WrongSetting, match="MAILCORDON_KAFKA"):
        controller_app(Settings(), make_cluster=processes(tmp_path, command=command, environment=lambda *_: {}))


def test_the_site_follows_the_settings() -> None:
    settings = Settings(
        namespace="mail",
        image="m@sha256:1",
        allow_private_mx=True,
        smtp_routes={"one.example": Endpoint("relay", 2525)},
        smarthost=Relay(Endpoint("smarthost", 587)),
        egress_proxy=Proxy("socks5", Endpoint("10.0.0.7", 1080)),
    )

    site = site_of(settings)

    assert (site.namespace, site.image, site.private_mx) == ("mail", "m@sha256:1", True)
    assert site.hops == (("10.0.0.7", 1080), ("relay", 2525), ("smarthost", 587))
