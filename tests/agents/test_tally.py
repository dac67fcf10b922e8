import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents import tally as module
from agents.history import History
from agents.live import SOURCES_KEPT
from agents.ports import now_ms
from agents.snapshots import EVERY_MS
from agents.tally import Tally
from policy.tokens import Keys
from policy.traps import TrapFact, domain_hash
from schemas.codec import encode
from schemas.delivery import DeliveryFrame, DeliveryResult, Position
from schemas.feedback import Feedback, FeedbackEvent, FeedbackFrame, Suppression, Trap
from schemas.reputation import Counts, RatesSnapshot
from schemas.topics import DEAD_LETTERS, FEEDBACK, RATES, RESULTS, SUPPRESSIONS
from streams.home import FORWARDED, home
from streams.metrics import Metrics
from streams.suppressed import Suppressed
from tests.agents.doubles import Arrived, Knowledge, Outbox, Panes, campaign

PARTITIONS = 4
HOME = home("spring", PARTITIONS)
MINUTE = 60_000
DAY = 1440 * MINUTE
HASH = "ab" * 32
KEYS = Keys(address=b"a" * 32, return_path=b"r" * 32)


class Bench:
    """A tally, and the numbers of the records that it gets."""

    def __init__(self, panes: Panes | None = None, *, dead_days: int = 0) -> None:
        self.out = Outbox()
        self.panes = panes or Panes()
        self.known = Knowledge()
        self.known.learn(campaign())
        self.suppressed = Suppressed()
        self.traps: dict[str, TrapFact] = {}
        self.tally = Tally(
            table=self.panes,
            known=self.known,
            history=History(self.suppressed, keys=KEYS, trap=self.traps.get),
            outlet=self.out,
            metrics=Metrics(),
            partitions=PARTITIONS,
            dead_days=dead_days,
        )

    async def results(self, frame: DeliveryFrame, offset: int, partition: int = HOME) -> None:
        """Count a frame, and let its snapshot's second pass."""
        await self.told(frame, offset, partition)
        await self.tally.snapshots.late(now_ms() + EVERY_MS)

    async def told(self, frame: DeliveryFrame, offset: int, partition: int = HOME) -> None:
        """Count a frame."""
        await self.tally.results(Arrived(encode(frame), topic=RESULTS, partition=partition, offset=offset))

    async def feedback(self, record: Feedback | FeedbackFrame, offset: int, partition: int = HOME, **more: Any) -> None:
        await self.tally.feedback(Arrived(encode(record), topic=FEEDBACK, partition=partition, offset=offset, **more))

    @property
    def newest(self) -> RatesSnapshot:
        snapshot: RatesSnapshot = [one for one in self.out.to(RATES) if one.scope == "campaign:spring"][-1]
        return snapshot


def result(number: int, at: int, outcome: str = "accepted", **fields: Any) -> DeliveryResult:
    return DeliveryResult(message_id=f"m-{number}", outcome=outcome, at=at, provider="google", **fields)  # type: ignore[arg-type]


def frame(*results: DeliveryResult, ledger: int | None = None, name: str = "spring") -> DeliveryFrame:
    position = None if ledger is None else Position(topic="mail.ledger.spring", partition=0, offset=ledger)
    return DeliveryFrame(campaign=name, sender="s-0", covers=[], results=list(results), ledger=position)


def signal(number: int, kind: str, at: int, **fields: Any) -> Feedback:
    return Feedback(kind=kind, campaign="spring", at=at, message_id=f"m-{number}", **fields)  # type: ignore[arg-type]


async def test_a_frame_is_counted_once_and_told_again() -> None:
    bench, now = Bench(), now_ms()
    sent = frame(*(result(number, now) for number in range(10)), ledger=5)

    await bench.results(sent, offset=0)
    await bench.results(sent, offset=0)  # read again after a rebalance
    await bench.results(sent, offset=1)  # published again by the sender

    assert bench.newest.windows["5m"].accepted == 10
    assert len(bench.out.to(RATES)) == 3
    assert bench.panes.writes == 1


