"""The results of other campaigns, at a steady clock, from a process of its own.

Started as ``python -m benchmarks._latency_background JSON`` with ``bootstrap``, ``campaigns``, ``per_second``,
``frame`` and ``seed``.  It says ``SECONDS DUE RESULTS`` some times a second: the wall clock, how many results were due
since the beginning by the steady clock, and how many of them the broker has acknowledged.  Every frame has its moment
from the beginning on, so that frames which are late are made up for at once, and the clock never slips.
"""

import asyncio
import json
import sys
import time
from collections.abc import Mapping
from typing import Any

import uvloop

from benchmarks._latency_load import OthersResults, at_time
from schemas.codec import encode
from schemas.topics import RESULTS
from streams.producing import Producer

_MOST_IN_FLIGHT = 5_000
_SAID_EVERY_S = 0.25


async def publish(given: Mapping[str, Any]) -> None:  # Any: JSON
    """Publish for ever."""
    producer = Producer(bootstrap_servers=given["bootstrap"], acks="all", linger_ms=0, max_request_size=8_388_608)
    await producer.start()
    frames = OthersResults(given["campaigns"], frame=given["frame"], seed=given["seed"]).frames()
    every_s = given["frame"] / given["per_second"]
    began = time.monotonic()
    says_at, sent, acknowledged = began, 0, 0
    lost: list[BaseException] = []

    def landed(done: "asyncio.Future[object]") -> None:
        nonlocal acknowledged
        if (failed := done.exception()) is not None:
            lost.append(failed)
        acknowledged += given["frame"]

    try:
        for number, frame in enumerate(frames):
            await asyncio.sleep(max(0.0, began + number * every_s - time.monotonic()))
            value = encode(at_time(frame, time.time_ns() // 1_000_000))
            future: Any = await producer.send(RESULTS, key=frame.campaign.encode(), value=value)
            future.add_done_callback(landed)
            sent += given["frame"]
            if lost or sent - acknowledged > _MOST_IN_FLIGHT * given["frame"]:
                raise RuntimeError("the broker does not keep up") from (lost[0] if lost else None)
            if (now := time.monotonic()) >= says_at:
                says_at = now + _SAID_EVERY_S
                due = int((now - began) / every_s) * given["frame"]
                print(f"{time.time():.3f} {due} {acknowledged}", flush=True)
    finally:
        await producer.stop()


if __name__ == "__main__":
    uvloop.run(publish(json.loads(sys.argv[1])))
