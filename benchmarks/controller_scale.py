"""What a thousand campaigns cost the controller on a real Kubernetes API server, with the guard and the watches.

A control plane of the tests (etcd, API server, controller manager; built from source at the first run, which takes
minutes) holds the objects of all campaigns.  Pods are objects that nobody runs.  Then a controller starts anew, in a
process of its own, compares everything, and some campaigns are isolated and released, one after the other.

ours      lists, watches and a mirror: a look costs no call, and the marks of the controller before tell what is as it
          was left
against   the same controller without watches: each look at a campaign asks for each of its objects

start_s             from the start of the process until every campaign was compared and nothing was left to do
rss_mib             resident memory then
calls_per_decision  API calls (watches left out) for one isolation or one release, to the status that says so
resync_s            one comparison of everything with everything
first_s             how long it takes to make all objects of all campaigns
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # before benchmarks/, whose files hide packages

from benchmarks._harness import Noted, at_least_one, parser
from benchmarks._plane import ACCOUNT, NAMESPACE, install
from benchmarks._running import ROOT, Failed, end_on_signals, folder, say
from tests.control_plane.plane import ControlPlane

EXAMPLES = """\
  .venv/bin/python benchmarks/controller_scale.py --json              a thousand campaigns, some minutes
  .venv/bin/python benchmarks/controller_scale.py --campaigns 50 --decisions 3"""

_WITHIN_S = 900
_SHOWN = ("start_s", "start_calls", "rss_mib", "peak_mib", "resync_s", "resync_calls", "calls_per_decision")


def main() -> None:
    made = parser(__doc__ or "", EXAMPLES)
    made.add_argument("--campaigns", type=at_least_one, default=1000, metavar="N", help="campaigns (default 1000)")
    made.add_argument(
        "--decisions", type=at_least_one, default=20, metavar="N", help="isolations, and as many releases"
    )
    options = made.parse_args()
    end_on_signals()
    try:
        with folder(options.keep) as at:
            report = _bench(options, at)
    except Failed as failed:
        say(f"failed: {failed}")
        raise SystemExit(3) from failed
    report.show(as_json=options.json)


def _bench(options: argparse.Namespace, at: Path) -> Noted:
    with ControlPlane(at / "plane", nodes=0, say=say) as plane:
        install(plane)
        common = {"campaigns": options.campaigns, "namespace": NAMESPACE}
        first = _run(plane, common | {"watched": True, "decisions": 0, "epoch": 1})
        say(f"the objects of {options.campaigns} campaigns are there, after {first['start_s']:.0f} s")
        ours = _run(plane, common | {"watched": True, "decisions": options.decisions, "epoch": 1})
        say(f"with watches: started after {ours['start_s']:.1f} s")
        plain = _run(plane, common | {"watched": False, "decisions": options.decisions, "epoch": 3})
        say(f"asking for each object: started after {plain['start_s']:.1f} s")
    figures = {name: round(value, 2) for name, value in ours.items()}
    against = {f"against_{name}": round(plain[name], 2) for name in _SHOWN}
    facts = figures | {"first_s": round(first["start_s"], 1), "campaigns": options.campaigns} | against
    ratios = {
        f"{name}_vs_asking": round(ours[name] / plain[name], 3)
        for name in ("start_s", "resync_s", "calls_per_decision")
    }
    return Noted("controller_scale", [], [], facts, against="against", ratios=ratios)


def _run(plane: ControlPlane, options: dict[str, object]) -> dict[str, float]:
    kubeconfig = plane.account_kubeconfig(NAMESPACE, ACCOUNT)
    given = options | {"kubeconfig": str(kubeconfig), "begun_at": time.time()}
    command = [sys.executable, str(ROOT / "benchmarks" / "_controller_run.py"), json.dumps(given)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=_WITHIN_S, check=False)
    if done.returncode:
        raise Failed(f"a controller ended with {done.returncode}: {done.stderr[-2000:]}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


if __name__ == "__main__":
    main()
