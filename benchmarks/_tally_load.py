"""What ``tally.py`` feeds: the same frames to all, or their results one by one, and the account of them.

Frames are as senders write them: 500 results of one campaign, in the order of time, with what is told of each.  A turn
makes one frame for each campaign and repeats their results, each time under a new ledger position: making millions of
results would take longer than counting them.
"""

import hashlib
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import msgspec

from benchmarks._feeding import Item
from benchmarks._workload import ADDRESSES
from policy.replies import shipped
from schemas.codec import encode
from schemas.delivery import DeliveryFrame, DeliveryResult, OffsetRange, Outcome, Position

MINUTE_MS = 60_000
COLUMNS = ("accepted", "hard_bounce", "soft_bounce", "block", "deferral", "attempts")
ACCEPTED, HARD, SOFT, BLOCK, DEFERRAL, ATTEMPTS = range(len(COLUMNS))
_OF_CATEGORY = {"hard_bounce": HARD, "soft": SOFT, "block": BLOCK}
_PROVIDERS = [*["google"] * 8, *["microsoft"] * 4, *["yahoo"] * 3, *["gmx"] * 2, "apple", *["other"] * 2]
_DOMAINS = {"google": "gmail.com", "microsoft": "outlook.com", "yahoo": "yahoo.com", "gmx": "gmx.de"}
_DOMAINS |= {"apple": "icloud.com", "other": "example-company.co.uk"}

# Up to which share of results a server says what.
_SAID: tuple[tuple[float, tuple[Outcome, str | None, int | None, str | None, str | None]], ...] = (
    (0.9930, ("accepted", None, 250, "2.0.0", "2.0.0 OK  1764000000 a640c23a62f3a-b7654321")),
    (0.9979, ("deferred", "transient", 451, "4.3.0", "4.3.0 Try again later")),
    (0.9980, ("deferred", "reputation_ip", 421, "4.7.0", "4.7.0 Too much unsolicited mail from your address")),
    (0.9998, ("bounced", "invalid_recipient", 550, "5.1.1", "5.1.1 The email account does not exist.")),
    (0.9999, ("bounced", "mailbox_full", 552, "5.2.2", "5.2.2 The mailbox is full")),
    (1.0, ("expired", None, None, None, "tried for 24 hours")),
)

Place = tuple[str, int, str]  # campaign, minute, "provider|ip"
Account = dict[Place, list[int]]

_encode = msgspec.json.encode
_positions = itertools.count(1)  # in ledgers; none comes twice


def columns() -> dict[str, int]:
    """The column that a bounce of each category moves, from the same table as ours."""
    return {name: _OF_CATEGORY[category.counts] for name, category in shipped().categories.items()}


class Load:
    """Makes records for one topic, and remembers what they add up to."""

    def __init__(
        self,
        topic: str,
        ids: Sequence[str],
        *,
        size: int,
        seed: int,
        one_by_one: bool = False,
        leaves_behind: bool = False,
        counts: Account | None = None,
    ) -> None:
        self.counts: Account = {} if counts is None else counts
        self.bytes = 0
        self._topic = topic
        self._ids = ids
        self._size = size
        self._chance = random.Random(seed)
        self._one_by_one = one_by_one
        self._leaves_behind = leaves_behind  # bounces name the address, and with it leave a suppression
        self._columns = columns()
        self._batches = 0

    def make(self, events: int) -> list[Item]:
        """Records with about so many events, at least one frame for each campaign."""
        self._batches += 1
        now = time.time_ns() // 1_000_000
        whole = [self._made(place, now) for place in range(len(self._ids))]
        times = max(1, round(events / (self._size * len(self._ids))))
        for frame in whole:
            self._book(frame, times)
        items = [*itertools.chain.from_iterable(map(self._record(), whole * times))]
        self.bytes = len(items[-1].value)
        return items

    def _made(self, place: int, now: int) -> DeliveryFrame:
        campaign = self._ids[place]
        results = [self._result(f"f{self._batches}-{place}-{at}", now, place) for at in range(self._size)]
        covers = [OffsetRange(topic=f"mail.outbound.{campaign}", partition=0, from_=self._batches, to=self._batches)]
        results.sort(key=lambda one: one.at)
        return DeliveryFrame(campaign=campaign, sender=f"{campaign}-0", covers=covers, results=results)

    def _result(self, message_id: str, now: int, place: int) -> DeliveryResult:
        """What a server said to a message of a campaign that is well."""
        dice, provider = self._chance.random(), self._chance.choice(_PROVIDERS)
        outcome, category, code, enhanced, text = next(said for share, said in _SAID if dice < share)
        hashed = hashlib.sha256(message_id.encode()).hexdigest()
        return DeliveryResult(
            message_id=message_id,
            outcome=outcome,
            at=now - self._chance.randrange(5_000),
            provider=provider,
            ip=f"192.0.2.{place % ADDRESSES + 1}",
            mx=f"mx1.{provider}.example",
            code=code,
            enhanced=enhanced,
            text=text,
            class_=category,
            tls="TLSv1.3",
            took_ms=41,
            address_hash=hashed if self._leaves_behind or outcome == "accepted" else None,
            domain=_DOMAINS[provider],
        )

    def _record(self) -> Callable[[DeliveryFrame], Iterator[Item]]:
        return self._singles if self._one_by_one else self._frame

    def _frame(self, frame: DeliveryFrame) -> Iterator[Item]:
        at = Position(topic=f"mail.ledger.{frame.campaign}", partition=0, offset=next(_positions))
        value = encode(msgspec.structs.replace(frame, ledger=at))
        yield Item(self._topic, frame.campaign.encode(), value, events=self._size)

    def _singles(self, frame: DeliveryFrame) -> Iterator[Item]:
        key = frame.campaign.encode()
        for result in frame.results:
            yield Item(self._topic, key, _encode(result))

    def _book(self, frame: DeliveryFrame, times: int) -> None:
        """Add a frame to the account, by code of its own: a mistake of ours must not be in both."""
        seen = Counter(
            (one.at // MINUTE_MS, f"{one.provider}|{one.ip}", one.outcome, one.class_) for one in frame.results
        )
        for (minute, cell, outcome, category), number in seen.items():
            counts = self.counts.setdefault((frame.campaign, minute, cell), [0] * len(COLUMNS))
            for column in self._moves(outcome, category):
                counts[column] += number * times

    def _moves(self, outcome: str, category: str | None) -> list[int]:
        match outcome:
            case "accepted":
                return [ACCEPTED, ATTEMPTS]
            case "bounced":
                return [self._columns.get(category or "", SOFT), ATTEMPTS]
            case "deferred":
                blocks = self._columns.get(category or "") == BLOCK
                return [DEFERRAL, ATTEMPTS, *([BLOCK] if blocks else [])]
            case "expired":
                return [SOFT]
        return []
