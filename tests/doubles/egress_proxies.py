"""Proxies on loopback for tests: SOCKS5 (RFC 1928, 1929) and the receiving end of PROXY protocol version 2.

Both connect to wherever a table says that an address is, so that tests can send to public addresses.
"""

import asyncio
import contextlib
import ipaddress
import struct
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from policy.settings import Endpoint

SILENT, CLOSES, BABBLES = "silent", "closes", "babbles"


@dataclass
class Socks5:
    """A SOCKS5 server; ``greets`` and ``answers`` say how it fails, ``reply`` is what it answers instead of 0."""

    world: Mapping[tuple[str, int], Endpoint] = field(default_factory=dict)
    password: tuple[bytes, bytes] | None = None
    greets: str = ""
    answers: str = ""
    reply: int = 0
    bound: str = "198.51.100.1"
    asked: list[tuple[str, int]] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    connections: int = 0
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if await _misbehaves(self.greets, reader, writer):
            return
        _, count = await reader.readexactly(2)
        methods = await reader.readexactly(count)
        wanted = 2 if self.password is not None else 0
        if wanted not in methods:
            writer.write(b"\x05\xff")
            return
        writer.write(bytes([5, wanted]))
        if self.password is not None and not await self._knows(reader, writer, self.password):
            return
        _, _, _, kind = await reader.readexactly(4)
        self.kinds.append(kind)
        address = ipaddress.ip_address(await reader.readexactly({1: 4, 4: 16}[kind]))
        (port,) = struct.unpack(">H", await reader.readexactly(2))
        self.asked.append((str(address), port))
        if await _misbehaves(self.answers, reader, writer):
            return
        bound = ipaddress.ip_address(self.bound)
        told = bytes([5, self.reply, 0, 1 if bound.version == 4 else 4]) + bound.packed + b"\x10\x00"
        if self.reply:
            writer.write(told)
            return
        await relay(self.world[str(address), port], reader, writer, first=told)

    @staticmethod
    async def _knows(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, known: tuple[bytes, bytes]) -> bool:
        _, length = await reader.readexactly(2)
        user = await reader.readexactly(length)
        [length] = await reader.readexactly(1)
        right = (user, await reader.readexactly(length)) == known
        writer.write(b"\x01\x00" if right else b"\x01\x01")
        return right


@dataclass
class ProxyV2:
    """Takes a PROXY protocol v2 header, and connects from the source to the destination that stand in it."""

    world: Mapping[tuple[str, int], Endpoint] = field(default_factory=dict)
    heard: list[tuple[str, str, int]] = field(default_factory=list)  # source, destination, port
    connections: int = 0
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        assert await reader.readexactly(12) == bytes.fromhex("0d0a0d0a000d0a515549540a")
        command, family, length = struct.unpack(">BBH", await reader.readexactly(4))
        assert command == 0x21
        size = {0x11: 4, 0x21: 16}[family]
        assert length == 2 * size + 4
        source = ipaddress.ip_address(await reader.readexactly(size))
        destination = ipaddress.ip_address(await reader.readexactly(size))
        _, port = struct.unpack(">HH", await reader.readexactly(4))
        self.heard.append((str(source), str(destination), port))
        where = self.world.get((str(destination), port))
        if where is not None:  # else it closes, as HAProxy does with a server that it cannot reach
            await relay(where, reader, writer)


@contextlib.asynccontextmanager
async def proxy(one: Socks5 | ProxyV2, *, port: int = 0) -> AsyncIterator[Endpoint]:
    """Run it on a free port, or on this one."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await one.serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    one.port = server.sockets[0].getsockname()[1]
    try:
        yield Endpoint("127.0.0.1", one.port)
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


async def relay(
    where: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, first: bytes = b""
) -> None:
    """Carry bytes both ways; ``first`` goes out in one packet with the server's first words, if they come at once."""
    upstream, downstream = await asyncio.open_connection(where.host, where.port)
    if first:
        with contextlib.suppress(TimeoutError):
            first += await asyncio.wait_for(upstream.read(65_536), 0.2)
        writer.write(first)
    try:
        await asyncio.gather(_copy(reader, downstream), _copy(upstream, writer))
    finally:
        downstream.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.close()


async def _misbehaves(how: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    match how:
        case "":
            return False
        case "silent":
            while await reader.read(65_536):
                pass
        case "closes":
            with contextlib.suppress(TimeoutError):  # unread bytes would make it a reset
                await asyncio.wait_for(reader.read(65_536), 0.05)
        case "babbles":
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await writer.drain()
    return True
