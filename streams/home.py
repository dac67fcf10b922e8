"""Which partition a key belongs to, by the hash that Java clients and aiokafka share.

Tables need it: the value of a key lives in one partition, and an event about it that arrives in another (librdkafka
hashes differently, and strangers may leave the key out) must be sent on to where it belongs.
"""

from functools import lru_cache

from aiokafka.partitioner import murmur2

FORWARDED = "mailcordon-forwarded"  # a header: it was sent on once, and is not sent on again


@lru_cache(maxsize=65_536)
def home(key: str, partitions: int) -> int:
    """The partition of a key among ``partitions``."""
    return int(murmur2(key.encode()) & 0x7FFFFFFF) % partitions


def was_forwarded(headers: object) -> bool:
    """Whether a record's headers say that it was sent on before."""
    return isinstance(headers, list | tuple) and any(name == FORWARDED for name, _ in headers)
