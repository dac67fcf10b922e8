"""Messages that wait in the ledger, and the snapshots that keep it short."""

import asyncio
import time
from array import array
from base64 import b64encode
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.delivery import DeliveryResult, LedgerEntry, Parked, RememberedIds, Snapshot
from schemas.sending import OutboundMessage
from smtp.sending.backlog import Lane
from smtp.sending.done import KEPT_MS, PERIOD_MS, Remembered, id_hash, little_endian
from smtp.sending.memory import WITHHELD, Memory
from smtp.sending.recorder import PartitionLost, Recorder
from smtp.sending.resuming import Resuming
from smtp.sending.tiers import Tiers
from tests.smtp.doubles import MemoryInbox, MemoryLedger, MovedClock
from tests.smtp.sender_contract import Stage, names
from tests.smtp.servers import SILENCE, Script, scripted, until
from tests.smtp.test_sender import MemoryWorld, recording

MINUTE_MS = 60_000
DAY_S = 86_400


@pytest.fixture
def world() -> MemoryWorld:
    return MemoryWorld()


@pytest.fixture
def stage(world: MemoryWorld) -> Stage:
    return Stage(world)


# Tiers: who is due.


def test_messages_are_handed_out_by_the_minute_and_once() -> None:
    tiers = Tiers()
    tiers.put(1, 10, due=5 * MINUTE_MS)
    tiers.put(2, 10, due=7 * MINUTE_MS)
    tiers.put(3, 11, due=5 * MINUTE_MS + 59_999)

    assert tiers.take(5 * MINUTE_MS - 1, most=9) == []
    assert sorted(tiers.take(6 * MINUTE_MS, most=9)) == [1, 3]
    assert tiers.take(6 * MINUTE_MS, most=9) == []
    assert tiers.take(7 * MINUTE_MS, most=9) == [2]
    assert (len(tiers), tiers.offset_of(3)) == (3, 11)


def test_no_more_are_handed_out_than_there_is_room_for() -> None:
    tiers = Tiers()
    for key in range(1, 11):
        tiers.put(key, 0, due=MINUTE_MS)

    first, rest = tiers.take(MINUTE_MS, most=4), tiers.take(MINUTE_MS, most=100)

    assert len(first) == 4
    assert sorted(first + rest) == list(range(1, 11))


def test_what_was_put_off_or_dropped_is_not_due() -> None:
    tiers = Tiers()
    tiers.put(1, 10, due=MINUTE_MS)
    tiers.put(2, 10, due=MINUTE_MS)
    tiers.put(1, 20, due=9 * MINUTE_MS)
    tiers.drop(2)

    assert tiers.take(MINUTE_MS, most=9) == []
    assert tiers.take(9 * MINUTE_MS, most=9) == [1]
    assert (tiers.offset_of(1), tiers.offset_of(2)) == (20, None)


def test_who_begins_anew_hands_out_everything_that_waits() -> None:
    tiers = Tiers()
    for key in (1, 2, 3):
        tiers.put(key, 10, due=MINUTE_MS)
    tiers.take(MINUTE_MS, most=2)
    tiers.rewind()

    assert sorted(tiers.take(MINUTE_MS, most=9)) == [1, 2, 3]


# Remembered: what is done, and for how long.


def test_ids_are_forgotten_when_nothing_can_be_replayed() -> None:
    done = Remembered()
    for period in range(8):
        done.add(100 + period, at=period * PERIOD_MS)
    done.forget(3 * PERIOD_MS + KEPT_MS)

    assert [key for key in range(100, 108) if key in done] == [103, 104, 105, 106, 107]


def test_a_clock_that_jumps_to_a_far_day_makes_nobody_forget() -> None:
    done = Remembered()
    done.add(1, at=0)
    done.add(2, at=1000 * PERIOD_MS)
    done.forget(2000 * PERIOD_MS)
    done.add(3, at=0)

    assert all(key in done for key in (1, 2, 3))


# The fold: whatever happened, the entries from a snapshot on say what all entries say.

