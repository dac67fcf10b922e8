"""``mailcordon traps``: our own spam traps.  Topics hold keyed hashes, so that whoever reads them learns no trap."""

import csv
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

import click
import msgspec

from agents.ports import now_ms
from cli import broker as brokers
from cli import secrets
from cli.access import chunks, publish, say, say_imported, with_kafka
from cli.failures import SaysNo, WrongUse
from cli.settings import setting_options
from cli.views import catalogue_of, moment, print_json
from policy import snds
from policy.addresses import BadAddress, check, hostname
from policy.settings import Settings
from policy.tokens import Keys, address_hash
from policy.traps import What, domain_hash
from schemas.feedback import Feedback, RegisteredTrap
from schemas.topics import CAMPAIGNS, FEEDBACK, TRAPS
from streams.traps import registered

_HASH = re.compile(r"[0-9a-f]{64}\Z")
_COLUMNS = ("address", "email", "domain", "hash")
OwnKind = Literal["pristine", "recycled", "typo"]
KINDS: tuple[str, ...] = get_args(OwnKind)
WHATS: tuple[str, ...] = get_args(What)
MAX_PLANTED, MAX_NOTE = 200, 500
DAY_MS = 86_400_000
WEEK_MS = 7 * DAY_MS
KIND = click.option("--kind", type=click.Choice(KINDS), default="pristine", show_default=True, help="Which kind.")
PLANTED = click.option("--planted", default="", metavar="WHERE", help="Where it was planted: a page, a form, a list.")


@click.group()
def traps() -> None:
    """Our own spam traps: addresses and domains that nobody was ever given.

    Mail that reaches one at the return path is a confirmed hit of the campaign that sent it.  Only keyed hashes are
    stored, so the registry gives no trap away.
    """


@traps.command()
@click.argument("targets", nargs=-1, required=True, metavar="ADDRESS|@DOMAIN...")
@KIND
@PLANTED
@click.option("--decoy", is_flag=True, help="An address put into a list of our own, to see where that list goes.")
@click.option("--note", default="", help="Whatever helps whoever reads the list.")
@setting_options()
def add(settings: Settings, targets: tuple[str, ...], kind: OwnKind, planted: str, decoy: bool, note: str) -> None:
    """Register traps: addresses, or whole domains written as @DOMAIN.

    \b
    Examples:
      mailcordon traps add rosa@traps.example --planted "hidden link of www.shop.example"
      mailcordon traps add @gmial.example --kind typo
      mailcordon traps add seed-7@shop.example --decoy --planted "list of partner 7"
    """
    keys = secrets.load_or_make(brokers.secret_file(settings))
    entries = []
    for target in targets:
        hashed, what = _named(keys, target)
        if decoy and what == "domain":
            raise WrongUse(f"{target!r}: a decoy is one address, not a domain; leave out --decoy")
        entries.append(_entry(hashed, "decoy" if decoy else what, kind, planted, note))
    _publish(settings, entries)
    say(f"{len(entries)} registered")


@traps.command()
@click.argument("targets", nargs=-1, required=True, metavar="ADDRESS|@DOMAIN|HASH...")
@setting_options()
def remove(settings: Settings, targets: tuple[str, ...]) -> None:
    """Take traps out of the registry.

    Mail to them is no hit any more; what they left in mail.suppressions stays.

    \b
    Example:
      mailcordon traps remove rosa@traps.example @gmial.example
    """
    keys = secrets.load_or_make(brokers.secret_file(settings))
    hashes = [_named(keys, target)[0] for target in targets]

    async def work(bootstrap: str) -> int:
        known = await registered(bootstrap)
        await publish(bootstrap, ((TRAPS, one, None) for one in hashes))
        return sum(one in known for one in hashes)

    removed = with_kafka(settings, work)
    say(f"{removed} removed")
    if removed < len(hashes):
        raise SaysNo(f"{len(hashes) - removed} of {len(hashes)} were not registered")


