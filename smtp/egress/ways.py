"""How a connection leaves: directly, through a SOCKS5 proxy, or through a HAProxy that takes PROXY protocol version 2.

A failure says whose it is.  The proxy that does not answer, the source address that is not ours, the files that have
run out: they are *ours*, and no server must be held responsible.  Whether an address may be connected to is asked here,
of the very address that is connected to, whatever lies in between.
"""

import asyncio
import contextlib
import errno
import ipaddress
import os
import socket
import sys
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar, assert_never

from policy.settings import Endpoint, Proxy
from smtp.credentials import Credentials
from smtp.egress import proxy_v2, socks5
from smtp.mx import IPAddress, may_connect

MOST_ADDRESSES = 4  # of a name that the settings hold

T = TypeVar("T")

_OURS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_BIND_ADDRESS_NO_PORT = 24  # <linux/in.h>; in Python since 3.12


@dataclass(frozen=True, slots=True)
class Connected:
    """A connection to a server; ``ip`` is the address that the server sees, if it is known."""

    sock: socket.socket
    ip: str | None


@dataclass(frozen=True, slots=True)
class NotConnected:
    """Why there is no connection; ``ours``: it is no fault of the server that was asked for.

    ``is_untried``: nothing was sent out, so that it says nothing about the way out either.
    """

    text: str
    ours: bool = False
    is_untried: bool = False


class _Trouble(Exception):  # noqa: N818 - it never leaves this module
    def __init__(self, text: str, *, ours: bool) -> None:
        super().__init__(text)
        self.ours = ours


@dataclass(frozen=True, slots=True, kw_only=True)
class Egress:
    """The way out of one sender.

    ``bind`` are our own source addresses, ``addresses`` those that servers see; where either is given, a kind of
    address that is missing is not used.  ``fixed`` are the next hops that the settings name: they may be private.
    """

    bind: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    proxy: Proxy | None = None
    credentials: Credentials | None = None
    allow_private: bool = False
    fixed: frozenset[Endpoint] = frozenset()

    async def connect(
        self, address: str, port: int, *, host: str | None = None, within_s: float
    ) -> Connected | NotConnected:
        """Connect to a server at an address, or at a name that the settings hold; ``host`` is what it was found by.

        ``within_s`` is the limit of each step: to the proxy, with the proxy, to the server.
        """
        fixed = Endpoint(host or address, port) in self.fixed
        why = NotConnected("it has no address", is_untried=True)
        try:
            found = await _addresses(address, port, within_s)
        except _Trouble as trouble:
            return NotConnected(str(trouble), ours=trouble.ours, is_untried=True)
        for one in found:
            if not (fixed or self.allow_private or may_connect(str(one))):
                why = NotConnected(f"{one} is no address of the public Internet", is_untried=True)
                continue
            try:
                return await self._connect(one, port, within_s, fixed=fixed)
            except _Trouble as trouble:
                why = NotConnected(str(trouble), ours=trouble.ours)
                if trouble.ours:
                    break
        return why

    async def probe(self, *, within_s: float) -> NotConnected | None:
        """What of the way out can be tried without a server: are source addresses ours, is there a proxy?"""
        try:
            for source in self.bind:
                _open(ipaddress.ip_address(source).version, source).close()
            if self.proxy is not None:
                sock = await self._proxy(self.proxy, within_s)
                sock.close()
        except _Trouble as trouble:
            return NotConnected(str(trouble), ours=True)
        return None

    def seen(self, version: int) -> str | None:
        """The address of this kind (4 or 6) that servers see, if the settings tell."""
        return _of_kind(self.addresses, version)

    async def _connect(self, address: IPAddress, port: int, within_s: float, *, fixed: bool) -> Connected:
        seen = self.seen(address.version)
        proxy = self.proxy
        if self.addresses and seen is None and not (fixed and proxy is None):
            raise _Trouble(f"egress_address has no IPv{address.version} address to reach {address} from", ours=False)
        if proxy is None:
            sock = await self._direct(address, port, within_s)
            return Connected(sock, seen or sock.getsockname()[0])
        match proxy.kind:
            case "socks5":
                return await self._by_socks5(proxy, address, port, within_s)
            case "haproxy2":
                return await self._by_haproxy(proxy, address, port, within_s)
            case _:
                assert_never(proxy.kind)

    async def _direct(self, address: IPAddress, port: int, within_s: float) -> socket.socket:
        source = _of_kind(self.bind, address.version)
        if self.bind and source is None:
            raise _Trouble(f"bind has no IPv{address.version} address to reach {address} from", ours=False)
        return await _dial(source, address, port, within_s)

    async def _by_socks5(self, proxy: Proxy, address: IPAddress, port: int, within_s: float) -> Connected:
        sock = await self._proxy(proxy, within_s)
        with _closed_on_failure(sock):
            try:
                told = await _within(socks5.ask(sock, address, port), within_s)
            except socks5.ProxyFailed as failed:
                raise _Trouble(f"egress proxy {proxy}: {failed}", ours=True) from failed
            except (socks5.NotReached, OSError) as failed:
                why = _said(failed, within_s) if isinstance(failed, OSError) else str(failed)
                raise _Trouble(f"not reached through the egress proxy: {why}", ours=False) from failed
        return Connected(sock, self.seen(address.version) or told)

    async def _by_haproxy(self, proxy: Proxy, address: IPAddress, port: int, within_s: float) -> Connected:
        seen = self.seen(address.version)
        if seen is None:
            raise _Trouble(f"haproxy2 needs an IPv{address.version} address in egress_address", ours=False)
        sock = await self._proxy(proxy, within_s)
        head = proxy_v2.header(ipaddress.ip_address(seen), address, port)
        with _closed_on_failure(sock):
            try:
                await _within(asyncio.get_running_loop().sock_sendall(sock, head), within_s)
            except OSError as failed:
                raise _Trouble(f"egress proxy {proxy}: {_said(failed, within_s)}", ours=True) from failed
        return Connected(sock, seen)

    async def _proxy(self, proxy: Proxy, within_s: float) -> socket.socket:
        """A connection to the proxy, which has let us in."""
        sock = await self._to_proxy(proxy, within_s)
        if proxy.kind == "haproxy2":
            return sock
        with _closed_on_failure(sock):
            try:
                await _within(socks5.greet(sock, self.credentials), within_s)
            except (socks5.ProxyFailed, OSError, EOFError) as failed:
                why = _said(failed, within_s) if isinstance(failed, OSError) else str(failed)
                raise _Trouble(f"egress proxy {proxy}: {why}", ours=True) from failed
        return sock

    async def _to_proxy(self, proxy: Proxy, within_s: float) -> socket.socket:
        why = "its name has no address"
        try:
            for address in await _addresses(proxy.where.host, proxy.where.port, within_s):
                try:
                    return await _dial(_of_kind(self.bind, address.version), address, proxy.where.port, within_s)
                except _Trouble as trouble:
                    why = str(trouble)
        except _Trouble as trouble:
            why = str(trouble)
        raise _Trouble(f"egress proxy {proxy}: {why}", ours=True)


