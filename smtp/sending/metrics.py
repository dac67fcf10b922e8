"""Every metric of a sender; the names are promises.

One process sends for one campaign, so nothing is labelled with it: the scrape's target says which one it is.

===========================================  ========================  ===============================================
metric                                       labels                    meaning
===========================================  ========================  ===============================================
mailcordon_sender_attempts_total             outcome, provider         results written down
mailcordon_sender_attempt_seconds                                      one SMTP transaction
mailcordon_sender_skipped_total                                        messages that were sent before
mailcordon_sender_withheld_total                                       intents that were not carried out
mailcordon_sender_backlog                                              messages in memory that are not final
mailcordon_sender_parked                                               messages that wait in the ledger
mailcordon_sender_in_flight                                            messages that workers have in hand
mailcordon_sender_known_ids                                            message ids that will never be sent again
mailcordon_sender_may_send                                             1 when the gate is open
mailcordon_sender_epoch                                                newest epoch heard of
mailcordon_sender_egress_ok                                            1 when the source address is in order
mailcordon_sender_egress_down                                          1 while our own way out fails
mailcordon_sender_egress_elsewhere                                     1 while mail would leave from a wrong address
mailcordon_sender_sessions                   provider                  SMTP connections open
mailcordon_sender_sessions_limit             provider                  most that are allowed now
mailcordon_sender_rate_limit                 provider                  messages per second allowed now; absent: no limit
mailcordon_sender_suspended                  provider, reason          1 while it gets nothing, for replies of a kind
mailcordon_sender_back_offs_total            provider                  times that it was given less, or left alone
===========================================  ========================  ===============================================

A provider is one of ``providers.toml`` or the setting ``providers``; where its limits hold for each next hop, sessions
and their limits are sums, and it is suspended when one of them is.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from smtp.attempts import Standing

_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 600.0)


class SenderMetrics:
    """The metrics of one sender, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._attempts = Counter(
            "mailcordon_sender_attempts_total", "results", ["outcome", "provider"], registry=self.registry
        )
        self._counted: dict[tuple[str, str], Counter] = {}
        self.attempt_s = Histogram(
            "mailcordon_sender_attempt_seconds", "SMTP transaction", buckets=_BUCKETS_S, registry=self.registry
        )
        self.skipped = Counter("mailcordon_sender_skipped_total", "sent before", registry=self.registry)
        self.withheld = Counter("mailcordon_sender_withheld_total", "intents not carried out", registry=self.registry)

    def count(self, outcome: str, provider: str) -> None:
        """Count one result."""
        counted = self._counted.get((outcome, provider))
        if counted is None:
            counted = self._counted[outcome, provider] = self._attempts.labels(outcome, provider)
        counted.inc()

    def gauge(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """A value that is asked for when somebody scrapes."""
        Gauge(f"mailcordon_sender_{name}", meaning, registry=self.registry).set_function(value)

    def groups(self, standings: Callable[[], Iterable[Standing]]) -> None:
        """How providers stand, asked for when somebody scrapes."""
        self.registry.register(_Groups(standings))

    def rules(self, dry_runs: Callable[[], Mapping[tuple[str, str], int]]) -> None:
        """What rules in dry run would have decided, asked for when somebody scrapes."""
        self.registry.register(_DryRuns(dry_runs))


class _Groups(Collector):
    """The metrics of each provider, from what the mailer says of its groups."""

    def __init__(self, standings: Callable[[], Iterable[Standing]]) -> None:
        self._standings = standings

    def describe(self) -> Iterable[Metric]:
        """Nothing is asked of the mailer before it runs."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Add up what the groups of each provider have."""
        sessions = GaugeMetricFamily("mailcordon_sender_sessions", "SMTP connections open", labels=["provider"])
        limits = GaugeMetricFamily("mailcordon_sender_sessions_limit", "most allowed now", labels=["provider"])
        rates = GaugeMetricFamily("mailcordon_sender_rate_limit", "messages per second", labels=["provider"])
        suspended = GaugeMetricFamily("mailcordon_sender_suspended", "gets nothing", labels=["provider", "reason"])
        back_offs = CounterMetricFamily("mailcordon_sender_back_offs", "given less", labels=["provider"])
        of: dict[str, list[Standing]] = {}
        for standing in self._standings():
            of.setdefault(standing.provider, []).append(standing)
        for provider, group in of.items():
            sessions.add_metric([provider], sum(one.sessions for one in group))
            limits.add_metric([provider], sum(one.connections for one in group))
            back_offs.add_metric([provider], sum(one.back_offs for one in group))
            if all(one.per_second > 0 for one in group):
                rates.add_metric([provider], sum(one.per_second for one in group))
            for reason in sorted({one.suspended for one in group if one.suspended}):
                suspended.add_metric([provider, reason], 1.0)
        yield from (sessions, limits, rates, suspended, back_offs)


class _DryRuns(Collector):
    """How often each rule in dry run would have decided."""

    def __init__(self, dry_runs: Callable[[], Mapping[tuple[str, str], int]]) -> None:
        self._dry_runs = dry_runs

    def describe(self) -> Iterable[Metric]:
        """Nothing is asked of the mailer before it runs."""
        return []

    def collect(self) -> Iterator[Metric]:
        """One series per rule."""
        found = CounterMetricFamily("mailcordon_sender_dry_run_rules", "replies", labels=["rule", "category"])
        for (rule, category), replies in self._dry_runs().items():
            found.add_metric([rule, category], replies)
        yield found
