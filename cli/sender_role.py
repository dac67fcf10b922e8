"""The sender role, put together: its Kafka side, its SMTP side, the catalogue, metrics, and when it ends."""

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import cast

import structlog
from aiokafka.errors import KafkaError

from cli import egress
from cli.encryption import encryption
from cli.failures import OutsideFailed, WrongUse
from cli.lifetime import told_to_end
from cli.settings import data_folder
from cli.targets import announced
from policy.naming import campaign_name
from policy.providers import Providers
from policy.settings import Endpoint, Settings
from policy.shaping import Shaping, WrongShaping
from policy.tokens import Keys
from schemas.topics import BRAKES, CAMPAIGNS, CONTENTS, CONTROL, SUPPRESSIONS
from smtp.client import Bounds as HopBounds
from smtp.client import SmtpMailer
from smtp.dkim import Key, UnusableKey, keys_for
from smtp.egress.check import EVERY_S, SEEN_EVERY_S, Strictness, Watch
from smtp.mx import NextHops
from smtp.opener import Opener
from smtp.sending.clock import SteadyClock
from smtp.sending.compose import Composer
from smtp.sending.metrics import SenderMetrics
from smtp.sending.sender import Bounds, Sender
from streams.catalogue import Catalogue
from streams.probe import Probe
from streams.sender_kafka import SESSION_S, CannotRead, KafkaInbox, KafkaLedger, KafkaResults, Writer

log = structlog.get_logger()

BOARD = (CAMPAIGNS, CONTENTS, SUPPRESSIONS, CONTROL, BRAKES)


async def run_sender(
    settings: Settings,
    campaign: str,
    keys: Keys,
    *,
    bootstrap: str,
    dkim_folder: Path,
    name: str | None = None,
    session_s: float = SESSION_S,
    end: Callable[[], Awaitable[None]] = told_to_end,
) -> None:
    """Send one campaign's mail until ``end`` returns.

    ``dkim_folder`` holds the signing keys, ``DOMAIN/SELECTOR.pem``.  ``name`` stands in every result; it should tell
    replicas apart.  What makes it impossible to go on ends the command with a sentence; nothing is lost by that.
    """
    name = name or f"{campaign_name(campaign)}@{socket.gethostname()}"
    try:
        await _send(settings, campaign, keys, bootstrap, dkim_folder, name, session_s, end)
    except UnusableKey as wrong:
        raise WrongUse(f"DKIM key {wrong}") from wrong
    except (ExceptionGroup, KafkaError, CannotRead) as failed:
        causes = _causes(failed)
        if not all(isinstance(cause, KafkaError | OSError | TimeoutError | CannotRead) for cause in causes):
            raise  # a mistake of ours: with its traceback
        said = "; ".join(dict.fromkeys(str(cause) or type(cause).__name__ for cause in causes))
        log.error("sender cannot go on", campaign=campaign, cause=said)  # noqa: TRY400 - the cause is the sentence
        raise OutsideFailed(f"the sender of {campaign} cannot go on: {said}") from failed


