"""The pages beside a process: asked over HTTP, as Prometheus and the kubelet ask."""

from collections.abc import AsyncIterator

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Counter

from policy.settings import Endpoint
from streams.probe import Probe


class Beside:
    """A process whose state the test says."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.trouble: str | None = None
        self.unready: str | None = None
        self.probe = Probe(
            Endpoint("127.0.0.1", 0),
            self.registry,
            unhealthy=lambda: self.trouble,
            unready=lambda: self.unready,
        )

    async def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, f"http://127.0.0.1:{self.probe.port}{path}") as response,
        ):
            return response.status, await response.text()


@pytest.fixture
async def beside() -> AsyncIterator[Beside]:
    one = Beside()
    await one.probe.start()
    yield one
    await one.probe.stop()


async def test_metrics_are_those_of_the_registry(beside: Beside) -> None:
    Counter("things_total", "things", ["kind"], registry=beside.registry).labels("odd").inc(3)
    status, text = await beside.get("/metrics")
    assert status == 200
    assert 'things_total{kind="odd"} 3.0' in text


@pytest.mark.parametrize(("path", "field"), [("/healthz", "trouble"), ("/readyz", "unready")])
async def test_what_is_wrong_is_said_with_503(beside: Beside, path: str, field: str) -> None:
    assert await beside.get(path) == (200, '{"ok": true, "why": null}')
    setattr(beside, field, "the ledger is not read yet")
    assert await beside.get(path) == (503, '{"ok": false, "why": "the ledger is not read yet"}')


async def test_it_takes_no_orders(beside: Beside) -> None:
    assert (await beside.get("/healthz", "POST"))[0] == 405
    assert (await beside.get("/stop"))[0] == 404
