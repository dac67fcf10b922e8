"""The whole running system for ``latency.py``: Kafka, worker, controller with its senders, a mail server, other
campaigns' results in the background; and the eyes that watch it."""

import asyncio
import contextlib
import json
import math
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import aiohttp
from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks import _latency_background, _latency_sink
from benchmarks._feeding import Feed, feed
from benchmarks._latency_account import Said, SinkLog, gate_closed_at
from benchmarks._latency_load import CONTENT, HANG_DOMAIN, campaign_record, content_record, request
from benchmarks._running import ROOT, Failed, Running, free_port, python, running, say
from cli import secrets
from cli.access import publish
from cli.campaigns import register
from cli.controller_role import local_senders
from cli.settings import as_environment
from policy.naming import campaign_scope, sender_name
from policy.settings import Endpoint, Settings
from schemas.base import Record
from schemas.codec import Malformed, decode, encode
from schemas.reputation import Control, Decision, RatesSnapshot
from schemas.topics import CONTENTS, CONTROL, DECISIONS, RATES, REQUESTS, RESULTS
from streams.producing import Producer
from streams.stopping import stop
from streams.topics import WORKER, create

CONNECTIONS = 4  # of each sender
_READY_WITHIN_S = 90.0
_SENDING_WITHIN_S = 120.0
_CALM_WITHIN_S = 120.0
_LOOK_AGAIN_S = 0.05
_LAG_EVERY_S = 0.5
_KEPT_UP_S = 2.0
_ON_TIME_S = 0.25
_ON_TIME_LOOK_S = 2.0
_WORDS = 3  # of what the background says
_HEARD: dict[str, type[Record]] = {RATES: RatesSnapshot, CONTROL: Control, DECISIONS: Decision}


@dataclass(slots=True)
class Sightings:
    """When, of each campaign, was first published (µs): a snapshot with a trap hit, the control record that says
    isolated, and the decision."""

    snapshot_at: dict[str, int] = field(default_factory=dict)
    control_at: dict[str, int] = field(default_factory=dict)
    told_at: dict[str, int] = field(default_factory=dict)

    def take(self, topic: str, key: str, raw: bytes, at_us: int) -> None:
        """A record of rates, control or decisions."""
        campaign = key.removeprefix(campaign_scope(""))
        seen = {RATES: self.snapshot_at, CONTROL: self.control_at, DECISIONS: self.told_at}[topic]
        if campaign in seen:
            return
        match decode(_HEARD[topic], raw):
            case RatesSnapshot(windows=windows) if not windows["7d"].trap_hit_pristine:
                return
            case Control(state=state) | Decision(to=state) if state != "isolated":
                return
            case Malformed():
                return
        seen[campaign] = at_us


