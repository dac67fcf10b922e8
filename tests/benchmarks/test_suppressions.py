"""The benchmark of suppressions at its smallest: both sides answer alike, and the figures are there."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_both_sides_are_measured_and_agree() -> None:
    bench = ROOT / "benchmarks" / "suppressions.py"
    done = subprocess.run(
        [sys.executable, str(bench), "--suppressions", "2000", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])

    assert told["bench"] == "suppressions"
    assert {"mib", "miss_ns", "hit_ns", "sender_ns", "add_ns"} < told["figures"].keys()
    assert told["baseline"].keys() == {"against_mib", "against_miss_ns", "against_hit_ns"}
    assert told["ratios"].keys() == {"mib_vs_plain", "miss_vs_plain", "hit_vs_plain"}
