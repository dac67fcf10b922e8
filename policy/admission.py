"""Admission: which recipients of a request get a message, and what each of the others is told.

Every recipient leaves with a message, with one :class:`Refused`, or with a message that is held until somebody decides;
there is no other way out, with one exception: the same message id asked for twice with the same mailbox is one message,
so its repetition says nothing.  Under
another address the id is refused as ``duplicate_message_id``.  An address that stands twice under different ids
gets two messages: the id is what the application means, and who leaves it out gets one id per mailbox.

What is wrong with the request, the address, its suppression and its variables is asked beside the screens, so that only
what could otherwise be sent is held.  Who releases a held message says that the screens do not apply to it: their
objections become flags.  Suppressions still hold, since they are the recipient's own word or that of its provider.

A request without recipients, or with too many to answer each, is answered by one record without a message id.
Sentences name the field and the fix and never quote an address or a message id.
"""

import base64
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import assert_never

import msgspec

from policy.addresses import BadAddress, CheckedAddress, canonical, canonical_of, check, hostname
from policy.domain_lists import flaw_of_domains
from policy.screens import ABOUT_TRAPS, Objection, Questions, Screens
from policy.templates import BadContent, Template
from policy.tokens import Keys, hashing
from policy.unsubscribing import flaw_of_base
from schemas.codec import DecodedRequest
from schemas.sending import Campaign, HeldMessage, OutboundMessage, Recipient, Refused, SendRequest, Stage

MAX_RECIPIENTS = 500
MAX_MESSAGE_ID_LENGTH = 128
MAX_CAMPAIGN_LENGTH = 128

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]").search
_UNFIT_LOCAL = re.compile(r"[\x00-\x20\x7f-\x9f<>()\[\],;:\\\"@\u2028\u2029\ud800-\udfff]").search


def _breaks(message_id: str) -> bool:
    return not message_id.isprintable() and _CONTROL(message_id) is not None


class Admission(msgspec.Struct, frozen=True):
    """The outcome of one request: messages to send, refusals to publish, and messages to keep for a decision."""

    messages: list[OutboundMessage]
    refused: list[Refused]
    held: list[HeldMessage] = []


class _Flaw(msgspec.Struct, frozen=True, gc=False):
    """A machine reason and its sentence, before it is known whom it is told."""

    reason: str
    explain: str


def _anything(_: str) -> bool:
    return True


def admit(
    request: DecodedRequest,
    *,
    campaign: Campaign | None,
    template: Template | BadContent | None,
    suppressed: Callable[[str], str | None],
    keys: Keys,
    now: int,
    screens: Screens | None = None,
    heard_of: Callable[[str], bool] = _anything,
) -> Admission:
    """Decide about every recipient of a request.

    ``suppressed`` answers for an address hash with the reason of its suppression in the campaign's scopes.
    ``screens`` are asked as the campaign's policy wants it; without them nobody is.  ``heard_of`` says of a hash, of an
    address or a domain, whether anything may be known of it; of nearly all nothing is, and nothing more is asked.
    """
    asked = request.request
    flaw = _flaw_of_size(len(asked.recipients) + len(request.malformed))
    if flaw is not None:
        return Admission(messages=[], refused=[_refused(asked, flaw, now)])
    messages: list[OutboundMessage] = []
    held: list[HeldMessage] = []
    refused = [
        _refused(asked, _Flaw(malformed.reason, malformed.explain), now, stage="decode")
        for _, malformed in request.malformed
    ]
    usable = _flaw_of_request(asked, campaign, now) or _usable(template, campaign)
    questions = screens.of(campaign.admission) if screens is not None and campaign is not None else None
    desk = _Desk(asked, usable, suppressed, keys, now, questions, heard_of)
    for position, recipient in _numbered(request):
        answer = desk.look_at(position, recipient)
        match answer:
            case OutboundMessage():
                messages.append(answer)
            case Refused():
                refused.append(answer)
            case HeldMessage():
                held.append(answer)
            case None:
                pass
            case _:
                assert_never(answer)
    return Admission(messages=messages, refused=refused, held=held)


def derived_message_id(request_id: str, address_hash: str) -> str:
    """The message id of a recipient that brings none: the same for the same request and mailbox.

    The first 128 bits of SHA-256 over request id, NUL and address hash, as 26 characters of base32 in lower case.
    The hash stands there and not the address, so that an id does not give the address away to who guesses.
    """
    digest = hashlib.sha256(f"{request_id}\0{address_hash}".encode("utf-8", "surrogatepass")).digest()
    return base64.b32encode(digest[:16])[:26].decode("ascii").lower()


