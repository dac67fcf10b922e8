"""What the connection to each mail server of a domain must prove: asked of DANE first, then of MTA-STS.

A host with TLSA records in a signed zone is under DANE, and what MTA-STS says of it does not matter (RFC 8461 2:
the one must not override the other's failure).  Of the others, those that an enforced policy does not list are not
used at all.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

import dns.resolver

from policy.mta_sts import StsPolicy
from smtp.tls.dane import Records, Resolver, Unanswered, tlsa_records
from smtp.tls.demand import ENCRYPT, MAY, NAMES, TESTING, Dane, Demand, Label, stronger
from smtp.tls.metrics import TlsMetrics
from smtp.tls.secure_dns import in_ascii, is_secure
from smtp.tls.sts import MtaSts

SMTP_PORT = 25


@dataclass(frozen=True, slots=True)
class MailHost:
    """A mail server of a domain; ``canonical`` is what it is an alias of, ``secure`` says it of its addresses."""

    name: str
    canonical: str
    secure: bool


@dataclass(frozen=True, slots=True)
class NotToBeUsed:
    """Why mail must not go to a host now, and by whose word."""

    why: str
    by: Label


class Demands:
    """Answers what connections must prove; without ``mta_sts`` and ``dane`` that is nothing."""

    def __init__(
        self,
        resolver: Resolver,
        *,
        mta_sts: MtaSts | None = None,
        dane: bool = False,
        trust_resolver: bool = False,
        metrics: TlsMetrics | None = None,
        port: int = SMTP_PORT,
    ) -> None:
        self._resolver = resolver
        self._mta_sts = mta_sts
        self._dane = dane
        self._trusted = trust_resolver
        self._metrics = metrics or TlsMetrics()
        self._port = port

    def is_secure(self, answer: dns.resolver.Answer) -> bool:
        """Was this answer validated, in a way that we believe?"""
        return self._dane and is_secure(answer, trusted=self._trusted)

    async def of(
        self, domain: str, hosts: Sequence[MailHost], *, mx_secure: bool
    ) -> Mapping[str, Demand | NotToBeUsed]:
        """For each host what it must prove, or why it must not be used; ``mx_secure`` says it of the MX records."""
        named = asyncio.gather(*(self._tlsa(host) if mx_secure else _nothing() for host in hosts))
        policy, records = await asyncio.gather(self._policy(domain), named)
        return {
            host.name: self._demand(domain, host, found, policy) for host, found in zip(hosts, records, strict=True)
        }

    async def _policy(self, domain: str) -> StsPolicy | None:
        return None if self._mta_sts is None else await self._mta_sts.policy(domain)

    async def _tlsa(self, host: MailHost) -> Records | Unanswered | None:
        if not (self._dane and host.secure):
            return None
        bases = dict.fromkeys(in_ascii(name) or name for name in (host.canonical, host.name))
        found = await tlsa_records(self._resolver, tuple(bases), port=self._port, trusted=self._trusted)
        match found:
            case None:
                self._metrics.tlsa("none")
            case Unanswered():
                self._metrics.tlsa("failed")
            case Records():
                self._metrics.tlsa("records" if found.usable else "unusable")
            case _:
                assert_never(found)
        return found

    def _demand(
        self, domain: str, host: MailHost, found: Records | Unanswered | None, policy: StsPolicy | None
    ) -> Demand | NotToBeUsed:
        match found:
            case Unanswered():
                return NotToBeUsed(found.why, "dane")
            case Records() if found.usable:
                names = (found.base, *(in_ascii(name) or name for name in (host.name, domain)))
                return Dane(found.usable, tuple(dict.fromkeys(names)))
            case Records() | None:
                asked = self._by_policy(host.name, policy)
                if isinstance(asked, NotToBeUsed) or found is None:
                    return asked
                return stronger(ENCRYPT, asked)  # RFC 7672 2.2: records that nobody can use still ask for encryption
            case _:
                assert_never(found)

    def _by_policy(self, host: str, policy: StsPolicy | None) -> Demand | NotToBeUsed:
        if policy is None or policy.mode == "none":
            return MAY
        if policy.covers(in_ascii(host) or host):
            return NAMES if policy.mode == "enforce" else TESTING
        if policy.mode == "enforce":
            self._metrics.failed(NAMES)
            return NotToBeUsed(f"the domain's MTA-STS policy does not list {host}", "mta-sts")
        self._metrics.testing_failed()
        return MAY


async def _nothing() -> None:
    return None
