"""What ``streams.py`` feeds to each side, and the account of it by which the outcome is checked."""

import random
from collections import defaultdict
from collections.abc import Sequence

import msgspec

from benchmarks import _plain_tally, _plain_validate
from benchmarks._feeding import Item
from benchmarks._workload import frames, requests
from schemas.codec import encode
from schemas.delivery import DeliveryResult
from schemas.sending import Recipient, SendRequest
from schemas.topics import REQUESTS, RESULTS

_encode = msgspec.json.encode


class Load:
    """Makes records for all campaigns in turn, and remembers what is in them."""

    def __init__(self, chance: random.Random, ids: Sequence[str], size: int) -> None:
        self.ids = list(ids)
        self._chance = chance
        self.size = size
        self._batches = 0
        self._frames = 0
        self.requested: set[str] = set()  # message ids, and those of them whose address is none
        self.bad: set[str] = set()
        self.plain_requested: set[str] = set()
        self.plain_bad: set[str] = set()
        self.outcomes: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])  # as in _plain_tally
        self.plain_results_of: defaultdict[str, list[str]] = defaultdict(list)  # outcomes in order, by campaign
        self.request_bytes = 0
        self.frame_bytes = 0

    def requests(self, count: int) -> list[Item]:
        """Send requests for ours."""
        items = []
        for request in requests(self._chance, self.ids, count=count, size=self.size, mark=self._mark()):
            _account(request.recipients, self.requested, self.bad)
            items.append(Item(REQUESTS, request.request_id.encode(), encode(request), events=self.size))
        self.request_bytes = len(items[-1].value)
        return items

    def plain_requests(self, count: int) -> list[Item]:
        """One record per recipient, in the order in which ours come: so many for one campaign, then for the next."""
        return self._one_by_one(count, self.size)

    def plain_requests_to_all(self, count: int) -> list[Item]:
        """One record per recipient, one for each campaign in turn."""
        return self._one_by_one(count, 1)

    def _one_by_one(self, count: int, size: int) -> list[Item]:
        items: list[Item] = []
        for request in requests(self._chance, self.ids, count=-(-count // size), size=size, mark=self._mark()):
            chosen = request.recipients[: count - len(items)]
            _account(chosen, self.plain_requested, self.plain_bad)
            items += [_plain_request(request, one) for one in chosen]
        return items

    def frames(self, count: int) -> list[Item]:
        """Delivery frames for ours."""
        items = []
        for frame in frames(self._chance, self.ids, count=count, size=self.size, mark=self._mark(), first=self._frames):
            for result in frame.results:
                self.outcomes[frame.campaign][_plain_tally.column(result.outcome)] += 1
            items.append(Item(RESULTS, frame.campaign.encode(), encode(frame), events=self.size))
        self._frames += count
        self.frame_bytes = len(items[-1].value)
        return items

    def plain_results(self, count: int) -> list[Item]:
        """One record per result, over all campaigns in turn."""
        items: list[Item] = []
        of_each = -(-count // len(self.ids))
        made = frames(self._chance, self.ids, count=len(self.ids), size=of_each, mark=self._mark(), first=0)
        shuffled = zip(*([(frame.campaign, one) for one in frame.results] for frame in made), strict=True)
        for campaign, result in [pair for across in shuffled for pair in across][:count]:
            self.plain_results_of[campaign].append(result.outcome)
            items.append(_plain_result(campaign, result))
        return items

    def _mark(self) -> str:
        self._batches += 1
        return f"b{self._batches}"


def _account(recipients: Sequence[Recipient], asked: set[str], bad: set[str]) -> None:
    for one in recipients:
        assert one.message_id is not None, "we gave it one"
        asked.add(one.message_id)
        if "@" not in one.address:
            bad.add(one.message_id)


def _plain_request(request: SendRequest, one: Recipient) -> Item:
    value = {
        "request_id": request.request_id,
        "message_id": one.message_id,
        "campaign": request.campaign,
        "content": request.content,
        "address": one.address,
        "vars": one.vars,
        "source": one.source,
        "opted_in_at": one.opted_in_at,
    }
    return Item(_plain_validate.REQUESTS, str(one.message_id).encode(), _encode(value))


def _plain_result(campaign: str, result: DeliveryResult) -> Item:
    value = {
        "campaign": campaign,
        "message_id": result.message_id,
        "outcome": result.outcome,
        "at": result.at / 1000,
        "attempt": result.attempt,
        "provider": result.provider,
        "ip": result.ip,
        "mx": result.mx,
        "code": result.code,
        "enhanced": result.enhanced,
        "text": result.text,
        "tls": result.tls,
        "took_ms": result.took_ms,
        "category": result.class_,
    }
    return Item(_plain_tally.RESULTS, campaign.encode(), _encode(value))
