"""One client of a receiving mail server that writes down what it took before it answers.

What is written, and who is refused, is a subclass's own; see ``_logging_sink`` and ``_latency_sink``.
"""

import asyncio
import os

OK = b"250 2.0.0 Ok\r\n"
_END = b"\r\n.\r\n"
_NO_RECIPIENT = b"554 5.5.1 No valid recipients\r\n"
_ANSWERS = {
    b"EHLO": b"250-sink.example\r\n250-PIPELINING\r\n250 8BITMIME\r\n",
    b"HELO": b"250 sink.example\r\n",
    b"RSET": OK,
    b"NOOP": OK,
    b"QUIT": b"221 2.0.0 Bye\r\n",
}


class LogConnection(asyncio.Protocol):
    """One client; commands may come many at once."""

    def __init__(self, log: int) -> None:
        self.recipients: list[bytes] = []  # of the message that is on its way
        self.lines: list[bytes] = []  # for the log, in one write, before the next answer leaves
        self.ends = False
        self._log = log
        self._data = bytearray()
        self._in_message = False
        self._transport: asyncio.Transport

    def mail(self, path: bytes) -> None:
        """A transaction begins, with this return path."""

    def refusal(self, path: bytes) -> bytes | None:
        """The answer that refuses a recipient; None to take it."""

    def taken(self) -> bytes:
        """The answer to a whole message for ``recipients``."""
        return OK

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's own class
        self._transport.write(b"220 sink.example ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        """Take all that is complete; write down first, answer then."""
        self._data += data
        answers: list[bytes] = []
        while not self.ends and (answer := self._message() if self._in_message else self._command()) is not None:
            answers.append(answer)
        if self.lines:
            os.write(self._log, b"".join(self.lines))
            self.lines.clear()
        self._transport.write(b"".join(answers))
        if self.ends:
            self._transport.close()

    def _message(self) -> bytes | None:
        end = self._data.find(_END)
        if end < 0:
            return None
        del self._data[: end + len(_END)]
        self._in_message = False
        answer = self.taken()
        self.recipients = []
        return answer

    def _command(self) -> bytes | None:
        end = self._data.find(b"\r\n")
        if end < 0:
            return None
        line = bytes(self._data[:end])
        del self._data[: end + 2]
        path = line.partition(b"<")[2].partition(b">")[0]
        match line[:4].upper():
            case b"MAIL":
                self.recipients = []
                self.mail(path)
                return OK
            case b"RCPT":
                refusal = self.refusal(path)
                if refusal is None:
                    self.recipients.append(path)
                return refusal or OK
            case b"DATA":
                self._in_message = bool(self.recipients)
                return b"354 End data with <CR><LF>.<CR><LF>\r\n" if self._in_message else _NO_RECIPIENT
            case verb:
                self.recipients = [] if verb == b"RSET" else self.recipients
                self.ends = verb == b"QUIT"
                return _ANSWERS.get(verb, b"500 5.5.2 Unknown command\r\n")
