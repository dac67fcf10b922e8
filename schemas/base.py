"""What all records have in common: frozen, version 1, unknown fields ignored."""

from typing import Annotated

import msgspec
from msgspec import Meta


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False, tag_field="v", tag=1):
    """A value of a topic.  The version travels as ``"v": 1``; another version is a dead letter."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A value inside a record; it carries no version of its own."""


Millis = Annotated[int, Meta(ge=0, description="milliseconds since the epoch, UTC")]
CampaignId = Annotated[str, Meta(min_length=1, max_length=128, description="chosen by the owner; never becomes a name")]
MessageId = Annotated[str, Meta(min_length=1, max_length=128, description="unique within its campaign")]
Rate = Annotated[float, Meta(ge=0.0, le=1.0, description="a share, 0 to 1")]
AddressHash = Annotated[
    str, Meta(description="HMAC-SHA-256 of the canonical address under the installation's key, hex")
]
