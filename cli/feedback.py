"""``mailcordon feedback``: bounces and reports that lie in files, read as the return path reads them."""

import asyncio
import contextlib
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

import click
import msgspec
import structlog

from agents.ports import now_ms
from cli import broker as brokers
from cli import secrets
from cli.access import REQUEST_TIMEOUT_S, chunks, producer, say, with_kafka
from cli.failures import OutsideFailed, SaysNo, WrongUse
from cli.feedback_reading import UNREADABLE, Line, Read, Reader, unread
from cli.mail_files import STDIN, Form, Stored, stored, streamed
from cli.settings import data_folder, setting_options
from cli.views import catalogue_of, print_json
from policy.providers import Providers
from policy.settings import Settings
from policy.tokens import Keys
from schemas.codec import encode
from schemas.feedback import Feedback
from schemas.topics import CAMPAIGNS, FEEDBACK, TRAPS
from smtp.findings import Finding, clean
from smtp.known import Known
from smtp.reader_process import ReaderPool, Unreadable
from smtp.returned import Context
from streams.catalogue import Catalogue

log = structlog.get_logger()

FORMS = ("auto", "maildir", "mbox", "eml")
AT_ONCE = 16
TELL_EVERY_S = 2.0

Understand = Callable[[bytes], Awaitable[list[Finding] | Unreadable]]
Publish = Callable[[Sequence[Feedback]], Awaitable[None]]


@click.group()
def feedback() -> None:
    """Bounces, complaints and other reports that came back by another way than the return path."""


@feedback.command(name="import")
@click.argument("source", type=click.Path(path_type=Path, exists=True, allow_dash=True))
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMS),
    default="auto",
    show_default=True,
    help="What SOURCE is; eml is one mail a file, with a folder all its .eml files.",
)
@click.option("--dry-run", is_flag=True, help="Say what each mail is and publish nothing; needs no Kafka and no keys.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line for every mail, in order.")
@setting_options("providers", "own_domains", "trap_domains", "parsers", "parser_memory_mib", "parser_s")
def import_(settings: Settings, source: Path, form: Form, dry_run: bool, as_json: bool) -> None:
    """Read the mails of SOURCE and publish what they prove: a Maildir, an mbox, one mail, a folder of them, or -.

    Prints what was made of each mail, with addresses in clear.  Believed is what came to a return path that this
    installation signed, or quotes one; everything else is named with the reason, and stays where it is.

    Exit code 0 if feedback was published (with --dry-run: if there were mails), 1 if there was none.

    \b
    Examples:
      mailcordon feedback import /var/mail/bounces --dry-run
      mailcordon feedback import ~/Maildir
      zcat bounces.mbox.gz | mailcordon feedback import - --format mbox --json
    """
    mails = _mails(source, form)
    told = _Told(as_json=as_json)
    providers = Providers(settings.providers).of
    keys = _keys(settings, dry_run=dry_run)

    async def read_only() -> None:
        context = None if keys is None else _context(settings, keys, None)
        await _work(mails, Reader(context, providers, knows_campaigns=False), told, _nowhere, _readers(settings))

    async def read_with(bootstrap: str) -> None:
        assert keys is not None, "asked before"  # noqa: S101 - narrows the type
        async with contextlib.AsyncExitStack() as stack:
            catalogue = await stack.enter_async_context(catalogue_of(bootstrap, CAMPAIGNS, TRAPS))
            out = _nowhere if dry_run else await stack.enter_async_context(_to_kafka(bootstrap))
            await _work(mails, Reader(_context(settings, keys, catalogue), providers), told, out, _readers(settings))

    if keys is None or (dry_run and not _knows_a_kafka(settings)):
        asyncio.run(read_only())
    else:
        with_kafka(settings, read_with)
    told.end(dry_run=dry_run)


