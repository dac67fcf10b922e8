"""``mailcordon dead-letters``: records that were set aside, and putting them back."""

import base64
import fnmatch
from collections.abc import Sequence

import click
import msgspec

from cli.access import say, with_kafka
from cli.failures import SaysNo
from cli.settings import setting_options
from cli.views import moment, print_json
from policy.settings import Settings
from streams.dead_letters import Kept
from streams.dead_letters import kept as read_kept
from streams.dead_letters import replay as put_back

FILTERS = (
    click.option("--topic", metavar="TOPIC", help="Only those that came from this topic; * stands for anything."),
    click.option("--reason", metavar="REASON", help="Only those with this reason, such as not_json."),
)


@click.group(name="dead-letters")
def dead_letters() -> None:
    """Records that could not be understood or worked on: their raw bytes, and why."""


@dead_letters.command(name="list")
@FILTERS[0]
@FILTERS[1]
@click.option("--raw", is_flag=True, help="Show the bytes too (they may hold addresses).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line, raw bytes as base64.")
@setting_options()
def list_(settings: Settings, topic: str | None, reason: str | None, raw: bool, as_json: bool) -> None:
    """List dead letters, oldest first.

    Exit code 0 if there are some, 1 if there are none.

    \b
    Examples:
      mailcordon dead-letters list
      mailcordon dead-letters list --topic mail.send.requests --reason not_json --raw
    """
    found = _chosen(with_kafka(settings, read_kept), topic, reason)
    for one in found:
        if as_json:
            print_json(msgspec.to_builtins(one.letter) | {"id": _id(one), "replayed_at": one.replayed_at})
            continue
        again = f", put back at {moment(one.replayed_at)}" if one.replayed_at else ""
        letter = one.letter
        click.echo(f"{_id(one)}  {moment(letter.at)}  {letter.topic}[{letter.partition}]@{letter.offset}{again}")
        click.echo(f"    {letter.reason}: {letter.explain}")
        if raw:
            click.echo(f"    {base64.b64decode(letter.raw)!r}")
    if not found:
        raise SaysNo("there are no such dead letters")


@dead_letters.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@FILTERS[0]
@FILTERS[1]
@click.option("--all", "everything", is_flag=True, help="All that match, without naming them.")
@click.option("--again", is_flag=True, help="Also those that were put back before.")
@setting_options()
def replay(
    settings: Settings,
    ids: tuple[str, ...],
    topic: str | None,
    reason: str | None,
    everything: bool,
    again: bool,
) -> None:
    """Put dead letters back into the topics they came from, as they were.

    Name them by the ID that `dead-letters list` shows, or take all that match.  A dead letter is put back once;
    --again does it once more.

    \b
    Examples:
      mailcordon dead-letters replay 0-17
      mailcordon dead-letters replay --all --reason agent_failed
    """
    if not ids and not everything:
        raise click.UsageError("name the dead letters by id, or use --all")

    async def work(bootstrap: str) -> tuple[list[Kept], list[Kept]]:
        chosen = _chosen(await read_kept(bootstrap), topic, reason)
        if ids:
            chosen = [one for one in chosen if _id(one) in ids]
        mails = [one for one in chosen if one.letter.topic.startswith(("smtp:", "webhook:"))]
        records = [one for one in chosen if one not in mails]
        return await put_back(bootstrap, records, again=again), mails

    done, mails = with_kafka(settings, work)
    for one in done:
        click.echo(f"{_id(one)} put back into {one.letter.topic}")
    for one in mails:
        say(f"{_id(one)} did not come from a topic but from outside: it stays where it is")
    if not done:
        raise SaysNo("nothing was put back: no such dead letters, or they were put back before (see --again)")


def _chosen(found: Sequence[Kept], topic: str | None, reason: str | None) -> list[Kept]:
    return [
        one
        for one in found
        if (topic is None or fnmatch.fnmatchcase(one.letter.topic, topic))
        and (reason is None or one.letter.reason == reason)
    ]


def _id(one: Kept) -> str:
    return f"{one.partition}-{one.offset}"
