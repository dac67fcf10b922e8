"""What the controller counts.  The names are promises to dashboards; no campaign is a label.

===================================================  =======  =========================================================
metric                                               labels   meaning
===================================================  =======  =========================================================
mailcordon_controller_reconciled_total               result   looks at one sender: nothing_to_do, done, in_progress,
                                                              stale, temporary, permanent, bug
mailcordon_controller_control_to_done_seconds        act      from the decision until the place was read back as it asks
mailcordon_controller_waiting                                 campaigns that wait for a worker now
mailcordon_controller_delayed                                 campaigns that wait for their next try
mailcordon_controller_resynced_timestamp_seconds              when all senders were last compared with the decisions
mailcordon_controller_senders                        state    senders that are there, as of the last resync
mailcordon_controller_api_calls_total                verb,    calls of the Kubernetes API; code 0: no answer.  A watch
                                                     kind,    counts when it ends
                                                     code
mailcordon_controller_watch_restarts_total           kind     watches that had to begin with a list again
===================================================  =======  =========================================================
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300)


class Metrics:
    """The metrics of one controller."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        prefix, registered = "mailcordon_controller", self.registry
        self.reconciled = Counter(f"{prefix}_reconciled_total", "looks at one sender", ["result"], registry=registered)
        self.control_to_done = Histogram(
            f"{prefix}_control_to_done_seconds",
            "from decision to done",
            ["act"],
            buckets=_BUCKETS_S,
            registry=registered,
        )
        self.waiting = Gauge(f"{prefix}_waiting", "campaigns that wait for a worker", registry=registered)
        self.delayed = Gauge(f"{prefix}_delayed", "campaigns that wait for their next try", registry=registered)
        self.resynced_at = Gauge(f"{prefix}_resynced_timestamp_seconds", "last full comparison", registry=registered)
        self.senders = Gauge(f"{prefix}_senders", "senders that are there", ["state"], registry=registered)
        self.api_calls = Counter(
            f"{prefix}_api_calls_total", "calls of the Kubernetes API", ["verb", "kind", "code"], registry=registered
        )
        self.watch_restarts = Counter(
            f"{prefix}_watch_restarts_total", "watches begun with a list again", ["kind"], registry=registered
        )

    def count_call(self, verb: str, kind: str, code: int) -> None:
        """One call of the Kubernetes API."""
        self.api_calls.labels(verb, kind, str(code)).inc()

    def count_watch_restart(self, kind: str) -> None:
        """One watch that has to begin with a list again."""
        self.watch_restarts.labels(kind).inc()

    def count_senders(self, states: list[str]) -> None:
        """How many senders are in each state now."""
        self.senders.clear()
        for state in sorted(set(states)):
            self.senders.labels(state or "unknown").set(states.count(state))
