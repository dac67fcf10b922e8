"""Controllers as child processes that are killed at a call: each line on standard input is one, its end a line out.

A line is JSON: kubeconfig, namespace, the newest decision of each campaign, and ``kill_at``: [n, "before" or "after"]
ends the child by SIGKILL at its n-th call, before it is asked or when it was done and before its answer is read; null
lets it work until all is as decided.  Children are forked, so that a hundred of them cost a hundred times their work
and not a hundred times their imports.
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import time
import traceback
from typing import Any

import msgspec
import structlog

from k8s.kubernetes import KubernetesCluster
from k8s.patches import Site
from k8s.reconcile import Reconciler
from schemas.reputation import Control
from tests.cluster.controlling import HABITS
from tests.k8s.builders import Decided

WITHIN_S = 60.0


class Counting:
    """The client's transport, which counts calls and dies at one of them.  A watch is no call: it never ends."""

    def __init__(self, rest: Any, kill_at: list[Any] | None) -> None:
        self._rest, self._kill_at, self.calls, self.maxsize = rest, kill_at, list[str](), 64

    async def request(self, method: str, url: str, **more: Any) -> Any:
        if "watch=true" in url:
            return await self._rest.request(method, url, **more)
        self.calls.append(f"{method} {url.partition('?')[0].rpartition('/namespaces/')[2]}")
        number = len(self.calls)
        self._die_if(number, "before")
        answer = await self._rest.request(method, url, **more)
        self._die_if(number, "after")
        return answer

    def _die_if(self, number: int, moment: str) -> None:
        if self._kill_at == [number, moment]:
            os.kill(os.getpid(), signal.SIGKILL)

    async def close(self) -> None:
        await self._rest.close()


async def work(job: dict[str, Any]) -> list[str]:
    """One controller's life: until all is as decided."""
    truth = Decided()
    for told in msgspec.convert(job["controls"], list[Control]):
        truth.say(told)
    cluster = await KubernetesCluster.connect(
        Site(namespace=job["namespace"], image=job["image"]), kubeconfig=job["kubeconfig"]
    )
    api: Any = cluster._api._client
    counting = api.rest_client = Counting(api.rest_client, job["kill_at"])
    one = Reconciler(cluster, truth, now=lambda: time.time_ns() // 1_000_000, chance=random.random, habits=HABITS)
    working = asyncio.create_task(one.run())
    async with asyncio.timeout(WITHIN_S):
        while not await is_done(one, cluster, truth):  # noqa: ASYNC110 - it is asked from outside of the reconciler
            await asyncio.sleep(0.01)
    working.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await working
    await cluster.close()
    return counting.calls


async def is_done(one: Reconciler, cluster: KubernetesCluster, truth: Decided) -> bool:
    """Is everything compared, and nothing left to do or to show?  Asks the mirror only, so it is no call."""
    if one.since_resync_s() is None or len(one._queue) or one._queue._busy:
        return False
    for campaign in truth.controls:
        wish = one._wish(campaign)
        status = cluster._status(wish.spec, cluster._reading.known(wish.spec))
        if status is None or one._plan(campaign, status) or not one._is_shown(wish, status):
            return False
        if not status.ready == status.running == status.wanted:
            return False  # what it is on the way to is still to be shown
    return True


def child(line: str, out: int) -> None:
    """In the child: work, and tell the calls that were made."""
    calls = asyncio.run(work(json.loads(line)))
    os.write(out, json.dumps(calls).encode())


def main() -> None:
    """Fork a child per line."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    for line in sys.stdin:
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.close(read)
                child(line, write)
                code = 0
            except BaseException:  # noqa: BLE001 - told, and the parent sees the exit code
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(write)
        with os.fdopen(read) as told:
            said = told.read()
        _, ended = os.waitpid(pid, 0)
        print(json.dumps({"code": os.waitstatus_to_exitcode(ended), "calls": json.loads(said or "[]")}), flush=True)


if __name__ == "__main__":
    main()
