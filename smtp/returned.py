"""What a message that came back means for a campaign: feedback, a dead letter, or nothing that matters.

The word of a stranger counts only with a return path that we signed; everything else is kept as a dead letter.  Pure:
the time, the keys and what is known are arguments.
"""

import base64
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import assert_never

from policy.replies import category_of, classify
from policy.tokens import Forged, Keys, Ticket, address_hash, message_ref, name_of, read_return_path
from schemas.dead_letters import DeadLetter
from schemas.feedback import Feedback, FeedbackKind, Trap
from smtp.findings import AutoReply, Bounce, Clues, Finding, Report, Unclear, clean, redacted
from smtp.known import Known
from smtp.mime import TooComplexError, split

SOURCE = "return_path"
DEAD_LETTER_SOURCE = "smtp:return-path"  # no legal name of a topic: these are mails, not records
UNSIGNED = "no_signed_return_path"
MAX_RAW_BYTES = 524_288
SUSPECTED_STRENGTH = 0.2  # a Message-ID that anybody could have written, seen in a trap

_TOKEN_INSIDE = re.compile(r"(?<![a-z0-9])b\+[a-z2-7]{20,61}(?![a-z0-9])", re.IGNORECASE)
_OUR_MESSAGE_ID = re.compile(r"<([A-Za-z0-9_-]{1,64})\.([a-z0-9-]{1,63})@[^<>@\s]{1,255}>")
_COMPLAINTS = frozenset({"abuse", "fraud", "virus", "miscategorized"})
_UNSUBSCRIBES = frozenset({"opt-out", "opt-out-list"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """One message as it came back to one recipient of its envelope; ``mail_from`` is empty for the null sender."""

    mail_from: str
    rcpt: str
    raw: bytes
    at: int


@dataclass(frozen=True, slots=True)
class Noted:
    """Something that is understood and has no consequence: mail that is late, or arrived."""

    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Origin:
    """Which of our messages came back; ``sent_at`` is None when only an unsigned Message-ID tells."""

    campaign: str
    message_id: str | None
    sent_at: int | None = None
    ticket: Ticket | None = None


Meaning = Feedback | DeadLetter | Noted


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What the meaning of a message depends on, beside the message."""

    keys: Keys
    known: Known
    provider_of: Callable[[str], str]


def trap_hit(returned: Returned, context: Context) -> Meaning:
    """Mail in one of our traps.  With a return path that we signed, the campaign is certain; else it is suspected."""
    ticket = read_return_path(context.keys, returned.mail_from, now=returned.at)
    message_id = _header(returned.raw, "message-id")
    if isinstance(ticket, Ticket):
        campaign = context.known.by_ref(ticket.campaign_ref, returned.at)
        if campaign is None:
            return dead_letter(returned, "unknown_campaign", "a trap was hit by a campaign that is not registered")
        if not ticket.is_for(address_hash(context.keys, returned.rcpt)):
            explain = "mail in a trap with the return path of a message that was sent to another address"
            return dead_letter(returned, "not_sent_to_this_trap", explain)
        origin = _Origin(campaign=campaign, message_id=_message_id(ticket, message_id), sent_at=ticket.sent_at)
        return _feedback("trap_hit", origin, returned, context, recipient=returned.rcpt, trap=Trap(kind="pristine"))
    named = _OUR_MESSAGE_ID.fullmatch((message_id or "").strip())
    name = named[2] if named else _header(returned.raw, "x-mailcordon-campaign") or ""
    campaign = context.known.by_name(name.strip(), returned.at)
    if campaign is None:
        explain = f"mail in a trap, and nothing in it names a campaign of ours: {ticket.explain}"
        return dead_letter(returned, "unidentified_trap_hit", explain)
    origin = _Origin(campaign=campaign, message_id=named[1] if named else None)
    trap = Trap(kind="suspected", strength=SUSPECTED_STRENGTH)
    return _feedback("trap_hit", origin, returned, context, recipient=returned.rcpt, trap=trap)


def meanings(returned: Returned, findings: Sequence[Finding], context: Context) -> list[Meaning]:
    """What the findings about a message mean; at most one dead letter, however many of them are unclear."""
    found: list[Meaning] = []
    for finding in findings:
        meaning = _meaning(returned, finding, context)
        if isinstance(meaning, DeadLetter) and any(isinstance(one, DeadLetter) for one in found):
            continue
        found.append(meaning)
    return found


def _meaning(returned: Returned, finding: Finding, context: Context) -> Meaning:
    origin = _origin(returned, finding.clues, context)
    if isinstance(origin, DeadLetter):
        if isinstance(finding, Unclear) and origin.reason == UNSIGNED:
            return dead_letter(returned, finding.reason, finding.explain)
        return origin
    match finding:
        case Bounce():
            return _bounce(finding, origin, returned, context)
        case Report():
            return _report(finding, origin, returned, context)
        case AutoReply():
            return _feedback("auto_reply", origin, returned, context)
        case Unclear():
            return dead_letter(returned, finding.reason, finding.explain)
        case _:
            assert_never(finding)


def _origin(returned: Returned, clues: Clues, context: Context) -> _Origin | DeadLetter:
    ticket = _ticket(returned, clues, context)
    if isinstance(ticket, Forged):
        reason = UNSIGNED if ticket.reason == "not_ours" else f"return_path_{ticket.reason}"
        return dead_letter(returned, reason, ticket.explain)
    campaign = context.known.by_ref(ticket.campaign_ref, returned.at)
    if campaign is None:
        return dead_letter(returned, "unknown_campaign", "the campaign of this return path is not registered")
    message_id = _message_id(ticket, clues.message_id)
    return _Origin(campaign=campaign, message_id=message_id, sent_at=ticket.sent_at, ticket=ticket)


def _bounce(bounce: Bounce, origin: _Origin, returned: Returned, context: Context) -> Meaning:
    if bounce.action != "failed":
        return Noted(bounce.action)
    provider = context.provider_of(_domain(bounce.recipient)) if bounce.recipient else "other"
    reading = classify(code=bounce.code, enhanced=bounce.enhanced, text=bounce.text, provider=provider)
    return _feedback(
        "soft_bounce" if bounce.expired else kind_of(reading.category),
        origin,
        returned,
        context,
        recipient=bounce.recipient,
        class_="expired" if bounce.expired else reading.category,
        code=bounce.code,
        text=redacted(bounce.text) or None,
    )


def kind_of(category: str) -> FeedbackKind:
    """What a final refusal counts as, the same as if it had been said at once: dead address, block, or neither."""
    counts = category_of(category).counts
    match counts:
        case "hard_bounce" | "block":
            return counts
        case "soft":
            return "soft_bounce"
        case _:
            assert_never(counts)


def _report(report: Report, origin: _Origin, returned: Returned, context: Context) -> Meaning:
    kind: FeedbackKind
    if report.type in _COMPLAINTS:
        kind = "complaint"
    elif report.type == "not-spam":
        kind = "not_spam"
    elif report.type in _UNSUBSCRIBES:
        kind = "unsubscribe"
    elif report.type == "auth-failure":
        return Noted("auth-failure")  # RFC 6591: about our signatures, nobody complained
    else:
        return dead_letter(returned, "unknown_feedback_type", f"a feedback report of type {clean(report.type, 40)!r}")
    return _feedback(
        kind,
        origin,
        returned,
        context,
        recipient=_unless_hidden(report.recipient),
        provider_domain=_domain(report.recipient or "") or None,
        ip=report.source_ip,
        class_=report.type,
    )


def dead_letter(returned: Returned, reason: str, explain: str) -> DeadLetter:
    """The message set aside, whole up to ``MAX_RAW_BYTES``, with its envelope."""
    raw = returned.raw[:MAX_RAW_BYTES]
    headers = {"mail_from": clean(returned.mail_from), "rcpt_to": clean(returned.rcpt)}
    if len(raw) < len(returned.raw):
        headers["cut_from_bytes"] = str(len(returned.raw))
    return DeadLetter(
        topic=DEAD_LETTER_SOURCE,
        partition=-1,
        offset=-1,
        reason=reason,
        explain=clean(explain),
        raw=base64.b64encode(raw).decode("ascii"),
        at=returned.at,
        headers=headers,
    )


def _feedback(
    kind: FeedbackKind,
    origin: _Origin,
    returned: Returned,
    context: Context,
    *,
    recipient: str | None = None,
    provider_domain: str | None = None,
    ip: str | None = None,
    trap: Trap | None = None,
    class_: str | None = None,
    code: int | None = None,
    text: str | None = None,
) -> Feedback:
    domain = provider_domain or (_domain(recipient) if recipient else None)
    return Feedback(
        kind=kind,
        campaign=origin.campaign,
        at=returned.at,
        message_id=origin.message_id,
        sent_at=origin.sent_at,
        address_hash=_hash_of(recipient, origin, context),
        provider=context.provider_of(domain) if domain else None,
        ip=ip,
        trap=trap,
        class_=class_,
        code=code,
        text=text,
        source=SOURCE,
    )


def _hash_of(recipient: str | None, origin: _Origin, context: Context) -> str | None:
    """The hash of the address that a report names, if the message was sent to it.

    A report may name any address; what it names must not be suppressed for it.  A forwarder's report names an
    address that we never knew: then only the message is known.
    """
    if not recipient or "@" not in recipient:
        return None
    hashed = address_hash(context.keys, recipient)
    return hashed if origin.ticket is None or origin.ticket.is_for(hashed) else None


def _ticket(returned: Returned, clues: Clues, context: Context) -> Ticket | Forged:
    """The signed return path that the message came to; else one that it quotes, as reports to a fixed address do."""
    first = read_return_path(context.keys, returned.rcpt, now=returned.at)
    if isinstance(first, Ticket) or first.reason != "not_ours":
        return first
    for place in clues.return_paths:
        for token in _TOKEN_INSIDE.findall(place)[:3]:  # also inside of what a forwarder made of it (SRS)
            quoted = read_return_path(context.keys, f"{token}@return.path", now=returned.at)
            if isinstance(quoted, Ticket) or quoted.reason != "not_ours":
                return quoted
    return first


def _message_id(ticket: Ticket, message_id_header: str | None) -> str:
    """The message's id: from the ticket; if that has only a hash, from a Message-ID that fits it; else the hash."""
    if ticket.message_id is not None:
        return ticket.message_id
    named = _OUR_MESSAGE_ID.search(message_id_header or "")
    if named and message_ref(named[1]) == ticket.message_ref:
        return named[1]
    return name_of(ticket.message_ref)


def _header(raw: bytes, name: str) -> str | None:
    try:
        return split(raw[:131_072])[0].get(name)
    except TooComplexError:
        return None


def _unless_hidden(recipient: str | None) -> str | None:
    """A recipient that the report names; one that was made unreadable (RFC 6590) is nobody's address."""
    return None if recipient is None or "redacted" in recipient.partition("@")[0].lower() else recipient


def _domain(address: str) -> str:
    return address.rpartition("@")[2].lower()