async def test_a_campaign_that_is_well_is_told_of_once_a_second() -> None:
    bench, now = Bench(), now_ms()

    for offset in range(5):
        await bench.told(frame(*(result(100 * offset + number, now) for number in range(100))), offset)

    assert [one.windows["5m"].accepted for one in bench.out.to(RATES)] == [100]

    await bench.tally.snapshots.late(now_ms() + EVERY_MS)
    await bench.tally.snapshots.late(now_ms() + 2 * EVERY_MS)

    assert [one.windows["5m"].accepted for one in bench.out.to(RATES)] == [100, 500]


@pytest.mark.parametrize(
    ("refusals", "class_"),
    [(10, "invalid_recipient"), (1, "reputation_ip")],
    ids=["more hard bounces than the limit", "a single block"],
)
async def test_what_speaks_against_a_campaign_is_told_at_once(refusals: int, class_: str) -> None:
    bench, now = Bench(), now_ms()
    await bench.told(frame(*(result(number, now) for number in range(100))), offset=0)

    refused = [result(200 + number, now, "bounced", class_=class_) for number in range(refusals)]
    await bench.told(frame(*refused), offset=1)

    assert bench.newest.windows["5m"].attempts == 100 + refusals


async def test_what_was_not_told_before_a_worker_ended_is_told_by_the_next() -> None:
    bench, now = Bench(), now_ms()
    for offset in range(2):
        await bench.told(frame(result(offset, now)), offset)

    next_one = Bench(bench.panes)
    await next_one.tally.rebuild()
    await next_one.tally.snapshots.late(now)

    assert next_one.newest.windows["5m"].accepted == 2


async def test_a_frame_over_two_minutes_is_booked_to_both() -> None:
    bench, now = Bench(), now_ms()
    late = now - 10 * MINUTE

    await bench.results(frame(result(1, now), result(2, late)), offset=0)

    assert bench.panes.writes == 2
    assert bench.newest.windows["5m"].accepted == 1
    assert bench.newest.windows["1h"].accepted == 2


async def test_feedback_counts_in_the_minute_of_its_mail() -> None:
    bench, now = Bench(), now_ms()

    await bench.feedback(signal(1, "complaint", now, sent_at=now - 3 * 60 * MINUTE), offset=0)

    assert bench.newest.windows["1h"].complaint == 0
    assert bench.newest.windows["24h"].complaint == 1


async def test_the_same_complaint_from_two_sources_is_one() -> None:
    bench, now = Bench(), now_ms()

    await bench.feedback(signal(1, "complaint", now, sent_at=now - 30 * MINUTE, source="return_path"), offset=0)
    await bench.feedback(signal(1, "complaint", now, source="webhook:x"), offset=1)
    await bench.feedback(signal(1, "unsubscribe", now), offset=2)

    assert bench.newest.windows["24h"].complaint == 1
    assert bench.newest.windows["24h"].unsubscribe == 1


async def test_a_frame_of_feedback_may_speak_of_many_campaigns() -> None:
    bench, now = Bench(), now_ms()
    names = [f"c{number}" for number in range(20)]
    for name in names:
        bench.known.learn(campaign(name))
    events = [FeedbackEvent(kind="complaint", campaign=name, at=now, message_id="m") for name in names]

    await bench.feedback(FeedbackFrame(feedback=events), offset=0)

    here = {name for name in names if home(name, PARTITIONS) == HOME}
    counted = {one.scope.removeprefix("campaign:") for one in bench.out.to(RATES)}
    forwarded = {key for _, _, key, _ in bench.out.forwarded}
    assert counted == here
    assert forwarded == set(names) - here


async def test_a_record_in_a_strange_partition_is_sent_home_once() -> None:
    bench, now = Bench(), now_ms()
    away = (HOME + 1) % PARTITIONS

    await bench.feedback(signal(1, "complaint", now), offset=0, partition=away)
    assert [(topic, key) for topic, _, key, _ in bench.out.forwarded] == [(FEEDBACK, "spring")]
    headers = bench.out.forwarded[0][3]

    await bench.feedback(signal(1, "complaint", now), offset=1, partition=away, headers=headers)
    assert [one.reason for one in bench.out.to(DEAD_LETTERS)] == ["wrong_partition"]
    assert (FORWARDED, b"1") in headers
    assert bench.panes.writes == 0


