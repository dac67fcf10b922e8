"""Was it right?  What both sides published, read back from Kafka and compared with what was fed."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence

from benchmarks import _plain_tally, _plain_validate
from benchmarks._feeding import Feed
from benchmarks._running import Failed
from benchmarks._streams_load import Load
from benchmarks._workload import is_bad
from policy.naming import campaign_scope, outbound_topic
from schemas.codec import Malformed, decode
from schemas.reputation import Counts, Decision, RatesSnapshot
from schemas.sending import OutboundFrame, Refused
from schemas.topics import BY_NAME, DEAD_LETTERS, DECISIONS, OUTBOUND, RATES, REFUSED

_MAX_BYTES = BY_NAME[OUTBOUND].max_bytes
_LOOKS, _LOOK_AGAIN_S = 20, 0.5


async def check_validate(feed: Feed, load: Load) -> str:
    """Each recipient left as one outbound message of its campaign, or as one refusal."""
    seen: list[str] = []
    async for record in feed.read([outbound_topic(one) for one in load.ids]):
        frame = decode(OutboundFrame, record.value, max_bytes=_MAX_BYTES)
        if isinstance(frame, Malformed) or outbound_topic(frame.campaign) != record.topic:
            raise Failed(f"an outbound frame in {record.topic} is none of that campaign")
        seen += [message.message_id for message in frame.messages]
    refused: list[str] = []
    async for record in feed.read([REFUSED]):
        refusal = decode(Refused, record.value)
        if not isinstance(refusal, Malformed):
            refused.append(str(refusal.message_id))
    _same("validate_route, messages", seen, load.requested - load.bad)
    _same("validate_route, refusals", refused, load.bad)
    return f"validate_route: {len(seen):,} messages and {len(refused):,} refusals, each recipient once"


async def check_plain_validate(feed: Feed, load: Load) -> str:
    """The same of the plain version."""
    topics = [_plain_validate.OUTBOUND + one for one in load.ids]
    seen = [json.loads(record.value)["message_id"] async for record in feed.read(topics)]
    refused = [json.loads(record.value)["message_id"] async for record in feed.read([_plain_validate.REFUSED])]
    _same("plain validate, messages", seen, load.plain_requested - load.plain_bad)
    _same("plain validate, refusals", refused, load.plain_bad)
    return f"plain validate: {len(seen):,} messages and {len(refused):,} refusals, each recipient once"


async def check_tally(feed: Feed, load: Load) -> str:
    """The newest rates of each campaign are a recount of all frames; decisions are about campaigns that bounce."""
    found: dict[str, list[int]] = {}
    for _ in range(_LOOKS):  # a campaign that is well is told of once a second
        found = await _newest_counts(feed, load.ids)
        if found == load.outcomes:
            break
        await asyncio.sleep(_LOOK_AGAIN_S)
    _equal("tally_judge, counts", found, load.outcomes)
    set_aside = [record async for record in feed.read([DEAD_LETTERS])]
    if set_aside:
        raise Failed(f"{len(set_aside)} dead letters, the first: {set_aside[0].value[:500]!r}")
    decided: defaultdict[str, list[str]] = defaultdict(list)
    async for record in feed.read([DECISIONS]):
        decision = decode(Decision, record.value)
        if not isinstance(decision, Malformed) and decision.scope == campaign_scope(decision.campaign):
            decided[decision.campaign].append(decision.to)
    wrong = set(decided) - _bad_campaigns(load)
    if wrong:
        raise Failed(f"decisions about campaigns that do not bounce: {sorted(wrong)[:5]}")
    total, bad = sum(map(sum, found.values())), len(_bad_campaigns(load))
    return f"tally_judge: {total:,} results counted once, {len(decided)} of {bad} bad campaigns decided about"


async def _newest_counts(feed: Feed, ids: Sequence[str]) -> dict[str, list[int]]:
    newest: dict[str, RatesSnapshot] = {}
    async for record in feed.read([RATES]):
        snapshot = decode(RatesSnapshot, record.value)
        if not isinstance(snapshot, Malformed):
            newest[snapshot.scope] = snapshot
    return {one: _outcomes(newest[campaign_scope(one)].windows["24h"]) for one in ids}


async def check_plain_tally(feed: Feed, load: Load) -> str:
    """The newest value of each pane, from the table's changelog, adds up; so do the decisions."""
    panes: dict[tuple[int, bytes], list[int]] = {}
    async for record in feed.read([_plain_tally.CHANGELOG]):
        panes[record.partition, record.key] = json.loads(record.value)
    found: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for (_, key), counts in panes.items():
        campaign = json.loads(key)[0]
        found[campaign] = [held + more for held, more in zip(found[campaign], counts, strict=True)]
    fed = {one: _counted(outcomes) for one, outcomes in load.plain_results_of.items()}
    _equal("plain tally, counts", found, fed)
    decided = [json.loads(record.value)["campaign"] async for record in feed.read([_plain_tally.DECISIONS])]
    wrong = set(decided) - _bad_campaigns(load)
    if wrong or len(decided) != len(set(decided)):
        raise Failed(f"plain decisions about campaigns that do not bounce, or twice: {sorted(decided)[:20]}")
    total = sum(map(sum, found.values()))
    return f"plain tally: {total:,} results counted once, {len(decided)} bad campaigns decided about"


def _outcomes(counts: Counts) -> list[int]:
    return [counts.accepted, counts.hard_bounce, counts.deferral, counts.soft_bounce]


def _counted(outcomes: Sequence[str]) -> list[int]:
    counts = [0, 0, 0, 0]
    for outcome in outcomes:
        counts[_plain_tally.column(outcome)] += 1
    return counts


def _bad_campaigns(load: Load) -> set[str]:
    return {one for number, one in enumerate(load.ids) if is_bad(number)}


def _same(what: str, seen: Sequence[str], wanted: set[str]) -> None:
    if len(seen) != len(wanted) or set(seen) != wanted:
        lost, alien = len(wanted - set(seen)), len(set(seen) - wanted)
        raise Failed(
            f"{what}: {len(seen):,} instead of {len(wanted):,}; {lost:,} are missing, {alien:,} were not asked for"
        )


def _equal(what: str, found: Mapping[str, Sequence[int]], wanted: Mapping[str, Sequence[int]]) -> None:
    for campaign in sorted(wanted):
        if list(found.get(campaign, ())) != list(wanted[campaign]):
            raise Failed(f"{what} of {campaign}: {found.get(campaign)} instead of {wanted[campaign]}")
