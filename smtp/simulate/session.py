"""The wire side of a simulated provider: one SMTP connection (RFC 5321), lean, because a demo pushes thousands of
messages a second through it.  What is answered is decided by the desk that it is given.
"""

import asyncio
import re
import ssl
from dataclasses import dataclass, field
from typing import Protocol, cast

from smtp.line_ends import LineEnds

_MAIL = re.compile(rb"MAIL FROM: ?<([^<>\s]*)>((?: +[^\s]+)*) *\Z", re.IGNORECASE)
_RCPT = re.compile(rb"RCPT TO: ?<([^<>\s]+)>((?: +[^\s]+)*) *\Z", re.IGNORECASE)
_LONGEST_COMMAND = 2_048
_MOST_RECIPIENTS = 100
_MOST_BUFFERED = 1_048_576
_HANDSHAKE_S = 10.0


@dataclass(slots=True)
class Transaction:
    """One mail transaction, from MAIL FROM on.  ``refused`` holds recipients with the code they got."""

    mail_from: str
    mail_from_at: int
    ip: str
    accepted: list[str] = field(default_factory=list)
    refused: list[tuple[str, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Ending:
    """How the final dot is answered: a reply (None: none, the connection is closed), after some seconds."""

    reply: bytes | None
    delay_s: float = 0.0


class Desk(Protocol):
    """Who decides; every reply is bytes with CRLF.  A reply that begins with 421 ends the connection."""

    hostname: str
    max_message_bytes: int
    tls: ssl.SSLContext | None

    def opened(self, session: "Session") -> bytes:
        """The greeting; 421 turns the client away."""

    def closed(self, session: "Session") -> None:
        """The connection is gone."""

    def mail(self, ip: str, mail_from: str) -> tuple[bytes, int]:
        """The reply to MAIL FROM, and the time at which it came."""

    def rcpt(self, transaction: Transaction, rcpt: str) -> bytes:
        """The reply to RCPT TO."""

    def message(self, transaction: Transaction, content: bytes) -> Ending:
        """The reply to the final dot; the transaction is over."""

    def abandoned(self, transaction: Transaction, code: int | None) -> None:
        """The transaction ended without a message; ``code`` when MAIL FROM or the message itself was refused."""


class Session(asyncio.Protocol):
    """One connection.  Commands are taken as they come, also many in one packet (RFC 2920)."""

    def __init__(self, desk: Desk) -> None:
        self.ip = ""
        self.heard_at = asyncio.get_running_loop().time()
        self._desk = desk
        self._transport: asyncio.Transport | None = None
        self._line_ends = LineEnds()
        self._buffer = bytearray()
        self._scanned = 0
        self._out: list[bytes] = []
        self._greeted = False
        self._in_data = False
        self._too_big = False
        self._is_waiting = False
        self._is_closing = False
        self._is_secure = False
        self._transaction: Transaction | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._upgrade: asyncio.Task[None] | None = None
        self._commands = {
            b"EHLO": self._ehlo,
            b"HELO": self._helo,
            b"MAIL": self._mail,
            b"RCPT": self._rcpt,
            b"DATA": self._data,
            b"RSET": self._rset,
            b"NOOP": self._noop,
            b"QUIT": self._quit,
            b"STARTTLS": self._starttls,
            b"VRFY": self._vrfy,
        }

    # what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet, or turn away."""
        self._transport = cast("asyncio.Transport", transport)  # a TCP server makes no other; uvloop's is no subclass
        self.ip = str((transport.get_extra_info("peername") or ("",))[0])
        self._say(self._desk.opened(self))
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Take what came, and work on it unless an answer is still owed."""
        if self._is_closing:
            return
        self.heard_at = asyncio.get_running_loop().time()
        if not self._line_ends.are_strict(data):
            self._say(b"521 5.5.2 A bare line feed or carriage return is no line end; closing\r\n", close=True)
            self._flush()
            return
        self._buffer += data
        if self._is_waiting:
            if len(self._buffer) > _MOST_BUFFERED and self._transport is not None:
                self._transport.pause_reading()
            return
        self._work()

    def connection_lost(self, exc: Exception | None) -> None:
        """The peer is gone; an unfinished transaction is over."""
        self._is_closing = True
        if self._timer is not None:
            self._timer.cancel()
        if self._upgrade is not None:
            self._upgrade.cancel()
        self._end_transaction()
        self._transport = None
        self._desk.closed(self)

    def close(self, reply: bytes) -> None:
        """Say goodbye: the server stops, or nothing was heard for long."""
        if not self._is_closing:
            self._say(reply, close=True)
            self._flush()

    def abort(self) -> None:
        """Drop the connection."""
        if self._transport is not None:
            self._transport.abort()

    # reading

    def _work(self) -> None:
        while not (self._is_waiting or self._is_closing):
            if not (self._read_message() if self._in_data else self._read_command()):
                break
        self._flush()

    def _read_command(self) -> bool:
        end = self._buffer.find(b"\r\n")
        if end > _LONGEST_COMMAND or (end < 0 and len(self._buffer) > _LONGEST_COMMAND):
            self._say(b"500 5.5.6 Line too long; closing\r\n", close=True)
            return False
        if end < 0:
            return False
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        command = self._commands.get(line.partition(b" ")[0].upper())
        if command is None:
            self._say(b"500 5.5.1 Command not known\r\n")
        else:
            command(line)
        if self._in_data:
            self._buffer[:0] = b"\r\n"  # so that a first line is a line like any other: it follows a CRLF
        return True

    def _read_message(self) -> bool:
        end = self._buffer.find(b"\r\n.\r\n", self._scanned)
        if end < 0:
            if len(self._buffer) > self._desk.max_message_bytes:
                self._too_big = True
            if self._too_big:
                del self._buffer[:-4]
            self._scanned = max(0, len(self._buffer) - 4)
            return False
        content = bytes(self._buffer[: end + 2]).replace(b"\r\n.", b"\r\n")[2:]
        del self._buffer[: end + 5]
        self._in_data = False
        self._scanned = 0
        transaction, self._transaction = self._transaction, None
        assert transaction is not None  # noqa: S101 - DATA is refused without one
        if self._too_big or len(content) > self._desk.max_message_bytes:
            self._too_big = False
            self._desk.abandoned(transaction, 552)
            self._say(b"552 5.3.4 The message is too big\r\n")
            return True
        ending = self._desk.message(transaction, content)
        if ending.delay_s > 0:
            self._is_waiting = True
            self._timer = asyncio.get_running_loop().call_later(ending.delay_s, self._answer_late, ending.reply)
        elif ending.reply is None:
            self._say(b"", close=True)
        else:
            self._say(ending.reply)
        return True

    def _answer_late(self, reply: bytes | None) -> None:
        self._is_waiting = False
        self._say(reply or b"", close=reply is None)
        if self._transport is not None:
            self._transport.resume_reading()
        self._work()

    # commands

    def _ehlo(self, line: bytes) -> None:
        if not line[4:].strip():
            self._say(b"501 5.5.4 EHLO needs a name\r\n")
            return
        self._greeted = True
        self._end_transaction()
        words = [self._desk.hostname, "PIPELINING", f"SIZE {self._desk.max_message_bytes}", "8BITMIME", "SMTPUTF8"]
        if self._desk.tls is not None and not self._is_secure:
            words.append("STARTTLS")
        words.append("ENHANCEDSTATUSCODES")
        self._say("".join(f"250{'-' if word is not words[-1] else ' '}{word}\r\n" for word in words).encode())

    def _helo(self, line: bytes) -> None:
        if not line[4:].strip():
            self._say(b"501 5.5.4 HELO needs a name\r\n")
            return
        self._greeted = True
        self._end_transaction()
        self._say(f"250 {self._desk.hostname}\r\n".encode())

    def _mail(self, line: bytes) -> None:
        if not self._greeted:
            self._say(b"503 5.5.1 EHLO first\r\n")
        elif self._transaction is not None:
            self._say(b"503 5.5.1 There is a transaction already; RSET ends it\r\n")
        elif (found := _MAIL.match(line)) is None:
            self._say(b"501 5.5.4 Syntax: MAIL FROM:<address>\r\n")
        elif wrong := self._wrong_parameter(found[2]):
            self._say(wrong)
        elif (mail_from := _text(found[1])) is None:
            self._say(b"501 5.1.7 The address is not UTF-8\r\n")
        else:
            reply, at = self._desk.mail(self.ip, mail_from)
            transaction = Transaction(mail_from=mail_from, mail_from_at=at, ip=self.ip)
            if reply.startswith(b"250"):
                self._transaction = transaction
            else:
                self._desk.abandoned(transaction, int(reply[:3]))
            self._say(reply)

    def _wrong_parameter(self, parameters: bytes) -> bytes | None:
        for parameter in parameters.upper().split():
            name, _, value = parameter.partition(b"=")
            if name == b"SIZE" and value.isdigit() and len(value) <= 20:
                if int(value) > self._desk.max_message_bytes:
                    return b"552 5.3.4 The message is too big\r\n"
            elif parameter not in {b"BODY=7BIT", b"BODY=8BITMIME", b"SMTPUTF8"}:
                return b"555 5.5.4 A parameter is not known\r\n"
        return None

    def _rcpt(self, line: bytes) -> None:
        transaction = self._transaction
        found = _RCPT.match(line)
        if transaction is None:
            self._say(b"503 5.5.1 MAIL FROM first\r\n")
        elif found is None or (rcpt := _text(found[1])) is None:
            self._say(b"501 5.5.4 Syntax: RCPT TO:<address>\r\n")
        elif found[2]:
            self._say(b"555 5.5.4 A parameter is not known\r\n")
        elif len(transaction.accepted) + len(transaction.refused) >= _MOST_RECIPIENTS:
            self._say(b"452 4.5.3 Too many recipients\r\n")
        else:
            reply = self._desk.rcpt(transaction, rcpt)
            if reply.startswith(b"250"):
                transaction.accepted.append(rcpt)
            else:
                transaction.refused.append((rcpt, int(reply[:3])))
            self._say(reply)

    def _data(self, line: bytes) -> None:
        if len(line) > 4:
            self._say(b"501 5.5.4 Syntax: DATA\r\n")
        elif self._transaction is None:
            self._say(b"503 5.5.1 MAIL FROM first\r\n")
        elif not self._transaction.accepted:
            self._say(b"554 5.5.1 No valid recipients\r\n")
        else:
            self._in_data = True
            self._say(b"354 End with a dot on a line of its own\r\n")

    def _rset(self, line: bytes) -> None:
        self._end_transaction()
        self._say(b"250 2.0.0 Ok\r\n")

    def _noop(self, line: bytes) -> None:
        self._say(b"250 2.0.0 Ok\r\n")

    def _vrfy(self, line: bytes) -> None:
        self._say(b"252 2.5.2 Send some mail, and see\r\n")

    def _quit(self, line: bytes) -> None:
        self._say(b"221 2.0.0 Bye\r\n", close=True)

    def _starttls(self, line: bytes) -> None:
        if line.upper() != b"STARTTLS" or self._desk.tls is None or self._is_secure:
            self._say(b"502 5.5.1 Not offered\r\n")
        elif self._buffer:  # what was sent in clear behind STARTTLS must not count as sent under TLS (RFC 3207 4.2)
            self._say(b"503 5.5.1 Nothing may follow STARTTLS in clear; closing\r\n", close=True)
        else:
            self._say(b"220 2.0.0 Go ahead\r\n")
            self._is_waiting = True
            self._upgrade = asyncio.get_running_loop().create_task(self._secure(self._desk.tls))

    async def _secure(self, tls: ssl.SSLContext) -> None:
        transport = self._transport
        if transport is None:
            return
        self._end_transaction()
        try:
            secured = await asyncio.get_running_loop().start_tls(
                transport, self, tls, server_side=True, ssl_handshake_timeout=_HANDSHAKE_S
            )
        except (OSError, ssl.SSLError):
            transport.abort()
            return
        self._transport, self._is_secure, self._greeted = secured, True, False
        self._line_ends, self._is_waiting = LineEnds(), False
        self._work()

    # answering

    def _end_transaction(self) -> None:
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            self._desk.abandoned(transaction, None)

    def _say(self, reply: bytes, *, close: bool = False) -> None:
        self._out.append(reply)
        if close or reply.startswith(b"421"):
            self._is_closing = True

    def _flush(self) -> None:
        if self._transport is None:
            return
        if self._out:
            self._transport.write(b"".join(self._out))
            self._out.clear()
        if self._is_closing:
            self._transport.close()


def _text(address: bytes) -> str | None:
    try:
        return address.decode("utf-8")
    except UnicodeDecodeError:
        return None
