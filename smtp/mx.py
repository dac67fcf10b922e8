"""Where mail for a domain goes: fixed routes, else its MX records (RFC 5321 5.1).

A null MX (RFC 7505) and a domain that does not exist are final, the latter when it was asked for twice; a name server
that fails or does not answer is not.  Answers are remembered for as long as they say, within bounds.  What is asked
for again is refreshed in the background before it ends, so that nobody waits for it; and while the name servers fail,
the last good answer serves on, up to a day (the idea of RFC 8767).  Whether an address may be connected to is asked of
the very address that is then connected to, so that no second look-up can change it.
"""

import asyncio
import ipaddress
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, assert_never

import dns.asyncresolver
import dns.exception
import dns.rdatatype
import dns.resolver

from policy.providers import OTHER, Providers
from policy.settings import Endpoint
from smtp.attempts import Impossible, Reply
from smtp.tls.demand import ENCRYPT, MAY, Dane, Demand, label, mark, stronger
from smtp.tls.demands import Demands, MailHost, NotToBeUsed

SMTP_PORT = 25
MOST_HOSTS = 5  # of a domain's mail servers, by preference
MOST_ADDRESSES = 4  # of one mail server
MOST_REMEMBERED = 10_000
REMEMBER_AT_LEAST_S = 60.0
REMEMBER_AT_MOST_S = 3600.0
REMEMBER_FAILURE_S = 15.0
REMEMBER_TLSA_S = 300.0  # whoever changes certificates waits for TLSA records no longer than their time to live
REMEMBER_NO_DOMAIN_S = 300.0
SERVE_STALE_S = 86_400.0
REFRESH_AT = 0.8  # of the time for which an answer holds
ASK_AGAIN_AFTER_S = 5.0  # whether a domain really does not exist
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
    """Where to connect, best first; ``name`` is the same for domains that share their servers.

    ``provider`` is who runs the servers; of a fixed route, whose domain it is.  ``site`` is the name of the same
    servers when nothing more is demanded of them, if that is another.
    """

    name: str
    targets: tuple[Target, ...]
    provider: str = OTHER
    is_fixed: bool = False
    site: str = ""

    def at_least(self, demand: Demand) -> "NextHop":
        """The same hop with connections that prove at least this; under another name if that is more than before."""
        targets = tuple(replace(target, tls=stronger(target.tls, demand)) for target in self.targets)
        if targets == self.targets:
            return self
        return replace(self, name=f"{self.name}/{label(demand)}", targets=targets, site=self.site or self.name)


Found = NextHop | Impossible | Reply


@dataclass(frozen=True, slots=True)
class _Servers:
    """The mail servers of a domain, before it is asked what they have to prove."""

    targets: list[Target]
    hosts: list[MailHost]
    provider: str


@dataclass(frozen=True, slots=True)
class _Addresses:
    """Addresses of a host, how long they hold, and whether a question stayed unanswered."""

    addresses: list[str]
    ttl: float
    unanswered: bool
    canonical: str
    secure: bool


@dataclass(slots=True)
class _Remembered:
    """An answer: asked for anew from ``refresh_at``, good until ``until``; while name servers fail, ``stale_until``.

    That a server must not be used (a demand that it does not meet) is no failure: it ends what was known before.
    """

    found: "Found"
    refresh_at: float
    until: float
    stale_until: float


def _hop(targets: Sequence[Target], provider: str) -> NextHop:
    name = ",".join(sorted({f"{target.host}{mark(target.tls)}" for target in targets}))
    return NextHop(name, tuple(targets), provider)


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
        if ip not in _UNICAST:
            return False
    return ip.is_global and not ip.is_multicast


_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_UNICAST = ipaddress.ip_network("2000::/3")  # of all the others nobody is given any (RFC 4291 2.4, IANA's registry)


