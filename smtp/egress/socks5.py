"""The client's side of SOCKS5 (RFC 1928, RFC 1929), as far as it is needed to reach a mail server by its address.

In two steps, because they blame different ones: :func:`greet` is between the proxy and us, :func:`ask` is about the
server.  Never a name goes to the proxy: it would look it up anew, and whether we may connect there was asked of an
address.
"""

import asyncio
import ipaddress
import socket

from smtp.credentials import Credentials

_VERSION, _CONNECT = 5, 1
_NO_AUTH, _PASSWORD, _NONE_FITS = 0, 2, 0xFF
_IPV4, _NAME, _IPV6 = 1, 3, 4

MEANINGS = {
    1: "general failure",
    2: "not allowed by the proxy's rules",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "TTL expired",
    7: "command not supported",
    8: "address type not supported",
}
"""The reply codes of RFC 1928 6."""


class ProxyFailed(Exception):  # noqa: N818 - it is what it says
    """The proxy does not do what a SOCKS5 proxy does, or does not let us in."""


class NotReached(Exception):  # noqa: N818 - it is what it says
    """The proxy works, and did not reach the server."""


async def greet(sock: socket.socket, credentials: Credentials | None) -> None:
    """Agree on a method, and say who we are if the proxy wants to know."""
    methods = bytes([_NO_AUTH, _PASSWORD] if credentials is not None else [_NO_AUTH])
    await _send(sock, bytes([_VERSION, len(methods)]) + methods)
    version, method = await _read(sock, 2)
    if version != _VERSION:
        raise ProxyFailed("it does not speak SOCKS5")
    if method == _PASSWORD and credentials is not None:
        user, password = credentials.user.encode(), credentials.password.encode()
        await _send(sock, bytes([1, len(user)]) + user + bytes([len(password)]) + password)
        _, status = await _read(sock, 2)
        if status != 0:
            raise ProxyFailed("it refuses user or password")
    elif method == _NONE_FITS:
        raise ProxyFailed(
            "it takes neither our password nor none" if credentials else "it wants a password: egress_proxy_auth_file"
        )
    elif method != _NO_AUTH:
        raise ProxyFailed(f"it chose a method that was not offered ({method})")


async def ask(sock: socket.socket, address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> str | None:
    """Have the proxy connect; answers the address that it connected from, if it tells a public one."""
    kind = _IPV4 if address.version == 4 else _IPV6
    await _send(sock, bytes([_VERSION, _CONNECT, 0, kind]) + address.packed + port.to_bytes(2, "big"))
    try:
        version, reply = await _read(sock, 2)
        if version != _VERSION:
            raise ProxyFailed("its answer is no SOCKS5")
        if reply != 0:
            raise NotReached(f"{MEANINGS.get(reply, 'unknown reply')} (SOCKS {reply})")
        _, kind = await _read(sock, 2)
        length = {_IPV4: 4, _IPV6: 16}.get(kind)
        if length is None and kind == _NAME:
            [length] = await _read(sock, 1)
        if length is None:
            raise ProxyFailed("its answer is no SOCKS5")
        bound = await _read(sock, length + 2)
    except EOFError as ended:
        raise NotReached("the proxy closed the connection instead of an answer") from ended
    if kind == _NAME:
        return None
    told = ipaddress.ip_address(bound[:-2])
    return str(told) if told.is_global else None


async def _send(sock: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, data)


async def _read(sock: socket.socket, count: int) -> bytes:
    """Exactly so many bytes: what follows belongs to the mail server."""
    read = b""
    while len(read) < count:
        more = await asyncio.get_running_loop().sock_recv(sock, count - len(read))
        if not more:
            raise EOFError("the proxy closed the connection")
        read += more
    return read
