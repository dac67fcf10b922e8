"""A number for each of millions of hashes, in little memory: 16 octets per slot of open tables.

A dictionary takes about 100 MB per million of the same.  Keys are hashes of 64 bits, so that their low bits are even
enough to choose a place; tables are at most two thirds full.

Where nearly every question is answered with no, a sieve answers it with one look: a bit for each text that was ever put
in.  With a million of them it lets three in a hundred others pass.  Bits are never taken back.
"""

from array import array
from collections.abc import Callable, Iterator, Sequence

_SIEVE_BYTES = 1 << 22  # a power of two; what was never written to costs no memory
_SIEVE_MASK = _SIEVE_BYTES - 1
_BITS = bytes(1 << bit for bit in range(8))

_KEY_MASK = (1 << 63) - 1
_SHARDS = 64  # each grows on its own, so that no insertion ever copies more than a few thousand entries of a million
_SHARD_BITS = 6
_SHARD_MASK = _SHARDS - 1
_SMALLEST = 8  # slots; a power of two, as all later sizes are
_EMPTY = 0
_NO_TABLE = array("Q", (_EMPTY, 0))  # one empty slot; never written to


def key_of(text: str, length: int) -> int:
    """What a text that is random in its first ``length`` characters is kept by; within this process alone."""
    return hash(text[:length]) & _KEY_MASK or 1


class Sieve:
    """Texts that are random in their first ``length`` characters: which of them were surely never put in?"""

    __slots__ = ("_bits", "_length", "is_empty")

    def __init__(self, length: int) -> None:
        self._bits = bytearray(_SIEVE_BYTES)
        self._length = length
        self.is_empty = True

    def __contains__(self, text: str) -> bool:
        place = hash(text[: self._length])
        return bool(self._bits[place >> 3 & _SIEVE_MASK] & _BITS[place & 7])

    def add(self, text: str) -> None:
        """Let it pass from now on."""
        place = hash(text[: self._length])
        self._bits[place >> 3 & _SIEVE_MASK] |= _BITS[place & 7]
        self.is_empty = False

    def passing(self, texts: Sequence[str | None]) -> list[int]:
        """Which of these, by position, may have been put in."""
        if self.is_empty:
            return []
        bits, length = self._bits, self._length
        return [
            position
            for position, one in enumerate(texts)
            if one is not None and bits[(place := hash(one[:length])) >> 3 & _SIEVE_MASK] & _BITS[place & 7]
        ]

    def looking(self) -> Callable[[str], int | None]:
        """The question for one text after the other: its key, if it may have been put in."""
        bits, length, mask, bit = self._bits, self._length, _SIEVE_MASK, _BITS

        def key(text: str) -> int | None:
            place = hash(text[:length])
            return place & _KEY_MASK or 1 if bits[place >> 3 & mask] & bit[place & 7] else None

        return key

    def bytes_used(self) -> int:
        """How much memory it takes at most."""
        return 0 if self.is_empty else _SIEVE_BYTES


class HashedNumbers:
    """Numbers of 64 bits by hashes of 64 bits, of which none is 0."""

    __slots__ = ("_counts", "_tables")

    def __init__(self) -> None:
        self._tables = [_NO_TABLE] * _SHARDS
        self._counts = [0] * _SHARDS

    def __len__(self) -> int:
        return sum(self._counts)

    def __contains__(self, key: int) -> bool:
        return self.get(key) is not None

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for table in self._tables:
            for at in range(0, len(table), 2):
                if table[at] != _EMPTY:
                    yield table[at], table[at + 1]

    def get(self, key: int) -> int | None:
        """The number of a hash, None if it has none."""
        table = self._tables[key & _SHARD_MASK]
        around = len(table) - 2
        at = key >> _SHARD_BITS - 1 & around
        while (found := table[at]) != key:
            if not found:
                return None
            at = at + 2 & around
        return table[at + 1]

    def put(self, key: int, number: int) -> None:
        """Set the number of a hash."""
        shard = key & _SHARD_MASK
        table = self._tables[shard]
        if table is _NO_TABLE:
            table = self._tables[shard] = array("Q", bytes(16 * _SMALLEST))
        if _put(table, key, number):
            self._counts[shard] += 1
            if self._counts[shard] * 3 > len(table):  # two thirds of the slots
                larger = array("Q", bytes(16 * len(table)))
                for at in range(0, len(table), 2):
                    if table[at] != _EMPTY:
                        _put(larger, table[at], table[at + 1])
                self._tables[shard] = larger

    def drop(self, key: int) -> None:
        """Take a hash out; does nothing if it is not in."""
        shard = key & _SHARD_MASK
        table = self._tables[shard]
        around = len(table) - 2
        gap = _home(key, around)
        while (found := table[gap]) != key:
            if found == _EMPTY:
                return
            gap = gap + 2 & around
        self._counts[shard] -= 1
        step = gap
        while True:  # close the gap, so that no search ends early at it (Knuth 6.4, algorithm R)
            step = step + 2 & around
            found = table[step]
            if found == _EMPTY:
                break
            home = _home(found, around)
            if (step - home & around) >= (step - gap & around):
                table[gap], table[gap + 1] = found, table[step + 1]
                gap = step
        table[gap] = table[gap + 1] = _EMPTY

    def bytes_used(self) -> int:
        """How much memory the tables take."""
        return sum(8 * len(table) for table in self._tables if table is not _NO_TABLE)


def _home(key: int, around: int) -> int:
    """Where a hash stands in its table unless others were there before; slots have two places each."""
    return key >> _SHARD_BITS - 1 & around


def _put(table: "array[int]", key: int, number: int) -> bool:
    """Set a number; True when the hash is new."""
    around = len(table) - 2
    at = _home(key, around)
    while (found := table[at]) != _EMPTY:
        if found == key:
            table[at + 1] = number
            return False
        at = at + 2 & around
    table[at], table[at + 1] = key, number
    return True
