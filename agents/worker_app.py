"""The worker: validate, tally and judge in one Faust app, with the catalogue they ask and the pages people ask.

Everything is joined here and nothing happens at import: a function makes the app, ``streams.runtime.run`` runs it.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Any, ClassVar

import structlog
from faust.app.base import BootStrategy
from faust.types import StreamT
from faust.types.web import Web
from mode import Service
from mode.types import ServiceT

from agents.groups import EVERY_S as PARTS_EVERY_S
from agents.history import History
from agents.judge import Judge
from agents.ports import Message, now_ms
from agents.reviews import EVERY_S, Reviews
from agents.route import Route
from agents.striking import EVERY_S as STRIKES_EVERY_S
from agents.striking import Striking
from agents.tally import Tally
from agents.validate import Validate
from policy.auditing import sealer
from policy.domain_lists import domain_lists
from policy.settings import Settings, WrongSetting
from policy.tokens import Keys
from schemas.topics import CAMPAIGNS, COMMANDS, FEEDBACK, RATES, REQUESTS, RESULTS
from streams.catalogue import ALL, Catalogue
from streams.kafka_security import credentials, servers_of
from streams.metrics import Metrics
from streams.outbound import OutboundTopics
from streams.outlet import Outlet
from streams.panes import SIZE_S
from streams.runtime import SafeApp, SafeStream, SafeTable
from streams.topics import PANES, PANES_KEPT_S, STANDINGS, WORKER, changelogs, create, shared
from streams.web import Pages

log = structlog.get_logger()

LATE_EVERY_S = 0.25
SNAPSHOTS_EVERY_S = 5.0
WINDOWS_MOVE_EVERY_S = 60.0

OPTIONS: Mapping[str, Any] = {  # Any: Faust's settings are of many types
    # Seconds.  How long the partitions of a worker that died stay with it.
    "broker_session_timeout": 10.0,
    "broker_heartbeat_interval": 1.0,
    # Bytes.  Frames are tens of kilobytes; smaller batches would send each alone.
    "producer_max_batch_size": 524_288,
    # Events.  A request may have a megabyte.
    "stream_buffer_maxsize": 64,
    "web_enabled": True,
}

VALIDATE, TALLY, JUDGE = "validate", "tally", "judge"
PARTS = (VALIDATE, TALLY, JUDGE)

Handle = Callable[[Message], Awaitable[None]]


class WrongPartitions(Exception):  # noqa: N818 - says what is so
    """The broker's topics do not have the partitions that the settings say; tables cannot work so."""


class Preparation(Service):
    """Makes sure of the topics and reads the catalogue, before anything is consumed; stops after it."""

    def __init__(self, app: "WorkerApp", **options: Any) -> None:  # Any: handed through to mode
        self._app = app
        super().__init__(**options)

    async def on_start(self) -> None:
        """Topics first, then the whole catalogue."""
        settings = self._app.settings
        report = await create(self._app.bootstrap, settings, app_id=self._app.conf.id)
        for difference in report.differs:
            log.warning("topic differs", difference=difference)
        for plan in (*shared(settings), *changelogs(settings, self._app.conf.id)):
            has = report.partitions[plan.name]
            if has != plan.partitions:
                raise WrongPartitions(
                    f"topic {plan.name} has {has} partitions and the setting partitions says {plan.partitions}; "
                    f"start the worker with --partitions {has}"
                )
        await self._app.catalogue.start()

    async def on_stop(self) -> None:
        """The last to go."""
        await self._app.catalogue.stop()


class _Boot(BootStrategy):
    """Faust's order of starting, with the preparation before the consumer."""

    def kafka_consumer(self) -> Iterable[ServiceT]:
        app = self.app
        assert isinstance(app, WorkerApp), "set there"  # noqa: S101 - narrows the type
        return [Preparation(app, beacon=app.beacon), *super().kafka_consumer()]


class WorkerApp(SafeApp):
    """The Faust app of a worker, and what its agents and pages share."""

    BootStrategy: ClassVar[type[BootStrategy]] = _Boot

    def __init__(self, app_id: str, *, settings: Settings, bootstrap: str, **options: Any) -> None:  # Any: Faust's
        super().__init__(app_id, **options)
        self.settings = settings
        self.bootstrap = bootstrap
        self.metrics = Metrics()
        self.campaign_changed: list[Callable[[str], None]] = []
        self.catalogue = Catalogue(bootstrap, ALL, client_id=f"{app_id}-catalogue", on_change=self._on_change)

    def on_webserver_init(self, web: Web) -> None:
        """Serve our own pages beside nothing of Faust's."""
        pages = Pages(catalogue=self.catalogue, runtime=self, metrics=self.metrics)
        server: Any = web  # Any: the interface leaves out aiohttp's application
        pages.attach(server.web_app)

    def _on_change(self, topic: str, key: str) -> None:
        if topic == CAMPAIGNS:
            for tell in self.campaign_changed:
                tell(key)


