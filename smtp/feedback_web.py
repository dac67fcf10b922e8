"""The server that takes webhooks: services that send mail for us post what came of it.

It answers 200 when Kafka has every event of a request, and 503 while it has not: all services try again.  Who is not
the service that he says he is gets 403, who sends what cannot be read 400 and a sentence.
"""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import assert_never

import aiohttp
import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter

from policy.settings import Endpoint
from schemas.dead_letters import DeadLetter
from schemas.feedback import Feedback
from smtp.certificates import LOOK_EVERY_S, Certificate
from smtp.findings import clean
from smtp.http_server import HttpServer, WebLimits
from smtp.return_path_hooks import Publish
from smtp.returned import Context, Noted
from smtp.webhooks import postmark, sendgrid, ses
from smtp.webhooks.accounts import Accounts
from smtp.webhooks.events import Item, Refusal, Unread
from smtp.webhooks.meaning import Service, meaning
from smtp.webhooks.sns import MAX_CERTIFICATE_BYTES, Fetch, Sns

log = structlog.get_logger()

_SERVICES: Mapping[str, Service] = {"ses": "ses", "sendgrid": "sendgrid", "postmark": "postmark"}
_STATUS = {
    "forged": HTTPStatus.FORBIDDEN,
    "malformed": HTTPStatus.BAD_REQUEST,
    "later": HTTPStatus.SERVICE_UNAVAILABLE,
}
_REMEMBERED = 100_000
_AT_ONCE = 100
_FETCH_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookLimits(WebLimits):
    """What the server takes: few clients, with large bodies."""

    connections: int = 64
    connections_per_client: int = 32
    body_bytes: int = 1_048_576


