"""Where mail for a domain goes: fixed routes, else its MX records (RFC 5321 5.1).

A null MX (RFC 7505) and a domain that does not exist are final; a name server that fails or does not answer
is not.  Answers are remembered for as long as they say, within bounds.  Whether an address may be connected to
is asked of the very address that is then connected to, so that no second look-up can change it.
"""

import asyncio
import ipaddress
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import dns.asyncresolver
import dns.exception
import dns.rdatatype
import dns.resolver

from policy.settings import Endpoint
from smtp.attempts import Impossible, Reply
from smtp.tls.demand import MAY, Demand

SMTP_PORT = 25
MOST_HOSTS = 5  # of a domain's mail servers, by preference
MOST_ADDRESSES = 4  # of one mail server
MOST_REMEMBERED = 10_000
REMEMBER_AT_LEAST_S = 60.0
REMEMBER_AT_MOST_S = 3600.0
REMEMBER_FAILURE_S = 15.0
LOOKUP_TIMEOUT_S = 10.0

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Target:
    """One address of one mail server."""

    host: str
    address: str
    port: int
    tls: Demand = MAY


@dataclass(frozen=True, slots=True)
class NextHop:
    """Where to connect, best first; ``name`` is the same for domains that share their servers."""

    name: str
    targets: tuple[Target, ...]


Found = NextHop | Impossible | Reply


class Resolver(Protocol):
    """The part of dnspython's asynchronous resolver that is used here."""

    async def resolve(self, qname: str, rdtype: str, *, lifetime: float) -> dns.resolver.Answer:
        """Look up records."""


def may_connect(address: str) -> bool:
    """Is this an address of the public Internet?  Loopback, private, link-local (metadata) and the like are not."""
    ip: IPAddress = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None) or _nat64(ip)
        if inner is not None:
            return may_connect(str(inner))
    return ip.is_global and not ip.is_multicast


_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def _nat64(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else None


@dataclass(slots=True)
class NextHops:
    """Answers where mail for a domain goes, and remembers it."""

    routes: Mapping[str, Endpoint] = field(default_factory=dict)
    allow_private: bool = False
    resolver: Resolver | None = None
    chance: random.Random = field(default_factory=random.Random)
    port: int = SMTP_PORT
    _routes: dict[str, NextHop] = field(default_factory=dict)
    _remembered: dict[str, tuple[float, Found]] = field(default_factory=dict)
    _asking: dict[str, "asyncio.Task[Found]"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for domain, route in self.routes.items():
            self._routes[domain] = NextHop(str(route), (Target(route.host, route.host, route.port),))

    def known(self, domain: str) -> NextHop | None:
        """The next hop, if it can be told without asking anybody."""
        route = self._routes.get(domain) or self._routes.get("*")
        if route is not None:
            return route
        found = self._remembered.get(domain)
        if found is not None and found[0] > asyncio.get_running_loop().time() and isinstance(found[1], NextHop):
            return found[1]
        return None

    async def find(self, domain: str) -> Found:
        """The next hop, or why there is none: for ever (Impossible) or for now (Reply)."""
        known = self.known(domain)
        if known is not None:
            return known
        now = asyncio.get_running_loop().time()
        remembered = self._remembered.get(domain)
        if remembered is not None and remembered[0] > now:
            return remembered[1]
        asking = self._asking.get(domain)
        if asking is None:  # many messages for one domain ask once
            asking = asyncio.create_task(self._look_up(domain))
            self._asking[domain] = asking
            asking.add_done_callback(lambda _: self._asking.pop(domain, None))
        return await asyncio.shield(asking)

    async def _look_up(self, domain: str) -> Found:
        try:
            found, ttl = await self._ask(domain)
        except (dns.exception.Timeout, dns.resolver.NoNameservers, dns.resolver.NoResolverConfiguration, OSError) as e:
            found, ttl = Reply(stage="resolve", text=f"no answer from the name servers: {type(e).__name__}"), 0.0
        except dns.exception.DNSException as e:  # a name or an answer that is none
            found, ttl = Reply(stage="resolve", text=f"the look-up failed: {type(e).__name__}"), 0.0
        lasts = min(max(ttl, REMEMBER_AT_LEAST_S), REMEMBER_AT_MOST_S)
        if isinstance(found, Reply):
            lasts = REMEMBER_FAILURE_S
        if len(self._remembered) >= MOST_REMEMBERED:
            self._remembered.pop(next(iter(self._remembered)))
        self._remembered.pop(domain, None)
        self._remembered[domain] = (asyncio.get_running_loop().time() + lasts, found)
        return found

    async def _ask(self, domain: str) -> tuple[Found, float]:
        try:
            answer = await self._resolve(domain, "MX")
        except dns.resolver.NXDOMAIN:
            return Impossible(category="bad_domain", text="the domain does not exist"), REMEMBER_AT_LEAST_S
        except dns.resolver.NoAnswer:  # RFC 5321 5.1: without MX the domain itself is the host
            hosts, ttl = [domain], REMEMBER_AT_MOST_S
        else:
            if answer.rrset is None:
                raise dns.resolver.NoAnswer
            ttl = float(answer.rrset.ttl)
            records = list(answer.rrset)
            self.chance.shuffle(records)  # RFC 5321 5.1: equal preferences are tried at random
            records.sort(key=lambda record: record.preference)
            hosts = [record.exchange.to_text(omit_final_dot=True).lower() for record in records]
            if hosts[0] in {"", "."} and len(hosts) == 1:
                return Impossible(category="bad_domain", text="the domain takes no mail (null MX, RFC 7505)"), ttl
        return await self._addresses(hosts[:MOST_HOSTS], ttl)

    async def _addresses(self, hosts: Sequence[str], ttl: float) -> tuple[Found, float]:
        found = await asyncio.gather(*(self._addresses_of(host) for host in hosts))
        targets = [
            Target(host, address, self.port)
            for host, (addresses, _, _) in zip(hosts, found, strict=True)
            for address in addresses[:MOST_ADDRESSES]
        ]
        ttl = min([ttl, *(seconds for _, seconds, _ in found)])
        if not targets and any(unanswered for _, _, unanswered in found):
            return Reply(stage="resolve", text="no answer for the addresses of the mail servers"), 0.0
        if not targets:
            return Impossible(category="bad_domain", text="none of the domain's mail servers has an address"), ttl
        if not self.allow_private:
            public = [target for target in targets if may_connect(target.address)]
            if not public:
                return Impossible(category="bad_domain", text="the domain's mail servers have no public address"), ttl
            targets = public
        return NextHop(",".join(sorted({target.host for target in targets})), tuple(targets)), ttl

    async def _addresses_of(self, host: str) -> tuple[list[str], float, bool]:
        """Addresses of a host, how long they hold, and whether a question stayed unanswered."""
        addresses: list[str] = []
        ttl, unanswered = REMEMBER_AT_MOST_S, False
        for kind in ("A", "AAAA"):
            try:
                answer = await self._resolve(host, kind)
            except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
                continue
            except (dns.exception.DNSException, OSError):
                unanswered = True
                continue
            if answer.rrset is not None:
                ttl = min(ttl, float(answer.rrset.ttl))
                addresses.extend(record.address for record in answer.rrset)
        return addresses, ttl, unanswered

    async def _resolve(self, name: str, kind: str) -> dns.resolver.Answer:
        if self.resolver is None:
            self.resolver = dns.asyncresolver.Resolver()
        return await self.resolver.resolve(f"{name.rstrip('.')}.", kind, lifetime=LOOKUP_TIMEOUT_S)