NAMES = st.sampled_from([f"m-{number}" for number in range(6)])
STEPS = st.lists(
    st.tuples(st.sampled_from(["intend", "final", "defer", "withhold", "park", "snapshot", "piece"]), NAMES),
    max_size=40,
)


class Ledger:
    """A ledger and its fold, written by a sender that does what its own memory says."""

    def __init__(self) -> None:
        self.entries: list[LedgerEntry] = []
        self.memory = Memory()
        self._since = 0
        self._to_carry: list[str] = []

    def step(self, what: str, name: str) -> None:
        key = id_hash(name)
        waits, doubtful = key in self.memory.waiting, key in self.memory.doubtful
        match what:
            case "intend" if key not in self.memory.done:
                self._write(intents=[name])
            case "final" if key not in self.memory.done:
                self._write(results=[DeliveryResult(message_id=name, outcome="accepted", at=1)])
            case "withhold" if doubtful:
                self._write(results=[DeliveryResult(message_id=name, outcome="deferred", at=1, class_=WITHHELD)])
            case "defer" if key not in self.memory.done:
                due = len(self.entries) * MINUTE_MS
                result = DeliveryResult(message_id=name, outcome="deferred", at=1, next_attempt_at=due)
                self._write(results=[result], parked=[parked(name, due)])
            case "park" if key not in self.memory.done and not waits:
                self._write(parked=[parked(name, len(self.entries) * MINUTE_MS)])
            case "snapshot":
                self._begin()
            case "piece":
                self._go_on()
            case _:
                pass

    def _begin(self) -> None:
        self._since = len(self.entries)
        for period, ids in self.memory.done.periods.items():
            for run in ids.runs(2):
                packed = RememberedIds(period=period, ids=b64encode(ids.packed(run)).decode())
                self._write(snapshot=Snapshot(since=self._since, done=[packed]))
        self._to_carry = [f"m-{number}" for number in range(6)]

    def _go_on(self) -> None:
        if not self._to_carry:
            return
        name = self._to_carry.pop()
        at = self.memory.waiting.offset_of(id_hash(name))
        if at is not None and at < self._since:
            record = next(one for one in self.entries[at].parked if one.message.message_id == name)
            self._write(parked=[record], snapshot=Snapshot(since=self._since))
        if not self._to_carry:
            doubtful = b64encode(little_endian(array("Q", self.memory.doubtful))).decode()
            self._write(snapshot=Snapshot(since=self._since, doubtful=doubtful, is_complete=True))

    def _write(self, **fields: object) -> None:
        entry = LedgerEntry(sender="s", at=1, **fields)  # type: ignore[arg-type]
        self.memory.apply(len(self.entries), entry)
        self.entries.append(entry)

    def read(self, start: int, *, twice: bool = False) -> Memory:
        memory = Memory()
        for offset, entry in list(enumerate(self.entries))[start:]:
            memory.apply(offset, entry)
            if twice:
                memory.apply(offset, entry)
        return memory


def parked(name: str, due: int) -> Parked:
    message = OutboundMessage(message_id=name, address="ann@example.com", address_hash="h")
    return Parked(message=message, content="hello", offset=0, starts_at=0, due=due)


def what_it_says(memory: Memory) -> tuple[list[bool], set[int], list[int | None]]:
    keys = [id_hash(f"m-{number}") for number in range(6)]
    return (
        [key in memory.done for key in keys],
        memory.doubtful,
        [memory.waiting.offset_of(key) for key in keys],
    )


@given(STEPS)
def test_the_entries_from_a_snapshot_on_say_everything(steps: list[tuple[str, str]]) -> None:
    ledger = Ledger()
    for what, name in steps:
        ledger.step(what, name)

    assert what_it_says(ledger.read(ledger.memory.snapshot)) == what_it_says(ledger.memory)


@given(STEPS)
def test_an_entry_that_is_read_twice_changes_nothing(steps: list[tuple[str, str]]) -> None:
    ledger = Ledger()
    for what, name in steps:
        ledger.step(what, name)

    assert what_it_says(ledger.read(0, twice=True)) == what_it_says(ledger.memory)


