"""Which address does the world see?  Asked of an SMTP server of ours, over the very way that mail takes.

What a sender knows of itself ends at its own socket: a proxy, a NAT or an egress policy of the cluster's network
decides what servers see, and may do so only some moments after a pod has begun.  A server that names its client in the
answer to EHLO tells; the return path does.
"""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass

import aiosmtplib

from policy.settings import Endpoint
from smtp.attempts import shown
from smtp.egress.ways import Egress, NotConnected
from smtp.mx import IPAddress

_LITERAL = re.compile(r"\[(?:IPv6:)?(?P<address>[0-9A-Fa-f.:]{2,45})\]")
_KINDS = {4: socket.AF_INET, 6: socket.AF_INET6}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the mirror says: the addresses that it saw; where they are not those to leave from; why it does not tell."""

    addresses: tuple[str, ...] = ()
    elsewhere: str | None = None
    unseen: str | None = None


@dataclass(frozen=True, slots=True)
class _Untold:
    why: str


async def look(egress: Egress, mirror: Endpoint, *, ehlo: str, within_s: float) -> Seen:
    """Ask once for each kind of address that mail leaves from, and compare; without any set, ask for whatever it is.

    ``within_s`` is the limit of each step.
    """
    wanted = egress.addresses
    kinds: list[int | None] = [ipaddress.ip_address(one).version for one in wanted or egress.bind]
    seen: list[str] = []
    for kind in kinds or [None]:
        told = await _asked(egress, mirror, kind, ehlo=ehlo, within_s=within_s)
        if isinstance(told, _Untold):
            return Seen(unseen=f"{mirror} does not tell which address it sees: {told.why}")
        seen.append(str(told))
        expected = egress.seen(told.version)
        if wanted and (expected is None or ipaddress.ip_address(expected) != told):
            return Seen(
                addresses=tuple(seen),
                elsewhere=f"mail leaves from {told} and not from {expected or wanted[0]}, as {mirror} sees it: "
                "look at the proxy, at the network's egress policy, or at MAILCORDON_EGRESS_ADDRESS",
            )
    return Seen(addresses=tuple(seen))


def literal(peer: object) -> str | None:
    """An address literal for a socket's peer (RFC 5321 4.1.3), such as ``[192.0.2.7]`` and ``[IPv6:2001:db8::7]``."""
    host = str(peer[0]) if isinstance(peer, tuple) and peer else ""
    try:
        address = _plain(host.partition("%")[0])
    except ValueError:
        return None
    return f"[{address}]" if address.version == 4 else f"[IPv6:{address}]"


async def _asked(
    egress: Egress, mirror: Endpoint, kind: int | None, *, ehlo: str, within_s: float
) -> IPAddress | _Untold:
    told: IPAddress | _Untold = _Untold("its name has no address" if kind is None else f"it has no IPv{kind} address")
    try:
        for address in await _addresses(mirror, kind, within_s):
            told = await _told(egress, mirror, address, ehlo=ehlo, within_s=within_s)
            if not isinstance(told, _Untold):
                break
    except OSError as failed:
        return _Untold(f"the name {mirror.host} has no address: {failed.strerror or 'no answer'}")
    return told


async def _addresses(mirror: Endpoint, kind: int | None, within_s: float) -> Sequence[str]:
    family = socket.AF_UNSPEC if kind is None else _KINDS[kind]
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(within_s):
            found = await loop.getaddrinfo(mirror.host, mirror.port, family=family, type=socket.SOCK_STREAM)
    except socket.gaierror as failed:
        if failed.errno in {socket.EAI_NONAME, socket.EAI_ADDRFAMILY, socket.EAI_NODATA}:
            return []
        raise
    return list(dict.fromkeys(str(one[4][0]) for one in found))


async def _told(egress: Egress, mirror: Endpoint, address: str, *, ehlo: str, within_s: float) -> IPAddress | _Untold:
    connected = await egress.connect(address, mirror.port, host=mirror.host, within_s=within_s)
    if isinstance(connected, NotConnected):
        return _Untold(connected.text)
    client = aiosmtplib.SMTP(
        sock=connected.sock, hostname=mirror.host, local_hostname=ehlo, timeout=within_s, start_tls=False
    )
    try:
        await client.connect()
        answer = (await client.ehlo()).message.partition("\n")[0]
    except (aiosmtplib.SMTPException, OSError) as failed:
        return _Untold(shown(str(failed)) or type(failed).__name__)
    finally:
        client.close()
        connected.sock.close()
    found = _LITERAL.search(answer)
    try:
        return _plain(found["address"]) if found else _Untold(f"its answer to EHLO is {shown(answer)}")
    except ValueError:
        return _Untold(f"its answer to EHLO is {shown(answer)}")


def _plain(host: str) -> IPAddress:
    address = ipaddress.ip_address(host)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
