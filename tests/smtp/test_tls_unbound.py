"""DANE behind a real validating resolver: unbound, before zones that are signed for the test, or spoiled."""

import asyncio
import contextlib
import datetime as dt
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import dns.asyncresolver
import dns.dnssec
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdataset
import dns.rdatatype
import dns.rrset
import dns.zone
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from benchmarks._debian import Unavailable, command_of, root_of
from smtp.attempts import Reply
from smtp.mx import NextHop, NextHops
from smtp.tls.dane import Resolver
from smtp.tls.demand import MAY, Dane, Demand, Tlsa
from smtp.tls.demands import Demands
from smtp.tls.secure_dns import asking_for_ad

_MUST_RUN = os.environ.get("MAILCORDON_REQUIRE_MTAS") == "1"
HERS, ANOTHERS = bytes(range(32)), bytes(range(1, 33))
ZONE = f"""
@ 300 IN SOA ns hostmaster 1 3600 600 86400 300
@ 300 IN NS ns
ns 300 IN A 127.0.0.1
shop 300 IN MX 10 mx.shop
mx.shop 300 IN A 127.0.0.1
_25._tcp.mx.shop 300 IN TLSA 3 1 1 {HERS.hex()}
spoiled 300 IN MX 10 mx.spoiled
mx.spoiled 300 IN A 127.0.0.1
_25._tcp.mx.spoiled 300 IN TLSA 3 1 1 {HERS.hex()}
none 300 IN MX 10 mx.none
mx.none 300 IN A 127.0.0.1
"""
CONFIGURATION = """
server:
  interface: 127.0.0.1
  port: {port}
  username: ""
  chroot: ""
  directory: "{folder}"
  pidfile: "{folder}/pid"
  do-daemonize: no
  use-syslog: no
  logfile: "{folder}/log"
  do-not-query-localhost: no
  local-zone: "test." nodefault
  local-zone: "invalid." nodefault
  module-config: "validator iterator"
  trust-anchor: "test. DS {ds}"
remote-control:
  control-enable: no
stub-zone:
  name: "test."
  stub-addr: 127.0.0.1@{signed}
stub-zone:
  name: "invalid."
  stub-addr: 127.0.0.1@{unsigned}
"""


class Authority(asyncio.DatagramProtocol):
    """The name server of one zone: what is there with its signatures, and the proof of what is not (RFC 4035 3.1)."""

    def __init__(self, zone: dns.zone.Zone) -> None:
        self._zone = zone
        assert zone.origin is not None
        self._origin: dns.name.Name = zone.origin

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.AA
        name, kind = query.question[0].name, query.question[0].rdtype
        if not self._add(answer.answer, name, kind):
            self._add(answer.authority, self._origin, dns.rdatatype.SOA)
            proofs = sorted(one for one in self._zone.nodes if self._find(one, dns.rdatatype.NSEC))
            for one in {max((one for one in proofs if one <= name), default=None), next(iter(proofs), None)} - {None}:
                self._add(answer.authority, one, dns.rdatatype.NSEC)
            if not any(one.is_subdomain(name) for one in self._zone.nodes):
                answer.set_rcode(dns.rcode.NXDOMAIN)
        self._transport.sendto(answer.to_wire(max_size=65_535), addr)

    def _find(
        self, name: dns.name.Name, kind: dns.rdatatype.RdataType, of: dns.rdatatype.RdataType = dns.rdatatype.NONE
    ) -> dns.rdataset.Rdataset | None:
        node = self._zone.get_node(name)
        return None if node is None else node.get_rdataset(dns.rdataclass.IN, kind, of)

    def _add(self, section: list[dns.rrset.RRset], name: dns.name.Name, kind: dns.rdatatype.RdataType) -> bool:
        found = self._find(name, kind)
        if found is None:
            return False
        signatures = self._find(name, dns.rdatatype.RRSIG, kind)
        section += [dns.rrset.from_rdata_list(name, 300, list(one)) for one in (found, signatures) if one is not None]
        return True


