"""The topics in flow order: name, key, record, clean-up.  Everything that lists topics reads this table."""

from typing import Literal

import msgspec

from schemas.audit import AuditEntry
from schemas.base import Record
from schemas.dead_letters import DeadLetter
from schemas.delivery import DeliveryFrame, LedgerEntry
from schemas.feedback import Feedback, FeedbackFrame, RegisteredTrap, Suppression
from schemas.reputation import Brake, Command, Control, Decision, RatesSnapshot
from schemas.sending import Campaign, Content, HeldMessage, OutboundFrame, Refused, SendRequest

Cleanup = Literal["compact", "delete", "compact,delete"]

DAY_S = 86_400

CAMPAIGNS = "mail.campaigns"
CONTENTS = "mail.contents"
REQUESTS = "mail.send.requests"
REFUSED = "mail.send.refused"
HELD = "mail.send.held"
OUTBOUND = "mail.outbound."  # + the campaign's name, see policy.naming
LEDGER = "mail.ledger."  # + the campaign's name
RESULTS = "mail.delivery.results"
FEEDBACK = "mail.feedback"
SUPPRESSIONS = "mail.suppressions"
TRAPS = "mail.traps"
RATES = "mail.reputation.rates"
COMMANDS = "mail.commands"
DECISIONS = "mail.reputation.decisions"
AUDIT = "mail.audit"
CONTROL = "mail.control"
BRAKES = "mail.brakes"
DEAD_LETTERS = "mail.dead-letters"


class Topic(msgspec.Struct, frozen=True, kw_only=True):
    """One topic (or, with ``per_campaign``, one per campaign).

    ``keyed_by`` is what its key holds.  ``retention_s`` is how long the broker keeps a record, None for as long as
    it is the newest of its key, or until its writer deletes it.  ``max_bytes`` is the largest record that the
    broker takes.
    """

    name: str
    records: tuple[type[Record], ...]
    keyed_by: str
    purpose: str
    cleanup: Cleanup = "delete"
    retention_s: int | None = 14 * DAY_S
    max_bytes: int = 1_048_588
    per_campaign: bool = False


TOPICS: tuple[Topic, ...] = (
    Topic(
        name=CAMPAIGNS,
        records=(Campaign,),
        keyed_by="campaign id",
        purpose="who sends, from where, how fast, within which limits",
        cleanup="compact",
        retention_s=None,
    ),
    Topic(
        name=CONTENTS,
        records=(Content,),
        keyed_by="campaign id/content id",
        purpose="message templates, once and not once per recipient",
        cleanup="compact",
        retention_s=None,
        max_bytes=2_097_152,
    ),
    Topic(
        name=REQUESTS,
        records=(SendRequest,),
        keyed_by="any; the request id is advised",
        purpose="what applications ask for: one content to 1 to 500 recipients",
        max_bytes=4_194_304,  # above our own limit, so that a record that is too large is answered by us
    ),
    Topic(
        name=REFUSED,
        records=(Refused,),
        keyed_by="request id",
        purpose="recipients that get no mail, and what to fix",
    ),
    Topic(
        name=HELD,
        records=(HeldMessage,),
        keyed_by="campaign id/message id",
        purpose="messages that wait until somebody releases or refuses them",
        cleanup="compact",
        retention_s=None,
        max_bytes=4_194_304,
    ),
    Topic(
        name=OUTBOUND,
        records=(OutboundFrame,),
        keyed_by="none; a message id always falls into the same partition",
        purpose="admitted messages on their way to the sender",
        max_bytes=4_194_304,
        per_campaign=True,
    ),
    Topic(
        name=LEDGER,
        records=(LedgerEntry,),
        keyed_by="none; partitions as the outbound topic",
        purpose="a sender's intents, results and waiting messages: what its successor must know",
        retention_s=None,  # it holds messages; the sender itself deletes what a snapshot has made superfluous
        max_bytes=4_194_304,
        per_campaign=True,
    ),
    Topic(
        name=RESULTS,
        records=(DeliveryFrame,),
        keyed_by="campaign id",
        purpose="what became of every attempt",
        max_bytes=4_194_304,
    ),
    Topic(
        name=FEEDBACK,
        records=(Feedback, FeedbackFrame),
        keyed_by="campaign id",
        purpose="bounces, complaints, trap hits, unsubscribes that come back later",
    ),
    Topic(
        name=SUPPRESSIONS,
        records=(Suppression,),
        keyed_by="address hash|scope",
        purpose="addresses that get no mail",
        cleanup="compact",
        retention_s=None,
    ),
    Topic(
        name=TRAPS,
        records=(RegisteredTrap,),
        keyed_by="hash",
        purpose="our own traps, as keyed hashes",
        cleanup="compact",
        retention_s=None,
    ),
    Topic(
        name=RATES,
        records=(RatesSnapshot,),
        keyed_by="scope",
        purpose="live windows and verdicts per campaign, provider and IP address",
        cleanup="compact,delete",
        retention_s=8 * DAY_S,
    ),
    Topic(
        name=COMMANDS,
        records=(Command,),
        keyed_by="scope",
        purpose="what operators ask of the judge",
    ),
    Topic(
        name=DECISIONS,
        records=(Decision,),
        keyed_by="scope",
        purpose="every change of state, with its reason and evidence",
        retention_s=365 * DAY_S,
    ),
    Topic(
        name=AUDIT,
        records=(AuditEntry,),
        keyed_by="scope",
        purpose="every decision and every command, each bound to the one before it by its hash",
        retention_s=365 * DAY_S,
    ),
    Topic(
        name=CONTROL,
        records=(Control,),
        keyed_by="campaign id",
        purpose="what each sender may do now",
        cleanup="compact",
        retention_s=None,
    ),
    Topic(
        name=BRAKES,
        records=(Brake,),
        keyed_by="brake",
        purpose="brakes on all campaigns: the automation, or all sending",
        cleanup="compact",
        retention_s=None,
    ),
    Topic(
        name=DEAD_LETTERS,
        records=(DeadLetter,),
        keyed_by="source topic",
        purpose="records that could not be understood, kept whole",
        retention_s=90 * DAY_S,
        max_bytes=8_388_608,
    ),
)
BY_NAME: dict[str, Topic] = {topic.name: topic for topic in TOPICS}
