"""TLSA records of mail servers (RFC 7672 2.2), asked of a validating resolver."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import dns.exception
import dns.resolver

from smtp.tls.demand import Tlsa
from smtp.tls.secure_dns import is_secure
from smtp.tls.tlsa import usable

LOOKUP_TIMEOUT_S = 10.0
MOST_RECORDS = 50


class Resolver(Protocol):
    """The part of dnspython's asynchronous resolver that is used here."""

    async def resolve(self, qname: str, rdtype: str, *, lifetime: float) -> dns.resolver.Answer:
        """Look up records."""


@dataclass(frozen=True, slots=True)
class Records:
    """The usable TLSA records of ``base``; none when there are some and none of them can be used."""

    base: str
    usable: tuple[Tlsa, ...]


@dataclass(frozen=True, slots=True)
class Unanswered:
    """The question was not answered as it must be in a signed zone: somebody may be in between."""

    why: str


async def tlsa_records(
    resolver: Resolver, bases: Sequence[str], *, port: int, trusted: bool
) -> Records | Unanswered | None:
    """The records of the first base domain that has any, None when it is secure that there are none.

    ``bases`` are the host's canonical name and its own (RFC 7672 2.2.3).  Addresses of all of them are known to be
    secure, so that a question without an answer is an attack, or looks like one.  So does an answer with a record
    whose length does not fit its kind: dnspython reads none of it then.
    """
    for base in bases:
        try:
            answer = await resolver.resolve(f"_{port}._tcp.{base.rstrip('.')}.", "TLSA", lifetime=LOOKUP_TIMEOUT_S)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            continue
        except (dns.exception.DNSException, OSError) as failed:
            return Unanswered(f"no secure answer for the TLSA records of {base}: {type(failed).__name__}")
        if answer.rrset is None or not is_secure(answer, trusted=trusted):
            continue
        found = [Tlsa(one.usage, one.selector, one.mtype, bytes(one.cert)) for one in answer.rrset]
        return Records(base.rstrip(".").lower(), usable(found[:MOST_RECORDS]))
    return None
