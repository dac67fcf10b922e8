"""A receiving mail server that writes down each recipient before it says 250: the truth about what was received.

Started as ``python -m benchmarks._logging_sink JSON`` with ``port``, ``log``, ``defer`` and ``drop`` (shares, 0 to 1)
and ``seed``.  A line of the log is the local part of a recipient; it is in the file before the reply leaves.  A share
of recipients is deferred at the first RCPT (450); with another share the connection ends after the line and before
the 250, as if the reply had been lost.  Such lines end with ``!``.
"""

import asyncio
import json
import os
import sys
from dataclasses import dataclass, field
from hashlib import blake2b

import uvloop

_END = b"\r\n.\r\n"
_OK = b"250 2.0.0 Ok\r\n"
_LATER = b"450 4.2.0 Mailbox busy, try again later\r\n"
_NO_RECIPIENT = b"554 5.5.1 No valid recipients\r\n"
_ANSWERS = {
    b"EHLO": b"250-sink.example\r\n250-PIPELINING\r\n250 8BITMIME\r\n",
    b"HELO": b"250 sink.example\r\n",
    b"MAIL": _OK,
    b"RSET": _OK,
    b"NOOP": _OK,
    b"QUIT": b"221 2.0.0 Bye\r\n",
}


@dataclass(slots=True)
class Ledger:
    """What was received, in a file; and who was told to come again."""

    log: int
    defer: float
    drop: float
    seed: int
    told_to_wait: set[bytes] = field(default_factory=set)
    dropped: set[bytes] = field(default_factory=set)

    def must_wait(self, name: bytes) -> bool:
        """Is this the first time for a recipient that is deferred?"""
        if self.defer and self._chance(b"defer", name) < self.defer and name not in self.told_to_wait:
            self.told_to_wait.add(name)
            return True
        return False

    def drops(self, name: bytes) -> bool:
        """Is the reply for this recipient lost?  Once, so that a message that is sent again arrives."""
        if self.drop and self._chance(b"drop", name) < self.drop and name not in self.dropped:
            self.dropped.add(name)
            return True
        return False

    def _chance(self, what: bytes, name: bytes) -> float:
        digest = blake2b(b"%d %s %s" % (self.seed, what, name), digest_size=6).digest()
        return int.from_bytes(digest, "big") / 2**48


class Connection(asyncio.Protocol):
    """One client; commands may come many at once."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
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
        self._data += data
        answers: list[bytes] = []
        while not self._ends and (answer := self._message() if self._in_message else self._command()) is not None:
            answers.append(answer)
        if self._lines:
            os.write(self._ledger.log, b"".join(self._lines))
            self._lines.clear()
        self._transport.write(b"".join(answers))
        if self._ends:
            self._transport.close()

    def _message(self) -> bytes | None:
        end = self._data.find(_END)
        if end < 0:
            return None
        del self._data[: end + len(_END)]
        self._in_message = False
        lost = any([self._ledger.drops(name) for name in self._recipients])  # noqa: C419 - all of them are asked
        self._lines += [name + (b"!\n" if lost else b"\n") for name in self._recipients]
        self._recipients = []
        self._ends = lost
        return b"" if lost else _OK

    def _command(self) -> bytes | None:
        end = self._data.find(b"\r\n")
        if end < 0:
            return None
        line = bytes(self._data[:end])
        del self._data[: end + 2]
        verb = line[:4].upper()
        if verb == b"RCPT":
            name = line.partition(b"<")[2].partition(b"@")[0]
            if self._ledger.must_wait(name):
                return _LATER
            self._recipients.append(name)
            return _OK
        if verb == b"DATA":
            if not self._recipients:
                return _NO_RECIPIENT
            self._in_message = True
            return b"354 End data with <CR><LF>.<CR><LF>\r\n"
        if verb in {b"MAIL", b"RSET"}:
            self._recipients = []
        self._ends = verb == b"QUIT"
        return _ANSWERS.get(verb, b"500 5.5.2 Unknown command\r\n")


async def serve(given: dict[str, object]) -> None:
    """Listen for ever."""
    log = os.open(str(given["log"]), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    ledger = Ledger(log, float(str(given["defer"])), float(str(given["drop"])), int(str(given["seed"])))
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(ledger), "127.0.0.1", int(str(given["port"])))
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(json.loads(sys.argv[1])))
