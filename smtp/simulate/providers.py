"""All simulated providers together: start, stop, and what others need to know to send to them."""

import asyncio
import contextlib
import json
import signal
from collections.abc import Callable

from smtp.simulate.certificate import self_signed
from smtp.simulate.config import ANY_DOMAIN, Config
from smtp.simulate.provider import ProviderServer


class SimulatedProviders:
    """The providers of a configuration, each with its own listener, log and outbox."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.servers: dict[str, ProviderServer] = {}

    async def start(self) -> None:
        """Make all of them listen; when one cannot, none does."""
        everyone = self.config.everyone()
        tls = self_signed(*(one.hostname for one in everyone)) if self.config.starttls else None
        try:
            for provider in everyone:
                server = self.servers[provider.name] = ProviderServer(provider, self.config, tls)
                await server.start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Hang up everywhere."""
        await asyncio.gather(*(server.stop() for server in self.servers.values()))
        self.servers = {}

    async def __aenter__(self) -> "SimulatedProviders":
        await self.start()
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self.stop()

    @property
    def routes(self) -> str:
        """Where to send what, as ``MAILCORDON_SMTP_ROUTES`` takes it."""
        return ",".join(
            f"{domain}={server.endpoint}" for server in self.servers.values() for domain in server.provider.domains
        )

    @property
    def provider_map(self) -> dict[str, str]:
        """Which provider a domain belongs to, as ``MAILCORDON_PROVIDERS`` takes it."""
        return {
            domain: provider.kind
            for provider in self.config.providers
            for domain in provider.domains
            if domain != ANY_DOMAIN
        }

    @property
    def waiting(self) -> int:
        """How much has still to be sent back to the return path."""
        return sum(len(server.outbox) for server in self.servers.values() if server.outbox is not None)

    def ready(self) -> str:
        """One line of JSON that tells a parent process that all listen, and where."""
        return json.dumps(
            {
                "ready": True,
                "routes": self.routes,
                "providers": ",".join(f"{domain}={kind}" for domain, kind in self.provider_map.items()),
                "trap_domains": ",".join(self.config.trap_domains),
                "listen": {name: str(server.endpoint) for name, server in self.servers.items()},
                "logs": str(self.config.logs),
                "seed": self.config.seed,
            }
        )


async def run(config: Config, *, say: Callable[[str], None], stop: asyncio.Event | None = None) -> None:
    """Simulate until SIGTERM or SIGINT (or ``stop``, when the caller has its own way); ``say`` gets the ready line."""
    ending = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    signals = () if stop is not None else (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, ending.set)
    try:
        async with SimulatedProviders(config) as providers:
            say(providers.ready())
            await ending.wait()
    finally:
        for number in signals:
            with contextlib.suppress(RuntimeError):
                loop.remove_signal_handler(number)
