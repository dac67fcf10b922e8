"""``mailcordon campaign`` and ``mailcordon content``: make them known, list them, show one."""

import json
from pathlib import Path

import click

from agents.ports import now_ms
from cli.access import operator, publish, say, with_kafka
from cli.decisions import command_campaign, explained
from cli.failures import SaysNo, WrongUse
from cli.files import read_records
from cli.settings import setting_options
from cli.views import campaign_view, looked_up, print_json, table
from policy.naming import outbound_topic, sender_name
from policy.registering import flaw_of, look_at, with_link
from policy.settings import Settings
from policy.templates import BadContent, compile_content
from schemas.sending import Campaign, Content
from schemas.topics import CAMPAIGNS, COMMANDS, CONTENTS
from streams.topics import create_for_campaigns

FILE = click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")


@click.group()
def campaign() -> None:
    """Campaigns: who sends, how fast, within which limits."""


@campaign.command()
@FILE
@JSON
@setting_options("outbound_partitions", "replication", "unsubscribe_url")
def apply(settings: Settings, file: Path, as_json: bool) -> None:
    """Make the campaigns of FILE known, or change them.

    FILE holds one JSON object, a list of them, or one a line.  The campaign's topics are created first, so that
    mail can be routed at once.  Applying again is harmless: it never wakes a campaign that is isolated.  A campaign
    without unsubscribe_url gets --unsubscribe-url; with neither, the sender makes no unsubscribe links.

    \b
    Example of FILE:
      {"campaign": "spring-sale", "tenant": "shop",
       "from": {"name": "The Shop", "address": "news@shop.example"},
       "return_path_domain": "bounces.shop.example", "unsubscribe_url": "https://u.shop.example/u",
       "limits": {"hard_bounce": 0.02, "complaint": 0.001, "trap_hit": 0.0002, "block": 0.05}}
    """
    campaigns = [with_link(one, settings.unsubscribe_url) for one in read_records(file, Campaign)]
    for one in campaigns:
        if (flaw := flaw_of(one)) is not None:
            raise WrongUse(f"{file}: field {flaw.field} of campaign {one.campaign}: {flaw.explain}")

    async def work(bootstrap: str) -> None:
        await register(bootstrap, campaigns, settings)

    with_kafka(settings, work)
    for one in campaigns:
        if as_json:
            print_json(
                {"campaign": one.campaign, "topic": outbound_topic(one.campaign), "sender": sender_name(one.campaign)}
            )
        else:
            say(f"{one.campaign}: known; topic {outbound_topic(one.campaign)}, sender {sender_name(one.campaign)}")


async def register(bootstrap: str, campaigns: list[Campaign], settings: Settings) -> None:
    """Create the campaigns' topics, then publish the campaigns, then ask the judge to look at them."""
    await create_for_campaigns(bootstrap, [one.campaign for one in campaigns], settings)
    await publish(bootstrap, ((CAMPAIGNS, one.campaign, one) for one in campaigns))
    asked = [look_at(one.campaign, by=operator(), at=now_ms()) for one in campaigns]
    await publish(bootstrap, ((COMMANDS, one.scope, one) for one in asked))


@campaign.command(name="list")
@JSON
@setting_options()
def list_(settings: Settings, as_json: bool) -> None:
    """List the campaigns with state and rates.

    \b
    Example:
      mailcordon campaign list --json | jq -r 'select(.state == "isolated") | .campaign'
    """
    views = with_kafka(settings, looked_up)
    if as_json:
        for view in views:
            print_json(view)
        return
    table(views)


@campaign.command()
@click.argument("campaign_id", metavar="ID")
@setting_options()
def show(settings: Settings, campaign_id: str) -> None:
    """Show everything that is known of campaign ID, as JSON.

    \b
    Example:
      mailcordon campaign show spring-sale | jq .verdicts
    """

    async def work(bootstrap: str) -> dict[str, object] | None:
        return await campaign_view(bootstrap, campaign_id)

    view = with_kafka(settings, work)
    if view is None:
        raise SaysNo(f"campaign {campaign_id} is not known; `mailcordon campaign list` shows those that are")
    click.echo(json.dumps(view, indent=2))


@campaign.command()
@click.argument("campaign_id", metavar="ID")
@click.option("--reason", required=True, help="Why, in a sentence; it stands in the decision.")
@JSON
@setting_options()
def retire(settings: Settings, campaign_id: str, reason: str, as_json: bool) -> None:
    """End campaign ID for good: its sender goes, nothing of it is sent again.

    \b
    Example:
      mailcordon campaign retire spring-sale --reason "the sale is over"
    """
    explained(command_campaign(settings, campaign_id, "retire", reason), as_json)


@click.group()
def content() -> None:
    """Contents: message templates of a campaign."""


@content.command(name="apply")
@FILE
@JSON
@setting_options()
def content_apply(settings: Settings, file: Path, as_json: bool) -> None:
    """Make the contents of FILE known, or change them.

    {{variable}} is the whole template language; every variable must be in each recipient's vars.  Only
    {{unsubscribe_url}} is the sender's: in text and html it becomes the message's own unsubscribe link.

    \b
    Example of FILE:
      {"campaign": "spring-sale", "content": "hello-1", "subject": "Hello {{name}}",
       "text": "Dear {{name}} ...", "html": "<p>Dear {{name}} ...</p>",
       "headers": {"Reply-To": "help@shop.example"}}
    """
    contents = read_records(file, Content)
    variables: dict[str, list[str]] = {}
    for one in contents:
        match compile_content(one):
            case BadContent() as bad:
                raise WrongUse(f"{file}: content {one.content}: {bad.explain}")
            case template:
                variables[one.content] = sorted(template.variables)

    async def work(bootstrap: str) -> None:
        await publish(bootstrap, ((CONTENTS, f"{one.campaign}/{one.content}", one) for one in contents))

    with_kafka(settings, work)
    for one in contents:
        if as_json:
            print_json({"campaign": one.campaign, "content": one.content, "variables": variables[one.content]})
        else:
            wanted = ", ".join(variables[one.content]) or "none"
            say(f"{one.campaign}/{one.content}: known; variables: {wanted}")
