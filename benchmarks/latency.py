"""How long until a campaign that hits a trap sends nothing more, and what its neighbour feels of it.

The whole system runs: a real Kafka, the worker, the controller with a sender process per campaign, and a mail server
that notes the time of every MAIL FROM.  Beside it, a process of its own publishes the results of other campaigns at a
steady clock; that it kept its rate, and that the worker kept up, is checked.

1. Trials.  A campaign that sends 50 messages a second is hit by a confirmed pristine trap: the event is published to
   mail.feedback, and the time counts until the campaign's last MAIL FROM.  By stage: the snapshot of its rates, the
   decision (the control record, which is published first), the closing of the sender's gate, and MAIL FROMs after
   that.  `failed` are trials whose campaign was not stopped within 5 s, or was not sending when it was hit.  Each trial
   is a new campaign with a new sender.
2. A neighbour.  A well-behaved campaign sends 100 messages a second, in turns beside a campaign that sends 50 and
   breaches nothing, and beside one that does the same, breaches its limits, and is isolated in the middle of the turn.
   neighbour_p99_ratio is what the breach changes: the median, over the turns, of the neighbour's p99 from request to
   taken message in the latter by that in the former.  Between ..._low and ..._high it lies nine times in ten, by these
   turns: as long as 1 is between them, no difference was found.  There are turns with nobody beside it as well:
   neighbour_p99_ratio_to_alone has in it what any second sender costs on the same processors.  With --hang there are
   turns beside a campaign whose provider takes connections and is silent: neighbour_hang_p99_ratio, to alone.

cpu_idle_percent is what all processors had nothing to do, in the part of the run in which it was least: near 0 the
figures tell of the machine, or of what else runs on it.  The exit code is 1 if a trial failed, a message of the
neighbour was lost, or the background was not what it should be.
"""

import argparse
import asyncio
import json
import random
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # before benchmarks/, whose files hide packages

from benchmarks._harness import Json, at_least_one, machine, parser
from benchmarks._latency_account import figures, kept, percentile
from benchmarks._latency_neighbour import Beside, Turns, turns
from benchmarks._latency_system import System, system
from benchmarks._latency_trials import Span, trials
from benchmarks._running import Failed, end_on_signals, folder, kafka, say
from cli.failures import OutsideFailed
from cli.kafka import KafkaUnavailable

EXAMPLES = """\
  .venv/bin/python benchmarks/latency.py --trials 20 --runs 2         a minute or two
  .venv/bin/python benchmarks/latency.py --json                       200 trials, some ten minutes
  .venv/bin/python benchmarks/latency.py --json --hang --background 2000 --seed 7"""

KINDS: tuple[Beside, ...] = ("alone", "behaving", "breaching", "hanging")
_BASELINE = ("neighbour_behaving_p99_ms", "neighbour_alone_p99_ms")
_STEADY = 0.98  # of the background's rate
_LATE_S = 1.0  # a result of the background may be so late, and then its clock was steady


@dataclass(frozen=True, slots=True)
class Outcome:
    """The figures, and whether the run was what it should be."""

    figures: dict[str, float | int | None]
    ratios: dict[str, float]
    wrong: list[str]
    turns: dict[str, list[float]]  # p99 (ms) of each turn, by what was beside it


def main() -> None:
    made = parser(__doc__ or "", EXAMPLES, runs=8)
    made.add_argument("--trials", type=at_least_one, default=200, metavar="N", help="trials (default 200)")
    made.add_argument(
        "--at-once", type=at_least_one, default=10, metavar="N", help="senders started at once (default 10)"
    )
    help_ = "results of other campaigns per second (default 2,000)"
    made.add_argument("--background", type=at_least_one, default=2_000, metavar="N", help=help_)
    made.add_argument("--frame", type=at_least_one, default=25, metavar="N", help="results in one frame (default 25)")
    made.add_argument("--others", type=at_least_one, default=4, metavar="N", help="other campaigns (default 4)")
    made.add_argument("--turn", type=float, default=8.0, metavar="S", help="seconds of a neighbour's turn (default 8)")
    made.add_argument("--hang", action="store_true", help="also turns beside a campaign whose provider hangs")
    made.add_argument("--seed", type=int, default=1, metavar="S", help="same seed, same course (default 1)")
    options = made.parse_args()
    end_on_signals()
    try:
        with folder(options.keep) as at, kafka(at) as bootstrap:
            outcome = asyncio.run(_bench(options, at, bootstrap))
    except (Failed, KafkaUnavailable, OutsideFailed) as failed:
        say(f"failed: {failed}")
        raise SystemExit(3) from failed
    show(options, outcome)
    raise SystemExit(1 if outcome.wrong else 0)