class _Desk:
    """One request while its recipients are looked at, one after the other."""

    __slots__ = (
        *("_asked", "_domains", "_hash_of", "_heard_of", "_now", "_questions", "_seen", "_suppressed", "_template"),
    )

    def __init__(
        self,
        asked: SendRequest,
        template: Template | _Flaw,
        suppressed: Callable[[str], str | None],
        keys: Keys,
        now: int,
        questions: Questions | None,
        heard_of: Callable[[str], bool],
    ) -> None:
        self._asked = asked
        self._template = template
        self._suppressed = suppressed
        self._hash_of = hashing(keys)
        self._now = now
        self._questions = questions
        self._heard_of = heard_of
        self._domains: dict[str, bool] = {}  # of this request: whether anything may be known of each as a whole
        self._seen: dict[str, str] = {}

    def look_at(self, position: int, recipient: Recipient) -> OutboundMessage | Refused | HeldMessage | None:
        """The recipient's message, the reason why there is none (yet), or None for the repetition of an earlier one."""
        asked = self._asked
        checked = check(recipient.address)
        whole = canonical(recipient.address) if isinstance(checked, BadAddress) else canonical_of(checked)
        hashed = self._hash_of(whole)
        message_id = recipient.message_id
        if message_id is None:
            message_id = derived_message_id(asked.request_id, hashed)
        elif not (0 < len(message_id) <= MAX_MESSAGE_ID_LENGTH) or _breaks(message_id):
            return _refused(asked, _bad_id(position), self._now, address_hash=hashed)
        earlier = self._seen.setdefault(message_id, hashed)
        if earlier is not hashed:
            if earlier == hashed:
                return None
            return _refused(asked, _duplicate(position), self._now, message_id, hashed)
        if isinstance(checked, BadAddress):
            return _refused(asked, self._flaw_of(position, checked), self._now, message_id, hashed)
        return self._judged(position, recipient, checked, message_id, hashed)

    def _judged(
        self, position: int, recipient: Recipient, checked: CheckedAddress, message_id: str, hashed: str
    ) -> OutboundMessage | Refused | HeldMessage:
        """The outcome for a good address under a message id of its own."""
        asked = self._asked
        heard_of = self._heard_of(hashed) or self._heard_of_domain(checked.domain)
        objections: Sequence[Objection] = ()
        if self._questions is not None:
            objections = self._questions.objections(recipient, checked, hashed, self._now, heard_of=heard_of)
        worst = objections[0] if objections and recipient.released_by is None else None
        flaw = self._flaw(position, recipient, checked, hashed, worst, heard_of=heard_of)
        if flaw is not None:
            return _refused(asked, flaw, self._now, message_id, hashed)
        if worst is not None and worst.does == "hold":
            return _held(asked, recipient, _objection(position, worst), self._now, message_id, hashed)
        return OutboundMessage(
            message_id=message_id,
            address=checked.address,
            address_hash=hashed,
            vars=recipient.vars,
            source=recipient.source,
            flags=tuple([one.screen for one in objections]) if objections else (),
        )

    def _heard_of_domain(self, domain: str) -> bool:
        known = self._domains.get(domain)
        if known is None:
            asked = self._questions
            known = self._domains[domain] = asked is not None and self._heard_of(asked.domain(domain).hashed)
        return known

    def _flaw_of(self, position: int, bad: BadAddress) -> _Flaw:
        if isinstance(self._template, _Flaw):
            return self._template
        return _Flaw("bad_address", f"field recipients[{position}].address {bad.explain}")

    def _flaw(
        self,
        position: int,
        recipient: Recipient,
        checked: CheckedAddress,
        hashed: str,
        worst: Objection | None,
        *,
        heard_of: bool,
    ) -> _Flaw | None:
        template = self._template
        if isinstance(template, _Flaw):
            return template
        if worst is not None and worst.does == "refuse":
            return _objection(position, worst)
        suppression = (self._suppressed(hashed) or self._suppressed_domain(checked.domain)) if heard_of else None
        if suppression is not None:
            return _suppressed_as(position, suppression)
        bad = template.check(recipient.vars)
        return None if bad is None else _Flaw(bad.reason, f"recipients[{position}]: {bad.explain}")

    def _suppressed_domain(self, domain: str) -> str | None:
        """Why nobody at this domain gets mail."""
        return None if self._questions is None else self._suppressed(self._questions.domain(domain).hashed)


def _numbered(request: DecodedRequest) -> Iterator[tuple[int, Recipient]]:
    """The readable recipients with the positions that they have in the request."""
    unreadable = {position for position, _ in request.malformed}
    positions = (position for position in count() if position not in unreadable)
    return zip(positions, request.request.recipients, strict=False)