def _zones() -> tuple[dns.zone.Zone, dns.zone.Zone, str]:
    """A signed zone, one record of which was changed afterwards; an unsigned one; and the anchor of the first."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = dns.dnssec.make_dnskey(key.public_key(), dns.dnssec.Algorithm.ECDSAP256SHA256, flags=257)
    signed = dns.zone.from_text(ZONE, origin="test.", relativize=False)
    now = dt.datetime.now(dt.UTC)
    dns.dnssec.sign_zone(
        signed,
        keys=[(key, public)],
        add_dnskey=True,
        dnskey_ttl=300,
        inception=now - dt.timedelta(hours=1),
        expiration=now + dt.timedelta(days=1),
    )
    spoiled = dns.rdataset.from_text("IN", "TLSA", 300, f"3 1 1 {ANOTHERS.hex()}")
    signed["_25._tcp.mx.spoiled.test."].replace_rdataset(spoiled)
    unsigned = dns.zone.from_text(ZONE, origin="invalid.", relativize=False)
    return signed, unsigned, dns.dnssec.make_ds("test.", public, "SHA256").to_text()


def _unbound() -> Path:
    try:
        return command_of(root_of("unbound"), "usr/sbin/unbound")
    except Unavailable as why:
        if _MUST_RUN:
            raise
        pytest.skip(str(why))


@contextlib.asynccontextmanager
async def validating(folder: Path) -> AsyncIterator[Resolver]:
    command, loop = await asyncio.to_thread(_unbound), asyncio.get_running_loop()
    signed, unsigned, anchor = _zones()
    async with contextlib.AsyncExitStack() as stack:
        ports = []
        for zone in (signed, unsigned):
            transport, _ = await loop.create_datagram_endpoint(lambda of=zone: Authority(of), ("127.0.0.1", 0))
            stack.callback(transport.close)
            ports.append(transport.get_extra_info("sockname")[1])
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        file = folder / "unbound.conf"
        file.write_text(CONFIGURATION.format(port=port, folder=folder, ds=anchor, signed=ports[0], unsigned=ports[1]))
        unbound = await asyncio.create_subprocess_exec(command, "-c", file)
        try:
            resolver = asking_for_ad(dns.asyncresolver.Resolver(configure=False))
            resolver.nameservers, resolver.port, resolver.timeout = ["127.0.0.1"], port, 2.0
            async with asyncio.timeout(20):
                while not await _answers(resolver):
                    assert unbound.returncode is None, (folder / "log").read_text()
            yield resolver
        finally:
            with contextlib.suppress(ProcessLookupError):
                unbound.terminate()
            await unbound.wait()


async def _answers(resolver: dns.asyncresolver.Resolver) -> bool:
    try:
        await resolver.resolve("test.", "SOA", lifetime=0.5)
    except (dns.exception.DNSException, OSError):
        await asyncio.sleep(0.05)
        return False
    return True


async def test_what_a_validating_resolver_says_is_what_is_demanded(tmp_path: Path) -> None:
    found: dict[str, Demand | str] = {}
    async with validating(tmp_path) as resolver:
        find = NextHops(allow_private=True, resolver=resolver, tls=Demands(resolver, dane=True))
        for domain in ("shop.test", "none.test", "spoiled.test", "shop.invalid"):
            hop = await find.find(domain)
            assert isinstance(hop, NextHop | Reply)
            found[domain] = hop.targets[0].tls if isinstance(hop, NextHop) else hop.text
    assert found == {
        "shop.test": Dane((Tlsa(3, 1, 1, HERS),), ("mx.shop.test", "shop.test")),
        "none.test": MAY,
        "spoiled.test": "no secure answer for the TLSA records of mx.spoiled.test: NoNameservers",
        "shop.invalid": MAY,
    }
