"""Events of Twilio SendGrid, and its signature: ECDSA over the time that stands in a header and the body.

``smtp-id`` is the Message-ID that we wrote.  Custom arguments stand among an event's own fields.
"""

import base64
import binascii
from dataclasses import replace

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from smtp.dsn import bare, gave_up_waiting, read_reply
from smtp.webhooks.events import MOST_EVENTS, Event, Item, Refusal, Unread, address, sentence, words

SIGNATURE = "X-Twilio-Email-Event-Webhook-Signature"
TIMESTAMP = "X-Twilio-Email-Event-Webhook-Timestamp"
WINDOW_MS = 600_000

_EXPECTED = {
    "invalid address": "invalid_recipient",
    "mailbox unavailable": "mailbox_full",
    "content": "spam_content",
    "reputation": "reputation_ip",
    "frequency/volume": "rate_limited_ip",
    "technical": "transient",
}
_DROPPED_AS_BAD = ("bounced address", "invalid")
_DROPPED_AS_LEFT = ("unsubscribed address", "spam reporting address")
_LAST_S = 2**32


class _Event(msgspec.Struct, frozen=True):
    """The fields that we read; what SendGrid or a custom argument adds is looked for by name."""

    event: str
    email: str = ""
    timestamp: int | None = None
    sg_event_id: str = ""
    sg_message_id: str | None = None
    smtp_id: str | None = msgspec.field(name="smtp-id", default=None)
    type: str | None = None
    reason: str | None = None
    response: str | None = None
    status: str | None = None
    bounce_classification: str | None = None
    ip: str | None = None


def public_key(text: str) -> ec.EllipticCurvePublicKey:
    """The verification key as SendGrid shows it: base64, or PEM.  Raises ValueError for anything else."""
    inner = "".join(line for line in text.strip().splitlines() if not line.startswith("-----"))
    try:
        key = load_der_public_key(base64.b64decode(inner, validate=True))
    except (ValueError, TypeError) as wrong:  # binascii.Error is one, and cryptography's own are
        raise ValueError("it is no public key in base64, as SendGrid shows it under Mail Settings") from wrong
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("it is no key of the curve P-256, which SendGrid signs with")  # noqa: TRY004 - one kind of mistake
    return key


def flaw(key: ec.EllipticCurvePublicKey, signature: str, timestamp: str, body: bytes, *, now: int) -> str | None:
    """Why a request is not SendGrid's, or not of now; None if it is."""
    if not timestamp.isascii() or not timestamp.isdigit() or len(timestamp) > 12:
        return f"{TIMESTAMP} is no time"
    try:
        key.verify(
            base64.b64decode(signature[:512], validate=True), timestamp.encode() + body, ec.ECDSA(hashes.SHA256())
        )
    except (InvalidSignature, binascii.Error, ValueError):
        return "the signature is not that of the account in webhooks_file"
    if abs(now - int(timestamp) * 1000) > WINDOW_MS:
        return "the request was signed more than 10 minutes ago"
    return None


def events(body: bytes) -> list[Item] | Refusal:
    """What a request says; an event that cannot be read does not keep the others."""
    try:
        raws = msgspec.json.decode(body, type=list[msgspec.Raw])
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as wrong:
        return Refusal("malformed", f"no list of events: {wrong}")
    if len(raws) > MOST_EVENTS:
        return Refusal("malformed", f"{len(raws):,} events in one request; at most {MOST_EVENTS:,} are read")
    return [_read(bytes(raw)) for raw in raws]


def _read(raw: bytes) -> Item:
    try:
        found = msgspec.json.decode(raw, type=_Event, strict=False)
        named = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as wrong:
        return Unread(raw, f"no event of SendGrid: {wrong}")
    return _said(found, raw, named)


def _said(found: _Event, raw: bytes, named: dict[str, msgspec.Raw]) -> Event:
    event = Event(
        id=found.sg_event_id[:200] or f"{found.sg_message_id}:{found.event}:{found.timestamp}"[:400],
        what="noted",
        raw=raw,
        word=found.event[:40],
        at=found.timestamp * 1000 if found.timestamp is not None and 0 < found.timestamp < _LAST_S else None,
        recipient=bare(found.email) or None,
        ip=address(found.ip),
        return_paths=words(*_values(named, "mailcordon-return-path")),
        message_ids=words(found.smtp_id),
        campaigns=words(*_values(named, "mailcordon-campaign", "campaign", "category")),
        message_id=next(iter(words(*_values(named, "mailcordon-message-id"))), None),
    )
    text = sentence(found.reason or found.response)
    match found.event:
        case "bounce" | "blocked" | "deferred":
            return _refused(event, found, text)
        case "dropped" if text.lower().startswith(_DROPPED_AS_BAD):
            return replace(event, what="bounce", text=text, expected="invalid_recipient")
        case "dropped" if text.lower().startswith(_DROPPED_AS_LEFT):
            return replace(event, what="unsubscribe")
        case "spamreport":
            return replace(event, what="complaint")
        case "unsubscribe" | "group_unsubscribe":
            return replace(event, what="unsubscribe")
        case _:
            return event


def _refused(event: Event, found: _Event, text: str) -> Event:
    code, enhanced, said = read_reply(text)
    is_block = found.type == "blocked" or found.event == "blocked"
    has_expired = found.type == "expired" or gave_up_waiting(text)
    expected = _EXPECTED.get((found.bounce_classification or "").lower())
    return replace(
        event,
        what="delay" if found.event == "deferred" else "bounce",
        code=code,
        enhanced=enhanced or found.status,
        text=said,
        may_be_hard=not is_block and not has_expired,
        expected="expired" if has_expired else expected or ("policy_block" if is_block else None),
    )


def _values(named: dict[str, msgspec.Raw], *names: str) -> list[object]:
    found: list[object] = []
    for name in names:
        if name in named:
            try:
                found.append(msgspec.json.decode(named[name]))
            except (msgspec.MsgspecError, RecursionError):
                continue
    return found
