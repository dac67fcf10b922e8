"""A guard before an HTTP connection: not too many at once, none for long, however slowly it speaks."""

import asyncio
from typing import cast

from smtp.gate import Gate, client_of
from smtp.return_path_metrics import Metrics


class Guard(asyncio.Protocol):
    """Hands everything on to the ``inner`` protocol, once the gate lets the client in."""

    def __init__(self, inner: asyncio.Protocol, gate: Gate, metrics: Metrics, *, closes_after_s: float) -> None:
        self._inner = inner
        self._gate = gate
        self._metrics = metrics
        self._closes_after_s = closes_after_s
        self._client: str | None = None
        self._end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let the client in, or hang up."""
        client = client_of(transport.get_extra_info("peername"))
        writable = cast("asyncio.Transport", transport)  # a server's transports can be written to
        if not self._gate.enter(client):
            self._metrics.unsubscribe("too_many")
            writable.abort()
            return
        self._client = client
        self._end = asyncio.get_running_loop().call_later(self._closes_after_s, writable.abort)
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Hand on."""
        if self._client is not None:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """Hand on."""
        return self._inner.eof_received() if self._client is not None else False

    def pause_writing(self) -> None:
        """Hand on."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Hand on."""
        self._inner.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        """Forget the client."""
        if self._client is None:
            return
        if self._end is not None:
            self._end.cancel()
        self._gate.leave(self._client)
        self._client = None
        self._inner.connection_lost(error)
