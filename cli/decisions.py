"""``status``, ``why``, ``isolate``, ``release``, ``override``: what was decided, and the operator's own word."""

import asyncio
import re
import secrets
from typing import Any

import aiokafka
import click
import msgspec

from agents.ports import now_ms
from cli.access import operator, publish, read_to_end, with_kafka
from cli.failures import OutsideFailed, SaysNo
from cli.settings import setting_options
from cli.views import campaign_view, looked_up, moment, print_json, table
from policy.judging import PROVIDER, TRIAL
from policy.naming import campaign_scope
from policy.settings import Settings
from schemas.codec import Malformed, decode
from schemas.reputation import Command, CommandName, Decision
from schemas.topics import COMMANDS, DECISIONS
from streams.kafka_security import connection

ANSWER_WITHIN_S = 20.0
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
REASON = click.option("--reason", required=True, metavar="TEXT", help="Why, in a sentence; it stands in the decision.")
APPROVED_BY = click.option(
    "--approved-by", metavar="NAME", help="The second person, where one is asked for; it stands in the decision."
)
_SPAN = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>[smhd])")
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@click.command()
@JSON
@setting_options()
def status(settings: Settings, as_json: bool) -> None:
    """Show all campaigns: state, rates against limits, and the reason of the state.

    Exit code 0 if every campaign may send, 1 if one may not.

    \b
    Examples:
      mailcordon status
      mailcordon status --json | jq -r 'select(.may_send | not) | [.campaign, .reason] | @tsv'
    """
    views = with_kafka(settings, looked_up)
    if as_json:
        for view in views:
            print_json(view)
    else:
        table(views)
    if not all(view["may_send"] for view in views):
        raise click.exceptions.Exit(1)


@click.command()
@click.argument("campaign", metavar="CAMPAIGN")
@click.option("--last", default=1, show_default=True, metavar="N", help="How many decisions to show, newest first.")
@JSON
@setting_options()
def why(settings: Settings, campaign: str, last: int, as_json: bool) -> None:
    """Explain the state of CAMPAIGN: the decision, its numbers and evidence, and what lifts it.

    Exit code 1 if the campaign is not known or nothing was ever decided about it.

    \b
    Examples:
      mailcordon why bought-list
      mailcordon why bought-list --last 5 --json
    """

    async def work(bootstrap: str) -> tuple[dict[str, Any] | None, list[Decision]]:
        return await campaign_view(bootstrap, campaign), await decisions_about(bootstrap, campaign)

    view, found = with_kafka(settings, work)
    if view is None:
        raise SaysNo(f"campaign {campaign} is not known; `mailcordon campaign list` shows those that are")
    if not found:
        raise SaysNo(f"campaign {campaign} is {view['state']}: {view['reason']}")
    for one in found[: max(1, last)]:
        if as_json:
            print_json(msgspec.to_builtins(one))
        else:
            _print_decision(one)


@click.command()
@click.argument("campaign", metavar="CAMPAIGN")
@REASON
@JSON
@setting_options()
def isolate(settings: Settings, campaign: str, reason: str, as_json: bool) -> None:
    """Stop CAMPAIGN at once: its sender stops, its pods go, its mail waits.

    \b
    Example:
      mailcordon isolate bought-list --reason "the list was bought, says its owner"
    """
    explained(command_campaign(settings, campaign, "isolate", reason), as_json)


@click.command()
@click.argument("campaign", metavar="CAMPAIGN")
@REASON
@APPROVED_BY
@click.option("--at-once", is_flag=True, help="Full pace and all recipients from the beginning: no warming up.")
@JSON
@setting_options()
def release(
    settings: Settings, campaign: str, reason: str, approved_by: str | None, at_once: bool, as_json: bool
) -> None:
    """Let CAMPAIGN send again, from where it stopped; what it did before its release no longer counts against it.

    A campaign that was isolated or paused warms up: half an hour at a tenth of its pace, to recipients who were seen
    within 90 days; then a quarter of the pace to all, a half, all of it.  Each stage has to show that no rate warns.
    One that policy has isolated twice within 30 days needs --approved-by.

    \b
    Examples:
      mailcordon release bought-list --reason "the bought part of the list was removed"
      mailcordon release bought-list --reason "a false alarm: our own seed list" --at-once
    """
    decision = command_campaign(settings, campaign, "release", reason, approved_by=approved_by, at_once=at_once)
    explained(decision, as_json)


@click.command()
@click.argument("campaign", metavar="CAMPAIGN")
@REASON
@click.option("--for", "span", required=True, metavar="TIME", help="How long, such as 30m or 4h; at most 24h.")
@APPROVED_BY
@JSON
@setting_options()
def override(settings: Settings, campaign: str, reason: str, span: str, approved_by: str | None, as_json: bool) -> None:
    """Let CAMPAIGN send for a while although the policy stopped it; afterwards what the policy says holds again.

    The policy goes on judging meanwhile, and says so.  Against a confirmed pristine trap it takes a second person
    (--approved-by); a new hit of one ends an override that nobody approved.

    \b
    Examples:
      mailcordon override resets --for 4h --reason "password resets have to go out"
      mailcordon override resets --for 1h --reason "it is our own seed address" --approved-by bob
    """
    until = now_ms() + _span_ms(span)
    decision = command_campaign(settings, campaign, "override", reason, approved_by=approved_by, until=until)
    explained(decision, as_json)


