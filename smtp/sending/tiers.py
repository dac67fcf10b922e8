"""Where the messages are that wait for a later attempt: in the ledger; here stand only place and time of each.

A million waiting messages take 24 to 48 MB: 16 octets per slot of an open table (hash; offset of the ledger entry and
minute in one number), and 8 per message in the list of its minute.  What a message says is read back from the ledger
when its minute has come.
"""

from array import array
from collections.abc import Iterator

_SHARDS = 64
_SMALLEST = 8  # slots
_EMPTY = 0
_MINUTE_BITS = 26  # minutes since the epoch, until the year 2097
_MINUTE_MASK = (1 << _MINUTE_BITS) - 1
_MINUTE_MS = 60_000


class Tiers:
    """Hashes of waiting messages; each with the entry that holds it and the minute in which it is due."""

    __slots__ = ("_counts", "_minutes", "_tables")

    def __init__(self) -> None:
        self._tables = [array("Q", bytes(16 * _SMALLEST)) for _ in range(_SHARDS)]
        self._counts = [0] * _SHARDS
        self._minutes: dict[int, array[int]] = {}

    def __len__(self) -> int:
        return sum(self._counts)

    def __contains__(self, key: int) -> bool:
        return self._slot(key) is not None

    def put(self, key: int, offset: int, *, due: int) -> None:
        """A message waits until ``due`` (ms); the entry at ``offset`` holds it."""
        minute = min(due // _MINUTE_MS, _MINUTE_MASK)
        self._set(key, offset << _MINUTE_BITS | minute)
        self._minutes.setdefault(minute, array("Q")).append(key)

    def carry(self, key: int, offset: int, *, due: int) -> None:
        """A newer entry holds a message that has waited before, as it was; it may be out for delivery just now."""
        if key in self:
            self._set(key, offset << _MINUTE_BITS | min(due // _MINUTE_MS, _MINUTE_MASK))
        else:
            self.put(key, offset, due=due)

    def drop(self, key: int) -> None:
        """A message waits no more; does nothing if it never did."""
        at = self._slot(key)
        if at is None:
            return
        shard = key % _SHARDS
        table = self._tables[shard]
        self._counts[shard] -= 1
        slots = len(table) // 2
        gap = at // 2
        step = gap
        while True:  # close the gap, so that no search ends early at it (Knuth 6.4, algorithm R)
            step = (step + 1) % slots
            found = table[2 * step]
            if found == _EMPTY:
                break
            home = (found // _SHARDS) % slots
            if (step - home) % slots >= (step - gap) % slots:
                table[2 * gap], table[2 * gap + 1] = found, table[2 * step + 1]
                gap = step
        table[2 * gap] = table[2 * gap + 1] = _EMPTY

    def offset_of(self, key: int) -> int | None:
        """The entry that holds a message; None if it does not wait."""
        at = self._slot(key)
        return None if at is None else self._tables[key % _SHARDS][at + 1] >> _MINUTE_BITS

    def take(self, now: int, *, most: int) -> list[int]:
        """Up to ``most`` messages whose minute has come by ``now`` (ms), earliest first; each is handed out once."""
        taken: list[int] = []
        for minute in sorted(minute for minute in self._minutes if minute * _MINUTE_MS <= now):
            waiting = self._minutes[minute]
            while waiting and len(taken) < most:
                key = waiting.pop()
                at = self._slot(key)
                if at is not None and self._tables[key % _SHARDS][at + 1] & _MINUTE_MASK == minute:
                    taken.append(key)
            if waiting:
                break
            del self._minutes[minute]
        return taken

    def rewind(self) -> None:
        """Hand out everything anew: what was handed out and is waiting still is nobody's any more."""
        self._minutes.clear()
        for key, value in self._items():
            self._minutes.setdefault(value & _MINUTE_MASK, array("Q")).append(key)

    def held_before(self, offset: int) -> "array[int]":
        """The messages that are held by entries before an offset, in the order of their entries."""
        old = sorted((value >> _MINUTE_BITS, key) for key, value in self._items() if value >> _MINUTE_BITS < offset)
        return array("Q", (key for _, key in old))

    def _items(self) -> Iterator[tuple[int, int]]:
        for table in self._tables:
            for at in range(0, len(table), 2):
                if table[at] != _EMPTY:
                    yield table[at], table[at + 1]

    def _slot(self, key: int) -> int | None:
        table = self._tables[key % _SHARDS]
        slots = len(table) // 2
        at = (key // _SHARDS) % slots
        while (found := table[2 * at]) != _EMPTY:
            if found == key:
                return 2 * at
            at = (at + 1) % slots
        return None

    def _set(self, key: int, value: int) -> None:
        shard = key % _SHARDS
        if _put(self._tables[shard], key, value):
            self._counts[shard] += 1
            if self._counts[shard] * 3 > len(self._tables[shard]):  # two thirds of the slots
                self._grow(shard)

    def _grow(self, shard: int) -> None:
        table = self._tables[shard]
        larger = array("Q", bytes(16 * len(table)))
        for at in range(0, len(table), 2):
            if table[at] != _EMPTY:
                _put(larger, table[at], table[at + 1])
        self._tables[shard] = larger


def _put(table: "array[int]", key: int, value: int) -> bool:
    """Set a value; True when the key is new."""
    slots = len(table) // 2
    at = (key // _SHARDS) % slots
    while (found := table[2 * at]) != _EMPTY:
        if found == key:
            table[2 * at + 1] = value
            return False
        at = (at + 1) % slots
    table[2 * at], table[2 * at + 1] = key, value
    return True
