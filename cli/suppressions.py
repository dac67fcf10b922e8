"""``mailcordon suppress``: addresses that get no mail.  Topics and files hold keyed hashes, never addresses."""

import contextlib
import csv
import datetime as dt
import re
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

import click
import msgspec

from agents.ports import now_ms
from cli import broker as brokers
from cli import secrets
from cli.access import chunks, publish, read_to_end, say, say_imported, with_kafka
from cli.failures import WrongUse
from cli.settings import setting_options
from policy.addresses import BadAddress, check, hostname
from policy.replies import category_of
from policy.settings import Settings
from policy.strikes import is_strike
from policy.tokens import Keys, address_hash
from policy.trap_signals import is_dead
from policy.traps import domain_hash
from schemas.codec import Malformed, decode
from schemas.feedback import Suppression
from schemas.topics import SUPPRESSIONS

_HASH = re.compile(r"[0-9a-f]{64}\Z")
_ADDRESS_COLUMNS = ("address", "email", "address_hash")
_SCOPE = re.compile(r"platform\Z|tenant:.{1,128}\Z|campaign:.{1,128}\Z")
SCOPE = click.option(
    "--scope",
    default="platform",
    show_default=True,
    metavar="SCOPE",
    help="Where it holds: platform, tenant:ID or campaign:ID.",
)
UNTIL = click.option(
    "--until",
    default=None,
    metavar="TIME",
    help="When it ends by itself: 2027-01-31, 2027-01-31T18:00 (UTC) or milliseconds; default: never.",
)


@click.group()
def suppress() -> None:
    """Addresses and domains that get no mail, whoever asks.

    Only keyed hashes are stored, so a list cannot be read back as addresses.
    """


@suppress.command()
@click.argument("addresses", nargs=-1, required=True, metavar="ADDRESS|@DOMAIN...")
@SCOPE
@UNTIL
@click.option("--reason", default="manual", show_default=True, help="A word that says why.")
@setting_options()
def add(settings: Settings, addresses: tuple[str, ...], scope: str, until: str | None, reason: str) -> None:
    """Suppress addresses, or everybody at a domain written as @DOMAIN.

    \b
    Examples:
      mailcordon suppress add ann@example.com --reason asked-by-phone
      mailcordon suppress add ann@example.com --scope campaign:spring-sale --until 2027-01-31
      mailcordon suppress add @closed.example --reason closed
    """
    keys = _keys(settings)
    hashes = [_hash(keys, address) for address in addresses]
    _publish(settings, [_entry(one, scope, reason, until=_time("until", until)) for one in hashes])
    say(f"{len(hashes)} suppressed in {scope}")


@suppress.command()
@click.argument("addresses", nargs=-1, required=True, metavar="ADDRESS|@DOMAIN...")
@SCOPE
@click.option("--forget", is_flag=True, help="Leave nothing behind, even of an address that bounced as dead.")
@setting_options()
def remove(settings: Settings, addresses: tuple[str, ...], scope: str, forget: bool) -> None:
    """Lift the suppression of addresses or domains in one scope.

    Of one that bounced as dead, or failed softly in several campaigns, a record stays that is over from now on: if it
    takes mail again after months, that speaks for a recycled trap, and failures of before count no more.

    \b
    Examples:
      mailcordon suppress remove ann@example.com
      mailcordon suppress remove ann@example.com --forget
    """
    _checked_scope(scope)
    secret = _keys(settings)
    keys = [f"{_hash(secret, address)}|{scope}" for address in addresses]

    async def work(bootstrap: str) -> None:
        held = {} if forget else await _held(bootstrap, only=frozenset(key.encode() for key in keys))
        now = now_ms()
        await publish(bootstrap, ((SUPPRESSIONS, key, lifted(held.get(key.encode()), now)) for key in keys))

    with_kafka(settings, work)
    say(f"{len(keys)} lifted in {scope}")


def lifted(one: Suppression | None, now: int) -> Suppression | None:
    """What takes the place of a suppression that is lifted; None: nothing need be remembered."""
    if one is None or not (is_dead(one.reason) or category_of(one.reason).after_campaigns):
        return None
    over = now if one.until is None else min(one.until, now)
    return msgspec.structs.replace(one, until=max(over, one.since))


