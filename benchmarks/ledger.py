"""What it costs to write down an entry of the sender's ledger: in Kafka, in a local file with fsync, or in both.

A sender waits for each entry before it goes on, and writes what has come up meanwhile in the next one, so the time
per entry bounds what it sends: two entries per message, of as many messages as there are workers.  An entry here has
20 intents and 20 results, and is written when the one before it is safe.

kafka  acknowledged by all replicas (acks=all, idempotent); here one broker on this machine, without fsync, as Kafka
       is run: what it acknowledges survives the process, and with three replicas the loss of a node
file   appended to a file and fsync'ed: survives a power cut, is lost with the node or its disk
both   one after the other; survives both, at the price of both

*_ms            milliseconds per entry, median (and *_p99_ms)
*_per_s         entries per second
"""

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # before benchmarks/, whose files hide packages

from benchmarks._harness import Noted, Report, at_least_one, parser
from benchmarks._results import accepted
from benchmarks._running import bench_main, say
from policy.naming import ledger_topic
from policy.settings import Settings
from schemas.codec import encode
from schemas.delivery import LedgerEntry
from streams.sender_kafka import KafkaLedger, Writer
from streams.topics import create_for_campaigns

EXAMPLES = """\
  .venv/bin/python benchmarks/ledger.py --json           half a minute
  .venv/bin/python benchmarks/ledger.py --entries 2000 --keep /mnt/disk"""

_CAMPAIGN = "bench"
_AT = 1_764_000_000_000
_MESSAGES = 20

Append = Callable[[], Awaitable[object]]


def main() -> None:
    made = parser(__doc__ or "", EXAMPLES, runs=5)
    made.add_argument("--entries", type=at_least_one, default=300, metavar="N", help="of each turn (default 300)")
    bench_main(made.parse_args(), _bench)


async def _bench(options: argparse.Namespace, at: Path, bootstrap: str) -> Report:
    await create_for_campaigns(bootstrap, [_CAMPAIGN], Settings())
    writer = Writer(bootstrap, client_id="bench")
    await writer.start()
    ledger = KafkaLedger(bootstrap, _CAMPAIGN, writer, client_id="bench")
    entry = _entry()
    raw = encode(entry)
    file = os.open(at / f"{ledger_topic(_CAMPAIGN)}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def sync() -> None:
        os.write(file, raw)
        os.fsync(file)

    async def to_kafka() -> object:
        return await ledger.append(0, entry)

    async def to_file() -> object:
        return await asyncio.to_thread(sync)

    async def to_both() -> object:
        await to_file()
        return await to_kafka()

    ways: dict[str, Append] = {"kafka": to_kafka, "file": to_file, "both": to_both}
    took: dict[str, list[float]] = {name: [] for name in ways}
    try:
        for append in ways.values():
            await _turn(append, 20)
        for number in range(options.runs):
            for name, append in ways.items():
                took[name] += await _turn(append, options.entries)
            say(f"turn {number + 1} of {options.runs}")
    finally:
        os.close(file)
        await writer.stop()
    figures: dict[str, object] = {}
    for name, all_of_it in took.items():
        figures[f"{name}_ms"] = round(statistics.median(all_of_it) * 1000, 3)
        figures[f"{name}_p99_ms"] = round(sorted(all_of_it)[len(all_of_it) * 99 // 100] * 1000, 3)
        figures[f"{name}_per_s"] = round(len(all_of_it) / sum(all_of_it), 1)
    ratios = {f"{name}_vs_file_ms": round(figures[f"{name}_ms"] / figures["file_ms"], 3) for name in ("kafka", "both")}
    return Noted("ledger", [], [], figures | {"entry_bytes": len(raw)}, against="file", ratios=ratios)


async def _turn(append: Append, entries: int) -> list[float]:
    took = []
    for _ in range(entries):
        began = time.perf_counter()
        await append()
        took.append(time.perf_counter() - began)
    return took


def _entry() -> LedgerEntry:
    ids = [f"spring-sale-{number:08}" for number in range(2 * _MESSAGES)]
    results = [accepted(one, at=_AT) for one in ids[_MESSAGES:]]
    return LedgerEntry(sender="bench", at=_AT, intents=ids[:_MESSAGES], results=results)


if __name__ == "__main__":
    main()
