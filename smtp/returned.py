"""What a message that came back means for a campaign: feedback, a dead letter, or nothing that matters.

The word of a stranger counts only with a return path that we signed; everything else is kept as a dead letter.  Pure:
the time, the keys and what is known are arguments.
"""

import base64
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import assert_never

import msgspec

from policy.replies import category_of, classify
from policy.tokens import (
    Forged,
    Keys,
    Leave,
    Named,
    Ticket,
    address_hash,
    message_ref,
    name_of,
    read_message_id,
    read_return_path,
    read_unsubscribe_token,
    return_paths_in,
)
from schemas.dead_letters import DeadLetter
from schemas.feedback import Feedback, FeedbackKind, Trap
from smtp.clues import clues_in
from smtp.findings import AutoReply, Bounce, Clues, Finding, Report, Unclear, clean, redacted
from smtp.known import Known
from smtp.mime import Fields, TooComplexError, split

SOURCE = "return_path"
DEAD_LETTER_SOURCE = "smtp:return-path"  # no legal name of a topic: these are mails, not records
UNSIGNED = "no_signed_return_path"
MAX_RAW_BYTES = 524_288
SUSPECTED_STRENGTH = 0.2  # a Message-ID that anybody could have written, seen in a trap

_OUR_MESSAGE_ID = re.compile(r"<([A-Za-z0-9_-]{1,64})\.([a-z0-9-]{1,63})(?:\.[a-z2-7]{16})?@[^<>@\s]{1,255}>")
_MAX_AGE_MS = 30 * 86_400_000  # as long as a return path is believed
_SKEW_MS = 3_600_000
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
    """Which of our messages came back; ``addressee`` is the hash of whom it was sent to, where that is proved."""

    campaign: str
    message_id: str | None
    sent_at: int | None = None
    ticket: Ticket | None = None
    addressee: str | None = None

    def was_sent_to(self, hashed: str) -> bool:
        """Is it proved that the message was sent to this address?"""
        return hashed == self.addressee or (self.ticket is not None and self.ticket.is_for(hashed))


