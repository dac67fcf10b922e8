"""One open SMTP session: transactions over it, pipelined when the server offers it, each with its answer.

aiosmtplib opens and encrypts the connection; from then on this protocol stands on its transport, because aiosmtplib
knows no PIPELINING (RFC 2920), cuts odd addresses silently and goes over the whole message several times.

With PIPELINING a transaction is two round trips: MAIL, RCPT and DATA in one write, then the content.  Behind the
content the next transaction's three commands may travel already, so that a busy session needs one round trip per
message.  Without, one command follows the other.  Replies come in the order of the commands either way, and are taken
apart in one place, so that both ways end in the same answers.

Everything that the other side does becomes an answer.  A session that is out of step is closed: whose content was
sent is uncertain then, all others are safe to try again.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import aiosmtplib

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
from smtp.reply_lines import ReplyLines, Unfit
from smtp.tls.demand import label

CUT_BEFORE = "the connection ended before its turn"
"""Why a transaction was not begun; it can be tried on another session at once."""

_JOIN_UP_TO = 65_536  # longer contents are handed over as they are, not copied to be joined
_Command = Literal["rset", "mail", "rcpt", "data", "dot", "nothing", "quit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long to wait, in seconds (RFC 5321 4.5.3.2): ``dot_s`` is for the answer to the whole message.

    RFC 5321 has five minutes for a greeting.  Servers that want to be slow to strangers take 20 or 30 seconds; one
    that takes longer than ``greeting_s`` is overloaded, and a connection is better spent elsewhere.
    """

    connect_s: float = 10.0
    greeting_s: float = 60.0
    command_s: float = 60.0
    dot_s: float = 600.0


class _Turn:
    """One transaction; ``said`` is the reply that decided it."""

    __slots__ = ("answered", "began", "envelope", "go", "said")

    def __init__(
        self, envelope: Envelope, go: Callable[[], bool], answered: "asyncio.Future[Attempt]", began: float
    ) -> None:
        self.envelope = envelope
        self.go = go
        self.answered = answered
        self.began = began
        self.said: tuple[Stage, int, bytes] | None = None


