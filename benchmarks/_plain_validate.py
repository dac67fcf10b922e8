"""Validate and route as one would write them with Faust as it comes: one record per recipient, in and out.

The baseline of ``streams.py``.  Stock ``faust.App`` and agents, ``faust.Record`` with validation, email-validator for
each address, one ``send`` per message to the topic of its campaign.  It answers the same questions as ours (is the
campaign known, is it an address, is it suppressed, has the template its variables?) and has what costs nothing: uvloop,
the settings that measured best here, topics that exist, no web server.
"""

import hashlib
import hmac
import os
import time
from collections.abc import Mapping

import faust
from email_validator import EmailNotValidError, validate_email
from faust.types import StreamT

from benchmarks._plain_options import OPTIONS, PARTITIONS

APP = "plain-validate"
REQUESTS = "plain.requests"
REFUSED = "plain.refused"
OUTBOUND = "plain.outbound."

_KEY = b"0123456789abcdef0123456789abcdef"
_NEEDED = frozenset({"name"})


class Request(faust.Record, validation=True, serializer="json"):
    """One recipient of one content."""

    request_id: str
    message_id: str
    campaign: str
    content: str
    address: str
    vars: Mapping[str, str]
    source: str
    opted_in_at: int


class Outbound(faust.Record, serializer="json"):
    """One message for the sender of its campaign."""

    request_id: str
    message_id: str
    campaign: str
    content: str
    address: str
    address_hash: str
    vars: Mapping[str, str]
    source: str
    admitted_at: int


class Refused(faust.Record, serializer="json"):
    """Why a recipient gets no mail."""

    request_id: str
    message_id: str
    campaign: str
    reason: str
    explain: str
    at: int


app = faust.App(APP, **OPTIONS)
requests = app.topic(REQUESTS, key_type=str, value_type=Request, partitions=PARTITIONS)
refused = app.topic(REFUSED, key_type=str, value_type=Refused, partitions=PARTITIONS)
suppressed: set[str] = set()
outbound = {
    campaign: app.topic(OUTBOUND + campaign, key_type=str, value_type=Outbound, partitions=1)
    for campaign in os.environ.get("PLAIN_CAMPAIGNS", "").split(",")
}


@app.agent(requests)
async def validate(stream: StreamT[Request]) -> None:
    """One request after the other."""
    async for request in stream:
        now = int(time.time() * 1000)
        found = checked(request)
        if isinstance(found, Outbound):
            await outbound[request.campaign].send(key=request.message_id, value=found)
        else:
            reason, explain = found
            answer = Refused(
                request_id=request.request_id,
                message_id=request.message_id,
                campaign=request.campaign,
                reason=reason,
                explain=explain,
                at=now,
            )
            await refused.send(key=request.request_id, value=answer)


def checked(request: Request) -> Outbound | tuple[str, str]:
    """The message to send, or why there is none."""
    if request.campaign not in outbound:
        return "unknown_campaign", "there is no campaign of this id"
    try:
        address = validate_email(request.address, check_deliverability=False).normalized
    except EmailNotValidError as wrong:
        return "bad_address", str(wrong)
    address_hash = hmac.new(_KEY, address.lower().encode(), hashlib.sha256).hexdigest()
    if address_hash in suppressed:
        return "suppressed", "the address is suppressed"
    if _NEEDED - request.vars.keys():
        return "missing_variable", "the template needs a variable that is not there"
    return Outbound(
        request_id=request.request_id,
        message_id=request.message_id,
        campaign=request.campaign,
        content=request.content,
        address=address,
        address_hash=address_hash,
        vars=request.vars,
        source=request.source,
        admitted_at=int(time.time() * 1000),
    )
