"""``mailcordon check``: a list of recipients before it is sent, every row with a verdict and one reason.

The same checks as at admission, by the same code; those that need the installation (known traps, suppressions) are
asked of its topics when Kafka can be reached, and it is said when not.  Nothing is written but the report.
"""

import asyncio
import contextlib
import csv
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import aiokafka.errors
import click

from cli import broker as brokers
from cli import secrets
from cli.access import chunks, say
from cli.check_rows import STRICT, Answer, Desk, with_dns
from cli.failures import OutsideFailed, SaysNo, WrongUse
from cli.files import read_records
from cli.settings import data_folder, setting_options
from cli.views import catalogue_of, print_json
from policy.domain_lists import domain_lists, flaw_of_domains
from policy.settings import Settings, WrongSetting
from policy.tokens import Keys
from policy.typos import likely_domain
from schemas.sending import AdmissionPolicy, Campaign
from schemas.topics import SUPPRESSIONS, TRAPS
from smtp.domain_checks import DomainChecks, DomainReport, clusters
from streams.admin import admin
from streams.catalogue import Catalogue
from streams.kafka_security import servers_of

ANSWER_WITHIN_S = 5.0
_PART = 2_000  # rows whose domains are asked together
_EVERY_S = 1.0
_LOOK_ALIKES = 10_000
_DANGEROUS = "=+-@\t\r"  # a spreadsheet takes a cell that begins so for a formula


