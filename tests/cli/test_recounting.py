"""The recount comes to what the tally comes to, whatever comes in, by another way."""

import asyncio
import base64
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from agents.live import Live
from agents.ports import now_ms
from agents.tally import AHEAD_MIN
from cli.recounting import Difference, Recount, Recounted
from cli.recounting_panes import PaneDifference, Panes
from policy.counts import WINDOWS_MIN
from schemas.codec import encode
from schemas.dead_letters import DeadLetter
from schemas.delivery import DeliveryFrame, DeliveryResult, Position
from schemas.feedback import Feedback, FeedbackEvent, FeedbackFrame, Trap
from schemas.reputation import Counts, RatesSnapshot
from schemas.topics import DEAD_LETTERS, FEEDBACK, RATES, RESULTS
from streams.home import home
from tests.agents.test_tally import Bench

PARTITIONS = 4
HOME = home("spring", PARTITIONS)
MINUTE = 60_000
WINDOWS = list(WINDOWS_MIN)
KINDS = ("hard_bounce", "block", "complaint", "trap_hit", "unsubscribe", "not_spam")

Raw = tuple[str, int, bytes]  # topic, offset, value


class Log:
    """Two topics of one partition, as a sender, a return path and strangers fill them."""

    def __init__(self, chance: random.Random, now: int) -> None:
        self._chance = chance
        self._now = now
        self._offsets = {RESULTS: 0, FEEDBACK: 0}
        self._frames: list[DeliveryFrame] = []
        self.records: list[Raw] = []

    def fill(self, number: int) -> None:
        kinds = (self._frame, self._again, self._single, self._many, self._rubbish)
        for _ in range(number):
            self._chance.choices(kinds, (6, 2, 4, 2, 1))[0]()

    def _put(self, topic: str, record: Any) -> None:
        offset = self._offsets[topic]
        self._offsets[topic] = offset + self._chance.choice((1, 1, 1, 3))  # a log may have holes
        self.records.append((topic, offset, record if isinstance(record, bytes) else encode(record)))

    def _frame(self) -> None:
        results = [self._result() for _ in range(self._chance.randint(1, 5))]
        number = len(self._frames)
        ledger = Position(topic="mail.ledger.spring", partition=number % 2, offset=number)
        made = DeliveryFrame(
            campaign="spring",
            sender="s-0",
            covers=[],
            results=results,
            ledger=ledger if self._chance.random() < 0.8 else None,
        )
        self._frames.append(made)
        self._put(RESULTS, made)

    def _result(self) -> DeliveryResult:
        ago = self._chance.choice((0, 0, 2, 7, 90, 1500, 12_000, -10, -100))
        outcome: Any = self._chance.choice(("accepted", "deferred", "bounced", "expired", "suppressed", "in_doubt"))
        return DeliveryResult(
            message_id=f"m-{self._chance.randrange(50)}",
            outcome=outcome,
            at=self._now - ago * MINUTE,
            provider=self._chance.choice(("google", "other")),
            ip=self._chance.choice((None, "192.0.2.1")),
            list_source=self._chance.choice((None, "shop", "fair")),
            class_=self._chance.choice((None, "invalid_recipient", "reputation_ip", "mailbox_full")),
        )

    def _again(self) -> None:
        """The newest frames may be published once more, in their order."""
        for one in self._frames[-self._chance.randint(1, 3) :]:
            if one.ledger is not None:
                self._put(RESULTS, one)

    def _event(self) -> FeedbackEvent:
        kind: Any = self._chance.choice(KINDS)
        trap: Any = self._chance.choice(("pristine", "recycled", "typo", "suspected"))
        return FeedbackEvent(
            kind=kind,
            campaign=self._chance.choice(("spring", "spring", "nobody", "summer")),
            at=self._now,
            message_id=self._chance.choice((None, *(f"m-{number}" for number in range(12)))),
            sent_at=self._chance.choice((None, self._now - 20 * MINUTE, self._now - 2000 * MINUTE)),
            provider=self._chance.choice((None, "google")),
            trap=Trap(kind=trap, strength=self._chance.choice((0.0, 0.5, 1.0))) if kind == "trap_hit" else None,
            source=self._chance.choice(("return_path", "worker")),
        )

    def _single(self) -> None:
        self._put(FEEDBACK, Feedback(**msgspec.structs.asdict(self._event())))

    def _many(self) -> None:
        self._put(FEEDBACK, FeedbackFrame(feedback=[self._event() for _ in range(self._chance.randint(0, 6))]))

    def _rubbish(self) -> None:
        self._put(self._chance.choice((RESULTS, FEEDBACK)), b"{")


