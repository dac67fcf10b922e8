"""The results of other campaigns, at a steady clock, from a process of its own.

Started as ``python -m benchmarks._latency_background JSON`` with ``bootstrap``, ``campaigns``, ``per_second``,
``frame`` and ``seed``.  It says ``SECONDS RESULTS LATE_MS`` once a second: the wall clock, how many results the broker
has acknowledged since the beginning, and how late the latest frame of that second was.  A frame that is late is made
up for at once.
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


async def publish(given: Mapping[str, Any]) -> None:  # Any: JSON
    """Publish for ever."""
    producer = Producer(bootstrap_servers=given["bootstrap"], acks="all", linger_ms=0, max_request_size=8_388_608)
    await producer.start()
    frames = OthersResults(given["campaigns"], frame=given["frame"], seed=given["seed"]).frames()
    every_s = given["frame"] / given["per_second"]
    began = time.monotonic()
    said_s, late_s, sent, acknowledged = 0, 0.0, 0, 0
    lost: list[BaseException] = []

    def landed(done: "asyncio.Future[object]") -> None:
        nonlocal acknowledged
        if (failed := done.exception()) is not None:
            lost.append(failed)
        acknowledged += given["frame"]

    try:
        for number, frame in enumerate(frames):
            due = began + number * every_s
            wait_s = due - time.monotonic()
            await asyncio.sleep(max(0.0, wait_s))
            late_s = max(late_s, time.monotonic() - due)
            value = encode(at_time(frame, time.time_ns() // 1_000_000))
            future: Any = await producer.send(RESULTS, key=frame.campaign.encode(), value=value)
            future.add_done_callback(landed)
            sent += given["frame"]
            if lost or sent - acknowledged > _MOST_IN_FLIGHT * given["frame"]:
                raise RuntimeError("the broker does not keep up") from (lost[0] if lost else None)
            if time.monotonic() - began >= said_s + 1:
                said_s = int(time.monotonic() - began)
                print(f"{time.time():.3f} {acknowledged} {late_s * 1000:.1f}", flush=True)
                late_s = 0.0
    finally:
        await producer.stop()


if __name__ == "__main__":
    uvloop.run(publish(json.loads(sys.argv[1])))
