"""The controller: the control agent and the reconciler in one Faust app, with the catalogue that is their truth.

Everything is joined here and nothing happens at import: a function makes the app, ``streams.runtime.run`` runs it.
Two controllers may run: each knows all decisions, and the place where senders run refuses the older of two.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import msgspec
import structlog
from aiohttp import web
from faust.app.base import BootStrategy
from faust.types.web import Web
from mode import Service
from mode.types import ServiceT
from prometheus_client import generate_latest

from agents.control import attach_control
from agents.places import MakeCluster
from agents.ports import now_ms
from agents.registering import Registrar
from agents.setting_aside import Aside
from k8s.cluster import Cluster
from k8s.metrics import Metrics
from k8s.reconcile import Habits, Reconciler
from policy.brakes import is_pulled
from policy.settings import Settings, WrongSetting
from schemas.topics import BRAKES, CAMPAIGNS, CONTROL
from streams.catalogue import Catalogue
from streams.kafka_security import credentials, servers_of
from streams.metrics import Metrics as StreamMetrics
from streams.outlet import Outlet
from streams.runtime import SafeApp
from streams.topics import create

log = structlog.get_logger()

CONTROLLER = "mailcordon.controller"  # the Faust app of the controllers: their consumer group

HEARD_WITHIN_S = 10.0
HANGS_AFTER_S = 300.0

OPTIONS: Mapping[str, Any] = {  # Any: Faust's settings are of many types
    "broker_session_timeout": 10.0,
    "broker_heartbeat_interval": 1.0,
    "web_enabled": True,
}

_encode = msgspec.json.Encoder().encode


class Work(Service):
    """Reads the catalogue, reaches the place where senders run, and reconciles until the app stops."""

    def __init__(self, app: "ControllerApp", **options: Any) -> None:  # Any: handed through to mode
        self._app = app
        self._cluster: Cluster | None = None
        self._reconciling: asyncio.Task[None] | None = None
        super().__init__(**options)

    async def on_start(self) -> None:
        """Topics and the whole catalogue first: half of the decisions are none to act on."""
        app = self._app
        for difference in (await create(app.bootstrap, app.settings)).differs:
            log.warning("topic differs", difference=difference)
        await app.catalogue.start()
        self._cluster = app.cluster = await app.make_cluster(app.metrics)
        app.reconciler = Reconciler(
            self._cluster,
            app.catalogue,
            now=now_ms,
            chance=random.random,
            habits=app.habits,
            metrics=app.metrics,
            paused=app.is_paused,
            registrar=Registrar(app.bootstrap, app.settings, Outlet(app, app.stream_metrics)),
        )
        self._reconciling = asyncio.create_task(self._reconcile(app.reconciler), name="reconcile")

    async def on_stop(self) -> None:
        """Senders go on; what is left to do is found by the next controller."""
        if self._reconciling is not None:
            self._reconciling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reconciling
        if self._cluster is not None:
            await self._cluster.close()
        await self._app.catalogue.stop()

    async def _reconcile(self, reconciler: Reconciler) -> None:
        """A reconciler that ends has a bug: so does the process, and another one begins anew."""
        try:
            await reconciler.run()
        except Exception as error:  # noqa: BLE001 - handed on, to end the app with its cause
            await self.crash(error)


class _Boot(BootStrategy):
    """Faust's order of starting, with our work before the consumer."""

    def kafka_consumer(self) -> Iterable[ServiceT]:
        app = self.app
        assert isinstance(app, ControllerApp), "set there"  # noqa: S101 - narrows the type
        return [Work(app, beacon=app.beacon), *super().kafka_consumer()]


class ControllerApp(SafeApp):
    """The Faust app of a controller, and what its parts share."""

    BootStrategy: ClassVar[type[BootStrategy]] = _Boot

    def __init__(
        self,
        app_id: str,
        *,
        settings: Settings,
        bootstrap: str,
        make_cluster: MakeCluster,
        habits: Habits,
        **options: Any,  # Any: Faust's settings
    ) -> None:
        super().__init__(app_id, **options)
        self.settings, self.bootstrap, self.make_cluster, self.habits = settings, bootstrap, make_cluster, habits
        self.metrics, self.stream_metrics = Metrics(), StreamMetrics()
        self.reconciler: Reconciler | None = None
        self.cluster: Cluster | None = None
        self.catalogue = Catalogue(
            bootstrap, (CAMPAIGNS, CONTROL, BRAKES), client_id=f"{app_id}-catalogue", on_change=self._on_change
        )

    def on_webserver_init(self, web: Web) -> None:
        """Serve our own pages beside nothing of Faust's."""
        server: Any = web  # Any: the interface leaves out aiohttp's application
        Pages(self).attach(server.web_app)

    def lacks(self) -> list[str]:
        """What this controller cannot do its work for now."""
        since = None if self.reconciler is None else self.reconciler.since_resync_s()
        found = []
        if not self.is_ready:
            found.append("mail.control is not consumed: partitions are being handed over")
        if time.monotonic() - self.catalogue.heard_at() > HEARD_WITHIN_S:
            found.append("the catalogue has not caught up with its topics")
        if since is None or since > 3 * self.habits.resync_s + self.habits.pass_within_s:
            found.append("senders and decisions have not been compared lately: is the place where they run reachable?")
        return found

    def notes(self) -> list[str]:
        """What the place where senders run lacks, and the fix; decisions reach the senders without it."""
        return [] if self.cluster is None else list(self.cluster.notes())

    def is_paused(self) -> bool:
        """Is the brake on the automation pulled?"""
        return is_pulled(self.catalogue.brakes, "automation")

    def _on_change(self, topic: str, key: str) -> None:
        if self.reconciler is None:
            return
        if topic == BRAKES:
            self.reconciler.wake_all()
        else:
            self.reconciler.wake(key)


