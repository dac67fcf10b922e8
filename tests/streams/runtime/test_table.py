"""What a table holds after any history of owners, crashes and late writes; and what it forgets.

Owners here are tables in one process; the changelog is a list.  Nothing else is replaced.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from faust.exceptions import ImproperlyConfigured
from faust.types import TP
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.runtime import SafeApp, SafeTable

HOUR = 3600.0
NOON = 1_700_000_000.0 - 1_700_000_000.0 % 60


@dataclass
class Clock:
    """Time that moves when told."""

    now: float = NOON

    def __call__(self) -> float:
        return self.now


@dataclass
class Log:
    """A changelog: partition, key and value, as JSON made them."""

    records: list[tuple[int, Any, Any]] = field(default_factory=list)

    def add(self, partition: int, key: Any, value: Any) -> None:
        self.records.append((partition, json.loads(json.dumps(key)), json.loads(json.dumps(value))))

    def compacted(self) -> "Log":
        last = {(partition, json.dumps(key)): number for number, (partition, key, _) in enumerate(self.records)}
        return Log([self.records[number] for number in sorted(last.values())])

    def events(self) -> Iterable[Any]:
        for partition, key, value in self.records:
            yield SimpleNamespace(key=key, value=value, message=SimpleNamespace(partition=partition))


class Table(SafeTable):
    """A table whose events come from the test, and whose writes wait in a buffer until the test sends them."""

    def __init__(self, app: SafeApp, clock: Clock, **options: Any) -> None:
        super().__init__(app, name="counts", partitions=4, **options)
        self.clock = clock
        self.in_hand = 0  # the partition of the event in hand
        self.buffer: list[tuple[int, Any, Any]] = []

    def partition_for_key(self, key: Any) -> int:
        return self.in_hand

    def send_changelog(self, partition: Any, key: Any, value: Any, *_serializers: Any) -> Any:
        self.buffer.append((partition, key, json.loads(json.dumps(value))))

    def send(self, log: Log, count: int | None = None) -> None:
        """Let some of the buffered writes, or all of them, reach the log."""
        out, self.buffer = self.buffer[:count], self.buffer[len(self.buffer) if count is None else count :]
        for record in out:
            log.add(*record)

    async def recover(self, log: Log, partitions: Iterable[int] = (0,)) -> None:
        """What Faust's recovery does at the end of a rebalance."""
        changelog = {TP("changelog", partition) for partition in partitions}
        await self.on_rebalance(changelog, set(), changelog)
        self.apply_changelog_batch([event for event in log.events() if event.message.partition in set(partitions)])
        await self.on_recovery_completed(changelog, set())


@pytest.fixture
def app() -> SafeApp:
    return SafeApp("tests", broker="kafka://127.0.0.1:1")


@pytest.fixture
def clock() -> Clock:
    return Clock()


def panes(app: SafeApp, clock: Clock) -> Table:
    table = Table(app, clock)
    table.tumbling(60, expires=HOUR)
    return table


# -- any history


SOURCES = ("results", "feedback")


@dataclass
class Owner:
    """A worker: its table, and how far it has read each source."""

    table: Table
    read: dict[str, int]

    def apply(self, source: str) -> None:
        """Count the next event of a source; every third one is about the other key."""
        offset = self.read[source]
        key = "a" if offset % 3 else "b"
        which = SOURCES.index(source)
        applied, counts = self.table.data.get(key) or [[-1, -1], [0, 0]]
        if offset > applied[which]:
            applied, counts = list(applied), list(counts)
            applied[which], counts[which] = offset, counts[which] + 1
            self.table[key] = [applied, counts]
        self.read[source] = offset + 1