async def _addresses(host: str, port: int, within_s: float) -> Sequence[IPAddress]:
    try:
        return [ipaddress.ip_address(host.partition("%")[0])]
    except ValueError:
        pass
    loop = asyncio.get_running_loop()
    try:
        found = await _within(loop.getaddrinfo(host, port, type=socket.SOCK_STREAM), within_s)
    except OSError as failed:
        raise _Trouble(f"the name {host} has no address: {_said(failed, within_s)}", ours=False) from failed
    addresses = [ipaddress.ip_address(str(one[4][0]).partition("%")[0]) for one in found]
    return list(dict.fromkeys(addresses))[:MOST_ADDRESSES]


async def _dial(source: str | None, address: IPAddress, port: int, within_s: float) -> socket.socket:
    sock = _open(address.version, source)
    with _closed_on_failure(sock):
        try:
            await _within(asyncio.get_running_loop().sock_connect(sock, (str(address), port)), within_s)
        except OSError as failed:
            raise _Trouble(_said(failed, within_s), ours=failed.errno in _OURS) from failed
    return sock


def _open(version: int, source: str | None) -> socket.socket:
    """A socket of our own, with its source address; what fails here is our fault."""
    try:
        sock = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
    except OSError as failed:
        ours = failed.errno in _OURS  # else this machine has no IPv6, and servers with an IPv4 address are reached
        raise _Trouble(f"no socket: {_said(failed, 0)}", ours=ours) from failed
    sock.setblocking(False)
    if source is None:
        return sock
    with _closed_on_failure(sock):
        if sys.platform == "linux":  # else a bound socket takes one of 28,000 ports from all servers together
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
        try:
            sock.bind((source, 0))
        except OSError as failed:
            raise _Trouble(f"source address {source}: {_said(failed, 0)}", ours=True) from failed
    return sock


@contextlib.contextmanager
def _closed_on_failure(sock: socket.socket) -> Iterator[None]:
    try:
        yield
    except BaseException:
        sock.close()
        raise


async def _within(work: Awaitable[T], seconds: float) -> T:
    async with asyncio.timeout(seconds):
        return await work


def _said(failed: OSError, within_s: float) -> str:
    if isinstance(failed, TimeoutError) and failed.errno is None:
        return f"no answer within {within_s:g} s"
    if isinstance(failed, socket.gaierror) or failed.errno is None:
        return str(failed.strerror or failed)
    return os.strerror(failed.errno)


def _of_kind(addresses: tuple[str, ...], version: int) -> str | None:
    return next((one for one in addresses if ipaddress.ip_address(one).version == version), None)
