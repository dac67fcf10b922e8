"""The floor of ``tally.py``: a loop of one's own over aiokafka, msgspec and a dict.

It has no state that survives it, no output and no test of what it reads.  Arguments: bootstrap servers, group, topic,
and the file that it writes its counts to when it is told to stop.
"""

import asyncio
import contextlib
import signal
import sys
from pathlib import Path

import msgspec
from aiokafka import AIOKafkaConsumer

from benchmarks._tally_load import (
    ACCEPTED,
    ATTEMPTS,
    BLOCK,
    COLUMNS,
    DEFERRAL,
    MINUTE_MS,
    SOFT,
    columns,
)
from streams.loops import loop_factory

_COMMIT_EVERY_S = 0.5


class Result(msgspec.Struct, gc=False):
    """What is counted of a result."""

    outcome: str
    at: int
    provider: str
    ip: str | None = None
    class_: str | None = msgspec.field(name="class", default=None)


class Frame(msgspec.Struct, gc=False):
    """What is counted of a frame."""

    campaign: str
    results: list[Result]


class Counting:
    """Counts by campaign, minute, provider and address."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, int, str, str | None], list[int]] = {}
        self._columns = columns()

    def add(self, frame: Frame) -> None:
        """Count a frame."""
        counts, of_category, campaign = self.counts, self._columns, frame.campaign
        for one in frame.results:
            place = (campaign, one.at // MINUTE_MS, one.provider, one.ip)
            vector = counts.get(place)
            if vector is None:
                vector = counts[place] = [0] * len(COLUMNS)
            outcome = one.outcome
            if outcome == "accepted":
                vector[ACCEPTED] += 1
                vector[ATTEMPTS] += 1
            elif outcome == "bounced":
                vector[of_category.get(one.class_ or "", SOFT)] += 1
                vector[ATTEMPTS] += 1
            elif outcome == "deferred":
                vector[DEFERRAL] += 1
                vector[ATTEMPTS] += 1
                if of_category.get(one.class_ or "") == BLOCK:
                    vector[BLOCK] += 1
            elif outcome == "expired":
                vector[SOFT] += 1

    def written(self) -> bytes:
        """All of it, as JSON."""
        return msgspec.json.encode([[*place, counts] for place, counts in self.counts.items()])


async def main(bootstrap: str, group: str, topic: str, file: Path) -> None:
    """Count until told to stop."""
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        group_id=group,
        enable_auto_commit=True,
        auto_commit_interval_ms=int(_COMMIT_EVERY_S * 1000),
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=8_388_608,
        session_timeout_ms=60_000,
    )
    decode, counting = msgspec.json.Decoder(Frame).decode, Counting()
    await consumer.start()
    try:
        while not told.is_set():
            found = await consumer.getmany(timeout_ms=100)
            for records in found.values():
                for record in records:
                    counting.add(decode(record.value))
    finally:
        file.write_bytes(counting.written())  # noqa: ASYNC240 - nothing else goes on by then
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(consumer.stop(), 10.0)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main(sys.argv[1], sys.argv[2], sys.argv[3], Path(sys.argv[4])))
