"""Servers on loopback that encrypt, or fail at it: SMTP with STARTTLS, policy hosts with HTTPS, signed zones."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass, field

from aiohttp import web

from smtp.tls.secure_dns import asking_for_ad
from tests.doubles.name_server import Hasty, NameServer, serving

OFFER = b"250-mx.example\r\n250-STARTTLS\r\n250 SIZE 1000000\r\n"
NO_OFFER = b"250-mx.example\r\n250 SIZE 1000000\r\n"


@dataclass
class StartTls:
    """A mail server whose way through STARTTLS is written out; ``heard`` in clear, ``safe`` encrypted."""

    context: ssl.SSLContext | None = None
    ehlo: bytes = OFFER
    ehlo_safe: bytes = NO_OFFER
    starttls: bytes = b"220 go ahead\r\n"
    after_220: bytes = b""  # in clear, in a flight of its own
    heard: list[bytes] = field(default_factory=list)
    safe: list[bytes] = field(default_factory=list)
    asked_for: list[str | None] = field(default_factory=list)
    connections: int = 0
    port: int = 0

    @property
    def all_heard(self) -> list[bytes]:
        return self.heard + self.safe

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        is_safe, in_data = False, False
        writer.write(b"220 mx.example ESMTP\r\n")
        while line := await reader.readline():
            if in_data:
                in_data = line != b".\r\n"
                if not in_data:
                    writer.write(b"250 2.0.0 queued\r\n")
                continue
            (self.safe if is_safe else self.heard).append(line)
            match line.split()[0].upper():
                case b"EHLO":
                    writer.write(self.ehlo_safe if is_safe else self.ehlo)
                case b"STARTTLS":
                    writer.write(self.starttls)
                    await writer.drain()
                    if self.starttls.startswith(b"220") and not await self._encrypt(writer):
                        return
                    is_safe = self.starttls.startswith(b"220")
                case b"DATA":
                    in_data = True
                    writer.write(b"354 go\r\n")
                case b"QUIT":
                    writer.write(b"221 bye\r\n")
                    return
                case _:
                    writer.write(b"250 2.1.0 Ok\r\n")

    async def _encrypt(self, writer: asyncio.StreamWriter) -> bool:
        if self.after_220:
            await asyncio.sleep(0.02)  # lets the 220 be read alone
            writer.write(self.after_220)
            await writer.drain()
        if self.context is None:
            return False
        self.context.sni_callback = lambda _, name, __: self.asked_for.append(name)
        await writer.start_tls(self.context)
        return True


@contextlib.asynccontextmanager
async def start_tls_server(server: StartTls) -> AsyncIterator[StartTls]:
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with contextlib.suppress(ConnectionError, ssl.SSLError, asyncio.CancelledError):
            await server.serve(reader, writer)
        tasks.discard(task)
        writer.transport.abort()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


@dataclass
class PolicyServer:
    """A policy host: what it answers, and what it was asked."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "text/plain"})
    silent: bool = False
    asked: list[str] = field(default_factory=list)
    port: int = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(f"{request.host.partition(':')[0]}{request.path}")
        if self.silent:
            await asyncio.sleep(30)
        return web.Response(body=self.body, status=self.status, headers=self.headers)


@contextlib.asynccontextmanager
async def policy_server(server: PolicyServer, context: ssl.SSLContext) -> AsyncIterator[PolicyServer]:
    app = web.Application()
    app.router.add_get("/{path:.*}", server.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    server.port = runner.addresses[0][1]
    try:
        yield server
    finally:
        await runner.cleanup()


class SignedZone(NameServer):
    """A validating resolver's answers; the test may change its records and what of them is signed."""

    records: dict[tuple[str, str], str | list[str]]

    def __init__(self, records: Mapping[tuple[str, str], str | list[str]], signed: Collection[str]) -> None:
        super().__init__(dict(records), signed=signed)


@contextlib.asynccontextmanager
async def signed_zone(
    records: Mapping[tuple[str, str], str | list[str]], *, signed: set[str] | None = None
) -> AsyncIterator[tuple[Hasty, SignedZone]]:
    zone = SignedZone(records, signed or set())
    async with serving(zone) as resolver:
        yield Hasty(asking_for_ad(resolver), most_s=0.4), zone
