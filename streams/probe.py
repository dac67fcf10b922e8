"""A small web server beside a process that is no Faust app: metrics, and whether it lives and is ready.

It says nothing that is secret and takes no orders: three pages, GET only.
"""

from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from policy.settings import Endpoint

Trouble = Callable[[], str | None]


class Probe:
    """``/metrics``, ``/healthz``, ``/readyz``; ``unhealthy`` and ``unready`` answer what is wrong, None for nothing."""

    def __init__(self, where: Endpoint, registry: CollectorRegistry, *, unhealthy: Trouble, unready: Trouble) -> None:
        self._where = where
        self._registry = registry
        application = web.Application()
        application.router.add_get("/metrics", self._metrics)
        application.router.add_get("/healthz", _page(unhealthy))
        application.router.add_get("/readyz", _page(unready))
        self._runner = web.AppRunner(application, access_log=None)
        self.port = where.port

    async def start(self) -> None:
        """Listen; ``port`` says where, if any free port was asked for."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._where.host, self._where.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _page(trouble: Trouble) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def page(_: web.Request) -> web.Response:
        why = trouble()
        return web.json_response({"ok": why is None, "why": why}, status=503 if why else 200)

    return page
