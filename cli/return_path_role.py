"""The return path role, put together: what listens for mail and what reads it, what serves unsubscribe links, the
catalogue they ask, and the producer they wait for.
"""

import contextlib
import socket
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import aiokafka
import structlog

from cli.access import producer
from cli.failures import WrongUse
from cli.lifetime import told_to_end
from cli.webhooks import webhooks_taken
from policy.providers import Providers
from policy.settings import Settings
from policy.tokens import Keys
from schemas.codec import encode
from schemas.dead_letters import DeadLetter
from schemas.feedback import Feedback
from schemas.sending import Campaign
from schemas.topics import CAMPAIGNS, DEAD_LETTERS, FEEDBACK, TRAPS
from smtp.certificates import Certificate
from smtp.known import Known
from smtp.reader_process import ReaderPool
from smtp.return_path import ReturnPath, tls_context
from smtp.return_path_metrics import Metrics
from smtp.returned import Context
from smtp.unsubscribe_web import UnsubscribeWeb
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
    catalogue = Catalogue(bootstrap, (CAMPAIGNS, TRAPS), client_id="mailcordon-return-path")
    await catalogue.start()
    try:
        metrics = Metrics()
        async with producer(bootstrap) as out, readers(settings, metrics) as pool:
            known = Known(
                catalogue.campaigns,
                own_domains=settings.own_domains,
                trap_domains=settings.trap_domains,
                keys=keys,
                registered=catalogue.trap,
            )
            context = Context(keys=keys, known=known, provider_of=Providers(settings.providers).of)
            publish = _Publish(out)
            listener = ReturnPath(
                settings.return_path,
                context=context,
                understand=pool.understand,
                publish=publish,
                metrics=metrics,
                hostname=settings.hostname or socket.getfqdn(),
                tls=tls_context(certificate, key) if certificate and key else None,
            )
            web = unsubscribe_web(settings, listener, context, catalogue.campaigns, publish)
            probe = Probe(
                settings.return_path_web, listener.metrics.registry, unhealthy=lambda: None, unready=lambda: None
            )
            await listener.start()
            await probe.start()
            log.info("metrics and health", port=probe.port)
            try:
                async with _listening(web), webhooks_taken(settings, context, publish, metrics.registry):
                    await told_to_end()
            finally:
                await probe.stop()
                await listener.stop(settings.grace_s)
    finally:
        await catalogue.stop()


def readers(settings: Settings, metrics: Metrics) -> ReaderPool:
    """The processes that read what strangers send."""
    return ReaderPool(
        processes=settings.parsers,
        memory_mib=settings.parser_memory_mib,
        message_s=settings.parser_s,
        observe=metrics.read,
    )


def unsubscribe_web(
    settings: Settings, listener: ReturnPath, context: Context, campaigns: Mapping[str, Campaign], publish: _Publish
) -> UnsubscribeWeb | None:
    """The server of unsubscribe links, if one is asked for; its numbers stand beside the listener's."""
    if settings.unsubscribe_web is None:
        return None
    return UnsubscribeWeb(
        settings.unsubscribe_web,
        context=context,
        campaigns=campaigns,
        publish=publish,
        metrics=listener.metrics,
        certificate=_certificate(settings),
    )


def _certificate(settings: Settings) -> Certificate | None:
    files = settings.unsubscribe_certificate, settings.unsubscribe_key
    match files:
        case None, None:
            if not settings.unsubscribe_plain_http:
                raise WrongUse(
                    "unsubscribe_web needs unsubscribe_certificate and unsubscribe_key; where something in front of it "
                    "ends TLS, set unsubscribe_plain_http"
                )
            return None
        case Path() as certificate, Path() as key:
            if settings.unsubscribe_plain_http:
                raise WrongUse("unsubscribe_plain_http and unsubscribe_certificate cannot both be meant; unset one")
            try:
                return Certificate(certificate, key)
            except OSError as failed:
                raise WrongUse(f"unsubscribe_certificate and unsubscribe_key cannot be used: {failed}") from failed
        case _:
            raise WrongUse("unsubscribe_certificate and unsubscribe_key belong together")


@contextlib.asynccontextmanager
async def _listening(web: UnsubscribeWeb | None) -> AsyncIterator[None]:
    if web is None:
        yield
        return
    await web.start()
    try:
        yield
    finally:
        await web.stop()