class Pages:
    """Health, readiness and metrics of a controller."""

    def __init__(self, app: ControllerApp) -> None:
        self._app = app

    def attach(self, app: web.Application) -> None:
        """Serve the pages in a web application."""
        for path, page in (("/healthz", self.healthz), ("/readyz", self.readyz), ("/metrics", self.metrics)):
            app.router.add_get(path, page)

    async def healthz(self, _request: web.Request) -> web.Response:
        """Whether waiting can help: 503 asks for a restart.  A cluster that is away is no reason."""
        open_s = self._app.oldest_open_s(time.monotonic())
        alive = open_s < HANGS_AFTER_S
        return _json({"alive": alive, "oldest_open_event_s": round(open_s, 1)}, status=200 if alive else 503)

    async def readyz(self, _request: web.Request) -> web.Response:
        """Whether decisions reach the senders by this controller."""
        lacks = self._app.lacks()
        return _json({"ready": not lacks, "lacks": lacks, "notes": self._app.notes()}, status=503 if lacks else 200)

    async def metrics(self, _request: web.Request) -> web.Response:
        """Everything in ``k8s.metrics``, and the streams' share of ``streams.metrics``."""
        app = self._app
        app.stream_metrics.catalogue_heard_ago.set(time.monotonic() - app.catalogue.heard_at())
        app.stream_metrics.catalogue_malformed.set(app.catalogue.malformed)
        app.stream_metrics.ready.set(not app.lacks())
        app.stream_metrics.oldest_open.set(app.oldest_open_s(time.monotonic()))
        body = generate_latest(app.metrics.registry) + app.stream_metrics.text()
        return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4"})


class _Woken:
    """The reconciler as the agent sees it: it may be asked before there is one, and then all is looked at anyway."""

    def __init__(self, app: ControllerApp) -> None:
        self._app = app

    def heard(self, control: Any) -> None:  # Any: handed through
        if self._app.reconciler is not None:
            self._app.reconciler.heard(control)

    def forgotten(self, campaign: str) -> None:
        if self._app.reconciler is not None:
            self._app.reconciler.forgotten(campaign)


def controller_app(
    settings: Settings,
    *,
    make_cluster: MakeCluster,
    bootstrap: str | None = None,
    app_id: str = CONTROLLER,
    habits: Habits | None = None,
    options: Mapping[str, Any] | None = None,  # Any: Faust's settings
) -> ControllerApp:
    """Make a controller; ``make_cluster`` is one of ``agents.places``.

    ``bootstrap`` is for an embedded broker; otherwise the setting ``kafka`` is taken.
    """
    servers = bootstrap or servers_of(settings)
    if not servers:
        raise WrongSetting("kafka: a controller needs a broker; set MAILCORDON_KAFKA (--kafka) to host:port")
    app = ControllerApp(
        app_id,
        settings=settings,
        bootstrap=servers,
        make_cluster=make_cluster,
        habits=habits or Habits(grace_s=settings.grace_s, most_replicas=settings.outbound_partitions),
        broker=";".join(f"kafka://{server.strip()}" for server in servers.split(",")),
        broker_credentials=credentials(servers),
        web_bind=settings.controller_web.host,
        web_port=settings.controller_web.port,
        topic_replication_factor=settings.replication,
        topic_partitions=settings.partitions,
        **{**OPTIONS, **(options or {})},
    )
    aside = Aside(Outlet(app, app.stream_metrics), app.stream_metrics)
    attach_control(app, partitions=settings.partitions, reconciler=_Woken(app), aside=aside)
    return app


def _json(view: object, *, status: int = 200) -> web.Response:
    return web.Response(body=_encode(view), status=status, content_type="application/json", charset="utf-8")