async def test_feedback_about_a_stranger_is_set_aside_after_a_look() -> None:
    bench = Bench()
    stranger = next(f"x{n}" for n in range(100) if home(f"x{n}", PARTITIONS) == HOME)

    await bench.feedback(Feedback(kind="complaint", campaign=stranger, at=now_ms()), offset=0)

    assert bench.known.waits == 1
    assert [one.reason for one in bench.out.to(DEAD_LETTERS)] == ["unknown_campaign"]


@pytest.mark.parametrize("raw", [b"{", b'{"v":1}', None, b'{"v":1,"feedback":[5]}'], ids=repr)
async def test_what_cannot_be_read_is_kept(raw: bytes | None) -> None:
    bench = Bench()

    await bench.tally.results(Arrived(raw, topic=RESULTS))
    await bench.tally.feedback(Arrived(raw, topic=FEEDBACK))

    assert [one.topic for one in bench.out.to(DEAD_LETTERS)] == [RESULTS, FEEDBACK]


async def test_our_own_failure_is_kept_and_the_next_frame_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, now = Bench(), now_ms()
    sound = module.booked
    monkeypatch.setattr(
        module, "booked", lambda refused, accepted: sound(refused, accepted) if len(accepted) > 1 else 1 / 0
    )

    await bench.results(frame(result(1, now)), offset=0)
    await bench.results(frame(result(2, now), result(3, now)), offset=1)

    assert [one.reason for one in bench.out.to(DEAD_LETTERS)] == ["agent_failed"]
    assert bench.newest.windows["5m"].accepted == 2


async def test_a_clock_that_is_hours_ahead_is_not_believed() -> None:
    bench, now = Bench(), now_ms()

    await bench.results(frame(result(1, now), result(2, now + 3 * 60 * MINUTE)), offset=0)
    await bench.feedback(signal(1, "complaint", now + 3 * 60 * MINUTE), offset=0)

    assert [one.reason for one in bench.out.to(DEAD_LETTERS)] == ["from_the_future"] * 2
    assert bench.panes.writes == 1


async def test_what_is_older_than_every_window_is_left_out() -> None:
    bench, now = Bench(Panes(oldest_s=now_ms() / 1000 - 3600)), now_ms()

    await bench.results(frame(result(1, now - 2 * 60 * MINUTE)), offset=0)
    await bench.feedback(signal(1, "complaint", now - 2 * 60 * MINUTE), offset=0)

    assert bench.panes.writes == 0
    assert bench.newest.windows["7d"] == Counts()


async def test_dead_addresses_and_complainers_are_suppressed_again_for_repeats() -> None:
    bench, now = Bench(), now_ms()
    dead = result(1, now, "bounced", class_="invalid_recipient", address_hash=HASH)
    full = result(2, now, "bounced", class_="mailbox_full", address_hash="cd" * 32)

    for _ in range(2):
        await bench.results(frame(dead, full), offset=0)
    await bench.feedback(signal(3, "complaint", now, address_hash=HASH), offset=0)

    strike = (f"{'cd' * 32}|strike:mailbox_full:spring", "mailbox_full")
    assert [(one.key, one.record.reason) for one in bench.out.sent if one.topic == SUPPRESSIONS] == [
        (f"{HASH}|platform", "invalid_recipient"),
        strike,
        (f"{HASH}|platform", "invalid_recipient"),
        strike,
        (f"{HASH}|tenant:shop", "complaint"),
    ]


@pytest.mark.parametrize(("days", "until"), [(0, None), (365, 365 * DAY)])
async def test_who_is_dead_gets_no_mail_for_as_long_as_the_setting_says(days: int, until: int | None) -> None:
    bench, now = Bench(dead_days=days), now_ms()
    dead = result(1, now, "bounced", class_="bad_domain", address_hash=HASH, domain="old.example")

    await bench.results(frame(dead), offset=0)
    await bench.feedback(signal(2, "hard_bounce", now, source="return_path", address_hash=HASH), offset=0)
    await bench.feedback(signal(3, "complaint", now, address_hash=HASH), offset=1)

    ends = [None if one.until is None else one.until - now for one in bench.out.to(SUPPRESSIONS)]
    assert ends == [until, 7 * DAY, until, None]


