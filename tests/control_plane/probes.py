"""Asking a container whether it is well: over HTTP, by a connection, or by a command, as its specification says."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import aiohttp

from tests.control_plane.pod_words import Pod, port_of

EAGER_S = 0.2
"""Until the first success a probe is repeated this often, whatever its period: tests wait for it."""

Run = Callable[[Sequence[str]], Awaitable[bool]]
"""A command in the container: did it succeed?"""


class Told(Protocol):
    """Is told that a container has started, and whether it is ready."""

    def __call__(self, *, ready: bool) -> None: ...


async def looked_after(
    container: Pod, address: str, run: Run, told: Told, is_unwell: Callable[[str], Awaitable[None]]
) -> None:
    """Ask for ever; ``is_unwell`` is called with the name of a probe that asks for the container's end."""

    def probe(kind: str) -> Probe | None:
        spec = container.get(f"{kind}Probe")
        return Probe(spec, container, address, run) if spec else None

    if startup := probe("startup"):
        async for good in startup.answers(eager=True):
            if good:
                break
            await is_unwell("startup")
    readiness, liveness = probe("readiness"), probe("liveness")
    told(ready=readiness is None)

    async def is_ready(asked: Probe) -> None:
        async for good in asked.answers(eager=True):
            told(ready=good)

    async def is_alive(asked: Probe) -> None:
        async for good in asked.answers():
            if not good:
                await is_unwell("liveness")

    async with asyncio.TaskGroup() as both:
        if readiness is not None:
            both.create_task(is_ready(readiness))
        if liveness is not None:
            both.create_task(is_alive(liveness))


@dataclass(frozen=True, slots=True)
class Probe:
    """One probe of one container: what is asked, and how often it may fail (core/v1 Probe, with its defaults)."""

    spec: Pod
    container: Pod
    address: str
    run: Run

    @property
    def period_s(self) -> float:
        return float(self.spec.get("periodSeconds") or 10)

    @property
    def delay_s(self) -> float:
        return float(self.spec.get("initialDelaySeconds") or 0)

    @property
    def failures(self) -> int:
        return int(self.spec.get("failureThreshold") or 3)

    @property
    def successes(self) -> int:
        return int(self.spec.get("successThreshold") or 1)

    async def answers(self, *, eager: bool = False) -> AsyncIterator[bool]:
        """What counts, which is so many answers of one kind in a row."""
        await asyncio.sleep(self.delay_s)
        good, count, was_good = True, 0, False
        while True:
            answer = await self._ask()
            good, count = answer, count + 1 if answer == good else 1
            if count >= (self.successes if good else self.failures):
                was_good = was_good or good
                yield good
            await asyncio.sleep(self.period_s if was_good or not eager else min(EAGER_S, self.period_s))

    async def _ask(self) -> bool:
        timeout_s = float(self.spec.get("timeoutSeconds") or 1)
        with contextlib.suppress(OSError, TimeoutError, aiohttp.ClientError, ValueError):  # ValueError: no such port
            async with asyncio.timeout(timeout_s):
                match self.spec:
                    case {"httpGet": how}:
                        return await self._over_http(how)
                    case {"tcpSocket": how}:
                        _, writer = await asyncio.open_connection(
                            how.get("host") or self.address, port_of(self.container, how["port"])
                        )
                        writer.close()
                        return True
                    case {"exec": {"command": command}}:
                        return await self.run(command)
        return False

    async def _over_http(self, how: Pod) -> bool:
        scheme, host = how.get("scheme", "HTTP").lower(), how.get("host") or self.address
        url = f"{scheme}://{host}:{port_of(self.container, how['port'])}{how.get('path') or '/'}"
        headers = {one["name"]: one["value"] for one in how.get("httpHeaders") or ()}
        async with (
            aiohttp.ClientSession() as session,
            session.get(url, headers=headers, ssl=False, allow_redirects=False) as response,
        ):
            return 200 <= response.status < 400