# The sender: deferred messages.


async def test_deferred_messages_neither_fill_memory_nor_hold_their_frames(stage: Stage, world: MemoryWorld) -> None:
    stage.control()
    script = Script(rcpt=lambda line: b"451 4.3.0 later\r\n" if b"late" in line else b"250 ok\r\n")
    async with scripted(script) as server:
        for start in range(0, 200, 20):
            await stage.send(*[f"late{name}" for name in names(20, start)])
        await stage.send(*names(20, 500))
        async with stage.sender(server.endpoint, backlog=40) as running:
            await stage.has_outcomes(20)
            await stage.is_committed(0, 11)
            assert (running.sender._lanes.unfinished, running.sender._lanes.parked) == (0, 200)


async def test_all_deferred_messages_come_back_though_there_is_little_room(stage: Stage, world: MemoryWorld) -> None:
    stage.control()
    script = Script(rcpt=b"451 4.3.0 later\r\n")
    async with scripted(script) as server:
        for start in range(0, 60, 20):
            await stage.send(*names(20, start))
        async with stage.sender(server.endpoint, backlog=40) as running:
            await until(lambda: running.sender._lanes.parked == 60)
            script.rcpt = b"250 ok\r\n"
            stage.clock.advance(3600)
            outcomes = await stage.has_outcomes(60)
            assert running.sender._lanes.resumed <= 10
    assert Counter(outcomes.values()) == {"accepted": 60}
    assert len(server.taken) == 60


async def test_frames_that_are_read_again_do_not_bring_back_who_waits(stage: Stage, world: MemoryWorld) -> None:
    stage.control()
    script = Script(rcpt=b"451 4.3.0 later\r\n")
    async with scripted(script) as server:
        await stage.send("ann", "bob")
        async with stage.sender(server.endpoint):
            await stage.is_committed(0, 1)
        world.broker.committed.clear()
        tried = [line for line in server.heard if line.startswith(b"RCPT")]
        async with stage.sender(server.endpoint) as running:
            await stage.is_committed(0, 1)
            assert running.sender._lanes.parked == 2
        assert [line for line in server.heard if line.startswith(b"RCPT")] == tried


async def test_mail_for_later_does_not_hold_its_frame(stage: Stage, world: MemoryWorld) -> None:
    stage.control()
    async with scripted(Script()) as server:
        await stage.send("ann", not_before=stage.clock.now() + 7_200_000)
        async with stage.sender(server.endpoint):
            await stage.is_committed(0, 1)
        async with stage.sender(server.endpoint):
            await stage.send("bob", partition=1)
            assert await stage.has_outcomes(1) == {"m-bob": "accepted"}
            stage.clock.advance(7_300)
            await stage.has_outcomes(2)
    (result,) = (await stage.told())["m-ann"]
    assert (result.outcome, result.attempt) == ("accepted", 1)


@pytest.mark.parametrize("may_send", [True, False], ids=["sending", "stopped by control"])
async def test_who_waits_too_long_expires(stage: Stage, world: MemoryWorld, may_send: bool) -> None:
    stage.control()
    async with scripted(Script(rcpt=b"451 4.3.0 later\r\n")) as server:
        await stage.send("ann")
        await stage.send("bob", expires_at=stage.clock.now() + 3_600_000)
        async with stage.sender(server.endpoint):
            await stage.is_committed(0, 2)
        stage.control(may_send=may_send)
        stage.clock.advance(3 * DAY_S)
        async with stage.sender(server.endpoint):
            assert await stage.has_outcomes(2) == {"m-ann": "expired", "m-bob": "expired"}
    (*_, last) = (await stage.told())["m-ann"]
    assert last.text == "its time was over before it could be sent"


async def test_mail_for_later_that_expires_before_does_so_in_time(stage: Stage) -> None:
    stage.control()
    async with scripted(Script()) as server:
        now = stage.clock.now()
        await stage.send("ann", not_before=now + 7_200_000, expires_at=now + 3_600_000)
        async with stage.sender(server.endpoint):
            await stage.is_committed(0, 1)
            stage.clock.advance(3_700)
            assert await stage.has_outcomes(1) == {"m-ann": "expired"}


