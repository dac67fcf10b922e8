"""One run with kills: start everything, feed, kill by a course that the seed fixes, wait for the end, account."""

import asyncio
import contextlib
import itertools
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from benchmarks import _logging_sink
from benchmarks._feeding import Item
from benchmarks._harness import Json
from benchmarks._kill_account import Account
from benchmarks._kill_load import CAMPAIGN, campaign_record, content_record, requests
from benchmarks._running import ROOT, Failed, free_port, python, role_settings, running, say
from cli.access import publish
from cli.campaigns import register
from cli.kafka import EmbeddedKafka, default_cache
from cli.supervisor import Program, Supervisor
from policy.settings import Settings
from schemas.sending import InDoubt
from schemas.topics import CONTENTS, REFUSED, RESULTS
from streams.topics import create

WORKERS_PER_CONNECTION = 2
_WEIGHTS = {"sender": 6, "worker": 2, "broker": 2}
_AHEAD = 60_000  # recipients that are asked for and not yet final
_STUCK_AFTER_S = 240.0
_LOOK_EVERY_S = 0.2
_SAY_EVERY_S = 10.0
_HEAP_MB = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What is asked of a run."""

    messages: int
    kills: int
    seed: int
    policy: InDoubt
    connections: int
    defer: float
    drop: float

    def as_json(self) -> Json:
        """For the report."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Step:
    """What happens when so many messages have been received."""

    at: int
    what: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """The figures, and whether they are what they must be: nothing lost, nothing told twice, the rest within bounds."""

    figures: dict[str, int | float]
    policy: InDoubt

    @property
    def is_right(self) -> bool:
        """Is everything as it must be?"""
        told = self.figures
        bounded = told["doubled"] <= told["doubled_bound"] and told["in_doubt"] <= told["in_doubt_bound"]
        return not told["lost"] and not told["finals_twice"] and bounded


def steps(course: Course) -> list[Step]:
    """The course: kills spread over the run, and a second sender that comes and goes after every fourth of them."""
    chance = random.Random(course.seed)
    roles = list(_WEIGHTS)
    found: list[Step] = []
    for number in range(course.kills):
        at = course.messages * (number + 0.5 + 0.8 * (chance.random() - 0.5)) / (course.kills + 1)
        found.append(Step(round(at), chance.choices(roles, list(_WEIGHTS.values()))[0]))
        if number % 4 == 1:
            found.append(Step(round(at + course.messages * 0.3 / (course.kills + 1)), "rebalance"))
    return sorted(found, key=lambda step: step.at)