class WebhookMetrics:
    """What the server counts.  The names are promises.

    mailcordon_webhook_requests_total{service,result}  requests by answer: accepted, confirmed, forged, malformed,
                                                       too_large, too_many, try_later, not_found; of no service: other
    mailcordon_webhook_events_total{service,result}    events by what became of them: a kind of mail.feedback,
                                                       dead_letter, noted, repeat
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "mailcordon_webhook_requests", "requests by answer", ("service", "result"), registry=registry
        )
        self._events = Counter(
            "mailcordon_webhook_events", "events by what became of them", ("service", "result"), registry=registry
        )

    def request(self, service: str, result: str) -> None:
        """A request was answered."""
        self._requests.labels(service, result).inc()

    def event(self, service: str, result: str) -> None:
        """An event is in Kafka, or needs not be."""
        self._events.labels(service, result).inc()


async def fetched(url: str) -> bytes:
    """What stands behind an https URL, as :data:`smtp.webhooks.sns.Fetch` asks for it."""
    found = bytearray()
    try:
        timeout = aiohttp.ClientTimeout(total=_FETCH_S)
        async with (
            aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as http,
            http.get(url, allow_redirects=False) as answer,
        ):
            if answer.status != HTTPStatus.OK:
                raise OSError(f"HTTP {answer.status}")
            async for piece in answer.content.iter_chunked(8_192):
                found += piece
                if len(found) > MAX_CERTIFICATE_BYTES:
                    raise OSError("too much")
    except aiohttp.ClientError as failed:
        raise OSError(type(failed).__name__) from failed
    return bytes(found)


class FeedbackWeb:
    """Without ``certificate`` it speaks plain HTTP, and takes the client from X-Forwarded-For."""

    def __init__(
        self,
        listen: Endpoint,
        *,
        accounts: Accounts,
        context: Context,
        publish: Publish,
        registry: CollectorRegistry,
        certificate: Certificate | None = None,
        fetch: Fetch = fetched,
        limits: WebhookLimits | None = None,
        look_every_s: float = LOOK_EVERY_S,
        now: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._accounts = accounts
        self._context = context
        self._publish = publish
        self._metrics = WebhookMetrics(registry)
        self._sns = Sns(accounts.topic_arns, fetch)
        self._limits = limits = limits or WebhookLimits()
        self._now = now
        self._server = HttpServer(
            listen,
            self._answer,
            refused=lambda: self._metrics.request("other", "too_many"),
            limits=limits,
            certificate=certificate,
            look_every_s=look_every_s,
        )
        self._is_encrypted = certificate is not None
        self._done: OrderedDict[tuple[str, ...], None] = OrderedDict()
        self._in_hand: dict[tuple[str, ...], asyncio.Lock] = {}

    @property
    def endpoint(self) -> Endpoint:
        """Where it listens."""
        return self._server.endpoint

    async def start(self) -> None:
        """Listen."""
        await self._server.start()
        log.info("webhooks are taken", endpoint=str(self.endpoint), tls=self._is_encrypted)

    async def stop(self) -> None:
        """Take no more; what waits for Kafka is answered first."""
        await self._server.stop()

    # -- one request

    async def _answer(self, request: web.BaseRequest) -> web.Response:  # noqa: PLR0911 - one for each answer
        service = self._service(request)
        if not self._server.lets_in(request, self._now()):
            return self._no(service, HTTPStatus.TOO_MANY_REQUESTS, "too_many", "too many requests", retry=True)
        if service is None:
            return self._no(None, HTTPStatus.NOT_FOUND, "not_found", "webhooks_file names no such service")
        if request.method != "POST":
            return self._no(service, HTTPStatus.METHOD_NOT_ALLOWED, "malformed", "events are posted")
        known = self._accounts.postmark
        if service == "postmark" and (
            known is None or not postmark.is_known(request.headers.get("Authorization", ""), known.user, known.password)
        ):
            return self._no(service, HTTPStatus.FORBIDDEN, "forged", "user and password are not those of webhooks_file")
        try:
            body = await self._server.body(request)
        except web.HTTPRequestEntityTooLarge:
            most = f"a request may have {self._limits.body_bytes:,} bytes"
            return self._no(service, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", most)
        except TimeoutError:
            return self._no(service, HTTPStatus.REQUEST_TIMEOUT, "malformed", "the request came too slowly")
        except (OSError, web.HTTPException):
            return self._no(service, HTTPStatus.BAD_REQUEST, "malformed", "the request broke off")
        return await self._take(service, request.headers, body)

    async def _take(self, service: Service, headers: Mapping[str, str], body: bytes) -> web.Response:
        read = await self._read(service, headers, body)
        if isinstance(read, Refusal):
            why = "try_later" if read.why == "later" else read.why
            if read.why == "forged":
                log.warning("webhook is not believed", service=service, reason=clean(read.explain))
            return self._no(service, _STATUS[read.why], why, read.explain, retry=read.why == "later")
        try:
            async with asyncio.timeout(self._limits.publish_s):
                await self._keep_all(service, read)
        except Exception as failure:  # noqa: BLE001 - whatever kept it from Kafka, it is said, and tried again
            log.warning("webhook not stored, the service is told so", failure=type(failure).__name__)
            return self._no(service, HTTPStatus.SERVICE_UNAVAILABLE, "try_later", "try again", retry=True)
        self._metrics.request(service, "accepted")
        return _response(HTTPStatus.OK, "stored")

    async def _read(self, service: Service, headers: Mapping[str, str], body: bytes) -> Sequence[Item] | Refusal:
        match service:
            case "ses":
                return await self._from_sns(body)
            case "sendgrid":
                key = self._accounts.sendgrid
                signature, timestamp = headers.get(sendgrid.SIGNATURE, ""), headers.get(sendgrid.TIMESTAMP, "")
                if key is None:
                    return Refusal("forged", "there is no key")
                flaw = sendgrid.flaw(key, signature, timestamp, body, now=self._now())
                if flaw is not None:
                    return Refusal("forged", flaw)
                return sendgrid.events(body)
            case "postmark":
                return postmark.events(body)
            case _:
                assert_never(service)

    async def _from_sns(self, body: bytes) -> Sequence[Item] | Refusal:
        envelope = await self._sns.read(body, now=self._now())
        if isinstance(envelope, Refusal):
            return envelope
        match envelope.type:
            case "Notification":
                return ses.events(envelope.message, id=envelope.message_id)
            case "SubscriptionConfirmation":
                refusal = await self._sns.confirm(envelope)
                if refusal is None:
                    log.info("subscription confirmed", topic=envelope.topic_arn)
                    self._metrics.request("ses", "confirmed")
                return refusal or []
            case "UnsubscribeConfirmation":
                log.warning("a topic is no longer subscribed; no more events come from it", topic=envelope.topic_arn)
                return []
            case _:
                return Refusal("malformed", "the Type is none that SNS has")

    # -- its events

    async def _keep_all(self, service: Service, items: Sequence[Item]) -> None:
        for first in range(0, len(items), _AT_ONCE):
            async with asyncio.TaskGroup() as group:
                for item in items[first : first + _AT_ONCE]:
                    group.create_task(self._keep_once(service, item))

    async def _keep_once(self, service: Service, item: Item) -> None:
        """Publish one event, unless its id was published before; told twice at once, the second one waits."""
        own = hashlib.sha256(item.raw).hexdigest() if isinstance(item, Unread) else item.id
        key = (service, own)
        lock = self._in_hand.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                if key in self._done:
                    self._metrics.event(service, "repeat")
                    return
                await self._keep(service, item)
                self._remember(key)
        finally:
            if self._in_hand.get(key) is lock:
                del self._in_hand[key]

    async def _keep(self, service: Service, item: Item) -> None:
        meant = meaning(item, service, self._context, now=self._now())
        match meant:
            case Noted():
                self._metrics.event(service, "noted")
            case DeadLetter():
                await self._publish(meant)
                self._metrics.event(service, "dead_letter")
            case Feedback():
                same = ("feedback", meant.campaign, meant.message_id or "", meant.kind)
                if meant.message_id and same in self._done:
                    self._metrics.event(service, "repeat")
                    return
                await self._publish(meant)
                self._remember(same)
                self._metrics.event(service, meant.kind)
            case _:
                assert_never(meant)

    def _remember(self, key: tuple[str, ...]) -> None:
        self._done[key] = None
        if len(self._done) > _REMEMBERED:
            self._done.popitem(last=False)

    # -- who asks, and what he is told

    def _service(self, request: web.BaseRequest) -> Service | None:
        service = _SERVICES.get(request.path.rstrip("/").rpartition("/")[2])
        accounts = self._accounts
        known = {
            "ses": bool(accounts.topic_arns),
            "sendgrid": accounts.sendgrid is not None,
            "postmark": accounts.postmark is not None,
        }
        return service if service is not None and known[service] else None

    def _no(
        self, service: Service | None, status: HTTPStatus, counted: str, explain: str, *, retry: bool = False
    ) -> web.Response:
        self._metrics.request(service or "other", counted)
        headers = {"Retry-After": "60"} if retry else {}
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = "POST"
        return _response(status, clean(explain), headers)


def _response(status: HTTPStatus, text: str, headers: Mapping[str, str] | None = None) -> web.Response:
    response = web.Response(
        status=status,
        text=f"{text}\n",
        headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **(headers or {})},
    )
    response.force_close()
    return response
