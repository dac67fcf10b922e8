"""``mailcordon backtest`` and ``mailcordon export``: what would have been decided, and the records to find it out."""

import contextlib
import datetime as dt
import gzip
import re
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import click

from agents.ports import now_ms
from cli import backtest_picture as pictures
from cli.access import say, with_kafka
from cli.backtest_export import Redaction, lines_of, write_lines
from cli.backtest_input import Bad, Recording, opened, read
from cli.backtest_limits import WhatIf, read_limits
from cli.backtest_records import TOPICS, Line, write_line
from cli.backtest_replay import Replay
from cli.backtest_report import Report, report
from cli.backtest_run import first_campaigns, replayed
from cli.backtest_telling import tell
from cli.failures import OutsideFailed, SaysNo, WrongUse
from cli.rules import put_rules_in_force
from cli.settings import setting_options
from policy.settings import Settings
from schemas.sending import Campaign
from schemas.topics import DECISIONS

FILE = click.Path(path_type=Path, dir_okay=False)
_EVERY_S = 1.0
_AGO = re.compile(r"(\d{1,6})([dhm])\Z")
_UNIT_MS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000}

FROM = click.option("--from", "begin", metavar="TIME", help="From when on: a day, a time (UTC), or 7d, 36h, 90m ago.")
TO = click.option("--to", "end", metavar="TIME", help="Until when, likewise; default: to the end.")