@traps.command(name="import")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@KIND
@PLANTED
@setting_options()
def import_(settings: Settings, file: Path, kind: OwnKind, planted: str) -> None:
    """Register every row of a CSV file.

    Columns: address (an address or @domain; also called email or domain) or hash, and optionally what (address, domain,
    decoy), kind, planted, note and since (milliseconds).  Options stand in for empty cells.  A row that is wrong is
    named and skipped; then the exit code is 1.

    \b
    Example:
      mailcordon traps import traps.csv --planted "forms of 2026"
    """
    skipped: list[str] = []

    async def work(bootstrap: str) -> int:
        done = 0
        for part in chunks(_rows(settings, file, kind, planted, skipped), 5_000):
            await publish(bootstrap, ((TRAPS, one.hash, one) for one in part))
            done += len(part)
        return done

    total = with_kafka(settings, work)
    say_imported(file, f"{total:,} registered", skipped)


@traps.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@setting_options()
def list_(settings: Settings, *, as_json: bool) -> None:
    """Show the registry: hashes, never addresses.

    \b
    Example:
      mailcordon traps list
    """
    found = list(with_kafka(settings, registered).values())
    if as_json:
        for one in found:
            print_json(msgspec.to_builtins(one))
        return
    if not found:
        click.echo("no traps yet; `mailcordon traps add ADDRESS` registers one")
        return
    click.echo(f"{'HASH':<64}  {'WHAT':<7}  {'KIND':<9}  {'SINCE':<23}  PLANTED")
    for one in found:
        line = f"{one.hash:<64}  {one.what:<7}  {one.kind:<9}  {moment(one.since)}  {_printable(one.planted) or '-'}"
        click.echo(f"{line}  ({_printable(one.note)})" if one.note else line)
    counts = Counter(one.kind for one in found)
    say(f"{len(found):,} traps: {', '.join(f'{number:,} {kind}' for kind, number in sorted(counts.items()))}")


@traps.command(name="import-snds")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--campaign", required=True, metavar="CAMPAIGN", help="Whose mail went out from these addresses then.")
@click.option("--dry-run", is_flag=True, help="Only say what would be counted.")
@setting_options()
def import_snds(settings: Settings, file: Path, campaign: str, *, dry_run: bool) -> None:
    """Count the trap hits that Microsoft's SNDS saw, per sending address and day.

    Nobody tells which messages they were: each is a suspected hit, which can throttle a campaign and not isolate it.
    The file's first line names the columns.  Importing a file again counts what is new in it.  Days older than the
    longest window, a week, count nowhere.

    \b
    Example:
      mailcordon traps import-snds snds.csv --campaign spring-sale
    """
    counts, skipped = _snds(file)
    events = [_suspected(campaign, one, name) for one in counts for name in one.names]
    old = sum(now_ms() - one.at > WEEK_MS for one in counts)

    async def work(bootstrap: str) -> None:
        async with catalogue_of(bootstrap, CAMPAIGNS) as catalogue:
            if campaign not in catalogue.campaigns:
                raise SaysNo(f"there is no campaign {campaign!r}; `mailcordon status` lists them")
        for part in chunks(events, 5_000):
            await publish(bootstrap, ((FEEDBACK, campaign, one) for one in part))

    if not dry_run:
        with_kafka(settings, work)
    said = "would be told of" if dry_run else "told of"
    say(f"{campaign} {said} {len(events):,} hits on {len(counts):,} days of an address, {len(skipped):,} rows skipped")
    if old:
        say(f"{old:,} of these days are over for more than a week and count nowhere")
    for line in skipped[:20]:
        say(line)
    if skipped:
        raise SaysNo(f"{len(skipped)} rows of {file} were skipped")


def _snds(file: Path) -> tuple[list[snds.TrapCount], list[str]]:
    counts: list[snds.TrapCount] = []
    skipped: list[str] = []
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            for one in snds.read(text):
                if isinstance(one, snds.WrongRow):
                    skipped.append(f"{file}, line {one.line}: {one.explain}")
                elif one.at > now_ms() + DAY_MS:
                    skipped.append(f"{file}: {one.ip}: the day has not been yet")
                else:
                    counts.append(one)
    except (OSError, UnicodeDecodeError, csv.Error, snds.WrongFile) as wrong:
        raise WrongUse(f"{file}: {wrong}") from wrong
    return counts, skipped


