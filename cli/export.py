"""``mailcordon export``: what a backtest reads, as a file without addresses."""

import contextlib
import gzip
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import click

from agents.ports import now_ms
from cli.access import say
from cli.backtest_asking import FILE, FROM, TO, times
from cli.backtest_export import Redaction
from cli.backtest_fetching import fetched
from cli.backtest_input import read
from cli.backtest_records import TOPICS, Line, write_line
from cli.failures import SaysNo, WrongUse
from cli.settings import setting_options
from policy.settings import Settings


@click.command()
@FROM
@TO
@click.option("-o", "--output", "out", type=FILE, required=True, help="File to write; .gz is packed, - is the output.")
@setting_options()
def export(settings: Settings, begin: str | None, end: str | None, out: Path) -> None:
    """Write what a backtest reads from the topics to a file, one JSON object a line.

    Results, feedback, campaigns, commands, brakes and decisions, in the order of time; of decisions the older ones
    too, which say where all stood at --from.  Addresses in reply texts,
    message ids and reasons are made unreadable, each always in the same way.

    \b
    Examples:
      mailcordon export --from 7d -o week.jsonl.gz
      mailcordon export --from 2026-11-20 --to 2026-11-21T12:00 -o - | gzip > day.jsonl.gz
    """
    now = now_ms()
    since, to = times(begin, end, now)
    redaction = Redaction(secrets.token_bytes(32))
    with fetched(settings, since, to) as recording, _written(out) as target:
        count = 0
        for placed in recording:
            line = read(placed.raw)
            if isinstance(line, Line):
                target.write(write_line(redaction.line(line)) + b"\n")
                count += 1
    say(f"{count:,} records written")
    if not count:
        raise SaysNo(f"there is nothing between these times in {', '.join(TOPICS)}")


@contextlib.contextmanager
def _written(out: Path) -> Iterator[IO[bytes] | gzip.GzipFile]:
    if str(out) == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        file = out.open("wb")
    except OSError as wrong:
        raise WrongUse(f"--output {out}: {wrong.strerror or wrong}") from wrong
    with file:
        if out.suffix != ".gz":
            yield file
            return
        with gzip.open(file, "wb", compresslevel=6) as packed:
            yield packed