@click.command()
@FROM
@TO
@click.option("--limits", "file", type=FILE, help="TOML or JSON: limits instead of those in force.")
@click.option("--campaign", "campaigns", multiple=True, metavar="ID", help="Only this campaign; may be given again.")
@click.option("--input", "source", type=FILE, help="An export (.jsonl, also gzip; - is standard input), not Kafka.")
@click.option("--plot", type=FILE, help="Draw a campaign as SVG: the one that is named, or the worst.")
@click.option(
    "--warm-up", default="7d", show_default=True, metavar="TIME", help="Read so much before --from, only to count."
)
@click.option(
    "--commands/--no-commands",
    "obeys",
    default=True,
    help="Obey what operators said then, or see what the policy alone would have done.",
)
@click.option("--as-if-held", is_flag=True, help="Mail that would have been held counts in no window.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@setting_options("isolate_percent", "isolate_at_least", "rules_file")
def backtest(
    settings: Settings,
    begin: str | None,
    end: str | None,
    file: Path | None,
    campaigns: tuple[str, ...],
    source: Path | None,
    plot: Path | None,
    warm_up: str,
    obeys: bool,
    as_if_held: bool,
    as_json: bool,
) -> None:
    """Say what would have been decided, by other limits or by those in force.

    The records of the past are counted and judged by the code of the workers.  For each campaign: when it would have
    been watched, throttled, paused or isolated, why, how many bad messages that would have saved and how many good
    ones it would have held; and when it really was.  Nothing is written to Kafka.

    Exit code 1 if lines of the input could not be read.

    \b
    Examples:
      mailcordon backtest --from 14d --limits stricter.toml
      mailcordon backtest --input week.jsonl.gz --campaign spring-sale --plot spring-sale.svg
      mailcordon export --from 7d -o - | mailcordon backtest --input - --json
    """
    put_rules_in_force(settings.rules_file)
    if plot is not None and not plot.parent.is_dir():
        raise WrongUse(f"--plot {plot}: there is no folder {plot.parent}")
    what_if = WhatIf() if file is None else read_limits(file)
    now = now_ms()
    since, to = _times(begin, end, now)
    until = now if to is None and source is None else to
    with _recording(settings, source, since, to, warm_up) as recording:
        question = Question(
            recording=recording,
            first=first_campaigns(recording),
            what_if=what_if,
            since=since or 0,
            to=until,
            obeys=obeys,
            as_if_held=as_if_held,
            cap=(settings.isolate_percent / 100, settings.isolate_at_least),
        )
        replay, made = question.answered(campaigns, traces=plot is not None and len(campaigns) == 1)
        _check_known(campaigns, replay)
        for name in what_if.of_campaign.keys() - replay.tracked.keys() if not campaigns else ():
            say(f"{file}: there is nothing about campaign {name} in the input; its limits changed nothing")
        if plot is not None:
            _draw(plot, question, campaigns, replay, made)
    tell(made, as_json=as_json)
    if made.read["bad"]:
        for one in made.read["bad_lines"]:
            say(f"line {one['line']}: {one['explain']}")
        raise SaysNo(f"{made.read['bad']:,} lines of the input could not be read; the rest was replayed")


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a recording."""

    recording: Recording
    first: Mapping[str, Campaign]
    what_if: WhatIf
    since: int
    to: int | None
    obeys: bool
    as_if_held: bool
    cap: tuple[float, int]

    def answered(self, campaigns: Sequence[str], *, traces: bool) -> tuple[Replay, Report]:
        """Replay the recording, for some campaigns or (with none named) for all."""
        replay = Replay(
            self.first,
            what_if=self.what_if,
            judged_from=self.since,
            only=frozenset(campaigns) or None,
            obeys_commands=self.obeys,
            as_if_held=self.as_if_held,
            cap=self.cap,
            traces=traces,
        )
        bad = Bad(self.recording.bad.count, list(self.recording.bad.shown))
        found = replayed(self.recording, replay, bad, to=self.to, say=Progress("replayed"))
        is_compared = DECISIONS in self.recording.topics
        return replay, report(replay, found, bad, is_compared=is_compared, other_topics=self.recording.other_topics)


def _check_known(campaigns: Sequence[str], replay: Replay) -> None:
    strange = [name for name in campaigns if name not in replay.tracked]
    if strange:
        raise WrongUse(f"--campaign {strange[0]}: there is nothing about it in the input; is the name right?")


def _draw(file: Path, question: Question, campaigns: Sequence[str], replay: Replay, made: Report) -> None:
    """Draw a campaign; which one is worst is known only at the end, and then its course is replayed once more."""
    name = campaigns[0] if len(campaigns) == 1 else pictures.worst(made)
    if name is None or made.begin is None or made.end is None:
        raise SaysNo("--plot: there is nothing to draw")
    if replay.tracked[name].trace is None:
        say(f"drawing {name}")
        replay, _ = question.answered([name], traces=True)
    pictures.write(file, pictures.picture(replay.tracked[name], made.begin, made.end))


def _times(begin: str | None, end: str | None, now: int) -> tuple[int | None, int | None]:
    since, to = moment_of("from", begin, now), moment_of("to", end, now)
    if since is not None and to is not None and to <= since:
        raise WrongUse(f"--to {end} is not after --from {begin}")
    return since, to


def moment_of(name: str, text: str | None, now: int) -> int | None:
    """Milliseconds of a day, a time (UTC unless it says otherwise), milliseconds, or a while before ``now``."""
    if text is None:
        return None
    if (ago := _AGO.match(text)) is not None:
        return now - _length(ago)
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError:
        raise WrongUse(f"--{name} {text}: expected a day like 2026-11-20, a time, or a while ago like 7d") from None
    if found.tzinfo is None:
        found = found.replace(tzinfo=dt.UTC)
    return max(0, round(found.timestamp() * 1000))


def _length(found: re.Match[str]) -> int:
    return int(found[1]) * _UNIT_MS[found[2]]


class Progress:
    """A line on standard error once a second; nothing for what is done at once."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._next = time.monotonic() + _EVERY_S

    def __call__(self, count: int, of: int | None = None) -> None:
        """So much is done."""
        if time.monotonic() >= self._next:
            say(f"{count:,} {self._what} ..." if of is None else f"{count * 100 // max(of, 1)} % {self._what} ...")
            self._next = time.monotonic() + _EVERY_S


@click.command()
@FROM
@TO
@click.option("-o", "--output", "out", type=FILE, required=True, help="File to write; .gz is packed, - is the output.")
@setting_options()
def export(settings: Settings, begin: str | None, end: str | None, out: Path) -> None:
    """Write what a backtest reads from the topics to a file, one JSON object a line.

    Results, feedback, campaigns, commands, brakes and decisions, in the order of time.  Addresses in reply texts,
    message ids and reasons are made unreadable, each always in the same way.

    \b
    Examples:
      mailcordon export --from 7d -o week.jsonl.gz
      mailcordon export --from 2026-11-20 --to 2026-11-21T12:00 -o - | gzip > day.jsonl.gz
    """
    now = now_ms()
    since, to = _times(begin, end, now)
    redaction = Redaction(secrets.token_bytes(32))
    with _fetched(settings, since, to) as recording, _written(out) as target:
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
def _recording(
    settings: Settings, source: Path | None, since: int | None, to: int | None, warm_up: str
) -> Iterator[Recording]:
    if source is not None:
        with opened(source, Progress("MiB unpacked")) as file:
            yield Recording(file)
        return
    before = _AGO.match(warm_up)
    if before is None:
        raise WrongUse(f"--warm-up {warm_up}: expected a length of time like 7d, 36h or 90m")
    with _fetched(settings, None if since is None else max(0, since - _length(before)), to) as recording:
        yield recording


@contextlib.contextmanager
def _fetched(settings: Settings, since: int | None, to: int | None) -> Iterator[Recording]:
    """The records of the topics, by way of a temporary file: they come by partition, and are wanted by time."""
    progress = Progress("records read")
    with tempfile.TemporaryFile() as file:

        async def work(bootstrap: str) -> int:
            try:
                return await write_lines(lines_of(bootstrap, since=since, to=to), file, progress)
            except OSError as full:
                raise OutsideFailed(
                    f"the records could not be kept ({full}); TMPDIR says where, if there is no room"
                ) from full

        with_kafka(settings, work)
        file.flush()
        yield Recording(file)


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
