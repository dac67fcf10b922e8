"""MTA-STS policies of domains, found and kept (RFC 8461 3, 5.1, 10.2).

A policy that was fetched is obeyed until its time is over, whatever becomes of the record or the policy host
meanwhile: it is what protects against somebody who keeps us from seeing them.  Policies live in memory only.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import dns.exception
import dns.rdtypes.txtbase
import dns.resolver
import structlog

from policy.mta_sts import NoPolicy, StsPolicy, policy_id
from smtp.tls.dane import LOOKUP_TIMEOUT_S, Resolver
from smtp.tls.metrics import TlsMetrics
from smtp.tls.secure_dns import in_ascii

log = structlog.get_logger()

MOST_POLICIES = 10_000
LOOK_AGAIN_S = 60.0  # not more often, whatever is found
REFRESH_S = 86_400.0  # an unchanged id is not believed for longer than a day
TRY_AGAIN_S = 300.0  # after a policy could not be fetched

_DOMAIN = re.compile(r"(?=.{1,240}\Z)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*").fullmatch


class Policies(Protocol):
    """Where policies come from."""

    async def fetch(self, domain: str) -> StsPolicy | NoPolicy:
        """The domain's policy, or why there is none to be had."""


@dataclass(slots=True)
class _Kept:
    """What is known of one domain: its policy (until ``expires``), and when to look again."""

    look_at: float
    policy: StsPolicy | None = None
    id: str | None = None
    fetched: float = 0.0
    expires: float = 0.0
    fetch_at: float = 0.0


class MtaSts:
    """Answers which policy is in force for a domain; ``clock`` is in seconds that never go back."""

    def __init__(
        self, resolver: Resolver, policies: Policies, *, clock: Callable[[], float], metrics: TlsMetrics | None = None
    ) -> None:
        self._resolver = resolver
        self._policies = policies
        self._clock = clock
        self._metrics = metrics or TlsMetrics()
        self._kept: dict[str, _Kept] = {}

    async def policy(self, domain: str) -> StsPolicy | None:
        """The policy that mail to the domain has to obey now."""
        written = in_ascii(domain)
        if written is None or not _DOMAIN(written):
            return None
        domain, now = written, self._clock()
        known = self._kept.get(domain)
        if known is None or known.look_at <= now:
            known = await self._looked(domain, known or _Kept(now), now)
        return known.policy if known.policy is not None and now < known.expires else None

    async def _looked(self, domain: str, known: _Kept, now: float) -> _Kept:
        found = await self._id(domain)
        in_force = known.policy is not None and now < known.expires
        is_new = found is not None and (not in_force or found != known.id or now - known.fetched >= REFRESH_S)
        if found is None or not is_new:
            self._metrics.sts("cached" if in_force else "none")
        elif known.fetch_at <= now:
            fetched = await self._policies.fetch(domain)
            if isinstance(fetched, StsPolicy):
                self._metrics.sts("fetched")
                known.policy, known.id = fetched, found
                known.fetched, known.expires = now, now + max(fetched.max_age_s, LOOK_AGAIN_S)
            else:
                self._metrics.sts("kept" if in_force else "failed")
                log.info("no MTA-STS policy could be read", domain=domain, cause=fetched.explain, kept=in_force)
                known.fetch_at = now + TRY_AGAIN_S
        known.look_at = now + LOOK_AGAIN_S
        self._keep(domain, known, now)
        return known

    def _keep(self, domain: str, known: _Kept, now: float) -> None:
        """Remember; of too many, those go first that hold no policy, then the one looked up longest ago."""
        self._kept.pop(domain, None)
        if len(self._kept) >= MOST_POLICIES:
            idle = [name for name, one in self._kept.items() if one.policy is None or one.expires <= now]
            for name in idle or [next(iter(self._kept))]:
                del self._kept[name]
        self._kept[domain] = known

    async def _id(self, domain: str) -> str | None:
        """The id that the domain's record tells; that it cannot be had is as if there were none (RFC 8461 3.1)."""
        try:
            answer = await self._resolver.resolve(f"_mta-sts.{domain}.", "TXT", lifetime=LOOKUP_TIMEOUT_S)
        except (dns.exception.DNSException, OSError):
            return None
        texts = [
            b"".join(record.strings).decode("ascii", "replace")
            for record in answer.rrset or ()
            if isinstance(record, dns.rdtypes.txtbase.TXTBase)
        ]
        return policy_id(texts)
