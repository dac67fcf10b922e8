"""Where the messages are that wait for a later attempt: in the ledger; here stand only place and time of each.

A million waiting messages take 32 to 56 MB: a slot of 16 octets (hash; offset of the ledger entry and minute in one
number), and 8 more in the list of its minute.  What a message says is read back from the ledger when its minute has
come.
"""

from array import array

from policy.hashed import HashedNumbers

_MINUTE_BITS = 26  # minutes since the epoch, until the year 2097; 38 bits are left for the offset
_MINUTE_MASK = (1 << _MINUTE_BITS) - 1
_MINUTE_MS = 60_000


class Tiers:
    """Hashes of waiting messages; each with the entry that holds it and the minute in which it is due."""

    __slots__ = ("_minutes", "_mixed", "_places")

    def __init__(self) -> None:
        self._places = HashedNumbers()
        self._minutes: dict[int, array[int]] = {}
        self._mixed: set[int] = set()  # minutes whose messages are not in the order of the ledger

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: int) -> bool:
        return key in self._places

    def put(self, key: int, offset: int, *, due: int) -> None:
        """A message waits until ``due`` (ms); the entry at ``offset`` holds it."""
        minute = _minute(due)
        self._places.put(key, offset << _MINUTE_BITS | minute)
        self._minutes.setdefault(minute, array("Q")).append(key)

    def carry(self, key: int, offset: int, *, due: int) -> None:
        """A newer entry holds a message that has waited before, as it was; it may be out for delivery just now."""
        if key in self._places:
            self._places.put(key, offset << _MINUTE_BITS | _minute(due))
        else:
            self.put(key, offset, due=due)

    def drop(self, key: int) -> None:
        """A message waits no more; does nothing if it never did."""
        self._places.drop(key)

    def offset_of(self, key: int) -> int | None:
        """The entry that holds a message; None if it does not wait."""
        place = self._places.get(key)
        return None if place is None else place >> _MINUTE_BITS

    def take(self, now: int, *, most: int) -> list[int]:
        """Up to ``most`` messages whose minute has come by ``now`` (ms), earliest first; each is handed out once."""
        taken: list[int] = []
        for minute in sorted(minute for minute in self._minutes if minute * _MINUTE_MS <= now):
            waiting = self._in_order(minute)
            while waiting and len(taken) < most:
                key = waiting.pop()
                place = self._places.get(key)
                if place is not None and place & _MINUTE_MASK == minute:
                    taken.append(key)
            if waiting:
                break
            del self._minutes[minute]
        return taken

    def rewind(self) -> None:
        """Hand out everything anew: what was handed out and is waiting still is nobody's any more."""
        self._minutes.clear()
        for key, place in self._places:
            self._minutes.setdefault(place & _MINUTE_MASK, array("Q")).append(key)
        self._mixed = set(self._minutes)

    def _in_order(self, minute: int) -> "array[int]":
        """A minute's messages; neighbours stand near each other in the ledger, so that few of its parts are read."""
        waiting = self._minutes[minute]
        if minute in self._mixed:
            self._mixed.discard(minute)
            waiting = self._minutes[minute] = array("Q", sorted(waiting, key=lambda key: self._places.get(key) or 0))
        return waiting


def _minute(due: int) -> int:
    return min(due // _MINUTE_MS, _MINUTE_MASK)
