"""The whole system as a user starts it: the account closes, whatever is killed meanwhile."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.kafka

IN_FLIGHT = 40  # twice the connections of a sender: each has one message under way and one whose intent is written


class Demo:
    """A demo that runs as a process of its own."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.report_file = folder / "report.json"
        self._said = (folder / "said.txt").open("wb")
        self.data = folder / "data"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cli", "demo", "--exit", "--report", str(self.report_file), *options],
            env={**os.environ, "MAILCORDON_DATA": str(self.data), "MAILCORDON_WEB": "127.0.0.1:0"},
            stdin=subprocess.DEVNULL,
            stdout=self._said,
            stderr=self._said,
        )

    @property
    def said(self) -> str:
        return Path(self._said.name).read_text(errors="replace")

    def finished(self, within_s: float) -> int:
        return self.process.wait(within_s)

    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.report_file.read_text())
        return found

    def accepted(self) -> int:
        """How many messages the providers have taken so far."""
        return sum(file.read_bytes().count(b'"event":"accepted"') for file in self.data.glob("demo/*/*/providers/*"))

    def pid(self, role: str) -> int | None:
        for file in self.data.glob("demo/*/*/roles.json"):
            with contextlib.suppress(ValueError):
                found: int | None = json.loads(file.read_text()).get(role)
                return found
        return None

    def sender_pids(self) -> list[int]:
        return _pids_of("cli sender", str(self.process.pid))

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._said.close()


def _pids_of(words: str, exit_with: str) -> list[int]:
    """Processes of one demo (they inherit MAILCORDON_EXIT_WITH) whose command line has these words."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            environment = (folder / "environ").read_bytes()
            if words in command and f"MAILCORDON_EXIT_WITH={exit_with}\0".encode() in environment:
                found.append(int(folder.name))
    return found


def until(condition: Callable[[], bool], within_s: float, demo: Demo) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert demo.process.poll() is None, f"the demo ended early:\n{demo.said}"
        assert time.monotonic() < deadline, f"it did not come to pass:\n{demo.said}"
        time.sleep(0.05)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    begun: list[Demo] = []

    def begin(*options: str) -> Demo:
        begun.append(Demo(tmp_path, *options))
        return begun[-1]

    yield begin
    for one in begun:
        one.close()
        assert _pids_of("", str(one.process.pid)) == [], "a process was left behind"


def test_the_bad_campaign_is_isolated_and_the_good_one_goes_on(start: Callable[..., Demo]) -> None:
    demo = start("--scale", "0.1")

    code = demo.finished(150)

    report = demo.report()
    good, bad = report["campaigns"]["spring-sale"], report["campaigns"]["bought-list"]
    assert code == 0, demo.said
    assert (good["state"], good["missing"], good["doubled"], good["isolated_at"]) == ("healthy", 0, 0, None)
    assert good["final"] == {"accepted": 1996, "bounced": 4}
    assert (bad["state"], bad["missing"], bad["doubled"]) == ("isolated", 0, 0)
    assert bad["final"]["held"] > 0
    assert report["event_to_last_mail_from_ms"] < 5000


@pytest.mark.parametrize("in_doubt", ["hold", pytest.param("resend", marks=pytest.mark.faults)])
def test_nothing_is_lost_when_every_role_and_the_broker_are_killed(start: Callable[..., Demo], in_doubt: str) -> None:
    demo = start("--scale", "0.15", "--per-second", "120", "--in-doubt", in_doubt)
    until(lambda: demo.accepted() > 100, 90, demo)

    for role in ("worker", "controller", "return-path"):
        pid = demo.pid(role)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        until(lambda gone=pid, role=role: demo.pid(role) not in {None, gone}, 20, demo)
    reached = demo.accepted()
    until(lambda: demo.accepted() > reached + 50, 60, demo)
    killed = demo.sender_pids()
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    until(lambda: bool(set(demo.sender_pids()) - set(killed)), 60, demo)
    reached = demo.accepted()
    until(lambda: demo.accepted() > reached + 50, 60, demo)
    (broker,) = _brokers(demo)
    os.kill(broker, signal.SIGKILL)
    demo.finished(240)

    campaigns = demo.report()["campaigns"]
    assert {name: one["missing"] for name, one in campaigns.items()} == {"spring-sale": 0, "bought-list": 0}, demo.said
    assert [one["contradictions"] for one in campaigns.values()] == [{}, {}], demo.said
    bound = IN_FLIGHT * len(killed) if in_doubt == "resend" else 0
    assert sum(one["doubled"] for one in campaigns.values()) <= bound
    assert campaigns["bought-list"]["state"] == "isolated"
    assert campaigns["spring-sale"]["state"] == "healthy"


def _brokers(demo: Demo) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            command = (folder / "cmdline").read_bytes() if folder.name.isdigit() else b""
            if b"kafka.Kafka" in command and str(demo.data).encode() in command:
                found.append(int(folder.name))
    return found
