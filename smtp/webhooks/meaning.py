"""What a service's event means for a campaign.  Pure.

The service has proven who it is, so what it says happened is believed for the message that it names.  Which message
that is, is believed only as far as it can be: a proof of ours that is false makes a dead letter of the event, and one
that names no campaign of ours is kept the same way.
"""

import base64
import re
from dataclasses import dataclass
from itertools import islice
from typing import Literal, assert_never

from policy.naming import campaign_name
from policy.replies import Reading, category_of, classify
from policy.tokens import (
    Forged,
    Leave,
    Ticket,
    address_hash,
    message_ref,
    message_token,
    name_of,
    read_message_id,
    read_return_path,
    read_unsubscribe_token,
    return_paths_in,
)
from policy.unsubscribing import token_in
from schemas.dead_letters import DeadLetter
from schemas.feedback import Feedback, FeedbackKind
from smtp.findings import clean, redacted
from smtp.returned import MAX_RAW_BYTES, Context, Meaning, Noted, kind_of
from smtp.webhooks.events import Event, Unread

Service = Literal["ses", "sendgrid", "postmark"]

_OUR_MESSAGE_ID = re.compile(
    r"<?(?<![A-Za-z0-9_.-])([A-Za-z0-9_-]{1,64})\.([a-z0-9-]{1,63})(?:\.[a-z2-7]{16})?@[A-Za-z0-9.-]{1,255}>?"
)
_MOST_IDS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class _Origin:
    campaign: str
    message_id: str | None = None
    sent_at: int | None = None
    proof: Ticket | Leave | None = None


def meaning(event: Event | Unread, service: Service, context: Context, *, now: int) -> Meaning:
    """Feedback of the campaign that the event names, a dead letter, or nothing that matters."""
    if isinstance(event, Unread):
        return _letter(event.raw, service, "webhook_event_malformed", event.explain, now)
    if event.what == "noted":
        return Noted(clean(event.word, 40) or "event")
    at = now if event.at is None else min(event.at, now)
    origin = _origin(event, context, now)
    if isinstance(origin, Forged):
        return _letter(event.raw, service, f"webhook_{origin.reason}", origin.explain, now)
    if origin is None:
        explain = (
            "the event names no campaign of ours: neither a return path, nor a Message-ID, nor X-Mailcordon-Campaign"
        )
        return _letter(event.raw, service, "webhook_without_campaign", explain, now)
    domain = (event.recipient or "").rpartition("@")[2].lower()
    provider = context.provider_of(domain) if domain else None
    kind, category = _kind(event, provider or "other")
    return Feedback(
        kind=kind,
        campaign=origin.campaign,
        at=at,
        message_id=origin.message_id,
        sent_at=origin.sent_at,
        address_hash=_hash_of(event.recipient, origin, context),
        provider=provider,
        ip=event.ip,
        class_=category,
        code=event.code,
        text=redacted(event.text) or None,
        source=f"webhook:{service}",
    )


def _kind(event: Event, provider: str) -> tuple[FeedbackKind, str | None]:
    match event.what:
        case "complaint" | "not_spam" | "unsubscribe" | "auto_reply":
            return event.what, None
        case "bounce" | "delay":
            reading = classify(code=event.code, enhanced=event.enhanced, text=event.text, provider=provider)
            category = reading.category
            if event.expected and _says_nothing(reading):
                category = event.expected
            kind = kind_of(category)
            if kind == "hard_bounce" and not (event.may_be_hard and event.what == "bounce"):
                return "soft_bounce", category if not category_of(category).suppress else "other"
            return ("soft_bounce" if event.what == "delay" else kind), category
        case "noted":
            raise AssertionError("events that are only noted have no kind")
        case _:
            assert_never(event.what)


def _says_nothing(reading: Reading) -> bool:
    """Whether only the three digits, or nothing at all, told what the reply means."""
    return reading.category == "other" or reading.rule.startswith(("code ", "nothing known"))


def _origin(event: Event, context: Context, now: int) -> _Origin | Forged | None:
    proof = _proof(event, context, now)
    if isinstance(proof, Forged):
        return proof
    if proof is not None:
        campaign = context.known.by_ref(proof.campaign_ref, now)
        if campaign is None:
            return None
        named = _named_by(event, proof.message_ref)
        message_id = proof.message_id or named or name_of(proof.message_ref)
        return _Origin(campaign=campaign, message_id=message_id, sent_at=proof.sent_at, proof=proof)
    return _named_origin(event, context, now)


def _named_origin(event: Event, context: Context, now: int) -> _Origin | Forged | None:
    """By a Message-ID, then by the name of a campaign alone; the service vouches for both."""
    for found in _message_ids(event):
        marked = read_message_id(context.keys, f"<{found[0].strip('<>')}>")
        if isinstance(marked, Forged) and marked.reason == "bad_signature":
            return marked
        campaign = context.known.by_name(found[2], now)
        if campaign is not None:
            return _Origin(campaign=campaign, message_id=found[1])
    for name in event.campaigns:
        campaign = context.known.by_name(name, now) or context.known.by_name(campaign_name(name[:128]), now)
        if campaign is not None:
            message_id = event.message_id[:998] if event.message_id else None
            return _Origin(campaign=campaign, message_id=message_id)
    return None


def _proof(event: Event, context: Context, now: int) -> Ticket | Leave | Forged | None:
    for place in event.return_paths:
        for local in return_paths_in(place):
            ticket = read_return_path(context.keys, f"{local}@return.path", now=now)
            if isinstance(ticket, Ticket) or ticket.reason not in {"not_ours", "malformed"}:
                return ticket
    for link in event.links:
        found = token_in(link)
        leave = read_unsubscribe_token(context.keys, found) if found else None
        if isinstance(leave, Leave):  # a link that a content brought itself may look like one, and is no forgery
            return leave
    return None


def _named_by(event: Event, reference: bytes) -> str | None:
    """The whole id, where a Message-ID tells one that fits what the proof has of it."""
    for found in _message_ids(event):
        token: str = found[1]
        if message_ref(token) == reference and message_token(token) == token:
            return token
    return None


def _message_ids(event: Event) -> list[re.Match[str]]:
    """What looks like a Message-ID of ours, the last one first: a mail that a report returns stands at its end."""
    found = (match for text in event.message_ids for match in _OUR_MESSAGE_ID.finditer(text))
    return list(islice(found, _MOST_IDS))[::-1]


def _hash_of(recipient: str | None, origin: _Origin, context: Context) -> str | None:
    """The hash of the address, if the message went to it: whom a forwarder names is nobody that we know."""
    match origin.proof:
        case Leave() as leave:
            return leave.address_hash
        case None | Ticket():
            if not recipient or "@" not in recipient:
                return None
            hashed = address_hash(context.keys, recipient)
            return hashed if origin.proof is None or origin.proof.is_for(hashed) else None


def _letter(raw: bytes, service: Service, reason: str, explain: str, now: int) -> DeadLetter:
    return DeadLetter(
        topic=f"webhook:{service}",  # no legal name of a topic: these are no records
        partition=-1,
        offset=-1,
        reason=reason,
        explain=clean(explain),
        raw=base64.b64encode(raw[:MAX_RAW_BYTES]).decode("ascii"),
        at=now,
    )
