"""What ``sender.py`` feeds to each side: the same template, key and recipients, in the records of each."""

import json
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from benchmarks._feeding import Item
from policy.naming import outbound_topic
from policy.routing import partition_of
from schemas.codec import encode
from schemas.reputation import Control
from schemas.sending import Campaign, Content, Mailbox, OutboundFrame, OutboundMessage, Pace

CAMPAIGN = "bench"
DOMAIN, SELECTOR = "shop.example", "bench"
SUBJECT = "{{name}}, spring is here"
LIST_ID = "<news.shop.example>"
_SENTENCE = "Everything for the garden is 20 % off until Sunday, in all shops.\n"
SIZES = {"1kb": 1_200, "10kb": 10_000, "100kb": 100_000}  # octets of a message before it is signed, about
_HEADER = 450
_REQUEST = 500
_DOMAINS = 16  # no real ones, and nobody looks them up: all mail is routed to the sink


class Load:
    """Makes messages, and remembers their ids."""

    def __init__(self, *, partitions: int, now: int) -> None:
        self._partitions = partitions
        self._now = now
        self._made = 0
        self.ids: set[str] = set()
        self.plain_ids: set[str] = set()

    def frames(self, count: int, *, size: str, domain: str = "") -> list[Item]:
        """``count`` messages in frames as validate and route make them: a request of 500, by partition."""
        items: list[Item] = []
        for start in range(0, count, _REQUEST):
            by_partition: dict[int, list[OutboundMessage]] = {}
            for _ in range(min(_REQUEST, count - start)):
                message_id, address, name = self._recipient(domain)
                self.ids.add(message_id)
                message = OutboundMessage(
                    message_id=message_id, address=address, address_hash="ab" * 32, vars={"name": name}
                )
                by_partition.setdefault(partition_of(message_id, self._partitions), []).append(message)
            items += [self._frame(partition, messages, size) for partition, messages in by_partition.items()]
        return items

    def messages(self, count: int, *, size: str, topic: str) -> list[Item]:
        """``count`` messages, each a record of its own."""
        items = []
        for _ in range(count):
            message_id, address, name = self._recipient()
            self.plain_ids.add(message_id)
            value = {
                "campaign": CAMPAIGN,
                "content": size,
                "message_id": message_id,
                "address": address,
                "vars": {"name": name},
            }
            items.append(Item(topic, message_id.encode(), json.dumps(value).encode()))
        return items

    def _frame(self, partition: int, messages: list[OutboundMessage], size: str) -> Item:
        frame = OutboundFrame(
            campaign=CAMPAIGN,
            request_id=f"r-{self._made}",
            content=size,
            admitted_at=self._now,
            messages=messages,
        )
        return Item(outbound_topic(CAMPAIGN), None, encode(frame), partition, events=len(messages))

    def _recipient(self, domain: str = "") -> tuple[str, str, str]:
        self._made += 1
        number = self._made
        domain = domain or f"d{number % _DOMAINS}.example"
        return f"m-{number}", f"ann.smith{number}@{domain}", f"Ann{number % 100}"


def text(size: str) -> str:
    """A text that makes the message about as large as its size says."""
    return "Dear {{name}},\n\n" + _SENTENCE * ((SIZES[size] - _HEADER) // len(_SENTENCE)) + "\nThe Shop\n"


def campaign_record() -> Campaign:
    """The record that makes the campaign known."""
    return Campaign(
        campaign=CAMPAIGN,
        from_=Mailbox(address=f"news@{DOMAIN}", name="The Shop"),
        return_path_domain=f"bounces.{DOMAIN}",
        sending_domains=[DOMAIN],
    )


def content_record(size: str) -> Content:
    """A template, named by its size: text alone, so that both sides build the same message."""
    return Content(campaign=CAMPAIGN, content=size, subject=SUBJECT, text=text(size), headers={"List-Id": LIST_ID})


def control_record(*, connections: int, now: int) -> Control:
    """Leave to send."""
    return Control(
        campaign=CAMPAIGN,
        epoch=1,
        may_send=True,
        pace=Pace(connections=connections),
        state="healthy",
        reason="a benchmark",
        at=now,
    )


def make_key(folder: Path) -> Path:
    """An RSA key of 2048 bits where the sender looks for it, in a form that dkimpy can read, too."""
    file = folder / DOMAIN / f"{SELECTOR}.pem"
    file.parent.mkdir(parents=True, exist_ok=True)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = serialization.PrivateFormat.TraditionalOpenSSL
    file.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    file.chmod(0o600)
    return file
