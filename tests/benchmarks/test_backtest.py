"""The benchmark of backtests at its smallest: both sides count alike, and the figures are there."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BENCH = ROOT / "benchmarks" / "backtest.py"


def run(*options: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, str(BENCH), *map(str, options)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_both_sides_are_measured_and_count_alike() -> None:
    told = json.loads(run("--events", "20000", "--campaigns", "10", "--runs", "1", "--json").splitlines()[-1])

    assert told["bench"] == "backtest"
    assert told["figures"].keys() == told["baseline"].keys() == {"events_per_cpu_s"}
    assert told["ratios"].keys() == {"events_per_cpu_s_vs_plain_loop"}
    assert "the counts of both are the same, by campaign" in told["checks"]


def test_the_story_is_a_recording_that_is_isolated(tmp_path: Path) -> None:
    file = tmp_path / "story.jsonl"
    run("--story", file)

    told = subprocess.run(
        [sys.executable, "-m", "cli", "backtest", "--input", str(file), "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )

    assert json.loads(told.stdout)["totals"]["isolated"] == 1
