"""``audit``: the log of everything that was decided and asked, and whether somebody has changed it."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import msgspec

from agents.ports import now_ms
from cli import broker as brokers
from cli import secrets
from cli.access import REQUEST_TIMEOUT_S, read_to_end, say, with_kafka
from cli.backtest_asking import FROM, TO, moment_of
from cli.failures import SaysNo, WrongUse
from cli.settings import setting_options
from cli.views import moment, print_json
from policy.auditing import Line, Seal, Verified, sealer, verified
from policy.naming import campaign_scope
from policy.settings import Settings
from schemas.audit import AuditEntry
from schemas.codec import Malformed, decode
from schemas.reputation import Control
from schemas.topics import AUDIT, BY_NAME, CONTROL
from streams.admin import admin
from streams.home import home

LOOKS, PAUSE_S = 4, 1.0  # control may be there a moment before the entry that explains it
FILE = click.Path(path_type=Path, dir_okay=False)
SCOPE = click.option("--scope", default=None, metavar="SCOPE", help="Only this scope, such as campaign:spring-sale.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")


@dataclass(frozen=True, slots=True)
class Read:
    """The log as it is in Kafka: its entries, and the partitions whose oldest ones are past their retention."""

    lines: list[Line]
    cut: frozenset[int]


@click.group()
def audit() -> None:
    """The log of all decisions and commands, each entry bound to the one before it."""


@audit.command()
@SCOPE
@click.option("--input", "source", type=FILE, help="An export (.jsonl), not Kafka.")
@click.option("--head", "heads", multiple=True, metavar="HASH", help="A head that was noted before; may be repeated.")
@click.option("--seals/--no-seals", default=True, help="Check the seals, with the keys of the secret file.")
@JSON
@setting_options()
def verify(
    settings: Settings, scope: str | None, source: Path | None, heads: tuple[str, ...], seals: bool, as_json: bool
) -> None:
    """Look for entries that were changed, taken away, moved or added, and print the heads of what is there.

    Exit code 0 if nothing is wrong, 1 if something is; then it says what, and where. A head that was noted elsewhere
    also shows that what came before it was not written anew.

    \b
    Examples:
      mailcordon audit verify
      mailcordon audit verify --scope campaign:spring-sale --head 9f2c…
      mailcordon audit verify --input audit.jsonl --no-seals --json
    """
    seal = _seal(settings) if seals else None
    if source is not None:
        found = verified(_of_scope(_lines_of(source), scope), seal=seal, heads=heads)
    else:

        async def work(bootstrap: str) -> Verified:
            return await checked(bootstrap, scope=scope, seal=seal, heads=heads)

        found = with_kafka(settings, work)
    if as_json:
        print_json(_plain(found, is_sealed=seal is not None))
    else:
        _print(found)
    if found.wrong:
        raise SaysNo(f"{len(found.wrong)} things are wrong with the audit log")
    entries = sum(one.entries for one in found.chains)
    say(f"{entries:,} entries about {len(found.chains):,} scopes, nothing wrong")


@audit.command("list")
@SCOPE
@FROM
@TO
@JSON
@setting_options()
def list_(settings: Settings, scope: str | None, begin: str | None, end: str | None, as_json: bool) -> None:
    """List entries, oldest first: who or what decided, when, and why.

    \b
    Examples:
      mailcordon audit list --scope campaign:spring-sale
      mailcordon audit list --from 7d --json | jq -r 'select(.what == "command") | .decision.by'
    """
    now = now_ms()
    since, to = moment_of("from", begin, now), moment_of("to", end, now)

    async def work(bootstrap: str) -> Read:
        return await read(bootstrap)

    entries: dict[tuple[str, int, bytes], AuditEntry] = {}
    for line in _of_scope(with_kafka(settings, work).lines, scope):
        entry = decode(AuditEntry, line.raw)
        if isinstance(entry, Malformed):
            say(f"{line.where} is no audit entry: {entry.explain}")
        elif (since is None or entry.at >= since) and (to is None or entry.at < to):
            entries[entry.scope, entry.seq, line.raw] = entry
    for entry in sorted(entries.values(), key=lambda one: (one.at, one.scope, one.seq)):
        if as_json:
            print_json(msgspec.to_builtins(entry))
        else:
            _print_entry(entry)


@audit.command()
@click.argument("file", type=FILE)
@SCOPE
@setting_options()
def export(settings: Settings, file: Path, scope: str | None) -> None:
    """Write the entries into FILE, a line each, as they are in Kafka; then verify what was written.

    The head that is printed stands for the whole file: note it elsewhere, and give it to `audit verify --head`.

    \b
    Example:
      mailcordon audit export audit-2026-11.jsonl
    """

    async def work(bootstrap: str) -> Read:
        return await read(bootstrap)

    lines = list(_of_scope(with_kafka(settings, work).lines, scope))
    temporary = file.with_name(f".{file.name}.part")
    try:
        temporary.write_bytes(b"".join(line.raw.replace(b"\n", b" ") + b"\n" for line in lines))
        temporary.replace(file)
    except OSError as wrong:
        raise WrongUse(f"{file}: {wrong}") from wrong
    found = verified(_lines_of(file), may_begin_later=lambda _scope: True)
    say(f"{len(lines):,} entries in {file}")
    click.echo(found.head)
    if found.wrong:
        raise SaysNo(f"{len(found.wrong)} things are wrong with the audit log; see: mailcordon audit verify")


async def read(bootstrap: str) -> Read:
    """All entries that are there now, partition by partition in order."""
    lines: list[Line] = []
    firsts: dict[int, int] = {}
    async for record in read_to_end(bootstrap, AUDIT):
        firsts.setdefault(record.partition, record.offset)
        lines.append(Line(record.value or b"", f"{AUDIT}[{record.partition}]@{record.offset}"))
    return Read(lines, frozenset(partition for partition, first in firsts.items() if first))


async def checked(
    bootstrap: str, *, scope: str | None = None, seal: Seal | None = None, heads: Iterable[str] = ()
) -> Verified:
    """Verify the log in Kafka, also against what the senders were told."""
    async with admin(bootstrap, within_s=REQUEST_TIMEOUT_S) as edge:
        partitions = (await edge.partitions([AUDIT])).get(AUDIT, 0)
    told = {
        one_scope: control async for one_scope, control in _controls(bootstrap) if scope in (None, one_scope)
    }  # before the log: an entry is written before the control that follows from it
    kept_since = now_ms() - 1000 * (BY_NAME[AUDIT].retention_s or 0)
    looks = 0
    while True:
        log = await read(bootstrap)

        def is_cut(one: str, cut: frozenset[int] = log.cut) -> bool:
            return bool(partitions) and home(one, partitions) in cut

        epochs = {one: control.epoch for one, control in told.items() if control.at > kept_since or not is_cut(one)}
        found = verified(
            _of_scope(log.lines, scope), seal=seal, heads=list(heads), epochs=epochs, may_begin_later=is_cut
        )
        looks += 1
        if looks >= LOOKS or not any(one.fault == "cut_off" for one in found.wrong):
            return found
        await asyncio.sleep(PAUSE_S)


async def _controls(bootstrap: str) -> AsyncIterator[tuple[str, Control]]:
    async for record in read_to_end(bootstrap, CONTROL):
        control = decode(Control, record.value)
        if not isinstance(control, Malformed):
            yield campaign_scope(control.campaign), control


def _of_scope(lines: Iterable[Line], scope: str | None) -> Iterator[Line]:
    """The entries of one scope; what cannot be read may be of any."""
    for line in lines:
        entry = decode(AuditEntry, line.raw) if scope is not None else None
        if entry is None or isinstance(entry, Malformed) or entry.scope == scope:
            yield line


def _lines_of(file: Path) -> list[Line]:
    try:
        raw = file.read_bytes()
    except OSError as wrong:
        raise WrongUse(f"{file}: {wrong}") from wrong
    return [Line(line, f"{file}:{number}") for number, line in enumerate(raw.split(b"\n"), start=1) if line]


def _seal(settings: Settings) -> Seal | None:
    """With the installation's keys, if they are here; this command never makes any."""
    file = brokers.secret_file(settings)
    if file.exists():
        return sealer(secrets.load(file))
    if settings.secret_file is not None:
        raise WrongUse(f"secret file {file} does not exist; name another, or leave seals alone with --no-seals")
    say(f"seals are not checked: there is no secret file {file}; name it with --secret-file")
    return None