async def _bench(options: argparse.Namespace, at: Path, bootstrap: str) -> Outcome:
    async with system(
        at,
        bootstrap,
        background=options.background,
        frame=options.frame,
        others=options.others,
        seed=options.seed,
    ) as running:
        found, spans = await trials(running, count=options.trials, at_once=options.at_once, seed=options.seed)
        felt, span = await turns(
            running,
            KINDS if options.hang else KINDS[:-1],
            runs=options.runs,
            turn_s=options.turn,
            seed=options.seed + 1,
        )
        failures = Counter(failure for one in found if (failure := one.failure) is not None)
        told = figures(found)
        background, wrong = _background(running, [*spans, span])
    wrong += [f"{count} trials: {failure}" for failure, count in failures.items()]
    if felt.lost:
        wrong.append(f"{felt.lost} messages of the neighbour did not arrive")
    return Outcome({**told, **background, **_felt(felt)}, _ratios(felt, options.seed), wrong, _by_turn(felt))


def _background(running: System, spans: list[Span]) -> tuple[dict[str, float | int], list[str]]:
    """Whether the background kept its clock in all spans, and how far the worker was behind."""
    wanted = running.background.per_second
    rate, missing = kept([running.background.said(span.begin, span.end) for span in spans])
    lags = [lag for span in spans for lag in running.background.lag_between(span.begin, span.end)]
    found: dict[str, float | int] = {
        "background_per_s": round(rate, 1),
        "background_late_ms": round(1000 * missing / wanted),
        "cpu_idle_percent": round(100 * min(span.idle for span in spans), 1),
        "lag_frames_p50": percentile(lags, 50),
        "lag_frames_p95": percentile(lags, 95),
        "lag_frames_max": max(lags, default=-1),
    }
    wrong = []
    if rate < wanted * _STEADY:
        wrong.append(f"the background had {rate:,.1f} results per second instead of {wanted:,.0f}")
    if missing > wanted * _LATE_S:
        wrong.append(f"{missing:,} results of the background were due and not there: its clock was not steady")
    if not lags or percentile(lags, 95) > running.background.kept_up:
        wrong.append(f"the worker did not keep up: {found['lag_frames_p95']:,} frames were not done")
    return found, wrong


def _by_turn(felt: Turns) -> dict[str, list[float]]:
    """The p99 of every single turn."""
    return {kind: [round(percentile(turn, 99), 1) for turn in turns] for kind, turns in felt.times.items()}


def _felt(felt: Turns) -> dict[str, float | int]:
    found: dict[str, float | int] = {f"neighbour_{kind}_p99_ms": round(felt.p99(kind), 1) for kind in felt.times}
    return {**found, "neighbour_lost": felt.lost}


_RATIOS: dict[str, tuple[Beside, Beside]] = {
    "neighbour_p99_ratio": ("breaching", "behaving"),  # the breach alone: the one beside sends as much without it
    "neighbour_p99_ratio_to_alone": ("breaching", "alone"),
    "neighbour_hang_p99_ratio": ("hanging", "alone"),
}


def _ratios(felt: Turns, seed: int) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, (beside, other) in _RATIOS.items():
        if beside in felt.times:
            low, high = felt.spread(beside, other, random.Random(seed))
            ratios = {name: felt.ratio(beside, other), f"{name}_low": low, f"{name}_high": high}
            found |= {each: round(ratio, 3) for each, ratio in ratios.items()}
    return found


def show(options: argparse.Namespace, outcome: Outcome) -> None:
    """The figures as a table, and with ``--json`` as one object in the last line."""
    where = machine()
    print(f"latency: {where['cpu']}, {where['cores']} cores, Python {where['python']}\n")
    for name, figure in {**outcome.figures, **outcome.ratios}.items():
        print(f"{name.replace('_', ' '):>36}  {'-' if figure is None else f'{figure:,}':>12}")
    for line in outcome.wrong:
        print(f"not as it should be: {line}")
    if options.json:
        told: Json = {
            "bench": "latency",
            "figures": {**outcome.figures, **outcome.ratios},
            "baseline": {name: outcome.figures[name] for name in _BASELINE},
            "ratios": outcome.ratios,
            "machine": where,
            "wrong": outcome.wrong,
            "turns": outcome.turns,
            "course": {name: value for name, value in vars(options).items() if name not in {"json", "keep"}},
        }
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
