"""The demo's scenario on Kubernetes: one campaign hits a trap and loses its sender, its neighbour notices nothing."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cli.access import publish
from cli.campaigns import register
from cli.kafka import EmbeddedKafka, default_cache
from k8s import labels
from policy.naming import campaign_name, sender_name
from policy.settings import Settings
from schemas.feedback import Feedback, Trap
from schemas.sending import Campaign, Content, Mailbox, Pace, Recipient, SendRequest
from schemas.topics import CONTENTS, FEEDBACK, REQUESTS
from tests.cluster.conftest import until
from tests.cluster.test_whole_installation import Installation, installed
from tests.cluster.workload import runs
from tests.control_plane.plane import ControlPlane
from tests.smtp.servers import Script, scripted

pytestmark = pytest.mark.kafka

GOOD, BAD = "good-news", "bought-list"
MESSAGES = 600


class Demo:
    """An installation with two campaigns, and the server that takes their mail."""

    def __init__(self, here: Installation, bootstrap: str, server: Script) -> None:
        self.here, self.bootstrap, self.server = here, bootstrap, server

    async def begin(self, campaign: str) -> None:
        """Make a campaign known and ask for all its mail."""
        record = Campaign(
            campaign=campaign,
            tenant=campaign,
            from_=Mailbox(address=f"news@{campaign}.example"),
            sending_domains=[f"{campaign}.example"],
            return_path_domain=f"bounces.{campaign}.example",
            pace=Pace(per_second=20.0),
        )
        await register(self.bootstrap, [record], Settings(replication=1))
        content = Content(campaign=campaign, content="hello", subject="Hello", text="Dear {{name}}")
        await publish(self.bootstrap, [(CONTENTS, f"{campaign}/hello", content)])
        await publish(
            self.bootstrap,
            [(REQUESTS, f"{campaign}-{start}", _request(campaign, start)) for start in range(0, MESSAGES, 100)],
        )

    async def hit_a_trap(self, campaign: str) -> None:
        now = time.time_ns() // 1_000_000
        event = Feedback(
            kind="trap_hit",
            campaign=campaign,
            message_id=f"{campaign}-0",
            sent_at=now,
            at=now,
            provider="other",
            trap=Trap(kind="pristine", strength=1.0),
            source="return_path",
        )
        await publish(self.bootstrap, [(FEEDBACK, campaign, event)])

    def copies(self, campaign: str) -> Counter[bytes]:
        """What the server has taken, by recipient."""
        of = f"{campaign}-".encode()
        return Counter(one.recipient for one in self.server.taken if of in one.recipient)

    async def sent(self, campaign: str, count: int, *, within_s: float = 90.0) -> None:
        async def told() -> bool:
            return len(self.copies(campaign)) >= count

        await until(told, within_s=within_s, what=f"{count} messages of {campaign}")

    async def get(self, kind: str, campaign: str) -> Any:
        return await asyncio.to_thread(self.here.get, kind, sender_name(campaign))

    async def pods(self, campaign: str) -> list[tuple[str, int]]:
        """Name of each pod of a campaign's sender, and how often it was started again."""
        listed = await asyncio.to_thread(
            self.here, "get", "pods", "-l", f"{labels.CAMPAIGN}={campaign_name(campaign)}", *_NAMES
        )
        lines = (line.split() for line in listed.splitlines())
        return [(name, int(restarts)) for name, restarts in lines]

    async def condition(self, campaign: str, kind: str) -> str:
        told = (await self.get("campaign", campaign)).get("status", {}).get("conditions", ())
        return next((str(one["status"]) for one in told if one["type"] == kind), "")

    async def reaches(self, campaign: str, kind: str, status: str) -> None:
        async def told() -> bool:
            return await self.condition(campaign, kind) == status

        await until(told, within_s=90.0, what=f"{kind} of {campaign} is {status}")

    async def say(self, *words: str) -> None:
        done = await asyncio.to_thread(self.here.say, *words, "--kafka", self.bootstrap)
        assert done.exit_code == 0, done.output


_NAMES = (
    "--no-headers",
    "-o",
    "custom-columns=name:.metadata.name,restarts:.status.containerStatuses[0].restartCount",
)


def _request(campaign: str, start: int) -> SendRequest:
    names = [f"{campaign}-{number}" for number in range(start, start + 100)]
    recipients = [Recipient(message_id=name, address=f"{name}@inbox.example", vars={"name": "Ann"}) for name in names]
    return SendRequest(request_id=names[0], campaign=campaign, content="hello", recipients=recipients)


def processes(campaign: str) -> list[int]:
    """The processes on this machine that send for a campaign."""
    wanted = {b"sender", f"--campaign={campaign}".encode()}
    found = []
    for one in Path("/proc").iterdir():
        if one.name.isdigit():
            try:
                words = (one / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue  # ended while we looked
            if wanted <= set(words):
                found.append(int(one.name))
    return found


@pytest.fixture
async def demo(own_plane: ControlPlane, tmp_path: Path) -> AsyncIterator[Demo]:
    """Topics of an installation have fixed names, so it has a broker of its own."""
    with EmbeddedKafka(tmp_path / "kafka", cache=default_cache(), say=print) as broker:
        async with scripted(Script()) as server:
            route = f"*=127.0.0.1:{server.port}"
            with installed(own_plane, broker.bootstrap, tmp_path, MAILCORDON_SMTP_ROUTES=route) as here:
                yield Demo(here, broker.bootstrap, server)


async def test_a_trap_takes_the_sender_away_the_neighbour_goes_on_and_a_release_warms_up(demo: Demo) -> None:
    async def well() -> bool:
        return await asyncio.to_thread(demo.here.is_well)

    await until(well, within_s=120.0, what="the installation is well")
    for campaign in (GOOD, BAD):
        await demo.begin(campaign)
    for campaign in (GOOD, BAD):
        await demo.sent(campaign, 20)
    [pid] = processes(BAD)
    before = await demo.pods(GOOD)

    await demo.hit_a_trap(BAD)
    await demo.reaches(BAD, "Isolated", "True")

    had = len(demo.copies(BAD))
    assert had < MESSAGES
    assert not runs(pid)
    assert processes(BAD) == []
    assert await demo.pods(BAD) == []
    assert (await demo.get("deployment", BAD))["spec"]["replicas"] == 0
    assert (await demo.get("networkpolicy", BAD))["spec"].get("egress", []) == []

    await demo.sent(GOOD, MESSAGES)
    assert await demo.condition(GOOD, "Isolated") == "False"
    assert await demo.pods(GOOD) == before
    assert [restarts for _, restarts in before] == [0]
    assert set(demo.copies(GOOD).values()) == {1}
    assert len(demo.copies(BAD)) == had

    await demo.say("release", BAD, "--reason", "the bought part of the list was removed")
    await demo.reaches(BAD, "Isolated", "False")
    await demo.reaches(BAD, "Ready", "True")
    decision = (await demo.get("campaign", BAD))["spec"]["decision"]
    assert (decision["state"], decision["maySend"]) == ("throttled", True)
    assert await demo.condition(BAD, "Throttled") == "True"
    assert len(processes(BAD)) == 1
    assert set(demo.copies(BAD).values()) == {1}
