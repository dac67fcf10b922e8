"""The AsyncAPI 3.0 document: topics as channels, records as messages, and who sends and receives them in flow order."""

from typing import Any, Literal, NamedTuple

from schemas import topics
from schemas.base import Record
from schemas.codec import MAX_RECORD_BYTES
from schemas.json_schema import parts, prose
from schemas.topics import TOPICS, Topic

Document = dict[str, Any]  # Any: an AsyncAPI document is JSON
Action = Literal["send", "receive"]

BINDING = "0.5.0"
NAME_PARAMETER = "name"

BEHAVIOUR = f"""\
Records are UTF-8 JSON objects. Times are integers, milliseconds since the epoch, UTC.

Each carries its version as `v`. This document describes version 1; a record of another version becomes a dead letter,
and one without `v` is read as version 1. Unknown fields are ignored. A record may have {MAX_RECORD_BYTES:,} bytes; a
larger one, or one whose fields are not of the types below, is refused or becomes a dead letter.

In a send request one wrong recipient is refused alone and its neighbours are delivered; a request with no recipients
or with more than 500 is refused as a whole. Kafka headers of a request are passed on to the outbound record.

All outputs are at least once: a reader drops repeats by message id, by scope and epoch, or by the `ledger` position
of a delivery frame.
"""


class Step(NamedTuple):
    """One role doing one thing with one topic."""

    role: str
    action: Action
    topic: str
    why: str


FLOW: tuple[Step, ...] = (
    Step("operator", "send", topics.CAMPAIGNS, "`campaign apply` publishes who may send, and within which limits"),
    Step("operator", "send", topics.CONTENTS, "`content apply` publishes a template"),
    Step("operator", "send", topics.SUPPRESSIONS, "`suppress add` and `suppress import`; `suppress remove` lifts"),
    Step("application", "send", topics.REQUESTS, "asks for one content to be sent to 1 to 500 recipients"),
    Step("worker.validate", "receive", topics.REQUESTS, "decides for every recipient"),
    Step("worker.validate", "receive", topics.CAMPAIGNS, "knows the campaigns"),
    Step("worker.validate", "receive", topics.CONTENTS, "knows the variables that a content needs"),
    Step("worker.validate", "receive", topics.SUPPRESSIONS, "knows who gets no mail"),
    Step("operator", "send", topics.TRAPS, "`traps add` and `traps import`; `traps remove` takes one away"),
    Step("worker.validate", "receive", topics.TRAPS, "knows our own traps"),
    Step("worker.validate", "send", topics.HELD, "keeps messages that wait for a decision"),
    Step("operator", "receive", topics.HELD, "`held list`, `held release` and `held refuse`"),
    Step("operator", "send", topics.HELD, "`held release` and `held refuse` end the waiting"),
    Step("operator", "send", topics.REQUESTS, "`send`, and `held release`, ask for messages"),
    Step("operator", "send", topics.REFUSED, "`held refuse` says that a message gets no mail"),
    Step("worker.validate", "receive", topics.CONTROL, "knows which campaigns are retired"),
    Step("worker.validate", "send", topics.REFUSED, "says which recipients get no mail, and what to fix"),
    Step("worker.validate", "send", topics.OUTBOUND, "hands the admitted messages to the campaign's sender"),
    Step("worker.validate", "send", topics.DEAD_LETTERS, "keeps requests that could not be understood"),
    Step("sender", "receive", topics.OUTBOUND, "takes the messages of its campaign"),
    Step("sender", "receive", topics.CONTROL, "asks before every transaction whether it may send"),
    Step("sender", "receive", topics.CAMPAIGNS, "knows its From, pace and in-doubt policy"),
    Step("sender", "receive", topics.CONTENTS, "renders the messages"),
    Step("sender", "receive", topics.SUPPRESSIONS, "looks once more before it sends"),
    Step("sender", "send", topics.LEDGER, "writes intents before, results after a message's fate is known"),
    Step("sender", "receive", topics.LEDGER, "learns at its start what its predecessor did"),
    Step("sender", "send", topics.RESULTS, "reports what became of every attempt"),
    Step("sender", "send", topics.DEAD_LETTERS, "keeps frames that could not be understood"),
    Step("return-path", "receive", topics.CAMPAIGNS, "knows its domains"),
    Step("return-path", "receive", topics.TRAPS, "knows our own traps"),
    Step("return-path", "send", topics.FEEDBACK, "reports what comes back: bounces, complaints, trap mail, webhooks"),
    Step("return-path", "send", topics.DEAD_LETTERS, "keeps mail that could not be understood or is not signed"),
    Step("operator", "send", topics.FEEDBACK, "`feedback import` reports what lay in files"),
    Step("application", "send", topics.FEEDBACK, "reports signals from webhooks, imports and people"),
    Step("worker.tally", "receive", topics.RESULTS, "counts results once"),
    Step("worker.tally", "receive", topics.FEEDBACK, "counts signals once, in the minute in which the mail was sent"),
    Step("worker.tally", "send", topics.FEEDBACK, "trap signals in results; signals that came under another key"),
    Step(
        "worker.tally", "send", topics.SUPPRESSIONS, "suppresses addresses that bounced for good, complained, are traps"
    ),
    Step("worker.tally", "send", topics.RATES, "publishes live windows and verdicts"),
    Step("worker.tally", "send", topics.DEAD_LETTERS, "keeps results and feedback that could not be understood"),
    Step("worker.judge", "receive", topics.RATES, "judges a campaign by its rates"),
    Step("operator", "send", topics.COMMANDS, "`isolate`, `release` and `campaign retire` ask the judge"),
    Step("worker.judge", "send", topics.COMMANDS, "reviews what nothing else would bring to mind"),
    Step("worker.judge", "receive", topics.COMMANDS, "obeys operators, and its own clock"),
    Step("worker.judge", "send", topics.DECISIONS, "explains every change of state"),
    Step("worker.judge", "send", topics.AUDIT, "binds every decision and command to the one before it"),
    Step("worker.judge", "send", topics.CONTROL, "tells the sender what it may do now"),
    Step("operator", "send", topics.BRAKES, "`brake automation` and `brake sending` stop everything at once"),
    Step("worker.judge", "receive", topics.BRAKES, "decides without consequences while the automation is stopped"),
    Step("sender", "receive", topics.BRAKES, "sends nothing while all sending is stopped"),
    Step("worker.judge", "send", topics.DEAD_LETTERS, "keeps rates and commands that could not be understood"),
    Step("controller", "receive", topics.CAMPAIGNS, "knows which senders there should be"),
    Step("controller", "receive", topics.CONTROL, "makes the cluster agree: replicas, policy, labels"),
    Step("application", "receive", topics.REFUSED, "learns what to fix"),
    Step("application", "receive", topics.RESULTS, "learns what became of its messages"),
    Step("application", "receive", topics.RATES, "follows the rates"),
    Step("application", "receive", topics.DECISIONS, "learns who was isolated, and why"),
    Step("operator", "receive", topics.AUDIT, "`audit verify`, `audit list` and `audit export`"),
    Step("operator", "receive", topics.DEAD_LETTERS, "`dead-letters list` and `dead-letters replay`"),
)


