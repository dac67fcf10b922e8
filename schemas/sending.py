"""From a request to the sender's doorstep: campaigns, contents, requests, refusals, outbound messages."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from schemas.base import AddressHash, CampaignId, MessageId, Millis, Part, Rate, Record

InDoubt = Literal["hold", "resend"]
PristineTrap = Literal["isolate", "judge"]
Tls = Literal["opportunistic", "require"]
Stage = Literal["decode", "validate", "route", "send"]
Screening = Literal["refuse", "hold", "flag", "off"]
Judging = Literal["sequential", "fixed"]
Var = str | int | float


class Mailbox(Part, frozen=True, kw_only=True):
    """A name and an address, as they stand in From."""

    address: Annotated[str, Meta(min_length=3, max_length=254)]
    name: Annotated[str, Meta(max_length=200)] = ""


class Pace(Part, frozen=True, kw_only=True):
    """How fast a campaign may send; ``per_second`` 0 means no limit of its own."""

    per_second: Annotated[float, Meta(ge=0)] = 0.0
    connections: Annotated[int, Meta(ge=1, le=1000)] = 20


class Limits(Part, frozen=True, kw_only=True):
    """The rates that a campaign must stay below, and how that is judged.

    ``sequential``: by the strength of the evidence, which may be looked at after every message.  ``fixed``: by the bare
    rate, as Amazon SES does it, once there are ``min_volume`` messages; ``grave_factor`` times the limit isolates.
    ``burst``: how many events one cause may explain, such as a domain of the list that has died; what stops a campaign
    must be proven with so many of them taken as one, what slows it down need not.  1 says that events come singly.
    ``prior_mails``: a campaign borrows from what others show at the same providers, as if it were so many mails of its
    own at most; its upper bounds become narrower, and it is not blamed for blocks that everybody gets there.

    Defaults: hard bounces 2 % (Amazon SES asks senders to stay below it), complaints 0.1 % (Google's and
    Yahoo's guidance), trap hits 0.02 % of accepted mail, blocks 5 % of attempts.
    """

    hard_bounce: Rate = 0.02
    complaint: Rate = 0.001
    trap_hit: Rate = 0.0002
    block: Rate = 0.05
    judging: Judging = "sequential"
    min_volume: Annotated[int, Meta(ge=1)] = 1000
    grave_factor: Annotated[float, Meta(ge=1, le=100)] = 2.0
    burst: Annotated[int, Meta(ge=1, le=1000)] = 6
    prior_mails: Annotated[int, Meta(ge=0, le=1000)] = 0


DomainName = Annotated[str, Meta(min_length=1, max_length=253)]


class AdmissionPolicy(Part, frozen=True, kw_only=True):
    """What becomes of a recipient that a screen has something against.

    ``refuse``: it gets no mail.  ``hold``: its message waits in ``mail.send.held`` until somebody decides.  ``flag``:
    it is sent, and its results say so.  ``off``: the screen is not asked.  ``sunset`` looks at when the recipient was
    last seen, ``age`` at when one that was never seen since has opted in, ``provenance`` asks that a recipient has
    ``source`` and ``opted_in_at``.  Domains of ``deny_domains``, and all below them, get no mail; where
    ``allow_domains`` names any, nobody else does.
    """

    known_trap: Screening = "refuse"
    typo_domain: Screening = "refuse"
    disposable: Screening = "flag"
    role_account: Screening = "refuse"
    recycled: Screening = "hold"
    sunset: Screening = "off"
    sunset_days: Annotated[int, Meta(ge=1, le=36_500)] = 365
    age: Screening = "off"
    age_days: Annotated[int, Meta(ge=1, le=36_500)] = 730
    provenance: Screening = "off"
    allow_domains: Annotated[tuple[DomainName, ...], Meta(max_length=1_000)] = ()
    deny_domains: Annotated[tuple[DomainName, ...], Meta(max_length=1_000)] = ()


class Campaign(Record, frozen=True, kw_only=True, tag_field="v", tag=1):
    """Who sends, from which domains, how fast, and where its limits are.  Topic ``mail.campaigns``."""

    campaign: CampaignId
    from_: Mailbox = msgspec.field(name="from")
    return_path_domain: Annotated[str, Meta(min_length=1, max_length=253)]
    unsubscribe_url: Annotated[str, Meta(min_length=1, max_length=90)] | None = None
    tenant: Annotated[str, Meta(min_length=1, max_length=128)] = "default"
    sending_domains: Annotated[list[str], Meta(max_length=100)] = []
    in_doubt: InDoubt = "hold"
    tls: Tls = "opportunistic"
    max_age_s: Annotated[int, Meta(ge=60, le=30 * 86400)] = 172_800
    pace: Pace = Pace()
    limits: Limits = Limits()
    shadow_limits: Limits | None = None
    pristine_trap: PristineTrap = "isolate"
    admission: AdmissionPolicy = AdmissionPolicy()
    dry_run: bool = False
    labels: dict[str, str] = {}


class Content(Record, frozen=True, kw_only=True, tag_field="v", tag=1):
    """A message template, sent once and not once per recipient.  Topic ``mail.contents``.

    ``{{variable}}`` is the whole template language.
    """

    campaign: CampaignId
    content: Annotated[str, Meta(min_length=1, max_length=128)]
    subject: Annotated[str, Meta(max_length=900)]
    text: Annotated[str, Meta(max_length=500_000)] = ""
    html: Annotated[str, Meta(max_length=500_000)] = ""
    headers: Annotated[dict[str, str], Meta(max_length=50)] = {}


class Recipient(Part, frozen=True, kw_only=True):
    """One message of a request."""

    address: str
    message_id: str | None = None
    vars: dict[str, Var] = {}
    source: str | None = None
    opted_in_at: Millis | None = None
    last_seen_at: Millis | None = None
    released_by: Annotated[str, Meta(min_length=1, max_length=128)] | None = None


class SendRequest(Record, frozen=True, kw_only=True, tag_field="v", tag=1):
    """Ask for one content to be sent to 1 to 500 recipients.  Topic ``mail.send.requests``.

    A recipient without ``message_id`` gets one derived from the request id and the address.
    """

    request_id: Annotated[str, Meta(min_length=1, max_length=200)]
    campaign: str
    content: str
    recipients: list[Recipient]
    not_before: Millis | None = None
    expires_at: Millis | None = None


class Refused(Record, frozen=True, kw_only=True, tag_field="v", tag=1):
    """Why a recipient gets no mail, and what to fix.  Topic ``mail.send.refused``.

    ``message_id`` is null when the whole request was refused before its recipients had ids.
    """

    request_id: str | None
    message_id: str | None
    campaign: str | None
    address_hash: AddressHash | None
    stage: Stage
    reason: str
    explain: str
    at: Millis


class HeldMessage(Record, frozen=True, kw_only=True, tag_field="v", tag=1):
    """A message that waits for somebody's decision.  Topic ``mail.send.held``; a tombstone says that it was made.

    ``request`` asks for this one message again: releasing it means to publish that, with ``released_by`` in its
    recipient.
    """

    campaign: CampaignId
    message_id: MessageId
    address_hash: AddressHash
    reason: str
    explain: str
    at: Millis
    request: SendRequest


class OutboundMessage(Part, frozen=True, kw_only=True):
    """One message that is ready to be rendered and sent."""

    message_id: MessageId
    address: str
    address_hash: AddressHash
    vars: dict[str, Var] = {}
    source: str | None = None
    flags: tuple[str, ...] = ()
    last_seen_at: Millis | None = None


class OutboundFrame(Record, frozen=True, kw_only=True, tag_field="v", tag=1):
    """The admitted messages of one request that share a partition.  Topic ``mail.outbound.<campaign>``.

    A message id always falls into the same partition, so that whoever owns the partition knows whether it
    was sent before.
    """

    campaign: CampaignId
    request_id: str
    content: str
    admitted_at: Millis
    messages: list[OutboundMessage]
    not_before: Millis | None = None
    expires_at: Millis | None = None
