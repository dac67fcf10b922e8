"""``verify-counts``: are the published windows what the topics say?

In this order, so that the answer holds for a running system: first the committed offsets, below which everything is
counted; then, when the workers have had the time to tell of that, the newest snapshots and the minutes in the changelog
of the workers' table; then the topics, which have all that any of these can have.
"""

import asyncio
import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiokafka
import click
import msgspec
from aiokafka import TopicPartition

from agents.ports import now_ms
from cli.access import REQUEST_TIMEOUT_S, read_to_end, say, with_kafka
from cli.failures import OutsideFailed, SaysNo
from cli.feedback_loops import put_feedback_loops_in_force
from cli.recounting import TOPICS, Difference, Recount, Recounted
from cli.recounting_panes import PaneDifference, Panes
from cli.recounting_scopes import KINDS, ScopeDifference
from cli.settings import setting_options
from cli.views import moment, print_json
from policy.counts import MINUTE_MS, WINDOWS_MIN
from policy.naming import campaign_scope
from policy.settings import Settings
from schemas.codec import Malformed, decode
from schemas.dead_letters import DeadLetter
from schemas.reputation import RatesSnapshot
from schemas.topics import BY_NAME, CAMPAIGNS, DEAD_LETTERS, FEEDBACK, RATES, RESULTS
from streams.admin import admin
from streams.home import home
from streams.kafka_security import connection
from streams.stopping import stop
from streams.topics import PANES, WORKER, changelog

PAUSE_S = 2.0
_TOLD_WITHIN_S = 6.5  # providers, sources and addresses are told of every five seconds, a campaign every second
NO_SNAPSHOT = "no snapshot, though there is something to count"
_PANES_PRINTED = 20  # of a campaign; JSON has all
_CLOCKS_MIN = 61  # minutes; a result may be dated an hour ahead of the record that it came in


@dataclass(frozen=True, slots=True)
class Run:
    """A run of offsets of a partition: the first that is kept, up to where all is counted, and the end."""

    begin: int
    counted: int
    end: int


@dataclass(frozen=True, slots=True)
class Checked:
    """One campaign: whether its windows are right, and what was looked at."""

    campaign: str
    partition: int
    at: int | None
    windows: list[str]
    not_recounted: list[str]
    runs: Mapping[str, Run]
    records: Mapping[str, int]
    waiting: int
    differences: list[Difference] = field(default_factory=list)
    trouble: str | None = None
    within: list[ScopeDifference] = field(default_factory=list)
    panes: list[PaneDifference] = field(default_factory=list)

    @property
    def is_right(self) -> bool:
        """Do the windows and the table of minutes say what the topics say?"""
        return not self.differences and not self.within and not self.panes and self.trouble is None


@click.command("verify-counts")
@click.option("--campaign", default=None, metavar="ID", help="Only this campaign.")
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a difference must last before it is one.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text, an object per campaign.")
@setting_options("providers", "feedback_loops")
def verify_counts(settings: Settings, campaign: str | None, wait_s: float, as_json: bool) -> None:
    """Recount all windows from the topics, and compare them with the published ones.

    Of campaigns, of the providers and list sources in each, and (without --campaign) of sending addresses. So are the
    minutes that the workers have written down, from which they count on after a restart.

    Exit code 0 if all are equal, 1 if one differs. It can be run at any time; nothing needs to stand still.

    \b
    Examples:
      mailcordon verify-counts
      mailcordon verify-counts --campaign spring-sale --json | jq .differences
    """
    put_feedback_loops_in_force(settings)

    async def work(bootstrap: str) -> list[Checked]:
        return await checked(bootstrap, campaign=campaign, wait_s=wait_s)

    found = with_kafka(settings, work)
    if campaign is not None and not found:
        raise SaysNo(f"campaign {campaign} is not known and nothing is counted of it; see: mailcordon campaign list")
    for one in found:
        if as_json:
            print_json(_plain(one))
        else:
            _print(one)
    wrong = sum(not one.is_right for one in found)
    if wrong:
        raise SaysNo(f"{wrong} of {len(found)} campaigns and addresses are counted differently")
    say(f"{len(found)} campaigns recounted, all equal")


async def checked(
    bootstrap: str, *, app_id: str = WORKER, campaign: str | None = None, wait_s: float = 10.0
) -> list[Checked]:
    """Recount and compare; a difference counts when it is there as long as ``wait_s``."""
    deadline = time.monotonic() + wait_s
    while True:
        found = await _compared(bootstrap, app_id, campaign)
        if all(one.is_right for one in found) or time.monotonic() >= deadline:
            return found
        await asyncio.sleep(min(PAUSE_S, max(0.0, deadline - time.monotonic())))


