"""``brake`` and ``shadow``: stopping the automation or all sending at once, and what other limits would do."""

import click
import msgspec

from agents.ports import now_ms
from cli.access import operator, publish, read_to_end, say, with_kafka
from cli.decisions import JSON, REASON
from cli.settings import setting_options
from cli.views import catalogue_of, moment, print_json
from policy.judging import differences
from policy.settings import Settings
from schemas.codec import Malformed, decode
from schemas.reputation import Brake, BrakeName, Decision
from schemas.topics import BRAKES, DECISIONS

_MEANS: dict[BrakeName, tuple[str, str]] = {
    "automation": (
        "the policy decides, and says what it would do, but nothing follows; operators' commands do",
        "what the policy decides is done again, from the next rates on",
    ),
    "sending": ("no sender begins another message, within a second", "senders go on where they stopped"),
}


@click.group()
def brake() -> None:
    """Stop the automation, or all sending, at once.

    \b
    Examples:
      mailcordon brake on automation --reason "the trap list holds a real domain"
      mailcordon brake off automation --reason "the list is mended"
      mailcordon brake on sending --reason "wrong price in all mails"
      mailcordon brake status
    """


@brake.command("on")
@click.argument("name", metavar="automation|sending", type=click.Choice(list(_MEANS)))
@REASON
@setting_options()
def brake_on(settings: Settings, name: BrakeName, reason: str) -> None:
    """Pull a brake: `automation` or `sending`.

    \b
    Example:
      mailcordon brake on sending --reason "wrong price in all mails"
    """
    _put(settings, name, reason, on=True)


@brake.command("off")
@click.argument("name", metavar="automation|sending", type=click.Choice(list(_MEANS)))
@REASON
@setting_options()
def brake_off(settings: Settings, name: BrakeName, reason: str) -> None:
    """Let a brake go.

    \b
    Example:
      mailcordon brake off sending --reason "the content is right again"
    """
    _put(settings, name, reason, on=False)


def _put(settings: Settings, name: BrakeName, reason: str, *, on: bool) -> None:
    record = Brake(brake=name, on=on, reason=" ".join(reason.split())[:500], by=operator(), at=now_ms())

    async def work(bootstrap: str) -> None:
        await publish(bootstrap, [(BRAKES, name, record)])

    with_kafka(settings, work)
    say(f"brake {name} is {'on' if on else 'off'}: {_MEANS[name][0 if on else 1]}")


@brake.command("status")
@JSON
@setting_options()
def brake_status(settings: Settings, as_json: bool) -> None:
    """Show both brakes; exit code 1 if one is on.

    \b
    Example:
      mailcordon brake status --json
    """

    async def work(bootstrap: str) -> dict[str, Brake]:
        async with catalogue_of(bootstrap, BRAKES) as catalogue:
            return catalogue.brakes

    found = with_kafka(settings, work)
    for name in _MEANS:
        one = found.get(name)
        if as_json:
            print_json({"brake": name, "on": False} if one is None else msgspec.to_builtins(one))
        elif one is None:
            click.echo(f"{name}: off")
        else:
            click.echo(f"{name}: {'on' if one.on else 'off'} since {moment(one.at)}, by {one.by}: {one.reason}")
    if any(one.on for one in found.values()):
        raise click.exceptions.Exit(1)


@click.command()
@JSON
@setting_options()
def shadow(settings: Settings, as_json: bool) -> None:
    """Show where campaigns would stand by their `shadow_limits`, where that differs from how they stand.

    Give a campaign record `shadow_limits` to try other limits on live mail: they are judged beside those in force, and
    nothing follows.  Exit code 1 if there is a difference.

    \b
    Examples:
      mailcordon shadow
      mailcordon shadow --json | jq -r '[.campaign, .is, .would_be, .reason] | @tsv'
    """

    async def work(bootstrap: str) -> list[Decision]:
        found = []
        async for record in read_to_end(bootstrap, DECISIONS):
            decision = decode(Decision, record.value)
            if not isinstance(decision, Malformed):
                found.append(decision)
        return found

    found = differences(with_kafka(settings, work))
    for name, (held, tried) in sorted(found.items()):
        if tried is None:
            continue
        state = "healthy" if held is None else held.to
        if as_json:
            print_json({"campaign": name, "is": state, "would_be": tried.to, "since": tried.at, "reason": tried.reason})
        else:
            click.echo(f"{name}: is {state}, would be {tried.to} since {moment(tried.at)}: {tried.reason}")
    if not found and not as_json:
        click.echo("no campaign's shadow limits say anything else than its limits")
    if found:
        raise click.exceptions.Exit(1)
