"""Validate: a send request becomes admitted messages on their way, held ones, and refusals that say what to fix.

Whatever a request holds, it never stops those behind it: what cannot be read becomes a dead letter and a refusal,
and what makes our own code fail becomes a dead letter too.
"""

import asyncio
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import msgspec
import structlog

from agents.ports import Known, Message, Publish, now_ms
from agents.route import Route
from agents.setting_aside import Aside
from policy.admission import Admission, admit
from policy.domain_lists import DomainLists
from policy.naming import held_key
from policy.screens import RecycledOf, Screens, never_dead
from policy.tokens import Keys
from schemas.codec import DecodedRequest, Malformed, decode_request
from schemas.sending import HeldMessage, OutboundMessage, Refused
from schemas.topics import HELD, REFUSED
from streams.dead_letters import headers_length
from streams.metrics import Metrics

log = structlog.get_logger()

BARRIER_WITHIN_S = 5.0
MAX_HEADERS_BYTES = 16_384  # they are passed on with every frame and refusal
_ID_LENGTH = 128
_REQUEST_ID_LENGTH = 200
_EXPLAIN_LENGTH = 1000


class _Ids(msgspec.Struct):
    """What a request that cannot be read may still be known by to those who sent it."""

    request_id: Any = None  # Any: whatever they wrote
    campaign: Any = None


def _anything(_: str) -> bool:
    return True


class Validate:
    """Handles one request after the other; ``heard_of`` is asked first, see :func:`policy.admission.admit`."""

    def __init__(
        self,
        *,
        known: Known,
        outlet: Publish,
        route: Route,
        keys: Keys,
        metrics: Metrics,
        recycled: RecycledOf = never_dead,
        lists: DomainLists | None = None,
        heard_of: Callable[[str], bool] = _anything,
    ) -> None:
        self._known = known
        self._outlet = outlet
        self._route = route
        self._keys = keys
        self._metrics = metrics
        self._screens = Screens(keys, trap=known.trap, recycled=recycled, lists=lists)
        self._heard_of = heard_of
        self._aside = Aside(outlet, metrics)

    async def handle(self, message: Message) -> None:
        """Admit or refuse each recipient of a request; whatever is wrong with it stays with it."""
        now = now_ms()
        asked_at = min(now, int(message.timestamp * 1000)) if message.timestamp else now
        match _read(message):
            case Malformed() as malformed:
                await self._unreadable(message, malformed, now)
            case request:
                await self._wait_until_known(request)
                try:
                    admission = self._admission(request, asked_at)
                except Exception as failed:
                    log.exception("validate failed", partition=message.partition, offset=message.offset)
                    await self._aside.failed(message, "validate", failed)
                    self._metrics.requests.labels("dead_letter").inc()
                else:
                    await self._send(message, request, admission, now)

    async def _wait_until_known(self, request: DecodedRequest) -> None:
        """Before a campaign or content counts as unknown: the copy may be some milliseconds behind the topics."""
        wanted = (request.request.campaign, request.request.content)
        if wanted[0] in self._known.campaigns and wanted in self._known.templates:
            return
        while not await self._known.caught_up(BARRIER_WITHIN_S):
            log.warning("waiting for the catalogue")
            await asyncio.sleep(0.1)

    def _admission(self, request: DecodedRequest, asked_at: int) -> Admission:
        """Judge a request as of the time at which it was made.

        A replay after a crash must answer as before: a message that has meanwhile bounced, and left a suppression
        behind, would else be refused as well.  What was suppressed since is the sender's to find, before MAIL FROM.  A
        trap that was registered since, or a suppression that ended since, likewise changes nothing.
        """
        wanted = request.request
        admission = admit(
            request,
            campaign=self._known.campaigns.get(wanted.campaign),
            template=self._known.templates.get((wanted.campaign, wanted.content)),
            suppressed=self._known.suppressed_in(wanted.campaign, as_of=asked_at),
            keys=self._keys,
            now=asked_at,
            screens=self._screens,
            heard_of=self._heard_of,
        )
        control = self._known.controls.get(wanted.campaign)
        if control is not None and control.state == "retired":
            return _all_refused(admission, request, asked_at)
        return admission

    async def _send(self, message: Message, request: DecodedRequest, admission: Admission, now: int) -> None:
        headers = message.headers or ()
        unrouted = await self._route.send(admission, request, headers=headers, now=now)
        await self._hold(admission.held, headers)
        await self._refuse([*admission.refused, *unrouted], headers)
        passed = "admitted" if admission.messages else "held" if admission.held else "refused"
        self._metrics.requests.labels(passed).inc()
        self._metrics.admitted.inc(len(admission.messages) - len(unrouted))
        for flag in chain.from_iterable(message.flags for message in admission.messages):
            self._metrics.flagged.labels(flag).inc()

    async def _hold(self, messages: Sequence[HeldMessage], headers: Sequence[tuple[str, bytes]]) -> None:
        """Keep what waits for a decision; a replay writes the same record under the same key."""
        for one in messages:
            await self._outlet.publish(HELD, one, key=held_key(one.campaign, one.message_id), headers=headers)
            self._metrics.held.labels(one.reason).inc()

    async def _unreadable(self, message: Message, malformed: Malformed, now: int) -> None:
        ids = _ids(message.value) if malformed.reason != "too_large" else _Ids()
        refused = Refused(
            request_id=_short_text(ids.request_id, _REQUEST_ID_LENGTH),
            message_id=None,
            campaign=_short_text(ids.campaign, _ID_LENGTH),
            address_hash=None,
            stage="decode",
            reason=malformed.reason,
            explain=malformed.explain,
            at=now,
        )
        await self._refuse([refused], message.headers or ())
        await self._aside.malformed(message, malformed)
        self._metrics.requests.labels("dead_letter").inc()

    async def _refuse(self, refusals: Sequence[Refused], headers: Sequence[tuple[str, bytes]]) -> None:
        for refused in map(_bounded, refusals):
            await self._outlet.publish(REFUSED, refused, key=refused.request_id, headers=headers)
            self._metrics.refused.labels(refused.reason).inc()


