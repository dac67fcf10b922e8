"""How an app is run: its pages, its exit codes, its limits."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from cli.kafka import EmbeddedKafka
from tests.streams.runtime.harness import REPOSITORY, Lab, until

pytestmark = pytest.mark.kafka
PROGRAM = Path(__file__).with_name("small_app.py")

Start = Callable[[str], "Small"]


class Small:
    """The small app as a process."""

    def __init__(self, lab: Lab, port: int, wrong: str) -> None:
        self.page = f"http://127.0.0.1:{port}/ready"
        self.log = lab.folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(PROGRAM), lab.bootstrap, lab.prefix, str(port), wrong],
                cwd=REPOSITORY,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def answers(self) -> str | None:
        try:
            with urlopen(self.page, timeout=2) as reply:  # noqa: S310 - our own page
                return str(reply.read().decode())
        except (URLError, ConnectionError, TimeoutError):
            return None

    async def ready(self) -> None:
        await until(lambda: self.answers() == "yes", what="ready")

    async def ended(self) -> int:
        await until(lambda: self.process.poll() is not None, what="ends")
        return self.process.wait()


@pytest.fixture
def start(lab: Lab, unused_tcp_port: int) -> Iterator[Start]:
    started: list[Small] = []

    def make(wrong: str) -> Small:
        started.append(Small(lab, unused_tcp_port, wrong))
        return started[-1]

    yield make
    for small in started:
        small.process.kill()
        small.process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
async def test_a_signal_ends_it_with_0(lab: Lab, start: Start, number: signal.Signals) -> None:
    await lab.create()
    small = start("nothing")
    await small.ready()
    small.process.send_signal(number)
    assert await small.ended() == 0
    assert "worker" not in small.log.read_text()


async def test_what_cannot_start_ends_with_1_and_says_why(lab: Lab, start: Start) -> None:
    await lab.create()
    small = start("start")
    assert await small.ended() == 1
    assert "the port is taken" in small.log.read_text()


async def test_an_agent_that_hangs_does_not_hold_up_the_end(lab: Lab, start: Start) -> None:
    await lab.create()
    small = start("hang")
    await lab.produce(1)
    await until(lambda: small.answers() == "yes")
    await asyncio.wait_for(sink_has_one(lab), 20)
    small.process.send_signal(signal.SIGTERM)
    assert await small.ended() == 1
    assert "did not stop in time" in small.log.read_text()


async def sink_has_one(lab: Lab) -> None:
    await lab.until_end(lab.sink, 1)


async def test_a_worker_without_a_broker_ends_with_1(kafka: EmbeddedKafka, lab: Lab, start: Start) -> None:
    lab.bootstrap = "127.0.0.1:1"
    small = start("nothing")
    assert await small.ended() == 1
