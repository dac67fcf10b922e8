"""The name of a source address: its PTR, whether that name leads back to it, and whether EHLO says it.

Mailbox providers refuse or distrust a client whose address has no forward-confirmed reverse name, or whose EHLO name
is another one (RFC 5321 4.1.4 asks for a name that can be resolved; RFC 1912 2.1 for matching PTR and A records).
"""

import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import dns.asyncresolver
import dns.exception
import dns.resolver
import dns.reversename

from smtp.mx import Resolver, may_connect

MOST_NAMES = 10  # of one address
LOOKUP_TIMEOUT_S = 10.0

Answer = Literal["verified", "wrong", "unanswered", "not_checked"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What the DNS says about an address: its names, and those of them that lead back to it."""

    address: str
    ptr: tuple[str, ...] = ()
    confirmed: tuple[str, ...] = ()
    unanswered: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """One source address: its names, what EHLO says, and the verdict with its reason in one sentence."""

    address: str
    ptr: tuple[str, ...]
    confirmed: tuple[str, ...]
    ehlo: str | None
    answer: Answer
    why: str


async def names_of(address: str, resolver: Resolver | None = None) -> Names:
    """Ask for the names of an address, and for the addresses of its names."""
    kind = "A" if ipaddress.ip_address(address).version == 4 else "AAAA"
    try:
        resolver = resolver or dns.asyncresolver.Resolver()  # which fails where no name server is set
        ptr = await _texts(resolver, dns.reversename.from_address(address).to_text(), "PTR")
        names = tuple(name.rstrip(".").lower() for name in ptr[:MOST_NAMES])
        confirmed = []
        for name in names:
            found = await _texts(resolver, f"{name}.", kind)
            if ipaddress.ip_address(address) in map(ipaddress.ip_address, found):
                confirmed.append(name)
    except (dns.exception.DNSException, OSError) as failed:
        return Names(address=address, unanswered=type(failed).__name__)
    return Names(address=address, ptr=names, confirmed=tuple(confirmed))


def judged(names: Names, *, ehlo: str | None) -> Identity:
    """The verdict on an address; without an EHLO name its first name that leads back to it is taken for one."""
    address = names.address
    if names.unanswered is not None:
        answer: Answer = "unanswered"
        why = f"the name servers do not answer for {address}: {names.unanswered}"
    elif not names.ptr:
        answer = "wrong"
        why = f"{address} has no PTR: let the owner of the address set it to {ehlo or 'the name that EHLO is to say'}"
    elif ehlo is None and names.confirmed:
        answer, ehlo = "verified", min(names.confirmed)
        why = f"EHLO says {ehlo}, the PTR of {address}, which leads back to it"
    elif ehlo is not None and ehlo not in names.ptr:
        answer = "wrong"
        why = f"PTR of {address} is {' and '.join(names.ptr)}, EHLO says {ehlo}: set MAILCORDON_HOSTNAME or the PTR"
    elif ehlo is None or ehlo not in names.confirmed:
        answer = "wrong"
        name = ehlo or names.ptr[0]
        kind = "A" if ipaddress.ip_address(address).version == 4 else "AAAA"
        why = f"PTR of {address} is {name}, which does not lead back to it: add {kind} {address} to {name}"
    else:
        answer = "verified"
        why = f"EHLO says {ehlo}, the PTR of {address}, which leads back to it"
    return Identity(address=address, ptr=names.ptr, confirmed=names.confirmed, ehlo=ehlo, answer=answer, why=why)


async def identities(addresses: Sequence[str], *, ehlo: str | None, resolver: Resolver | None = None) -> list[Identity]:
    """The verdict on each source address; private ones have no name that the world could know."""
    found: list[Identity] = []
    for address in addresses:
        if may_connect(address):
            found.append(judged(await names_of(address, resolver), ehlo=ehlo))
            ehlo = ehlo or found[-1].ehlo  # one EHLO name for all
        else:
            why = (
                f"source address {address} is private, not checked: behind NAT set MAILCORDON_EGRESS_ADDRESS to the "
                "address that mail servers see"
            )
            found.append(Identity(address=address, ptr=(), confirmed=(), ehlo=ehlo, answer="not_checked", why=why))
    return found


def own_addresses() -> list[str]:
    """The addresses that this machine's routes would take to reach the Internet; nothing is sent to find out."""
    found = []
    for family, anywhere in ((socket.AF_INET, "198.41.0.4"), (socket.AF_INET6, "2001:503:ba3e::2:30")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.connect((anywhere, 53))
                found.append(str(sock.getsockname()[0]))
        except OSError:
            continue  # no route, so no mail goes there
    return found


async def _texts(resolver: Resolver, name: str, kind: str) -> list[str]:
    try:
        answer = await resolver.resolve(name, kind, lifetime=LOOKUP_TIMEOUT_S)
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return []
    return [record.to_text() for record in answer]