@dataclass(slots=True)
class Background:
    """What the process with the other campaigns' results says, and how far behind the worker was."""

    process: Running
    per_second: float
    frame: int
    lags: list[tuple[float, int]] = field(default_factory=list)  # wall clock, records that were not committed

    @property
    def kept_up(self) -> float:
        """Most frames behind of a worker that keeps up: it commits once a second."""
        return _KEPT_UP_S * self.per_second / self.frame

    def said(self, begin: float, end: float) -> list[Said]:
        """What it said between two moments."""
        lines = [line.split() for line in self.process.log.read_text(errors="replace").splitlines()]
        told = (Said(float(line[0]), int(line[1]), int(line[2])) for line in lines if len(line) == _WORDS)
        return [one for one in told if begin <= one.at <= end]

    def is_on_time(self) -> bool:
        """Does the broker have what is due, but for what is on its way?"""
        latest = self.said(time.time() - _ON_TIME_LOOK_S, math.inf)
        return bool(latest) and latest[-1].missing <= _ON_TIME_S * self.per_second

    def lag_between(self, begin: float, end: float) -> list[int]:
        """The worker's lags of that time."""
        return [lag for at, lag in self.lags if begin <= at <= end]


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """Everything that runs."""

    bootstrap: str
    settings: Settings
    sink: SinkLog
    seen: Sightings
    background: Background
    out: Producer
    roles: "tuple[Running, ...]"
    watched: "tuple[asyncio.Task[None], ...]"

    async def publish(self, topic: str, key: str, record: Record) -> float:
        """Publish one record, without waiting for its acknowledgement; answers the wall clock before."""
        self.must_run()
        at = time.time()
        await self.out.send(topic, key=key.encode(), value=encode(record))
        return at

    def must_run(self) -> None:
        """Raise what went wrong in the background."""
        for role in (*self.roles, self.background.process):
            role.must_run()
        for task in self.watched:
            if task.done():
                task.result()

    async def begin(self, campaigns: Iterable[tuple[str, float]], *, domain: str = "inbox.example") -> None:
        """Make campaigns known, each with its pace, and wait until their senders send."""
        paces = dict(campaigns)
        await register(
            self.bootstrap, [campaign_record(one, per_second=pace) for one, pace in paces.items()], self.settings
        )
        await publish(self.bootstrap, ((CONTENTS, f"{one}/{CONTENT}", content_record(one)) for one in paces))
        for one in paces:
            first = request(one, [f"{one}-first"], request_id=f"{one}-first", domain=domain)
            await self.publish(REQUESTS, first.request_id, first)
        if domain == HANG_DOMAIN:
            return
        deadline = time.monotonic() + _SENDING_WITHIN_S
        while not_yet := [one for one in paces if f"{one}-first" not in self.sink.taken]:
            self.must_run()
            if time.monotonic() > deadline:
                raise Failed(f"no mail of {', '.join(not_yet)} within {_SENDING_WITHIN_S:.0f} s")
            await asyncio.sleep(_LOOK_AGAIN_S)
            self.sink.read()

    async def calm(self) -> None:
        """Wait until background and worker have caught up with what came while senders were started."""
        behind = self.background
        deadline = time.monotonic() + _CALM_WITHIN_S
        while True:
            looks = len(behind.lags)
            while len(behind.lags) < looks + 2:  # the second one was begun after we came
                self.must_run()
                await asyncio.sleep(_LOOK_AGAIN_S)
            if behind.lags[-1][1] <= behind.kept_up and behind.is_on_time():
                return
            if time.monotonic() > deadline:
                raise Failed(f"worker or background do not keep up: {behind.lags[-1][1]:,} frames are not done")

    def gate_closed_at(self, campaign: str) -> int | None:
        """When this campaign's sender said that control had stopped it."""
        return gate_closed_at(Path(str(self.settings.data)) / "senders" / f"{sender_name(campaign)}.0.log")


