"""A number for each of millions of hashes, in little memory: 16 octets per slot of open tables.

A dictionary takes about 100 MB per million of the same.  Keys are hashes of 64 bits, so that their low bits are even
enough to choose a place; tables are at most two thirds full.

Where nearly every question is answered with no, a sieve answers it with one look: a bit for each text that was ever put
in.  With a million of them it lets three in a hundred others pass.  Bits are never taken back.

Texts are known by Python's own hash of them, which differs from process to process: nothing of this is ever stored.
"""

from array import array
from collections.abc import Iterator, Sequence
from typing import Literal

LOW_BITS = (1 << 30) - 1  # all that chooses a place: Python computes with so few bits in half the time
BYTE_FROM = 8  # of the low bits: which byte of a sieve
BITS = bytes(1 << bit for bit in range(8))
SHARD = 63  # of the low bits: which table; each grows on its own, so that no insertion copies many entries
SLOT_FROM = 5  # of the low bits: which slot of a table, in steps of two

_SIEVE_BYTES = LOW_BITS + 1 >> BYTE_FROM
_NO_BITS = bytes(_SIEVE_BYTES)  # of all sieves in which nothing is; never written to, so that it costs no memory
_SMALLEST = 8  # slots; a power of two, as all later sizes are
_EMPTY = 0
_NO_TABLE = array("Q", (_EMPTY, 0))  # one empty slot; never written to


class Sieve:
    """Which of some texts were surely never put in?"""

    __slots__ = ("bits",)

    def __init__(self) -> None:
        self.bits: bytes | bytearray = _NO_BITS

    def __contains__(self, text: str) -> bool:
        low = hash(text) & LOW_BITS
        return bool(self.bits[low >> BYTE_FROM] & BITS[low & 7])

    @property
    def is_empty(self) -> bool:
        """Was nothing ever put in?"""
        return self.bits is _NO_BITS

    def add(self, text: str) -> None:
        """Let it pass from now on."""
        bits = self.bits
        if not isinstance(bits, bytearray):
            self.bits = bits = bytearray(_SIEVE_BYTES)
        low = hash(text) & LOW_BITS
        bits[low >> BYTE_FROM] |= BITS[low & 7]

    def passing(self, texts: Sequence[str | None]) -> list[int]:
        """Which of these, by position, may have been put in."""
        if self.is_empty:
            return []
        bits = self.bits
        return [
            position
            for position, one in enumerate(texts)
            if one is not None and bits[(low := hash(one) & LOW_BITS) >> BYTE_FROM] & BITS[low & 7]
        ]

    def bytes_used(self) -> int:
        """How much memory it takes at most."""
        return 0 if self.is_empty else _SIEVE_BYTES


class HashedNumbers:
    """Numbers of 64 bits by hashes of 64 bits, of which none is 0; ``signed``: both have a sign, as ``hash()`` has.

    Of ``tables``, each slot is a hash and behind it its number; 0 and 0 is an empty one, which ends a search.
    """

    __slots__ = ("_counts", "_kind", "tables")

    def __init__(self, *, signed: bool = False) -> None:
        self._kind: Literal["q", "Q"] = "q" if signed else "Q"
        self.tables = [_NO_TABLE] * (SHARD + 1)
        self._counts = [0] * (SHARD + 1)

    def __len__(self) -> int:
        return sum(self._counts)

    def __contains__(self, key: int) -> bool:
        return self.get(key) is not None

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for table in self.tables:
            for at in range(0, len(table), 2):
                if table[at] != _EMPTY:
                    yield table[at], table[at + 1]

    def get(self, key: int) -> int | None:
        """The number of a hash, None if it has none."""
        low = key & LOW_BITS
        table = self.tables[low & SHARD]
        around = len(table) - 2
        at = low >> SLOT_FROM & around
        while found := table[at]:
            if found == key:
                return table[at + 1]
            at = at + 2 & around
        return None

    def put(self, key: int, number: int) -> None:
        """Set the number of a hash."""
        shard = key & SHARD
        table = self.tables[shard]
        if table is _NO_TABLE:
            table = self.tables[shard] = array(self._kind, bytes(16 * _SMALLEST))
        if _put(table, key, number):
            self._counts[shard] += 1
            if self._counts[shard] * 3 > len(table):  # two thirds of the slots
                larger = array(self._kind, bytes(16 * len(table)))
                for at in range(0, len(table), 2):
                    if table[at] != _EMPTY:
                        _put(larger, table[at], table[at + 1])
                self.tables[shard] = larger

    def drop(self, key: int) -> None:
        """Take a hash out; does nothing if it is not in."""
        shard = key & SHARD
        table = self.tables[shard]
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
        return sum(8 * len(table) for table in self.tables if table is not _NO_TABLE)


def _home(key: int, around: int) -> int:
    """Where a hash stands in its table unless others were there before; slots have two places each."""
    return (key & LOW_BITS) >> SLOT_FROM & around


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