@pytest.mark.parametrize(("in_doubt", "outcome", "copies"), [("hold", "in_doubt", 1), ("resend", "accepted", 2)])
async def test_who_waited_and_is_in_doubt_then_is_treated_as_the_campaign_says(
    stage: Stage, in_doubt: str, outcome: str, copies: int
) -> None:
    stage.campaign(in_doubt=in_doubt)
    stage.control()
    script = Script(rcpt=b"451 4.3.0 later\r\n", dot=SILENCE)
    async with scripted(script) as server:
        await stage.send("ann")
        async with stage.sender(server.endpoint) as running:
            await stage.is_committed(0, 1)
            script.rcpt = b"250 ok\r\n"
            stage.clock.advance(3600)
            await until(lambda: len(server.taken) == 1)
            await running.kill()
        script.dot = b"250 ok\r\n"
        async with stage.sender(server.endpoint):
            assert await stage.has_outcomes(1) == {"m-ann": outcome}
    assert len(server.taken) == copies


async def test_of_a_message_that_was_parked_twice_the_newer_record_comes_back(world: MemoryWorld) -> None:
    ledger, clock = MemoryLedger(world.broker, "l"), MovedClock()
    lane = Lane(0, "t", Memory(), is_open=True)
    soon, later = clock.now() + 300_000, clock.now() + 900_000
    for parked in ([parked_once("ann", soon), parked_once("bob", later)], [parked_once("ann", later, attempts=2)]):
        entry = LedgerEntry(sender="s-0", at=1, parked=parked)
        lane.memory.apply(await ledger.append(0, entry), entry)
    back: dict[str, int] = {}
    resuming = Resuming(
        lanes=[lane],
        ledger=ledger,
        clock=clock,
        most=9,
        enter=lambda job, due: back.update({job.message_id: job.attempts}),
    )
    clock.advance(1_000)
    await resuming._resume(lane)
    assert back == {"ann": 2, "bob": 1}


def parked_once(name: str, due: int, *, attempts: int = 1) -> Parked:
    message = OutboundMessage(message_id=name, address=f"{name}@example.com", address_hash="h")
    return Parked(message=message, content="hello", offset=0, starts_at=0, attempts=attempts, due=due)


# The sender: snapshots.


async def test_a_ledger_is_cut_and_the_next_sender_knows_all_the_same(stage: Stage, world: MemoryWorld) -> None:
    stage.control()
    script = Script(rcpt=lambda line: b"451 4.3.0 later\r\n" if b"late" in line else b"250 ok\r\n")
    async with scripted(script) as server:
        await stage.send(*names(50))
        await stage.send("late1", "late2")
        async with stage.sender(server.endpoint, snapshot_after=10):
            await stage.has_outcomes(50)
            await until(lambda: world.broker.forgotten.get(0, 0) > 0)
        world.broker.committed.clear()  # all of it is read again
        script.rcpt = b"250 ok\r\n"
        async with stage.sender(server.endpoint):
            await stage.is_committed(0, 2)
            stage.clock.advance(3600)
            outcomes = await stage.has_outcomes(52)
    assert Counter(outcomes.values()) == {"accepted": 52}
    assert len(server.taken) == 52


async def test_who_comes_back_to_a_ledger_that_was_cut_meanwhile_begins_anew(stage: Stage, world: MemoryWorld) -> None:
    stage.control()
    async with scripted(Script()) as server:
        await stage.send(*names(20))
        async with stage.sender(server.endpoint, name="s-0", snapshot_after=10**9) as first:
            await stage.has_outcomes(20)
            lane = next(one for one in first.sender._lanes if one.partition == 0)
            await first.inbox.give_up()
            world.broker.members.remove(first.inbox)
            async with stage.sender(server.endpoint, name="s-1", snapshot_after=1):
                await stage.send(*names(20, 100))
                await stage.has_outcomes(40)
                await until(lambda: world.broker.forgotten.get(0, 0) > lane.memory.next_offset)
            world.broker.committed.clear()
            await first.inbox.start(first.sender._lanes)
            await until(lambda: first.sender.is_ready)
            await stage.is_committed(0, 2)
    assert len(server.taken) == 40


