"""A real name server on loopback for tests, with a zone of a few lines, and a resolver that asks it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import cast

import dns.asyncresolver
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.reversename
import dns.rrset

SILENCE, SERVFAIL = "silence", "SERVFAIL"
Zone = Mapping[tuple[str, str], str | list[str]]
"""By name (with the last dot) and type: records, or how it fails."""


def ptr(address: str) -> tuple[str, str]:
    """The key of an address's PTR records in a zone."""
    return dns.reversename.from_address(address).to_text(), "PTR"


class NameServer(asyncio.DatagramProtocol):
    """Answers from the zone; what is not in it does not exist."""

    def __init__(self, zone: Zone) -> None:
        self.zone = zone

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        name, kind = question.name.to_text().lower(), dns.rdatatype.to_text(question.rdtype)
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        match self.zone.get((name, kind)):
            case "silence":
                return
            case "SERVFAIL":
                answer.set_rcode(dns.rcode.SERVFAIL)
            case list() as records:
                answer.answer.append(dns.rrset.from_text(name, 300, "IN", kind, *records))
            case _ if not any(known == name for known, _ in self.zone):
                answer.set_rcode(dns.rcode.NXDOMAIN)
        self._transport.sendto(answer.to_wire(), addr)


class _Hasty:
    """The real resolver with less patience."""

    def __init__(self, resolver: dns.asyncresolver.Resolver) -> None:
        self._resolver = resolver

    async def resolve(self, qname: str, rdtype: str, *, lifetime: float) -> dns.resolver.Answer:
        return await self._resolver.resolve(qname, rdtype, lifetime=min(lifetime, 0.3))


@contextlib.asynccontextmanager
async def resolving(zone: Zone) -> AsyncIterator[_Hasty]:
    """A resolver that knows this zone and nothing else; the zone may change meanwhile."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: NameServer(zone), ("127.0.0.1", 0))
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers = ["127.0.0.1"]
    resolver.port = transport.get_extra_info("sockname")[1]
    resolver.timeout = 0.2
    try:
        yield _Hasty(resolver)
    finally:
        transport.close()
