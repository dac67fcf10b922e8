"""What comes back later: bounces, complaints, trap hits, unsubscribes; and the suppressions they leave behind."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from schemas.base import AddressHash, Millis, Part, Record

FeedbackKind = Literal[
    "hard_bounce", "soft_bounce", "block", "complaint", "not_spam", "trap_hit", "unsubscribe", "auto_reply"
]
TrapKind = Literal["pristine", "recycled", "typo", "suspected"]


class Trap(Part, frozen=True, kw_only=True):
    """What kind of trap was hit, how sure we are (1.0: our own trap received the mail), and where it was planted."""

    kind: TrapKind
    strength: Annotated[float, Meta(ge=0.0, le=1.0)] = 1.0
    where: Annotated[str, Meta(max_length=200)] = ""


class RegisteredTrap(Record, frozen=True, kw_only=True, tag_field="v", tag=1):
    """One of our own traps.  Topic ``mail.traps``; a tombstone removes it.

    Only a keyed hash of it is ever written: of the address for ``address`` and ``decoy`` (a trap that was put into a
    list of our own, to see where that list goes), of ``@`` and the domain for ``domain``.
    """

    hash: AddressHash
    what: Literal["address", "domain", "decoy"] = "address"
    kind: TrapKind = "pristine"
    strength: Annotated[float, Meta(ge=0.0, le=1.0)] = 1.0
    planted: Annotated[str, Meta(max_length=200)] = ""
    since: Millis
    note: Annotated[str, Meta(max_length=500)] = ""


class FeedbackEvent(Part, frozen=True, kw_only=True):
    """One signal about one message; the fields of Feedback without its version."""

    kind: FeedbackKind
    campaign: Annotated[str, Meta(min_length=1, max_length=128)]
    at: Millis
    message_id: str | None = None
    sent_at: Millis | None = None
    address_hash: AddressHash | None = None
    provider: str | None = None
    ip: str | None = None
    trap: Trap | None = None
    class_: str | None = msgspec.field(name="class", default=None)
    code: int | None = None
    text: str | None = None
    source: str = "operator"


class Feedback(Record, FeedbackEvent, frozen=True, kw_only=True, tag_field="v", tag=1):
    """One signal about one message.  Topic ``mail.feedback``.

    ``sent_at`` is the time at which the message was sent: the signal counts in that minute, so that a late
    complaint meets its own denominator.  Without it ``at`` is taken.  ``source`` is ``return_path``,
    ``unsubscribe:one-click``, ``unsubscribe:page``, ``unsubscribe:mail``, ``webhook:NAME``, ``operator`` or
    ``import``.
    """


class FeedbackFrame(Record, frozen=True, kw_only=True, tag_field="v", tag=1):
    """Many signals in one record of ``mail.feedback``."""

    feedback: Annotated[list[FeedbackEvent], Meta(max_length=1000)]


class Suppression(Record, frozen=True, kw_only=True, tag_field="v", tag=1):
    """An address that gets no mail within a scope.  Topic ``mail.suppressions``; a tombstone lifts it.

    ``scope`` is ``platform``, ``tenant:ID`` or ``campaign:ID``; ``strike:CATEGORY:CAMPAIGN`` suppresses nobody: it is a
    soft failure that counts together with those of other campaigns.
    """

    address_hash: AddressHash
    scope: str
    reason: str
    since: Millis
    until: Millis | None = None
