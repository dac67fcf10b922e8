"""A receiving mail server that takes everything and does as little as possible: where benchmarks send to.

Used when Debian's ``smtp-sink`` (package postfix) is not there, and answers the same extensions.  Started as
``python -m benchmarks._sink PORT FOLDER EVERY DELAY_MS``: each EVERYth message is kept in FOLDER, so that it can be
looked at, and answers leave after DELAY_MS, as if the client were so far away.
Any client may ask ``XCOUNT`` and hears the number of messages and of bytes so far.
"""

import asyncio
import sys
from pathlib import Path

import uvloop

_END = b"\r\n.\r\n"
_GREETING = b"220 sink.example ESMTP\r\n"
_EHLO = b"250-sink.example\r\n250-PIPELINING\r\n250 8BITMIME\r\n"
_OK = b"250 2.0.0 Ok\r\n"
_GO_ON = b"354 End data with <CR><LF>.<CR><LF>\r\n"
_BYE = b"221 2.0.0 Bye\r\n"
_UNKNOWN = b"500 5.5.2 Unknown command\r\n"


class Counted:
    """What was taken so far, over all connections."""

    def __init__(self, folder: Path, every: int) -> None:
        self.messages = 0
        self.bytes = 0
        self._folder = folder
        self._every = every

    def take(self, message: bytes) -> None:
        """Count a message; keep it now and then, the first one always."""
        if self.messages % self._every == 0:
            (self._folder / f"{self.messages:08}.eml").write_bytes(message.replace(b"\r\n..", b"\r\n."))
        self.messages += 1
        self.bytes += len(message)


class Connection(asyncio.Protocol):
    """One client; commands may come many at once."""

    def __init__(self, counted: Counted, delay_s: float) -> None:
        self._counted = counted
        self._delay_s = delay_s
        self._data = bytearray()
        self._in_message = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's own class
        self._answer(_GREETING)

    def data_received(self, data: bytes) -> None:
        """Answer all that is complete, in one write."""
        self._data += data
        answers: list[bytes] = []
        while (answer := self._message() if self._in_message else self._command()) is not None:
            answers.append(answer)
        if answers:
            self._answer(b"".join(answers))

    def _answer(self, said: bytes) -> None:
        if self._delay_s:
            asyncio.get_running_loop().call_later(self._delay_s, self._say, said)
        else:
            self._say(said)

    def _say(self, said: bytes) -> None:
        self._transport.write(said)
        if said.endswith(_BYE):
            self._transport.close()

    def _message(self) -> bytes | None:
        end = self._data.find(_END)
        if end < 0:
            return None
        self._counted.take(bytes(self._data[: end + 2]))
        del self._data[: end + len(_END)]
        self._in_message = False
        return _OK

    def _command(self) -> bytes | None:  # noqa: PLR0911 - one line per command
        end = self._data.find(b"\r\n")
        if end < 0:
            return None
        verb = bytes(self._data[:4]).upper()
        del self._data[: end + 2]
        match verb:
            case b"MAIL" | b"RCPT" | b"RSET" | b"NOOP" | b"HELO":
                return _OK
            case b"DATA":
                self._in_message = True
                return _GO_ON
            case b"EHLO":
                return _EHLO
            case b"QUIT":
                return _BYE
            case b"XCOU":
                return b"250 %d %d\r\n" % (self._counted.messages, self._counted.bytes)
            case _:
                return _UNKNOWN


async def serve(port: int, folder: Path, every: int, delay_s: float) -> None:
    """Listen for ever."""
    counted = Counted(folder, every)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(counted, delay_s), "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]) / 1000))
