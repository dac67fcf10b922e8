"""The one codec: bytes to a record or to the reason why not, and back.

Decoding never raises on what strangers send: it answers with a :class:`Malformed` that names the field.
"""

import re
from functools import lru_cache
from typing import Literal, TypeVar

import msgspec

from schemas.base import Record
from schemas.feedback import Feedback, FeedbackEvent, FeedbackFrame
from schemas.sending import Recipient, SendRequest

MAX_RECORD_BYTES = 1_048_576

R = TypeVar("R", bound=Record)
Why = Literal["not_json", "unknown_version", "wrong_field", "too_large", "empty"]

_AT = re.compile(r" - at `(?P<path>[^`]+)`\Z")
_encode = msgspec.json.Encoder().encode
_decode_recipient = msgspec.json.Decoder(Recipient).decode


class Malformed(msgspec.Struct, frozen=True, kw_only=True):
    """Why bytes are no record: a machine reason and a sentence that names the field and the fix."""

    reason: Why
    explain: str


@lru_cache(maxsize=64)
def _decoder(record: type[R]) -> msgspec.json.Decoder[R]:
    return msgspec.json.Decoder(record)


def encode(record: Record) -> bytes:
    """UTF-8 JSON of a record, version included."""
    return _encode(record)


def encoded_size(part: msgspec.Struct) -> int:
    """How many octets a part of a record takes."""
    return len(_encode(part))


def decode(record: type[R], raw: bytes | None, *, max_bytes: int = MAX_RECORD_BYTES) -> R | Malformed:
    """Read ``raw`` as ``record``; a wrong field, an unknown version or broken JSON is an answer, not an error."""
    if raw is None:
        return Malformed(reason="empty", explain="the record has no value; send a JSON object")
    if len(raw) > max_bytes:
        return Malformed(
            reason="too_large",
            explain=f"the record has {len(raw):,} bytes, the limit is {max_bytes:,}; split it into smaller ones",
        )
    try:
        decoded: R = _decoder(record).decode(raw)
    except msgspec.ValidationError as wrong:
        return _wrong_field(record, str(wrong))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as broken:
        return Malformed(reason="not_json", explain=f"the record is not a JSON object in UTF-8: {broken}")
    return decoded


class _LooseRequest(Record, frozen=True, kw_only=True, tag_field="v", tag=1):
    request_id: str
    campaign: str
    content: str
    recipients: list[msgspec.Raw]
    not_before: int | None = None
    expires_at: int | None = None


class DecodedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request, and those of its recipients that could not be read: position and reason."""

    request: SendRequest
    malformed: list[tuple[int, Malformed]]


def decode_request(raw: bytes | None, *, max_bytes: int = MAX_RECORD_BYTES) -> DecodedRequest | Malformed:
    """Read a send request; one recipient that is wrong does not take its neighbours along."""
    whole = decode(SendRequest, raw, max_bytes=max_bytes)
    if isinstance(whole, SendRequest):
        return DecodedRequest(request=whole, malformed=[])
    if whole.reason != "wrong_field" or "recipients[" not in whole.explain:
        return whole
    loose = decode(_LooseRequest, raw, max_bytes=max_bytes)
    if isinstance(loose, Malformed):
        return whole
    good: list[Recipient] = []
    bad: list[tuple[int, Malformed]] = []
    for position, part in enumerate(loose.recipients):
        try:
            good.append(_decode_recipient(part))
        except msgspec.ValidationError as wrong:
            bad.append((position, _wrong_field(Recipient, str(wrong), prefix=f"recipients[{position}]")))
    fields = msgspec.structs.asdict(loose) | {"recipients": good}
    try:
        request = msgspec.convert(fields, SendRequest)
    except msgspec.ValidationError:
        return whole
    return DecodedRequest(request=request, malformed=bad)


def decode_feedback(raw: bytes | None) -> list[FeedbackEvent] | Malformed:
    """Read a record of ``mail.feedback``, single or frame, as a list of events."""
    if raw is not None and b'"feedback"' in raw:
        frame = decode(FeedbackFrame, raw)
        if not isinstance(frame, Malformed):
            return frame.feedback
        single = decode(Feedback, raw)
        if isinstance(single, Malformed):
            return frame
    else:
        single = decode(Feedback, raw)
    if isinstance(single, Malformed):
        return single
    return [FeedbackEvent(**msgspec.structs.asdict(single))]


def _wrong_field(record: type[msgspec.Struct], message: str, *, prefix: str = "") -> Malformed:
    where = _AT.search(message)
    said = _AT.sub("", message).replace("Object missing required field", "is missing the required field")
    said = said[0].lower() + said[1:]
    path = ".".join(part for part in (prefix, where["path"].removeprefix("$").lstrip(".") if where else "") if part)
    if path == "v":
        return Malformed(
            reason="unknown_version",
            explain=f"field v: {said}; this mailcordon reads version 1 of {record.__name__}",
        )
    if not path:
        return Malformed(reason="wrong_field", explain=f"{record.__name__} {said}")
    return Malformed(reason="wrong_field", explain=f"field {path} of {record.__name__}: {said}")
