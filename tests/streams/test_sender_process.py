"""The sender as a process, killed without warning and stopped with one; the receiving server's log is the truth."""

import asyncio
import contextlib
import json
import os
import random
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from cli.kafka import EmbeddedKafka, default_cache
from policy.routing import partition_of
from policy.settings import Settings
from schemas.base import Record
from schemas.codec import encode
from schemas.reputation import Control
from schemas.sending import Campaign, Content, Mailbox, OutboundFrame, OutboundMessage, Pace
from schemas.topics import CAMPAIGNS, CONTENTS, CONTROL
from streams.topics import create, create_for_campaigns
from tests.smtp.sender_contract import Stage
from tests.smtp.servers import Script, scripted, until
from tests.streams.test_sender_kafka import KafkaWorld

pytestmark = pytest.mark.kafka

SETTINGS = Settings(outbound_partitions=2)
ROOT = Path(__file__).parents[2]
MESSAGES = 500
CONNECTIONS = 10
IN_FLIGHT = 2 * CONNECTIONS


class Journey:
    """A campaign on real topics, a receiving server, and the sender process between them."""

    def __init__(self, world: KafkaWorld, server: Script, log: Path) -> None:
        self.world = world
        self.server = server
        self.stage = Stage(world)  # for reading what was told
        self._log = log
        self._processes: list[asyncio.subprocess.Process] = []
        self._epoch = 0

    async def publish(self, topic: str, key: str, record: Record) -> None:
        await self.world._producer.send_and_wait(topic, encode(record), key=key.encode())

    async def prepare(self, *, in_doubt: str) -> None:
        campaign = self.world.campaign
        await self.publish(
            CAMPAIGNS,
            campaign,
            Campaign(
                campaign=campaign,
                from_=Mailbox(address="news@shop.example"),
                return_path_domain="bounces.shop.example",
                in_doubt="resend" if in_doubt == "resend" else "hold",
            ),
        )
        content = Content(campaign=campaign, content="hello", subject="Hello {{name}}", text="Dear {{name}}")
        await self.publish(CONTENTS, f"{campaign}/hello", content)
        for start in range(0, MESSAGES, 50):
            await self.ask(range(start, start + 50))

    async def ask(self, numbers: range) -> None:
        frames: dict[int, list[OutboundMessage]] = {}
        for number in numbers:
            message = OutboundMessage(
                message_id=f"m-{number}",
                address=f"u{number}@example.com",
                address_hash=f"{number:064x}",
                vars={"name": number},
            )
            frames.setdefault(partition_of(message.message_id, self.world.partitions), []).append(message)
        for partition, messages in frames.items():
            frame = OutboundFrame(
                campaign=self.world.campaign,
                request_id="r",
                content="hello",
                admitted_at=time.time_ns() // 1_000_000,
                messages=messages,
            )
            await self.world.put(encode(frame), partition)

    async def control(self, *, may_send: bool, per_second: float = 0.0) -> None:
        self._epoch += 1
        record = Control(
            campaign=self.world.campaign,
            epoch=self._epoch,
            may_send=may_send,
            pace=Pace(per_second=per_second, connections=CONNECTIONS),
            state="healthy" if may_send else "isolated",
            reason="the test says so",
            at=1,
        )
        await self.publish(CONTROL, self.world.campaign, record)

    def said(self, event: str) -> int:
        """How often the senders' logs hold this."""
        return self._log.read_text(encoding="utf-8").count(event)

    async def start(self) -> asyncio.subprocess.Process:
        given = {
            "bootstrap": self.world.bootstrap,
            "campaign": self.world.campaign,
            "smtp": self.server.port,
            "connections": CONNECTIONS,
            "name": f"s-{len(self._processes)}",
            "session_s": 1.5,
        }
        with self._log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.streams.sender_process",
                json.dumps(given),
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )
        self._processes.append(process)
        return process

    async def close(self) -> None:
        for process in self._processes:
            if process.returncode is None:
                process.kill()
                await process.wait()


@pytest.fixture
async def journey(kafka: EmbeddedKafka, unique: str, tmp_path: Path) -> AsyncIterator[Journey]:
    async with on(kafka, unique, tmp_path) as one:
        yield one


