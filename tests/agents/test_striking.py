"""From strikes in the topic to a suppression, whoever leads and however often."""

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import pytest

from agents.striking import GRACE_MS, Striking
from agents.suppressing import key_of
from policy.strikes import is_strike
from policy.trap_signals import DAY_MS
from schemas.base import Record
from schemas.codec import encode
from schemas.feedback import Suppression
from schemas.sending import Campaign
from schemas.topics import SUPPRESSIONS
from streams.catalogue import Catalogue
from tests.agents.doubles import campaign

ANN = "ab" * 32
NOW = 1_764_000_000_000


@dataclass
class Topic:
    """A compacted topic, and what a worker's copy of it knows."""

    held: dict[str, Suppression] = field(default_factory=dict)
    written: list[str] = field(default_factory=list)

    async def publish(self, topic: str, record: Record, *, key: str) -> None:
        assert topic == SUPPRESSIONS
        assert isinstance(record, Suppression)
        self.held[key] = record
        self.written.append(key)

    async def remove(self, topic: str, key: str) -> None:
        assert topic == SUPPRESSIONS
        del self.held[key]

    def strike(self, *names: str, category: str = "mailbox_full", at: int = NOW) -> None:
        for name in names:
            one = Suppression(
                address_hash=ANN,
                scope=f"strike:{category}:{name}",
                reason=category,
                since=at,
                until=at + 30 * DAY_MS,
            )
            self.held[key_of(one)] = one

    def copied(self, *, only: str | None = None) -> Catalogue:
        copy = Catalogue("nowhere:9092", (SUPPRESSIONS,), client_id="test", campaign=only)
        for name in "abcd":
            copy.campaigns[name] = _campaign(name)
        for key, one in self.held.items():
            assert copy._apply[SUPPRESSIONS](key, encode(one)) in (True, False)
        return copy

    async def act(self, now: int = NOW, *, leads: bool = True) -> list[str]:
        """Let a worker that has just started look at it; answers what it wrote."""
        self.written.clear()
        await Striking(self.copied(), self, days=90).act(now, leads=leads)
        return list(self.written)

    @property
    def suppressed(self) -> list[Suppression]:
        return [one for one in self.held.values() if not is_strike(one.scope)]


def _campaign(name: str) -> Campaign:
    return msgspec.structs.replace(campaign(), campaign=name)


async def test_the_third_campaign_suppresses_for_a_time_and_only_once() -> None:
    topic = Topic()
    topic.strike("a", "b")
    topic.strike("c", category="expired")
    assert await topic.act() == []

    topic.strike("c", at=NOW + 5)
    assert await topic.act(leads=False) == []
    assert await topic.act() == [f"{ANN}|platform"]
    assert topic.suppressed == [
        Suppression(
            address_hash=ANN, scope="platform", reason="mailbox_full", since=NOW + 5, until=NOW + 5 + 90 * DAY_MS
        )
    ]
    assert await topic.act() == []


async def test_it_is_published_until_it_is_in_the_topic() -> None:
    topic = Topic()
    topic.strike("a", "b", "c")
    copy, lost = topic.copied(), Topic()
    striking = Striking(copy, lost, days=90)
    await striking.act(NOW, leads=True)
    await striking.act(NOW, leads=True)

    assert lost.written == [f"{ANN}|platform"] * 2
    [one] = lost.suppressed
    copy.suppressions.add(ANN, "platform", reason=one.reason, since=one.since, until=one.until)
    await striking.act(NOW, leads=True)
    assert (len(lost.written), copy.strikes.due(9)) == (2, [])


def _over(scope: str = "platform", reason: str = "mailbox_full", until: int | None = NOW) -> Callable[[Topic], None]:
    one = Suppression(address_hash=ANN, scope=scope, reason=reason, since=NOW - DAY_MS, until=until)
    return lambda topic: topic.held.update({key_of(one): one})


@pytest.mark.parametrize(
    "before",
    [
        pytest.param(_over(), id="lifted by an operator since"),
        pytest.param(_over(until=None), id="suppressed for good"),
        pytest.param(_over(reason="invalid_recipient", until=NOW + DAY_MS), id="suppressed for longer"),
    ],
)
async def test_strikes_of_before_a_suppression_was_over_do_not_bring_it_back(before: Callable[[Topic], None]) -> None:
    topic = Topic()
    topic.strike("a", "b", "c")
    before(topic)

    assert await topic.act() == []


async def test_new_strikes_after_the_end_count_anew() -> None:
    topic = Topic()
    _over()(topic)
    topic.strike("a", "b", at=NOW + 1)
    assert await topic.act() == []
    topic.strike("c", at=NOW + 2)
    assert await topic.act() == [f"{ANN}|platform"]


async def test_strikes_that_are_over_leave_the_topic() -> None:
    topic = Topic()
    topic.strike("a", "b")
    ends = NOW + 30 * DAY_MS + GRACE_MS
    await topic.act(ends - 1)
    assert len(topic.held) == 2
    await topic.act(ends)
    assert topic.held == {}


def test_strikes_suppress_nobody_and_senders_do_not_keep_them() -> None:
    topic = Topic()
    topic.strike("a", "b", "c")
    worker, sender = topic.copied(), topic.copied(only="a")

    assert (len(worker.strikes), len(sender.strikes)) == (1, 0)
    for copy in (worker, sender):
        assert (len(copy.suppressions), copy.suppressed(ANN, "a")) == (0, None)
        assert not copy.heard_of(ANN)
