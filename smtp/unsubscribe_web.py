"""The server behind unsubscribe links: a POST unsubscribes, a GET shows a button (RFC 8058 3.2, 3.4).

Programs that look into mail fetch every link, so that a GET must change nothing.  A POST is answered 200 when Kafka
has the event, and 503 while it has not: mailbox providers and people try again.  It knows no cookies, redirects
nobody, answers one request per connection, and believes only what stands in the link.
"""

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Literal
from urllib.parse import parse_qs

import structlog
from aiohttp import web

from policy.settings import Endpoint
from policy.tokens import Forged, Leave, read_unsubscribe_token
from schemas.sending import Campaign
from smtp import unsubscribe_pages as pages
from smtp.certificates import LOOK_EVERY_S, Certificate
from smtp.http_server import HttpServer, WebLimits
from smtp.mime import TooComplexError, read
from smtp.return_path_hooks import Publish
from smtp.return_path_metrics import Metrics
from smtp.returned import Context
from smtp.unsubscribing import unsubscribed

log = structlog.get_logger()

ALLOWED = "GET, HEAD, POST, OPTIONS"
_WAYS: Mapping[str, Literal["one-click", "page"]] = {"One-Click": "one-click", pages.BUTTON: "page"}
_PART_NAME = re.compile(r'name\s{0,9}=\s{0,9}"?List-Unsubscribe"?\s{0,9}(?:;|\Z)').search


class UnsubscribeWeb:
    """Without ``certificate`` it speaks plain HTTP, and takes the client from X-Forwarded-For."""

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
        self._context = context
        self._campaigns = campaigns
        self._publish = publish
        self._metrics = metrics
        self._limits = limits = limits or WebLimits()
        self._now = now
        self._server = HttpServer(
            listen,
            self._answer,
            refused=lambda: self._metrics.unsubscribe("too_many"),
            limits=limits,
            certificate=certificate,
            look_every_s=look_every_s,
        )
        self._is_encrypted = certificate is not None

    @property
    def endpoint(self) -> Endpoint:
        """Where it listens."""
        return self._server.endpoint

    async def start(self) -> None:
        """Listen."""
        await self._server.start()
        log.info("unsubscribe links are served", endpoint=str(self.endpoint), tls=self._is_encrypted)

    async def stop(self) -> None:
        """Take no more; what waits for Kafka is answered first."""
        await self._server.stop()

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        if not self._server.lets_in(request, self._now()):
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
            body = await self._server.body(request)
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

    def _trouble(self, status: HTTPStatus, counted: str, headers: Mapping[str, str] | None = None) -> web.Response:
        self._metrics.unsubscribe(counted)
        return _response(status, pages.trouble(status), headers=headers)


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