def _suspected(campaign: str, count: snds.TrapCount, name: str) -> Feedback:
    at = min(count.at, now_ms())
    return Feedback(
        kind="trap_hit",
        campaign=campaign,
        at=at,
        sent_at=at,
        message_id=name,
        provider=snds.PROVIDER,
        ip=count.ip,
        trap=snds.SIGNAL.trap,
        class_=snds.SIGNAL.name,
        source="import",
    )


def _named(keys: Keys, target: str) -> tuple[str, What]:
    """The hash of what somebody wrote, and what it is of."""
    text = target.strip()
    if _HASH.match(text):
        return text, "address"
    if text.startswith("@"):
        name = hostname(text[1:])
        if name is None or "." not in name:
            raise WrongUse(f"{text!r} is no domain; write @ and a whole domain, as in @traps.example")
        return domain_hash(keys, name), "domain"
    checked = check(text)
    if isinstance(checked, BadAddress):
        raise WrongUse(f"{text!r} is no e-mail address and no @domain: it {checked.explain}")
    return address_hash(keys, checked.address), "address"


def _entry(hashed: str, what: What, kind: OwnKind, planted: str, note: str, since: int | None = None) -> RegisteredTrap:
    for name, text, most in (("planted", planted, MAX_PLANTED), ("note", note, MAX_NOTE)):
        if len(text) > most:
            raise WrongUse(f"{name} has {len(text)} characters, at most {most} are kept; say it shorter")
        if "@" in text:
            raise WrongUse(f"{name} holds an @-sign; it is stored in clear, so name the place and no address")
    return RegisteredTrap(
        hash=hashed, what=what, kind=kind, planted=planted, note=note, since=now_ms() if since is None else since
    )


def _publish(settings: Settings, entries: list[RegisteredTrap]) -> None:
    with_kafka(settings, lambda bootstrap: publish(bootstrap, ((TRAPS, one.hash, one) for one in entries)))


def _rows(settings: Settings, file: Path, kind: OwnKind, planted: str, skipped: list[str]) -> Iterator[RegisteredTrap]:
    keys = secrets.load_or_make(brokers.secret_file(settings))
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            rows = csv.DictReader(text)
            column = next((name for name in _COLUMNS if name in (rows.fieldnames or [])), None)
            if column is None:
                raise WrongUse(f"{file} has no column {', '.join(_COLUMNS[:-1])} or hash in its first line")
            for row in rows:
                try:
                    yield _row(keys, row, column, kind, planted)
                except WrongUse as wrong:
                    skipped.append(f"{file}, line {rows.line_num}: {wrong.message}")
    except (OSError, UnicodeDecodeError, csv.Error) as wrong:
        raise WrongUse(f"{file}: {wrong}") from wrong


def _row(keys: Keys, row: dict[str, str], column: str, kind: OwnKind, planted: str) -> RegisteredTrap:
    target = (row[column] or "").strip()
    if column == "domain" and "@" not in target:
        target = f"@{target}"
    hashed, what = _named(keys, target)
    given = {name: (row.get(name) or "").strip() for name in ("what", "kind", "planted", "note", "since")}
    for name, known in (("what", WHATS), ("kind", KINDS)):
        if given[name] and given[name] not in known:
            raise WrongUse(f"column {name}: expected one of {', '.join(known)}")
    if given["since"] and not given["since"].isdecimal():
        raise WrongUse("column since: expected milliseconds since 1970")
    if target.startswith("@") and given["what"] not in {"", "domain"}:
        raise WrongUse("column what: @ and a domain are a domain")
    return _entry(
        hashed,
        msgspec.convert(given["what"] or what, What),
        msgspec.convert(given["kind"] or kind, OwnKind),
        given["planted"] or planted,
        given["note"],
        int(given["since"]) if given["since"] else None,
    )


def _printable(text: str) -> str:
    return "".join(one if one.isprintable() else "?" for one in text)
