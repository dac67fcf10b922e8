"""``mailcordon held``: messages that a screen holds until somebody decides; releasing and refusing them.

The order of writing is what keeps a crash harmless.  A release publishes the request first and waits until Kafka has
it, then ends the waiting: a crash between the two leaves the message held although it is on its way, and releasing it
again asks for the same message id, which is sent once.  A refusal is published before the waiting ends as well.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import aiokafka
import click
import msgspec

from agents.ports import now_ms
from cli.access import REQUEST_TIMEOUT_S, chunks, operator, producer, read_to_end, say, with_kafka
from cli.failures import SaysNo, WrongUse
from cli.settings import setting_options
from cli.views import moment, print_json
from policy.settings import Settings
from schemas.base import Record
from schemas.codec import Malformed, decode, encode
from schemas.sending import HeldMessage, Refused
from schemas.topics import BY_NAME, HELD, REFUSED, REQUESTS

_AT_ONCE = 500
_LISTED = 20
_DONE = {"release": "released", "refuse": "refused"}

F = TypeVar("F", bound=Callable[..., Any])
Headers = Sequence[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A held message with its place in the topic."""

    key: bytes
    message: HeldMessage
    headers: Headers


@dataclass(frozen=True, slots=True)
class Choice:
    """Which of the held messages are meant."""

    ids: tuple[str, ...] = ()
    campaign: str | None = None
    reason: str | None = None

    def has(self, one: HeldMessage) -> bool:
        """Is this message meant?"""
        return (
            (not self.ids or one.message_id in self.ids)
            and self.campaign in {None, one.campaign}
            and self.reason in {None, one.reason}
        )


@click.group()
def held() -> None:
    """Messages that wait for a decision, because a screen has something against their recipients."""


def _filters(command: F) -> F:
    command = click.option("--reason", metavar="SCREEN", help="Only those that this screen holds.")(command)
    return click.option("--campaign", metavar="ID", help="Only those of this campaign.")(command)


def _decision(command: F) -> F:
    for option in (
        click.argument("ids", nargs=-1, metavar="[MESSAGE_ID]..."),
        click.option("--all", "everything", is_flag=True, help="All that match, without naming them."),
        click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing."),
        click.option("--confirm", metavar="WORD", help="The word that is asked for otherwise, for scripts."),
    ):
        command = option(command)
    return _filters(command)


