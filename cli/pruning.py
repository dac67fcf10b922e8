"""``mailcordon topics prune``: what is left in Kafka of campaigns that are long over, and its end."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import click

from agents.ports import now_ms
from cli.access import read_to_end, say, with_kafka
from cli.failures import SaysNo
from cli.settings import setting_options
from cli.views import catalogue_of, moment, print_json
from policy.naming import ledger_topic
from policy.pruning import Remains, is_over, objections
from policy.settings import Settings
from schemas.codec import Malformed, decode
from schemas.delivery import LedgerEntry
from schemas.reputation import Control
from schemas.topics import BY_NAME, CONTROL, LEDGER
from smtp.sending.memory import Memory, told
from streams.leftovers import Left, leftovers


@dataclass(frozen=True, slots=True)
class Found:
    """The topics of one retired campaign, why they stay, and whether they were deleted."""

    control: Control
    topics: tuple[str, ...]
    objections: tuple[str, ...]
    is_deleted: bool


@click.command()
@click.option(
    "--retired-for",
    "days",
    type=click.IntRange(min=1),
    default=30,
    show_default=True,
    help="Days since it was retired.",
)
@click.option("--yes", "is_meant", is_flag=True, help="Delete; without it nothing is changed.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a campaign.")
@setting_options()
def prune(settings: Settings, days: int, is_meant: bool, as_json: bool) -> None:
    """List the outbound and ledger topics of campaigns that are retired for long, and delete them with --yes.

    Topics in which anything is unread or waits stay, and what that is is said; then the exit code is 1.  Nothing of
    other campaigns is touched, and the campaign itself stays known.

    \b
    Examples:
      mailcordon topics prune --retired-for 90
      mailcordon topics prune --retired-for 90 --yes
    """

    async def work(bootstrap: str) -> list[Found]:
        return [found async for found in pruned(bootstrap, days=days, is_meant=is_meant)]

    found = with_kafka(settings, work)
    for one in found:
        _show(one, as_json=as_json)
    kept = sum(1 for one in found if one.objections)
    deleted = sum(1 for one in found if one.is_deleted)
    say(f"{len(found)} campaigns with topics are retired for {days} days or more; topics of {deleted} were deleted")
    if deleted < len(found) - kept:
        say("nothing was deleted: say --yes to delete what may be deleted")
    if kept:
        raise SaysNo(f"the topics of {kept} campaigns stay: nothing that is unread or waits is deleted")


async def pruned(bootstrap: str, *, days: int, is_meant: bool) -> AsyncIterator[Found]:
    """The topics of campaigns that are retired for so many days, and with ``is_meant`` their end."""
    async with catalogue_of(bootstrap, CONTROL) as catalogue:
        controls = sorted(catalogue.controls.values(), key=lambda one: one.campaign)
    over = [one for one in controls if is_over(one, now=now_ms(), days=days)]
    async with leftovers(bootstrap) as kafka:
        for control in over:
            left = await kafka.of(control.campaign)
            if left is None:
                continue
            why = objections(await _remains(bootstrap, control.campaign, left))
            if is_meant and not why:
                await kafka.delete(left)
            yield Found(control, left.topics, why, is_deleted=is_meant and not why)


async def _remains(bootstrap: str, campaign: str, left: Left) -> Remains:
    """With what the ledger says: read as a sender reads it that takes it over."""
    memories: dict[int, Memory] = {}
    told_at: dict[int, list[int]] = {}
    unreadable = 0
    async for record in read_to_end(bootstrap, ledger_topic(campaign)):
        entry = decode(LedgerEntry, record.value, max_bytes=BY_NAME[LEDGER].max_bytes)
        if isinstance(entry, Malformed):
            unreadable += 1
            continue
        memories.setdefault(record.partition, Memory()).apply(record.offset, entry)
        if told(entry):
            told_at.setdefault(record.partition, []).append(record.offset)
    return Remains(
        unread=left.unread,
        readers=left.readers,
        leaderless=len(left.leaderless),
        waiting=sum(len(one.waiting) + len(one.attempts) for one in memories.values()),
        doubtful=sum(len(one.doubtful) for one in memories.values()),
        untold=sum(
            sum(offset > memories[partition].published for offset in offsets) for partition, offsets in told_at.items()
        ),
        unreadable=unreadable,
    )


def _show(one: Found, *, as_json: bool) -> None:
    campaign, since = one.control.campaign, one.control.at
    if as_json:
        print_json(
            {
                "campaign": campaign,
                "retired_at": since,
                "topics": list(one.topics),
                "kept_because": list(one.objections),
                "deleted": one.is_deleted,
            }
        )
        return
    said = "deleted" if one.is_deleted else "may be deleted"
    if one.objections:
        said = f"stay: {'; '.join(one.objections)}"
    click.echo(f"{campaign}: retired {moment(since)}\n    {', '.join(one.topics)}: {said}")
