"""Metrics of encryption: what sessions were opened with, what they failed to prove, and what policies were found.

===============================================  ================  =====================================================
metric                                           labels            meaning
===============================================  ================  =====================================================
mailcordon_sender_tls_sessions_total             policy, version   sessions opened: what was demanded and proved
                                                                   (opportunistic, required, mta-sts, dane), and the TLS
                                                                   version, ``none`` for plain text
mailcordon_sender_tls_failures_total             policy            connections that did not prove what was demanded;
                                                                   ``opportunistic``: STARTTLS is broken, mail went in
                                                                   plain text; ``mta-sts-testing``: a policy in mode
                                                                   testing does not hold, mail went all the same
mailcordon_sender_mta_sts_total                  answer            look-ups of MTA-STS policies: ``none``, ``fetched``,
                                                                   ``cached``, ``kept`` (a new one could not be had),
                                                                   ``failed`` (there is one, nobody could read it)
mailcordon_sender_dane_total                     answer            look-ups of TLSA records: ``none``, ``records``,
                                                                   ``unusable``, ``failed``
===============================================  ================  =====================================================
"""

from typing import Literal

from prometheus_client import CollectorRegistry, Counter

from smtp.tls.demand import Demand, Label, label

StsAnswer = Literal["none", "fetched", "cached", "kept", "failed"]
DaneAnswer = Literal["none", "records", "unusable", "failed"]

_VERSIONS = {"TLSv1.2", "TLSv1.3"}


class TlsMetrics:
    """The metrics of one sender's encryption, in the sender's registry."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        registry = registry or CollectorRegistry()
        self.sessions = Counter(
            "mailcordon_sender_tls_sessions_total", "sessions opened", ["policy", "version"], registry=registry
        )
        self.failures = Counter(
            "mailcordon_sender_tls_failures_total", "demands not met", ["policy"], registry=registry
        )
        self.mta_sts = Counter("mailcordon_sender_mta_sts_total", "MTA-STS look-ups", ["answer"], registry=registry)
        self.dane = Counter("mailcordon_sender_dane_total", "TLSA look-ups", ["answer"], registry=registry)

    def opened(self, policy: Label, version: str | None) -> None:
        """Count a session."""
        known = "none" if version is None else version if version in _VERSIONS else "other"
        self.sessions.labels(policy, known).inc()

    def failed(self, demand: Demand) -> None:
        """Count a connection that did not prove what was demanded."""
        self.failures.labels(label(demand)).inc()

    def testing_failed(self) -> None:
        """Count a connection that an MTA-STS policy in mode testing would have forbidden."""
        self.failures.labels("mta-sts-testing").inc()

    def sts(self, answer: StsAnswer) -> None:
        """Count a look-up of a policy."""
        self.mta_sts.labels(answer).inc()

    def tlsa(self, answer: DaneAnswer) -> None:
        """Count a look-up of TLSA records."""
        self.dane.labels(answer).inc()
