"""Results as the tally reads them: the same records as in :mod:`schemas.delivery`, without what is not counted.

Nearly all results are accepted ones, and of those five fields matter.  To read only these takes two thirds of the
time; a field that is not read is not checked either, so that a wrong ``took_ms`` does not keep a result from being
counted.  What was not accepted is read and checked whole.
"""

from typing import Annotated, Any, ClassVar, Union

import msgspec
from msgspec import Meta

from schemas.base import CampaignId, Millis
from schemas.codec import Malformed, decode
from schemas.delivery import DeliveryFrame, DeliveryResult, Outcome, Position
from schemas.topics import BY_NAME, RESULTS

_MAX_BYTES = BY_NAME[RESULTS].max_bytes
_ACCEPTED = "accepted"
_NOT_ACCEPTED: tuple[Outcome, ...] = ("deferred", "bounced", "expired", "suppressed", "in_doubt")


class Accepted(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="outcome", tag=_ACCEPTED):
    """A result that was accepted."""

    outcome: ClassVar[Outcome] = "accepted"

    at: Millis
    provider: str = "other"
    ip: str | None = None
    address_hash: str | None = None
    domain: str = ""
    list_source: str | None = None


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """A frame: what was accepted, and what was not."""

    campaign: str
    accepted: list[Accepted]
    refused: list[DeliveryResult]
    ledger: Position | None


def _whole(outcome: Outcome) -> type[msgspec.Struct]:
    """A result with all its fields, told by its outcome."""
    fields = [
        (one.name, one.type, msgspec.field(name=one.encode_name, default=one.default))
        for one in msgspec.structs.fields(DeliveryResult)
        if one.name != "outcome"
    ]
    return msgspec.defstruct(f"Result_{outcome}", fields, tag_field="outcome", tag=outcome, kw_only=True, frozen=True)


_OUTCOMES: dict[type[msgspec.Struct], Outcome] = {_whole(outcome): outcome for outcome in _NOT_ACCEPTED}
_Result: Any = Union[(Accepted, *_OUTCOMES)]  # Any: of types that are made


class _Frame(msgspec.Struct, frozen=True, kw_only=True, tag_field="v", tag=1):
    campaign: CampaignId
    results: Annotated[list[_Result], Meta(max_length=500)]
    ledger: Position | None = None


_decode = msgspec.json.Decoder(_Frame).decode


def counted(raw: bytes | None) -> Counted | Malformed:
    """Read a frame of results for counting; what is wrong with it is told as of the whole record."""
    if raw is None or len(raw) > _MAX_BYTES:
        return _of_whole(raw)
    try:
        frame = _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _of_whole(raw)
    results = frame.results
    others = [place for place, kind in enumerate(map(type, results)) if kind is not Accepted]
    refused = [
        DeliveryResult(outcome=_OUTCOMES[type(results[place])], **msgspec.structs.asdict(results[place]))
        for place in others
    ]
    for place in reversed(others):  # few; what is left are those that were accepted
        del results[place]
    return Counted(campaign=frame.campaign, accepted=results, refused=refused, ledger=frame.ledger)


def _of_whole(raw: bytes | None) -> Counted | Malformed:
    frame = decode(DeliveryFrame, raw, max_bytes=_MAX_BYTES)
    if isinstance(frame, Malformed):
        return frame
    accepted = [_accepted(result) for result in frame.results if result.outcome == _ACCEPTED]
    refused = [result for result in frame.results if result.outcome != _ACCEPTED]
    return Counted(campaign=frame.campaign, accepted=accepted, refused=refused, ledger=frame.ledger)


def _accepted(result: DeliveryResult) -> Accepted:
    return Accepted(
        at=result.at,
        provider=result.provider,
        ip=result.ip,
        address_hash=result.address_hash,
        domain=result.domain,
        list_source=result.list_source,
    )
