"""What commands show of campaigns: the same numbers as the stats pages, read from the same topics."""

import json
import time
from collections.abc import Mapping
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.table import Table

from policy.naming import campaign_scope, outbound_topic, sender_name
from schemas.reputation import Control, RatesSnapshot
from schemas.sending import Campaign
from schemas.topics import CAMPAIGNS, CONTROL, RATES
from streams.catalogue import Catalogue

View = dict[str, Any]  # Any: printed as JSON, never read back


async def looked_up(bootstrap: str) -> list[View]:
    """A view of every campaign, by name."""
    catalogue = Catalogue(bootstrap, (CAMPAIGNS, CONTROL, RATES), client_id="mailcordon-cli")
    await catalogue.start()
    try:
        return [
            view(one, catalogue.controls.get(name), catalogue.rates.get(campaign_scope(name)))
            for name, one in sorted(catalogue.campaigns.items())
        ]
    finally:
        await catalogue.stop()


async def campaign_view(bootstrap: str, campaign: str) -> View | None:
    """The view of one campaign, with its whole record."""
    catalogue = Catalogue(bootstrap, (CAMPAIGNS, CONTROL, RATES), client_id="mailcordon-cli")
    await catalogue.start()
    try:
        one = catalogue.campaigns.get(campaign)
        if one is None:
            return None
        rates = catalogue.rates.get(campaign_scope(campaign))
        return view(one, catalogue.controls.get(campaign), rates) | {
            "record": msgspec.to_builtins(one),
            "topic": outbound_topic(campaign),
            "sender": sender_name(campaign),
        }
    finally:
        await catalogue.stop()


def view(campaign: Campaign, control: Control | None, rates: RatesSnapshot | None) -> View:
    """One campaign as a JSON object."""
    return {
        "campaign": campaign.campaign,
        "tenant": campaign.tenant,
        "state": control.state if control else "unknown",
        "may_send": control.may_send if control else False,
        "epoch": control.epoch if control else None,
        "since": control.at if control else None,
        "reason": control.reason if control else "no control record yet: is a worker running?",
        "dry_run": campaign.dry_run,
        "windows": msgspec.to_builtins(rates.windows) if rates else {},
        "verdicts": msgspec.to_builtins(rates.verdicts) if rates else {},
        "rates_at": rates.at if rates else None,
    }


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
