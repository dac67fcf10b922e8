"""How connections leave, through real proxies on loopback: who is reached, and whose fault it is when nobody is."""

import asyncio
import contextlib
import gc
import ipaddress
import shutil
import socket
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from benchmarks._debian import Unavailable, command_of, root_of
from cli.kafka import free_ports
from policy.settings import Endpoint, Proxy
from smtp.attempts import Reply
from smtp.credentials import Credentials
from smtp.egress.proxy_v2 import header
from smtp.egress.ways import Connected, Egress, NotConnected
from smtp.mx import Target
from smtp.opener import Opener
from smtp.session import Session, Timeouts
from tests.doubles.egress_proxies import BABBLES, CLOSES, SILENT, ProxyV2, Socks5, proxy
from tests.smtp.servers import Script, scripted, until

PUBLIC, PUBLIC_V6 = "8.8.8.8", "2001:4860:4860::8888"
SOURCE, SOURCE_V6 = "9.9.9.9", "2620:fe::fe"
SHORT_S = 0.3
PASSWORD = Credentials("ann", "s3cret")


def through(where: Endpoint, kind: str = "socks5", **more: object) -> Egress:
    return Egress(proxy=Proxy(kind, where), **more)  # type: ignore[arg-type]


async def greeting(connected: Connected | NotConnected) -> bytes:
    assert isinstance(connected, Connected), connected
    try:
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(connected.sock, 1000), 5)
    finally:
        connected.sock.close()


# ---- directly


async def test_a_connection_leaves_from_the_address_that_was_set() -> None:
    async with scripted(Script()) as server:
        connected = await Egress(bind=("127.0.0.3",), allow_private=True).connect(
            "127.0.0.1", server.port, within_s=SHORT_S
        )
        assert isinstance(connected, Connected)
        assert (connected.ip, connected.sock.getpeername()[1]) == ("127.0.0.3", server.port)
        connected.sock.close()


async def test_behind_nat_the_address_that_servers_see_is_told() -> None:
    async with scripted(Script()) as server:
        egress = Egress(addresses=(SOURCE,), allow_private=True)
        connected = await egress.connect("127.0.0.1", server.port, within_s=SHORT_S)
        assert isinstance(connected, Connected)
        assert connected.ip == SOURCE
        connected.sock.close()


async def test_a_source_address_of_another_machine_is_our_fault() -> None:
    found = await Egress(bind=("192.0.2.7",)).connect(PUBLIC, 25, within_s=SHORT_S)

    assert found == NotConnected("source address 192.0.2.7: Cannot assign requested address", ours=True)
    assert await Egress(bind=("192.0.2.7",)).probe(within_s=SHORT_S) == found


async def test_a_server_that_refuses_is_its_own_fault() -> None:
    [port] = free_ports(1)
    found = await Egress(allow_private=True).connect("127.0.0.1", port, within_s=SHORT_S)

    assert found == NotConnected("Connection refused", ours=False)


@pytest.mark.parametrize("bound", [{"bind": ("127.0.0.1",)}, {"addresses": (SOURCE,)}], ids=["bind", "egress_address"])
async def test_a_kind_of_address_that_was_not_set_is_not_used(bound: dict[str, tuple[str, ...]]) -> None:
    found = await Egress(**bound).connect(PUBLIC_V6, 25, within_s=SHORT_S)  # type: ignore[arg-type]

    assert isinstance(found, NotConnected)
    assert "has no IPv6 address" in found.text
    assert not found.ours


PRIVATE = ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "fd00::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"]


@pytest.mark.parametrize("address", PRIVATE)
async def test_no_private_address_is_connected_to(address: str) -> None:
    found = await Egress().connect(address, 25, within_s=SHORT_S)

    assert isinstance(found, NotConnected)
    assert "no address of the public Internet" in found.text


@pytest.mark.parametrize("address", PRIVATE)
@pytest.mark.parametrize("kind", ["socks5", "haproxy2"])
async def test_no_proxy_is_asked_to_connect_to_a_private_address(address: str, kind: str) -> None:
    server = Socks5()
    async with proxy(server) as where:
        found = await through(where, kind, addresses=(SOURCE, SOURCE_V6)).connect(address, 25, within_s=SHORT_S)
        assert isinstance(found, NotConnected)
        assert server.connections == 0


