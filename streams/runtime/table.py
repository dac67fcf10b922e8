"""Tables that count each event once, and forget what is over.

A value is a list whose first element lists the offsets that it has applied, one per source topic:
``[[results offset, feedback offset], …]``; a table fed by one topic has a list of one.  Values live in memory and in
a compacted changelog topic.

**What recovery keeps.**  The owner of a partition starts from a recovered value and applies events in order, so
each of its writes is greater than or equal to the one before, in every component: it raises the component of the
event's topic and leaves the others.  But the changelog may hold more than one owner's writes, out of order:

1. Worker A owns the partition, has applied up to (15, 5), and is frozen with the writes above (10, 5) still in its
   send buffer.
2. The group gives the partition to B, which recovers (10, 5), reads on from the committed offsets, and writes
   (10, 6), (11, 6), (12, 6); its commit covers feedback 6.
3. A thaws.  Its buffer goes out: (11, 5) … (15, 5) lie *behind* B's writes.  A cannot commit: its generation is over.

Last one wins would keep (15, 5) and lose feedback 6.  Keeping what is greater in every component is not enough
either: had A's (15, 5) come between B's recovery and B's first write, (12, 6) could not replace it.  So the changelog
record carries a term as well, which grows with each owner of the partition; a record of a lower term never replaces
one of a higher, and one of a higher term always replaces.  What is refused may be refused: A could commit nothing
after B began, so whatever A's value has beyond B's is read again by B.  What is taken is complete: B started from all
that was ever committed.

Within one term a record that is behind or cannot be compared never replaces what is held.  One writer's records are
in order, so the rule only meets them when the client sent a batch twice.

A refused record is the last of its key in the log, and compaction would keep it.  So the owner writes the held value
again, as soon as recovery is complete; ``min.compaction.lag.ms`` keeps the cleaner away until then.

**What is forgotten when.**  Faust keeps a heap entry per update, and never expires what it has recovered (#385).
Here each pane has one set of keys, filled by updates and by recovery alike: a pane goes when it ends more than
``expires`` before now, at once after a recovery and every ``table_cleanup_interval`` from then on; keys of partitions
that moved away go at the end of the rebalance.

**When it is written.**  A plain table sends the changelog record of each write at once.  One that is ``lazy`` keeps
them until offsets are about to be committed (:meth:`write_out`), and then sends the newest value of each key: the
pane of a busy minute would else be thousands of records, each outdone by the next.  The promise is the same: what is
not committed comes again, and what is committed was written before.  It is not for tables whose outputs must be the
same when an event comes again: between output and table write a second may pass, and in it the process may end.

**No tombstones.**  An expired pane is not deleted from the changelog; retention does that.  A tombstone that is the
last record of its partition is removed by compaction some time later, and Faust's recovery then waits for an offset
that does not exist (#597).  A tombstone also has no offsets, so a late one cannot be told from a current one.  For
this second reason deleting is refused altogether: write a value that says "none".
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import faust
import structlog
from faust.exceptions import ImproperlyConfigured
from faust.types import TP, EventT
from faust.types.tuples import FutureMessage
from faust.types.windows import WindowT

from streams.terms import covers, replaces

log = structlog.get_logger()

# How often the loop gets a turn while very many keys are dropped.
PANES_PER_TURN = 100

CHANGELOG_CONFIG: Mapping[str, str] = {
    "min.compaction.lag.ms": str(15 * 60 * 1000),  # well above any session timeout, see above
    "segment.ms": str(60 * 60 * 1000),  # the active segment is never compacted, and recovery reads it all
    "segment.bytes": str(32 * 1024 * 1024),
    "min.cleanable.dirty.ratio": "0.2",
    "max.message.bytes": str(8 * 1024 * 1024),
}

Value = list[Any]  # Any: the table's own business, but for value[0]: the offsets that it has applied
Key = Any  # Any: text or a tuple; in a windowed table (key, (start, end))
Pane = float | None  # the end of a pane; None holds all keys of a table without windows


class Mark(NamedTuple):
    """Where a value came from: its partition, and the term in which it was written."""

    partition: int
    term: int


class SafeTable(faust.Table[Any, Any]):  # Any: keys and values as above
    """A table in memory, rebuilt from its changelog exactly as it was; see the module's docstring.

    Write and read it like any Faust table.  For a windowed one, ``put`` and ``at`` choose the pane by a time that
    you give, whatever the time of the event is; both belong to the partition of the event in hand.
    """

    clock: Callable[[], float] = staticmethod(time.time)  # a test moves it by hand

    def __init__(self, *args: Any, lazy: bool = False, **options: Any) -> None:  # Any: handed through to Faust
        options["extra_topic_configs"] = {**CHANGELOG_CONFIG, **(options.get("extra_topic_configs") or {})}
        self._panes: dict[Pane, dict[Key, Mark]] = {}
        self._owned: dict[int, Mark] = {}  # the partitions that are ours, with the mark of what we write now
        self._terms: dict[int, int] = {}  # the highest term seen in each partition
        self._outdone: dict[Key, int] = {}  # keys whose last record in the log was refused, with its partition
        self._is_lazy = lazy
        self._unwritten: dict[Key, Mark] = {}  # keys whose newest value the changelog does not have
        self._writing_out = asyncio.Lock()
        super().__init__(*args, **options)

    # -- panes

    def at(self, key: Key, at_seconds: float) -> Value | None:
        """The value of a key in the pane of a time (seconds since 1970)."""
        value: Value | None = self.data.get((key, self._window.current(at_seconds)))
        return value

    def put(self, key: Key, at_seconds: float, value: Value) -> None:
        """Write the value of a key into the pane of a time, in the partition of the event in hand."""
        self[(key, self._window.current(at_seconds))] = value

    def keeps(self, at_seconds: float) -> bool:
        """Whether the pane of a time is still held, or has expired."""
        return not self._window.stale(self._window.current(at_seconds)[1], self.clock())

    def owned(self, *, since: float | None = None) -> Iterator[tuple[Key, Value]]:
        """Keys and values of the partitions that this worker owns; nothing during a rebalance.

        For pages and timers: the memory store alone also shows what another worker has long moved on.  In a
        windowed table a key is ``(key, (start, end))``, and ``since`` leaves out panes that end before it.
        """
        for pane, marks in list(self._panes.items()):
            if since is not None and pane is not None and pane < since:
                continue
            for key, mark in list(marks.items()):
                value = self.data.get(key)
                if value is not None and mark.partition in self._owned:
                    yield key, value

    @property
    def owned_partitions(self) -> frozenset[int]:
        """The partitions that this worker owns; empty during a rebalance."""
        return frozenset(self._owned)

    @property
    def _window(self) -> WindowT:
        if self.window is None:
            raise ImproperlyConfigured(f"table {self.name} has no windows")
        return self.window

    # -- writing

    def on_key_set(self, key: Key, value: Value) -> None:
        """Send the changelog record of a write; refuse one that would go back in any component."""
        held = self.data.get(key)
        if held is not None and not covers(value[0], held[0]):
            raise ValueError(f"table {self.name}: offsets {value[0]} do not cover {held[0]}, which are applied")
        partition = self.partition_for_key(key)
        if partition is None:
            raise ImproperlyConfigured(f"table {self.name}: use_partitioner leaves the partition of the event")
        mark = self._owned.get(partition) or Mark(partition, 0)  # 0: no owner, so any record outdoes it
        if self._is_lazy:
            self._hold(key, mark)
            self._unwritten[key] = mark
        else:
            self._write(key, value, mark)
        self._sensor_on_set(self, key, value)

    def on_key_del(self, key: Key) -> None:
        """Refuse; see "No tombstones" in the module's docstring."""
        raise TypeError(f"table {self.name} does not delete; write a value that says so")

    def on_clear(self) -> None:
        """Refuse; see ``on_key_del``."""
        raise TypeError(f"table {self.name} does not delete; write values that say so")

    async def write_out(self) -> None:
        """Send the changelog records that a lazy table still owes; whoever commits offsets does this before."""
        async with self._writing_out:  # a second one must not find nothing to do while the first is half way
            unwritten, self._unwritten = self._unwritten, {}
            for number, (key, mark) in enumerate(unwritten.items(), start=1):
                self._write_newest(key, mark)
                if number % PANES_PER_TURN == 0:
                    await asyncio.sleep(0)

    def _write_newest(self, key: Key, mark: Mark) -> None:
        value = self.data.get(key)
        if value is not None:  # else it has expired
            self.send_changelog(mark.partition, key, [mark.term, value])

    def _write(self, key: Key, value: Value, mark: Mark) -> FutureMessage:
        self._hold(key, mark)
        return self.send_changelog(mark.partition, key, [mark.term, value])

    def _hold(self, key: Key, mark: Mark) -> None:
        self._panes.setdefault(_pane(key, self.window), {})[key] = mark

    # -- recovery

    async def on_start(self) -> None:
        """Insist on the memory store: one that survives the process may be ahead of the changelog."""
        if (self._store or self.app.conf.store).scheme != "memory":
            raise ImproperlyConfigured(f"table {self.name} needs store=memory://")
        await super().on_start()

    def apply_changelog_batch(self, batch: Iterable[EventT[Any]]) -> None:
        """Take over the records that advance what is held, in the order of the log."""
        for event in batch:
            key = self._to_key(event.key)
            pane = _pane(key, self.window)
            if event.value is None:  # not ours: an operator's repair
                self.data.pop(key, None)
                self._panes.get(pane, {}).pop(key, None)
                continue
            written: Any = event.value  # Any: decoded JSON of what _write sent
            term, value = written
            new = Mark(event.message.partition, term)
            self._terms[new.partition] = max(term, self._terms.get(new.partition, 0))
            marks = self._panes.setdefault(pane, {})
            if _advances(value, new, self.data.get(key), marks.get(key)):
                self.data[key] = value
                marks[key] = new
                self._outdone.pop(key, None)
            else:
                self._outdone[key] = new.partition

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        """Own nothing until recovery is complete; what is held is written, for it will not be applied again."""
        for key, mark in self._unwritten.items():
            self._write_newest(key, mark)
        self._unwritten.clear()
        self._owned.clear()
        await super().on_rebalance(assigned, revoked, newly_assigned, generation_id)

    async def on_recovery_completed(self, active_tps: set[TP], standby_tps: set[TP]) -> None:
        """Begin a new term for each partition, drop what is not ours or over, mend what was outdone."""
        try:
            self._begin_terms({tp.partition for tp in active_tps})
            await self._drop_moved()
            await self._del_old_keys()
            self._write_outdone_again()
            await super().on_recovery_completed(active_tps, standby_tps)
        except Exception as error:  # Faust looks at nothing that this raises, and would go on without the table
            await self.crash(error)
            raise

    def _begin_terms(self, partitions: set[int]) -> None:
        """A term above all that the changelog shows, and above those of owners that have not written yet.

        The clock is for the second: an owner that was cut off before it wrote anything began at least a session
        timeout ago.  A clock that is wrong by less than that does no harm; the first rule does not need it.
        """
        now = int(self.clock() * 1000)
        for partition in partitions:
            term = max(now, self._terms.get(partition, 0) + 1)
            self._terms[partition] = term
            self._owned[partition] = Mark(partition, term)

    async def _drop_moved(self) -> None:
        """Forget the keys of partitions that another worker owns now."""
        for pane, marks in list(self._panes.items()):
            moved = [key for key, mark in marks.items() if mark.partition not in self._owned]
            for key in moved:
                del marks[key]
                self.data.pop(key, None)
            if not marks:
                del self._panes[pane]
            if moved:
                await asyncio.sleep(0)
        self._terms = {partition: mark.term for partition, mark in self._owned.items()}

    def _write_outdone_again(self) -> None:
        """Make the held value the last of its key in the log, where a late record is now."""
        outdone, self._outdone = self._outdone, {}
        late = 0
        for key, partition in outdone.items():
            value, mark = self.data.get(key), self._owned.get(partition)
            if value is not None and mark is not None:
                self._write(key, value, mark)
                late += 1
        if late:
            log.warning("late table writes set aside", table=self.name, keys=late)

    # -- expiry

    async def _del_old_keys(self) -> None:
        """Forget panes that are over; Faust calls this every ``table_cleanup_interval``."""
        if not self._should_expire_keys():
            return
        now = self.clock()
        over = [pane for pane in self._panes if pane is not None and self._window.stale(pane, now)]
        for number, pane in enumerate(over, start=1):
            for key in self._panes.pop(pane):
                self.data.pop(key, None)
            if number % PANES_PER_TURN == 0:
                await asyncio.sleep(0)


def _pane(key: Key, window: WindowT | None) -> Pane:
    return None if window is None else float(key[1][1])


def _advances(value: Value, new: Mark, held: Value | None, mark: Mark | None) -> bool:
    """Whether a changelog record replaces what is held of its key; the module's docstring says why."""
    return held is None or mark is None or replaces(new.term, value[0], mark.term, held[0])