@contextlib.asynccontextmanager
async def on(kafka: EmbeddedKafka, unique: str, tmp_path: Path) -> AsyncIterator[Journey]:
    """A journey over a broker."""
    await create(kafka.bootstrap, SETTINGS)
    await create_for_campaigns(kafka.bootstrap, [unique], SETTINGS)
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, enable_idempotence=True)
    async with contextlib.AsyncExitStack() as stack:
        await producer.start()
        stack.push_async_callback(producer.stop)
        world = KafkaWorld(kafka.bootstrap, unique, producer)
        stack.push_async_callback(world.close)
        server = await stack.enter_async_context(scripted(Script(dot_delay_s=0.02)))
        one = Journey(world, server, tmp_path / "sender.log")
        stack.push_async_callback(one.close)
        yield one


def copies(server: Script) -> Counter[bytes]:
    return Counter(taken.recipient for taken in server.taken)


@pytest.mark.parametrize("in_doubt", ["hold", "resend"])
async def test_killed_again_and_again_nothing_is_lost_and_little_is_doubled(journey: Journey, in_doubt: str) -> None:
    chance = random.Random(in_doubt)
    await journey.prepare(in_doubt=in_doubt)
    await journey.control(may_send=True, per_second=250)
    kills = 4
    for kill in range(kills):
        process = await journey.start()
        wanted = len(journey.server.taken) + 60
        await until(lambda wanted=wanted: len(journey.server.taken) >= wanted, within_s=20)  # type: ignore[misc]
        await asyncio.sleep(chance.random() * 0.1)
        assert process.returncode is None, f"ended by itself before kill {kill}"
        process.send_signal(signal.SIGKILL)
        await process.wait()
    await journey.start()
    outcomes = Counter((await journey.stage.has_outcomes(MESSAGES, within_s=30)).values())
    received = copies(journey.server)
    doubled = sum(count - 1 for count in received.values())
    print(f"{in_doubt}: {dict(outcomes)}, doubled {doubled}, received {len(received)}")
    assert sum(outcomes.values()) == MESSAGES
    if in_doubt == "hold":
        assert doubled == 0
        assert 0 < outcomes["in_doubt"] <= kills * IN_FLIGHT
        assert set(outcomes) == {"accepted", "in_doubt"}
    else:
        assert outcomes == {"accepted": MESSAGES}
        assert len(received) == MESSAGES
        assert doubled <= kills * IN_FLIGHT


async def test_sigterm_ends_it_with_nothing_doubled_and_nothing_in_doubt(journey: Journey) -> None:
    await journey.prepare(in_doubt="hold")
    await journey.control(may_send=True, per_second=300)
    process = await journey.start()
    for wanted in (100, 250):
        await until(lambda wanted=wanted: len(journey.server.taken) >= wanted, within_s=20)  # type: ignore[misc]
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 15) == 0
        sent = len(journey.server.taken)
        assert Counter((await journey.stage.outcomes()).values()) == {"accepted": sent}
        process = await journey.start()
    outcomes = await journey.stage.has_outcomes(MESSAGES, within_s=30)
    assert Counter(outcomes.values()) == {"accepted": MESSAGES}
    assert len(journey.server.taken) == MESSAGES


async def test_a_restarted_sender_does_not_wake_a_stopped_campaign(journey: Journey) -> None:
    await journey.prepare(in_doubt="hold")
    await journey.control(may_send=True, per_second=200)
    process = await journey.start()
    await until(lambda: len(journey.server.taken) >= 50, within_s=20)
    await journey.control(may_send=False)
    await until(lambda: journey.said("stopped by control") == 1)
    await asyncio.sleep(0.2)  # what was between MAIL FROM and the dot
    stopped_at = len(journey.server.taken)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    opened = journey.said("partition opened")
    await journey.start()
    await until(lambda: journey.said("partition opened") == opened + 2 and journey.said("stopped by control") == 2)
    await asyncio.sleep(0.5)
    assert len(journey.server.taken) == stopped_at
    await journey.control(may_send=True)
    outcomes = await journey.stage.has_outcomes(MESSAGES, within_s=30)
    assert set(outcomes.values()) <= {"accepted", "in_doubt"}
    assert copies(journey.server).most_common(1)[0][1] == 1


async def test_a_frozen_sender_that_wakes_up_after_it_was_replaced_sends_nothing(journey: Journey) -> None:
    await journey.prepare(in_doubt="hold")
    await journey.control(may_send=True, per_second=200)
    frozen = await journey.start()
    await until(lambda: len(journey.server.taken) >= 100, within_s=20)
    frozen.send_signal(signal.SIGSTOP)
    await journey.start()
    await until(lambda: len(journey.server.taken) >= 250, within_s=20)
    frozen.send_signal(signal.SIGCONT)
    outcomes = await journey.stage.has_outcomes(MESSAGES, within_s=40)
    assert set(outcomes.values()) <= {"accepted", "in_doubt"}
    assert copies(journey.server).most_common(1)[0][1] == 1
    assert Counter(outcomes.values())["in_doubt"] <= IN_FLIGHT


