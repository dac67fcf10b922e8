"""How much memory a sender needs that remembers a million messages and knows a million suppressed addresses.

A real Kafka and the real sender (`mailcordon sender`).  First it is started with empty topics.  Then
mail.suppressions gets its records, and the ledger of a campaign the results of messages that were sent; the sender of
that campaign is started, reads all of it back, and is measured when it is ready to send and has come to rest.

rss_mib       resident memory (VmRSS)
peak_mib      the most that it has had since its start (VmHWM)
baseline_mib  resident memory of the same sender with empty topics: the interpreter, libraries, Kafka clients
start_s       from the start of the process until it is ready to send, all of it read
"""

import argparse
import asyncio
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # before benchmarks/, whose files hide packages

import aiohttp

from benchmarks._feeding import Feed, Item, feed
from benchmarks._harness import Noted, Report, at_least_one, parser
from benchmarks._kill_load import campaign_record, content_record
from benchmarks._results import accepted
from benchmarks._running import Failed, Running, bench_main, free_port, python, role_settings, running, say
from policy.naming import ledger_topic
from policy.settings import Settings
from schemas.codec import encode
from schemas.delivery import LedgerEntry
from schemas.feedback import Suppression
from schemas.reputation import Control
from schemas.sending import Pace
from schemas.topics import CAMPAIGNS, CONTENTS, CONTROL, SUPPRESSIONS
from streams.topics import create, create_for_campaigns

EXAMPLES = """\
  .venv/bin/python benchmarks/memory.py --json                                      two minutes
  .venv/bin/python benchmarks/memory.py --ledger 100000 --suppressions 100000"""

_EMPTY, _FULL = "empty", "full"
_IN_AN_ENTRY = 100
_AT = 1_764_000_000_000
_READY_WITHIN_S = 300.0
_REST_S = 10.0


def main() -> None:
    made = parser(__doc__ or "", EXAMPLES)
    made.add_argument(
        "--ledger", type=at_least_one, default=1_000_000, metavar="N", help="messages in the ledger (default 1,000,000)"
    )
    made.add_argument(
        "--suppressions", type=at_least_one, default=1_000_000, metavar="N", help="suppressions (default 1,000,000)"
    )
    bench_main(made.parse_args(), _bench)


async def _bench(options: argparse.Namespace, at: Path, bootstrap: str) -> Report:
    settings = Settings()
    await create(bootstrap, settings)
    await create_for_campaigns(bootstrap, [_EMPTY, _FULL], settings)
    async with feed(bootstrap) as kafka_feed:
        await kafka_feed.publish(_known())
        empty, _, _ = await _measured(_EMPTY, bootstrap, at)
        say(f"with empty topics: {empty:.1f} MiB; filling ledger and suppressions ...")
        await _fill(kafka_feed, options)
    rss, peak, start_s = await _measured(_FULL, bootstrap, at)
    figures: dict[str, object] = {
        "rss_mib": round(rss, 1),
        "peak_mib": round(peak, 1),
        "baseline_mib": round(empty, 1),
        "start_s": round(start_s, 1),
        "ledger": options.ledger,
        "suppressions": options.suppressions,
    }
    return Noted("memory", [], [], figures)


def _known() -> Iterator[Item]:
    for name in (_EMPTY, _FULL):
        campaign, content = campaign_record("hold", 20, name=name), content_record(name)
        control = Control(
            campaign=name, epoch=1, may_send=True, pace=Pace(), state="healthy", reason="a benchmark", at=_AT
        )
        yield Item(CAMPAIGNS, name.encode(), encode(campaign))
        yield Item(CONTENTS, f"{name}/{content.content}".encode(), encode(content))
        yield Item(CONTROL, name.encode(), encode(control))


async def _fill(kafka_feed: Feed, options: argparse.Namespace) -> None:
    chance = random.Random(1)
    await kafka_feed.publish(_suppressed(chance, options.suppressions))
    say("suppressions are in")
    await kafka_feed.publish(_ledger(options.ledger))


def _suppressed(chance: random.Random, count: int) -> Iterator[Item]:
    for _ in range(count):
        hashed = chance.randbytes(32).hex()
        record = Suppression(address_hash=hashed, scope="platform", reason="hard_bounce", since=_AT)
        yield Item(SUPPRESSIONS, f"{hashed}|platform".encode(), encode(record))


def _ledger(count: int) -> Iterator[Item]:
    """Intents and results as a sender writes them, some dozens to an entry, in all partitions."""
    partitions = Settings().outbound_partitions
    for number, start in enumerate(range(0, count, _IN_AN_ENTRY)):
        ids = [f"spring-sale-{one:08}" for one in range(start, min(start + _IN_AN_ENTRY, count))]
        results = [accepted(one, at=_AT) for one in ids]
        for entry in (
            LedgerEntry(sender="bench", at=_AT, intents=ids),
            LedgerEntry(sender="bench", at=_AT, results=results, published=2**40),
        ):
            yield Item(ledger_topic(_FULL), None, encode(entry), number % partitions)


async def _measured(campaign: str, bootstrap: str, at: Path) -> tuple[float, float, float]:
    """Resident and peak memory in MiB, and seconds until ready."""
    port = free_port()
    environment = {
        **role_settings(bootstrap, at),
        "MAILCORDON_SMTP_ROUTES": f"*=127.0.0.1:{free_port()}",
        "MAILCORDON_HOSTNAME": "mta.shop.example",
        "MAILCORDON_SENDER_WEB": f"127.0.0.1:{port}",
        "MAILCORDON_EGRESS_CHECK": "off",
    }
    began = time.monotonic()
    with running(
        f"sender-{campaign}", python("-m", "cli", "sender", "--campaign", campaign), environment, at
    ) as sender:
        await _ready(sender, port)
        start_s = time.monotonic() - began
        await asyncio.sleep(_REST_S)
        sender.must_run()
        return _mib(sender, "VmRSS"), _mib(sender, "VmHWM"), start_s


async def _ready(sender: Running, port: int) -> None:
    deadline = time.monotonic() + _READY_WITHIN_S
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as http:
        while time.monotonic() < deadline:
            sender.must_run()
            try:
                async with http.get(f"http://127.0.0.1:{port}/readyz") as answer:
                    if answer.status == 200:
                        return
            except (aiohttp.ClientError, TimeoutError):
                pass
            await asyncio.sleep(0.1)
    raise Failed(f"{sender.name} was not ready within {_READY_WITHIN_S:.0f} s; the end of its log:\n{sender.said()}")


def _mib(sender: Running, what: str) -> float:
    """A line of the process's status, in MiB; the process started is the sender itself."""
    status = Path(f"/proc/{sender.popen.pid}/status").read_text()
    found = next(line for line in status.splitlines() if line.startswith(f"{what}:"))
    return int(found.split()[1]) / 1024


if __name__ == "__main__":
    main()
