"""Was it right?  Each message has one result, the sink has each message once, and the signatures hold."""

import base64
import json
from collections.abc import Sequence
from pathlib import Path

import dkim
from cryptography.hazmat.primitives import serialization

from benchmarks import _plain_sender
from benchmarks._feeding import Feed
from benchmarks._running import Failed
from benchmarks._sender_load import Load
from benchmarks._sinks import Sink
from schemas.codec import Malformed, decode
from schemas.delivery import DeliveryFrame
from schemas.topics import BY_NAME, RESULTS

_OURS = b"\r\nX-Mailcordon-Campaign:"


async def check_ours(feed: Feed, load: Load) -> str:
    """Each message id has one result, and it is ``accepted``."""
    ids: list[str] = []
    async for record in feed.read([RESULTS]):
        frame = decode(DeliveryFrame, record.value, max_bytes=BY_NAME[RESULTS].max_bytes)
        if isinstance(frame, Malformed):
            raise Failed(f"a delivery frame cannot be read: {frame.explain}")
        for result in frame.results:
            if result.outcome != "accepted":
                raise Failed(f"a message was {result.outcome} instead of accepted: {result}")
            ids.append(result.message_id)
    _same("sender", ids, load.ids)
    return f"sender: {len(ids):,} messages accepted, each with one result"


async def check_plain(feed: Feed, load: Load) -> str:
    """The same of the plain one."""
    results = [json.loads(record.value) async for record in feed.read([_plain_sender.RESULTS])]
    _same("plain sender", [one["message_id"] for one in results if one["outcome"] == "accepted"], load.plain_ids)
    return f"plain sender: {len(results):,} messages accepted, each with one result"


def check_sink(sinks: Sequence[Sink], load: Load) -> str:
    """The sinks have as many messages as were accepted."""
    messages, size = map(sum, zip(*(sink.count() for sink in sinks), strict=True))
    wanted = len(load.ids) + len(load.plain_ids)
    if messages != wanted:
        raise Failed(f"the sinks took {messages:,} messages, {wanted:,} were accepted")
    return f"sinks: {messages:,} messages of {size // messages:,} bytes on average, signature included"


def check_signatures(sink: Sink, key: Path) -> str:
    """What was kept of each side verifies."""
    record = _public_record(key)
    verified = {True: 0, False: 0}
    for file in sorted(sink.kept.glob("*.eml")):
        message = file.read_bytes()
        if not dkim.verify(message, dnsfunc=lambda _name, timeout=5: record):
            raise Failed(f"the signature of {file} does not verify:\n{message.decode(errors='replace')}")
        verified[_OURS in message] += 1
    if not all(verified.values()):
        raise Failed(f"no messages of one side were kept: {verified}")
    return f"signatures: {verified[True]} of ours and {verified[False]} of the plain one verify"


def _public_record(key: Path) -> bytes:
    private = serialization.load_pem_private_key(key.read_bytes(), password=None)
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    public = private.public_key().public_bytes(serialization.Encoding.DER, form)
    return b"v=DKIM1; k=rsa; p=" + base64.b64encode(public)


def _same(what: str, ids: Sequence[str], wanted: set[str]) -> None:
    if len(ids) != len(wanted) or set(ids) != wanted:
        raise Failed(f"{what}: {len(ids):,} results for {len(wanted):,} messages, {len(wanted - set(ids)):,} have none")