@dataclass(slots=True)
class Summary:
    """What is told of the list."""

    rows: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    look_alikes: dict[str, DomainReport] = field(default_factory=dict)

    def add(self, answer: Answer) -> None:
        """Count one row."""
        self.rows += 1
        self.verdicts[answer.verdict] += 1
        if answer.reason:
            self.reasons[answer.reason] += 1


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--report",
    type=click.Path(path_type=Path, dir_okay=False),
    help="CSV to write, one line per row; - is standard output.",
)
@click.option("--redact", is_flag=True, help="Leave the addresses out of the report.")
@click.option("--column", metavar="NAME|NUMBER", help="The column of addresses; default: it is found.")
@click.option(
    "--policy",
    default="default",
    show_default=True,
    metavar="FILE|default|strict",
    help="A campaign's file, whose admission is taken; strict refuses whatever a screen objects to.",
)
@click.option("--dns", is_flag=True, help="Ask the DNS about each domain too.")
@click.option(
    "--known/--no-known",
    default=None,
    help="Insist on known traps and suppressions, or do without; default: if Kafka is there.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
@setting_options("allow_private_mx", "allow_domains", "deny_domains")
def check(
    settings: Settings,
    file: Path,
    report: Path | None,
    redact: bool,
    column: str | None,
    policy: str,
    dns: bool,
    known: bool | None,
    as_json: bool,
) -> None:
    """Check a CSV list of recipients before it is sent.

    Every row gets a verdict: ok, flag (it would be sent), hold (it would wait for a decision) or refuse, with one
    reason.  Columns: address (or email), and as far as they are there source, opted_in_at and last_seen_at.  A list
    without a first line of names is read as well.

    Exit code 0 if nothing is refused or held, 1 otherwise.

    \b
    Examples:
      mailcordon check list.csv --report checked.csv
      mailcordon check list.csv --policy campaign.json --dns --redact --report checked.csv --json
    """
    wanted = _wanted(policy)
    summary = Summary()
    where = str(report) if report is not None else None
    if where == "-" and as_json:
        raise WrongUse("--report - and --json both write to standard output; name a file for the report")
    with _written(report, redact=redact) as write:
        told = asyncio.run(_checked(settings, file, column, wanted, dns, known, summary, write))
    _tell(summary, told, as_json=as_json, to=sys.stderr if where == "-" else sys.stdout)
    wrong = summary.verdicts["refuse"] + summary.verdicts["hold"]
    if wrong:
        raise SaysNo(f"{wrong:,} of {summary.rows:,} rows would not be sent")


def _wanted(policy: str) -> tuple[AdmissionPolicy, Campaign | None]:
    if policy in {"default", "strict"}:
        return (STRICT if policy == "strict" else AdmissionPolicy()), None
    file = Path(policy)
    if not file.is_file():
        raise WrongUse(f"--policy {policy}: neither default, strict nor a file of a campaign")
    campaign = read_records(file, Campaign)[0]
    if (flaw := flaw_of_domains(campaign.admission)) is not None:
        raise WrongUse(f"{policy}: {flaw}")
    return campaign.admission, campaign


async def _checked(
    settings: Settings,
    file: Path,
    column: str | None,
    wanted: tuple[AdmissionPolicy, Campaign | None],
    dns: bool,
    known: bool | None,
    summary: Summary,
    write: Callable[[Answer], None],
) -> str:
    """Check all rows; answers in a sentence whether the installation's topics were asked."""
    policy, campaign = wanted
    checks = DomainChecks(allow_private=settings.allow_private_mx) if dns else None
    async with _installation(settings, known) as (catalogue, told):
        keys = _keys(settings, catalogue)
        desk = Desk(keys, policy, campaign, catalogue, domain_lists(settings.allow_domains, settings.deny_domains))
        try:
            for part in chunks(desk.answers(file, column, _Progress(file.stat().st_size)), _PART):
                reports = await _reports(checks, part)
                for answer, domain in part:
                    final = with_dns(answer, reports.get(domain))
                    summary.add(final)
                    write(final)
                _remember(summary, reports)
        finally:
            if checks is not None:
                await checks.close()
    return told


@contextlib.asynccontextmanager
async def _installation(settings: Settings, known: bool | None) -> AsyncIterator[tuple[Catalogue | None, str]]:
    """The installation's traps and suppressions, if they can be had; and a word on that."""
    note = None if settings.kafka else brokers.running(data_folder(settings))
    try:
        bootstrap = servers_of(settings) or (note.bootstrap if note else None)
    except WrongSetting as wrong:
        raise WrongUse(str(wrong)) from wrong
    if known is False or bootstrap is None:
        why = "as asked" if known is False else "no Kafka is set (MAILCORDON_KAFKA, --kafka)"
        if known:
            raise WrongUse(f"--known: {why}")
        yield None, f"known traps and suppressions were NOT asked: {why}"
        return
    async with contextlib.AsyncExitStack() as stack:
        try:
            async with admin(bootstrap, within_s=ANSWER_WITHIN_S):
                pass  # an answer soon, instead of the patience of who follows topics
            catalogue = await stack.enter_async_context(catalogue_of(bootstrap, SUPPRESSIONS, TRAPS))
        except (aiokafka.errors.KafkaError, TimeoutError, OSError) as silent:
            why = f"Kafka at {bootstrap} did not answer ({type(silent).__name__})"
            if known:
                raise OutsideFailed(f"known traps and suppressions could not be asked: {why}") from silent
            say(f"known traps and suppressions are NOT asked: {why}")
            catalogue = None
        if catalogue is None:
            yield None, f"known traps and suppressions were NOT asked: {why}"
        else:
            yield catalogue, f"known traps and suppressions were asked at {bootstrap}"


def _keys(settings: Settings, catalogue: Catalogue | None) -> Keys:
    """The installation's keys where its hashes are compared; else any, which only tell the rows apart."""
    if catalogue is None:
        return Keys(address=b"rows of one list".ljust(32, b"."), return_path=b"")
    return secrets.load_or_make(brokers.secret_file(settings))


async def _reports(checks: DomainChecks | None, part: list[tuple[Answer, str]]) -> dict[str, DomainReport]:
    if checks is None:
        return {}
    domains = sorted({domain for answer, domain in part if domain})
    reports = await asyncio.gather(*map(checks.of, domains))
    return dict(zip(domains, reports, strict=True))


def _remember(summary: Summary, reports: dict[str, DomainReport]) -> None:
    for domain, report in reports.items():
        if len(summary.look_alikes) < _LOOK_ALIKES and report.hosts and likely_domain(domain) is not None:
            summary.look_alikes[domain] = report


class _Progress:
    """A line on standard error once a second; nothing for a list that is read at once."""

    def __init__(self, size: int) -> None:
        self._size = max(size, 1)
        self._next = time.monotonic() + _EVERY_S

    def __call__(self, read_bytes: int) -> None:
        if time.monotonic() >= self._next:
            say(f"{read_bytes * 100 // self._size} % ...")
            self._next = time.monotonic() + _EVERY_S


@contextlib.contextmanager
def _written(report: Path | None, *, redact: bool) -> Iterator[Callable[[Answer], None]]:
    """The report, line by line; whatever octets the list has can be written."""
    if report is None:
        yield lambda _: None
        return
    with contextlib.ExitStack() as stack:
        out: IO[str] = sys.stdout
        if str(report) != "-":
            try:
                out = stack.enter_context(report.open("w", newline="", encoding="utf-8", errors="backslashreplace"))
            except OSError as wrong:
                raise WrongUse(f"--report {report}: {wrong}") from wrong
        writer = csv.writer(out)
        writer.writerow(["row", *([] if redact else ["address"]), "verdict", "reason", "explain"])

        def write(answer: Answer) -> None:
            shown = [] if redact else [_harmless(answer.address)]
            writer.writerow([answer.row, *shown, answer.verdict, answer.reason, answer.explain])

        yield write


def _harmless(cell: str) -> str:
    plain = cell.encode("utf-8", "backslashreplace").decode()
    return f"'{plain}" if plain[:1] in _DANGEROUS and plain else plain


def _tell(summary: Summary, told: str, *, as_json: bool, to: IO[str]) -> None:
    found = clusters(summary.look_alikes.values())
    by_host: dict[str, list[str]] = {}
    for domain in sorted(found):
        by_host.setdefault(summary.look_alikes[domain].hosts[0], []).append(domain)
    if as_json:
        listed: list[dict[str, Any]] = [
            {"mx": host, "domains": domains, "strength": found[domains[0]].strength}
            for host, domains in by_host.items()
        ]
        print_json(
            {
                "rows": summary.rows,
                "verdicts": {name: summary.verdicts[name] for name in ("ok", "flag", "hold", "refuse")},
                "reasons": dict(summary.reasons.most_common()),
                "mx_clusters": listed,
                "known": told,
            }
        )
        return
    counts = ", ".join(f"{summary.verdicts[name]:,} {name}" for name in ("ok", "flag", "hold", "refuse"))
    click.echo(f"{summary.rows:,} rows: {counts}", file=to)
    for reason, count in summary.reasons.most_common():
        click.echo(f"  {count:>9,}  {reason}", file=to)
    for host, domains in by_host.items():
        click.echo(f"  mail for {', '.join(domains[:10])} goes to one server, {host}: maybe typo traps", file=to)
    click.echo(told, file=to)