def first_deferred() -> Callable[[bytes], bytes]:
    """A server that lets half of the recipients come again."""
    came: set[bytes] = set()

    def answer(line: bytes) -> bytes:
        if line.partition(b"@")[0][-1:] in b"02468" and line not in came:
            came.add(line)
            return b"451 4.3.0 later\r\n"
        return b"250 ok\r\n"

    return answer


@pytest.mark.faults
async def test_a_broker_that_is_killed_and_comes_back_loses_and_doubles_nothing(unique: str, tmp_path: Path) -> None:
    with EmbeddedKafka(tmp_path / "kafka", cache=default_cache()) as kafka:
        async with on(kafka, unique, tmp_path) as journey:
            journey.server.rcpt = first_deferred()
            await journey.prepare(in_doubt="hold")
            await journey.control(may_send=True, per_second=100)
            process = await journey.start()
            await until(lambda: len(journey.server.taken) >= 100, within_s=20)
            await asyncio.to_thread(kafka.kill)
            await asyncio.sleep(4.0)  # deferred messages become due meanwhile
            await asyncio.to_thread(kafka.start)
            outcomes = await journey.stage.has_outcomes(MESSAGES, within_s=60)
            assert process.returncode is None
        assert Counter(outcomes.values()) == {"accepted": MESSAGES}
        assert len(journey.server.taken) == MESSAGES


@pytest.mark.faults
async def test_a_broker_that_does_not_come_back_ends_the_sender_with_exit_code_3(unique: str, tmp_path: Path) -> None:
    with EmbeddedKafka(tmp_path / "kafka", cache=default_cache()) as kafka:
        async with on(kafka, unique, tmp_path) as journey:
            await journey.prepare(in_doubt="hold")
            await journey.control(may_send=True, per_second=100)
            process = await journey.start()
            await until(lambda: len(journey.server.taken) >= 100, within_s=20)
            await asyncio.to_thread(kafka.kill)
            await asyncio.sleep(1.0)
            sent = len(journey.server.taken)
            assert await asyncio.wait_for(process.wait(), 90) == 3
            assert len(journey.server.taken) <= sent + IN_FLIGHT
            assert journey.said("cannot go on") > 0
            await asyncio.to_thread(kafka.start)  # so that the test's own clients can close


def freeze(kafka: EmbeddedKafka) -> None:
    os.kill(kafka.pid, signal.SIGSTOP)


def fill_disk(kafka: EmbeddedKafka) -> None:
    """From now on the broker's writes fail, as on a disk without room (EFBIG in place of ENOSPC)."""
    resource.prlimit(kafka.pid, resource.RLIMIT_FSIZE, (1, 1))


@pytest.mark.faults
@pytest.mark.parametrize("trouble", [freeze, fill_disk], ids=["frozen", "disk full"])
async def test_without_a_ledger_that_can_be_written_nothing_is_sent(
    unique: str, tmp_path: Path, trouble: Callable[[EmbeddedKafka], None]
) -> None:
    with EmbeddedKafka(tmp_path / "kafka", cache=default_cache()) as kafka:
        async with on(kafka, unique, tmp_path) as journey:
            await journey.prepare(in_doubt="hold")
            await journey.control(may_send=True, per_second=100)
            process = await journey.start()
            await until(lambda: len(journey.server.taken) >= 100, within_s=20)
            trouble(kafka)
            sent = len(journey.server.taken)
            await asyncio.sleep(1.0)  # what was intended before
            last = len(journey.server.taken)
            assert last <= sent + IN_FLIGHT
            assert await asyncio.wait_for(process.wait(), 90) == 3
            assert len(journey.server.taken) == last
            assert journey.said("no acknowledgement from topic") > 0
            await asyncio.to_thread(kafka.kill)
            await asyncio.to_thread(kafka.start)
            await journey.start()
            outcomes = Counter((await journey.stage.has_outcomes(MESSAGES, within_s=60)).values())
        assert sum(outcomes.values()) == MESSAGES
        assert outcomes["in_doubt"] <= IN_FLIGHT
        assert copies(journey.server).most_common(1)[0][1] == 1