class Run:
    """One run in a folder of its own."""

    def __init__(self, course: Course, at: Path) -> None:
        self._course = course
        self._at = at
        self._account = Account(course.messages)
        self._supervisor = Supervisor(lambda _line: None)
        self._kafka = EmbeddedKafka(at / "kafka", cache=default_cache(), say=say, heap_mb=_HEAP_MB)
        self._log = at / "received.log"
        self._sink_port = free_port()
        self._fed = 0
        self._kills: Counter[str] = Counter()
        self._moves = 0
        self._senders = ["sender-1"]
        self._in_flight_at_kills = 0
        self._chance = random.Random(course.seed + 1)

    async def run(self) -> Outcome:
        """Do it all; raises when it gets stuck."""
        began = time.monotonic()
        self._log.touch()
        await asyncio.to_thread(self._kafka.start)
        try:
            with running("sink", self._sink(), {}, self._at):
                await self._prepare()
                async with contextlib.AsyncExitStack() as stack:
                    stack.push_async_callback(self._supervisor.stop, within_s=30.0)
                    await self._start("worker")
                    await self._start("sender-1")
                    await self._to_the_end(stack)
        finally:
            await asyncio.to_thread(self._kafka.kill)
        return self._outcome(time.monotonic() - began)

    def _sink(self) -> list[str]:
        given = {
            "port": self._sink_port,
            "log": str(self._log),
            "defer": self._course.defer,
            "drop": self._course.drop,
            "seed": self._course.seed,
        }
        return python("-m", _logging_sink.__name__, json.dumps(given))

    async def _prepare(self) -> None:
        settings, bootstrap = Settings(), self._kafka.bootstrap
        await create(bootstrap, settings)
        await register(bootstrap, [campaign_record(self._course.policy, self._course.connections)], settings)
        content = content_record()
        await publish(bootstrap, [(CONTENTS, f"{CAMPAIGN}/{content.content}", content)])

    async def _start(self, name: str) -> None:
        role = ["worker"] if name == "worker" else ["sender", "--campaign", CAMPAIGN]
        environment = {
            **role_settings(self._kafka.bootstrap, self._at),
            "PYTHONPATH": str(ROOT),
            "MAILCORDON_SMTP_ROUTES": f"*=127.0.0.1:{self._sink_port}",
            "MAILCORDON_CONNECTIONS": str(self._course.connections),
            "MAILCORDON_HOSTNAME": "mta.shop.example",
            "MAILCORDON_SENDER_WEB": "127.0.0.1:0",
            "MAILCORDON_EGRESS_CHECK": "off",
            "MAILCORDON_RETRIES": "2,4,8",
        }
        log = self._at / f"{name}.log"
        await self._supervisor.start(Program(name, python("-m", "cli", *role), environment, log))

    async def _to_the_end(self, stack: contextlib.AsyncExitStack) -> None:
        consumer = await stack.enter_async_context(self._results())
        feeding = asyncio.create_task(self._feed())
        stack.callback(feeding.cancel)
        left = steps(self._course)
        moved_at, said_at, seen = time.monotonic(), 0.0, (0, 0)
        while self._account.final < self._course.messages or left:
            if feeding.done():
                feeding.result()
            await self._read(consumer)
            if left and self._account.lines >= min(left[0].at, self._course.messages - 1):
                await self._take(left.pop(0))
            now = time.monotonic()
            if seen != (self._account.final, self._account.lines):
                seen, moved_at = (self._account.final, self._account.lines), now
            if now - moved_at > _STUCK_AFTER_S:
                raise Failed(f"no progress for {_STUCK_AFTER_S:.0f} s; {self._progress()}; logs in {self._at}")
            if now - said_at > _SAY_EVERY_S:
                said_at = now
                say(self._progress())
        await asyncio.sleep(2.0)  # what comes after the end would be a second result
        await self._read(consumer)

    def _progress(self) -> str:
        account = self._account
        return (
            f"asked {self._fed:,}, received {account.lines:,}, final {account.final:,} of {self._course.messages:,}; "
            f"killed {dict(self._kills)}, moved {self._moves}"
        )

    @contextlib.asynccontextmanager
    async def _results(self) -> AsyncIterator[AIOKafkaConsumer]:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._kafka.bootstrap,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=8_388_608,
        )
        await consumer.start()
        try:
            places = [TopicPartition(topic, n) for topic in (RESULTS, REFUSED) for n in range(Settings().partitions)]
            consumer.assign(places)
            yield consumer
        finally:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(consumer.stop(), 10)

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        try:
            found = await consumer.getmany(timeout_ms=int(_LOOK_EVERY_S * 1000))
        except KafkaError:  # a broker that was killed
            await asyncio.sleep(_LOOK_EVERY_S)
            return
        for place, records in found.items():
            take = self._account.take_frame if place.topic == RESULTS else self._account.take_refusal
            for record in records:
                take(record.value)
        self._account.read_log(self._log)

    async def _feed(self) -> None:
        """Ask for everything, not too far ahead; again for what was not acknowledged, as an application does."""
        to_ask = requests(self._course.messages, self._chance)
        batch: list[Item] = []
        while batch := batch or list(itertools.islice(to_ask, 20)):
            while self._fed - self._account.final > _AHEAD:  # noqa: ASYNC110 - counted elsewhere
                await asyncio.sleep(_LOOK_EVERY_S)
            with contextlib.suppress(KafkaError, TimeoutError):
                await self._publish(batch)
                self._fed += sum(item.events for item in batch)
                batch = []

    async def _publish(self, items: list[Item]) -> None:
        producer = AIOKafkaProducer(
            bootstrap_servers=self._kafka.bootstrap, acks="all", max_request_size=8_388_608, request_timeout_ms=10_000
        )
        async with asyncio.timeout(30):
            await producer.start()
            try:
                for item in items:
                    await producer.send_and_wait(item.topic, item.value, item.key)
            finally:
                await producer.stop()

    async def _take(self, step: Step) -> None:
        match step.what:
            case "rebalance":
                await self._rebalance()
            case "broker":
                self._kills["broker"] += 1
                self._in_flight_at_kills += self._most_in_flight * len(self._senders)
                await asyncio.to_thread(self._kafka.kill)
                await asyncio.sleep(self._chance.random())
                await asyncio.to_thread(self._kafka.start)
            case role:
                name = self._chance.choice(self._senders) if role == "sender" else role
                await self._kill(name)
                self._kills[role] += 1
                self._in_flight_at_kills += self._most_in_flight if role == "sender" else 0

    @property
    def _most_in_flight(self) -> int:
        return WORKERS_PER_CONNECTION * self._course.connections

    async def _kill(self, name: str) -> None:
        while (pid := self._supervisor.pids().get(name)) is None:  # noqa: ASYNC110 - it is being started again
            await asyncio.sleep(_LOOK_EVERY_S)
        await asyncio.sleep(self._chance.random() * 0.1)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    async def _rebalance(self) -> None:
        """A second sender comes, or goes by SIGTERM."""
        self._moves += 1
        if "sender-2" in self._senders:
            self._senders.remove("sender-2")
            await self._supervisor.stop("sender-2", within_s=30.0)
        else:
            self._senders.append("sender-2")
            await self._start("sender-2")

    def _outcome(self, seconds: float) -> Outcome:
        account, resends = self._account, self._course.policy == "resend"
        uncertain = self._in_flight_at_kills + account.replies_lost
        figures: dict[str, int | float] = {
            "messages": self._course.messages,
            "received": sum(map(bool, account.received)),
            "lost": account.lost,
            "doubled": account.doubled,
            "doubled_bound": uncertain if resends else 0,
            "in_doubt": account.in_doubt,
            "in_doubt_bound": 0 if resends else uncertain,
            "in_doubt_received": account.in_doubt_received,
            "finals_twice": account.finals_twice,
            "kills": self._kills.total(),
            **{f"kills_{role}": self._kills[role] for role in _WEIGHTS},
            "rebalances": self._moves,
            "deferred": account.outcomes["deferred"],
            "replies_lost": account.replies_lost,
            "seconds": round(seconds, 1),
        }
        return Outcome(figures, self._course.policy)
