"""How soon an isolation has become a lasting state of Kubernetes, on a real control plane.

The whole system runs: a real Kafka, the worker, the controller against a real API server with the guard, controllers
and scheduler, nodes that run each sender as a process, and a mail server that notes the time of every MAIL FROM.  A
trial is a campaign of its own that sends 50 messages a second and is hit by a confirmed pristine trap.  A watch of our
own notes when the API server shows each thing:

event_to_decision         from the published event to the control record
decision_to_guard         spec.decision of the Campaign: from here on nobody scales the sender up
decision_to_replicas_0    the Deployment has 0 replicas
decision_to_pods_gone     its last pod is gone, whose process has ended before
decision_to_policy_emptied  the way out is closed
decision_to_isolated      the condition Isolated is True
event_to_replicas_0       the whole way to the first thing that lasts
event_to_objects          and to all of them; goal: p99 below 2 s
event_to_last_mail_from   what recipients feel: the sender obeys the control record before Kubernetes does

against   `kubectl scale --replicas=0` of a Deployment with the same pod, which our controller does not know and which
          is ready and idle: until the API server shows 0 replicas, and until the pod is gone; once per batch of trials

cpu_idle_percent is what all processors had nothing to do, in the batch in which it was least.  The exit code is 1 if a
trial failed.
"""

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # before benchmarks/, whose files hide packages

from benchmarks._harness import Json, at_least_one, machine, parser
from benchmarks._isolation_account import SIGHTS, Trial, figures, percentiles
from benchmarks._isolation_place import Watched, furnished, scaled_down_ms, watching
from benchmarks._latency_load import request, return_path, trap_hit
from benchmarks._latency_system import System, system
from benchmarks._latency_trials import LEAD_S, MESSAGES, PER_SECOND, Clock
from benchmarks._running import Failed, end_on_signals, folder, kafka, say
from cli.failures import OutsideFailed
from cli.kafka import KafkaUnavailable
from schemas.topics import FEEDBACK, REQUESTS
from tests.control_plane.plane import ControlPlane
from tests.control_plane.rest import Rest

EXAMPLES = """\
  .venv/bin/python benchmarks/isolation.py --json                     50 trials, some minutes
  .venv/bin/python benchmarks/isolation.py --trials 5"""

_SHOWN_WITHIN_S = 20.0
_LOOK_AGAIN_S = 0.05
_BACKGROUND = {"background": 100.0, "frame": 10, "others": 1}


@dataclass(frozen=True, slots=True)
class Outcome:
    """The figures, and whether the run was what it should be."""

    figures: dict[str, float | int]
    baseline: dict[str, float]
    wrong: dict[str, int]

    @property
    def ratios(self) -> dict[str, float]:
        """Ours by ``kubectl scale``: the decision to 0 replicas, and to no pod."""
        return {
            f"decision_to_{what}_vs_kubectl_scale": round(
                self.figures[f"decision_to_{what}_p50_ms"] / self.baseline[f"kubectl_scale_to_{what}_p50_ms"], 3
            )
            for what in ("replicas_0", "pods_gone")
            if f"decision_to_{what}_p50_ms" in self.figures
        }


def main() -> None:
    made = parser(__doc__ or "", EXAMPLES)
    made.add_argument("--trials", type=at_least_one, default=50, metavar="N", help="trials (default 50)")
    made.add_argument("--at-once", type=at_least_one, default=5, metavar="N", help="senders of a batch (default 5)")
    options = made.parse_args()
    end_on_signals()
    try:
        with (
            folder(options.keep) as at,
            kafka(at) as bootstrap,
            ControlPlane(at / "plane", say=say) as plane,
        ):
            outcome = asyncio.run(_bench(options, at, bootstrap, plane))
    except (Failed, KafkaUnavailable, OutsideFailed) as failed:
        say(f"failed: {failed}")
        raise SystemExit(3) from failed
    show(options, outcome)
    raise SystemExit(1 if outcome.wrong else 0)


async def _bench(options: argparse.Namespace, at: Path, bootstrap: str, plane: ControlPlane) -> Outcome:
    place = await asyncio.to_thread(furnished, plane)
    names = [f"trial-{number:04}" for number in range(options.trials)]
    trials: list[Trial] = []
    plain: list[tuple[float, float]] = []
    idle: list[float] = []
    async with (
        Rest(plane.kubeconfig()) as rest,
        watching(rest) as seen,
        system(at, bootstrap, **_BACKGROUND, seed=1, elsewhere=place.prepared) as running,
    ):
        for start in range(0, len(names), options.at_once):
            batch = names[start : start + options.at_once]
            await running.begin((name, PER_SECOND) for name in batch)
            await running.calm()
            clock = Clock()
            trials += [await _trial(running, seen, name) for name in batch]
            idle.append(clock.span().idle)
            plain.append(await scaled_down_ms(place, rest, batch[0]))
            say(f"trials {start + 1} to {start + len(batch)} of {len(names)}")
    scaled, gone = zip(*plain, strict=True)
    baseline = {
        **percentiles("kubectl_scale_to_replicas_0", scaled),
        **percentiles("kubectl_scale_to_pods_gone", gone),
    }
    told = figures(trials) | {"cpu_idle_percent": round(100 * min(idle), 1)}
    return Outcome(told, baseline, Counter(one.failure for one in trials if one.failure is not None))


async def _trial(running: System, seen: Watched, name: str) -> Trial:
    """Let a campaign send, hit it, and wait until all is shown, or should have been long ago."""
    mail = request(name, [f"{name}-{number:03}" for number in range(MESSAGES)], request_id=name)
    await running.publish(REQUESTS, name, mail)
    await asyncio.sleep(LEAD_S)
    event = trap_hit(name, f"{name}-first", at=time.time_ns() // 1_000_000)
    hit_at = await running.publish(FEEDBACK, name, event)
    deadline = time.monotonic() + _SHOWN_WITHIN_S
    while time.monotonic() < deadline:
        seen.must_run()
        if name in running.seen.control_at and all(one in seen.shown.at.get(name, {}) for one in SIGHTS):
            break
        await asyncio.sleep(_LOOK_AGAIN_S)
    running.sink.read()
    return Trial(
        hit_at=round(hit_at * 1e6),
        decision_at=running.seen.control_at.get(name),
        shown=seen.shown.at.get(name, {}),
        mail_from=running.sink.mail_from[return_path(name)],
    )


def show(options: argparse.Namespace, outcome: Outcome) -> None:
    """The figures as a table, and with ``--json`` as one object in the last line."""
    where = machine()
    print(f"isolation: {where['cpu']}, {where['cores']} cores, Python {where['python']}\n")
    for name, figure in {**outcome.figures, **outcome.baseline, **outcome.ratios}.items():
        print(f"{name.replace('_', ' '):>44}  {figure:>12,}")
    for failure, count in outcome.wrong.items():
        print(f"not as it should be: {count} trials: {failure}")
    if options.json:
        told: Json = {
            "bench": "isolation",
            "figures": outcome.figures,
            "baseline": outcome.baseline,
            "ratios": outcome.ratios,
            "machine": where,
            "wrong": outcome.wrong,
        }
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