apply = st.tuples(st.just("apply"), st.sampled_from(SOURCES), st.integers(1, 4))
send = st.tuples(st.just("send"), st.integers(0, 4))
commit = st.tuples(st.just("commit"))
late_apply = st.tuples(st.just("late apply"), st.sampled_from(SOURCES))
late_send = st.tuples(st.just("late send"), st.integers(1, 6))
reigns = st.lists(
    st.tuples(st.lists(apply | send | commit | late_apply | late_send, min_size=1, max_size=12), st.booleans()),
    min_size=1,
    max_size=4,
)


class History:
    """Workers that follow each other as the owner of a partition, cut off in the middle of their work."""

    def __init__(self, *, lazy: bool) -> None:
        self.lazy = lazy
        self.app = SafeApp("tests", broker="kafka://127.0.0.1:1")
        self.clock = Clock()
        self.log = Log()
        self.committed = dict.fromkeys(SOURCES, 0)
        self.zombie: Owner | None = None  # a worker that was cut off and does not know it yet

    async def successor(self, log: Log) -> Owner:
        self.clock.now += 5
        table = Table(self.app, self.clock, lazy=self.lazy)
        await table.recover(log)
        return Owner(table, dict(self.committed))

    async def step(self, owner: Owner, step: tuple[Any, ...]) -> None:
        match step:
            case ("apply", source, times):
                for _ in range(times):
                    owner.apply(source)
            case ("send", count):
                owner.table.send(self.log, count)
            case ("commit",):
                await owner.table.write_out()
                owner.table.send(self.log)
                self.committed = dict(owner.read)
            case ("late apply", source) if self.zombie:
                self.zombie.apply(source)
            case ("late send", count) if self.zombie:
                await self.zombie.table.write_out()
                self.zombie.table.send(self.log, count)


@pytest.mark.parametrize("lazy", [False, True], ids=["written at once", "written when committed"])
@given(reigns=reigns)
@settings(max_examples=400)
async def test_no_history_of_owners_and_late_writes_loses_or_doubles_anything(
    reigns: list[tuple[list[tuple[Any, ...]], bool]],
    lazy: bool,
) -> None:
    history = History(lazy=lazy)
    owner = await history.successor(history.log)
    for steps, thaws in reigns:
        for step in steps:
            await history.step(owner, step)
        history.zombie = owner if thaws else history.zombie
        owner = await history.successor(history.log)
    await owner.table.write_out()
    owner.table.send(history.log)  # what it has written again
    for log in (history.log, history.log.compacted()):
        heir = await history.successor(log)
        for source in SOURCES:
            while heir.read[source] < 60:
                heir.apply(source)
        assert {key: value[1] for key, value in heir.table.data.items()} == {"a": [40, 40], "b": [20, 20]}


# -- single rules


async def test_an_older_value_never_replaces_a_newer_one_of_the_same_term(app: SafeApp, clock: Clock) -> None:
    log = Log()
    for offsets in ([3, 1], [4, 1], [3, 1], [2, 9]):
        log.add(0, "k", [7, [offsets, offsets]])
    table = Table(app, clock)
    await table.recover(log)
    assert table["k"] == [[4, 1], [4, 1]]


async def test_a_record_of_an_earlier_owner_never_replaces_a_later_owners(app: SafeApp, clock: Clock) -> None:
    log = Log([(0, "k", [8, [[12, 6], "later"]]), (0, "k", [7, [[15, 5], "earlier"]])])
    table = Table(app, clock)
    await table.recover(log)
    assert table["k"] == [[12, 6], "later"]


async def test_a_later_owners_record_replaces_what_an_earlier_one_wrote_late(app: SafeApp, clock: Clock) -> None:
    log = Log([(0, "k", [7, [[15, 5], "earlier"]]), (0, "k", [8, [[12, 6], "later"]])])
    table = Table(app, clock)
    await table.recover(log)
    assert table["k"] == [[12, 6], "later"]


async def test_a_late_record_is_written_over_for_the_sake_of_compaction(app: SafeApp, clock: Clock) -> None:
    log = Log([(0, "k", [8, [[12], "later"]]), (0, "k", [7, [[11], "earlier"]])])
    table = Table(app, clock)
    await table.recover(log)
    table.send(log)
    after = Table(app, clock)
    await after.recover(log.compacted())
    assert after["k"] == [[12], "later"]


