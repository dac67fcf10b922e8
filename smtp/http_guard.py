"""Where HTTP connections come in: not too many at once, none for long, however slowly they speak.

A connection is counted from the moment it is accepted: whoever begins a TLS handshake and never ends it has his place
like everybody else.  ``asyncio.Server`` tells of a connection only after its handshake; and a server that begins TLS
later, by ``start_tls``, loses what uvloop has read by then.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import cast

import structlog

from policy.settings import Endpoint
from smtp.gate import Gate, client_of

log = structlog.get_logger()

_BACKLOG = 256
_OUT_OF_FILES_S = 0.5


class Entrance:
    """Listens, and gives whom the gate lets in to a protocol that ``serve`` makes.

    ``refused`` is told of everybody else.  ``tls`` is asked anew for each connection; without it they stay as they are.
    """

    def __init__(
        self,
        serve: Callable[[], asyncio.Protocol],
        gate: Gate,
        refused: Callable[[], None],
        *,
        closes_after_s: float,
        handshake_s: float,
        tls: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        self._serve = serve
        self._gate = gate
        self._refused = refused
        self._closes_after_s = closes_after_s
        self._handshake_s = handshake_s
        self._tls = tls
        self._listener: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, where: Endpoint) -> Endpoint:
        """Listen; where, with the port that it got."""
        found = await asyncio.get_running_loop().getaddrinfo(
            where.host, where.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, _, _, _, address = found[0]
        self._listener = socket.create_server(address[:2], family=family, backlog=_BACKLOG)
        self._listener.setblocking(False)
        self._start(self._accept(self._listener))
        host, port = self._listener.getsockname()[:2]
        return Endpoint(host, port)

    async def close(self) -> None:
        """Take no more, and give up the handshakes; whoever is further in is the server's to let go."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._listener is not None:
            self._listener.close()

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, peer = await loop.sock_accept(listener)
            except ConnectionError:
                continue  # gone before it was accepted
            except OSError as failed:
                log.error("no connection can be accepted", failure=failed.strerror)  # noqa: TRY400
                await asyncio.sleep(_OUT_OF_FILES_S)
                continue
            client = client_of(peer)
            if not self._gate.enter(client):
                self._refused()
                connection.close()
                continue
            self._start(self._begin(connection, client))

    async def _begin(self, connection: socket.socket, client: str) -> None:
        guard = Guard(self._serve, lambda: self._gate.leave(client), closes_after_s=self._closes_after_s)
        tls = self._tls() if self._tls is not None else None
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: guard, connection, ssl=tls, ssl_handshake_timeout=self._handshake_s if tls is not None else None
            )
        except OSError:
            pass  # a stranger who speaks no TLS, or none that we take, or too slowly, or hung up
        finally:
            if not guard.has_begun:
                connection.close()
                self._gate.leave(client)


class Guard(asyncio.Protocol):
    """Hands everything on to the protocol that ``serve`` makes, and ends it in time; ``leave`` is called at its end."""

    def __init__(
        self, serve: Callable[[], asyncio.Protocol], leave: Callable[[], None], *, closes_after_s: float
    ) -> None:
        self._inner = serve()
        self._leave = leave
        self._closes_after_s = closes_after_s
        self._end: asyncio.TimerHandle | None = None

    @property
    def has_begun(self) -> bool:
        """Was a connection made, so that ``leave`` is called when it is lost?"""
        return self._end is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, and look at the clock."""
        writable = cast("asyncio.Transport", transport)  # a server's transports can be written to
        self._end = asyncio.get_running_loop().call_later(self._closes_after_s, writable.abort)
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Hand on."""
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """Hand on."""
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        """Hand on."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Hand on."""
        self._inner.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        """Make room."""
        if self._end is None:
            return
        self._end.cancel()
        self._leave()
        self._inner.connection_lost(error)