def _nat64(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else None


@dataclass(slots=True)
class NextHops:
    """Answers where mail for a domain goes, and remembers it.

    ``must_encrypt`` says of which providers' servers encryption is demanded.
    """

    routes: Mapping[str, Endpoint] = field(default_factory=dict)
    allow_private: bool = False
    resolver: Resolver | None = None
    tls: Demands | None = None
    chance: random.Random = field(default_factory=random.Random)
    port: int = SMTP_PORT
    ask_again_after_s: float = ASK_AGAIN_AFTER_S
    providers: Providers = field(default_factory=lambda: Providers({}))
    must_encrypt: Callable[[str], bool] = lambda _: False
    clock: Callable[[], float] = lambda: asyncio.get_running_loop().time()
    is_one: bool = field(init=False, default=False)
    _routes: dict[str, NextHop] = field(default_factory=dict)
    _remembered: dict[str, _Remembered] = field(default_factory=dict)
    _asking: dict[str, "asyncio.Task[Found]"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for domain, route in self.routes.items():
            provider = self.providers.of(domain)
            target = Target(route.host, route.host, route.port)
            self._routes[domain] = NextHop(str(route), (target,), provider, is_fixed=True)
        self.is_one = "*" in self._routes and len({route.name for route in self._routes.values()}) == 1

    def known(self, domain: str) -> NextHop | None:
        """The next hop, if it can be told without asking anybody."""
        route = self._routes.get(domain) or self._routes.get("*")
        if route is not None:
            return route
        found = self._remembered_of(domain)
        return found if isinstance(found, NextHop) else None

    async def find(self, domain: str) -> Found:
        """The next hop, or why there is none: for ever (Impossible) or for now (Reply)."""
        found: Found | None = self.known(domain)
        if found is None:
            found = self._remembered_of(domain)
        return found if found is not None else await asyncio.shield(self._begin(domain))

    def provider_of(self, domain: str) -> str:
        """Who takes the mail of a domain, as far as it is known."""
        known = self.known(domain)
        return self.providers.of(domain) if known is None or known.is_fixed else known.provider

    def is_looked_up(self, domain: str) -> bool:
        """Can :meth:`find` answer at once, whatever the answer?"""
        return self.known(domain) is not None or self._remembered_of(domain) is not None

    async def close(self) -> None:
        """Give up all look-ups."""
        asking = list(self._asking.values())
        for task in asking:
            task.cancel()
        if asking:
            await asyncio.wait(asking)

    def _remembered_of(self, domain: str) -> Found | None:
        """What is remembered and still holds; asked for anew in the background when that will not be for long."""
        remembered = self._remembered.get(domain)
        if remembered is None:
            return None
        now = self.clock()
        if now >= remembered.until:
            return None
        if now >= remembered.refresh_at:
            self._begin(domain)
        return remembered.found

    def _begin(self, domain: str) -> "asyncio.Task[Found]":
        asking = self._asking.get(domain)
        if asking is None:  # many messages for one domain ask once
            asking = asyncio.create_task(self._look_up(domain))
            self._asking[domain] = asking
            asking.add_done_callback(lambda _: self._asking.pop(domain, None))
        return asking

    async def _look_up(self, domain: str) -> Found:
        try:
            found, ttl = await self._ask(domain)
        except (dns.exception.Timeout, dns.resolver.NoNameservers, dns.resolver.NoResolverConfiguration, OSError) as e:
            found, ttl = Reply(stage="resolve", text=f"no answer from the name servers: {type(e).__name__}"), 0.0
        except dns.exception.DNSException as e:  # a name or an answer that is none
            found, ttl = Reply(stage="resolve", text=f"the look-up failed: {type(e).__name__}"), 0.0
        now = self.clock()
        last = self._remembered.pop(domain, None)
        unheard = isinstance(found, Reply) and found.stage == "resolve"  # "tls" is an answer: nobody may be sent to now
        if unheard and last is not None and isinstance(last.found, NextHop) and now < last.stale_until:
            last.refresh_at = now + REMEMBER_FAILURE_S
            last.until = max(last.until, now + 4 * REMEMBER_FAILURE_S)  # asked again meanwhile, and nobody waits
            self._remembered[domain] = last
            return last.found
        if len(self._remembered) >= MOST_REMEMBERED:
            self._remembered.pop(next(iter(self._remembered)))
        self._remembered[domain] = self._kept(found, ttl, now)
        return found

    def _kept(self, found: Found, ttl: float, now: float) -> _Remembered:
        match found:
            case NextHop():
                lasts = min(max(ttl, REMEMBER_AT_LEAST_S), REMEMBER_AT_MOST_S)
                return _Remembered(found, now + REFRESH_AT * lasts, now + lasts, now + SERVE_STALE_S)
            case Impossible():
                until = now + min(max(ttl, REMEMBER_AT_LEAST_S), REMEMBER_NO_DOMAIN_S)
            case Reply():
                until = now + REMEMBER_FAILURE_S
            case _:
                assert_never(found)
        return _Remembered(found, until, until, 0.0)

    async def _ask(self, domain: str) -> tuple[Found, float]:
        try:
            answer = await self._asked_twice(domain)
        except dns.resolver.NXDOMAIN:
            return Impossible(category="bad_domain", text="the domain does not exist"), REMEMBER_NO_DOMAIN_S
        except dns.resolver.NoAnswer:  # RFC 5321 5.1: without MX the domain itself is the host
            hosts, ttl, secure = [domain], REMEMBER_AT_MOST_S, True  # as its addresses are: it is the same zone
            best = hosts
        else:
            if answer.rrset is None:
                raise dns.resolver.NoAnswer
            ttl, secure = float(answer.rrset.ttl), self.tls is not None and self.tls.is_secure(answer)
            records = list(answer.rrset)
            self.chance.shuffle(records)  # RFC 5321 5.1: equal preferences are tried at random
            records.sort(key=lambda record: record.preference)
            hosts = [record.exchange.to_text(omit_final_dot=True).lower() for record in records]
            best = [host for host, one in zip(hosts, records, strict=True) if one.preference == records[0].preference]
            if hosts[0] in {"", "."} and len(hosts) == 1:
                return Impossible(category="bad_domain", text="the domain takes no mail (null MX, RFC 7505)"), ttl
        provider = self.providers.of(domain, sorted(best))
        servers, ttl = await self._addresses(hosts[:MOST_HOSTS], ttl, provider)
        if not isinstance(servers, _Servers):
            return servers, ttl
        if self.tls is None:
            return self._at_least(_hop(servers.targets, provider)), ttl
        found = await self._demanded(self.tls, domain, servers, mx_secure=secure)
        if isinstance(found, NextHop) and any(isinstance(target.tls, Dane) for target in found.targets):
            ttl = min(ttl, REMEMBER_TLSA_S)
        return found, ttl

    async def _demanded(self, tls: Demands, domain: str, found: "_Servers", *, mx_secure: bool) -> Found:
        """The targets with what each has to prove, without those that are not to be used."""
        demands = await tls.of(domain, found.hosts, mx_secure=mx_secure)
        targets: list[Target] = []
        refused = Reply(stage="tls", text="the domain has no mail server that may be used")
        for target in found.targets:
            match demands[target.host]:
                case NotToBeUsed(why, by):
                    refused = Reply(stage="tls", text=why, mx=target.host, tls_policy=by)
                case demand:
                    targets.append(replace(target, tls=demand))
        return self._at_least(_hop(targets, found.provider)) if targets else refused

    def _at_least(self, hop: NextHop) -> NextHop:
        return hop.at_least(ENCRYPT) if self.must_encrypt(hop.provider) else hop

    async def _asked_twice(self, domain: str) -> dns.resolver.Answer:
        """The domain's MX records; that it does not exist is believed when it is said again a little later."""
        try:
            return await self._resolve(domain, "MX")
        except dns.resolver.NXDOMAIN:
            await asyncio.sleep(self.ask_again_after_s)
            return await self._resolve(domain, "MX")

    async def _addresses(
        self, hosts: Sequence[str], ttl: float, provider: str
    ) -> tuple["_Servers | Impossible | Reply", float]:
        found = await asyncio.gather(*(self._addresses_of(host) for host in hosts))
        targets = [
            Target(host, address, self.port)
            for host, one in zip(hosts, found, strict=True)
            for address in one.addresses[:MOST_ADDRESSES]
        ]
        ttl = min([ttl, *(one.ttl for one in found)])
        if not targets and any(one.unanswered for one in found):
            return Reply(stage="resolve", text="no answer for the addresses of the mail servers"), 0.0
        if not targets:
            return Impossible(category="bad_domain", text="none of the domain's mail servers has an address"), ttl
        if not self.allow_private:
            public = [target for target in targets if may_connect(target.address)]
            if not public:
                return Impossible(category="bad_domain", text="the domain's mail servers have no public address"), ttl
            targets = public
        used = {target.host for target in targets}
        named = [
            MailHost(host, one.canonical, secure=one.secure)
            for host, one in zip(hosts, found, strict=True)
            if host in used
        ]
        return _Servers(targets, named, provider), ttl

    async def _addresses_of(self, host: str) -> "_Addresses":
        """Addresses of a host, and what is known of them."""
        addresses: list[str] = []
        ttl, unanswered, canonical, validated = REMEMBER_AT_MOST_S, False, host, []
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
                canonical = answer.canonical_name.to_text(omit_final_dot=True).lower()
                validated.append(self.tls is not None and self.tls.is_secure(answer))
                addresses.extend(record.address for record in answer.rrset)
        return _Addresses(addresses, ttl, unanswered, canonical, bool(validated) and all(validated))

    async def _resolve(self, name: str, kind: str) -> dns.resolver.Answer:
        if self.resolver is None:
            self.resolver = dns.asyncresolver.Resolver()
        return await self.resolver.resolve(f"{name.rstrip('.')}.", kind, lifetime=LOOKUP_TIMEOUT_S)
