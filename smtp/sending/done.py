"""Sets of message ids that only grow, small enough for millions: 8 octets of hash per id in open tables.

A Python set of the same hashes takes 70 to 100 MB per million, this one about 16 MB.  Of a million ids any two
share a hash with a probability of 3 in 10^8; such a message would be taken for one that was sent already.

Ids are forgotten when nothing can bring them back.  A request can be read again for 14 days, and the frame that comes
of it for 14 more; so ids are kept by periods of ten days, and a period is dropped when it ended 30 days ago.
"""

import sys
from array import array
from collections.abc import Iterable, Iterator
from hashlib import blake2b

PERIOD_MS = 10 * 86_400_000
KEPT_MS = 30 * 86_400_000
_PERIODS_KEPT = 4  # at least: a clock that jumps to a far day and back makes nobody forget
_SHARDS = 256  # each grows on its own, so that no insertion ever copies more than a few thousand entries
_SMALLEST = 16
_EMPTY = 0


def id_hash(message_id: str) -> int:
    """64 bits of a message id's hash, never 0."""
    digest = blake2b(message_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") or 1


class DoneIds:
    """A set of id hashes: open addressing with linear probing, at most two thirds full."""

    __slots__ = ("_counts", "_tables")

    def __init__(self) -> None:
        self._tables = [array("Q", bytes(8 * _SMALLEST)) for _ in range(_SHARDS)]
        self._counts = [0] * _SHARDS

    def __len__(self) -> int:
        return sum(self._counts)

    def __contains__(self, key: int) -> bool:
        table = self._tables[key & 0xFF]
        mask = len(table) - 1
        at = (key >> 8) & mask
        while (found := table[at]) != _EMPTY:
            if found == key:
                return True
            at = (at + 1) & mask
        return False

    def add(self, key: int) -> None:
        """Put a hash in; twice is the same as once."""
        shard = key & 0xFF
        table = self._tables[shard]
        if not _put(table, key):
            return
        self._counts[shard] += 1
        if self._counts[shard] * 3 > len(table) * 2:
            larger = array("Q", bytes(16 * len(table)))
            for one in table:
                if one != _EMPTY:
                    _put(larger, one)
            self._tables[shard] = larger

    def runs(self, ids: int) -> Iterator[tuple[int, int]]:
        """The shards in runs of about so many ids."""
        each = max(1, ids * _SHARDS // max(1, len(self)))
        for first in range(0, _SHARDS, each):
            yield first, min(first + each, _SHARDS)

    def packed(self, run: tuple[int, int]) -> bytes:
        """The hashes of a run of shards as they are now, little endian."""
        found = array("Q")
        for table in self._tables[slice(*run)]:
            found.extend(filter(None, table))
        return little_endian(found)

    def bytes_used(self) -> int:
        """How much memory the tables take."""
        return sum(8 * len(table) for table in self._tables)


def _put(table: "array[int]", key: int) -> bool:
    mask = len(table) - 1
    at = (key >> 8) & mask
    while (found := table[at]) != _EMPTY:
        if found == key:
            return False
        at = (at + 1) & mask
    table[at] = key
    return True


class Remembered:
    """The messages that are done, by the period in which they were."""

    __slots__ = ("_periods",)

    def __init__(self) -> None:
        self._periods: dict[int, DoneIds] = {}  # in the order of time

    def __len__(self) -> int:
        return sum(map(len, self._periods.values()))

    def __contains__(self, key: int) -> bool:
        for ids in reversed(self._periods.values()):  # noqa: SIM110 - asked several times per message
            if key in ids:
                return True
        return False

    @property
    def periods(self) -> dict[int, DoneIds]:
        """Each period's ids."""
        return dict(self._periods)

    def add(self, key: int, *, at: int) -> None:
        """Remember a message that is done since ``at`` (ms); a clock that went back does not open an old period."""
        period = at // PERIOD_MS
        if self._periods and period < (newest := next(reversed(self._periods))):
            period = newest
        if key not in self:
            self._of(period).add(key)

    def restore(self, period: int, keys: Iterable[int]) -> None:
        """Remember what a snapshot says of a period."""
        for key in keys:
            if key not in self:
                self._of(period).add(key)

    def forget(self, now: int) -> None:
        """Forget the periods that nothing can be replayed from."""
        for period in list(self._periods)[:-_PERIODS_KEPT]:
            if (period + 1) * PERIOD_MS + KEPT_MS <= now:
                del self._periods[period]

    def _of(self, period: int) -> DoneIds:
        ids = self._periods.get(period)
        if ids is None:
            self._periods[period] = ids = DoneIds()
            self._periods = dict(sorted(self._periods.items()))
        return ids


def little_endian(keys: "array[int]") -> bytes:
    """Hashes as octets."""
    if sys.byteorder == "big":
        keys = keys[:]
        keys.byteswap()
    return keys.tobytes()


def from_little_endian(packed: bytes) -> "array[int]":
    """Octets as hashes; a number of octets that is no multiple of 8 is a ``ValueError``."""
    keys = array("Q")
    keys.frombytes(packed)
    if sys.byteorder == "big":
        keys.byteswap()
    return keys
