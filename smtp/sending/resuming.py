"""Messages come back: shortly before a parked message is due, it is read from the ledger and waits in memory again.

Only as many as there is room for: a million messages that become due together come back by and by, and those that
come with frames have room of their own, so that neither holds up the other.
"""

from collections.abc import Callable, Iterable

import structlog

from schemas.delivery import Parked
from smtp.sending.backlog import Held, Job, Lane
from smtp.sending.done import id_hash
from smtp.sending.ports import Clock, Ledger

log = structlog.get_logger()

AHEAD_MS = 10_000
_LOOK_EVERY_S = 0.25
_AT_ONCE = 1_000


class Resuming:
    """Brings back what is due in the partitions that are ours; at most ``most`` messages are back at a time."""

    def __init__(
        self,
        *,
        lanes: Iterable[Lane],
        ledger: Ledger,
        clock: Clock,
        most: int,
        enter: Callable[[Job, int], None],
    ) -> None:
        self._lanes = lanes
        self._ledger = ledger
        self._clock = clock
        self._most = most
        self._enter = enter

    async def run(self) -> None:
        """Bring back, for ever; a ledger that cannot be read ends this with its error."""
        while True:
            for lane in list(self._lanes):
                if lane.is_open and not lane.is_closing:
                    await self._resume(lane)
            await self._clock.sleep(_LOOK_EVERY_S)

    async def _resume(self, lane: Lane) -> None:
        room = self._most - sum(len(one.resumed) for one in self._lanes)
        if room <= 0:
            return
        waiting = lane.memory.waiting
        due = waiting.take(self._clock.now() + AHEAD_MS, most=min(room, _AT_ONCE))
        wanted = {key for key in due if key not in lane.unfinished and key not in lane.resumed}
        while wanted and (places := self._places(lane, wanted)):
            async for offset, entry in self._ledger.pick(lane.partition, sorted(set(places.values()))):
                for parked in entry.parked:
                    key = id_hash(parked.message.message_id)
                    is_newest = places.get(key) == offset  # an older record may stand where a neighbour is read
                    if is_newest and key in wanted and key in waiting and not lane.is_closing:
                        wanted.discard(key)
                        self._back(lane, key, parked)
                if lane.is_closing:
                    return  # its next owner hands out everything anew
            if self._places(lane, wanted) == {key: places[key] for key in wanted if key in places}:
                break  # else a snapshot has carried them on while we were reading
        if wanted:
            log.error("parked messages are not in the ledger any more", partition=lane.partition, count=len(wanted))

    @staticmethod
    def _places(lane: Lane, keys: Iterable[int]) -> dict[int, int]:
        places = ((key, lane.memory.waiting.offset_of(key)) for key in keys)
        return {key: offset for key, offset in places if offset is not None}

    def _back(self, lane: Lane, key: int, parked: Parked) -> None:
        lane.resumed.add(key)
        job = Job(
            lane=lane,
            held=Held(parked.offset, 1),  # long gone, and not among the lane's frames
            message=parked.message,
            content=parked.content,
            key=key,
            domain=parked.message.address.rpartition("@")[2].lower(),
            starts_at=parked.starts_at,
            first_at=parked.first_at,
            expires_at=parked.expires_at,
            attempts=parked.attempts,
        )
        self._enter(job, parked.due)
