"""The benchmark of the controller at its smallest: with watches it asks far less, and the figures are there."""

import json
import subprocess
import sys
from pathlib import Path

from tests.control_plane.plane import ControlPlane

ROOT = Path(__file__).parents[2]


def test_it_costs_fewer_calls_than_asking_for_each_object(own_plane: ControlPlane) -> None:
    bench = ROOT / "benchmarks" / "controller_scale.py"
    done = subprocess.run(
        [sys.executable, str(bench), "--campaigns", "3", "--decisions", "1", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])

    assert {"start_s", "rss_mib", "calls_per_decision", "resync_s", "campaigns"} < told["figures"].keys()
    assert told["figures"]["resync_calls"] == 0
    assert told["figures"]["calls_per_decision"] < told["baseline"]["against_calls_per_decision"]
