"""The server of webhooks, as the settings ask for it."""

import contextlib
from collections.abc import AsyncIterator

from prometheus_client import CollectorRegistry

from cli.failures import WrongUse
from policy.settings import Settings
from smtp.certificates import Certificate
from smtp.feedback_web import FeedbackWeb
from smtp.return_path_hooks import Publish
from smtp.returned import Context
from smtp.webhooks.accounts import Accounts, read_accounts


@contextlib.asynccontextmanager
async def webhooks_taken(
    settings: Settings, context: Context, publish: Publish, registry: CollectorRegistry
) -> AsyncIterator[FeedbackWeb | None]:
    """Take webhooks for as long as the context lasts, if the settings say where; its numbers stand in ``registry``."""
    if settings.webhooks is None:
        yield None
        return
    if settings.webhooks_file is None:
        raise WrongUse("webhooks needs webhooks_file, which says who may post; see docs/guide/feedback.md")
    try:
        accounts = read_accounts(settings.webhooks_file)
    except ValueError as wrong:
        raise WrongUse(str(wrong)) from wrong
    server = FeedbackWeb(
        settings.webhooks,
        accounts=accounts,
        context=context,
        publish=publish,
        registry=registry,
        certificate=_certificate(accounts),
    )
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def _certificate(accounts: Accounts) -> Certificate | None:
    if accounts.certificate is None:
        return None
    try:
        return Certificate(*accounts.certificate)
    except OSError as failed:
        raise WrongUse(f"webhooks_file: certificate and key of [tls] cannot be used: {failed}") from failed