def _all_refused(admission: Admission, request: DecodedRequest, now: int) -> Admission:
    """A retired campaign sends nothing again: its topic would only fill up."""
    campaign = request.request.campaign
    unsent: list[OutboundMessage | HeldMessage] = [*admission.messages, *admission.held]
    refused = [
        Refused(
            request_id=request.request.request_id,
            message_id=message.message_id,
            campaign=campaign,
            address_hash=message.address_hash,
            stage="validate",
            reason="retired_campaign",
            explain=f"campaign {campaign} is retired and sends nothing again; ask for it under a new campaign id",
            at=now,
        )
        for message in unsent
    ]
    return Admission(messages=[], refused=[*admission.refused, *refused])


def _read(message: Message) -> DecodedRequest | Malformed:
    """Decode a request, and bound what travels on with each of its refusals: ids and headers."""
    headers = headers_length(message.headers or ())
    if headers > MAX_HEADERS_BYTES:
        return Malformed(
            reason="too_large",
            explain=f"the Kafka headers have {headers:,} bytes, the limit is {MAX_HEADERS_BYTES:,}; send fewer",
        )
    request = decode_request(message.value)
    if isinstance(request, DecodedRequest):
        for field in ("campaign", "content"):
            length = len(getattr(request.request, field))
            if length > _ID_LENGTH:
                explain = f"field {field} of SendRequest has {length:,} characters, the limit is {_ID_LENGTH}"
                return Malformed(reason="wrong_field", explain=explain)
    return request


def _ids(raw: bytes | None) -> _Ids:
    try:
        return msgspec.json.decode(raw or b"", type=_Ids)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Ids()


def _short_text(value: object, length: int) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= length else None


def _bounded(refused: Refused) -> Refused:
    """A refusal that fits its topic, whatever the request held."""
    if len(refused.explain) <= _EXPLAIN_LENGTH and len(refused.message_id or "") <= _ID_LENGTH:
        return refused
    kept = refused.message_id if len(refused.message_id or "") <= _ID_LENGTH else None
    return msgspec.structs.replace(refused, explain=refused.explain[:_EXPLAIN_LENGTH], message_id=kept)
