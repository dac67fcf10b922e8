"""From the sender back: results in frames, and the ledger by which a sender knows what its predecessor did."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from schemas.base import AddressHash, CampaignId, MessageId, Millis, Part, Record
from schemas.sending import OutboundMessage

Outcome = Literal["accepted", "deferred", "bounced", "expired", "suppressed", "in_doubt"]
TlsPolicy = Literal["opportunistic", "required", "mta-sts", "dane"]
FINAL: frozenset[str] = frozenset({"accepted", "bounced", "expired", "suppressed", "in_doubt"})


class OffsetRange(Part, frozen=True, kw_only=True):
    """A run of offsets of one partition, both ends included."""

    topic: str
    partition: int
    from_: int = msgspec.field(name="from")
    to: int


class Position(Part, frozen=True, kw_only=True):
    """One record of one partition."""

    topic: str
    partition: int
    offset: int


class DeliveryResult(Part, frozen=True, kw_only=True):
    """What became of one attempt; all outcomes but ``deferred`` are final.

    ``class`` is the category of the reply (``invalid_recipient``, ``reputation_ip``, …), null when accepted.
    ``text`` is the server's reply, cut to 300 characters.  ``flags`` are the screens that had something against the
    recipient, ``list_source`` is where its address was collected, as the request has it in ``source``.
    """

    message_id: MessageId
    outcome: Outcome
    at: Millis
    attempt: Annotated[int, Meta(ge=0)] = 1
    provider: str = "other"
    ip: str | None = None
    mx: str | None = None
    code: int | None = None
    enhanced: str | None = None
    text: str | None = None
    class_: str | None = msgspec.field(name="class", default=None)
    tls: str | None = None
    tls_policy: TlsPolicy | None = None
    took_ms: int | None = None
    address_hash: AddressHash | None = None
    next_attempt_at: Millis | None = None
    domain: str = ""
    flags: tuple[str, ...] = ()  # a list would let the collector follow every result
    list_source: str | None = None


class DeliveryFrame(Record, frozen=True, kw_only=True, tag_field="v", tag=1):
    """Up to 500 results of one sender.  Topic ``mail.delivery.results``.

    ``covers`` names the outbound offsets that the results belong to.  ``ledger`` is the newest record of the
    campaign's ledger whose results are in here: a frame that is published again carries the same position,
    and readers that count drop what they have seen of it.
    """

    campaign: CampaignId
    sender: str
    covers: list[OffsetRange]
    results: Annotated[list[DeliveryResult], Meta(max_length=500)]
    ledger: Position | None = None


class Parked(Part, frozen=True, kw_only=True):
    """A message that waits for its next attempt and that the ledger now holds in place of its outbound frame.

    ``offset`` is that frame's place in the outbound topic.  ``attempts`` were made; it is tried again at ``due``.
    Its age counts from ``starts_at``.  ``first_at`` is when it was tried first: its return path says so in every
    attempt, because servers that greylist know a message by its sender and recipient (RFC 6647 2.1).
    """

    message: OutboundMessage
    content: str
    offset: int
    starts_at: Millis
    expires_at: Millis | None = None
    attempts: Annotated[int, Meta(ge=0)] = 0
    first_at: Millis | None = None
    due: Millis


class RememberedIds(Part, frozen=True, kw_only=True):
    """Messages that are done: ``ids`` are hashes of 64 bits, little endian, base64; ``period`` says from when."""

    period: int
    ids: str


class Snapshot(Part, frozen=True, kw_only=True):
    """A piece of what the ledger says in all, so that the entries before ``since`` can be deleted.

    Each piece is true at its own place in the ledger.  With the last one (``is_complete``) the entries from ``since``
    on say everything that the ones before it said; ``doubtful`` are then the intents without a result.
    """

    since: int
    done: list[RememberedIds] = []
    doubtful: str = ""
    is_complete: bool = False


class LedgerEntry(Record, frozen=True, kw_only=True, tag_field="v", tag=1):
    """One line of a sender's ledger.  Topic ``mail.ledger.<campaign>``, partitions as ``mail.outbound.<campaign>``.

    ``intents`` are written before a message's fate becomes uncertain, ``results`` after it is known.
    ``published`` is the offset of the newest entry whose results are known to be in ``mail.delivery.results``.
    ``parked`` are messages that wait; the newest record of a message counts, until it has a final result.  Beside a
    ``snapshot`` they are messages that have waited before.
    """

    sender: str
    at: Millis
    intents: list[MessageId] = []
    results: list[DeliveryResult] = []
    covers: list[OffsetRange] = []
    published: int = -1
    parked: list[Parked] = []
    snapshot: Snapshot | None = None
