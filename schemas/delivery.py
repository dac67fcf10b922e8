"""From the sender back: results in frames, and the ledger by which a sender knows what its predecessor did."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from schemas.base import AddressHash, CampaignId, MessageId, Millis, Part, Record

Outcome = Literal["accepted", "deferred", "bounced", "expired", "suppressed", "in_doubt"]
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
    ``text`` is the server's reply, cut to 300 characters.
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
    took_ms: int | None = None
    address_hash: AddressHash | None = None
    next_attempt_at: Millis | None = None


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


class LedgerEntry(Record, frozen=True, kw_only=True, tag_field="v", tag=1):
    """One line of a sender's ledger.  Topic ``mail.ledger.<campaign>``, partitions as ``mail.outbound.<campaign>``.

    ``intents`` are written before a message's fate becomes uncertain, ``results`` after it is known.
    ``published`` is the offset of the newest entry whose results are known to be in ``mail.delivery.results``.
    """

    sender: str
    at: Millis
    intents: list[MessageId] = []
    results: list[DeliveryResult] = []
    covers: list[OffsetRange] = []
    published: int = -1
