"""Events of Postmark, which signs nothing: it knows a user and a password that stand in the webhook's URL.

Postmark tells the Tag and the Metadata of a message, and with a bounce its whole text (``Content``) if the webhook is
set to include it; there our return path and Message-ID stand.
"""

import base64
import binascii
import hmac
from dataclasses import replace

import msgspec

from smtp.dsn import bare, read_reply
from smtp.webhooks.events import Event, Item, Refusal, What, millis, sentence, words
from smtp.webhooks.ses import bare_diagnostic

_BOUNCES: dict[
    str, tuple[bool, str | None]
] = {  # may the address be dead, and what is meant where the text says nothing
    "HardBounce": (True, "invalid_recipient"),
    "BadEmailAddress": (True, "invalid_recipient"),
    "SoftBounce": (False, None),
    "DnsError": (False, "dns_routing"),
    "Blocked": (False, "policy_block"),
    "SpamNotification": (False, "spam_content"),
    "VirusNotification": (False, "virus"),
    "DMARCPolicy": (False, "auth_failure"),
}
_OTHERS: dict[str, What] = {
    "Transient": "delay",
    "SpamComplaint": "complaint",
    "Unsubscribe": "unsubscribe",
    "AutoResponder": "auto_reply",
    "ChallengeVerification": "auto_reply",
}
_SUPPRESSED: dict[str, What] = {
    "HardBounce": "bounce",
    "SpamComplaint": "complaint",
    "ManualSuppression": "unsubscribe",
}


class _Record(msgspec.Struct, frozen=True, rename="pascal"):
    """The fields of all kinds of records that we read."""

    record_type: str
    id: int | str | None = msgspec.field(name="ID", default=None)
    message_id: str | None = msgspec.field(name="MessageID", default=None)
    type: str | None = None
    email: str | None = None
    recipient: str | None = None
    details: str | None = None
    description: str | None = None
    content: str | None = None
    tag: str | None = None
    metadata: dict[str, msgspec.Raw] | None = None
    bounced_at: str | None = None
    changed_at: str | None = None
    suppress_sending: bool | None = None
    suppression_reason: str | None = None


def is_known(authorization: str, user: str, password: str) -> bool:
    """Are these the HTTP Basic credentials (RFC 7617)?  Takes as long for a near miss as for nonsense."""
    scheme, _, encoded = authorization.partition(" ")
    try:
        given = base64.b64decode(encoded.strip()[:2_000], validate=True)
    except (binascii.Error, ValueError):
        given = b""
    matches = hmac.compare_digest(given, f"{user}:{password}".encode())
    return matches and scheme.lower() == "basic"


def events(body: bytes) -> list[Item] | Refusal:
    """What a request says: one event, or one that is only noted."""
    try:
        found = msgspec.json.decode(body, type=_Record)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as wrong:
        return Refusal("malformed", f"no record of Postmark: {wrong}")
    metadata = found.metadata or {}
    event = Event(
        id=f"{found.record_type}:{found.id or found.message_id}:{found.changed_at or ''}"[:400],
        what="noted",
        raw=body,
        word=(found.type or found.record_type)[:40],
        at=millis(found.bounced_at or found.changed_at),
        recipient=bare(found.email or found.recipient or "") or None,
        return_paths=words(_text(metadata, "mailcordon-return-path"), found.content),
        message_ids=words(found.content),
        campaigns=words(_text(metadata, "mailcordon-campaign"), _text(metadata, "campaign"), found.tag),
        message_id=_text(metadata, "mailcordon-message-id"),
    )
    match found.record_type:
        case "Bounce" | "SpamComplaint":
            return [_bounced(event, found)]
        case "SubscriptionChange" if found.suppress_sending:
            reason = found.suppression_reason or ""
            what = _SUPPRESSED.get(reason, "unsubscribe")
            return [replace(event, what=what, word=reason, expected="invalid_recipient")]
        case _:
            return [event]


def _bounced(event: Event, found: _Record) -> Event:
    kind = found.type or found.record_type
    what = "bounce" if kind in _BOUNCES else _OTHERS.get(kind, "noted")
    if what not in {"bounce", "delay"}:
        return replace(event, what=what)
    code, enhanced, text = read_reply(bare_diagnostic(sentence(found.details)))
    may_be_hard, expected = _BOUNCES.get(kind, (False, None))
    return replace(
        event,
        what=what,
        code=code,
        enhanced=enhanced,
        text=text or sentence(found.description),
        may_be_hard=may_be_hard,
        expected=expected,
    )


def _text(metadata: dict[str, msgspec.Raw], name: str) -> str | None:
    try:
        found = msgspec.json.decode(metadata[name]) if name in metadata else None
    except (msgspec.MsgspecError, RecursionError):
        return None
    return next(iter(words(found)), None)