@held.command(name="list")
@_filters
@click.option("--addresses", is_flag=True, help="Show the addresses and the whole requests too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@setting_options()
def list_(settings: Settings, campaign: str | None, reason: str | None, addresses: bool, as_json: bool) -> None:
    """List held messages, oldest first.

    Exit code 0 if there are some, 1 if there are none.

    \b
    Examples:
      mailcordon held list --campaign spring-sale
      mailcordon held list --reason typo_domain --json
    """
    found = _chosen(settings, Choice((), campaign, reason))
    for one in found:
        message = one.message
        address = message.request.recipients[0].address
        if as_json:
            shown: dict[str, Any] = msgspec.to_builtins(message)
            if not addresses:
                del shown["request"]
            print_json(shown)
            continue
        click.echo(f"{message.message_id}  {moment(message.at)}  {message.campaign}  {message.reason}")
        click.echo(f"    {address}: {message.explain}" if addresses else f"    {message.explain}")
    if not found:
        raise SaysNo("no such messages are held")


@held.command()
@_decision
@setting_options()
def release(
    settings: Settings,
    ids: tuple[str, ...],
    campaign: str | None,
    reason: str | None,
    everything: bool,
    dry_run: bool,
    confirm: str | None,
) -> None:
    """Send held messages after all: the screens do not apply to them, suppressions still do.

    Asks for the word `release` unless --confirm gives it.  A message whose time is over meanwhile is refused as
    `expired`.

    \b
    Examples:
      mailcordon held release order-1000
      mailcordon held release --all --campaign spring-sale --reason typo_domain --dry-run
    """
    by = operator()[:128]

    def released(message: HeldMessage) -> tuple[str, str, Record]:
        (recipient,) = message.request.recipients
        again = msgspec.structs.replace(
            message.request, recipients=[msgspec.structs.replace(recipient, released_by=by)]
        )
        return REQUESTS, again.request_id, again

    _decide(settings, Choice(ids, campaign, reason), everything, dry_run, confirm, "release", released)


@held.command()
@_decision
@click.option("--note", default="", metavar="TEXT", help="Why; it stands in what the application is told.")
@setting_options()
def refuse(
    settings: Settings,
    ids: tuple[str, ...],
    campaign: str | None,
    reason: str | None,
    everything: bool,
    dry_run: bool,
    confirm: str | None,
    note: str,
) -> None:
    """Give held messages up: each is answered in mail.send.refused, with the reason held_refused.

    Asks for the word `refuse` unless --confirm gives it.

    \b
    Examples:
      mailcordon held refuse order-1000 --note "asked by phone: no such person"
      mailcordon held refuse --all --reason recycled --confirm refuse
    """
    if len(note) > 300:
        raise WrongUse(f"--note has {len(note)} characters; at most 300 fit")
    at, said = now_ms(), f" ({note})" if note else ""

    def refused(message: HeldMessage) -> tuple[str, str, Record]:
        answer = Refused(
            request_id=message.request.request_id,
            message_id=message.message_id,
            campaign=message.campaign,
            address_hash=message.address_hash,
            stage="validate",
            reason="held_refused",
            explain=f"it was held by the screen {message.reason}, and an operator decided against it{said}; "
            f"{message.explain}"[:1000],
            at=at,
        )
        return REFUSED, message.request.request_id, answer

    _decide(settings, Choice(ids, campaign, reason), everything, dry_run, confirm, "refuse", refused)


Outcome = Callable[[HeldMessage], tuple[str, str, Record]]


def _decide(
    settings: Settings,
    choice: Choice,
    everything: bool,
    dry_run: bool,
    confirm: str | None,
    word: str,
    outcome: Outcome,
) -> None:
    if not choice.ids and not everything:
        raise click.UsageError("name the messages by id, or use --all (with --campaign and --reason)")
    found = _chosen(settings, choice)
    if not found:
        raise SaysNo("no such messages are held")
    missing = set(choice.ids) - {one.message.message_id for one in found}
    for one in found[:_LISTED]:
        say(f"{one.message.message_id}  {one.message.campaign}  {one.message.reason}")
    if len(found) > _LISTED:
        say(f"... and {len(found) - _LISTED:,} more")
    for gone in sorted(missing)[:_LISTED]:
        say(f"{gone} is not held")
    if dry_run:
        click.echo(f"would {word} {len(found):,} messages")
        return
    _confirmed(word, confirm, len(found))

    async def work(bootstrap: str) -> None:
        async with producer(bootstrap) as out:
            for part in chunks(found, _AT_ONCE):
                await _written(out, [(*outcome(one.message), one.headers) for one in part])
                await _written(out, [(HELD, one.key, None, ()) for one in part])

    with_kafka(settings, work)
    click.echo(f"{len(found):,} messages {_DONE[word]}")
    if missing:
        raise SaysNo(f"{len(missing):,} of the messages are not held")


async def _written(
    out: aiokafka.AIOKafkaProducer, records: Sequence[tuple[str, str | bytes, Record | None, Headers]]
) -> None:
    """Send and wait until Kafka has all of it."""
    sent = [
        await out.send(
            topic,
            key=key.encode() if isinstance(key, str) else key,
            value=None if record is None else encode(record),
            headers=list(headers),
        )
        for topic, key, record, headers in records
    ]
    async with asyncio.timeout(REQUEST_TIMEOUT_S):
        await asyncio.gather(*sent)


def _confirmed(word: str, given: str | None, count: int) -> None:
    asked = f"type {word} to {word} {count:,} messages"
    said = given if given is not None else click.prompt(asked, default="", show_default=False, err=True)
    if said != word:
        raise WrongUse(f"nothing was done: the word to confirm with is {word}")


def _chosen(settings: Settings, choice: Choice) -> list[Waiting]:
    """What waits now, oldest first."""

    async def work(bootstrap: str) -> list[Waiting]:
        waiting: dict[bytes, Waiting] = {}
        unreadable = 0
        async for record in read_to_end(bootstrap, HELD):
            key = record.key or b""
            waiting.pop(key, None)
            if record.value is None:
                continue
            found = decode(HeldMessage, record.value, max_bytes=BY_NAME[HELD].max_bytes)
            if isinstance(found, Malformed) or len(found.request.recipients) != 1:
                unreadable += 1
            elif choice.has(found):
                waiting[key] = Waiting(key, found, record.headers or ())
        if unreadable:
            say(f"{unreadable:,} records of {HELD} cannot be read and are left alone")
        return sorted(waiting.values(), key=lambda one: (one.message.at, one.key))

    return with_kafka(settings, work)
