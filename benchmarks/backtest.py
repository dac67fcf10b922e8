"""How many results a second of processor time can be replayed: `mailcordon backtest` over a recording, as one runs it.

The baseline is a loop over the same file as one would write it first: json.loads, a counter per campaign.  It judges
nothing, knows no time, no windows and no repeats.  Both are processes of their own, measured whole, from the start of
Python to the printed answer, in turns; their counts are compared.

events_per_cpu_s   results in frames, per second of processor time
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # before benchmarks/, whose files hide packages

import resource

from benchmarks._backtest_load import write_many, write_story
from benchmarks._harness import Json, Report, Subject, Turn, at_least_one, parser

EXAMPLES = """\
  .venv/bin/python benchmarks/backtest.py --json                     two million results, a gigabyte of disk
  .venv/bin/python benchmarks/backtest.py --events 200000 --runs 1
  .venv/bin/python benchmarks/backtest.py --story story.jsonl        write a recording to look at, measure nothing"""

ROOT = Path(__file__).resolve().parents[1]
_PLAIN_SHARE = 4  # the baseline gets every fourth frame


def main() -> None:
    made = parser(__doc__ or "", EXAMPLES, runs=5)
    made.add_argument("--events", type=at_least_one, default=2_000_000, metavar="N", help="results (2,000,000)")
    made.add_argument("--frame", type=at_least_one, default=500, metavar="N", help="results in a frame (500)")
    made.add_argument("--campaigns", type=at_least_one, default=40, metavar="N", help="campaigns (40)")
    made.add_argument("--seed", type=int, default=1, metavar="N", help="of all chance (1)")
    made.add_argument("--story", type=Path, metavar="FILE", help="write the recording of one campaign's story")
    options = made.parse_args()
    if options.story:
        write_story(options.story, seed=options.seed)
        return
    with tempfile.TemporaryDirectory(prefix="backtest-") as folder:
        given = {"seed": options.seed, "size": options.frame, "count": options.campaigns}
        file, less = Path(folder, "all.jsonl"), Path(folder, "some.jsonl")
        write_many(file, events=options.events, **given)
        write_many(less, events=max(options.frame, options.events // _PLAIN_SHARE), **given)
        ours, plain = [], []
        told: Json = {}
        for _ in range(options.runs):
            told, turn = _ours(file)
            ours.append(turn)
            counted, turn = _plain(less)
            plain.append(turn)
        _compare(_ours(less)[0], counted)
    subject = Subject(key="events_per_cpu_s", unit="results", ours=ours, plain=plain, against="plain_loop")
    checks = ["the counts of both are the same, by campaign", f"{len(_stopped(told))} campaigns would be isolated"]
    facts = {"events": options.events, "frame": options.frame, "campaigns": options.campaigns, "seed": options.seed}
    Report("backtest", [subject], checks, facts).show(as_json=options.json)


def _ours(file: Path) -> tuple[Json, Turn]:
    command = [sys.executable, "-m", "cli", "backtest", "--input", str(file), "--json"]
    told, cpu_s, wall_s = _measured(command)
    return told, Turn(sum(one["results"] for one in told["campaigns"]), cpu_s, wall_s)


def _plain(file: Path) -> tuple[Json, Turn]:
    told, cpu_s, wall_s = _measured([sys.executable, str(ROOT / "benchmarks" / "_backtest_plain.py"), str(file)])
    return told, Turn(sum(one["results"] for one in told.values()), cpu_s, wall_s)


def _measured(command: list[str]) -> tuple[dict, float, float]:  # type: ignore[type-arg]  # JSON
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3600, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    cpu_s = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return json.loads(done.stdout), cpu_s, time.monotonic() - began


def _stopped(told: Json) -> list[str]:
    return [one["campaign"] for one in told["campaigns"] if "isolated" in one["first"]]  # type: ignore[attr-defined,index]


def _compare(told: Json, counted: Json) -> None:
    ours = {one["campaign"]: one["results"] for one in told["campaigns"]}  # type: ignore[attr-defined,index]
    plain = {name: one["results"] for name, one in counted.items()}  # type: ignore[index]
    if ours != plain:
        raise SystemExit(f"counts differ: {ours} and {plain}")


if __name__ == "__main__":
    main()
