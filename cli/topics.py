"""``mailcordon topics`` and ``mailcordon settings``: what an installation is made of."""

import json
import os

import click

from cli.access import say, with_kafka
from cli.failures import SaysNo
from cli.pruning import prune
from cli.settings import load, setting_options, texts
from policy.settings import Settings, describe
from streams.topics import create as create_topics


@click.group()
def topics() -> None:
    """The topics that everything flows through."""


@topics.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@setting_options("partitions", "replication")
def create(settings: Settings, as_json: bool) -> None:
    """Create the topics that are missing; running it again changes nothing.

    A topic that is there with other partitions or settings is left as it is and named; then the exit code is 1.

    \b
    Example:
      mailcordon topics create --kafka kafka-1:9092 --replication 3 --partitions 12
    """
    report = with_kafka(settings, lambda bootstrap: create_topics(bootstrap, settings))
    if as_json:
        click.echo(json.dumps({"created": report.created, "kept": report.kept, "differs": report.differs}))
    else:
        say(f"{len(report.created)} topics created, {len(report.kept)} were there")
        for line in report.differs:
            say(f"differs: {line}")
    if report.differs:
        raise SaysNo(f"{len(report.differs)} topics differ from what this mailcordon would create")


topics.add_command(prune)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def settings(as_json: bool) -> None:
    """Print every setting: value, where it came from, unit and meaning.

    A setting is an option of the commands that use it (--smtp-routes) and an environment variable
    (MAILCORDON_SMTP_ROUTES); the option wins.

    \b
    Example:
      MAILCORDON_KAFKA=kafka-1:9092 mailcordon settings
    """
    in_force = load({})
    described = describe(in_force, texts({}, os.environ))
    if as_json:
        for one in described:
            click.echo(
                json.dumps(
                    {
                        "setting": one.name,
                        "value": one.value,
                        "origin": one.origin,
                        "default": one.default,
                        "unit": one.unit,
                        "meaning": one.meaning,
                    }
                )
            )
        return
    for one in described:
        value = one.value or "(none)"
        unit = f" [{one.unit}]" if one.unit else ""
        click.echo(
            f"{one.name} = {value}\n    {one.meaning}{unit}; from: {one.origin}; default: {one.default or 'none'}"
        )
    click.echo(
        "\nThe secret file is a JSON object: key_id (a short text) and the keys address and return_path "
        "(64 hex digits each); it must not be readable by everybody."
    )
