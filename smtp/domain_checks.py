"""What the DNS says about writing to a domain: for lists that are checked before they are sent.

Asked once per domain, some dozens at a time, and remembered; never on the way of a message.  Nobody is connected to:
trying recipients out would spend the very reputation that is to be protected.

A finding has a strength, 0 to 1: how sure it is that mail to the domain is lost or hits a trap.  1.0 is what the DNS
itself says (no such domain, a null MX); what only looks so is weaker, and no single weak finding decides anything.

=================  ========  ==========================================================================================
finding            strength  what was found
=================  ========  ==========================================================================================
no_domain          1.0       the domain does not exist (NXDOMAIN)
null_mx            1.0       the domain says that it takes no mail (RFC 7505)
no_mail_server     1.0       there is neither an MX record nor an address (RFC 5321 5.1), or no server has an address
no_public_server   0.9       all mail servers have private addresses
no_mail_policy     0.9       no MX record, and the SPF record says that the domain sends no mail either
implicit_mx        0.2       no MX record; the domain itself would be asked (RFC 5321 5.1)
foreign_mx         0.5       looks like a misspelt provider's domain, and its mail goes to somebody else
mx_cluster         0.4-0.7   so do several such domains, all with one mail server: medium, never alone
parked             0.4       mail servers or name servers of a service that holds domains for sale
unknown            0.0       the name servers did not answer: ask again later, never suppress
=================  ========  ==========================================================================================
"""

import asyncio
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Literal

import dns.asyncresolver
import dns.exception
import dns.resolver

from policy.providers import OTHER, Providers, of_host
from policy.typos import likely_domain
from smtp.mx import MOST_HOSTS, MOST_REMEMBERED, Resolver, may_connect

Kind = Literal[
    "no_domain",
    "null_mx",
    "no_mail_server",
    "no_public_server",
    "no_mail_policy",
    "implicit_mx",
    "foreign_mx",
    "mx_cluster",
    "parked",
    "unknown",
]
Verdict = Literal["good", "doubtful", "bad", "unknown"]

BAD_FROM = 0.9
AT_ONCE = 40
WITHIN_S = 6.0
LOOK_ALIKES = 2  # so many with one mail server are a cluster