async def test_a_name_that_leads_to_a_private_address_is_refused_unless_the_settings_hold_it() -> None:
    async with scripted(Script()) as server:
        assert isinstance(await Egress().connect("localhost", server.port, within_s=SHORT_S), NotConnected)
        fixed = Egress(fixed=frozenset({Endpoint("localhost", server.port)}))
        assert await greeting(await fixed.connect("localhost", server.port, within_s=1)) == b"220 mx.example ESMTP\r\n"


async def test_a_server_found_by_mx_is_no_fixed_hop_because_its_address_is_one() -> None:
    async with scripted(Script()) as server:
        egress = Egress(fixed=frozenset({Endpoint("127.0.0.1", server.port)}))
        found = await egress.connect("127.0.0.1", server.port, host="mx.evil.example", within_s=SHORT_S)
        assert isinstance(found, NotConnected)


# ---- SOCKS5


@pytest.mark.parametrize("password", [None, PASSWORD], ids=["open", "with a password"])
@pytest.mark.parametrize("address", [PUBLIC, PUBLIC_V6])
async def test_a_server_is_reached_through_socks5_by_its_address(address: str, password: Credentials | None) -> None:
    async with scripted(Script()) as mx:
        server = Socks5({(address, 25): mx.endpoint}, password=(b"ann", b"s3cret") if password else None, bound=SOURCE)
        async with proxy(server) as where:
            connected = await through(where, credentials=password).connect(address, 25, within_s=2)
            assert isinstance(connected, Connected)
            assert connected.ip == SOURCE  # what the proxy tells
            assert await greeting(connected) == b"220 mx.example ESMTP\r\n"
            assert server.asked == [(address, 25)]


async def test_an_address_that_only_the_proxy_knows_is_not_told() -> None:
    async with scripted(Script()) as mx, proxy(Socks5({(PUBLIC, 25): mx.endpoint}, bound="10.0.0.1")) as where:
        connected = await through(where).connect(PUBLIC, 25, within_s=2)
        assert isinstance(connected, Connected)
        assert connected.ip is None
        connected.sock.close()


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (1, "general failure"),
        (2, "not allowed by the proxy's rules"),
        (3, "network unreachable"),
        (4, "host unreachable"),
        (5, "connection refused"),
        (6, "TTL expired"),
        (7, "command not supported"),
        (8, "address type not supported"),
        (99, "unknown reply"),
    ],
)
async def test_what_a_working_proxy_says_about_a_server_is_not_our_fault(reply: int, says: str) -> None:
    async with proxy(Socks5(reply=reply)) as where:
        found = await through(where).connect(PUBLIC, 25, within_s=2)

    assert found == NotConnected(f"not reached through the egress proxy: {says} (SOCKS {reply})", ours=False)


@pytest.mark.parametrize(
    ("server", "credentials", "says", "ours"),
    [
        pytest.param(Socks5(greets=SILENT), None, "no answer within 0.3 s", True, id="silent at first"),
        pytest.param(Socks5(greets=CLOSES), None, "the proxy closed the connection", True, id="closes at first"),
        pytest.param(Socks5(greets=BABBLES), None, "it does not speak SOCKS5", True, id="no SOCKS5"),
        pytest.param(Socks5(password=(b"a", b"b")), None, "it wants a password", True, id="no password of ours"),
        pytest.param(Socks5(password=(b"a", b"b")), PASSWORD, "it refuses user or password", True, id="wrong password"),
        pytest.param(Socks5(answers=SILENT), None, "no answer within 0.3 s", False, id="silent about the server"),
        pytest.param(
            Socks5(answers=CLOSES), None, "closed the connection instead", False, id="closes about the server"
        ),
        pytest.param(Socks5(answers=BABBLES), None, "its answer is no SOCKS5", True, id="babbles about the server"),
    ],
)
async def test_a_failure_of_the_proxy_says_which_step_and_whose_fault(
    server: Socks5, credentials: Credentials | None, says: str, ours: bool
) -> None:
    async with proxy(server) as where:
        found = await through(where, credentials=credentials).connect(PUBLIC, 25, within_s=SHORT_S)

    assert isinstance(found, NotConnected)
    assert says in found.text
    assert "s3cret" not in found.text
    assert found.ours is ours


