"""The server behind unsubscribe links: a POST unsubscribes, a GET shows a button (RFC 8058 3.2, 3.4).

Programs that look into mail fetch every link, so that a GET must change nothing.  A POST is answered 200 when Kafka
has the event, and 503 while it has not: mailbox providers and people try again.  It knows no cookies, redirects
nobody, answers one request per connection, and believes only what stands in the link.
"""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, Literal
from urllib.parse import parse_qs

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from policy.settings import Endpoint
from policy.tokens import Forged, Leave, read_unsubscribe_token
from schemas.sending import Campaign
from smtp import unsubscribe_pages as pages
from smtp.certificates import LOOK_EVERY_S, Certificate
from smtp.gate import Gate, Limits, client_of
from smtp.http_guard import Entrance
from smtp.mime import TooComplexError, read
from smtp.return_path_hooks import Publish
from smtp.return_path_metrics import Metrics
from smtp.returned import Context
from smtp.unsubscribing import unsubscribed

log = structlog.get_logger()

_http_log = logging.getLogger("mailcordon.unsubscribe_web")
_http_log.addFilter(lambda record: not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError)))
"""What is no HTTP is answered 400 and not logged: it is a stranger's text, with a whole link in it perhaps."""

ALLOWED = "GET, HEAD, POST, OPTIONS"
_WAYS: Mapping[str, Literal["one-click", "page"]] = {"One-Click": "one-click", pages.BUTTON: "page"}
_PART_NAME = re.compile(r'name\s{0,9}=\s{0,9}"?List-Unsubscribe"?\s{0,9}(?:;|\Z)').search


@dataclass(frozen=True, slots=True, kw_only=True)
class WebLimits:
    """What the server takes from strangers; a client is one IPv4 address or one IPv6 /64."""

    requests_per_minute: int = 6_000  # a provider posts for all its users from few addresses
    connections: int = 500
    connections_per_client: int = 100
    body_bytes: int = 8_192
    line_bytes: int = 4_096
    field_bytes: int = 8_190
    body_s: float = 10.0
    publish_s: float = 20.0
    handshake_s: float = 10.0
    connection_s: float = 60.0


