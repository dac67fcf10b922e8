"""Every metric of a worker, with its labels; the names are promises.

Labels are bounded: topics as in ``schemas.topics`` (a campaign's topics are one label value), reasons and outcomes
as the code knows them, campaigns only where one series per campaign is wanted, and only for campaigns that exist.

=======================================  ========================  ====================================================
metric                                   labels                    meaning
=======================================  ========================  ====================================================
mailcordon_requests_total                result                    send requests: admitted, held, refused, dead_letter
mailcordon_recipients_admitted_total                               recipients on their way to a sender
mailcordon_recipients_refused_total      reason                    recipients that get no mail
mailcordon_recipients_held_total         reason                    messages that wait for a decision
mailcordon_recipients_flagged_total      screen                    objections of screens that let a message pass
mailcordon_published_total               topic                     records published
mailcordon_dead_letters_total            topic, reason             records set aside
mailcordon_results_total                 outcome                   delivery results counted (repeats are not)
mailcordon_result_frames_total           kind                      frames of results: new, repeat
mailcordon_feedback_total                kind                      feedback counted (repeats are not)
mailcordon_feedback_skipped_total        why                       feedback not counted: repeat, too_old, forwarded
mailcordon_decisions_total               to, rule                  changes of state (repeats are not)
mailcordon_commands_dropped_total        command, why              our own commands that came too late: campaign_deleted
mailcordon_handling_seconds              agent                     time per event, waiting for Kafka included
mailcordon_campaign_state                campaign, state           1 for the state that the campaign is in
mailcordon_catalogue_entries             topic                     what the local copy holds
mailcordon_catalogue_malformed                                     records of compacted topics that could not be read
mailcordon_catalogue_heard_ago_seconds                             age of the local copy
mailcordon_ready                                                   1 when /readyz says yes
mailcordon_oldest_open_event_seconds                               how long the event that holds commits back is open
=======================================  ========================  ====================================================
"""

import contextlib
import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from schemas.topics import LEDGER, OUTBOUND

_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)


class Metrics:
    """The metrics of one worker, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("requests_total", "send requests", "result")
        self.admitted = self._counter("recipients_admitted_total", "recipients on their way to a sender")
        self.refused = self._counter("recipients_refused_total", "recipients that get no mail", "reason")
        self.held = self._counter("recipients_held_total", "messages that wait for a decision", "reason")
        self.flagged = self._counter("recipients_flagged_total", "objections of screens that let pass", "screen")
        self._published = self._counter("published_total", "records published", "topic")
        self.dead_letters = self._counter("dead_letters_total", "records set aside", "topic", "reason")
        self.results = self._counter("results_total", "delivery results counted", "outcome")
        self.frames = self._counter("result_frames_total", "frames of results", "kind")
        self.feedback = self._counter("feedback_total", "feedback counted", "kind")
        self.feedback_skipped = self._counter("feedback_skipped_total", "feedback not counted", "why")
        self.decisions = self._counter("decisions_total", "changes of state", "to", "rule")
        self.commands_dropped = self._counter("commands_dropped_total", "our own commands too late", "command", "why")
        self._handling = Histogram(
            "mailcordon_handling_seconds", "time per event", ["agent"], buckets=_BUCKETS_S, registry=self.registry
        )
        self.campaign_state = self._gauge("campaign_state", "1 for the campaign's state", "campaign", "state")
        self.catalogue_entries = self._gauge("catalogue_entries", "what the local copy holds", "topic")
        self.catalogue_malformed = self._gauge("catalogue_malformed", "records that could not be read")
        self.catalogue_heard_ago = self._gauge("catalogue_heard_ago_seconds", "age of the local copy")
        self.ready = self._gauge("ready", "1 when ready")
        self.oldest_open = self._gauge("oldest_open_event_seconds", "age of the event that holds commits back")

    def published(self, topic: str) -> None:
        """Count a record that was published; all campaigns' topics are one label value."""
        for prefix in (OUTBOUND, LEDGER):
            if topic.startswith(prefix):
                topic = f"{prefix}*"
        self._published.labels(topic).inc()

    @contextlib.contextmanager
    def handling(self, agent: str) -> Iterator[None]:
        """Measure the time that an agent takes for one event."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._handling.labels(agent).observe(time.perf_counter() - began)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"mailcordon_{name}", meaning, labels, registry=self.registry)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(f"mailcordon_{name}", meaning, labels, registry=self.registry)
