"""``mailcordon backtest``: what would have been decided, when and why, and what that saves."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from agents.ports import now_ms
from cli import backtest_picture as pictures
from cli.access import say
from cli.backtest_asking import FILE, FROM, TO, Progress, length_of, times
from cli.backtest_fetching import fetched
from cli.backtest_input import Bad, Recording, opened
from cli.backtest_limits import WhatIf, read_limits
from cli.backtest_replay import Replay
from cli.backtest_report import Report, report
from cli.backtest_run import first_campaigns, replayed
from cli.backtest_telling import tell
from cli.failures import SaysNo, WrongUse
from cli.feedback_loops import put_feedback_loops_in_force
from cli.rules import put_rules_in_force
from cli.settings import setting_options
from policy.settings import Settings
from schemas.sending import Campaign
from schemas.topics import DECISIONS


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
@click.option(
    "--start",
    type=click.Choice(["retained", "healthy"]),
    default="retained",
    show_default=True,
    help="Where campaigns stand at --from: as the decisions before it say, as far as there are any, or healthy.",
)
@click.option("--as-if-held", is_flag=True, help="Mail that would have been held counts in no window.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@setting_options("isolate_percent", "isolate_at_least", "rules_file", "providers", "feedback_loops")
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
    start: str,
    as_if_held: bool,
    as_json: bool,
) -> None:
    """Say what would have been decided, by other limits or by those in force.

    The records of the past are counted and judged by the code of the workers.  For each campaign: when it would have
    been watched, throttled, paused or isolated, why, how many bad messages that would have saved and how many good
    ones it would have held; and when it really was.  What campaigns share (a tenant, a sending domain, an address) is
    judged as well, and what that allows them.  Nothing is written to Kafka.

    Exit code 1 if lines of the input could not be read.

    \b
    Examples:
      mailcordon backtest --from 14d --limits stricter.toml
      mailcordon backtest --input week.jsonl.gz --campaign spring-sale --plot spring-sale.svg
      mailcordon export --from 7d -o - | mailcordon backtest --input - --json
    """
    put_rules_in_force(settings.rules_file)
    put_feedback_loops_in_force(settings)
    if plot is not None and not plot.parent.is_dir():
        raise WrongUse(f"--plot {plot}: there is no folder {plot.parent}")
    what_if = WhatIf() if file is None else read_limits(file)
    now = now_ms()
    since, to = times(begin, end, now)
    until = now if to is None and source is None else to
    with _recording(settings, source, since, to, warm_up) as recording:
        question = Question(
            recording=recording,
            first=first_campaigns(recording),
            what_if=what_if,
            since=since or 0,
            to=until,
            obeys=obeys,
            retained=start == "retained",
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
    retained: bool
    as_if_held: bool
    cap: tuple[float, int]

    def answered(self, campaigns: Sequence[str], *, traces: bool) -> tuple[Replay, Report]:
        """Replay the recording, and tell of some campaigns or (with none named) of all."""
        replay = Replay(
            self.first,
            what_if=self.what_if,
            judged_from=self.since,
            retained=self.retained,
            obeys_commands=self.obeys,
            as_if_held=self.as_if_held,
            cap=self.cap,
            traced=campaigns[0] if traces else None,
        )
        bad = Bad(self.recording.bad.count, list(self.recording.bad.shown))
        found = replayed(self.recording, replay, bad, to=self.to, say=Progress("replayed"))
        is_compared = DECISIONS in self.recording.topics
        made = report(
            replay,
            found,
            bad,
            only=frozenset(campaigns),
            is_compared=is_compared,
            other_topics=self.recording.other_topics,
        )
        return replay, made


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


@contextlib.contextmanager
def _recording(
    settings: Settings, source: Path | None, since: int | None, to: int | None, warm_up: str
) -> Iterator[Recording]:
    if source is not None:
        with opened(source, Progress("MiB unpacked")) as file:
            yield Recording(file)
        return
    before = length_of("warm-up", warm_up)
    with fetched(settings, None if since is None else max(0, since - before), to) as recording:
        yield recording
