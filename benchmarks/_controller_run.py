"""One controller of a thousand campaigns as a process, which measures itself: options as JSON in the only argument."""

import asyncio
import json
import os
import random
import resource
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # before benchmarks/, whose files hide packages

from k8s.kubernetes import KubernetesCluster
from k8s.metrics import Metrics
from k8s.patches import Site
from k8s.plan import holds
from k8s.reconcile import Habits, Reconciler
from schemas.reputation import Control, State
from schemas.sending import Campaign, Mailbox, Pace

WITHIN_S = 600.0
_HABITS = Habits(resync_s=3600)


class Truth:
    """So many campaigns, and a decision about each."""

    def __init__(self, count: int, epoch: int) -> None:
        names = [f"campaign-{number:04}" for number in range(count)]
        self.campaigns = {name: _campaign(name) for name in names}
        self.controls = {name: decided(name, "healthy", epoch) for name in names}


class Asking(Reconciler):
    """The baseline: no watches and no lists; each look at a campaign asks for each of its objects."""

    async def resync(self) -> None:
        for campaign in self._truth.controls:
            self.wake(campaign)
        self._resynced_at = self._clock()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in range(self.habits.workers):
                tasks.create_task(self._work(), name=f"reconcile {number}")
            tasks.create_task(self.resync())


def main() -> None:
    options = json.loads(sys.argv[1])
    print(json.dumps(asyncio.run(_measure(options))), flush=True)


async def _measure(options: dict[str, Any]) -> dict[str, float]:
    truth, metrics = Truth(options["campaigns"], options["epoch"]), Metrics()
    site = Site(namespace=options["namespace"], image="pause:1")
    cluster = await KubernetesCluster.connect(site, kubeconfig=options["kubeconfig"], metrics=metrics)
    kind = Reconciler if options["watched"] else Asking
    one = kind(
        cluster,
        truth,
        now=lambda: time.time_ns() // 1_000_000,
        chance=random.random,
        habits=_HABITS,
        metrics=metrics,
    )
    working = asyncio.create_task(one.run())
    await _idle(one, cluster)
    start_s, start_calls = time.time() - options["begun_at"], _calls(metrics)
    rss_mib = _rss_mib()
    began = time.monotonic()
    await one.resync()
    await _idle(one, cluster)
    resync_s, resync_calls = time.monotonic() - began, _calls(metrics) - start_calls
    figures = {
        "start_s": start_s,
        "start_calls": start_calls.total(),
        "rss_mib": rss_mib,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "resync_s": resync_s,
        "resync_calls": resync_calls.total(),
    }
    if options["decisions"]:
        figures |= await _decide(one, cluster, truth, metrics, options)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    await cluster.close()
    return figures


async def _decide(
    one: Reconciler, cluster: KubernetesCluster, truth: Truth, metrics: Metrics, options: dict[str, Any]
) -> dict[str, float]:
    """Isolate some campaigns, one after the other, and release them; what each decision cost."""
    names = list(truth.controls)[: options["decisions"]]
    before, took = _calls(metrics), dict[str, list[float]](isolated=[], watched=[])
    for number, state in enumerate(("isolated", "watched"), start=1):
        for name in names:
            truth.controls[name] = decided(name, state, options["epoch"] + number)  # type: ignore[arg-type]  # as above
            began = time.monotonic()
            one.wake(name)
            await _until(lambda name=name: _is_done(one, cluster, name), every_s=0.001)
            took[state].append(time.monotonic() - began)
    made = _calls(metrics) - before
    count = 2 * len(names)
    return {
        "calls_per_decision": made.total() / count,
        **{f"{verb}_per_decision": made[verb] / count for verb in sorted(made)},
        "isolate_p50_ms": sorted(took["isolated"])[len(names) // 2] * 1000,
        "release_p50_ms": sorted(took["watched"])[len(names) // 2] * 1000,
    }


def decided(name: str, state: State, epoch: int) -> Control:
    return Control(
        campaign=name,
        epoch=epoch,
        may_send=state != "isolated",
        pace=Pace(),
        state=state,
        reason=f"it is {state}",
        at=time.time_ns() // 1_000_000 if state != "healthy" else 1_764_000_000_000,
    )


def _campaign(name: str) -> Campaign:
    return Campaign(campaign=name, from_=Mailbox(address="news@shop.example"), return_path_domain="b.shop.example")


async def _idle(one: Reconciler, cluster: KubernetesCluster) -> None:
    """Until everything was compared and nothing is left to do."""

    def idle() -> bool:
        return one.since_resync_s() is not None and not (len(one._queue) or one._queue._busy or one._queue.delayed)

    await _until(idle)


def _is_done(one: Reconciler, cluster: KubernetesCluster, name: str) -> bool:
    wish = one._wish(name)
    status = cluster._status(wish.spec, cluster._reading.known(wish.spec))
    control = holds(wish, status)
    if control is None or status is None or one._plan(name, status) or not one._is_shown(wish, status):
        return False
    return name not in one._queue._busy and (control.may_send or not status.running)


async def _until(true: Any, *, every_s: float = 0.01) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not true():  # noqa: ASYNC110 - the reconciler is measured, and so not changed for it
            await asyncio.sleep(every_s)


def _calls(metrics: Metrics) -> Counter[str]:
    """Calls by verb; a watch is none, it goes on."""
    found: Counter[str] = Counter()
    for metric in metrics.api_calls.collect():
        for sample in metric.samples:
            if sample.name.endswith("_total") and sample.labels["verb"] != "watch":
                found[sample.labels["verb"]] += int(sample.value)
    return found


def _rss_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1048576


if __name__ == "__main__":
    main()
