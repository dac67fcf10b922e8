"""What commands show of campaigns: the same numbers as the stats pages, read from the same topics."""

import contextlib
import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from schemas.topics import CAMPAIGNS, CONTROL, RATES
from streams.catalogue import Catalogue
from streams.standing import View, all_campaigns, one_campaign

LOOK_UP_WITHIN_S = 30.0


async def looked_up(bootstrap: str) -> list[View]:
    """A view of every campaign, by name."""
    async with _catalogue(bootstrap) as catalogue:
        found: list[View] = all_campaigns(catalogue)["campaigns"]
        return found


async def campaign_view(bootstrap: str, campaign: str) -> View | None:
    """The view of one campaign, with its whole record; None if it is not known."""
    async with _catalogue(bootstrap) as catalogue:
        return one_campaign(catalogue, campaign)


@contextlib.asynccontextmanager
async def _catalogue(bootstrap: str) -> AsyncIterator[Catalogue]:
    catalogue = Catalogue(bootstrap, (CAMPAIGNS, CONTROL, RATES), client_id="mailcordon-cli")
    await catalogue.start(within_s=LOOK_UP_WITHIN_S)
    try:
        yield catalogue
    finally:
        await catalogue.stop()


def table(views: list[View]) -> None:
    """Print the campaigns as a table for people."""
    if not views:
        click.echo("no campaigns yet; `mailcordon campaign apply FILE` makes one known")
        return
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for name in (
        "campaign",
        "state",
        "sends",
        "accepted 24h",
        "hard bounce",
        "complaint",
        "trap hits",
        "block",
        "reason",
    ):
        shown.add_column(name, overflow="fold")
    for one in views:
        day: Mapping[str, int] = one["windows"].get("24h", {})
        shown.add_row(
            one["campaign"],
            one["state"],
            "yes" if one["may_send"] else "no",
            f"{day.get('accepted', 0):,}",
            rate_text(one["verdicts"].get("hard_bounce")),
            rate_text(one["verdicts"].get("complaint")),
            f"{day.get('trap_hit', 0)}",
            rate_text(one["verdicts"].get("block")),
            one["reason"],
        )
    Console(highlight=False).print(shown)


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