@pytest.mark.parametrize(
    ("fields", "scope"),
    [
        pytest.param({"kind": "trap_hit", "source": "return_path"}, "platform", id="our own trap"),
        pytest.param(
            {"kind": "trap_hit", "source": "return_path", "trap": Trap(kind="typo")}, "platform", id="our own typo trap"
        ),
        pytest.param({"kind": "trap_hit", "source": "webhook:x"}, "tenant:shop", id="somebody's trap"),
        pytest.param(
            {"kind": "trap_hit", "source": "return_path", "trap": Trap(kind="suspected", strength=0.9)},
            None,
            id="a trap that anybody may have made up",
        ),
        pytest.param(
            {"kind": "trap_hit", "source": "worker", "trap": Trap(kind="recycled", strength=0.8)},
            None,
            id="a recycled signature",
        ),
        pytest.param(
            {"kind": "soft_bounce", "source": "return_path", "class_": "expired"},
            "strike:expired:spring",
            id="one failure of several",
        ),
        pytest.param(
            {"kind": "trap_hit", "source": "import", "trap": Trap(kind="suspected", strength=0.9)},
            None,
            id="a count of somebody's traps",
        ),
        pytest.param(
            {"kind": "soft_bounce", "source": "return_path", "class_": "recipient_policy"},
            "tenant:shop",
            id="not from this sender",
        ),
        pytest.param({"kind": "hard_bounce", "source": "return_path"}, "platform", id="late bounce"),
        pytest.param({"kind": "hard_bounce", "source": "import"}, "tenant:shop", id="imported bounce"),
        pytest.param({"kind": "unsubscribe"}, "tenant:shop", id="unsubscribe"),
        pytest.param({"kind": "soft_bounce", "source": "return_path"}, None, id="soft bounce"),
        pytest.param({"kind": "block", "source": "return_path"}, None, id="block"),
        pytest.param({"kind": "auto_reply"}, None, id="out of office"),
        pytest.param({"kind": "hard_bounce", "class_": "mailbox_full"}, None, id="full, called hard"),
    ],
)
async def test_a_suppression_holds_where_the_evidence_reaches(fields: dict[str, Any], scope: str | None) -> None:
    bench = Bench()
    event = Feedback(campaign="spring", at=now_ms(), message_id="m", address_hash=HASH, **fields)

    await bench.feedback(event, offset=0)

    suppressions: list[Suppression] = bench.out.to(SUPPRESSIONS)
    assert [one.scope for one in suppressions] == ([] if scope is None else [scope])


async def test_what_a_refusal_suppresses_depends_on_its_category() -> None:
    bench, now = Bench(), now_ms()
    results = [
        result(1, now, "bounced", class_="bad_domain", address_hash=HASH, domain="old.example"),
        result(2, now, "bounced", class_="bad_domain", address_hash=HASH, domain="gmail.com"),
        result(3, now, "bounced", class_="recipient_policy", address_hash=HASH, domain="shop.example"),
        result(4, now, "bounced", class_="reputation_ip", address_hash=HASH, domain="shop.example"),
        result(5, now, "deferred", class_="invalid_recipient", address_hash=HASH, domain="shop.example"),
        result(6, now, "bounced", class_="bad_domain", address_hash=HASH),
    ]

    await bench.results(frame(*results), offset=0)

    suppressions: list[Suppression] = bench.out.to(SUPPRESSIONS)
    assert [(one.address_hash, one.scope, one.reason, one.until) for one in suppressions] == [
        (HASH, "platform", "bad_domain", None),
        (domain_hash(KEYS, "old.example"), "platform", "bad_domain", now + 7 * DAY),
        (HASH, "platform", "bad_domain", None),
        (HASH, "tenant:shop", "recipient_policy", None),
        (HASH, "platform", "bad_domain", None),
    ]