def _flaw_of_size(recipients: int) -> _Flaw | None:
    if recipients == 0:
        return _Flaw("no_recipients", f"field recipients is empty; send 1 to {MAX_RECIPIENTS} recipients")
    if recipients > MAX_RECIPIENTS:
        return _Flaw(
            "too_many_recipients",
            f"field recipients has {recipients:,} entries, at most {MAX_RECIPIENTS} are allowed; split the request",
        )
    return None


def _flaw_of_request(asked: SendRequest, campaign: Campaign | None, now: int) -> _Flaw | None:
    if campaign is None:
        return _Flaw(
            "unknown_campaign", "field campaign: there is no campaign of this id; apply it first or correct the id"
        )
    if not _is_mailbox(campaign.from_.address) or hostname(campaign.return_path_domain) is None:
        return _Flaw(
            "bad_campaign",
            "field campaign: the campaign's from.address or return_path_domain cannot stand in a mail; apply it anew",
        )
    if (wrong := _flaw_of_campaign(campaign)) is not None:
        return _Flaw("bad_campaign", f"field campaign: the campaign's {wrong}; apply it anew")
    if asked.expires_at is not None:
        if asked.expires_at <= now:
            return _Flaw(
                "expired", "field expires_at: the request had expired when it was read; send it with a later one"
            )
        if asked.not_before is not None and asked.not_before >= asked.expires_at:
            return _Flaw("expired", "field not_before is not before expires_at; leave time between the two")
    return None


def _flaw_of_campaign(campaign: Campaign) -> str | None:
    if campaign.unsubscribe_url is not None and (flaw := flaw_of_base(campaign.unsubscribe_url)) is not None:
        return f"unsubscribe_url {flaw}"
    return flaw_of_domains(campaign.admission)


def _usable(template: Template | BadContent | None, campaign: Campaign | None) -> Template | _Flaw:
    match template:
        case Template() if template.needs_link and (campaign is None or campaign.unsubscribe_url is None):
            return _Flaw(
                "no_unsubscribe_url",
                "field content: the content holds {{unsubscribe_url}}, and the campaign has no unsubscribe_url; "
                "apply the campaign with one",
            )
        case Template():
            return template
        case BadContent():
            return _Flaw("bad_content", f"field content: the content cannot be sent: {template.explain}")
        case None:
            return _Flaw(
                "unknown_content",
                "field content: the campaign has no content of this id; apply it first or correct the id",
            )
        case _:
            assert_never(template)


def _is_mailbox(address: str) -> bool:
    local, _, domain = address.rpartition("@")
    return bool(local) and not _UNFIT_LOCAL(local) and hostname(domain) is not None


def _objection(position: int, objection: Objection) -> _Flaw:
    return _Flaw(objection.screen, f"field recipients[{position}].{objection.field} {objection.explain}")


def _suppressed_as(position: int, suppression: str) -> _Flaw:
    if suppression.startswith("trap"):
        return _Flaw(
            "known_trap",
            f"field recipients[{position}].address is a known spam trap; {ABOUT_TRAPS}",
        )
    why = "".join(one for one in suppression[:100] if one.isprintable())
    return _Flaw(
        "suppressed",
        f"field recipients[{position}].address is suppressed ({why}); take it off the list, or lift the suppression",
    )


def _bad_id(position: int) -> _Flaw:
    return _Flaw(
        "bad_message_id",
        f"field recipients[{position}].message_id must have 1 to {MAX_MESSAGE_ID_LENGTH} characters and no control "
        "characters; shorten it or leave it out",
    )


def _duplicate(position: int) -> _Flaw:
    return _Flaw(
        "duplicate_message_id",
        f"field recipients[{position}].message_id stands earlier in the request with another address; give each "
        "message its own id",
    )


def _refused(
    asked: SendRequest,
    flaw: _Flaw,
    now: int,
    message_id: str | None = None,
    address_hash: str | None = None,
    stage: Stage = "validate",
) -> Refused:
    return Refused(
        request_id=asked.request_id,
        message_id=message_id,
        campaign=asked.campaign[:MAX_CAMPAIGN_LENGTH],
        address_hash=address_hash,
        stage=stage,
        reason=flaw.reason,
        explain=flaw.explain,
        at=now,
    )


def _held(
    asked: SendRequest, recipient: Recipient, flaw: _Flaw, now: int, message_id: str, address_hash: str
) -> HeldMessage:
    """The message with all that is needed to ask for it again, under the same id; the same for every replay."""
    alone = msgspec.structs.replace(
        asked, recipients=[msgspec.structs.replace(recipient, message_id=message_id, released_by=None)]
    )
    return HeldMessage(
        campaign=asked.campaign,
        message_id=message_id,
        address_hash=address_hash,
        reason=flaw.reason,
        explain=flaw.explain,
        at=now,
        request=alone,
    )
