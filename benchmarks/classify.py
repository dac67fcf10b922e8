"""How well and how fast bounces, complaints and automatic replies are read, beside flufl.bounce alone.

Any folders of .eml files will do.  Where hand-labelled truth is known (ours is in tests/smtp/fixtures), categories are
scored by it.  Readers run in processes of their own: a message that kills one is a crash, and the next ones are read.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # before benchmarks/, whose files hide packages

from benchmarks._classify_score import Read, Score, score, truth_of
from benchmarks._harness import Json, Spread, machine, parser

ROOT = Path(__file__).resolve().parents[1]
TRUTH = ROOT / "tests/smtp/fixtures/truth.toml"
READERS = ("ours", "flufl")
READER = [sys.executable, "-m", "benchmarks._classify_reader"]
READER_WITHIN_S = 600
RUNS = 5
EXAMPLES = """\
  benchmarks/classify.py --json tests/smtp/fixtures
  benchmarks/classify.py --verbose --truth labels.toml ~/bounces ~/complaints"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One reader's score, and its messages per second of processor in each turn."""

    score: Score
    speeds: Spread

    knows_categories: bool

    def as_json(self) -> Json:
        """The figures by their names."""
        return {
            "coverage": self.score.coverage,
            "right_category": self.score.right_category if self.knows_categories else None,
            "right_recipients": self.score.right_recipients,
            "blocks_called_recipient_fault": self.score.blocks_called_recipient_fault,
            "crashes": self.score.crashes,
            "messages_per_cpu_s": round(self.speeds.median, 1),
        }


def main() -> int:
    """Read everything, in turns, and tell."""
    made = parser(__doc__ or "", EXAMPLES, runs=RUNS)
    made.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="folders of .eml files, with all below them")
    made.add_argument("--truth", type=Path, default=TRUTH, metavar="FILE", help="hand-labelled truth (default: ours)")
    made.add_argument("--verbose", action="store_true", help="say of each file what was not recognised or is wrong")
    asked = made.parse_args()
    paths = sorted({path for folder in asked.folders for path in _mails(folder)})
    if not paths:
        made.error(f"no .eml files in {', '.join(map(str, asked.folders))}; name a folder that has some")
    try:
        truth = truth_of(asked.truth)
    except (OSError, ValueError) as error:
        made.error(f"--truth: {error}")
    turns: dict[str, list[tuple[list[Read], float]]] = {reader: [] for reader in READERS}
    for _ in range(asked.runs):
        for reader in READERS:
            turns[reader].append(turn(reader, paths))
    outcomes = {
        reader: Outcome(
            score(told[0][0], truth),
            Spread([len(paths) / max(cpu_s, 1e-6) for _, cpu_s in told]),
            knows_categories=reader == "ours",
        )
        for reader, told in turns.items()
    }
    told = _as_json(outcomes, len(paths), asked.runs)
    print(_table(outcomes, len(paths)))
    if asked.verbose:
        print("\n".join(("", *outcomes["ours"].score.remarks)))
    if asked.keep is not None:
        asked.keep.mkdir(parents=True, exist_ok=True)
        (asked.keep / "classify.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    if asked.json:
        print(json.dumps(told), flush=True)
    return 0


def _mails(folder: Path) -> list[Path]:
    if folder.is_file():
        return [folder]
    return [path for path in folder.rglob("*") if path.suffix.lower() == ".eml" and path.is_file()]


def turn(reader: str, paths: Sequence[Path]) -> tuple[list[Read], float]:
    """Every file read once; a reader that dies is a crash of the file that it had, and another one goes on."""
    reads: list[Read] = []
    cpu_s = 0.0
    while len(reads) < len(paths):
        left = paths[len(reads) :]
        try:
            done = subprocess.run(
                [*READER, reader],
                input="\n".join(map(str, (path.resolve() for path in left))),
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=READER_WITHIN_S,
                check=False,
            )
            output, why = done.stdout, f"the reader ended with {done.returncode}: {done.stderr.strip()[-200:]}"
        except subprocess.TimeoutExpired as late:
            output = late.stdout.decode("utf-8", "replace") if isinstance(late.stdout, bytes) else ""
            why = f"not read within {READER_WITHIN_S} s"
        told = [json.loads(line) for line in output.splitlines() if line.endswith("}")]
        cpu_s += next((one["cpu_s"] for one in told if "cpu_s" in one), 0.0)
        results = [one for one in told if "cpu_s" not in one]
        for path, one in zip(left, results, strict=False):
            reads.append(Read(path, tuple(one.get("rows", ())), one.get("error", "")))
        if len(results) < len(left):
            reads.append(Read(left[len(results)], error=why))
    return reads, cpu_s


def _as_json(outcomes: Mapping[str, Outcome], messages: int, runs: int) -> Json:
    ours, flufl = (outcomes[reader] for reader in READERS)
    pairs = zip(ours.speeds.runs, flufl.speeds.runs, strict=True)
    ratio = statistics.median(one / other for one, other in pairs)
    return {
        "bench": "classify",
        "figures": ours.as_json(),
        "baseline": flufl.as_json(),
        "ratios": {"messages_per_cpu_s_vs_flufl": round(ratio, 3)},
        "machine": machine(),
        "spread": {"messages_per_cpu_s": {"figure": ours.speeds.as_json(), "baseline": flufl.speeds.as_json()}},
        "facts": {"messages": messages, "messages_with_truth": ours.score.judged, "runs": runs},
    }


def _table(outcomes: Mapping[str, Outcome], messages: int) -> str:
    columns = [outcome.as_json() for outcome in outcomes.values()]
    judged = outcomes["ours"].score.judged
    lines = [f"classify: {messages:,} messages, {judged:,} with truth", "", f"{'':32}{'mailcordon':>12}{'flufl':>12}"]
    for name in columns[0]:
        cells = ("-" if column[name] is None else f"{column[name]:,}" for column in columns)
        lines.append(f"{name.replace('_', ' '):32}" + "".join(f"{cell:>12}" for cell in cells))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
