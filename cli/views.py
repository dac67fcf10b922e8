"""What commands show of campaigns: the same numbers as the stats pages, read from the same topics."""

import contextlib
import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import click

from schemas.topics import CAMPAIGNS, CONTROL, RATES
from streams.catalogue import Catalogue
from streams.standing import View, all_campaigns, one_campaign

LOOK_UP_WITHIN_S = 30.0


async def looked_up(bootstrap: str) -> list[View]:
    """A view of every campaign, by name."""
    async with catalogue_of(bootstrap, CAMPAIGNS, CONTROL, RATES) as catalogue:
        found: list[View] = all_campaigns(catalogue)["campaigns"]
        return found


async def campaign_view(bootstrap: str, campaign: str) -> View | None:
    """The view of one campaign, with its whole record; None if it is not known."""
    async with catalogue_of(bootstrap, CAMPAIGNS, CONTROL, RATES) as catalogue:
        return one_campaign(catalogue, campaign)


@contextlib.asynccontextmanager
async def catalogue_of(bootstrap: str, *topics: str) -> AsyncIterator[Catalogue]:
    """A catalogue that has caught up with its topics, for as long as the context lasts."""
    catalogue = Catalogue(bootstrap, topics, client_id="mailcordon-cli")
    await catalogue.start(within_s=LOOK_UP_WITHIN_S)
    try:
        yield catalogue
    finally:
        await catalogue.stop()


def table(views: list[View]) -> None:
    """Print the campaigns for people: a line of numbers and the sentence of the state below it."""
    if not views:
        click.echo("no campaigns yet; `mailcordon campaign apply FILE` makes one known")
        return
    width = max(len("CAMPAIGN"), *(len(one["campaign"]) for one in views))
    click.echo(
        f"{'CAMPAIGN':<{width}}  {'STATE':<9}  SENDS  {'ACCEPTED':>9}  {'HARD BOUNCES':<22}  {'COMPLAINTS':<22}  "
        f"{'BLOCKS':<22}  TRAP HITS"
    )
    for one in views:
        day: Mapping[str, int] = one["windows"].get("24h", {})
        hard, complaint, block = (
            rate_text(one["verdicts"].get(name)) for name in ("hard_bounce", "complaint", "block")
        )
        click.echo(
            f"{one['campaign']:<{width}}  {one['state']:<9}  {'yes' if one['may_send'] else 'no':<5}  "
            f"{day.get('accepted', 0):>9,}  {hard:<22}  {complaint:<22}  {block:<22}  {day.get('trap_hit', 0)}"
        )
        click.echo(f"    {one['reason']}")
    click.echo("Counts of the last 24 hours; each rate stands before its limit.")


def rate_text(verdict: Mapping[str, Any] | None) -> str:
    """A rate beside its limit, with the answer when it is a breach."""
    if not verdict:
        return "-"
    text = f"{verdict['rate']:.2%} of {verdict['limit']:.2%}"
    return f"{text} BREACH" if verdict["answer"] == "breach" else text


def moment(at_ms: int | None) -> str:
    """A time as people in operations read it: UTC, to the second."""
    if at_ms is None:
        return "-"
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at_ms / 1000))


def print_json(one: Mapping[str, Any]) -> None:
    """One JSON object a line."""
    click.echo(json.dumps(one))