def worker_app(
    settings: Settings,
    keys: Keys,
    *,
    bootstrap: str | None = None,
    app_id: str = WORKER,
    instance_id: str | None = None,
    parts: Collection[str] = PARTS,
    options: Mapping[str, Any] | None = None,  # Any: Faust's settings
) -> WorkerApp:
    """Make a worker.  ``bootstrap`` is for an embedded broker; otherwise the setting ``kafka`` is taken.

    ``instance_id`` makes it a static member of the group: started again within ten seconds, even after a kill, it
    gets its partitions back without a rebalance of the others.  Two workers must never share one.  ``parts`` leaves
    out what is not to be measured.
    """
    servers = bootstrap or servers_of(settings)
    if not servers:
        raise WrongSetting("kafka: a worker needs a broker; set MAILCORDON_KAFKA (--kafka) to host:port")
    static = {} if instance_id is None else {"consumer_group_instance_id": instance_id}
    app = WorkerApp(
        app_id,
        settings=settings,
        bootstrap=servers,
        broker=";".join(f"kafka://{server.strip()}" for server in servers.split(",")),
        broker_credentials=credentials(servers),
        web_bind=settings.web.host,
        web_port=settings.web.port,
        topic_replication_factor=settings.replication,
        topic_partitions=settings.partitions,
        **{**OPTIONS, **static, **(options or {})},
    )
    outlet = Outlet(app, app.metrics)
    if VALIDATE in parts:
        _attach_validate(app, outlet, keys)
    if TALLY in parts:
        _attach_tally(app, outlet, keys)
    if JUDGE in parts:
        _attach_judge(app, outlet, keys)
    return app


def _attach_validate(app: WorkerApp, outlet: Outlet, keys: Keys) -> None:
    validate = Validate(
        known=app.catalogue,
        outlet=outlet,
        route=Route(outlet, OutboundTopics(app.bootstrap, app.settings)),
        keys=keys,
        metrics=app.metrics,
        recycled=app.catalogue.recycled,
        lists=domain_lists(app.settings.allow_domains, app.settings.deny_domains),
        heard_of=app.catalogue.heard_of,
    )
    _agent(app, "validate", REQUESTS, validate.handle)


def _attach_tally(app: WorkerApp, outlet: Outlet, keys: Keys) -> None:
    partitions = app.settings.partitions
    table = app.panes(PANES, partitions=partitions, size_s=SIZE_S, expires_s=PANES_KEPT_S)
    tally = Tally(
        table=table,
        known=app.catalogue,
        history=History(app.catalogue.suppressions, keys=keys, trap=app.catalogue.trap),
        outlet=outlet,
        metrics=app.metrics,
        partitions=partitions,
        dead_days=app.settings.hard_suppression_days,
    )
    table.on_recover(tally.rebuild)
    _agent(app, "tally-results", RESULTS, tally.results)
    _agent(app, "tally-feedback", FEEDBACK, tally.feedback)
    _timer(app, LATE_EVERY_S, "late snapshots", tally.snapshots.late)
    _timer(app, SNAPSHOTS_EVERY_S, "snapshots", tally.snapshots.providers)
    _timer(app, WINDOWS_MOVE_EVERY_S, "windows", tally.snapshots.moved)
    _timer(app, PARTS_EVERY_S, "parts", tally.parts.publish)
    striking = Striking(app.catalogue, outlet, days=app.settings.soft_suppression_days)

    async def strikes(now: int) -> None:
        await striking.act(now, leads=app.is_leader())

    _timer(app, STRIKES_EVERY_S, "strikes", strikes)


def _attach_judge(app: WorkerApp, outlet: Outlet, keys: Keys) -> None:
    partitions = app.settings.partitions
    standings: SafeTable = app.table(STANDINGS, partitions=partitions)
    judge = Judge(
        standings=standings,
        known=app.catalogue,
        outlet=outlet,
        metrics=app.metrics,
        partitions=partitions,
        isolate_share=app.settings.isolate_percent / 100,
        isolate_at_least=app.settings.isolate_at_least,
        seal=sealer(keys),
    )
    _agent(app, "judge-rates", RATES, judge.rates)
    _agent(app, "judge-commands", COMMANDS, judge.commands)
    reviews = Reviews(app.catalogue, outlet)
    app.campaign_changed.append(reviews.changed)

    async def review(now: int) -> None:
        if app.is_leader():
            await reviews.ask(now)

    _timer(app, EVERY_S, "reviews", review)


def _agent(app: WorkerApp, name: str, topic: str, handle: Handle) -> None:
    """One agent: each event is done when it was handled, or never."""

    async def act(stream: StreamT[bytes]) -> None:
        assert isinstance(stream, SafeStream), "set by the app"  # noqa: S101 - narrows the type
        async for event in stream.held():
            with app.metrics.handling(name):
                await handle(event.message)

    app.agent(app.topic(topic, partitions=app.settings.partitions), name=name)(act)


def _timer(app: WorkerApp, every_s: float, name: str, act: Callable[[int], Awaitable[object]]) -> None:
    """Do something now and then, while this worker has its partitions."""

    async def tick() -> None:
        if app.is_ready:
            await act(now_ms())

    app.timer(every_s, name=name)(tick)