def _span_ms(text: str) -> int:
    """``90s``, ``30m``, ``4h`` or ``1d`` in milliseconds."""
    found = _SPAN.fullmatch(text.strip().lower())
    if found is None:
        raise click.BadParameter(f"expected a time such as 30m or 4h, got {text!r}", param_hint="--for")
    return int(float(found["number"]) * _UNITS_S[found["unit"]] * 1000)


def explained(decision: Decision, as_json: bool) -> None:
    """Print the decision that an operator's command led to."""
    if as_json:
        print_json(msgspec.to_builtins(decision))
    else:
        _print_decision(decision)
    if decision.rule == "refused":
        raise click.exceptions.Exit(1)


def command_campaign(
    settings: Settings,
    campaign: str,
    command: CommandName,
    reason: str,
    *,
    approved_by: str | None = None,
    at_once: bool = False,
    until: int | None = None,
) -> Decision:
    """Give the judge a command and wait for its decision."""
    given = Command(
        id=secrets.token_hex(8),
        scope=campaign_scope(campaign),
        campaign=campaign,
        command=command,
        reason=" ".join(reason.split())[:500],
        by=operator(),
        at=now_ms(),
        approved_by=(approved_by or "").strip()[:128] or None,
        at_once=at_once,
        until=until,
    )

    async def work(bootstrap: str) -> Decision:
        if await campaign_view(bootstrap, campaign) is None:
            raise SaysNo(f"campaign {campaign} is not known; `mailcordon campaign list` shows those that are")
        return await ask_judge(bootstrap, given)

    return with_kafka(settings, work)


async def ask_judge(bootstrap: str, given: Command) -> Decision:
    """Publish a command; the decision that carries its id is the answer."""
    consumer = aiokafka.AIOKafkaConsumer(DECISIONS, **connection(bootstrap), auto_offset_reset="latest")
    await consumer.start()
    try:
        for partition in consumer.assignment():
            await consumer.position(partition)  # fixes the starting point before the command is published
        await publish(bootstrap, [(COMMANDS, given.scope, given)])
        async with asyncio.timeout(ANSWER_WITHIN_S):
            async for record in consumer:
                decision = decode(Decision, record.value)
                if not isinstance(decision, Malformed) and decision.command_id == given.id:
                    return decision
    except TimeoutError as late:
        raise OutsideFailed(
            f"no worker answered within {ANSWER_WITHIN_S:.0f} s; the command is in {COMMANDS} and will be obeyed "
            "as soon as a worker runs (mailcordon worker)"
        ) from late
    finally:
        await consumer.stop()
    raise OutsideFailed(f"the topic {DECISIONS} ended")


async def decisions_about(bootstrap: str, campaign: str) -> list[Decision]:
    """The decisions about a campaign, newest first; repeats of one epoch are one."""
    by_epoch: dict[tuple[str, int, str | None], Decision] = {}
    async for record in read_to_end(bootstrap, DECISIONS):
        decision = decode(Decision, record.value)
        if isinstance(decision, Malformed) or decision.scope.endswith(TRIAL):
            continue
        if decision.campaign == campaign and decision.scope.startswith("campaign:") and decision.rule != "refused":
            by_epoch[decision.scope, decision.epoch, decision.command_id] = decision
    return sorted(by_epoch.values(), key=lambda one: (one.at, one.epoch), reverse=True)


def _print_evidence(name: str, value: object) -> None:
    match value:
        case None:
            return
        case float():
            click.echo(f"  {name}: {value:.6g}")
        case dict() if all(isinstance(one, dict) for one in value.values()):
            click.echo(f"  {name}:")
            for window, counts in value.items():
                told = ", ".join(f"{count} {what}" for what, count in counts.items())
                click.echo(f"    {window}: {told or 'nothing'}")
        case dict():
            click.echo(f"  {name}: " + ", ".join(f"{count} {what}" for what, count in value.items() if count))
        case list() if value and isinstance(value[0], dict):
            click.echo(f"  {name}:")
            for reference in value:
                where = f"{reference['topic']}[{reference['partition']}]@{reference['offset']}"
                click.echo(f"    {moment(reference.get('at'))}  {where}  message {reference.get('message_id') or '-'}")
        case list():
            click.echo(f"  {name}: " + " to ".join(f"{one:.6g}" for one in value))
        case _:
            click.echo(f"  {name}: {value}")


def _print_decision(one: Decision) -> None:
    dry = " (dry run: not acted on)" if one.dry_run else ""
    _, at_provider, provider = one.scope.partition(PROVIDER)
    whose = f"{one.campaign} at {provider}" if at_provider else one.campaign
    click.echo(f"{whose}: {one.from_} -> {one.to} at {moment(one.at)}, epoch {one.epoch}, by {one.by}{dry}")
    click.echo(f"  {one.reason}")
    click.echo(f"  rule: {one.rule}")
    for name, value in one.evidence.items():
        if name not in ("rule", "judged"):
            _print_evidence(name, value)
    if one.until is not None:
        click.echo(f"  until: {moment(one.until)}")
    lifts = {
        "isolated": f"lifted only by: mailcordon release {one.campaign} --reason TEXT (it warms up, unless --at-once)",
        "retired": "never lifted: apply the campaign under a new id",
        "paused": "lifted by the judge when the rates have recovered, or by: mailcordon release",
        "throttled": "lifted by the judge when the rates have recovered, or by: mailcordon release",
    }
    if one.to in lifts:
        click.echo(f"  {lifts[one.to]}")