Meaning = Feedback | DeadLetter | Noted


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What the meaning of a message depends on, beside the message."""

    keys: Keys
    known: Known
    provider_of: Callable[[str], str]


def trap_hit(returned: Returned, context: Context) -> Meaning:
    """Mail in one of our traps.

    With a return path, an unsubscribe link or a Message-ID that we made, the campaign is certain, and the mail must
    have been sent to this trap: whoever got a message of ours might know one.  Else the campaign is suspected.
    """
    fact = context.known.trap(returned.rcpt)
    trap = fact.trap if fact is not None else Trap(kind="pristine")
    ticket = _path_in(returned.mail_from, returned, context)
    fields = _fields(returned.raw)
    clues = clues_in(fields)
    if isinstance(ticket, Ticket):
        return _proved(ticket, _message_id(ticket, clues.message_id), trap, returned, context)
    if ticket.reason in {"not_ours", "malformed"}:  # else somebody tried: no other proof makes that good
        links = (read_unsubscribe_token(context.keys, link) for link in clues.links)
        leave = next((one for one in links if isinstance(one, Leave)), None)
        if leave is not None and 0 <= returned.at + _SKEW_MS - leave.sent_at <= _MAX_AGE_MS + _SKEW_MS:
            return _proved(leave, leave.message_id or name_of(leave.message_ref), trap, returned, context)
        marked = read_message_id(context.keys, clues.message_id or "")
        if leave is None and isinstance(marked, Named):
            return _marked(marked, clues, trap, returned, context)
    return _suspected(ticket, fields, trap, returned, context)


def _proved(
    proof: Ticket | Leave, message_id: str, trap: Trap, returned: Returned, context: Context
) -> Feedback | DeadLetter:
    """A hit by a message that tells its campaign and, by a hash, its recipient."""
    campaign = context.known.by_ref(proof.campaign_ref, returned.at)
    if campaign is None:
        return dead_letter(returned, "unknown_campaign", "a trap was hit by a campaign that is not registered")
    hashed = address_hash(context.keys, returned.rcpt)
    if not (proof.is_for(hashed) if isinstance(proof, Ticket) else proof.address_hash == hashed):
        what = "return path" if isinstance(proof, Ticket) else "unsubscribe link"
        explain = f"mail in a trap with the {what} of a message that was sent to another address"
        return dead_letter(returned, "not_sent_to_this_trap", explain)
    origin = _Origin(campaign=campaign, message_id=message_id, sent_at=proof.sent_at)
    return _hit(origin, trap, returned, context)


def _marked(named: Named, clues: Clues, trap: Trap, returned: Returned, context: Context) -> Feedback | DeadLetter:
    """A hit by a message with our Message-ID, which tells neither recipient nor time: its To and Date must do."""
    campaign = context.known.by_name(named.campaign_name, returned.at)
    if campaign is None:
        return dead_letter(returned, "unknown_campaign", "the campaign of this Message-ID is not registered")
    hashed = address_hash(context.keys, returned.rcpt)
    if hashed not in {address_hash(context.keys, one) for one in clues.addressees}:
        explain = "mail in a trap with the Message-ID of a message that was sent to another address"
        return dead_letter(returned, "not_sent_to_this_trap", explain)
    sent_at = clues.dated
    if sent_at is not None and returned.at - sent_at > _MAX_AGE_MS:
        return dead_letter(returned, "message_id_expired", "the message was sent more than 30 days ago")
    if sent_at is not None and sent_at - returned.at > _SKEW_MS:
        sent_at = None
    return _hit(_Origin(campaign=campaign, message_id=named.message_id, sent_at=sent_at), trap, returned, context)


def _suspected(forged: Forged, fields: Fields, trap: Trap, returned: Returned, context: Context) -> Meaning:
    """Mail in a trap that anybody could have written, and that names a campaign of ours."""
    message_id = fields.get("message-id")
    named = _OUR_MESSAGE_ID.fullmatch((message_id or "").strip())
    name = named[2] if named else fields.get("x-mailcordon-campaign") or ""
    campaign = context.known.by_name(name.strip(), returned.at)
    if campaign is None:
        explain = f"mail in a trap, and nothing in it names a campaign of ours: {forged.explain}"
        return dead_letter(returned, "unidentified_trap_hit", explain)
    origin = _Origin(campaign=campaign, message_id=named[1] if named else None)
    suspected = Trap(kind="suspected", strength=SUSPECTED_STRENGTH, where=trap.where)
    return _hit(origin, suspected, returned, context)


def _hit(origin: _Origin, trap: Trap, returned: Returned, context: Context) -> Feedback:
    hashed = address_hash(context.keys, returned.rcpt)
    return _feedback("trap_hit", origin, returned, context, recipient=returned.rcpt, hashed=hashed, trap=trap)


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
    origin = _origin(returned, finding, context)
    if isinstance(origin, DeadLetter):
        if isinstance(finding, Unclear) and origin.reason == UNSIGNED:
            return msgspec.structs.replace(origin, reason=finding.reason, explain=clean(finding.explain))
        return origin
    match finding:
        case Bounce():
            return _bounce(finding, origin, returned, context)
        case Report():
            return _report(finding, origin, returned, context)
        case AutoReply():
            kind = None if finding.what == "reply" else finding.what
            return _feedback("auto_reply", origin, returned, context, class_=kind)
        case Unclear():
            return dead_letter(returned, finding.reason, finding.explain)
        case _:
            assert_never(finding)


def _origin(returned: Returned, finding: Finding, context: Context) -> _Origin | DeadLetter:
    """Which message of ours this is about, by the first proof of: return path, unsubscribe link, Message-ID."""
    clues = finding.clues
    path = _ticket(returned, clues, context)
    links = (read_unsubscribe_token(context.keys, link) for link in clues.links)
    leave = next((one for one in links if isinstance(one, Leave)), None)
    if isinstance(path, Ticket):
        same = leave is not None and (leave.campaign_ref, leave.message_ref) == (path.campaign_ref, path.message_ref)
        addressee = leave.address_hash if leave and same and path.is_for(leave.address_hash) else None
        return _of_ref(path, _message_id(path, *_ids(clues)), addressee, returned, context)
    reason = UNSIGNED if path.reason == "not_ours" else f"return_path_{path.reason}"
    explain = path.explain
    if path.reason in {"not_ours", "malformed"}:  # else somebody tried: no other proof makes that good
        if leave is not None and returned.at - leave.sent_at <= _MAX_AGE_MS:
            named_so = leave.message_id or name_of(leave.message_ref)
            return _of_ref(leave, named_so, leave.address_hash, returned, context)
        if leave is not None:
            reason, explain = "unsubscribe_link_expired", "the message was sent more than 30 days ago"
        else:
            for one in (read_message_id(context.keys, message_id) for message_id in _ids(clues)):
                if isinstance(one, Named):
                    return _of_name(one, returned, finding, context)
                if one.reason == "bad_signature":
                    reason, explain = "message_id_bad_signature", one.explain
    return _disbelieved(returned, reason, explain, clues, context)


def _of_ref(
    proof: Ticket | Leave, message_id: str, addressee: str | None, returned: Returned, context: Context
) -> _Origin | DeadLetter:
    campaign = context.known.by_ref(proof.campaign_ref, returned.at)
    if campaign is None:
        return dead_letter(returned, "unknown_campaign", "the campaign of this return path is not registered")
    ticket = proof if isinstance(proof, Ticket) else None
    return _Origin(campaign=campaign, message_id=message_id, sent_at=proof.sent_at, ticket=ticket, addressee=addressee)


def _of_name(named: Named, returned: Returned, finding: Finding, context: Context) -> _Origin | DeadLetter:
    """By Message-ID alone, which tells no time: the report's Arrival-Date or the mail's Date, if it can be true."""
    campaign = context.known.by_name(named.campaign_name, returned.at)
    if campaign is None:
        return dead_letter(returned, "unknown_campaign", "the campaign of this Message-ID is not registered")
    arrived = finding.arrived_at if isinstance(finding, Report) else None
    sent_at = arrived if arrived is not None else finding.clues.dated
    if sent_at is not None and returned.at - sent_at > _MAX_AGE_MS:
        return dead_letter(returned, "message_id_expired", "the message was sent more than 30 days ago")
    if sent_at is not None and sent_at - returned.at > _SKEW_MS:
        sent_at = None
    return _Origin(campaign=campaign, message_id=named.message_id, sent_at=sent_at)


def _disbelieved(returned: Returned, reason: str, explain: str, clues: Clues, context: Context) -> DeadLetter:
    """The dead letter, with the campaign that unsigned fields name: for people to look at, never to be counted."""
    letter = dead_letter(returned, reason, explain)
    campaign = context.known.by_name(clues.campaign_name or "", returned.at)
    evidence = {"names_campaign": campaign, "feedback_id": clues.feedback_id}
    told = {name: value for name, value in evidence.items() if value}
    return msgspec.structs.replace(letter, headers=letter.headers | told)


def _ids(clues: Clues) -> tuple[str, ...]:
    return (clues.message_id or "", *clues.references)


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
        hashed=_hash_of((bounce.recipient or "",), origin, context),
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
        hashed=origin.addressee or _hash_of((report.recipient or "", *report.clues.addressees), origin, context),
        provider_domain=_domain(report.recipient or "") or None,
        ip=report.source_ip,
        class_=report.type,
        text=f"{report.incidents} incidents" if report.incidents > 1 else None,
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
    hashed: str | None = None,
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
        address_hash=hashed,
        provider=context.provider_of(domain) if domain else None,
        ip=ip,
        trap=trap,
        class_=class_,
        code=code,
        text=text,
        source=SOURCE,
    )


def replay_key(feedback: Feedback) -> tuple[str, str, str, str] | None:
    """What the same feedback has in common each time that it comes; None when it names no message."""
    if not feedback.message_id:
        return None
    return feedback.campaign, feedback.message_id, feedback.kind, feedback.address_hash or ""


def _hash_of(named: Sequence[str], origin: _Origin, context: Context) -> str | None:
    """The hash of the address that a report names, if the message was sent to it.

    A report may name any address; what it names must not be suppressed for it.  A forwarder's report names an
    address that we never knew: then only the message is known.
    """
    hashes = (address_hash(context.keys, one) for one in named if "@" in one)
    return next((one for one in hashes if origin.was_sent_to(one)), None)


def _ticket(returned: Returned, clues: Clues, context: Context) -> Ticket | Forged:
    """The signed return path that the message came to; else one that it quotes, as reports to a fixed address do."""
    first = _path_in(returned.rcpt, returned, context)
    if isinstance(first, Ticket) or first.reason != "not_ours":
        return first
    for local in [one for place in clues.return_paths for one in return_paths_in(place)]:
        quoted = read_return_path(context.keys, f"{local}@return.path", now=returned.at)
        if isinstance(quoted, Ticket) or quoted.reason not in {"not_ours", "malformed"}:
            return quoted
        first = quoted
    return first


def _path_in(place: str, returned: Returned, context: Context) -> Ticket | Forged:
    """A return path as it stands, or inside of what a forwarder made of it."""
    found = read_return_path(context.keys, place, now=returned.at)
    if isinstance(found, Ticket) or found.reason != "not_ours":
        return found
    for local in return_paths_in(place):
        inside = read_return_path(context.keys, f"{local}@return.path", now=returned.at)
        if isinstance(inside, Ticket) or inside.reason != "not_ours":
            return inside
    return found


def _message_id(ticket: Ticket, *message_ids: str | None) -> str:
    """The message's id: from the ticket; if that has only a hash, from a Message-ID that fits it; else the hash."""
    if ticket.message_id is not None:
        return ticket.message_id
    for one in message_ids:
        named = _OUR_MESSAGE_ID.search(one or "")
        if named and message_ref(named[1]) == ticket.message_ref:
            return named[1]
    return name_of(ticket.message_ref)


def _fields(raw: bytes) -> Fields:
    try:
        return split(raw[:131_072])[0]
    except TooComplexError:
        return Fields()


def _domain(address: str) -> str:
    return address.rpartition("@")[2].lower()
