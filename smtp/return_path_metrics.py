"""What the return path counts, for Prometheus.  The names are promises.

mailcordon_return_path_messages_total{result}      messages by answer: accepted, try_later
mailcordon_return_path_refused_total{reason}       what was turned away before it was a message, by reason
mailcordon_return_path_feedback_total{kind}        feedback that Kafka has, by kind of mail.feedback
mailcordon_return_path_repeats_total               feedback that Kafka had already and was not published again
mailcordon_return_path_noted_total{what}           reports without a consequence: delayed, delivered, ...
mailcordon_return_path_dead_letters_total{reason}  messages set aside, by reason
mailcordon_return_path_disbelieved_total{reason}   recipients with feedback that is not believed: bad_signature,
                                                   expired, replayed, ...; a bad signature is somebody's attempt
mailcordon_return_path_parser_seconds              processor time for reading one message, in a process made for it
mailcordon_return_path_unread_total{reason}        messages that no parser got through: reader_killed, reader_too_slow,
                                                   reader_failed; the first two end the parser, and another begins
mailcordon_return_path_unsubscribe_total{result}   requests for unsubscribe links, by answer: one-click, page, shown,
                                                   forged, unknown_campaign, bad_request, too_many, try_later
mailcordon_return_path_publish_seconds             how long Kafka took to acknowledge a message's records
mailcordon_return_path_connections                 connections that are open
"""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from smtp.reader_process import Read, Unreadable

_PARSER_BUCKETS_S = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.05, 0.1, 0.3, 1.0, 3.0)
_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The counters of one return path; all label values are words of ours."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry if registry is not None else CollectorRegistry()
        self._messages = self._counter("messages", "messages by answer", "result")
        self._replies = self._counter("replies", "replies of any kind", "code")
        self._refused = self._counter("refused", "turned away before it was a message", "reason")
        self._feedback = self._counter("feedback", "feedback that Kafka has", "kind")
        self._repeats = self._counter("repeats", "feedback that Kafka had already")
        self._noted = self._counter("noted", "reports without a consequence", "what")
        self._dead_letters = self._counter("dead_letters", "messages set aside", "reason")
        self._disbelieved = self._counter("disbelieved", "recipients with feedback that was not believed", "reason")
        self._unread = self._counter("unread", "messages that no parser got through", "reason")
        self._parser = Histogram(
            "mailcordon_return_path_parser_seconds",
            "processor time for reading one message",
            buckets=_PARSER_BUCKETS_S,
            registry=self.registry,
        )
        self._unsubscribe = self._counter("unsubscribe", "requests for unsubscribe links", "result")
        self._publish = Histogram(
            "mailcordon_return_path_publish_seconds",
            "time until Kafka had a message's records",
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        self._connections = Gauge(
            "mailcordon_return_path_connections", "connections that are open", registry=self.registry
        )

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"mailcordon_return_path_{name}", meaning, labels, registry=self.registry)

    def message(self, result: str) -> None:
        """A message was answered."""
        self._messages.labels(result).inc()

    def reply(self, code: str) -> None:
        """Something was said to a client."""
        self._replies.labels(code).inc()

    def refused(self, reason: str) -> None:
        """Something was turned away."""
        self._refused.labels(reason).inc()

    def feedback(self, kind: str) -> None:
        """Kafka has one more piece of feedback."""
        self._feedback.labels(kind).inc()

    def repeat(self) -> None:
        """Feedback came that Kafka had already."""
        self._repeats.inc()

    def noted(self, what: str) -> None:
        """A report came that has no consequence."""
        self._noted.labels(what).inc()

    def dead_letter(self, reason: str) -> None:
        """A message was set aside."""
        self._dead_letters.labels(reason).inc()

    def disbelieved(self, reason: str) -> None:
        """Feedback about one recipient was not believed."""
        self._disbelieved.labels(reason).inc()

    def read(self, read: Read) -> None:
        """A parser is done with a message, or the message with the parser."""
        if read.cpu_s is not None:
            self._parser.observe(read.cpu_s)
        if isinstance(read.outcome, Unreadable):
            self._unread.labels(read.outcome.reason).inc()

    def unsubscribe(self, result: str) -> None:
        """A request for an unsubscribe link was answered."""
        self._unsubscribe.labels(result).inc()

    def published_in(self, seconds: float) -> None:
        """Kafka has acknowledged."""
        self._publish.observe(seconds)

    def count_connections(self, count: Callable[[], float]) -> None:
        """Where the number of open connections is asked."""
        self._connections.set_function(count)
