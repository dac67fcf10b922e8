"""``mailcordon send``: a list of recipients becomes send requests."""

from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from cli import recipients as lists
from cli.access import producer, say, with_kafka
from cli.failures import SaysNo, WrongUse
from cli.settings import setting_options
from cli.views import catalogue_of, print_json
from policy.settings import Settings
from policy.templates import BadContent
from schemas.codec import encode
from schemas.topics import CAMPAIGNS, CONTENTS, REQUESTS


@click.command()
@click.option("--campaign", required=True, metavar="ID", help="The campaign that sends.")
@click.option("--content", required=True, metavar="ID", help="The content that is sent.")
@click.option(
    "--recipients",
    "file",
    required=True,
    metavar="FILE.csv",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="CSV with a header line: address, the content's variables, optionally message_id, source, opted_in_at.",
)
@click.option("--dry-run", is_flag=True, help="Read and check the file, publish nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
@setting_options()
def send(settings: Settings, campaign: str, content: str, file: Path, dry_run: bool, as_json: bool) -> None:
    """Ask for CONTENT to be sent to every recipient of a CSV file.

    Running it again (the same file, or the rest of it after Ctrl-C) never asks for a mail twice: a message's id
    is derived from content and address, and a message id is sent once per campaign.  What becomes of each message
    is in mail.delivery.results and mail.send.refused.

    \b
    Example:
      mailcordon send --campaign spring-sale --content hello-1 --recipients customers.csv

    \b
    customers.csv:
      address,name
      ann@example.com,Ann
    """
    count, requests = with_kafka(settings, lambda bootstrap: _send(bootstrap, campaign, content, file, dry_run))
    if as_json:
        print_json(
            {"campaign": campaign, "content": content, "recipients": count, "requests": requests, "dry_run": dry_run}
        )
    elif dry_run:
        say(f"{count:,} recipients in {requests:,} requests could be sent; nothing was published")
    else:
        say(f"{count:,} recipients asked for in {requests:,} requests; `mailcordon status` shows how they fare")


async def _send(bootstrap: str, campaign: str, content: str, file: Path, dry_run: bool) -> tuple[int, int]:
    variables = await _variables(bootstrap, campaign, content)
    count = requests = 0
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task(file.name, total=file.stat().st_size)
        found = lists.read(file, content, lambda done: progress.update(bar, completed=done))
        async with producer(bootstrap) as out:
            unacknowledged = []
            for request in lists.requests(campaign, content, found):
                if count == 0:
                    missing = sorted(variables - set(request.recipients[0].vars))
                    if missing:
                        raise WrongUse(
                            f"{file} has no column {missing[0]}, which content {content} uses; "
                            f"its variables are: {', '.join(sorted(variables))}"
                        )
                count += len(request.recipients)
                requests += 1
                if not dry_run:
                    acknowledged = await out.send(REQUESTS, key=request.request_id.encode(), value=encode(request))
                    unacknowledged.append(acknowledged)
                if len(unacknowledged) >= 100:
                    await unacknowledged.pop(0)
            for acknowledged in unacknowledged:
                await acknowledged
    if count == 0:
        raise WrongUse(f"{file} has a header line and no recipients")
    return count, requests


async def _variables(bootstrap: str, campaign: str, content: str) -> frozenset[str]:
    async with catalogue_of(bootstrap, CAMPAIGNS, CONTENTS) as catalogue:
        if campaign not in catalogue.campaigns:
            raise SaysNo(f"campaign {campaign} is not known; make it known with: mailcordon campaign apply FILE")
        template = catalogue.templates.get((campaign, content))
    if template is None:
        raise SaysNo(f"content {content} of {campaign} is not known; make it known with: mailcordon content apply FILE")
    if isinstance(template, BadContent):
        raise SaysNo(f"content {content} of {campaign} cannot be sent: {template.explain}")
    return template.variables
