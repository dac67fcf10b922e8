"""What ``kill_sender.py`` asks for: requests of 500 recipients, numbered, some of them asked for twice."""

import random
from collections.abc import Iterator

from benchmarks._feeding import Item
from schemas.codec import encode
from schemas.sending import Campaign, Content, InDoubt, Mailbox, Pace, Recipient, SendRequest
from schemas.topics import REQUESTS

CAMPAIGN = "kill"
CONTENT = "hello-1"
DOMAIN = "shop.example"
REQUEST = 500
_DOMAINS = 16
_TWICE = 0.02  # of the requests are published a second time, later


def message_id(number: int) -> str:
    """The id of a message, which is also the local part of its address."""
    return f"m-{number}"


def number_of(message: str) -> int:
    """Back from the id."""
    return int(message.removeprefix("m-"))


def campaign_record(in_doubt: InDoubt, connections: int, *, name: str = CAMPAIGN) -> Campaign:
    """The campaign; a dry run of the limits, since nothing here is about them."""
    return Campaign(
        campaign=name,
        from_=Mailbox(address=f"news@{DOMAIN}", name="The Shop"),
        return_path_domain=f"bounces.{DOMAIN}",
        sending_domains=[DOMAIN],
        in_doubt=in_doubt,
        pace=Pace(connections=connections),
        dry_run=True,
    )


def content_record(name: str = CAMPAIGN) -> Content:
    """A short text."""
    return Content(campaign=name, content=CONTENT, subject="{{name}}, spring is here", text="Dear {{name}},\n\nhello")


def requests(messages: int, chance: random.Random) -> Iterator[Item]:
    """Requests for so many messages, in order; some come twice."""
    again: list[Item] = []
    for start in range(0, messages, REQUEST):
        item = _request(start, min(start + REQUEST, messages))
        yield item
        if chance.random() < _TWICE:
            again.append(item)
        if again and chance.random() < 0.1:
            yield again.pop()
    yield from again


def _request(start: int, end: int) -> Item:
    recipients = [
        Recipient(
            message_id=message_id(number),
            address=f"{message_id(number)}@d{number % _DOMAINS}.example",
            vars={"name": f"Ann{number % 100}"},
        )
        for number in range(start, end)
    ]
    request = SendRequest(request_id=f"r-{start}", campaign=CAMPAIGN, content=CONTENT, recipients=recipients)
    return Item(REQUESTS, request.request_id.encode(), encode(request), events=end - start)
