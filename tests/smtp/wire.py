"""A bare SMTP dialogue for tests: bytes as they are, nothing corrected on the way."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from policy.settings import Endpoint

FIXTURES = Path(__file__).parent / "fixtures"
_WITHIN_S = 10.0


class Wire:
    """One connection; replies are lists of lines, an empty list when the server hung up."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, endpoint: Endpoint, *, ehlo: bool = True) -> "Wire":
        wire = cls(*await asyncio.open_connection(endpoint.host, endpoint.port))
        await wire.reply()
        if ehlo:
            await wire.say("EHLO client.example")
        return wire

    async def say(self, line: str | bytes) -> str:
        """Send a line, and answer with the whole reply, lines parted by LF."""
        self.send((line.encode() if isinstance(line, str) else line) + b"\r\n")
        return await self.reply()

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def reply(self) -> str:
        lines = []
        async with asyncio.timeout(_WITHIN_S):
            while line := await self._read_line():
                lines.append(line.decode().rstrip("\r\n"))
                if line[3:4] != b"-":
                    break
        return "\n".join(lines)

    async def is_hung_up(self) -> bool:
        async with asyncio.timeout(_WITHIN_S):
            ended = await self._read_line() == b""
        self.close()
        return ended

    async def mail(self, sender: str, *rcpts: str) -> list[str]:
        """MAIL FROM and RCPT TOs; the replies."""
        return [await self.say(f"MAIL FROM:<{sender}>")] + [await self.say(f"RCPT TO:<{rcpt}>") for rcpt in rcpts]

    async def deliver(self, sender: str, rcpt: str, content: bytes) -> str:
        """One message; the last reply."""
        for said in await self.mail(sender, rcpt):
            if not said.startswith("250"):
                return said
        await self.say("DATA")
        return await self.say(stuffed(content) + b".")

    def close(self) -> None:
        self._writer.close()

    async def _read_line(self) -> bytes:
        try:
            return await self._reader.readline()
        except ConnectionError:
            return b""


def stuffed(content: bytes) -> bytes:
    """A message as it goes over the wire: CRLF, and dots doubled at the beginning of a line."""
    lines = content.replace(b"\r\n", b"\n").removesuffix(b"\n").split(b"\n")
    return b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in lines)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition to come true."""
    async with asyncio.timeout(_WITHIN_S):
        while not condition():  # noqa: ASYNC110 - what is waited for is on the other side of a socket
            await asyncio.sleep(0.005)
