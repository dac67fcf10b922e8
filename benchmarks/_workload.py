"""What is fed: send requests and delivery results as they come in real life.

Both sides get the same kind of recipients and results, drawn from the same seed; the plain side gets fewer of them.
"""

import random
import time
from collections.abc import Iterator, Sequence

import msgspec

from schemas.delivery import DeliveryFrame, DeliveryResult, OffsetRange, Outcome, Position
from schemas.sending import Campaign, Content, Limits, Mailbox, Recipient, SendRequest

CONTENT = "hello-1"
BAD_CAMPAIGN_EVERY = 20
ADDRESSES = 16  # that all campaigns send from
_BOUNCES_OF_GOOD, _BOUNCES_OF_BAD = 0.002, 0.1

# Shares as in a consumer list.  Nothing is ever sent to these names: no sender runs.
_DOMAINS = [
    *["gmail.com"] * 38,
    *["yahoo.com"] * 14,
    *["outlook.com"] * 9,
    *["hotmail.com"] * 9,
    *["icloud.com"] * 6,
    *["gmx.de"] * 4,
    *["web.de"] * 4,
    *["orange.fr"] * 3,
    *["example-company.co.uk"] * 7,
    *["studio-nord.dk"] * 6,
]
_PROVIDERS = [*["google"] * 8, *["microsoft"] * 4, *["yahoo"] * 3, *["gmx"] * 2, "apple", *["other"] * 2]
_FIRST = ("ann", "bob", "carla", "dmitri", "eve", "farid", "grace", "hugo", "ines", "jo", "kim", "lena", "mo", "nils")
_LAST = ("smith", "garcia", "muller", "rossi", "kowalski", "jensen", "dubois", "silva", "novak", "tanaka", "okafor")


def campaigns(count: int) -> list[str]:
    """Campaign ids."""
    return [f"bench-{number:03}" for number in range(count)]


def is_bad(number: int) -> bool:
    """Does this campaign (by its place in the list) bounce far too much?"""
    return number % BAD_CAMPAIGN_EVERY == 7


def campaign_record(campaign: str) -> Campaign:
    """The record that makes a campaign known."""
    return Campaign(
        campaign=campaign,
        from_=Mailbox(address="news@shop.example", name="The Shop"),
        return_path_domain="bounces.shop.example",
        sending_domains=["shop.example"],
        limits=Limits(),
    )


def content_record(campaign: str) -> Content:
    """Its message template."""
    return Content(
        campaign=campaign,
        content=CONTENT,
        subject="Hello {{name}}",
        text="Dear {{name}},\n\nspring is here.\n",
        html="<p>Dear {{name}},</p><p>spring is here.</p>",
        headers={"List-Id": "<news.shop.example>"},
    )


def requests(chance: random.Random, ids: Sequence[str], *, count: int, size: int, mark: str) -> Iterator[SendRequest]:
    """``count`` requests of ``size`` recipients over all campaigns in turn; one recipient of each has no address."""
    for number in range(count):
        prefix = f"{mark}-{number}"
        recipients = [_recipient(chance, f"{prefix}-{place}") for place in range(size)]
        if size > 1:
            wrong = chance.randrange(size)
            recipients[wrong] = msgspec.structs.replace(recipients[wrong], address="nobody.example.com")
        yield SendRequest(request_id=prefix, campaign=ids[number % len(ids)], content=CONTENT, recipients=recipients)


def _recipient(chance: random.Random, message_id: str) -> Recipient:
    first, last = chance.choice(_FIRST), chance.choice(_LAST)
    local = f"{first}.{last}{chance.randrange(100)}"
    if chance.random() < 0.03:
        local += "+news"
    if chance.random() < 0.05:
        local = local.title()
    return Recipient(
        address=f"{local}@{chance.choice(_DOMAINS)}",
        message_id=message_id,
        vars={"name": first.title(), "town": "Odense"},
        source="newsletter-form",
        opted_in_at=1_764_000_000_000,
    )


def frames(
    chance: random.Random, ids: Sequence[str], *, count: int, size: int, mark: str, first: int
) -> Iterator[DeliveryFrame]:
    """``count`` frames of ``size`` results over all campaigns in turn, as senders publish them now.

    ``first`` is the ledger offset of the first frame: a ledger position is counted once.
    """
    now = time.time_ns() // 1_000_000
    for number in range(count):
        place = number % len(ids)
        results = [
            _result(chance, f"{mark}-{number}-{at}", is_bad(place), now - chance.randrange(5_000), place)
            for at in range(size)
        ]
        results.sort(key=lambda one: one.at)
        outbound, ledger = f"mail.outbound.{ids[place]}", f"mail.ledger.{ids[place]}"
        yield DeliveryFrame(
            campaign=ids[place],
            sender=f"{ids[place]}-0",
            covers=[OffsetRange(topic=outbound, partition=0, from_=first + number, to=first + number)],
            results=results,
            ledger=Position(topic=ledger, partition=0, offset=first + number),
        )


def _result(chance: random.Random, message_id: str, bad: bool, at: int, campaign: int) -> DeliveryResult:
    dice = chance.random()
    outcome: Outcome = "accepted"
    code, enhanced, text, category = 250, "2.0.0", "2.0.0 OK  1764000000 a640c23a62f3a-b7654321", None
    if dice < (_BOUNCES_OF_BAD if bad else _BOUNCES_OF_GOOD):
        outcome, category = "bounced", "invalid_recipient"
        code, enhanced, text = 550, "5.1.1", "5.1.1 The email account that you tried to reach does not exist."
    elif dice > 0.995:
        outcome, category = "deferred", "transient"
        code, enhanced, text = 451, "4.3.0", "4.3.0 Try again later"
    provider = chance.choice(_PROVIDERS)
    return DeliveryResult(
        message_id=message_id,
        outcome=outcome,
        at=at,
        attempt=1,
        provider=provider,
        ip=f"192.0.2.{campaign % ADDRESSES + 1}",
        mx=f"mx1.{provider}.example",
        code=code,
        enhanced=enhanced,
        text=text,
        class_=category,
        tls="TLSv1.3",
        took_ms=41,
    )