async def tallied(bench: Bench, records: list[Raw]) -> None:
    for topic, offset, raw in records:
        handle = bench.tally.results if topic == RESULTS else bench.tally.feedback
        await handle(_Arrived(raw, topic, offset))


class _Arrived:
    def __init__(self, value: bytes, topic: str, offset: int) -> None:
        self.value, self.topic, self.offset = value, topic, offset
        self.partition, self.key, self.headers, self.timestamp = HOME, None, (), None


def recounted(records: list[Raw], letters: list[DeadLetter], committed: dict[str, int], now: int) -> Recounted:
    recount = Recount(PARTITIONS, {(topic, HOME): offset for topic, offset in committed.items()})
    for letter in letters:
        recount.dead_letter(letter)
    for topic, offset, raw in records:
        if topic == RESULTS:
            recount.results(HOME, offset, raw)
        else:
            recount.feedback(HOME, offset, now, raw)
    return recount.campaigns.get("spring", Recounted())


@given(st.integers(0, 10**6), st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
@profile(max_examples=60)
def test_whatever_comes_in_both_ways_come_to_the_same(seed: int, done: int, committed: int, ahead: int) -> None:
    """The worker dies after ``done`` records, begins again at what it had committed, and has not read all yet."""
    now = now_ms()
    log = Log(random.Random(seed), now)
    log.fill(40)
    done, ahead = min(done, len(log.records)), min(ahead, len(log.records))
    safe = min(committed, done)
    before = Bench()

    async def run() -> Bench:
        await tallied(before, log.records[:done])
        after = Bench(before.panes)
        await after.tally.rebuild()
        await tallied(after, log.records[safe : max(done, ahead)])
        return after

    after = asyncio.run(run())
    letters = before.out.to(DEAD_LETTERS) + after.out.to(DEAD_LETTERS)
    read = {
        topic: max((o + 1 for t, o, _ in log.records[:safe] if t == topic), default=0) for topic in (RESULTS, FEEDBACK)
    }
    live = after.tally.live.get("spring", Live())
    snapshot = RatesSnapshot(scope="campaign:spring", at=now, windows=live.rolling.windows(now // MINUTE))
    own = recounted(log.records, letters, read, now)

    assert own.is_right(snapshot, WINDOWS)
    if max(done, ahead) == len(log.records):
        assert own.differences(snapshot, WINDOWS) == []
    more = msgspec.structs.replace(snapshot.windows["24h"], complaint=snapshot.windows["24h"].complaint + 40)
    wrong = msgspec.structs.replace(snapshot, windows={**snapshot.windows, "24h": more})
    assert not own.is_right(wrong, WINDOWS)


@given(st.integers(0, 10**6), st.integers(0, 40))
@profile(max_examples=40)
def test_providers_sources_and_addresses_are_within_what_the_topics_say(seed: int, committed: int) -> None:
    now = now_ms()
    log = Log(random.Random(seed), now)
    log.fill(40)
    bench = Bench()
    asyncio.run(tallied(bench, log.records))
    recount = Recount(PARTITIONS, {(topic, HOME): committed for topic in (RESULTS, FEEDBACK)})
    for letter in bench.out.to(DEAD_LETTERS):
        recount.dead_letter(letter)
    for topic, offset, raw in log.records:
        if topic == RESULTS:
            recount.results(HOME, offset, raw)
        else:
            recount.feedback(HOME, offset, now, raw)
    bench.out.sent.clear()

    asyncio.run(bench.tally.snapshots.providers(now))

    told = [one for one in bench.out.to(RATES) if one.scope.startswith(("campaign:spring/", "ip:"))]
    assert [recount.scopes.differences(one, WINDOWS) for one in told] == [[]] * len(told)
    for one in told:
        day = one.windows["24h"]
        false = msgspec.structs.replace(day, accepted=day.accepted + 1000)
        (found,) = recount.scopes.differences(
            msgspec.structs.replace(one, windows={**one.windows, "24h": false}), WINDOWS
        )
        assert (found.scope, found.window, found.column, found.rates) == (
            one.scope,
            "24h",
            "accepted",
            day.accepted + 1000,
        )
        assert found.at_least <= day.accepted <= found.at_most


def changelog(table: dict[tuple[str, float], Any], now: int) -> Panes:
    """The table as the command reads it, each record among others that it outdoes."""
    read = Panes({(topic, HOME): 0 for topic in (RESULTS, FEEDBACK)}, now)
    for (name, start), pane in table.items():
        key = msgspec.json.encode([name, [start, start + 59.9]])
        read.written(key, msgspec.json.encode([6, [[10**6, 10**6], {}, [], [], {}]]))  # an owner before
        read.written(key, msgspec.json.encode([7, pane]))
        read.written(key, msgspec.json.encode([6, [[10**6, 10**6], {}, [], [], {}]]))  # and what it wrote late
        read.written(key, msgspec.json.encode([7, [[-1, -1], {}, [], [], {}]]))  # a batch that was sent twice
    return read


@given(st.integers(0, 10**6), st.integers(0, 40), st.integers(0, 40))
@profile(max_examples=60)
def test_the_minutes_that_are_written_down_are_what_the_topics_say_up_to_their_offsets(
    seed: int, done: int, safe: int
) -> None:
    """The worker dies after ``done`` records and begins again at what it had committed; it has not read all yet."""
    now = now_ms()
    log = Log(random.Random(seed), now)
    log.fill(40)
    done = min(done, len(log.records))
    safe = min(safe, done)
    before = Bench()

    async def run() -> Bench:
        await tallied(before, log.records[:done])
        after = Bench(before.panes)
        await after.tally.rebuild()
        await tallied(after, log.records[safe:done])
        return after

    after = asyncio.run(run())
    minutes = changelog(after.panes.held, now)
    recount = Recount(PARTITIONS, {}, panes=minutes)
    for letter in before.out.to(DEAD_LETTERS) + after.out.to(DEAD_LETTERS):
        recount.dead_letter(letter)
    for topic, offset, raw in log.records:
        if topic == RESULTS:
            recount.results(HOME, offset, raw)
        else:
            recount.feedback(HOME, offset, now, raw)

    assert list(minutes.differences("spring", 0)) == []


def test_a_minute_that_was_altered_is_found_and_one_that_is_missing_too() -> None:
    now = now_ms() // MINUTE * MINUTE
    pane = [[0, -1], {"other|": list(msgspec.structs.astuple(Counts(accepted=5, attempts=2)))}, [], [], {}]
    altered, missing = Panes({}, now), Panes({(RESULTS, HOME): 1}, now)
    altered.written(msgspec.json.encode(["spring", [now / 1000, now / 1000 + 59.9]]), msgspec.json.encode([1, pane]))
    for minutes in (altered, missing):
        Recount(PARTITIONS, {}, panes=minutes).results(HOME, 0, accepted(2, now))

    assert list(altered.differences("spring", 0)) == [PaneDifference("provider:other", now, "accepted", 2, 2, 5)]
    assert [(one.column, one.at_least, one.table) for one in missing.differences("spring", 0)] == [
        ("accepted", 2, 0),
        ("attempts", 2, 0),
    ]
    assert list(altered.differences("spring", now // MINUTE)) == []  # the topics no longer go back that far


def test_a_report_without_an_address_may_be_of_any_and_one_with_it_is_of_that_alone() -> None:
    now = now_ms() // MINUTE * MINUTE
    recount = Recount(PARTITIONS, {(FEEDBACK, HOME): 9})
    for offset, ip in enumerate((None, "192.0.2.1")):
        said = Feedback(kind="complaint", campaign="spring", at=now, message_id=f"m-{offset}", provider="google", ip=ip)
        recount.feedback(HOME, offset, now, encode(said))

    def wrong(ip: str, complaints: int) -> list[tuple[int, int]]:
        scope = f"ip:{ip}/provider:google/partition:{HOME}"
        told = RatesSnapshot(scope=scope, at=now, windows={"1h": Counts(complaint=complaints, complaint_unheard=0)})
        found = recount.scopes.differences(told, ["1h"])
        return [(one.at_least, one.at_most) for one in found if one.column == "complaint"]

    assert [wrong("192.0.2.1", number) for number in (0, 1, 2, 3)] == [[(1, 2)], [], [], [(1, 2)]]
    assert [wrong("192.0.2.2", number) for number in (0, 1, 2)] == [[], [], [(0, 1)]]


def accepted(number: int, at: int, ledger: int | None = None) -> bytes:
    position = None if ledger is None else Position(topic="mail.ledger.spring", partition=0, offset=ledger)
    results = [DeliveryResult(message_id=f"m-{number}-{one}", outcome="accepted", at=at) for one in range(number)]
    return encode(DeliveryFrame(campaign="spring", sender="s-0", covers=[], results=results, ledger=position))


def snapshot_of(at: int, number: int, windows: tuple[str, ...] = ("1h", "24h", "7d")) -> RatesSnapshot:
    counts = Counts(accepted=number, attempts=number)
    return RatesSnapshot(scope="campaign:spring", at=at, windows=dict.fromkeys(windows, counts))


@pytest.mark.parametrize(
    ("told", "is_right"),
    [(0, False), (1, False), (3, True), (7, True), (6, False), (5, False), (8, False)],
    ids=["nothing", "less than is committed", "committed", "all", "not the first of the rest", "2 + 3", "1 more"],
)
def test_a_running_system_may_be_anywhere_behind_what_is_committed(told: int, is_right: bool) -> None:
    now = now_ms() // MINUTE * MINUTE
    records = [(RESULTS, offset, accepted(number, now - MINUTE)) for offset, number in enumerate((1, 2, 4))]
    own = recounted(records, [], {RESULTS: 2}, now)

    assert own.is_right(snapshot_of(now, told), ["1h", "24h", "7d"]) is is_right
    assert own.waiting == 1


def test_a_frame_that_was_published_again_counts_once_and_two_without_a_position_count_twice() -> None:
    now = now_ms() // MINUTE * MINUTE
    again = [(RESULTS, offset, accepted(2, now, ledger=7)) for offset in range(3)]
    strange = [(RESULTS, offset, accepted(2, now)) for offset in range(3)]

    assert recounted(again, [], {RESULTS: 3}, now).is_right(snapshot_of(now, 2), ["1h"])
    assert recounted(strange, [], {RESULTS: 3}, now).is_right(snapshot_of(now, 6), ["1h"])


def test_what_was_set_aside_as_of_the_future_does_not_count_when_its_time_comes() -> None:
    now = now_ms() // MINUTE * MINUTE
    records = [(RESULTS, 0, accepted(2, now + (AHEAD_MIN + 5) * MINUTE)), (RESULTS, 1, accepted(3, now))]
    letter = DeadLetter(
        topic=RESULTS, partition=HOME, offset=0, reason="from_the_future", explain="", raw=_raw(records[0][2]), at=now
    )
    later = now + (AHEAD_MIN + 10) * MINUTE

    assert recounted(records, [letter], {RESULTS: 2}, now).is_right(snapshot_of(later, 3), ["24h"])
    assert recounted(records, [], {RESULTS: 2}, now).is_right(snapshot_of(later, 5), ["24h"])


def test_feedback_about_a_campaign_that_nobody_knew_does_not_count() -> None:
    now = now_ms() // MINUTE * MINUTE
    event = Feedback(kind="unsubscribe", campaign="spring", at=now, message_id="m")
    letter = DeadLetter(
        topic=FEEDBACK,
        partition=HOME,
        offset=0,
        reason="unknown_campaign",
        explain="field campaign of Feedback: 'spring' is not known; make it known, then replay this",
        raw=_raw(encode(event)),
        at=now,
    )
    records = [(FEEDBACK, 0, encode(event)), (FEEDBACK, 4, encode(event))]
    left = RatesSnapshot(scope="campaign:spring", at=now, windows={"1h": Counts(unsubscribe=1)})

    assert recounted(records, [letter], {FEEDBACK: 5}, now).is_right(left, ["1h"])
    assert not recounted(records[:1], [letter], {FEEDBACK: 5}, now).is_right(left, ["1h"])


def test_a_record_away_from_home_is_not_counted_there() -> None:
    recount = Recount(PARTITIONS, {})

    recount.results((HOME + 1) % PARTITIONS, 0, accepted(2, now_ms()))

    assert recount.campaigns == {}


def test_a_difference_names_window_column_and_both_numbers() -> None:
    now = now_ms() // MINUTE * MINUTE
    own = recounted([(RESULTS, 0, accepted(2, now - 90 * MINUTE))], [], {RESULTS: 1}, now)
    told = RatesSnapshot(
        scope="campaign:spring",
        at=now,
        windows={"1h": Counts(), "24h": Counts(accepted=4, attempts=2), "7d": Counts(accepted=2, attempts=2)},
    )

    assert not own.is_right(told, ["1h", "24h", "7d"])
    assert own.differences(told, ["1h", "24h", "7d"]) == [Difference("24h", "accepted", 2, 4)]


def _raw(value: bytes) -> str:
    return base64.b64encode(value).decode()
