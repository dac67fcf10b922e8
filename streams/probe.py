"""A small web server beside a process that is no Faust app: metrics, and whether it lives and is ready.

It says nothing that is secret and takes no orders: three pages, GET and HEAD only, one request per connection.  It is
written on streams, since a sender, of which there is one per campaign, would need a web framework for nothing else.
"""

import asyncio
import contextlib
import json
from collections.abc import Callable
from http import HTTPStatus

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from policy.settings import Endpoint

Trouble = Callable[[], str | None]

_LONGEST_HEAD = 16 << 10
_MOST_AT_ONCE = 32
_WITHIN_S = 10.0
_JSON = "application/json; charset=utf-8"


class Probe:
    """``/metrics``, ``/healthz``, ``/readyz``; ``unhealthy`` and ``unready`` answer what is wrong, None for nothing."""

    def __init__(self, where: Endpoint, registry: CollectorRegistry, *, unhealthy: Trouble, unready: Trouble) -> None:
        self._where = where
        self._registry = registry
        self._troubles = {"/healthz": unhealthy, "/readyz": unready}
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self.port = where.port

    async def start(self) -> None:
        """Listen; ``port`` says where, if any free port was asked for."""
        self._server = await asyncio.start_server(
            self._come, self._where.host, self._where.port, limit=_LONGEST_HEAD, reuse_address=True
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening, and end what is being said."""
        if self._server is not None:
            self._server.close()
        serving = tuple(self._serving)
        for one in serving:
            one.cancel()
        if serving:
            await asyncio.wait(serving)

    def _come(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._serving) >= _MOST_AT_ONCE:
            writer.close()
            return
        serving = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._serving.add(serving)
        serving.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request, or nothing to whoever does not end it in time or closes."""
        try:
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                async with asyncio.timeout(_WITHIN_S):
                    writer.write(self._answer(await _head_of(reader)))
                    await writer.drain()
        finally:
            writer.close()

    def _answer(self, head: bytes | None) -> bytes:
        if head is None:
            return _response(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
        target, _, version = rest.partition(" ")
        if not version.startswith("HTTP/1."):
            return _response(HTTPStatus.BAD_REQUEST)
        path = target.partition("?")[0]
        if path != "/metrics" and path not in self._troubles:
            return _response(HTTPStatus.NOT_FOUND)
        if method not in {"GET", "HEAD"}:
            return _response(HTTPStatus.METHOD_NOT_ALLOWED)
        if path == "/metrics":
            whole = _response(HTTPStatus.OK, generate_latest(self._registry), CONTENT_TYPE_LATEST)
        else:
            why = self._troubles[path]()
            status = HTTPStatus.OK if why is None else HTTPStatus.SERVICE_UNAVAILABLE
            whole = _response(status, json.dumps({"ok": why is None, "why": why}).encode(), _JSON)
        return whole if method == "GET" else whole[: whole.index(b"\r\n\r\n") + 4]


async def _head_of(reader: asyncio.StreamReader) -> bytes | None:
    """A request's line and header fields; None if they are longer than anybody's who means us."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        return None


def _response(status: HTTPStatus, body: bytes = b"", kind: str = "text/plain; charset=utf-8") -> bytes:
    """A whole response (RFC 9112 2.1); an error says itself in its text."""
    body = body or f"{status.value} {status.phrase}\n".encode()
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        *(["Allow: GET, HEAD"] if status is HTTPStatus.METHOD_NOT_ALLOWED else []),
        "Connection: close",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body
