"""Answers of name servers that DNSSEC has validated, and when to believe that they are.

We validate nothing ourselves: a validating resolver does, and says so with one bit (AD, RFC 4035 3.2.3).  Anybody on
the path to it can set that bit, so it is believed from a resolver on this machine, and from others only when the
operator says that the path to them is trusted.
"""

import ipaddress

import dns.asyncresolver
import dns.exception
import dns.flags
import dns.name
import dns.resolver

_PAYLOAD_BYTES = 1232  # fits into one packet everywhere; longer answers come by TCP


def in_ascii(domain: str) -> str | None:
    """The domain as name servers and certificates have it (A-labels, lower case, no last dot); None if it is none."""
    try:
        return dns.name.from_text(domain.rstrip(".")).to_text(omit_final_dot=True).lower()
    except (dns.exception.DNSException, ValueError):
        return None


def asking_for_ad(resolver: dns.asyncresolver.Resolver) -> dns.asyncresolver.Resolver:
    """Make the resolver ask whether answers are validated (RFC 6840 5.7; DO for those that knew it only so)."""
    resolver.use_edns(0, dns.flags.DO, _PAYLOAD_BYTES)
    resolver.flags = dns.flags.RD | dns.flags.AD
    return resolver


def is_secure(answer: dns.resolver.Answer, *, trusted: bool) -> bool:
    """Was the answer validated by somebody whom we believe?"""
    return bool(answer.response.flags & dns.flags.AD) and (trusted or _is_here(answer.nameserver))


def _is_here(nameserver: str | None) -> bool:
    try:
        return nameserver is not None and ipaddress.ip_address(nameserver).is_loopback
    except ValueError:
        return False


class SystemResolver:
    """The name servers of this machine, asked for validated answers if anybody wants to know; read when needed."""

    def __init__(self, *, for_ad: bool) -> None:
        self._for_ad = for_ad
        self._resolver: dns.asyncresolver.Resolver | None = None

    async def resolve(self, qname: str, rdtype: str, *, lifetime: float) -> dns.resolver.Answer:
        """Look up records."""
        if self._resolver is None:
            system = dns.asyncresolver.Resolver()
            self._resolver = asking_for_ad(system) if self._for_ad else system
        return await self._resolver.resolve(qname, rdtype, lifetime=lifetime)
