"""``benchmarks/isolation.py``, small: an isolation is shown by every stage, in order."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.conftest import GIVEN

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.skipif(GIVEN is not None, reason="the benchmark has a control plane of its own"),
]


def test_every_stage_of_an_isolation_is_seen_and_measured() -> None:
    bench = ROOT / "benchmarks" / "isolation.py"
    command = [sys.executable, str(bench), "--json", "--trials", "2", "--at-once", "2"]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)

    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    figures = told["figures"]
    assert (figures["trials"], figures["failed"], told["wrong"]) == (2, 0, {})
    stages = [f"decision_to_{one}_p50_ms" for one in ("guard", "replicas_0", "policy_emptied", "isolated")]
    assert [figures[one] for one in stages] == sorted(figures[one] for one in stages)
    assert figures["event_to_objects_p50_ms"] > figures["event_to_replicas_0_p50_ms"] > 0
    assert told["ratios"]["decision_to_pods_gone_vs_kubectl_scale"] > 0
