"""Encryption of a sender's connections, made of the settings."""

import asyncio
import ssl
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry

from cli.failures import WrongUse
from policy.mta_sts import NoPolicy, StsPolicy
from policy.settings import Settings
from smtp.mx import may_connect
from smtp.tls.demand import NAMES
from smtp.tls.demands import Demands
from smtp.tls.metrics import TlsMetrics
from smtp.tls.secure_dns import SystemResolver
from smtp.tls.sts import MtaSts, Policies
from smtp.tls.verdict import context_for


@dataclass(frozen=True, slots=True)
class Encryption:
    """What a sender's look-ups and its opener need."""

    resolver: SystemResolver
    demands: Demands | None
    metrics: TlsMetrics
    ca_file: Path | None


def encryption(settings: Settings, registry: CollectorRegistry) -> Encryption:
    """Resolver, look-ups and metrics; a file of authorities that cannot be read is wrong use."""
    ca_file = settings.tls_ca_file
    try:
        context_for(NAMES, ca_file)
    except (OSError, ssl.SSLError) as unreadable:
        raise WrongUse(f"MAILCORDON_TLS_CA_FILE: no certificates in {ca_file}: {unreadable}") from unreadable
    metrics = TlsMetrics(registry)
    dane = settings.dane == "auto"
    resolver = SystemResolver(for_ad=dane)
    if not (settings.mta_sts or dane):
        return Encryption(resolver, None, metrics, ca_file)
    demands = Demands(
        resolver,
        mta_sts=_mta_sts(settings, resolver, metrics) if settings.mta_sts else None,
        dane=dane,
        trust_resolver=settings.trust_resolver,
        metrics=metrics,
    )
    return Encryption(resolver, demands, metrics, ca_file)


def _mta_sts(settings: Settings, resolver: SystemResolver, metrics: TlsMetrics) -> MtaSts:
    policies = _WhenAsked(settings, resolver)
    return MtaSts(resolver, policies, clock=lambda: asyncio.get_running_loop().time(), metrics=metrics)


class _WhenAsked:
    """The HTTP client is imported for the first domain that says it has a policy: it takes 9 MiB."""

    def __init__(self, settings: Settings, resolver: SystemResolver) -> None:
        self._settings = settings
        self._resolver = resolver
        self._host: Policies | None = None

    async def fetch(self, domain: str) -> StsPolicy | NoPolicy:
        if self._host is None:
            from smtp.tls.policy_host import PolicyHost

            ca_file = self._settings.tls_ca_file
            self._host = PolicyHost(self._resolver, may_connect=self._may_connect, ca_file=ca_file)
        return await self._host.fetch(domain)

    def _may_connect(self, address: str) -> bool:
        return self._settings.allow_private_mx or may_connect(address)
