"""The pages beside a process: asked over HTTP, as Prometheus and the kubelet ask."""

import asyncio
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


async def test_a_scraper_asks_as_often_as_it_likes(beside: Beside) -> None:
    async with aiohttp.ClientSession() as session:
        for _ in range(3):
            async with session.get(f"http://127.0.0.1:{beside.probe.port}/healthz?from=kubelet") as response:
                assert response.status == 200


async def test_head_says_how_long_the_page_is_and_leaves_it_out(beside: Beside) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.head(f"http://127.0.0.1:{beside.probe.port}/readyz") as response,
    ):
        assert (response.status, response.headers["Content-Length"], await response.read()) == (200, "25", b"")


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"hello\r\n\r\n", b"400"),
        (b"GET /healthz\r\n\r\n", b"400"),
        (b"\xff\x00 /healthz HTTP/1.1\r\n\r\n", b"405"),
        (b"GET /healthz HTTP/1.1\r\nX: " + 20_000 * b"x" + b"\r\n\r\n", b"431"),
        (b"GET /healthz HTTP/1.0\r\n\r\n", b"200"),
    ],
    ids=["no request", "HTTP/0.9", "no method", "endless", "HTTP/1.0"],
)
async def test_whatever_is_said_gets_an_answer_and_the_end(beside: Beside, said: bytes, status: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", beside.probe.port)
    writer.write(said)
    answer = await reader.read()
    writer.close()

    assert answer.split(b" ")[1] == status


async def test_whoever_says_nothing_holds_nothing_up(beside: Beside) -> None:
    silent = [await asyncio.open_connection("127.0.0.1", beside.probe.port) for _ in range(3)]
    assert (await beside.get("/healthz"))[0] == 200
    await beside.probe.stop()
    for reader, writer in silent:
        assert await reader.read() == b""
        writer.close()


async def test_connections_beyond_the_bound_are_closed_at_once(beside: Beside) -> None:
    held = [await asyncio.open_connection("127.0.0.1", beside.probe.port) for _ in range(40)]
    closed = await asyncio.wait(
        [asyncio.ensure_future(reader.read()) for reader, _ in held], return_when=asyncio.FIRST_COMPLETED
    )
    assert closed[0]
    for task in closed[1]:
        task.cancel()
    for _, writer in held:
        writer.close()
