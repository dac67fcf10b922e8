"""The demo's course: start everything, send two lists, watch, draw up the account, end everything."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from agents.ports import now_ms
from cli import broker as brokers
from cli import kafka, secrets
from cli import recipients as recipient_lists
from cli.access import producer, publish
from cli.account import Account, Delivery, draw_up
from cli.campaigns import register
from cli.controller_role import local_senders
from cli.demo import lists
from cli.demo.show import Show
from cli.demo.watch import Watch
from cli.failures import OutsideFailed
from cli.settings import KAFKA, as_environment, data_folder, variable
from cli.supervisor import Program, Supervisor
from policy.naming import campaign_name
from policy.settings import Endpoint, Settings
from policy.tokens import Ticket, campaign_ref, read_return_path
from schemas.codec import encode
from schemas.sending import Campaign, Content, Mailbox, Pace
from schemas.topics import CONTENTS, REQUESTS
from smtp.simulate import read_logs
from streams.topics import create

GOOD, BAD = "spring-sale", "bought-list"
CONTENT = "hello-1"
_QUIET_S = 4.0  # a stopped campaign without news for so long has come to rest
_NEVER_S = 600.0


@dataclass(frozen=True, slots=True)
class Course:
    """What kind of demo is wanted."""

    scale: float
    seed: int
    report: Path | None
    stay: bool
    in_doubt: str
    per_second: float
    keep: bool


@dataclass(frozen=True, slots=True)
class Stage:
    """The folders and addresses of one run."""

    folder: Path
    settings: Settings
    environment: dict[str, str]


async def run(settings: Settings, course: Course) -> bool:
    """Run the demo; True if the account closes and the bad campaign alone was isolated."""
    began = time.monotonic()
    data = data_folder(settings)
    folder = data / "demo" / time.strftime("%Y%m%d-%H%M%S") / str(os.getpid())
    for name in ("logs", "providers", "lists"):
        (folder / name).mkdir(parents=True)
    show = Show(settings)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for which in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(which, stop.set)
    supervisor = Supervisor(show.say, pids_file=folder / "roles.json")
    stage: Stage | None = None
    with contextlib.ExitStack() as stack:
        secret_file = settings.secret_file or folder / "secrets.json"
        secrets.load_or_make(secret_file)
        show.say(f"starting Apache Kafka {kafka.VERSION} ...")
        started = brokers.started(folder / "kafka", data=data, secret_file=secret_file, say=show.say)
        own_kafka = await asyncio.to_thread(stack.enter_context, started)
        guard = asyncio.create_task(_keep_broker(own_kafka, show.say))
        try:
            stage = _stage(settings, folder, secret_file, own_kafka.bootstrap)
            course_run = asyncio.create_task(_course(stage, course, show, supervisor, began))
            stopped = asyncio.create_task(stop.wait())
            await asyncio.wait({course_run, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not course_run.done():
                course_run.cancel()
                await asyncio.gather(course_run, return_exceptions=True)
                show.say("stopped before the end: no account")
                return False
            closes = course_run.result()
            if course.stay and not stop.is_set():
                show.say(f"everything stays up: http://{stage.settings.web}/stats/ (Ctrl-C ends it all)")
                await stop.wait()
            return closes
        finally:
            show.close()
            show.say("ending everything ...")
            guard.cancel()
            if stage is not None:
                await supervisor.stop("controller")  # first, or it would start the senders again
                await local_senders(stage.settings, bootstrap=own_kafka.bootstrap).stop_all(grace_s=4.0)
            await supervisor.stop()
            await asyncio.to_thread(stack.close)
            if not course.keep:
                shutil.rmtree(folder / "kafka", ignore_errors=True)


async def _course(stage: Stage, course: Course, show: Show, supervisor: Supervisor, began: float) -> bool:
    bootstrap = str(stage.settings.kafka)
    await create(bootstrap, stage.settings)
    await _start_roles(stage, supervisor, show)
    campaigns = _campaigns(course)
    await register(bootstrap, campaigns, stage.settings)
    await publish(bootstrap, ((CONTENTS, f"{one.campaign}/{CONTENT}", _content(one.campaign)) for one in campaigns))
    watch = Watch(bootstrap, [one.campaign for one in campaigns])
    await watch.start()
    try:
        requested = await _send_all(bootstrap, stage, course)
        show.begin(watch, {name: len(ids) for name, ids in requested.items()})
        await _settled(watch, requested, show)
        accounts = _accounts(stage, watch, requested)
    finally:
        await watch.stop()
    show.close()
    wall_s = time.monotonic() - began
    return _report(accounts, course, show, wall_s)


def _stage(settings: Settings, folder: Path, secret_file: Path, bootstrap: str) -> Stage:
    domains = (*lists.PROVIDERS, lists.TRAP_DOMAIN)
    web_port, *ports = kafka.free_ports(4 + len(domains))
    if settings.web.port != 0 and kafka.is_free(settings.web.port, settings.web.host):
        web_port = settings.web.port
    controller_web, return_path, return_path_web, *hops = (Endpoint("127.0.0.1", port) for port in ports)
    simulated = dict(zip(domains, hops, strict=True))
    staged = replace(
        settings,
        kafka=bootstrap,
        data=folder,
        secret_file=secret_file,
        backend="process",
        smtp_routes={**simulated, "*": simulated["other.example"]},
        providers={
            "gmail.example": "google",
            "outlook.example": "microsoft",
            "yahoo.example": "yahoo",
            "icloud.example": "apple",
            "web.example": "gmx",
        },
        trap_domains=(lists.TRAP_DOMAIN,),
        web=Endpoint(settings.web.host, web_port),
        controller_web=controller_web,
        return_path=return_path,
        return_path_web=return_path_web,
        sender_web=Endpoint("127.0.0.1", 0),
        hostname="mta.shop.example",
        exit_with=os.getpid(),
        log_level="info",
    )
    plain = {variable(name): "" for name in KAFKA if name != "kafka"}  # whatever this machine says of another Kafka
    return Stage(folder, staged, as_environment(staged) | plain)


async def _start_roles(stage: Stage, supervisor: Supervisor, show: Show) -> None:
    settings = stage.settings
    simulated = [
        option
        for domain, where in settings.smtp_routes.items()
        if domain != "*"
        for option in ("--listen", f"{domain}={where}")
    ]
    programs = {
        "providers": (
            [
                "simulate-providers",
                *simulated,
                "--log-folder",
                str(stage.folder / "providers"),
                "--hand-back-to",
                str(settings.return_path),
            ],
            None,
        ),
        "return-path": (["return-path"], f"http://{settings.return_path_web}/readyz"),
        "worker": (["worker"], f"http://{settings.web}/readyz"),
        "controller": (["controller"], f"http://{settings.controller_web}/readyz"),
    }
    for name, (arguments, ready) in programs.items():
        await supervisor.start(
            Program(
                name=name,
                command=[sys.executable, "-m", "cli", *arguments],
                environment=stage.environment,
                log=stage.folder / "logs" / f"{name}.log",
                ready=ready,
            )
        )
    show.say(f"starting {', '.join(programs)}; logs in {stage.folder / 'logs'}")
    await supervisor.ready(*programs)
    show.say(f"Kafka at {settings.kafka}, statistics at http://{settings.web}/stats/")


def _campaigns(course: Course) -> list[Campaign]:
    return [
        Campaign(
            campaign=name,
            tenant="shop",
            from_=Mailbox(name="The Shop", address="news@shop.example"),
            sending_domains=["shop.example"],
            return_path_domain="bounces.shop.example",
            in_doubt="resend" if course.in_doubt == "resend" else "hold",
            pace=Pace(per_second=course.per_second),
        )
        for name in (GOOD, BAD)
    ]


def _content(campaign: str) -> Content:
    return Content(
        campaign=campaign,
        content=CONTENT,
        subject="{{name}}, spring is here",
        text="Dear {{name}},\n\neverything for the garden is 20 % off until Sunday.\n\nThe Shop\n",
        html="<p>Dear {{name}},</p><p>everything for the garden is <b>20 % off</b> until Sunday.</p><p>The Shop</p>\n",
        headers={"List-Id": f"<{campaign}.shop.example>"},
    )


async def _send_all(bootstrap: str, stage: Stage, course: Course) -> dict[str, set[str]]:
    requested: dict[str, set[str]] = {}
    mixes = {GOOD: lists.SPRING_SALE, BAD: lists.BOUGHT_LIST}
    async with producer(bootstrap) as out:
        for number, (campaign, mix) in enumerate(mixes.items()):
            file = stage.folder / "lists" / f"{campaign}.csv"
            lists.write(file, lists.scaled(mix, course.scale), course.seed + number, campaign)
            ids: set[str] = set()
            found = recipient_lists.read(file, CONTENT)
            for request in recipient_lists.requests(campaign, CONTENT, found):
                ids.update(str(one.message_id) for one in request.recipients)
                await out.send(REQUESTS, key=request.request_id.encode(), value=encode(request))
            requested[campaign] = ids
        await out.flush()
    return requested


async def _settled(watch: Watch, requested: dict[str, set[str]], show: Show) -> None:
    """Wait until every campaign has come to its end, or to rest behind its isolation."""
    deadline = time.monotonic() + _NEVER_S
    while not all(_at_rest(watch, name, ids) for name, ids in requested.items()):
        if time.monotonic() > deadline:
            raise OutsideFailed(f"the campaigns did not come to an end within {_NEVER_S:.0f} s")
        show.refresh()
        await asyncio.sleep(0.25)
    show.refresh()


def _at_rest(watch: Watch, campaign: str, ids: set[str]) -> bool:
    books = watch.books[campaign]
    if ids <= books.final.keys():
        return True
    accounted = books.final.keys() | books.waiting
    return books.stopped and ids <= accounted and time.monotonic() - watch.moved_at[campaign] > _QUIET_S


def _accounts(stage: Stage, watch: Watch, requested: dict[str, set[str]]) -> dict[str, Account]:
    keys = secrets.load_or_make(Path(str(stage.settings.secret_file)))
    names = {campaign_ref(campaign): campaign_name(campaign) for campaign in requested}

    def campaign_of(mail_from: str) -> str | None:
        ticket = read_return_path(keys, mail_from, now=now_ms())
        return names.get(ticket.campaign_ref) if isinstance(ticket, Ticket) else None

    deliveries = [
        Delivery(one.campaign_name, one.message_token, one.mail_from_at, one.event == "accepted")
        for one in read_logs(stage.folder / "providers", campaign_of=campaign_of)
    ]
    return {name: draw_up(ids, watch.books[name], deliveries) for name, ids in requested.items()}


def _report(accounts: dict[str, Account], course: Course, show: Show, wall_s: float) -> bool:
    bad = accounts[BAD]
    last_ms = None
    if bad.deciding_event_at is not None and bad.last_mail_from is not None:
        last_ms = max(0, bad.last_mail_from - bad.deciding_event_at)
    closes = all(one.closes for one in accounts.values())
    right = bad.state == "isolated" and accounts[GOOD].isolated_at is None
    report = {
        "campaigns": {name: one.as_report() for name, one in accounts.items()},
        "event_to_last_mail_from_ms": last_ms,
        "wall_s": round(wall_s, 1),
        "kafka": kafka.VERSION,
    }
    if course.report is not None:
        course.report.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    show.account(accounts, last_ms, wall_s, closes=closes, right=right)
    return closes and right


async def _keep_broker(own: kafka.EmbeddedKafka, say: Callable[[str], None]) -> None:
    """Start the broker again when it was killed, as whoever runs it in production would."""
    while True:
        await asyncio.sleep(0.5)
        try:
            os.kill(own.pid, 0)
        except (OSError, RuntimeError):
            say("the broker is gone: starting it again")
            await asyncio.to_thread(own.kill)
            await asyncio.to_thread(own.start)
