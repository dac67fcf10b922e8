"""Which partition a key belongs to, by the hash that Java clients and aiokafka share.

Tables need it: the value of a key lives in one partition, and an event about it that arrives in another (librdkafka
hashes differently, and strangers may leave the key out) must be sent on to where it belongs.
"""

from collections.abc import Sequence
from functools import lru_cache

from aiokafka.partitioner import DefaultPartitioner, murmur2

FORWARDED = "mailcordon-forwarded"  # a header: it was sent on once, and is not sent on again


def home(key: str, partitions: int) -> int:
    """The partition of a key among ``partitions``."""
    return _hashed(key.encode()) % partitions


def partition_of(key: bytes | None, partitions: Sequence[int], available: Sequence[int]) -> int:
    """The same for a producer, which has the numbers of all ``partitions``, and of those that have a leader now."""
    if key is None:
        anywhere: int = DefaultPartitioner()(None, partitions, available)
        return anywhere
    return partitions[_hashed(key) % len(partitions)]


@lru_cache(maxsize=65_536)
def _hashed(key: bytes) -> int:
    """Remembered, since keys come again and again and the hash is computed in Python."""
    return int(murmur2(key) & 0x7FFFFFFF)


def was_forwarded(headers: object) -> bool:
    """Whether a record's headers say that it was sent on before."""
    return isinstance(headers, list | tuple) and any(name == FORWARDED for name, _ in headers)