async def test_a_trap_signal_comes_back_to_us_and_counts_once_under_replays() -> None:
    bench, now = Bench(), now_ms()
    bench.suppressed.add(HASH, "platform", reason="invalid_recipient", since=now - 200 * DAY, until=now - 10 * DAY)
    sent = frame(result(1, now, address_hash=HASH), result(2, now, address_hash="cd" * 32), ledger=5)

    for offset in (0, 0, 1):
        await bench.results(sent, offset=offset)
    signals: list[Feedback] = bench.out.to(FEEDBACK)
    assert len(signals) == 3
    assert {one.key for one in bench.out.sent if one.topic == FEEDBACK} == {"spring"}
    for offset, one in enumerate(signals):
        await bench.feedback(one, offset)

    counts = bench.newest.windows["24h"]
    assert (counts.accepted, counts.trap_hit, counts.trap_weight, counts.trap_hit_recycled) == (2, 1, 32, 0)
    assert bench.out.to(SUPPRESSIONS) == []
    assert [one.trap for one in bench.newest.recent] == [Trap(kind="recycled", strength=0.8)]


@pytest.mark.parametrize("first", ["suspicion", "trap"])
async def test_a_suspicion_does_not_take_the_place_of_a_confirmed_hit(first: str) -> None:
    bench, now = Bench(), now_ms()
    suspicion = signal(1, "trap_hit", now, source="worker", trap=Trap(kind="recycled", strength=0.8))
    trap = signal(1, "trap_hit", now, source="return_path", trap=Trap(kind="pristine", where="footer"))
    made_up = signal(1, "trap_hit", now, source="return_path", trap=Trap(kind="suspected", strength=0.2))

    events = [made_up, suspicion, trap] if first == "suspicion" else [made_up, trap, suspicion]
    for offset, one in enumerate([*events, *events]):
        await bench.feedback(one, offset)

    counts = bench.newest.windows["24h"]
    assert (counts.trap_hit, counts.trap_hit_pristine, counts.trap_weight) == (2, 1, 132)


async def test_a_domain_that_takes_mail_a_day_later_is_suppressed_no_more() -> None:
    bench, now = Bench(), now_ms()
    hashed = domain_hash(KEYS, "shop.example")
    bench.suppressed.add(hashed, "platform", reason="bad_domain", since=now - DAY, until=now + 6 * DAY)

    await bench.results(frame(result(1, now, domain="shop.example", address_hash=HASH)), offset=0)

    assert bench.out.to(FEEDBACK) == []
    [lifted] = bench.out.to(SUPPRESSIONS)
    assert (lifted.address_hash, lifted.scope, lifted.reason, lifted.until) == (hashed, "platform", "alive_again", now)


async def test_a_snapshot_names_the_newest_signals() -> None:
    bench, now = Bench(), now_ms()
    trap = signal(7, "trap_hit", now, trap=Trap(kind="pristine"))

    await bench.feedback(trap, offset=4)
    await bench.results(
        frame(*(result(number, now, "bounced", class_="invalid_recipient") for number in range(50))), offset=9
    )

    recent = bench.newest.recent
    assert (recent[0].topic, recent[0].offset, recent[0].message_id, recent[0].kind) == (FEEDBACK, 4, "m-7", "trap_hit")
    assert [one.message_id for one in recent[1:]] == [f"m-{number}" for number in range(45, 50)]
    assert bench.newest.windows["5m"].trap_hit_pristine == 1


async def test_providers_and_addresses_get_snapshots_of_their_own() -> None:
    bench, now = Bench(), now_ms()
    other = next(f"x{n}" for n in range(100) if home(f"x{n}", PARTITIONS) == HOME)
    await bench.results(frame(result(1, now, ip="192.0.2.1"), result(2, now, ip="192.0.2.2")), offset=0)
    await bench.results(frame(result(3, now, ip="192.0.2.1"), name=other), offset=1)

    await bench.tally.snapshots.providers(now)

    by_scope = {one.scope: one.windows["5m"].accepted for one in bench.out.to(RATES)}
    assert by_scope["campaign:spring/provider:google"] == 2
    assert by_scope[f"campaign:{other}/provider:google"] == 1
    assert by_scope[f"ip:192.0.2.1/provider:google/partition:{HOME}"] == 2
    assert by_scope[f"ip:192.0.2.2/provider:google/partition:{HOME}"] == 1
    before = len(bench.out.sent)
    await bench.tally.snapshots.providers(now)
    assert len(bench.out.sent) == before  # nothing moved


def turned_away(number: int, at: int, provider: str) -> DeliveryResult:
    return DeliveryResult(message_id=f"m-{number}", outcome="bounced", at=at, provider=provider, class_="reputation_ip")