def _plain(found: Verified, *, is_sealed: bool) -> Mapping[str, Any]:
    return {
        "wrong": [
            {"fault": one.fault, "scope": one.scope, "seq": one.seq, "explain": one.explain} for one in found.wrong
        ],
        "forked": found.forked,
        "seals_checked": is_sealed,
        "head": found.head,
        "scopes": {
            one.scope: {
                "first": one.first,
                "seq": one.head.seq,
                "head": one.head.hash,
                "epoch": one.epoch,
                "entries": one.entries,
            }
            for one in found.chains
        },
    }


def _print(found: Verified) -> None:
    for chain in sorted(found.chains, key=lambda one: one.scope):
        click.echo(f"{chain.scope}: entries {chain.first} to {chain.head.seq}, head {chain.head.hash}")
    for explain in found.forked:
        click.echo(f"note: two workers decided at once, one of which had lost its partition: {explain}")
    for one in found.wrong:
        click.echo(f"WRONG ({one.fault}): {one.explain}")
    click.echo(f"head of all: {found.head}")


def _print_entry(entry: AuditEntry) -> None:
    one = entry.decision
    dry = " (dry run)" if one.dry_run else ""
    about = "" if one.scope == entry.scope else f" {one.scope.removeprefix(entry.scope)}"
    click.echo(
        f"{moment(entry.at)}  {entry.scope}#{entry.seq}{about}  {entry.what}: {one.from_} -> {one.to}, "
        f"epoch {one.epoch}, by {one.by}, rule {one.rule}{dry}"
    )
    click.echo(f"    {one.reason}")
    if entry.cause is not None:
        click.echo(f"    because of {entry.cause.topic}[{entry.cause.partition}]@{entry.cause.offset}")