async def test_a_term_is_above_all_that_were_seen_whatever_the_clock_says(app: SafeApp, clock: Clock) -> None:
    ahead = int(clock.now * 1000) + 10_000_000
    log = Log([(0, "k", [ahead, [[1], 1]])])
    table = Table(app, clock)
    await table.recover(log)
    table["k"] = [[2], 2]
    assert table.buffer == [(0, "k", [ahead + 1, [[2], 2]])]


async def test_a_write_that_goes_back_is_refused(app: SafeApp, clock: Clock) -> None:
    table = Table(app, clock)
    await table.recover(Log())
    table["k"] = [[5, 5], 1]
    with pytest.raises(ValueError, match="do not cover"):
        table["k"] = [[6, 4], 2]


async def test_a_lazy_table_writes_the_newest_value_of_each_key_and_each_once(app: SafeApp, clock: Clock) -> None:
    table = Table(app, clock, lazy=True)
    await table.recover(Log())
    for offset in range(3):
        table["a"] = [[offset], offset]
    table["b"] = [[2], "b"]

    assert table.buffer == []
    await table.write_out()
    await table.write_out()

    assert [(key, value[1]) for _, key, value in table.buffer] == [("a", [[2], 2]), ("b", [[2], "b"])]


async def test_a_lazy_table_writes_what_it_holds_before_it_hands_over(app: SafeApp, clock: Clock) -> None:
    table = Table(app, clock, lazy=True)
    await table.recover(Log())
    table["a"] = [[0], 1]

    await table.on_rebalance(set(), {TP("changelog", 0)}, set())

    assert [value[1] for _, _, value in table.buffer] == [[[0], 1]]


async def test_a_source_may_be_added_to_the_list(app: SafeApp, clock: Clock) -> None:
    table = Table(app, clock)
    await table.recover(Log([(0, "k", [7, [[5], 1]])]))
    table["k"] = [[5, 0], 2]
    assert table["k"] == [[5, 0], 2]


@pytest.mark.parametrize("delete", [lambda t: t.pop("k"), lambda t: t.clear()], ids=["pop", "clear"])
async def test_deleting_is_refused(app: SafeApp, clock: Clock, delete: Any) -> None:
    table = Table(app, clock)
    await table.recover(Log())
    table["k"] = [[5], 1]
    with pytest.raises(TypeError, match="does not delete"):
        delete(table)


async def test_a_tombstone_that_an_operator_wrote_is_obeyed(app: SafeApp, clock: Clock) -> None:
    table = Table(app, clock)
    await table.recover(Log([(0, "k", [7, [[5], 1]]), (0, "k", None)]))
    assert list(table.owned()) == []


async def test_a_store_on_disk_is_refused(clock: Clock) -> None:
    app = SafeApp("tests", broker="kafka://127.0.0.1:1", store="rocksdb://")
    with pytest.raises(ImproperlyConfigured, match="memory"):
        await Table(app, clock).on_start()


@pytest.mark.parametrize(
    "option",
    [{"processing_guarantee": "exactly_once"}, {"consumer_auto_offset_reset": "latest"}, {"producer_threaded": True}],
    ids=lambda option: next(iter(option)),
)
def test_settings_that_break_the_promise_are_refused(option: dict[str, Any]) -> None:
    with pytest.raises(ImproperlyConfigured):
        SafeApp("tests", **option)


# -- ownership


async def test_only_owned_partitions_are_shown(app: SafeApp, clock: Clock) -> None:
    log = Log([(p, f"k{p}", [7, [[5], p]]) for p in range(4)])
    table = Table(app, clock)
    await table.recover(log, partitions=range(4))
    await table.recover(log, partitions=[1, 2])
    assert sorted(key for key, _ in table.owned()) == ["k1", "k2"]
    assert table.owned_partitions == {1, 2}


