"""One open SMTP session: one transaction after the other, each with its answer.

aiosmtplib's ``sendmail`` is not used: it cuts odd addresses silently and goes over the whole message several
times.  Here commands are written as checked bytes, dots are stuffed once, and time limits are kept by one timer
per session.  Everything that the other side does becomes an answer; a session that is out of step is closed.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import aiosmtplib
from aiosmtplib.response import SMTPResponse

from smtp.attempts import (
    TIMED_OUT,
    Attempt,
    Envelope,
    Impossible,
    Reply,
    Stage,
    Uncertain,
    Withheld,
    enhanced_code,
    shown,
)
from smtp.mx import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long to wait, in seconds (RFC 5321 4.5.3.2): ``dot_s`` is for the answer to the whole message."""

    connect_s: float = 10.0
    command_s: float = 60.0
    dot_s: float = 600.0


class Session:
    """An open session; ``used`` counts its transactions."""

    def __init__(self, client: aiosmtplib.SMTP, *, target: Target, timeouts: Timeouts) -> None:
        self.target = target
        self.used = 0
        self._on_rested: Callable[[Session], None] | None = None
        self._client = client
        protocol = client.protocol
        if protocol is None:
            raise aiosmtplib.SMTPServerDisconnected("Connection lost")
        self._protocol = protocol
        self._timeouts = timeouts
        self._loop = asyncio.get_running_loop()
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._overdue = False
        self._needs_reset = False
        self._stage: Stage = "mail"
        offers = client.esmtp_extensions
        self._utf8 = "smtputf8" in offers
        self._eight_bit = "8bitmime" in offers
        self._size_limit = int(size) if (size := offers.get("size", "-1") or "0").isdigit() else None
        transport = client.transport
        assert transport is not None  # noqa: S101 - aiosmtplib sets it before connect() returns
        self.ip: str | None = (transport.get_extra_info("sockname") or (None,))[0]
        tls = transport.get_extra_info("ssl_object")
        self.tls: str | None = tls.version() if tls is not None else None

    @property
    def is_open(self) -> bool:
        """Can another transaction be tried on it?"""
        return self._protocol.is_connected

    async def send(self, envelope: Envelope, *, go: Callable[[], bool]) -> Attempt:
        """One transaction.  Afterwards the session is ready for another, or closed."""
        self._on_rested = None
        began = self._loop.time()
        impossible = self._cannot(envelope)
        if impossible is not None:
            return impossible
        try:
            reply = await self._transaction(envelope, go)
        except aiosmtplib.SMTPResponseException as odd:  # bytes that are no reply, or a reply that does not fit
            self.cut()
            return self._lost(began, f"an answer that does not fit: {odd.code} {odd.message}")
        except (aiosmtplib.SMTPException, OSError) as lost:
            self.cut()
            return self._lost(began, TIMED_OUT if self._overdue else str(lost))
        return Withheld() if reply is None else self._answer(reply, began)

    async def _transaction(self, envelope: Envelope, go: Callable[[], bool]) -> SMTPResponse | None:
        """The last reply of the dialogue; ``_stage`` says to what.  None when ``go`` said no."""
        self._stage = "mail"
        if self._needs_reset:
            reply = await self._command(b"RSET\r\n")
            if not 200 <= reply.code < 300:
                raise aiosmtplib.SMTPResponseException(reply.code, reply.message)
            self._needs_reset = False
        if not go():
            return None
        self.used += 1
        reply = await self._command(self._mail_from(envelope))
        if not 200 <= reply.code < 300:
            return reply
        self._stage = "rcpt"
        reply = await self._command(b"RCPT TO:<" + envelope.recipient + b">\r\n")
        if not 200 <= reply.code < 300:
            return reply
        self._stage = "data"
        reply = await self._command(b"DATA\r\n")
        if reply.code != 354:
            return reply
        self._stage = "dot"
        return await self._command(stuffed(envelope.data), self._timeouts.dot_s)

    def rest(self, idle_s: float, then: Callable[["Session"], None]) -> None:
        """Wait for the next transaction; ``then`` is called when none came for ``idle_s``."""
        self._on_rested = then
        self._watch(idle_s)

    async def quit(self) -> None:
        """Say goodbye and close, without waiting long for the answer."""
        self._on_rested = None
        try:
            if self.is_open:
                await self._command(b"QUIT\r\n", 2.0)
        except (aiosmtplib.SMTPException, OSError):
            pass  # it is closed either way
        finally:
            self.cut()

    def cut(self) -> None:
        """Close at once; a transaction under way gets its answer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        abort = getattr(self._protocol.transport, "abort", None)  # uvloop's transports are no asyncio.WriteTransport
        if abort is not None:
            abort()
        self._client.close()

    def _cannot(self, envelope: Envelope) -> Impossible | None:
        if envelope.smtputf8 and not self._utf8:
            return Impossible(
                category="smtputf8_unsupported",
                text="the server does not take addresses with other than ASCII letters (SMTPUTF8, RFC 6531)",
                mx=self.target.host,
            )
        if self._size_limit and len(envelope.data) > self._size_limit:
            return Impossible(
                category="message_too_big",
                text=f"the message has {len(envelope.data):,} bytes, the server takes {self._size_limit:,}",
                mx=self.target.host,
            )
        return None

    def _mail_from(self, envelope: Envelope) -> bytes:
        command = b"MAIL FROM:<" + envelope.sender + b">"
        if self._size_limit is not None:
            command += b" SIZE=%d" % len(envelope.data)
        if envelope.smtputf8:
            command += b" SMTPUTF8"
            if self._eight_bit:
                command += b" BODY=8BITMIME"
        return command + b"\r\n"

    async def _command(self, data: bytes, timeout: float | None = None) -> SMTPResponse:
        self._watch(self._timeouts.command_s if timeout is None else timeout)
        self._protocol.write(data)
        return await self._protocol.read_response()  # armed before it first waits, so no answer slips past

    def _watch(self, seconds: float) -> None:
        """Move the session's deadline; its one timer looks at it when it goes off, which costs nothing per command."""
        now = self._loop.time()
        self._deadline = now + seconds
        if self._timer is None or self._timer.when() > self._deadline:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(self._deadline, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self._loop.time() < self._deadline - 0.001:
            self._timer = self._loop.call_at(self._deadline, self._tick)
        elif self._on_rested is not None:
            self._on_rested(self)
        else:
            self._overdue = True
            self.cut()

    def _answer(self, reply: SMTPResponse, began: float) -> Attempt:
        accepted = self._stage == "dot" and 200 <= reply.code < 300
        if not accepted and not 400 <= reply.code < 600:
            self.cut()
            return self._lost(began, f"an answer that does not fit: {reply.code} {reply.message}")
        if reply.code == 421:
            self.cut()
        elif self._stage in {"rcpt", "data"}:
            self._needs_reset = True
        text = shown(reply.message)
        return Reply(
            stage=self._stage,
            code=reply.code,
            enhanced=enhanced_code(text),
            text=text,
            mx=self.target.host,
            ip=self.ip,
            tls=self.tls,
            took_ms=self._took(began),
        )

    def _lost(self, began: float, text: str) -> Reply | Uncertain:
        took_ms, host, text = self._took(began), self.target.host, shown(text)
        if self._stage == "dot":
            return Uncertain(text=text, mx=host, ip=self.ip, tls=self.tls, took_ms=took_ms)
        return Reply(stage=self._stage, text=text, mx=host, ip=self.ip, tls=self.tls, took_ms=took_ms)

    def _took(self, began: float) -> int:
        return round((self._loop.time() - began) * 1000)


def stuffed(data: bytes) -> bytes:
    """The data as it follows DATA: leading dots doubled, and the line that ends it (RFC 5321 4.5.2)."""
    if b"\r\n." in data:
        data = data.replace(b"\r\n.", b"\r\n..")
    if data.startswith(b"."):
        data = b"." + data
    return data + (b".\r\n" if data.endswith(b"\r\n") else b"\r\n.\r\n")