class _Told:
    """What the operator is told: a line for each mail, now and then how far it is, and the sum of it."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._kinds: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._mails = 0
        self._published = 0
        self._said_at = time.monotonic()

    def mail(self, read: Read) -> None:
        """One mail is done."""
        line = read.line
        self._mails += 1
        self._published += len(read.feedback)
        self._kinds[line.kind] += 1
        if line.reason is not None:
            self._reasons[line.reason] += 1
        if self._as_json:
            print_json(msgspec.to_builtins(line))
        else:
            click.echo(_sentence(line).encode("utf-8", "replace"))
        if time.monotonic() - self._said_at >= TELL_EVERY_S:
            self._said_at = time.monotonic()
            say(f"{self._mails:,} mails ...")

    def end(self, *, dry_run: bool) -> None:
        """The sum; ends with "no" when nothing came of it."""
        done = "would be published" if dry_run else "published"
        say(f"{self._mails:,} mails: {_list_of(self._kinds) or 'nothing'}")
        say(f"{self._published:,} signals {done}; not believed: {_list_of(self._reasons) or 'none'}")
        if not self._mails:
            raise SaysNo("there are no mails in it")
        if not dry_run and not self._published:
            raise SaysNo("none of the mails proves to be about a message of ours; nothing was published")


def _sentence(line: Line) -> str:
    where = f"{line.file}#{line.position}"
    what = " ".join(filter(None, (line.kind, f"({line.class_}: {line.category})" if line.category else None)))
    who = ", ".join(line.recipients) or line.recipient or ""
    if line.reason is None:
        why = f"campaign {line.campaign}, message {line.message_id}"
    else:
        why = f"{line.reason}: {line.explain}"
    return "  ".join(filter(None, (where, what, who, clean(why, 400))))


def _list_of(counted: Counter[str]) -> str:
    return ", ".join(f"{number:,} {word}" for word, number in counted.most_common())


def _mails(source: Path, form: Form) -> Iterator[Stored]:
    if str(source) == STDIN:
        if form == "maildir":
            raise WrongUse("standard input is no folder: --format maildir needs one")
        return streamed(cast("BinaryIO", sys.stdin.buffer), form)
    if form == "maildir" and not source.is_dir():
        raise WrongUse(f"{source} is no folder, so no Maildir; leave --format away, or use mbox or eml")
    if form == "mbox" and source.is_dir():
        raise WrongUse(f"{source} is a folder; --format mbox needs a file")
    return _named(source, stored(source, form))


def _named(source: Path, mails: Iterator[Stored]) -> Iterator[Stored]:
    try:
        yield from mails
    except OSError as failed:
        raise WrongUse(f"{source}: {failed.strerror or failed}") from failed


def _keys(settings: Settings, *, dry_run: bool) -> Keys | None:
    file = brokers.secret_file(settings)
    if dry_run and settings.secret_file is None and not file.exists():
        return None
    return secrets.load(file)


def _knows_a_kafka(settings: Settings) -> bool:
    return settings.kafka is not None or brokers.running(data_folder(settings)) is not None


def _context(settings: Settings, keys: Keys, catalogue: Catalogue | None) -> Context:
    known = Known(
        {} if catalogue is None else catalogue.campaigns,
        own_domains=settings.own_domains,
        trap_domains=settings.trap_domains,
        keys=keys,
        registered=None if catalogue is None else catalogue.trap,
    )
    return Context(keys=keys, known=known, provider_of=Providers(settings.providers).of)


def _readers(settings: Settings) -> ReaderPool:
    return ReaderPool(processes=settings.parsers, memory_mib=settings.parser_memory_mib, message_s=settings.parser_s)


async def _work(mails: Iterator[Stored], reader: Reader, told: _Told, publish: Publish, readers: ReaderPool) -> None:
    async with readers as pool:
        for some in chunks(mails, AT_ONCE):
            done = await asyncio.gather(*(_one(mail, reader, pool.understand) for mail in some))
            await publish([event for read in done for event in read.feedback])
            for read in done:
                told.mail(read)


async def _one(mail: Stored, reader: Reader, reads: Understand) -> Read:
    if mail.trouble is not None:
        return unread(mail, UNREADABLE, mail.trouble)
    try:
        findings = await reads(mail.raw)
    except OSError as failed:
        raise OutsideFailed(f"no process can be started to read mails in: {failed}") from failed
    if isinstance(findings, Unreadable):
        return unread(mail, findings.reason, findings.explain)
    try:
        return reader.read(mail, findings, now=now_ms())
    except Exception as failure:  # noqa: BLE001 - no mail is left out for a mistake in reading it
        kind = type(failure).__name__
        log.error("mail could not be read", file=mail.file, position=mail.position, failure=kind)  # noqa: TRY400
        return unread(mail, "reader_failed", f"reading it failed: {kind}")


@contextlib.asynccontextmanager
async def _to_kafka(bootstrap: str) -> AsyncIterator[Publish]:
    async with producer(bootstrap) as out:

        async def publish(events: Sequence[Feedback]) -> None:
            sent = [await out.send(FEEDBACK, key=one.campaign.encode(), value=encode(one)) for one in events]
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                await asyncio.gather(*sent)

        yield publish


async def _nowhere(_events: Sequence[Feedback]) -> None:
    pass