async def test_a_campaign_that_is_turned_away_is_told_by_provider() -> None:
    bench, now = Bench(), now_ms()
    await bench.results(frame(*(result(number, now) for number in range(200))), offset=0)
    assert bench.newest.providers == {}
    await bench.results(frame(*(turned_away(1_000 + number, now, "yahoo") for number in range(60))), offset=1)
    found = bench.newest.providers
    assert {name: (one["24h"].block, one["24h"].attempts) for name, one in found.items()} == {
        "google": (0, 200),
        "yahoo": (60, 60),
    }


async def test_a_small_provider_that_refuses_all_is_seen_though_the_campaign_hardly_feels_it() -> None:
    bench, now = Bench(), now_ms()
    for offset in range(6):
        await bench.results(frame(*(result(offset * 500 + number, now) for number in range(500))), offset=offset)
    await bench.results(frame(*(turned_away(5_000 + number, now, "yahoo") for number in range(60))), offset=6)
    assert bench.newest.providers == {}
    await bench.tally.snapshots.providers(now)
    assert set(bench.newest.providers) == {"google", "yahoo"}
    await bench.results(frame(result(9_000, now)), offset=7)
    assert set(bench.newest.providers) == {"google", "yahoo"}, "as long as it lasts"


async def test_feedback_without_an_address_counts_for_the_only_one_that_sent_in_its_minute() -> None:
    bench, now = Bench(), now_ms()
    await bench.results(frame(result(1, now, ip="192.0.2.1"), result(2, now, ip="192.0.2.1")), offset=0)
    trap = Trap(kind="pristine", strength=1.0)
    await bench.feedback(signal(1, "trap_hit", now, sent_at=now, trap=trap), offset=0)
    await bench.results(
        frame(result(3, now - MINUTE, ip="192.0.2.1"), result(4, now - MINUTE, ip="192.0.2.2")), offset=1
    )
    await bench.feedback(signal(3, "complaint", now, sent_at=now - MINUTE), offset=1)
    await bench.tally.snapshots.providers(now)
    day = {one.scope: one.windows["24h"] for one in bench.out.to(RATES) if one.scope.startswith("ip:")}
    assert sum(one.trap_hit for scope, one in day.items() if scope.startswith("ip:192.0.2.1/")) == 1
    assert sum(one.complaint for one in day.values()) == 0, "one of two: nobody can tell"
    assert bench.newest.windows["24h"].complaint == 1


async def by_source(bench: Bench, now: int) -> dict[str, Counts]:
    await bench.tally.snapshots.providers(now)
    prefix = "campaign:spring/source:"
    newest = {one.scope: one for one in bench.out.to(RATES) if one.scope.startswith(prefix)}
    return {scope.removeprefix(prefix): one.windows["24h"] for scope, one in newest.items()}


async def test_each_source_of_a_list_has_windows_of_its_own() -> None:
    bench, now = Bench(), now_ms()
    dead = [result(number, now, "bounced", class_="invalid_recipient", list_source="bought") for number in range(3)]
    good = [result(10 + number, now, list_source="form|de") for number in range(5)]
    await bench.results(frame(*dead, *good, result(20, now)), offset=0)
    await bench.results(frame(*dead, *good, result(20, now)), offset=0)
    found = await by_source(bench, now)
    assert {name: (one.accepted, one.hard_bounce) for name, one in found.items()} == {
        "bought": (0, 3),
        "form/de": (5, 0),
    }
    again = Bench(bench.panes)
    await again.tally.rebuild()
    assert await by_source(again, now) == found


async def test_feedback_counts_for_the_source_when_there_was_only_one_in_its_minute() -> None:
    bench, now = Bench(), now_ms()
    await bench.results(frame(*(result(number, now, list_source="form") for number in range(5))), offset=0)
    await bench.feedback(signal(1, "complaint", now, sent_at=now), offset=0)
    assert (await by_source(bench, now))["form"].complaint == 1
    await bench.results(frame(result(9, now, list_source="bought")), offset=1)
    await bench.feedback(signal(2, "complaint", now, sent_at=now), offset=1)
    found = await by_source(bench, now)
    assert [found[name].complaint for name in ("form", "bought")] == [1, 0], "nobody can tell whose it is"


