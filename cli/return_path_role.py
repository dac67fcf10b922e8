"""The return path role, put together: the SMTP listener, the catalogue it asks, the producer it waits for."""

import socket
from pathlib import Path

import aiokafka
import structlog

from cli.access import producer
from cli.lifetime import told_to_end
from policy.providers import Providers
from policy.settings import Settings
from policy.tokens import Keys
from schemas.codec import encode
from schemas.dead_letters import DeadLetter
from schemas.feedback import Feedback
from schemas.topics import CAMPAIGNS, DEAD_LETTERS, FEEDBACK
from smtp.known import Known
from smtp.return_path import ReturnPath, tls_context
from smtp.returned import Context
from streams.catalogue import Catalogue
from streams.probe import Probe

log = structlog.get_logger()


class _Publish:
    """To Kafka, and back only when it is there."""

    def __init__(self, out: aiokafka.AIOKafkaProducer) -> None:
        self._out = out

    async def __call__(self, record: Feedback | DeadLetter, /) -> None:
        match record:
            case Feedback():
                await self._out.send_and_wait(FEEDBACK, key=record.campaign.encode(), value=encode(record))
            case DeadLetter():
                await self._out.send_and_wait(DEAD_LETTERS, key=record.topic.encode(), value=encode(record))


async def run_return_path(
    settings: Settings, keys: Keys, *, bootstrap: str, certificate: Path | None, key: Path | None
) -> None:
    """Listen until told to end; what was taken by then is answered first."""
    catalogue = Catalogue(bootstrap, (CAMPAIGNS,), client_id="mailcordon-return-path")
    await catalogue.start()
    try:
        async with producer(bootstrap) as out:
            known = Known(catalogue.campaigns, own_domains=settings.own_domains, trap_domains=settings.trap_domains)
            listener = ReturnPath(
                settings.return_path,
                context=Context(keys=keys, known=known, provider_of=Providers(settings.providers).of),
                publish=_Publish(out),
                hostname=settings.hostname or socket.getfqdn(),
                tls=tls_context(certificate, key) if certificate and key else None,
            )
            probe = Probe(
                settings.return_path_web, listener.metrics.registry, unhealthy=lambda: None, unready=lambda: None
            )
            await listener.start()
            await probe.start()
            log.info("metrics and health", port=probe.port)
            try:
                await told_to_end()
            finally:
                await probe.stop()
                await listener.stop(settings.grace_s)
    finally:
        await catalogue.stop()