@contextlib.asynccontextmanager
async def system(
    at: Path,
    bootstrap: str,
    *,
    background: float,
    frame: int,
    others: int,
    seed: int,
    elsewhere: Callable[[Settings], tuple[Settings, Mapping[str, str]]] | None = None,
) -> AsyncIterator[System]:
    """Start everything; ended in the order in which nobody starts anything again.

    Senders are processes beside the controller, unless ``elsewhere`` prepares another place for them and answers the
    settings of the roles then, and the variables that they need beside them.
    """
    sink_port, hang_port = free_port(), free_port()
    settings = _settings(at, bootstrap, sink_port, hang_port)
    more: Mapping[str, str] = {}
    if elsewhere is not None:
        settings, more = await asyncio.to_thread(elsewhere, settings)
    environment = {**as_environment(settings), "PYTHONPATH": str(ROOT), **more}
    sink_log = at / "sink.log"
    sink_log.write_bytes(b"")  # it may hold an earlier run
    names = [f"other-{number}" for number in range(others)]
    orders = {"bootstrap": bootstrap, "campaigns": names, "per_second": background, "frame": frame, "seed": seed}
    await create(bootstrap, settings)
    async with contextlib.AsyncExitStack() as stack:
        sink_orders = json.dumps({"port": sink_port, "hang_port": hang_port, "log": str(sink_log)})
        stack.enter_context(running("sink", python("-m", _latency_sink.__name__, sink_orders), {}, at))
        worker = stack.enter_context(running("worker", python("-m", "cli", "worker"), environment, at))
        stack.push_async_callback(local_senders(settings, bootstrap=bootstrap).stop_all, grace_s=1.0)
        controller = stack.enter_context(running("controller", python("-m", "cli", "controller"), environment, at))
        await _ready(worker, f"http://{settings.web}/readyz")
        await _ready(controller, f"http://{settings.controller_web}/readyz")
        told = await stack.enter_async_context(feed(bootstrap))
        out = Producer(bootstrap_servers=bootstrap, acks="all", linger_ms=0, max_request_size=8_388_608)
        await out.start()
        stack.push_async_callback(out.stop)
        consumer = await _consumer(bootstrap, settings)
        stack.push_async_callback(stop, consumer)
        seen = Sightings()
        say(f"starting {others} other campaigns")
        await register(bootstrap, [campaign_record(name) for name in names], settings)
        process = stack.enter_context(
            running("background", python("-m", _latency_background.__name__, json.dumps(orders)), {}, at)
        )
        behind = Background(process, background, frame)
        watched = (asyncio.create_task(_watch(consumer, seen)), asyncio.create_task(_lags(told, behind)))
        for task in watched:
            stack.callback(task.cancel)
        yield System(
            bootstrap=bootstrap,
            settings=settings,
            sink=SinkLog(sink_log),
            seen=seen,
            background=behind,
            out=out,
            roles=(worker, controller),
            watched=watched,
        )


def _settings(at: Path, bootstrap: str, sink_port: int, hang_port: int) -> Settings:
    data, secret_file = at / "data", at / "secrets.json"
    shutil.rmtree(data, ignore_errors=True)  # of an earlier run
    data.mkdir(mode=0o700)
    secrets.load_or_make(secret_file)
    return replace(
        Settings(),
        kafka=bootstrap,
        data=data,
        secret_file=secret_file,
        backend="process",
        smtp_routes={"*": Endpoint("127.0.0.1", sink_port), HANG_DOMAIN: Endpoint("127.0.0.1", hang_port)},
        web=Endpoint("127.0.0.1", free_port()),
        controller_web=Endpoint("127.0.0.1", free_port()),
        sender_web=Endpoint("127.0.0.1", 0),
        hostname="mta.shop.example",
        egress_check="off",
        connections=CONNECTIONS,
        isolate_percent=100,  # nearly all campaigns here do what isolates them
        outbound_partitions=1,  # one replica each; hundreds of campaigns come and go
        exit_with=os.getpid(),
        log_format="json",
    )


async def _ready(process: Running, url: str) -> None:
    deadline = time.monotonic() + _READY_WITHIN_S
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as http:
        while True:
            process.must_run()
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
                async with http.get(url) as answer:
                    if answer.status == 200:
                        return
            if time.monotonic() > deadline:
                raise Failed(f"{process.name} was not ready within {_READY_WITHIN_S:.0f} s; its log:\n{process.said()}")
            await asyncio.sleep(_LOOK_AGAIN_S)


async def _consumer(bootstrap: str, settings: Settings) -> AIOKafkaConsumer:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest", fetch_max_wait_ms=200
    )
    await consumer.start()
    consumer.assign([TopicPartition(topic, number) for topic in _HEARD for number in range(settings.partitions)])
    return consumer


async def _watch(consumer: AIOKafkaConsumer, seen: Sightings) -> None:
    """Each record bears the time at which its producer was handed it."""
    while True:
        for place, records in (await consumer.getmany(timeout_ms=500)).items():
            for record in records:
                key = (record.key or b"").decode()
                if "trial-" in key and "/" not in key and record.value is not None:
                    seen.take(place.topic, key, record.value, record.timestamp * 1000)


async def _lags(told: Feed, behind: Background) -> None:
    while True:
        lag = await told.lag(WORKER, [RESULTS])
        behind.lags.append((time.time(), lag))
        await asyncio.sleep(_LAG_EVERY_S)
