"""A real name server on loopback for tests, with a zone of a few lines, and a resolver that asks it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Mapping
from typing import cast

import dns.asyncresolver
import dns.flags
import dns.message
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.resolver
import dns.reversename
import dns.rrset

SILENCE, SERVFAIL = "silence", "SERVFAIL"
Zone = Mapping[tuple[str, str], str | list[str]]
"""By name (with the last dot) and type: records, or how it fails."""


def ptr(address: str) -> tuple[str, str]:
    """The key of an address's PTR records in a zone."""
    return dns.reversename.from_address(address).to_text(), "PTR"


class NameServer(asyncio.DatagramProtocol):
    """Answers from the zone; what is not in it does not exist.

    Names in ``signed``, and those below them, are answered as validated to whoever asks for that.
    """

    def __init__(self, records: Zone, *, ttl: int = 300, signed: Collection[str] = ()) -> None:
        self.records = records
        self.signed = set(signed)
        self.asked: list[tuple[str, str]] = []
        self._ttl = ttl

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        name, kind = question.name.to_text().lower(), dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind))
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        wants = bool(query.flags & dns.flags.AD) and bool(query.ednsflags & dns.flags.DO)
        if wants and any(name == zone or name.endswith(f".{zone}") for zone in self.signed):
            answer.flags |= dns.flags.AD
        else:
            answer.flags &= ~dns.flags.AD
        if alias := self.records.get((name, "CNAME")):
            assert isinstance(alias, list)
            answer.answer.append(self._rrset(name, "CNAME", alias))
            name = alias[0]
        match self.records.get((name, kind)):
            case "silence":
                return
            case "SERVFAIL":
                answer.set_rcode(dns.rcode.SERVFAIL)
            case list() as records:
                answer.answer.append(self._rrset(name, kind, records))
            case _ if not any(known == name for known, _ in self.records):
                answer.set_rcode(dns.rcode.NXDOMAIN)
        self._transport.sendto(answer.to_wire(), addr)

    def _rrset(self, name: str, kind: str, records: list[str]) -> dns.rrset.RRset:
        """Records as they are written, or, written in hexadecimal behind 0x, whatever they are."""
        if not any(record.startswith("0x") for record in records):
            return dns.rrset.from_text(name, self._ttl, "IN", kind, *records)
        of = dns.rdatatype.from_text(kind)
        raw = [dns.rdata.GenericRdata(dns.rdataclass.IN, of, bytes.fromhex(record[2:])) for record in records]
        return dns.rrset.from_rdata_list(name, self._ttl, raw)


class Hasty:
    """The real resolver with less patience."""

    def __init__(self, resolver: dns.asyncresolver.Resolver, *, most_s: float) -> None:
        self._resolver = resolver
        self._most_s = most_s

    async def resolve(self, qname: str, rdtype: str, *, lifetime: float) -> dns.resolver.Answer:
        return await self._resolver.resolve(qname, rdtype, lifetime=min(lifetime, self._most_s))


@contextlib.asynccontextmanager
async def serving(server: NameServer) -> AsyncIterator[dns.asyncresolver.Resolver]:
    """Run the server; a resolver that asks it and nobody else."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: server, ("127.0.0.1", 0))
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers = ["127.0.0.1"]
    resolver.port = transport.get_extra_info("sockname")[1]
    resolver.timeout = 0.2
    try:
        yield resolver
    finally:
        transport.close()


@contextlib.asynccontextmanager
async def resolving(zone: Zone) -> AsyncIterator[Hasty]:
    """A resolver that knows this zone and nothing else; the zone may change meanwhile."""
    async with serving(NameServer(zone)) as resolver:
        yield Hasty(resolver, most_s=0.3)
