"""SMTP servers on loopback for tests: one that does exactly what a script says, and a real aiosmtpd."""

import asyncio
import contextlib
import datetime as dt
import ipaddress
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from policy.settings import Endpoint

CLOSE = b"<close>"  # hang up without a word
SILENCE = b"<silence>"  # never answer, or not to the end
ANYWHERE = Endpoint("127.0.0.1", 0)
Say = bytes | Callable[[bytes], bytes]


@dataclass
class Taken:
    """One message as a server got it."""

    sender: bytes
    recipient: bytes
    data: bytes
    connection: int


@dataclass
class Script:
    """What the server says to each command, and what it has heard."""

    greeting: Say = b"220 mx.example ESMTP\r\n"
    ehlo: Say = b"250-mx.example\r\n250-SIZE 1000000\r\n250 8BITMIME\r\n"
    helo: Say = b"250 mx.example\r\n"
    mail: Say = b"250 2.1.0 Ok\r\n"
    rcpt: Say = b"250 2.1.5 Ok\r\n"
    data: Say = b"354 go ahead\r\n"
    dot: Say = b"250 2.0.0 queued\r\n"
    rset: Say = b"250 2.0.0 Ok\r\n"
    quit: Say = b"221 2.0.0 Bye\r\n"
    heard: list[bytes] = field(default_factory=list)
    taken: list[Taken] = field(default_factory=list)
    connections: int = 0
    open_now: int = 0
    port: int = 0
    dot_delay_s: float = 0.0

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint("127.0.0.1", self.port)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open_now += 1
        try:
            await self._dialogue(reader, writer, self.connections)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open_now -= 1
            writer.close()

    async def _dialogue(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int) -> None:
        sender = recipient = b""
        if not await self._answer(reader, writer, self.greeting, b""):
            return
        while line := await reader.readline():
            self.heard.append(line)
            verb = line.split()[0].upper().decode() if line.split() else ""
            if verb == "MAIL":
                sender = line.partition(b"<")[2].partition(b">")[0]
            if verb == "RCPT":
                recipient = line.partition(b"<")[2].partition(b">")[0]
            say: Say = getattr(self, verb.lower(), b"500 5.5.2 What?\r\n")
            say = say(line) if callable(say) else say
            if not await self._answer(reader, writer, say, line):
                return
            if verb == "QUIT":
                return
            if verb == "DATA" and say.startswith(b"354"):
                data = b""
                while not data.endswith(b"\r\n.\r\n") and data != b".\r\n":
                    data += await reader.readuntil(b"\n")
                said = self.dot(recipient) if callable(self.dot) else self.dot
                if said.startswith(b"2") or said in {CLOSE, SILENCE}:
                    self.taken.append(Taken(sender, recipient, data, connection))
                await asyncio.sleep(self.dot_delay_s)
                if not await self._answer(reader, writer, said, recipient):
                    return

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, say: Say, line: bytes) -> bool:
        said = say(line) if callable(say) else say
        if said == CLOSE:
            return False
        if said.endswith(SILENCE):
            writer.write(said.removesuffix(SILENCE))
            while await reader.read(65_536):
                pass
            return False
        writer.write(said)
        await writer.drain()
        return not said.startswith(b"421")


class Raw:
    """The server's side of one connection, for a test that decides every byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        self.reader = reader
        self.writer = writer
        self.number = number  # of the connection, from 1

    async def line(self) -> bytes:
        """The next line that the client sent, empty when it has closed."""
        return await self.reader.readline()

    async def content(self) -> bytes:
        """Everything up to the line with the dot."""
        data = bytearray()
        while not data.endswith(b"\r\n.\r\n") and data != b".\r\n":
            data += await self.reader.readuntil(b"\n")
        return bytes(data)

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def greet(self, *offers: str) -> None:
        """Greeting, and the answer to EHLO."""
        await self.say(b"220 mx.example ESMTP\r\n")
        await self.line()
        await self.say(ehlo(*offers))

    async def until_data(self) -> None:
        """Take MAIL, RCPT and DATA, one after the other."""
        for said in (b"250 2.1.0 Ok\r\n", b"250 2.1.5 Ok\r\n", b"354 go ahead\r\n"):
            await self.line()
            await self.say(said)

    async def hold(self) -> None:
        """Read no more and say nothing until the test ends."""
        await asyncio.get_running_loop().create_future()

    def reset(self) -> None:
        """End the connection with RST, as a crash does."""
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


def ehlo(*offers: str) -> bytes:
    """The answer to EHLO."""
    lines = ["mx.example", *offers]
    return b"".join(
        b"250%c%s\r\n" % (b" "[0] if n == len(lines) else b"-"[0], one.encode()) for n, one in enumerate(lines, 1)
    )


@contextlib.asynccontextmanager
async def raw(behave: Callable[[Raw], Awaitable[None]]) -> AsyncIterator[Endpoint]:
    """Run a server that does to each connection what the test says; a client that goes away ends it quietly."""
    script = Script()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        script.connections += 1
        try:
            await behave(Raw(reader, writer, script.connections))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    script.serve = serve  # type: ignore[method-assign]
    async with scripted(script):
        yield script.endpoint


async def until(condition: Callable[[], bool], *, within_s: float = 10.0) -> None:
    """Wait for something that another task or process makes true."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def scripted(script: Script, *, at: Endpoint = ANYWHERE) -> AsyncIterator[Script]:
    """Run a scripted server, on a free port if none is said."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await script.serve(reader, writer)
        except asyncio.CancelledError:
            pass
        finally:
            tasks.discard(task)

    server = await asyncio.start_server(serve, at.host, at.port, limit=10_000_000)
    script.port = server.sockets[0].getsockname()[1]
    try:
        yield script
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


class Inbox:
    """An aiosmtpd handler that keeps what it gets."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []
        self.encrypted: list[bool] = []

    async def handle_DATA(self, server: SMTP, session: Any, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        self.envelopes.append(envelope)
        self.encrypted.append(session.ssl is not None)
        return "250 2.0.0 taken"


@contextlib.asynccontextmanager
async def aiosmtpd_server(handler: object, **options: Any) -> AsyncIterator[Endpoint]:
    """Run a real aiosmtpd on a free port."""
    loop = asyncio.get_running_loop()
    sessions: list[SMTP] = []

    def factory() -> SMTP:
        sessions.append(SMTP(handler, loop=loop, **options))
        return sessions[-1]

    server = await loop.create_server(factory, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield Endpoint(host, port)
    finally:
        server.close()
        for session in sessions:
            if session.transport is not None:
                session.transport.abort()
        await asyncio.sleep(0)


def server_tls(
    folder: Path,
    *,
    name: str = "mx.example",
    address: str | None = "127.0.0.1",
    valid_days: tuple[float, float] = (-1.0, 1.0),
    rsa_key: bool = False,
) -> ssl.SSLContext:
    """A server's TLS with a certificate that signs itself, for a host name and an address, from and until when."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048) if rsa_key else ec.generate_private_key(_CURVE)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    names: list[x509.GeneralName] = [x509.DNSName(name)]
    if address is not None:
        names.append(x509.IPAddress(ipaddress.ip_address(address)))
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now + dt.timedelta(days=valid_days[0]))
        .not_valid_after(now + dt.timedelta(days=valid_days[1]))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


_CURVE = ec.SECP256R1()