class Session(asyncio.Protocol):
    """An open session; ``used`` counts its transactions, ``load`` are those in process."""

    def __init__(self, client: aiosmtplib.SMTP, *, target: Target, timeouts: Timeouts) -> None:
        transport = client.transport
        if transport is None or transport.is_closing():
            raise aiosmtplib.SMTPServerDisconnected("Connection lost")
        self.target = target
        self.used = 0
        self.load = 0
        self._timeouts = timeouts
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.WriteTransport = transport  # type: ignore[assignment]  # it writes, whatever its class
        offers = client.esmtp_extensions
        self._utf8 = "smtputf8" in offers
        self._eight_bit = "8bitmime" in offers
        self._pipelining = "pipelining" in offers
        self._size_limit = int(size) if (size := offers.get("size", "-1") or "0").isdigit() else None
        self.ip: str | None = (transport.get_extra_info("sockname") or (None,))[0]
        tls = transport.get_extra_info("ssl_object")
        self.tls: str | None = tls.version() if tls is not None else None
        self.tls_policy = label(target.tls)
        self._lines = ReplyLines()
        self._waiting: deque[_Turn] = deque()  # not begun
        # Of each reply to come: whose it is, to what, and where in the stream of octets that command ends.
        self._awaited: deque[tuple[_Turn | None, _Command, int]] = deque()
        self._enveloping: _Turn | None = None  # its content is not sent yet
        self._put = 0  # octets so far, with those that are not written yet
        self._written = 0
        self._out: list[bytes] = []  # to be written in a moment
        self._needs_reset = False
        self._over: str | None = None
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._on_rested: Callable[[Session], None] | None = None
        self._goodbye: asyncio.Future[None] | None = None
        transport.set_protocol(self)

    @property
    def is_open(self) -> bool:
        """Can another transaction be tried on it?"""
        return self._over is None and not self._transport.is_closing()

    @property
    def room(self) -> int:
        """How many more transactions may be handed to it now."""
        if not self.is_open:
            return 0
        return (2 if self._pipelining else 1) - self.load

    async def send(self, envelope: Envelope, *, go: Callable[[], bool]) -> Attempt:
        """One transaction.  Afterwards the session is ready for another, or closed."""
        self._on_rested = None
        if (refused := self._cannot(envelope)) is not None:
            return refused
        turn = _Turn(envelope, go, self._loop.create_future(), self._loop.time())
        if not self.is_open:
            return self._cut_off(turn, "mail", CUT_BEFORE)
        self.load += 1
        self._waiting.append(turn)
        try:
            self._write(self._next_envelope())
            return await turn.answered
        finally:
            self.load -= 1

    def rest(self, idle_s: float, then: Callable[["Session"], None]) -> None:
        """Wait for the next transaction; ``then`` is called when none came for ``idle_s``, or the session has ended."""
        self._on_rested = then
        self._watch(idle_s)

    async def quit(self) -> None:
        """Say goodbye and close, without waiting long for the answer."""
        self._on_rested = None
        if self.is_open and not self.load:
            self._goodbye = self._loop.create_future()
            self._write([self._command(None, "quit", b"QUIT\r\n")])
            self._watch(2.0)
            await self._goodbye
        self.cut()

    def cut(self) -> None:
        """Close at once; transactions under way get their answers."""
        self._end("the connection was cut")

    # ---- from the transport

    def data_received(self, data: bytes) -> None:
        """Replies come in; what may follow them goes out in one write."""
        out: list[bytes] = []
        head = self._awaited[0] if self._awaited else None
        try:
            self._hear(data, out)
        except Unfit as unfit:
            self._end(f"an answer that does not fit: {unfit}")
        if self._over is None:
            self._write(out)
            if self._awaited and self._awaited[0] is not head:  # bytes alone win no time
                self._watch(self._limit())

    def eof_received(self) -> bool:
        """The other side says no more."""
        self._end("Connection lost")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._end(f"Connection lost: {exc}" if exc is not None else "Connection lost")

    # ---- one reply

    def _hear(self, data: bytes, out: list[bytes]) -> None:
        awaited = self._awaited
        for code, text in self._lines.read(data):
            if not awaited:
                self._end("the server closed the session" if code == 421 else "a reply to nothing")
                return
            turn, command, end = awaited[0]
            if end > self._written or (command == "dot" and code < 400 and end > self._handed_over()):
                raise Unfit(f"a reply before the command it answers: {code} {_read(text)}")
            if not _fits(command, code):
                raise Unfit(f"{code} {_read(text)}")
            awaited.popleft()
            if turn is None:
                self._overheard(command, code, text)
                out.extend(self._next_envelope())
            elif code == 421:
                self._closed_by_server(turn, command, text)
            else:
                self._replied(turn, command, code, text, out)
            if self._over is not None:
                return

    def _handed_over(self) -> int:
        """How many octets have left us: what the transport still holds, the other side cannot have read."""
        return self._written - self._transport.get_write_buffer_size()

    def _overheard(self, command: _Command, code: int, text: bytes) -> None:
        """A reply that is about the session and no message."""
        if command == "quit" or code == 421:
            self._end("the server closed the session")
        elif code >= 300:
            raise Unfit(f"RSET was answered with {code} {_read(text)}")

    def _closed_by_server(self, turn: _Turn, command: _Command, text: bytes) -> None:
        turn.said = turn.said or (_STAGES[command], 421, text)
        self._answer(turn)
        self._end(CUT_BEFORE)

    def _replied(self, turn: _Turn, command: _Command, code: int, text: bytes, out: list[bytes]) -> None:
        """A reply that fits; with PIPELINING the later commands of a refused transaction are answered, too."""
        match command:
            case "mail" | "rcpt":
                if code >= 300:
                    turn.said = turn.said or (_STAGES[command], code, text)
                if self._pipelining:
                    return
                if turn.said is not None:
                    self._refuse(turn, out)
                elif command == "mail":
                    out.append(self._command(turn, "rcpt", b"RCPT TO:<" + turn.envelope.recipient + b">\r\n"))
                else:
                    out.append(self._command(turn, "data", b"DATA\r\n"))
            case "data":
                if code == 354 and turn.said is None:
                    self._send_content(turn, out)
                elif code == 354:  # RFC 2920 3.1: nobody is to get the message, and still the server asks for it
                    out.append(self._command(turn, "nothing", b".\r\n"))
                else:
                    turn.said = turn.said or ("data", code, text)
                    self._refuse(turn, out)
            case "dot":
                turn.said = ("dot", code, text)
                self._answer(turn)
                out.extend(self._next_envelope())
            case _:  # the end of the empty message: whatever was said of it, there was no recipient
                self._refuse(turn, out)

    def _send_content(self, turn: _Turn, out: list[bytes]) -> None:
        """The content, and behind it the envelope of the next message.

        The envelope may have travelled behind the content of another message for as long as that took, so the
        question whether it may be sent is asked again: a session is closed rather than that a stopped sender sends.
        """
        if not turn.go():
            if not turn.answered.done():
                turn.answered.set_result(Withheld())
            self._end(CUT_BEFORE)
            return
        self._enveloping = None
        out += (turn.envelope.content, b".\r\n")
        self._put += len(turn.envelope.content) + 3
        self._awaited.append((turn, "dot", self._put))
        out.extend(self._next_envelope())

    def _refuse(self, turn: _Turn, out: list[bytes]) -> None:
        self._needs_reset = turn.said is not None and turn.said[0] in {"rcpt", "data"}
        self._enveloping = None
        self._answer(turn)
        out.extend(self._next_envelope())

    def _next_envelope(self) -> list[bytes]:
        """What begins the next transaction, if there is one and the last one is far enough."""
        if not self._pipelining:
            if self._awaited:
                return []
            if self._needs_reset and self._waiting:  # its answer comes first
                self._watch(self._timeouts.command_s)
                return self._reset()
        while self._enveloping is None and self._waiting:
            turn = self._waiting.popleft()
            if turn.answered.done():
                continue
            if not turn.go():
                turn.answered.set_result(Withheld())
                continue
            self._enveloping = turn
            return self._envelope(turn)
        return []

    def _envelope(self, turn: _Turn) -> list[bytes]:
        envelope = turn.envelope
        self.used += 1
        if not self._awaited:
            self._watch(self._timeouts.command_s)
        out = self._reset() if self._needs_reset else []
        mail = b"MAIL FROM:<%b>%b\r\n" % (envelope.sender, self._parameters(envelope))
        if not self._pipelining:
            out.append(self._command(turn, "mail", mail))
            return out
        group = b"%bRCPT TO:<%b>\r\nDATA\r\n" % (mail, envelope.recipient)
        self._put += len(group)
        self._awaited.extend(((turn, "mail", self._put), (turn, "rcpt", self._put), (turn, "data", self._put)))
        out.append(group)
        return out

    def _reset(self) -> list[bytes]:
        self._needs_reset = False
        return [self._command(None, "rset", b"RSET\r\n")]

    def _parameters(self, envelope: Envelope) -> bytes:
        """What follows the sender in MAIL (RFC 1870, 6531)."""
        said = b"" if self._size_limit is None else b" SIZE=%d" % len(envelope.data)
        if envelope.smtputf8:
            said += b" SMTPUTF8 BODY=8BITMIME" if self._eight_bit else b" SMTPUTF8"
        return said

    def _command(self, turn: _Turn | None, command: _Command, line: bytes) -> bytes:
        self._put += len(line)
        self._awaited.append((turn, command, self._put))
        return line

    def _write(self, out: list[bytes]) -> None:
        """Write a little later: what the answers of this moment make others send goes into the same packet."""
        if out and self._over is None:
            if not self._out:
                self._loop.call_soon(self._flush)
            self._out += out

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._over is not None or not out:
            return
        size = self._put - self._written
        self._written = self._put
        if len(out) == 1:
            self._transport.write(out[0])
        elif size <= _JOIN_UP_TO:
            self._transport.write(b"".join(out))
        else:
            self._transport.writelines(out)

    # ---- answers

    def _answer(self, turn: _Turn) -> None:
        if turn.said is None or turn.answered.done():
            return
        stage, code, said = turn.said
        text = shown(_read(said))
        turn.answered.set_result(
            Reply(
                stage=stage,
                code=code,
                enhanced=enhanced_code(text),
                text=text,
                mx=self.target.host,
                ip=self.ip,
                tls=self.tls,
                tls_policy=self.tls_policy,
                took_ms=self._took(turn),
            )
        )

    def _cut_off(self, turn: _Turn, stage: Stage, why: str) -> Reply | Uncertain:
        took_ms, host, text = self._took(turn), self.target.host, shown(why)
        if stage == "dot":
            return Uncertain(text=text, mx=host, ip=self.ip, tls=self.tls, tls_policy=self.tls_policy, took_ms=took_ms)
        return Reply(
            stage=stage, text=text, mx=host, ip=self.ip, tls=self.tls, tls_policy=self.tls_policy, took_ms=took_ms
        )

    def _end(self, why: str) -> None:
        """Close, and answer everybody: the first one by what happened, those behind it by that they were not begun."""
        if self._over is not None:
            return
        self._over = why
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._transport.abort()
        stages: dict[_Turn, Stage] = {}
        for turn, command, end in self._awaited:
            if turn is not None and turn not in stages:
                unsent = command == "dot" and end > self._written
                stages[turn] = "data" if unsent else _STAGES[command]
        stages |= dict.fromkeys(self._waiting, "mail")
        self._awaited.clear()
        self._waiting.clear()
        first = True
        for turn, stage in stages.items():
            if turn.said is not None:
                self._answer(turn)  # the server had said no before
            elif not turn.answered.done():
                begun = (first and why != CUT_BEFORE) or stage == "dot"
                turn.answered.set_result(self._cut_off(turn, *((stage, why) if begun else ("mail", CUT_BEFORE))))
            first = False
        if self._goodbye is not None and not self._goodbye.done():
            self._goodbye.set_result(None)
        if (then := self._on_rested) is not None:
            self._on_rested = None
            then(self)

    def _took(self, turn: _Turn) -> int:
        return round((self._loop.time() - turn.began) * 1000)

    def _cannot(self, envelope: Envelope) -> Impossible | Reply | None:
        if envelope.must_encrypt and self.tls is None:  # whoever chose this session: nothing goes out
            return Reply(stage="tls", text="the session is not encrypted", mx=self.target.host, ip=self.ip)
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

    # ---- time

    def _limit(self) -> float:
        """How long the next reply may take."""
        command = self._awaited[0][1]
        return self._timeouts.dot_s if command in {"dot", "nothing"} else self._timeouts.command_s

    def _watch(self, seconds: float) -> None:
        """Move the session's deadline; its one timer looks at it when it goes off, which costs nothing per command."""
        self._deadline = self._loop.time() + seconds
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
        elif self._awaited:
            self._end(TIMED_OUT)


_STAGES: dict[str, Stage] = {"mail": "mail", "rcpt": "rcpt", "data": "data", "dot": "dot", "nothing": "data"}


def _fits(command: _Command, code: int) -> bool:
    """Can this be a reply to that command (RFC 5321 4.3.2)?"""
    return code == 354 if command == "data" and code < 400 else 200 <= code < 300 or 400 <= code < 600


def _read(text: bytes) -> str:
    return text.strip().decode("utf-8", "replace")