async def _send(
    settings: Settings,
    campaign: str,
    keys: Keys,
    bootstrap: str,
    dkim_folder: Path,
    name: str,
    session_s: float,
    end: Callable[[], Awaitable[None]],
) -> None:
    metrics = SenderMetrics()
    shaping, providers = shaping_of(settings.shaping_file), Providers(settings.providers)
    tls = encryption(settings, metrics.registry)
    opener = Opener(
        hostname="localhost",
        egress=egress.way_out(settings),
        smarthost=egress.smarthost(settings),
        ca_file=tls.ca_file,
        tls_metrics=tls.metrics,
    )
    async with contextlib.AsyncExitStack() as stack:
        ending = asyncio.ensure_future(end())
        stack.callback(ending.cancel)
        catalogue = Catalogue(bootstrap, BOARD, client_id=f"{name}-board", campaign=campaign)
        stack.push_async_callback(catalogue.stop)
        writer = Writer(bootstrap, client_id=name)
        stack.push_async_callback(writer.stop)
        if not await _unless_ended(_begin(catalogue, writer), ending):
            return
        find_keys = _find_keys(dkim_folder)
        if (known := catalogue.campaigns.get(campaign)) is not None:
            find_keys(known.from_.address.rpartition("@")[2].lower())  # a key that cannot sign is told now
        watch = await _watch(settings, opener)
        sender = Sender(
            campaign=campaign,
            name=name,
            inbox=KafkaInbox(
                bootstrap, campaign, writer, client_id=name, session_s=session_s, drain_s=settings.grace_s + 10
            ),
            ledger=KafkaLedger(bootstrap, campaign, writer, client_id=name),
            results=KafkaResults(writer),
            board=catalogue,
            mailer=SmtpMailer(
                NextHops(
                    egress.routes(settings),
                    allow_private=settings.allow_private_mx,
                    resolver=tls.resolver,
                    tls=tls.demands,
                    providers=providers,
                    must_encrypt=lambda provider: shaping.of(provider).tls == "require",
                ),
                opener,
                bounds=HopBounds(sessions=settings.connections),
                shaping=shaping,
            ),
            composer=Composer(keys, find_keys=find_keys),
            clock=SteadyClock(),
            jitter=lambda: random.uniform(-1.0, 1.0),
            metrics=metrics,
            bounds=Bounds(
                connections=settings.connections,
                grace_s=settings.grace_s,
                deaf_after_s=settings.deaf_after_s,
                plan_s=settings.retries,
            ),
        )
        sender.metrics.gauge("egress_ok", "1 when the last look found the source address in order", lambda: watch.ok)
        sender.metrics.gauge(
            "egress_down", "1 while our own way out fails", lambda: float(opener.outage.why is not None)
        )
        sender.metrics.gauge(
            "egress_elsewhere",
            "1 while mail would leave from a wrong address",
            lambda: float(opener.outage.elsewhere is not None),
        )

        def unready() -> str | None:
            out = opener.outage
            return watch.why or out.elsewhere or out.why or (None if sender.is_ready else _NOT_READY)

        async with _probed(settings, sender, unready, campaign=campaign, name=name):
            if not await _unless_ended(_named(opener, watch), ending):
                return
            ending.add_done_callback(lambda _: sender.stop())
            async with asyncio.TaskGroup() as tasks:
                keeping = tasks.create_task(watch.keep())
                await sender.run()
                keeping.cancel()


def shaping_of(file: Path | None) -> Shaping:
    """What providers are asked for, with an operator's own file laid over it."""
    try:
        return Shaping(file.read_text(encoding="utf-8") if file is not None else "")
    except (OSError, UnicodeDecodeError) as cannot:
        raise WrongUse(f"shaping_file {file} cannot be read: {cannot}") from cannot
    except WrongShaping as wrong:
        raise WrongUse(f"shaping_file {file}: {wrong}") from wrong


_NOT_READY = "no partitions, or their ledgers are not read yet"


async def _watch(settings: Settings, opener: Opener) -> Watch:
    check = await egress.check_of(settings, opener.egress)
    strictness = cast("Strictness", settings.egress_check)
    return Watch(
        check=check.skipped if strictness == "off" else check,
        strictness=strictness,
        outage=opener.outage,
        every_s=EVERY_S if settings.egress_seen_by is None else SEEN_EVERY_S,
    )


async def _named(opener: Opener, watch: Watch) -> None:
    """Nothing is taken before the source address is verified: a member of the group would have to send or to wait."""
    opener.hostname = await watch.verified()


def _causes(failed: BaseException) -> list[BaseException]:
    if isinstance(failed, BaseExceptionGroup):
        return [cause for one in failed.exceptions for cause in _causes(one)]
    return [failed]


async def _begin(catalogue: Catalogue, writer: Writer) -> None:
    async with asyncio.TaskGroup() as both:
        both.create_task(catalogue.start())
        both.create_task(writer.start())


async def _unless_ended(work: Awaitable[None], ending: "asyncio.Future[None]") -> bool:
    """Do the work; False, with the work given up, when the end comes first."""
    working = asyncio.ensure_future(work)
    await asyncio.wait({working, ending}, return_when=asyncio.FIRST_COMPLETED)
    if working.done():
        working.result()
        return not ending.done()
    working.cancel()
    await asyncio.wait({working})
    return False


@contextlib.asynccontextmanager
async def _probed(
    settings: Settings, sender: Sender, unready: Callable[[], str | None], *, campaign: str, name: str
) -> AsyncIterator[None]:
    probe = Probe(
        settings.sender_web,
        sender.metrics.registry,
        unhealthy=lambda: None,
        unready=unready,
    )
    await probe.start()
    log.info("metrics and health", port=probe.port)
    where = Endpoint(settings.sender_web.host, probe.port)
    try:
        with announced(data_folder(settings) / "metrics", campaign=campaign, name=name, where=where):
            yield
    finally:
        await probe.stop()


def _find_keys(folder: Path) -> Callable[[str], Sequence[Key]]:
    """Look up a domain's keys; that there are none is said once per domain."""
    unsigned: set[str] = set()

    def find(domain: str) -> Sequence[Key]:
        keys = keys_for(folder, domain)
        if not keys and domain not in unsigned:
            unsigned.add(domain)
            log.warning("mail is not signed: no DKIM key", domain=domain, folder=str(folder / domain))
        return keys

    return find
