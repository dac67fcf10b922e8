"""One connection to the return path: aiosmtpd's session, with the strictness that a public port needs.

What aiosmtpd leaves open and is closed here: bare line feeds and carriage returns, source routes that its address
reader drops in silence, limits by client and by number of errors, and AUTH, which nobody needs here.
"""

import asyncio
import collections
import re
import ssl
from dataclasses import dataclass
from typing import Any, AnyStr, cast

from aiosmtpd.smtp import SMTP, Envelope, Session

from smtp.gate import Gate, Limits, client_of
from smtp.line_ends import LineEnds
from smtp.return_path_metrics import Metrics

NULL_SENDER = "<>"
_PATH = re.compile(r"<([^<>]{0,400})>(?:\s+(\S.{0,400}))?\Z")
_SOURCE_ROUTE = re.compile(r"TO:\s*<\s*@", re.IGNORECASE)
_COMMANDS_PER_CONNECTION = {"*": 100, "MAIL": 10_000, "RCPT": 50_000, "DATA": 10_000, "RSET": 10_000, "QUIT": 10}
_CLOSE_AFTER_ERRORS = "421 4.7.0 Too many errors; closing"


@dataclass(frozen=True, slots=True)
class Shared:
    """What all connections of one listener have in common."""

    hooks: Any  # Any: aiosmtpd finds the hooks of a handler by their names
    gate: Gate
    limits: Limits
    metrics: Metrics
    hostname: str
    tls: ssl.SSLContext | None
    sessions: set["ReturnPathSession"]


class ReturnPathSession(SMTP):
    """One client.  ``is_busy`` while a message waits for Kafka."""

    line_length_limit = 65_536  # the mail that a report returns may be old and ill-made

    def __init__(self, shared: Shared) -> None:
        self.command_size_limits = collections.defaultdict(lambda: SMTP.command_size_limit)  # not the class's own
        super().__init__(
            shared.hooks,
            data_size_limit=shared.limits.message_bytes,
            enable_SMTPUTF8=True,
            hostname=shared.hostname,
            ident="mailcordon return path",
            tls_context=shared.tls,
            timeout=shared.limits.idle_s,
            command_call_limit=_COMMANDS_PER_CONNECTION,
            auth_exclude_mechanism=["LOGIN", "PLAIN"],
            loop=asyncio.get_running_loop(),
        )
        self.client = ""
        self.messages = 0
        self.is_busy = False
        self._shared = shared
        self._line_ends = LineEnds()
        self._errors = 0
        self._is_in = self._is_turned_away = self._is_closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let the client in, or turn it away; called once more when TLS begins."""
        if not self._is_in:
            self.client = client_of(transport.get_extra_info("peername"))
            if not self._shared.gate.enter(self.client):
                self._is_turned_away = True
                self._shared.metrics.refused("too_many_connections")
                cast("asyncio.Transport", transport).write(b"421 4.7.0 Too many connections; try again later\r\n")
                transport.close()
                return
            self._is_in = True
            self._shared.sessions.add(self)
        self._line_ends = LineEnds()
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        """Forget the client."""
        if self._is_turned_away:
            return
        if self in self._shared.sessions:
            self._shared.sessions.discard(self)
            self._shared.gate.leave(self.client)
        super().connection_lost(error)

    def eof_received(self) -> bool | None:
        """The client closed its side."""
        return False if self._is_turned_away else super().eof_received()

    def data_received(self, data: bytes) -> None:
        """Take bytes, as long as every line ends with CRLF (RFC 5321 2.3.8)."""
        if self._is_turned_away or self._is_closing:
            return
        if not self._line_ends.are_strict(data):
            self._shared.metrics.refused("bare_line_end")
            self._hang_up(b"521 5.5.2 A bare line feed or carriage return is no line end; closing\r\n")
            return
        super().data_received(data)

    def goodbye(self) -> None:
        """The listener stops."""
        self._hang_up(b"421 4.3.2 Shutting down; try again later\r\n")

    async def push(self, status: AnyStr) -> None:
        """Answer; a client that is told no too often is told goodbye."""
        await super().push(status)
        said = cast("str | bytes", status)  # mypy reads the body once for each of aiosmtpd's two
        code = (said if isinstance(said, str) else said.decode("ascii", "replace"))[:3]
        self._shared.metrics.reply(code if code.isascii() and code.isdigit() else "other")
        if code[:1] in {"4", "5"}:
            self._errors += 1
            if self._errors >= self._shared.limits.errors_per_connection and self.transport is not None:
                self._shared.metrics.refused("too_many_errors")
                await super().push(_CLOSE_AFTER_ERRORS)
                self.transport.close()

    async def smtp_RCPT(self, arg: str | None) -> None:  # noqa: N802 - aiosmtpd finds commands by this name
        """RCPT TO; a source route (RFC 5321 appendix C) is an attempt to relay."""
        if arg and _SOURCE_ROUTE.match(arg):
            self._shared.metrics.refused("source_route")
            await self.push("550 5.7.1 Source routes are not followed; this server relays for nobody")
            return
        await super().smtp_RCPT(arg)

    async def smtp_VRFY(self, _arg: str | None) -> None:  # noqa: N802
        """VRFY tells nothing (RFC 5321 3.5.3)."""
        await self.push("252 2.5.2 Addresses are not verified here; send the message")

    def _getaddr(self, arg: str) -> tuple[str | None, str | None]:
        """Read ``<address> parameters``.  aiosmtpd's own reader fails in many ways on odd input; this one in one."""
        found = _PATH.match(arg.strip())
        if found is None or any(not char.isprintable() for char in found[1]):
            return None, None
        return found[1].strip() or NULL_SENDER, found[2] or ""

    def _hang_up(self, reply: bytes) -> None:
        self._is_closing = True
        if self.transport is not None and not self.transport.is_closing():
            cast("asyncio.Transport", self.transport).write(reply)  # a server's transports can be written to
            self.transport.close()


__all__ = ["NULL_SENDER", "Envelope", "ReturnPathSession", "Session", "Shared"]