async def test_what_moved_away_is_forgotten(app: SafeApp, clock: Clock) -> None:
    table = Table(app, clock)
    await table.recover(Log(), partitions=[0, 1])
    table["mine"] = [[1], 1]
    table.in_hand = 1
    table["theirs"] = [[1], 1]
    await table.recover(Log(), partitions=[0])
    assert dict(table.data) == {"mine": [[1], 1]}


async def test_nothing_is_owned_while_a_rebalance_lasts(app: SafeApp, clock: Clock) -> None:
    table = Table(app, clock)
    await table.recover(Log())
    table["k"] = [[1], 1]
    await table.on_rebalance({TP("changelog", 0)}, set(), set())
    assert list(table.owned()) == []


# -- panes


async def test_a_pane_is_chosen_by_the_time_that_is_given(app: SafeApp, clock: Clock) -> None:
    table = panes(app, clock)
    await table.recover(Log())
    table.put("k", NOON - 90, [[1], "earlier"])
    table.put("k", NOON, [[1], "now"])
    assert table.at("k", NOON - 61) == [[1], "earlier"]
    assert table.at("k", NOON + 59) == [[1], "now"]
    assert table.at("k", NOON + 60) is None


async def test_panes_survive_recovery(app: SafeApp, clock: Clock) -> None:
    log = Log()
    table = panes(app, clock)
    await table.recover(log)
    table.put(("campaign", "provider"), NOON, [[1], 1])
    table.send(log)
    after = panes(app, clock)
    await after.recover(log)
    assert after.at(("campaign", "provider"), NOON) == [[1], 1]


async def test_a_pane_is_forgotten_when_it_is_over(app: SafeApp, clock: Clock) -> None:
    table = panes(app, clock)
    await table.recover(Log())
    table.put("k", NOON, [[1], 1])
    assert table.keeps(NOON)
    clock.now += HOUR + 180
    await table._del_old_keys()
    assert not table.keeps(NOON)
    assert not table.data
    assert not table._panes


async def test_a_recovered_pane_is_forgotten_too(app: SafeApp, clock: Clock) -> None:
    log = Log()
    table = panes(app, clock)
    await table.recover(log)
    table.put("k", NOON, [[1], 1])
    table.send(log)
    after = panes(app, clock)
    await after.recover(log)
    clock.now += HOUR + 180
    await after._del_old_keys()
    assert not after.data


async def test_what_is_over_at_recovery_is_not_held_at_all(app: SafeApp, clock: Clock) -> None:
    log = Log()
    table = panes(app, clock)
    await table.recover(log)
    table.put("k", NOON, [[1], 1])
    table.send(log)
    clock.now += HOUR + 180
    after = panes(app, clock)
    await after.recover(log)
    assert not after.data


async def test_no_tombstone_is_written_for_a_pane_that_is_over(app: SafeApp, clock: Clock) -> None:
    table = panes(app, clock)
    await table.recover(Log())
    table.put("k", NOON, [[1], 1])
    table.buffer.clear()
    clock.now += HOUR + 180
    await table._del_old_keys()
    assert table.buffer == []


async def test_a_thousand_updates_of_a_pane_leave_one_entry(app: SafeApp, clock: Clock) -> None:
    table = panes(app, clock)
    await table.recover(Log())
    for offset in range(1000):
        table.put("k", NOON, [[offset], offset])
    assert sum(len(keys) for keys in table._panes.values()) == 1
    assert not table._partition_timestamps
    assert not table._partition_timestamp_keys


async def test_panes_can_be_listed_from_a_time_on(app: SafeApp, clock: Clock) -> None:
    table = panes(app, clock)
    await table.recover(Log())
    for age in (0, 60, 120):
        table.put("k", NOON - age, [[1], age])
    assert sorted(value[1] for _, value in table.owned(since=NOON - 60)) == [0, 60]