@suppress.command(name="import")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@SCOPE
@UNTIL
@click.option("--reason", default="import", show_default=True, help="For rows without a reason of their own.")
@setting_options()
def import_(settings: Settings, file: Path, scope: str, until: str | None, reason: str) -> None:
    """Suppress every row of a CSV file.

    Columns: address (an address or @domain) or address_hash, as exported, and optionally scope, reason, since and
    until; options stand in for empty cells, and now for an empty since.  What was exported comes back as it was.  A row
    that is wrong is named and skipped; then the exit code is 1.

    \b
    Example:
      mailcordon suppress import unsubscribed.csv --scope tenant:shop
    """
    skipped: list[str] = []
    total = 0
    others = _entry("", scope, reason, until=_time("until", until))

    async def work(bootstrap: str) -> int:
        done = 0
        for part in chunks(_rows(settings, file, others, skipped), 5_000):
            await publish(bootstrap, ((SUPPRESSIONS, f"{one.address_hash}|{one.scope}", one) for one in part))
            done += len(part)
            say(f"{done:,} ...")
        return done

    total = with_kafka(settings, work)
    say_imported(file, f"{total:,} suppressed", skipped)


@suppress.command()
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="File to write; default: standard output."
)
@setting_options()
def export(settings: Settings, output: Path | None) -> None:
    """Write all suppressions as CSV: address_hash, scope, reason, since, until (milliseconds).

    Those that are over are among them: they are what recycled traps are known by.  Strikes, single soft failures that
    suppress nobody, are not.

    \b
    Example:
      mailcordon suppress export --output suppressed.csv
    """

    held = with_kafka(settings, _held)
    target = output.open("w", newline="", encoding="utf-8") if output else contextlib.nullcontext(sys.stdout)
    with target as out:
        writer = csv.writer(out)
        writer.writerow(["address_hash", "scope", "reason", "since", "until"])
        for one in held.values():
            writer.writerow(
                [one.address_hash, one.scope, one.reason, one.since, "" if one.until is None else one.until]
            )
    say(f"{len(held):,} suppressions written")


async def _held(bootstrap: str, only: Collection[bytes] = ()) -> dict[bytes, Suppression]:
    """All suppressions by key, or those of some keys; without strikes."""
    held: dict[bytes, Suppression] = {}
    async for record in read_to_end(bootstrap, SUPPRESSIONS):
        if only and record.key not in only:
            continue
        found = decode(Suppression, record.value) if record.value is not None else None
        if found is None:
            held.pop(record.key, None)
        elif not isinstance(found, Malformed) and not is_strike(found.scope):
            held[record.key] = found
    return held


def _publish(settings: Settings, entries: list[Suppression]) -> None:
    keyed = ((SUPPRESSIONS, f"{one.address_hash}|{one.scope}", one) for one in entries)
    with_kafka(settings, lambda bootstrap: publish(bootstrap, keyed))


def _entry(hashed: str, scope: str, reason: str, *, since: int | None = None, until: int | None = None) -> Suppression:
    begins = now_ms() if since is None else since
    return Suppression(address_hash=hashed, scope=_checked_scope(scope), reason=reason, since=begins, until=until)


def _checked_scope(scope: str) -> str:
    if not _SCOPE.match(scope):
        raise WrongUse(f"scope {scope!r}: expected platform, tenant:ID or campaign:ID")
    return scope


def _time(name: str, text: str | None) -> int | None:
    """Milliseconds, or a day or a minute in UTC; None for nothing."""
    if not text:
        return None
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise WrongUse(f"{name} {text!r}: expected a day like 2027-01-31, a time, or milliseconds since 1970") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return max(0, round(moment.timestamp() * 1000))


def _keys(settings: Settings) -> Keys:
    return secrets.load_or_make(brokers.secret_file(settings))


def _hash(keys: Keys, address: str) -> str:
    if _HASH.match(address):
        return address
    if address.startswith("@"):
        name = hostname(address[1:])
        if name is None or "." not in name:
            raise WrongUse(f"{address!r} is no domain; write @ and a whole domain, as in @closed.example")
        return domain_hash(keys, name)
    checked = check(address)
    if isinstance(checked, BadAddress):
        raise WrongUse(f"{address!r} is no e-mail address: {checked.explain}")
    return address_hash(keys, checked.address)


def _rows(settings: Settings, file: Path, others: Suppression, skipped: list[str]) -> Iterator[Suppression]:
    """The rows that can be meant; cells that are empty or missing are as in ``others``."""
    keys = _keys(settings)
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            rows = csv.DictReader(text)
            column = next((name for name in rows.fieldnames or [] if name in _ADDRESS_COLUMNS), None)
            if column is None:
                raise WrongUse(f"{file} has no column address, email or address_hash in its first line")
            for row in rows:
                try:
                    since, until = _time("since", row.get("since")), _time("until", row.get("until"))
                    yield _entry(
                        _hash(keys, (row[column] or "").strip()),
                        row.get("scope") or others.scope,
                        row.get("reason") or others.reason,
                        since=since,
                        until=others.until if until is None else until,
                    )
                except WrongUse as wrong:
                    skipped.append(f"{file}, line {rows.line_num}: {wrong.message}")
    except (OSError, UnicodeDecodeError, csv.Error) as wrong:
        raise WrongUse(f"{file}: {wrong}") from wrong