_KEEP_AT_LEAST_S, _KEEP_AT_MOST_S = 600.0, 21_600.0
_KEEP_NULL_MX_S, _KEEP_NO_DOMAIN_S, _KEEP_UNKNOWN_S = 86_400.0, 3_600.0, 300.0
_UNANSWERED = (
    dns.exception.Timeout,
    dns.resolver.NoNameservers,
    dns.resolver.NoResolverConfiguration,
    OSError,
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that speaks against a domain; the sentence continues ``the domain …``."""

    kind: Kind
    strength: float
    explain: str


@dataclass(frozen=True, slots=True)
class DomainReport:
    """What was found about a domain; ``hosts`` are its mail servers, best first."""

    domain: str
    findings: tuple[Finding, ...] = ()
    hosts: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """``bad``: mail to it is lost; ``doubtful``: something speaks against it; ``unknown``: nobody answered."""
        if any(one.strength >= BAD_FROM for one in self.findings):
            return "bad"
        if any(one.kind == "unknown" for one in self.findings):
            return "unknown"
        return "doubtful" if self.findings else "good"


@dataclass(slots=True)
class DomainChecks:
    """Asks, and remembers the answers for as long as they say, within bounds."""

    resolver: Resolver | None = None
    allow_private: bool = False
    providers: Providers = field(default_factory=lambda: Providers({}))
    at_once: int = AT_ONCE
    clock: Callable[[], float] = lambda: asyncio.get_running_loop().time()
    _remembered: dict[str, tuple[float, DomainReport]] = field(default_factory=dict)
    _asking: "dict[str, asyncio.Task[DomainReport]]" = field(default_factory=dict)
    _turns: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._turns = asyncio.Semaphore(self.at_once)

    async def of(self, domain: str) -> DomainReport:
        """The report on one domain (lower case, A-labels); many that ask at the same time ask once."""
        known = self._remembered.get(domain)
        if known is not None and self.clock() < known[0]:
            return known[1]
        asking = self._asking.get(domain)
        if asking is None:
            asking = asyncio.create_task(self._look_up(domain))
            self._asking[domain] = asking
            asking.add_done_callback(lambda _: self._asking.pop(domain, None))
        return await asyncio.shield(asking)

    async def close(self) -> None:
        """Give up all look-ups."""
        asking = list(self._asking.values())
        for task in asking:
            task.cancel()
        if asking:
            await asyncio.wait(asking)

    async def _look_up(self, domain: str) -> DomainReport:
        async with self._turns:
            try:
                report, keep_s = await self._asked(domain)
            except _UNANSWERED as silent:
                report, keep_s = _unknown(domain, type(silent).__name__), _KEEP_UNKNOWN_S
            except dns.exception.DNSException as odd:  # a name or an answer that is none
                report, keep_s = _unknown(domain, type(odd).__name__), _KEEP_UNKNOWN_S
        if len(self._remembered) >= MOST_REMEMBERED:
            self._remembered.pop(next(iter(self._remembered)))
        self._remembered[domain] = (self.clock() + keep_s, report)
        return report

    async def _asked(self, domain: str) -> tuple[DomainReport, float]:
        try:
            answer = await self._resolve(domain, "MX")
        except dns.resolver.NXDOMAIN:
            gone = Finding("no_domain", 1.0, "does not exist (NXDOMAIN)")
            return DomainReport(domain, (gone,)), _KEEP_NO_DOMAIN_S
        except dns.resolver.NoAnswer:
            return await self._without_mx(domain), _KEEP_AT_MOST_S
        if answer.rrset is None:
            return await self._without_mx(domain), _KEEP_AT_MOST_S
        keep_s = min(max(float(answer.rrset.ttl), _KEEP_AT_LEAST_S), _KEEP_AT_MOST_S)
        records = sorted(answer.rrset, key=lambda record: record.preference)
        hosts = tuple(record.exchange.to_text(omit_final_dot=True).lower() for record in records)[:MOST_HOSTS]
        if all(host in {"", "."} for host in hosts):
            null = Finding("null_mx", 1.0, "says that it takes no mail (null MX, RFC 7505)")
            return DomainReport(domain, (null,)), _KEEP_NULL_MX_S
        return DomainReport(domain, tuple(await self._about(domain, hosts)), hosts), keep_s

    async def _about(self, domain: str, hosts: tuple[str, ...]) -> list[Finding]:
        found = await self._servers(hosts)
        found += self._foreign(domain, hosts)
        return found + await self._parked(domain, hosts)

    async def _without_mx(self, domain: str) -> DomainReport:
        servers = await self._servers((domain,))
        if any(one.strength >= BAD_FROM or one.kind == "unknown" for one in servers):
            return DomainReport(domain, tuple(servers))
        if await self._sends_nothing(domain):
            nothing = Finding("no_mail_policy", 0.9, "has no MX record, and its SPF record says that it sends no mail")
            return DomainReport(domain, (nothing,))
        implicit = Finding("implicit_mx", 0.2, "has no MX record; its own address would be asked (RFC 5321 5.1)")
        others = [*self._foreign(domain, (domain,)), *await self._parked(domain, (domain,))]
        return DomainReport(domain, (implicit, *others), (domain,))

    async def _servers(self, hosts: tuple[str, ...]) -> list[Finding]:
        """Has any of the mail servers an address that can be connected to?"""
        answers = await asyncio.gather(*(self._addresses(host) for host in hosts))
        addresses = [address for found in answers for address in found or ()]
        if self.allow_private and addresses:
            return []
        if any(may_connect(address) for address in addresses):
            return []
        if any(found is None for found in answers):
            return [Finding("unknown", 0.0, "has mail servers whose addresses could not be asked for now")]
        if addresses:
            return [Finding("no_public_server", 0.9, "has mail servers with private addresses only")]
        return [Finding("no_mail_server", 1.0, "has no mail server with an address")]

    async def _addresses(self, host: str) -> list[str] | None:
        """The addresses of a host; None: nobody answered."""
        found: list[str] = []
        unheard = False
        for kind in ("A", "AAAA"):
            try:
                answer = await self._resolve(host, kind)
            except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
                continue
            except (*_UNANSWERED, dns.exception.DNSException):
                unheard = True
                continue
            found += [record.address for record in answer.rrset or ()]
        return None if unheard and not found else found

    async def _sends_nothing(self, domain: str) -> bool:
        try:
            answer = await self._resolve(domain, "TXT")
        except (*_UNANSWERED, dns.exception.DNSException):
            return False
        texts = (b"".join(record.strings).lower().split() for record in answer.rrset or ())
        return any(words == [b"v=spf1", b"-all"] for words in texts)

    def _foreign(self, domain: str, hosts: tuple[str, ...]) -> list[Finding]:
        likely = likely_domain(domain)
        if likely is None:
            return []
        provider = self.providers.of(likely)
        if provider != OTHER and any(of_host(host) == provider for host in hosts):
            return []
        explain = f"looks like a misspelt {likely}, and its mail goes to {hosts[0]}: a typo trap, or somebody else's"
        return [Finding("foreign_mx", 0.5, explain)]

    async def _parked(self, domain: str, hosts: tuple[str, ...]) -> list[Finding]:
        try:
            answer = await self._resolve(domain, "NS")
            servers = [record.target.to_text(omit_final_dot=True).lower() for record in answer.rrset or ()]
        except (*_UNANSWERED, dns.exception.DNSException):
            servers = []
        for host in (*hosts, *servers):
            if (service := parking_service(host)) is not None:
                return [Finding("parked", 0.4, f"is held for sale at {service}; nobody reads its mail")]
        return []

    async def _resolve(self, name: str, kind: str) -> dns.resolver.Answer:
        if self.resolver is None:
            self.resolver = dns.asyncresolver.Resolver()
        return await self.resolver.resolve(f"{name.rstrip('.')}.", kind, lifetime=WITHIN_S)


def clusters(reports: Iterable[DomainReport]) -> Mapping[str, Finding]:
    """Look-alikes of large providers that share one mail server, by domain; servers of known providers say nothing."""
    by_host: defaultdict[str, set[str]] = defaultdict(set)
    for report in reports:
        if report.hosts and likely_domain(report.domain) is not None and of_host(report.hosts[0]) is None:
            by_host[report.hosts[0]].add(report.domain)
    found: dict[str, Finding] = {}
    for host, domains in by_host.items():
        if len(domains) >= LOOK_ALIKES:
            strength = min(0.2 + 0.1 * len(domains), 0.7)
            explain = f"is one of {len(domains)} look-alikes of large providers whose mail goes to {host}"
            found |= dict.fromkeys(domains, Finding("mx_cluster", round(strength, 1), explain))
    return found


def parking_service(host: str) -> str | None:
    """The service that holds domains for sale, if this is one of its servers."""
    name = host
    while name:
        if name in _parking():
            return name
        name = name.partition(".")[2]
    return None


@cache
def _parking() -> frozenset[str]:
    raw = files("policy").joinpath("parking.toml").read_text(encoding="utf-8")
    return frozenset(tomllib.loads(raw)["suffixes"])


def _unknown(domain: str, why: str) -> DomainReport:
    return DomainReport(domain, (Finding("unknown", 0.0, f"could not be asked for now ({why}); check it again"),))