@pytest.mark.parametrize("kind", ["socks5", "haproxy2"])
async def test_a_dead_proxy_is_our_fault(kind: str) -> None:
    [port] = free_ports(1)
    egress = through(Endpoint("127.0.0.1", port), kind, addresses=(SOURCE,))
    found = await egress.connect(PUBLIC, 25, within_s=SHORT_S)

    assert found == NotConnected(f"egress proxy {kind}://127.0.0.1:{port}: Connection refused", ours=True)
    assert await egress.probe(within_s=SHORT_S) == found


@contextlib.contextmanager
def nothing_left_open() -> Iterator[None]:
    """No socket is left to the collector."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
        gc.collect()
    assert [str(one.message) for one in caught if one.category is ResourceWarning] == []


async def test_a_connection_that_is_given_up_leaves_nothing_open() -> None:
    server = Socks5(answers=SILENT)
    async with proxy(server) as where:
        with nothing_left_open():
            connecting = asyncio.create_task(through(where).connect(PUBLIC, 25, within_s=60))
            await until(lambda: server.asked != [])
            connecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await connecting
            del connecting


@pytest.mark.parametrize(
    "server", [Socks5(greets=BABBLES), Socks5(answers=SILENT), Socks5(reply=5)], ids=["proxy", "silence", "refusal"]
)
async def test_a_connection_that_fails_leaves_nothing_open(server: Socks5) -> None:
    async with proxy(server) as where:
        with nothing_left_open():
            await through(where).connect(PUBLIC, 25, within_s=SHORT_S)
            await Egress(bind=("192.0.2.7",)).connect(PUBLIC, 25, within_s=SHORT_S)
            await Egress(allow_private=True).connect("127.0.0.1", free_ports(1)[0], within_s=SHORT_S)


# ---- PROXY protocol version 2


@pytest.mark.parametrize(("source", "address"), [(SOURCE, PUBLIC), (SOURCE_V6, PUBLIC_V6)])
async def test_a_proxy_is_told_source_and_destination_before_the_first_word(source: str, address: str) -> None:
    async with scripted(Script()) as mx:
        server = ProxyV2({(address, 25): mx.endpoint})
        async with proxy(server) as where:
            egress = through(where, "haproxy2", addresses=(SOURCE, SOURCE_V6))
            connected = await egress.connect(address, 25, within_s=2)
            assert isinstance(connected, Connected)
            assert connected.ip == source
            assert await greeting(connected) == b"220 mx.example ESMTP\r\n"
    assert server.heard == [(source, address, 25)]


def test_the_header_is_that_of_the_specification() -> None:
    head = header(ipaddress.ip_address("192.0.2.1"), ipaddress.ip_address("198.51.100.2"), 25)

    assert head.hex() == "0d0a0d0a000d0a515549540a" + "2111000c" + "c0000201" + "c6336402" + "0000" + "0019"


async def test_a_server_that_haproxy_does_not_reach_is_not_our_fault() -> None:
    server = ProxyV2()
    async with proxy(server) as where:
        opener = Opener(hostname="me.example", egress=through(where, "haproxy2", addresses=(SOURCE,)))
        opened = await opener.open(Target("mx.example", PUBLIC, 25))
    assert isinstance(opened, Reply)
    assert (opened.stage, opened.text) == ("connect", "the connection ended before the greeting")
    assert opener.held_for_s() == 0


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def haproxy_program() -> str:
    try:
        return shutil.which("haproxy") or str(command_of(root_of("haproxy"), "/usr/sbin/haproxy"))
    except Unavailable as why:
        pytest.skip(f"no HAProxy here: {why}")


@contextlib.asynccontextmanager
async def haproxy(folder: Path) -> AsyncIterator[Endpoint]:
    """The configuration of docs/guide/sending.md, with the address to listen on as the only difference."""
    [port] = free_ports(1)
    (folder / "haproxy.cfg").write_text(
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 10m\n  timeout server 10m\n"
        f"listen smtp-out\n  bind 127.0.0.1:{port} accept-proxy\n"
        "  use-server v4 if { src 0.0.0.0/0 }\n  use-server v6 if { src ::/0 }\n"
        "  server v4 0.0.0.0 source 0.0.0.0 usesrc clientip\n  server v6 [::] source [::] usesrc clientip\n",
        encoding="utf-8",
    )
    with (folder / "haproxy.log").open("wb") as log:
        running = await asyncio.create_subprocess_exec(
            haproxy_program(), "-db", "-f", str(folder / "haproxy.cfg"), stderr=log
        )

    try:
        await until(lambda: listens(port) or running.returncode is not None)
        if running.returncode is not None:
            pytest.skip(f"haproxy cannot send from others' addresses here: {(folder / 'haproxy.log').read_text()}")
        yield Endpoint("127.0.0.1", port)
    finally:
        with contextlib.suppress(ProcessLookupError):
            running.kill()
        await running.wait()


@pytest.mark.parametrize(("server", "source"), [("127.0.0.1", "127.0.0.9"), ("::1", "::1")], ids=["IPv4", "IPv6"])
async def test_a_real_haproxy_connects_from_the_address_that_it_is_told(
    server: str, source: str, tmp_path: Path
) -> None:
    peers: list[str] = []

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.append(writer.get_extra_info("peername")[0])
        writer.write(b"220 hello\r\n")
        writer.close()

    try:
        mx = await asyncio.start_server(greet, server, 0)
    except OSError:
        pytest.skip(f"this machine has no {server}")
    async with mx, haproxy(tmp_path) as where:
        egress = through(where, "haproxy2", addresses=(source,), allow_private=True)
        connected = await egress.connect(server, mx.sockets[0].getsockname()[1], within_s=2)
        said = await greeting(connected)
    assert (said, peers) == (b"220 hello\r\n", [source])


@contextlib.asynccontextmanager
async def microsocks() -> AsyncIterator[Endpoint]:
    """A real SOCKS5 proxy that connects from 127.0.0.8 and knows one user."""
    try:
        program = shutil.which("microsocks") or str(command_of(root_of("microsocks"), "/usr/bin/microsocks"))
    except Unavailable as why:
        pytest.skip(f"no microsocks here: {why}")
    [port] = free_ports(1)
    words = ["-i", "127.0.0.1", "-p", str(port), "-b", "127.0.0.8", "-u", "ann", "-P", "s3cret"]
    running = await asyncio.create_subprocess_exec(program, *words, stderr=asyncio.subprocess.DEVNULL)
    try:
        await until(lambda: listens(port))
        yield Endpoint("127.0.0.1", port)
    finally:
        running.kill()
        await running.wait()


async def test_a_real_socks5_proxy_connects_and_says_what_it_could_not() -> None:
    [closed] = free_ports(1)
    async with scripted(Script()) as mx, microsocks() as where:
        egress = through(where, credentials=PASSWORD, allow_private=True)
        assert await greeting(await egress.connect("127.0.0.1", mx.port, within_s=2)) == b"220 mx.example ESMTP\r\n"
        assert await egress.connect("127.0.0.1", closed, within_s=2) == NotConnected(
            "not reached through the egress proxy: connection refused (SOCKS 5)"
        )
        stranger = through(where, credentials=Credentials("ann", "wrong"), allow_private=True)
        assert await stranger.probe(within_s=2) == NotConnected(
            f"egress proxy socks5://{where}: it refuses user or password", ours=True
        )


# ---- a whole session


async def test_a_session_through_a_proxy_tells_the_address_that_servers_see() -> None:
    async with scripted(Script()) as mx, proxy(Socks5({(PUBLIC, 25): mx.endpoint}, bound=SOURCE)) as where:
        opener = Opener(hostname="me.example", egress=through(where), timeouts=Timeouts(command_s=5))
        session = await opener.open(Target("mx.example", PUBLIC, 25))
        assert isinstance(session, Session)
        assert session.ip == SOURCE
        await session.quit()