async def test_between_the_pieces_of_a_snapshot_other_entries_are_written(world: MemoryWorld) -> None:
    recorder, lane, jobs = await recording(world, names(3))
    writing = asyncio.create_task(recorder.write())
    pieces = asyncio.create_task(_pieces(recorder, lane, 3))
    for job in jobs:
        await recorder.intend(job)
    await pieces
    writing.cancel()
    written = [entry.intents or "piece" for entry in world.broker.ledger[0]]
    assert written == ["piece", ["n0000"], "piece", ["n0001"], "piece", ["n0002"]]


async def _pieces(recorder: Recorder, lane: Lane, count: int) -> None:
    for _ in range(count):
        await recorder.append_piece(lane, lambda: (Snapshot(since=0), []))


async def test_a_partition_that_is_given_up_waits_for_the_piece_on_its_way_and_no_other(
    world: MemoryWorld,
) -> None:
    recorder, lane, _ = await recording(world, names(1))
    world.broker.delay_s = 0.05
    writing = asyncio.create_task(recorder.write())
    pieces = asyncio.create_task(_pieces(recorder, lane, 3))
    await asyncio.sleep(0)
    lane.is_closing = True
    await recorder.drain([lane])
    recorder.close(lane)
    with pytest.raises(PartitionLost):
        await pieces
    given_up = len(world.broker.ledger[0])
    await asyncio.sleep(0.1)  # longer than an entry is on its way
    writing.cancel()
    assert (given_up, len(world.broker.ledger[0])) == (1, 1)


async def test_what_was_written_is_not_told_before_the_group_has_confirmed_the_partition(world: MemoryWorld) -> None:
    recorder, lane, jobs = await recording(world, names(1))
    tasks = [asyncio.create_task(recorder.write()), asyncio.create_task(recorder.publish())]
    ours, strange = recorder._inbox, MemoryInbox(world.broker, "t")  # the second has no partitions
    await recorder.intend(jobs[0])
    world.broker.delay_s = 0.05
    recorder.settle(jobs[0], DeliveryResult(message_id=jobs[0].message_id, outcome="accepted", at=1))
    await asyncio.sleep(0.02)  # the entry is on its way
    recorder._inbox = strange
    await until(lambda: len(world.broker.ledger[0]) == 2)
    await asyncio.sleep(0.2)
    assert await world.results() == []
    recorder._inbox = ours
    async with asyncio.timeout(5):
        await recorder.drain([lane])
    assert [one.results[0].outcome for one in await world.results()] == ["accepted"]
    for task in tasks:
        task.cancel()


async def test_a_partition_that_is_lost_takes_the_piece_along_that_waits_for_it(world: MemoryWorld) -> None:
    recorder, lane, _ = await recording(world, names(1))
    recorder._inbox = MemoryInbox(world.broker, "t")  # it has no partitions
    writing = asyncio.create_task(recorder.write())
    pieces = asyncio.create_task(_pieces(recorder, lane, 1))
    await asyncio.sleep(0.02)
    lane.is_closing = lane.is_lost = True
    async with asyncio.timeout(5):
        await recorder.drain([lane])
        with pytest.raises(PartitionLost):
            await pieces
    writing.cancel()
    assert world.broker.ledger[0] == []


async def test_who_is_stopped_does_not_wait_for_its_snapshot(
    stage: Stage, world: MemoryWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smtp.sending.snapshots._IDS_IN_A_PIECE", 1)  # so that it takes a hundred entries
    stage.control()
    async with scripted(Script()) as server:
        await stage.send(*names(100))
        async with stage.sender(server.endpoint, snapshot_after=100):
            await stage.has_outcomes(100)
            world.broker.delay_s = 0.05
            await until(lambda: any(entry.snapshot for entry in world.broker.ledger[0]))
            asked = time.monotonic()
        assert time.monotonic() - asked < 2
