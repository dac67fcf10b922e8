"""A server for a few kinds of requests from strangers: bounded in every way, one request per connection.

What a request means is for ``answer`` to say; here stand the limits, TLS with a certificate that is read anew, and who
asks.  There is no Application behind it: its router answers some requests itself, past every limit.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from policy.settings import Endpoint
from smtp.certificates import Certificate
from smtp.gate import Gate, Limits, client_of
from smtp.http_guard import Entrance

_http_log = logging.getLogger("mailcordon.http")
_http_log.addFilter(lambda record: not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError)))
"""What is no HTTP is answered 400 and not logged: it is a stranger's text, with a whole link in it perhaps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebLimits:
    """What a server takes from strangers; a client is one IPv4 address or one IPv6 /64.

    Connections times ``body_bytes`` is what strangers can have us hold in memory.
    """

    requests_per_minute: int = 6_000  # a provider posts for all its users from few addresses
    connections: int = 500
    connections_per_client: int = 100
    body_bytes: int = 8_192
    line_bytes: int = 4_096
    field_bytes: int = 8_190
    body_s: float = 10.0
    publish_s: float = 20.0
    handshake_s: float = 10.0
    connection_s: float = 60.0


class HttpServer:
    """Without ``certificate`` it speaks plain HTTP, and takes the client from X-Forwarded-For.

    ``endpoint`` is where it listens, after ``start`` with the port that it got.  ``refused`` is told of each connection
    that is one too many.
    """

    def __init__(
        self,
        listen: Endpoint,
        answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        *,
        refused: Callable[[], None],
        limits: WebLimits,
        certificate: Certificate | None,
        look_every_s: float,
    ) -> None:
        self.endpoint = listen
        self._refused = refused
        self._limits = limits
        self._certificate = certificate
        self._look_every_s = look_every_s
        self._gate = Gate(
            Limits(
                connections=limits.connections,
                connections_per_client=limits.connections_per_client if certificate else limits.connections,
                messages_per_minute=limits.requests_per_minute,
            )
        )
        self._serve = web.Server(
            answer,
            request_factory=partial(_request, limits.body_bytes),
            access_log=None,  # it would hold the links
            logger=_http_log,
            max_line_size=limits.line_bytes,
            max_field_size=limits.field_bytes,
            auto_decompress=False,
        )
        self._runner = web.ServerRunner(self._serve, shutdown_timeout=limits.publish_s)
        self._entrance: Entrance | None = None
        self._keeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen."""
        await self._runner.setup()
        certificate = self._certificate
        self._entrance = Entrance(
            self._serve,
            self._gate,
            self._refused,
            closes_after_s=self._limits.connection_s,
            handshake_s=self._limits.handshake_s,
            tls=(lambda: certificate.context) if certificate is not None else None,
        )
        self.endpoint = await self._entrance.open(self.endpoint)
        if certificate is not None:
            self._keeping = asyncio.create_task(certificate.keep(self._look_every_s))

    async def stop(self) -> None:
        """Take no more; requests that were begun are answered first."""
        if self._keeping is not None:
            self._keeping.cancel()
        if self._entrance is not None:
            await self._entrance.close()
        await self._runner.cleanup()

    def lets_in(self, request: web.BaseRequest, now: int) -> bool:
        """May this client have a request answered now (ms)?"""
        return self._gate.message(self._client(request), now)

    async def body(self, request: web.BaseRequest) -> bytes:
        """What was posted; raises what aiohttp does for bodies that are too large or break off, and TimeoutError."""
        async with asyncio.timeout(self._limits.body_s):
            if request.headers.get("Expect", "").lower() == "100-continue":  # RFC 9110 10.1.1
                await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                request.writer.output_size = 0
            return await request.read()

    def _client(self, request: web.BaseRequest) -> str:
        if self._certificate is None:
            lines = request.headers.getall("X-Forwarded-For", [""])  # a proxy may add a line of its own: the last one
            forwarded = lines[-1].rpartition(",")[2].strip()
            if forwarded:
                return client_of((forwarded[:100], 0))
        peer = request.transport.get_extra_info("peername") if request.transport is not None else None
        return client_of(peer)


def _request(most_bytes: int, *parts: Any) -> web.BaseRequest:  # Any: handed on from one part of aiohttp to another
    message, payload, protocol, writer, task = parts
    return web.BaseRequest(
        message, payload, protocol, writer, task, asyncio.get_running_loop(), client_max_size=most_bytes
    )
