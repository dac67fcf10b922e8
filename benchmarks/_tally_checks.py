"""Was it counted right?  What each side holds at the end, compared with the account of what was fed, cell by cell."""

import json
import struct
from pathlib import Path

from benchmarks._feeding import Feed
from benchmarks._running import Failed
from benchmarks._tally_load import COLUMNS, MINUTE_MS, Account
from policy.counts import VECTOR
from schemas.topics import DEAD_LETTERS
from streams.topics import PANES, WORKER, changelog

_OURS = [VECTOR.index(name) for name in COLUMNS]


async def ours(feed: Feed, fed: Account) -> str:
    """The newest value of each pane in the changelog, which is what a worker would recover."""
    newest: dict[tuple[str, int], dict[str, list[int]]] = {}
    async for record in feed.read([changelog(WORKER, PANES)]):
        campaign, (start, _) = json.loads(record.key)
        _term, pane = json.loads(record.value)
        newest[campaign, int(start) * 1000 // MINUTE_MS] = pane[1]
    held = {
        (campaign, minute, cell): [vector[place] for place in _OURS]
        for (campaign, minute), cells in newest.items()
        for cell, vector in cells.items()
    }
    set_aside = [record async for record in feed.read([DEAD_LETTERS])]
    if set_aside:
        raise Failed(f"{len(set_aside)} dead letters, the first: {set_aside[0].value[:500]!r}")
    return _equal("mailcordon", held, fed)


async def of_streams(feed: Feed, topic: str, name: str, fed: Account) -> str:
    """The newest update of each pane in the output topic of Kafka Streams."""
    newest: dict[tuple[str, int], bytes] = {}
    async for record in feed.read([topic]):
        campaign, start = record.key[:-8], struct.unpack(">q", record.key[-8:])[0]
        newest[campaign.decode(), start // MINUTE_MS] = record.value
    held: Account = {}
    for (campaign, minute), cells in newest.items():
        at = 0
        while at < len(cells):
            length = struct.unpack_from(">H", cells, at)[0]
            cell = cells[at + 2 : at + 2 + length].decode()
            held[campaign, minute, cell] = [*struct.unpack_from(f">{len(COLUMNS)}i", cells, at + 2 + length)]
            at += 2 + length + 4 * len(COLUMNS)
    return _equal(name, held, fed)


def of_raw(file: Path, fed: Account) -> str:
    """What the loop wrote down when it ended."""
    held = {
        (campaign, minute, f"{provider}|{ip or ''}"): counts
        for campaign, minute, provider, ip, counts in json.loads(file.read_bytes())
    }
    return _equal("the plain loop", held, fed)


def _equal(name: str, held: Account, fed: Account) -> str:
    for place in sorted(held.keys() | fed.keys()):
        if held.get(place) != fed.get(place):
            raise Failed(f"{name}: {held.get(place)} instead of {fed.get(place)} at {place}")
    attempts = sum(counts[-1] for counts in fed.values())
    return f"{name}: {attempts:,} attempts in {len(fed):,} cells, each cell exact"
