"""The return path: where bounces, complaints and trap mail come in by SMTP and leave as events in Kafka.

It takes mail for its own domains only and answers 250 when Kafka has what the message says; before that the peer has
the message and tries again.  It sends nothing: no bounce, no reply, no relay.
"""

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import structlog

from policy.settings import Endpoint
from smtp.gate import Gate, Limits
from smtp.return_path_hooks import Hooks, Publish, Understand
from smtp.return_path_metrics import Metrics
from smtp.return_path_session import ReturnPathSession, Shared
from smtp.returned import Context

_log = structlog.get_logger()


def tls_context(cert_file: Path, key_file: Path) -> ssl.SSLContext:
    """A server context for STARTTLS from files in PEM form."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(cert_file, key_file)
    return context


class ReturnPath:
    """The listener.  ``start`` returns when it listens, ``stop`` when what it had taken is answered.

    ``understand`` takes messages apart, best in a process that they can break without harm (``ReaderPool``).

    ``endpoint`` is where it listens, after ``start`` with the port that it got.
    """

    def __init__(
        self,
        listen: Endpoint,
        *,
        context: Context,
        understand: Understand,
        publish: Publish,
        hostname: str,
        limits: Limits | None = None,
        tls: ssl.SSLContext | None = None,
        metrics: Metrics | None = None,
        now: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.metrics = metrics or Metrics()
        self._limits = limits or Limits()
        self._sessions: set[ReturnPathSession] = set()
        gate = Gate(self._limits)
        self._hooks = Hooks(context, understand, publish, self._limits, gate, self.metrics, now)
        self._shared = Shared(self._hooks, gate, self._limits, self.metrics, hostname, tls, self._sessions)
        self._server: asyncio.Server | None = None
        self.endpoint = listen
        self.metrics.count_connections(lambda: len(self._sessions))

    async def start(self) -> None:
        """Listen."""
        logging.getLogger("mail.log").setLevel(logging.WARNING)  # aiosmtpd logs addresses at INFO
        self._server = await asyncio.get_running_loop().create_server(
            partial(ReturnPathSession, self._shared), self.endpoint.host, self.endpoint.port, backlog=256
        )
        host, port = self._server.sockets[0].getsockname()[:2]
        self.endpoint = Endpoint(host, port)
        _log.info("return path listens", endpoint=str(self.endpoint))

    async def stop(self, grace_s: float = 20.0) -> None:
        """Take no more; give messages that wait for Kafka ``grace_s`` to be answered, then hang up."""
        if self._server is None:
            return
        self._server.close()
        for session in [one for one in self._sessions if not one.is_busy]:
            session.goodbye()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hooks.idle.wait(), grace_s)
        for session in list(self._sessions):
            session.goodbye()