def asyncapi() -> Document:
    """The whole document; the same records give the same document."""
    return {
        "asyncapi": "3.0.0",
        "id": "urn:mailcordon:records:1",
        "info": {
            "title": "mailcordon",
            "version": "1",
            "description": BEHAVIOUR,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "kafka": {
                "host": "{bootstrap}",
                "protocol": "kafka",
                "description": "Any Apache Kafka 4.x cluster, or the embedded broker.",
                "variables": {
                    "bootstrap": {"description": "bootstrap servers, the setting MAILCORDON_KAFKA"},
                },
            }
        },
        "channels": {channel_id(topic): _channel(topic) for topic in TOPICS},
        "operations": {_operation_id(step): _operation(step) for step in FLOW},
        "components": {
            "messages": {record.__name__: _message(record, topic) for topic in TOPICS for record in topic.records},
            "schemas": parts("#/components/schemas/{name}"),
        },
    }


def channel_id(topic: Topic) -> str:
    """A topic's name in the document; that of a topic per campaign ends before the campaign's name."""
    return topic.name.removesuffix(".")


def address(topic: Topic) -> str:
    """A topic's name on the broker."""
    return topic.name + "{" + NAME_PARAMETER + "}" if topic.per_campaign else topic.name


def _channel(topic: Topic) -> Document:
    config: Document = {
        "cleanup.policy": topic.cleanup.split(","),
        "retention.ms": -1 if topic.retention_s is None else topic.retention_s * 1000,
        "max.message.bytes": topic.max_bytes,
    }
    named: Document = {
        "parameters": {NAME_PARAMETER: {"description": "the campaign's name: a readable slug and a hash of its id"}}
    }
    kept = "compact" in topic.cleanup
    tombstone = " The newest record of a key counts; a record without a value removes the key." if kept else ""
    return {
        "address": address(topic),
        "title": channel_id(topic),
        "description": f"{_sentence(topic.purpose)} Key: {topic.keyed_by}.{tombstone}",
        "messages": {record.__name__: {"$ref": f"#/components/messages/{record.__name__}"} for record in topic.records},
        **(named if topic.per_campaign else {}),
        "bindings": {"kafka": {"topicConfiguration": config, "bindingVersion": BINDING}},
    }


def _message(record: type[Record], topic: Topic) -> Document:
    summary, _, rest = prose(record.__doc__ or "").partition("\n\n")
    return {
        "name": record.__name__,
        "title": record.__name__,
        "summary": summary,
        **({"description": rest} if rest else {}),
        "contentType": "application/json",
        "payload": {"$ref": f"#/components/schemas/{record.__name__}"},
        "bindings": {
            "kafka": {"key": {"type": "string", "description": topic.keyed_by}, "bindingVersion": BINDING},
        },
    }


def _operation_id(step: Step) -> str:
    return f"{step.role}.{step.action}.{step.topic.removesuffix('.')}"


def _operation(step: Step) -> Document:
    topic = topics.BY_NAME[step.topic]
    channel = f"#/channels/{channel_id(topic)}"
    return {
        "action": step.action,
        "channel": {"$ref": channel},
        "title": f"{step.role} {step.action}s",
        "summary": _sentence(step.why),
        "tags": [{"name": step.role}],
        "messages": [{"$ref": f"{channel}/messages/{record.__name__}"} for record in topic.records],
    }


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
