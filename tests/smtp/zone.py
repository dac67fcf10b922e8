"""Mail servers of many domains on loopback: a resolver that knows them, and the servers on one port."""

import contextlib
import socket
from collections.abc import AsyncIterator, Mapping

import dns.asyncresolver
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.resolver
import dns.rrset

from policy.settings import Endpoint
from smtp.mx import NextHops
from tests.smtp.servers import Script, scripted


class Zone:
    """A resolver for which the test says the records; a name without any does not exist."""

    def __init__(self, records: Mapping[tuple[str, str], list[str]], *, ttl: int = 300) -> None:
        self.records = dict(records)
        self.ttl = ttl
        self.fails = False
        self.asked: list[tuple[str, str]] = []

    async def resolve(self, qname: str, rdtype: str, *, lifetime: float) -> dns.resolver.Answer:
        del lifetime
        self.asked.append((qname.rstrip("."), rdtype))
        if self.fails:
            raise dns.resolver.NoNameservers
        query = dns.message.make_query(qname, rdtype)
        answer = dns.message.make_response(query)
        records = self.records.get((qname.rstrip("."), rdtype))
        if records is None:
            if not any(name == qname.rstrip(".") for name, _ in self.records):
                raise dns.resolver.NXDOMAIN(qnames=[query.question[0].name])
            raise dns.resolver.NoAnswer
        answer.answer.append(dns.rrset.from_text(qname, self.ttl, "IN", rdtype, *records))
        read = dns.message.from_wire(answer.to_wire())
        return dns.resolver.Answer(dns.name.from_text(qname), dns.rdatatype.from_text(rdtype), dns.rdataclass.IN, read)


@contextlib.asynccontextmanager
async def providers(scripts: Mapping[str, Script], domains: Mapping[str, list[str]]) -> AsyncIterator[NextHops]:
    """Run a server for each MX host, and answer next hops for domains, each with its MX hosts, best first."""
    port = _free_port()
    records: dict[tuple[str, str], list[str]] = {
        (domain, "MX"): [f"{10 * n} {host}." for n, host in enumerate(hosts, 1)] for domain, hosts in domains.items()
    }
    async with contextlib.AsyncExitStack() as stack:
        for number, (host, script) in enumerate(scripts.items(), 1):
            address = f"127.0.0.{number}"
            records[host, "A"] = [address]
            await stack.enter_async_context(scripted(script, at=Endpoint(address, port)))
        for hosts in domains.values():
            for host in hosts:
                records.setdefault((host, "A"), ["127.0.0.250"])  # nobody listens there
        yield NextHops(allow_private=True, resolver=Zone(records), port=port, ask_again_after_s=0.0)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
