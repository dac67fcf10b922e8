"""What a backtest reads of each record: the fields that counting and judging need, and nothing else.

Most of a result (reply, server, encryption, times) moves no count, and reading it costs more than counting.  A frame
that is wrong only in such a field is therefore counted here, where a worker sets it aside.
"""

from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from schemas.base import CampaignId, MessageId, Millis
from schemas.delivery import Outcome
from schemas.topics import BRAKES, CAMPAIGNS, COMMANDS, DECISIONS, FEEDBACK, RESULTS

TOPICS: tuple[str, ...] = (CAMPAIGNS, BRAKES, COMMANDS, RESULTS, FEEDBACK, DECISIONS)
"""What a backtest reads; of records of one time, in this order."""


class Accepted(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="outcome", tag="accepted"):
    """What counts of a result that was accepted."""

    outcome: ClassVar[Outcome] = "accepted"

    at: Millis
    provider: str = "other"
    ip: str | None = None


class _Refused(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    message_id: MessageId
    at: Millis
    provider: str = "other"
    ip: str | None = None
    class_: str | None = msgspec.field(name="class", default=None)


class Bounced(_Refused, frozen=True, kw_only=True, gc=False, tag_field="outcome", tag="bounced"):
    """What counts of a result that bounced."""

    outcome: ClassVar[Outcome] = "bounced"


class Deferred(_Refused, frozen=True, kw_only=True, gc=False, tag_field="outcome", tag="deferred"):
    """What counts of one that was deferred."""

    outcome: ClassVar[Outcome] = "deferred"


class Expired(_Refused, frozen=True, kw_only=True, gc=False, tag_field="outcome", tag="expired"):
    """What counts of one that expired."""

    outcome: ClassVar[Outcome] = "expired"


class Suppressed(_Refused, frozen=True, kw_only=True, gc=False, tag_field="outcome", tag="suppressed"):
    """One that was suppressed; it counts nowhere."""

    outcome: ClassVar[Outcome] = "suppressed"


class InDoubt(_Refused, frozen=True, kw_only=True, gc=False, tag_field="outcome", tag="in_doubt"):
    """One that is in doubt; it counts nowhere."""

    outcome: ClassVar[Outcome] = "in_doubt"


Refused = Bounced | Deferred | Expired | Suppressed | InDoubt
Result = Accepted | Refused


class Ledger(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A ``Position``."""

    topic: str
    partition: int
    offset: int


class Frame(msgspec.Struct, frozen=True, kw_only=True, tag_field="v", tag=1):
    """What counts of a ``DeliveryFrame``."""

    campaign: CampaignId
    results: Annotated[list[Result], Meta(max_length=500)]
    ledger: Ledger | None = None


LATEST_MS = 99_999_999_999_999  # in the year 5138; a clock that says more is no clock


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One record of a topic, as a line of an export; ``at`` is the time that Kafka has of it.

    ``value`` is the record, null for a tombstone; one that is no JSON stands in ``raw`` instead, as base64.
    ``partitions`` is how many its topic has: a worker sends on what arrives in another than that of its campaign, and
    counts it there.
    """

    topic: str
    partition: Annotated[int, Meta(ge=0)]
    offset: Annotated[int, Meta(ge=0)]
    at: Annotated[int, Meta(ge=0, le=LATEST_MS)]
    key: str | None = None
    value: msgspec.Raw = msgspec.Raw(b"null")
    raw: str | None = None
    partitions: Annotated[int, Meta(ge=1)] | None = None


class ResultsLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line of results, read in one go."""

    topic: Literal["mail.delivery.results"]
    partition: int
    offset: int
    value: Frame
    partitions: Annotated[int, Meta(ge=1)] | None = None


read_line = msgspec.json.Decoder(Line).decode
read_results = msgspec.json.Decoder(ResultsLine).decode
write_line = msgspec.json.Encoder().encode