async def test_a_campaign_with_a_source_for_every_message_fills_no_memory() -> None:
    bench, now = Bench(), now_ms()
    await bench.results(frame(*(result(number, now, list_source=f"s-{number}") for number in range(200))), offset=0)
    found = await by_source(bench, now)
    assert len(found) == SOURCES_KEPT + 1
    assert found["(others)"].accepted == 200 - SOURCES_KEPT


async def test_windows_that_empty_by_time_are_told_until_nothing_is_left() -> None:
    bench, now = Bench(), now_ms()
    await bench.results(frame(result(1, now)), offset=0)

    await bench.tally.snapshots.moved(now)
    assert len(bench.out.to(RATES)) == 1  # nothing moved
    await bench.tally.snapshots.moved(now + 10 * MINUTE)
    assert bench.newest.windows["5m"].accepted == 0
    assert bench.newest.windows["1h"].accepted == 1
    await bench.tally.snapshots.moved(now + 8 * 1440 * MINUTE)

    assert bench.newest.windows["7d"] == Counts()
    assert bench.tally.live == {}


class Log:
    """What happens to a partition: records of both topics in some order, and crashes in between."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.now = now_ms()
        self.has_ledger = chance.random() < 0.5
        self.frames = [self._frame(ledger) for ledger in range(chance.randint(1, 6))]
        self.records: list[tuple[str, int, Any]] = []
        self.truth = Counts()

    def _frame(self, ledger: int) -> DeliveryFrame:
        return frame(
            *(
                result(ledger * 100 + number, self.now - self.chance.choice((0, 3, 90)) * MINUTE)
                for number in range(self.chance.randint(1, 5))
            ),
            ledger=ledger if self.has_ledger else None,
        )

    def write(self) -> None:
        """Each frame in order, now and then one of the earlier ones once more; feedback, often twice."""
        results, feedback = 0, 0
        counted: set[str | None] = set()
        accepted = complaints = 0
        for sent in self.frames:
            earlier = self.frames[: self.frames.index(sent) + 1]
            again = [self.chance.choice(earlier)] if self.has_ledger and self.chance.random() < 0.4 else []
            for one in [sent, *again]:
                self.records.append((RESULTS, results, one))
                results += 1
            accepted += len(sent.results)
            for one in sent.results:
                for _ in range(self.chance.randint(0, 2)):
                    name = self.chance.choice((one.message_id, None))
                    at = self.chance.choice((one.at, None))
                    complaint = Feedback(kind="complaint", campaign="spring", at=self.now, message_id=name, sent_at=at)
                    self.records.append((FEEDBACK, feedback, complaint))
                    feedback += 1
                    if name is None or name not in counted:
                        counted.add(name)
                        complaints += 1
        self.truth = Counts(accepted=accepted, attempts=accepted, complaint=complaints)


@given(st.integers(0, 2**32))
async def test_counts_are_exact_whatever_is_lost_and_read_again(seed: int) -> None:
    """The changelog keeps a prefix of the writes; reading goes on where the last commit was, or before."""
    chance = random.Random(seed)
    log = Log(chance)
    log.write()
    done = 0
    written: list[tuple[int, Any, Any]] = []  # number of the record, key, value
    while True:
        kept = written[: chance.randint(0, len(written))] if written else []
        lost_from = min((number for number, _, _ in written[len(kept) :]), default=done)
        bench = Bench(Panes())
        for _, key, value in kept:
            bench.panes.held[key] = value
        await bench.tally.rebuild()
        written = list(kept)
        start = chance.randint(0, lost_from) if chance.random() < 0.5 else lost_from
        end = len(log.records) if chance.random() < 0.3 else chance.randint(done, len(log.records))
        for number in range(start, end):
            topic, offset, record = log.records[number]
            before = dict(bench.panes.held)
            await (bench.results if topic == RESULTS else bench.feedback)(record, offset)
            written += [(number, key, value) for key, value in bench.panes.held.items() if before.get(key) is not value]
        done = max(done, end)
        if done == len(log.records) and end == done and start < end:
            break
    assert bench.newest.windows["24h"] == log.truth
    assert bench.newest.windows["7d"] == log.truth
