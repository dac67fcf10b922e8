"""What ``latency.py`` publishes: campaigns, requests, trap hits, and other campaigns' results in frames."""

import random
from collections.abc import Iterator

import msgspec

from benchmarks._results import accepted
from schemas.delivery import DeliveryFrame, DeliveryResult, OffsetRange, Position
from schemas.feedback import Feedback, Trap
from schemas.sending import Campaign, Content, Mailbox, Pace, Recipient, SendRequest

CONTENT = "hello-1"
HANG_DOMAIN = "hangs.example"
_PROVIDERS = ("google", "microsoft", "yahoo", "apple", "gmx", "other")
_DEFERRED, _UNKNOWN = 0.02, 0.004  # shares of the background's results; a fifth of the limit for unknown users


def return_path(campaign: str) -> str:
    """The domain of a campaign's return path, by which the mail server's log tells campaigns apart."""
    return f"{campaign}.bounces.example"


def campaign_record(name: str, *, per_second: float = 0.0) -> Campaign:
    """A campaign with the limits that everybody has, which shares neither tenant nor domain with another."""
    domain = f"{name}.example"
    return Campaign(
        campaign=name,
        tenant=name,
        from_=Mailbox(address=f"news@{domain}", name="The Shop"),
        sending_domains=[domain],
        return_path_domain=return_path(name),
        pace=Pace(per_second=per_second),
    )


def content_record(campaign: str) -> Content:
    """A short text."""
    return Content(
        campaign=campaign,
        content=CONTENT,
        subject="{{name}}, spring is here",
        text="Dear {{name}},\n\neverything for the garden is 20 % off until Sunday.\n\nThe Shop\n",
    )


def request(campaign: str, names: list[str], *, request_id: str, domain: str = "inbox.example") -> SendRequest:
    """Mail for these recipients; a name is the message id and the local part of the address."""
    recipients = [Recipient(message_id=name, address=f"{name}@{domain}", vars={"name": "Ann"}) for name in names]
    return SendRequest(request_id=request_id, campaign=campaign, content=CONTENT, recipients=recipients)


def trap_hit(campaign: str, message_id: str, *, at: int) -> Feedback:
    """A pristine trap of ours received a message, as the return path tells it."""
    return Feedback(
        kind="trap_hit",
        campaign=campaign,
        message_id=message_id,
        sent_at=at,
        at=at,
        provider="other",
        trap=Trap(kind="pristine", strength=1.0),
        source="return_path",
    )


class OthersResults:
    """Frames of results of healthy campaigns, as their senders publish them: one campaign after the other."""

    def __init__(self, campaigns: list[str], *, frame: int, seed: int) -> None:
        self._campaigns = campaigns
        self._frame = frame
        self._chance = random.Random(seed)
        self._hashes = [f"{self._chance.getrandbits(256):064x}" for _ in range(997)]
        self._number = 0

    def frames(self) -> Iterator[DeliveryFrame]:
        """Without end; each is made when it is asked for, so that its times can be set then."""
        while True:
            for campaign in self._campaigns:
                yield self._one(campaign)

    def _one(self, campaign: str) -> DeliveryFrame:
        number = self._number
        self._number += 1
        return DeliveryFrame(
            campaign=campaign,
            sender=f"{campaign}-0",
            covers=[OffsetRange(topic=f"mail.outbound.{campaign}", partition=0, from_=number, to=number)],
            results=[self._result(number * self._frame + within) for within in range(self._frame)],
            ledger=Position(topic=f"mail.ledger.{campaign}", partition=0, offset=number),
        )

    def _result(self, number: int) -> DeliveryResult:
        drawn = self._chance.random()
        address_hash = self._hashes[number % len(self._hashes)][:48] + f"{number:016x}"
        told = msgspec.structs.replace(
            accepted(f"{number:016x}", at=0),
            provider=_PROVIDERS[number % len(_PROVIDERS)],
            domain="inbox.example",
            address_hash=address_hash,
        )
        if drawn < _UNKNOWN:
            return msgspec.structs.replace(
                told, outcome="bounced", code=550, enhanced="5.1.1", class_="invalid_recipient", text="5.1.1 No mailbox"
            )
        if drawn < _UNKNOWN + _DEFERRED:
            return msgspec.structs.replace(
                told, outcome="deferred", code=451, enhanced="4.7.1", class_="greylisted", text="4.7.1 Try again later"
            )
        return told


def at_time(frame: DeliveryFrame, at: int) -> DeliveryFrame:
    """The same frame, whose results are of this time (ms)."""
    return msgspec.structs.replace(frame, results=[msgspec.structs.replace(one, at=at) for one in frame.results])