class UnsubscribeWeb:
    """Without ``certificate`` it speaks plain HTTP, and takes the client from X-Forwarded-For.

    ``endpoint`` is where it listens, after ``start`` with the port that it got.
    """

    def __init__(
        self,
        listen: Endpoint,
        *,
        context: Context,
        campaigns: Mapping[str, Campaign],
        publish: Publish,
        metrics: Metrics,
        certificate: Certificate | None = None,
        limits: WebLimits | None = None,
        look_every_s: float = LOOK_EVERY_S,
        now: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.endpoint = listen
        self._context = context
        self._campaigns = campaigns
        self._publish = publish
        self._metrics = metrics
        self._certificate = certificate
        self._limits = limits = limits or WebLimits()
        self._look_every_s = look_every_s
        self._now = now
        self._gate = Gate(
            Limits(
                connections=limits.connections,
                connections_per_client=limits.connections_per_client if certificate else limits.connections,
                messages_per_minute=limits.requests_per_minute,
            )
        )
        self._serve = web.Server(  # and no Application: its router answers some requests itself, past every limit
            self._answer,
            request_factory=partial(_request, limits.body_bytes),
            access_log=None,  # it would hold the links
            logger=_http_log,
            max_line_size=limits.line_bytes,
            max_field_size=limits.field_bytes,
            auto_decompress=False,
        )
        self._runner = web.ServerRunner(self._serve, shutdown_timeout=limits.publish_s)
        self._entrance: Entrance | None = None
        self._keeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen."""
        await self._runner.setup()
        certificate = self._certificate
        self._entrance = Entrance(
            self._serve,
            self._gate,
            lambda: self._metrics.unsubscribe("too_many"),
            closes_after_s=self._limits.connection_s,
            handshake_s=self._limits.handshake_s,
            tls=(lambda: certificate.context) if certificate is not None else None,
        )
        self.endpoint = await self._entrance.open(self.endpoint)
        if certificate is not None:
            self._keeping = asyncio.create_task(certificate.keep(self._look_every_s))
        log.info("unsubscribe links are served", endpoint=str(self.endpoint), tls=certificate is not None)

    async def stop(self) -> None:
        """Take no more; what waits for Kafka is answered first."""
        if self._keeping is not None:
            self._keeping.cancel()
        if self._entrance is not None:
            await self._entrance.close()
        await self._runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        if not self._gate.message(self._client(request), self._now()):
            return self._trouble(HTTPStatus.TOO_MANY_REQUESTS, "too_many", {"Retry-After": "60"})
        match request.method:
            case "OPTIONS":
                return _response(HTTPStatus.NO_CONTENT, headers={"Allow": ALLOWED})
            case "GET" | "HEAD" if request.path == "/robots.txt":
                return _response(HTTPStatus.OK, pages.ROBOTS, content_type="text/plain")
            case "GET" | "HEAD" | "POST":
                return await self._about(request)
            case _:
                return self._trouble(HTTPStatus.METHOD_NOT_ALLOWED, "bad_request", {"Allow": ALLOWED})

    async def _about(self, request: web.BaseRequest) -> web.Response:
        leave = read_unsubscribe_token(self._context.keys, request.path.rpartition("/")[2])
        if isinstance(leave, Forged):
            return self._trouble(HTTPStatus.NOT_FOUND, "forged")
        campaign = self._campaigns.get(self._context.known.by_ref(leave.campaign_ref, self._now()) or "")
        if campaign is None:
            log.warning("unsubscribe link of a campaign that is not known")
            return self._trouble(HTTPStatus.GONE, "unknown_campaign")
        if request.method == "POST":
            return await self._leave(request, leave, campaign)
        self._metrics.unsubscribe("shown")
        return _response(HTTPStatus.OK, pages.ask(_shown(campaign)))

    async def _leave(self, request: web.BaseRequest, leave: Leave, campaign: Campaign) -> web.Response:
        try:
            async with asyncio.timeout(self._limits.body_s):
                if request.headers.get("Expect", "").lower() == "100-continue":  # RFC 9110 10.1.1
                    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                    request.writer.output_size = 0
                body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return self._trouble(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "bad_request")
        except TimeoutError:
            return self._trouble(HTTPStatus.REQUEST_TIMEOUT, "bad_request")
        except OSError:  # gone in the middle of it
            return self._trouble(HTTPStatus.BAD_REQUEST, "bad_request")
        how = _WAYS.get(posted(request.headers.get("Content-Type", ""), body) or "")
        if how is None:
            return self._trouble(HTTPStatus.BAD_REQUEST, "bad_request")
        began = time.perf_counter()
        try:
            async with asyncio.timeout(self._limits.publish_s):
                await self._publish(unsubscribed(leave, campaign.campaign, at=self._now(), how=how))
        except Exception as failure:  # noqa: BLE001 - whatever kept it from Kafka, it is said, and tried again
            log.warning("unsubscription not stored, the client is told so", failure=type(failure).__name__)
            return self._trouble(HTTPStatus.SERVICE_UNAVAILABLE, "try_later", {"Retry-After": "60"})
        self._metrics.published_in(time.perf_counter() - began)
        self._metrics.feedback("unsubscribe")
        self._metrics.unsubscribe(how)
        return _response(HTTPStatus.OK, pages.done(_shown(campaign)))

    def _client(self, request: web.BaseRequest) -> str:
        if self._certificate is None:
            lines = request.headers.getall("X-Forwarded-For", [""])  # a proxy may add a line of its own: the last one
            forwarded = lines[-1].rpartition(",")[2].strip()
            if forwarded:
                return client_of((forwarded[:100], 0))
        peer = request.transport.get_extra_info("peername") if request.transport is not None else None
        return client_of(peer)

    def _trouble(self, status: HTTPStatus, counted: str, headers: Mapping[str, str] | None = None) -> web.Response:
        self._metrics.unsubscribe(counted)
        return _response(status, pages.trouble(status), headers=headers)


def _request(most_bytes: int, *parts: Any) -> web.BaseRequest:  # Any: handed on from one part of aiohttp to another
    message, payload, protocol, writer, task = parts
    return web.BaseRequest(
        message, payload, protocol, writer, task, asyncio.get_running_loop(), client_max_size=most_bytes
    )


def posted(content_type: str, body: bytes) -> str | None:
    """The value of List-Unsubscribe in a form of either kind (RFC 8058 3.2), None when it holds none."""
    if content_type.lower().startswith("multipart/form-data"):
        try:
            parts = read(b"Content-Type: " + content_type.encode("utf-8", "replace") + b"\r\n\r\n" + body).parts
        except TooComplexError:
            return None
        for part in parts:
            if _PART_NAME(part.fields.get("content-disposition") or ""):
                return part.body.decode("ascii", "replace").strip()
        return None
    try:
        found = parse_qs(body.decode("ascii", "replace"), max_num_fields=20)
    except ValueError:
        return None
    return found.get("List-Unsubscribe", [""])[0].strip() or None


def _shown(campaign: Campaign) -> str:
    return campaign.from_.name or campaign.from_.address


def _response(
    status: HTTPStatus, text: str = "", *, content_type: str = "text/html", headers: Mapping[str, str] | None = None
) -> web.Response:
    response = web.Response(
        status=status,
        text=text or None,
        content_type=content_type if text else None,
        headers={**pages.HEADERS, **(headers or {})},
    )
    response.force_close()
    return response