async def _compared(bootstrap: str, app_id: str, only: str | None) -> list[Checked]:
    committed, begins = await _offsets(bootstrap, app_id)
    await asyncio.sleep(_TOLD_WITHIN_S)
    snapshots = await _snapshots(bootstrap)
    partitions = max((partition for _, partition in committed), default=-1) + 1
    if not partitions:
        raise OutsideFailed(f"there is no topic {RESULTS}; first run: mailcordon topics create")
    panes = await _panes(bootstrap, changelog(app_id, PANES), Panes(committed, now_ms(), only))
    recount = Recount(partitions, committed, only, panes=panes)
    async for record in read_to_end(bootstrap, DEAD_LETTERS):
        letter = decode(DeadLetter, record.value, max_bytes=BY_NAME[DEAD_LETTERS].max_bytes)
        if not isinstance(letter, Malformed):
            recount.dead_letter(letter)
    runs: dict[tuple[str, int], Run] = {}
    now = now_ms()
    since = {place: now // MINUTE_MS + _CLOCKS_MIN for place, begin in begins.items() if begin}  # nothing since is gone
    for topic in TOPICS:
        async for record in read_to_end(bootstrap, topic):
            place = (topic, record.partition)
            run = runs.get(place)
            if run is None and place in since:
                since[place] = record.timestamp // MINUTE_MS + _CLOCKS_MIN
            begin = record.offset if run is None else run.begin
            runs[place] = Run(begin, committed.get(place, 0), record.offset + 1)
            if topic == RESULTS:
                recount.results(record.partition, record.offset, record.value)
            else:
                recount.feedback(record.partition, record.offset, record.timestamp, record.value)
    known = {record.key.decode() async for record in read_to_end(bootstrap, CAMPAIGNS) if record.key and record.value}
    names = sorted({name for name in known if only in (None, name)} | recount.campaigns.keys() | panes.campaigns)
    found = []
    for name in names:
        partition = home(name, partitions)
        its_runs = {topic: runs.get((topic, partition), Run(0, 0, 0)) for topic in TOPICS}
        oldest = max(since.get((topic, partition), 0) for topic in TOPICS)
        own = recount.campaigns.get(name, Recounted())
        its_snapshots = snapshots.get(campaign_scope(name), [])
        its_panes = list(panes.differences(name, oldest))
        if its_snapshots or its_panes or own.records != Recounted().records:
            one = _compare(name, partition, own, its_snapshots, its_runs, oldest)
            scopes = [each for kind in KINDS for each in snapshots if each.startswith(f"{campaign_scope(name)}{kind}")]
            within = _within(recount, scopes, snapshots, oldest)
            found.append(dataclasses.replace(one, within=within, panes=its_panes))
    if only is None:
        found += _addresses(recount, snapshots, runs, since)
    return found


def _addresses(
    recount: Recount,
    snapshots: Mapping[str, list[RatesSnapshot]],
    runs: Mapping[tuple[str, int], Run],
    since: Mapping[tuple[str, int], int],
) -> list[Checked]:
    """The sending addresses whose windows cannot be; each is counted per partition."""
    found = []
    for scope in sorted(snapshots):
        address, _, number = scope.rpartition("/partition:")
        if not address.startswith("ip:") or "/provider:" not in address or not number.isdigit():
            continue
        places = {topic: (topic, int(number)) for topic in TOPICS}
        oldest = max(since.get(place, 0) for place in places.values())
        if within := _within(recount, [scope], snapshots, oldest):
            its_runs = {topic: runs.get(place, Run(0, 0, 0)) for topic, place in places.items()}
            nothing = _compare(scope, int(number), Recounted(), [], its_runs, oldest)
            found.append(dataclasses.replace(nothing, within=within))
    return found


def _within(
    recount: Recount, scopes: list[str], snapshots: Mapping[str, list[RatesSnapshot]], oldest: int
) -> list[ScopeDifference]:
    """What cannot be in the newest snapshots of some scopes; of two that may be the newest one has to be right."""
    found: list[ScopeDifference] = []
    for scope in scopes:
        if recount.scopes.is_told_apart(scope):
            each = [recount.scopes.differences(one, _whole(one.at, oldest)) for one in snapshots[scope]]
            each.sort(key=len)
            found += each[0]
    return found


def _whole(at: int, oldest: int) -> list[str]:
    """The windows of which the topics have everything."""
    return [one for one, length in WINDOWS_MIN.items() if at // MINUTE_MS - length >= oldest or not oldest]


def _compare(
    name: str, partition: int, own: Recounted, snapshots: list[RatesSnapshot], runs: Mapping[str, Run], oldest: int
) -> Checked:
    """One campaign.  Of two workers whose clocks differ either may have the newest snapshot, so both count."""
    at = snapshots[-1].at if snapshots else now_ms()
    windows = _whole(at, oldest)
    seen: dict[str, Any] = {
        "campaign": name,
        "partition": partition,
        "at": at if snapshots else None,
        "windows": windows,
        "not_recounted": [one for one in WINDOWS_MIN if one not in windows],
        "runs": runs,
        "records": own.records,
        "waiting": own.waiting,
    }
    if not snapshots:
        return Checked(**seen, trouble=None if own.is_empty(at, windows) else NO_SNAPSHOT)
    if any(own.is_right(one, windows) for one in snapshots):
        return Checked(**seen)
    differences = own.differences(snapshots[-1], windows)
    trouble = None if differences else "the counts have what is in the topics, but not in its order"
    return Checked(**seen, differences=differences, trouble=trouble)


async def _offsets(bootstrap: str, app_id: str) -> tuple[dict[tuple[str, int], int], dict[tuple[str, int], int]]:
    """For each partition of both topics the offset below which the workers have counted everything, and its first."""
    async with admin(bootstrap, within_s=REQUEST_TIMEOUT_S) as edge:
        partitions = list(await edge.leaders(list(TOPICS)))
    consumer = aiokafka.AIOKafkaConsumer(**connection(bootstrap), group_id=app_id, enable_auto_commit=False)
    try:
        await consumer.start()
        consumer.assign(partitions)
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            committed = {(one.topic, one.partition): await _committed_of(consumer, one) for one in partitions}
            begins = await consumer.beginning_offsets(partitions)
            return committed, {(one.topic, one.partition): offset for one, offset in begins.items()}
    finally:
        await stop(consumer)


async def _committed_of(consumer: aiokafka.AIOKafkaConsumer, partition: TopicPartition) -> int:
    offset: int | None = await consumer.committed(partition)
    return 0 if offset is None else offset


async def _panes(bootstrap: str, topic: str, panes: Panes) -> Panes:
    """The minutes that the workers have written down."""
    async for record in read_to_end(bootstrap, topic):
        try:
            panes.written(record.key, record.value)
        except msgspec.MsgspecError as error:
            place = f"{topic}[{record.partition}], offset {record.offset}"
            raise SaysNo(f"{place} is no minute of a campaign that a worker wrote: {error}") from error
    return panes


async def _snapshots(bootstrap: str) -> dict[str, list[RatesSnapshot]]:
    """The last snapshot of each scope, and the newest by its own time where that is another."""
    newest: dict[str, RatesSnapshot] = {}
    last: dict[str, RatesSnapshot] = {}
    async for record in read_to_end(bootstrap, RATES):
        snapshot = decode(RatesSnapshot, record.value)
        if isinstance(snapshot, Malformed) or not snapshot.scope.startswith(("campaign:", "ip:")):
            continue
        last[snapshot.scope] = snapshot
        if snapshot.scope not in newest or snapshot.at >= newest[snapshot.scope].at:
            newest[snapshot.scope] = snapshot
    return {scope: [one, newest[scope]] if one != newest[scope] else [one] for scope, one in last.items()}


def _plain(one: Checked) -> dict[str, Any]:
    return {
        "campaign": one.campaign,
        "equal": one.is_right,
        "at": one.at,
        "windows": one.windows,
        "not_recounted": one.not_recounted,
        "records": dict(one.records),
        "waiting": one.waiting,
        "offsets": {
            topic: {"partition": one.partition, "from": run.begin, "counted_to": run.counted, "to": run.end}
            for topic, run in one.runs.items()
        },
        "differences": [
            {"window": diff.window, "column": diff.column, "topics": diff.topics, "rates": diff.rates}
            for diff in one.differences
        ],
        "within": [
            {
                "scope": diff.scope,
                "window": diff.window,
                "column": diff.column,
                "at_least": diff.at_least,
                "at_most": diff.at_most,
                "rates": diff.rates,
            }
            for diff in one.within
        ],
        "panes": [dataclasses.asdict(diff) for diff in one.panes],
        "trouble": one.trouble,
    }


def _print(one: Checked) -> None:
    answer = "equal" if one.is_right else "DIFFERENT"
    frames, signals = one.records[RESULTS], one.records[FEEDBACK]
    click.echo(
        f"{one.campaign}: {answer} at {moment(one.at)}, windows {', '.join(one.windows) or 'none'}; "
        f"{frames:,} frames of results, {signals:,} records of feedback, {one.waiting} of them may be still to count"
    )
    if one.not_recounted:
        click.echo(f"  not recounted: {', '.join(one.not_recounted)}; the topics no longer go back that far")
    if one.trouble:
        click.echo(f"  {one.trouble}")
    for diff in one.differences:
        click.echo(f"  window {diff.window}, {diff.column}: {diff.topics:,} in the topics, {diff.rates:,} in {RATES}")
    for found in one.within:
        place = f"{found.scope}, window {found.window}, {found.column}"
        click.echo(f"  {place}: {_wanted(found)} in the topics, {found.rates:,} in {RATES}")
    for pane in one.panes[:_PANES_PRINTED]:
        place = f"minute {moment(pane.at)}, {pane.scope}, {pane.column}"
        click.echo(f"  {place}: {_wanted(pane)} in the topics, {pane.table:,} in the workers' table")
    if len(one.panes) > _PANES_PRINTED:
        click.echo(f"  and {len(one.panes) - _PANES_PRINTED:,} numbers of minutes more; --json names all")
    if not one.is_right:
        for topic, run in one.runs.items():
            click.echo(
                f"  looked at {topic}[{one.partition}]: offsets {run.begin} to {run.end}, counted up to {run.counted}"
            )


def _wanted(one: ScopeDifference | PaneDifference) -> str:
    return f"{one.at_least:,}" + (f" to {one.at_most:,}" if one.at_most != one.at_least else "")
