"""A receiving mail server that notes the time of every MAIL FROM and of every message that it takes.

Started as ``python -m benchmarks._latency_sink JSON`` with ``port``, ``hang_port`` and ``log``.  A line of the log is
``M TIME DOMAIN`` for a MAIL FROM, with the domain of its return path, or ``A TIME NAME`` for a message that was taken,
with the local part of its recipient; times are microseconds since the epoch.  A line is in the file before the answer
leaves.  Recipients whose name begins with ``unknown`` do not exist.  On ``hang_port`` connections are taken and
nothing is ever said, as by a provider that hangs.
"""

import asyncio
import json
import os
import sys
import time

import uvloop

_END = b"\r\n.\r\n"
_OK = b"250 2.0.0 Ok\r\n"
_ANSWERS = {
    b"EHLO": b"250-sink.example\r\n250-PIPELINING\r\n250 8BITMIME\r\n",
    b"HELO": b"250 sink.example\r\n",
    b"RSET": _OK,
    b"NOOP": _OK,
    b"QUIT": b"221 2.0.0 Bye\r\n",
}
_NO_MAILBOX = b"550 5.1.1 No such mailbox\r\n"
_NO_RECIPIENT = b"554 5.5.1 No valid recipients\r\n"


class Connection(asyncio.Protocol):
    """One client; commands may come many at once."""

    def __init__(self, log: int) -> None:
        self._log = log
        self._data = bytearray()
        self._in_message = False
        self._recipients: list[bytes] = []
        self._lines: list[bytes] = []
        self._ends = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's own class
        self._transport.write(b"220 sink.example ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        """Take all that is complete; write down first, answer then."""
        now_us = time.time_ns() // 1000
        self._data += data
        answers: list[bytes] = []
        while not self._ends:
            answer = self._message(now_us) if self._in_message else self._command(now_us)
            if answer is None:
                break
            answers.append(answer)
        if self._lines:
            os.write(self._log, b"".join(self._lines))
            self._lines.clear()
        self._transport.write(b"".join(answers))
        if self._ends:
            self._transport.close()

    def _message(self, now_us: int) -> bytes | None:
        end = self._data.find(_END)
        if end < 0:
            return None
        del self._data[: end + len(_END)]
        self._in_message = False
        self._lines += [b"A %d %s\n" % (now_us, name) for name in self._recipients]
        self._recipients = []
        return _OK

    def _command(self, now_us: int) -> bytes | None:
        end = self._data.find(b"\r\n")
        if end < 0:
            return None
        line = bytes(self._data[:end])
        del self._data[: end + 2]
        match line[:4].upper():
            case b"MAIL":
                self._recipients = []
                self._lines.append(b"M %d %s\n" % (now_us, _between(line).rpartition(b"@")[2]))
                return _OK
            case b"RCPT":
                name = _between(line).partition(b"@")[0]
                if name.startswith(b"unknown"):
                    return _NO_MAILBOX
                self._recipients.append(name)
                return _OK
            case b"DATA":
                self._in_message = bool(self._recipients)
                return b"354 End data with <CR><LF>.<CR><LF>\r\n" if self._in_message else _NO_RECIPIENT
            case verb:
                self._ends = verb == b"QUIT"
                return _ANSWERS.get(verb, b"500 5.5.2 Unknown command\r\n")


def _between(line: bytes) -> bytes:
    return line.partition(b"<")[2].partition(b">")[0]


async def serve(port: int, hang_port: int, log: str) -> None:
    """Listen for ever."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(file), "127.0.0.1", port)
    await loop.create_server(asyncio.Protocol, "127.0.0.1", hang_port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    uvloop.run(serve(given["port"], given["hang_port"], given["log"]))
