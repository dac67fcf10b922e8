"""Asking a container whether it is well: over HTTP, by a connection, or by a command, as its specification says."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import aiohttp

from tests.control_plane.pod_words import Pod, port_of

EAGER_S = 0.2
"""Until the first success a probe is repeated this often, whatever its period: tests wait for it."""

Run = Callable[[list[str], float], Awaitable[bool]]


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

    async def follow(self, tell: Callable[[bool], Awaitable[None]], *, eager: bool) -> None:
        """Ask for ever; tell what counts, which is so many answers of one kind in a row."""
        await asyncio.sleep(self.delay_s)
        good, count, told = True, 0, False
        while True:
            answer = await self._ask()
            good, count = answer, count + 1 if answer == good else 1
            if count >= (self.successes if good else self.failures):
                await tell(good)
                told = told or good
            await asyncio.sleep(self.period_s if told or not eager else min(EAGER_S, self.period_s))

    async def _ask(self) -> bool:
        timeout_s = float(self.spec.get("timeoutSeconds") or 1)
        with contextlib.suppress(OSError, TimeoutError, aiohttp.ClientError):
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
                        return await self.run(command, timeout_s)
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
