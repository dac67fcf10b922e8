"""Records that were set aside: made whole, listed, put back where they came from.

A replay is claimed before it is made: a mark (a dead letter about a dead letter, reason ``replayed``) goes into the
same topic first.  Whoever wrote the first mark of a dead letter puts it back; everybody else, and every later run,
sees that it is done.  So a dead letter is put back at most once, whatever crashes: a run that ends between the mark
and the record leaves it marked and not put back, and ``again`` is for that.
"""

import asyncio
import base64
import secrets
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from schemas.codec import Malformed, decode, encode
from schemas.dead_letters import DeadLetter
from schemas.topics import BY_NAME, DEAD_LETTERS
from streams.kafka_security import connection
from streams.producing import Producer
from streams.reading import to_the_end

log = structlog.get_logger()

REPLAYED = "replayed"
AGENT_FAILED = "agent_failed"

_ENCODED = "base64:"  # a header value that is no text
_EXPLAIN_LENGTH = 500
_HEADERS_LENGTH = 65_536  # raw bytes grow by a third as base64, headers sixfold at worst as JSON
_WITHIN_S = 30.0
_MAX_BYTES = BY_NAME[DEAD_LETTERS].max_bytes


@dataclass(frozen=True, slots=True)
class Kept:
    """A dead letter and where it stands; ``replayed_at`` is when it was put back, None if it was not."""

    partition: int
    offset: int
    letter: DeadLetter
    replayed_at: int | None = None


def dead_letter(
    *,
    topic: str,
    partition: int,
    offset: int,
    key: bytes | None,
    value: bytes | None,
    headers: Iterable[tuple[str, bytes]] | Mapping[str, bytes] | None,
    reason: str,
    explain: str,
    now: int,
) -> DeadLetter:
    """A record set aside, with everything that is needed to put it back.

    Only headers beyond 64 KiB are left out, and then the explanation says so: a dead letter must fit its topic.
    """
    pairs = list(headers.items() if isinstance(headers, Mapping) else headers or ())
    if headers_length(pairs) > _HEADERS_LENGTH:
        pairs, explain = [], f"{explain[: _EXPLAIN_LENGTH - 60]} (its Kafka headers were too large to be kept)"
    return DeadLetter(
        topic=topic,
        partition=partition,
        offset=offset,
        reason=reason,
        explain=explain[:_EXPLAIN_LENGTH],
        raw=base64.b64encode(value or b"").decode(),
        key=None if key is None else base64.b64encode(key).decode(),
        headers={name: _as_text(one or b"") for name, one in pairs},
        at=now,
    )


def headers_length(headers: Iterable[tuple[str, bytes]]) -> int:
    """How many bytes the names and values of headers have."""
    return sum(len(name.encode()) + len(value or b"") for name, value in headers)


class Message(Protocol):
    """A record as Faust hands it out."""

    topic: str
    partition: int
    offset: int
    key: Any  # Any: bytes, None, or what Faust's types allow besides
    value: Any
    headers: Any


def of_message(message: Message, *, reason: str, explain: str, now: int) -> DeadLetter:
    """A record that an agent could not work on, set aside."""
    return dead_letter(
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        key=message.key,
        value=message.value,
        headers=message.headers,
        reason=reason,
        explain=explain,
        now=now,
    )


async def kept(bootstrap: str, *, within_s: float = _WITHIN_S) -> list[Kept]:
    """All dead letters that are there now, oldest first; the marks of replays are told, not listed."""
    letters: list[Kept] = []
    marks: dict[tuple[int, int], DeadLetter] = {}
    async with asyncio.timeout(within_s):
        async for one in _read(bootstrap, within_s):
            if one.letter.topic == DEAD_LETTERS and one.letter.reason == REPLAYED:
                marks.setdefault((one.letter.partition, one.letter.offset), one.letter)
            else:
                letters.append(one)
    return sorted(
        (
            Kept(one.partition, one.offset, one.letter, mark.at if mark else None)
            for one in letters
            for mark in [marks.get((one.partition, one.offset))]
        ),
        key=lambda one: one.letter.at,
    )


async def replay(
    bootstrap: str, letters: Sequence[Kept], *, again: bool = False, within_s: float = _WITHIN_S
) -> list[Kept]:
    """Put dead letters back into the topics they came from; answers those that this call put back.

    Those that were put back before are left alone unless ``again``.
    """
    wanted = [one for one in letters if again or one.replayed_at is None]
    if not wanted:
        return []
    producer = Producer(
        **connection(bootstrap),
        acks="all",
        enable_idempotence=True,
        max_request_size=_MAX_BYTES,
        request_timeout_ms=int(within_s * 1000),
    )
    async with asyncio.timeout(within_s):
        await producer.start()
        try:
            ours = wanted if again else await _claimed(bootstrap, producer, wanted, within_s)
            sent = [
                await producer.send(
                    one.letter.topic,
                    value=base64.b64decode(one.letter.raw),
                    key=None if one.letter.key is None else base64.b64decode(one.letter.key),
                    headers=[(name, _as_bytes(text)) for name, text in one.letter.headers.items()],
                )
                for one in ours
            ]
            await asyncio.gather(*sent)
        finally:
            await producer.stop()
    return ours


async def _claimed(bootstrap: str, producer: Producer, wanted: Sequence[Kept], within_s: float) -> list[Kept]:
    """Mark each as replayed; those whose first mark is ours are ours to put back."""
    claim = secrets.token_hex(8)
    now = time.time_ns() // 1_000_000
    marks = [
        DeadLetter(
            topic=DEAD_LETTERS,
            partition=one.partition,
            offset=one.offset,
            reason=REPLAYED,
            explain=f"claimed by {claim}",
            raw="",
            at=now,
        )
        for one in wanted
    ]
    # to the partition of the dead letter: marks of one letter are then in order
    sent = [await producer.send(DEAD_LETTERS, value=encode(mark), partition=mark.partition) for mark in marks]
    await asyncio.gather(*sent)
    first: dict[tuple[int, int], str] = {}
    async for one in _read(bootstrap, within_s):
        if one.letter.topic == DEAD_LETTERS and one.letter.reason == REPLAYED:
            first.setdefault((one.letter.partition, one.letter.offset), one.letter.explain)
    return [one for one in wanted if first[one.partition, one.offset] == f"claimed by {claim}"]


async def _read(bootstrap: str, within_s: float) -> AsyncIterator[Kept]:
    """Every dead letter that is there now, partition by partition in order."""
    async for record in to_the_end(bootstrap, DEAD_LETTERS, within_s=within_s):
        letter = decode(DeadLetter, record.value, max_bytes=_MAX_BYTES)
        if isinstance(letter, Malformed):
            log.warning("no dead letter", partition=record.partition, offset=record.offset)
        else:
            yield Kept(record.partition, record.offset, letter)


def _as_text(value: bytes) -> str:
    """A header's value as text that ``_as_bytes`` makes the same bytes of."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return _ENCODED + base64.b64encode(value).decode()
    plain = text.isprintable() and not text.startswith(_ENCODED)
    return text if plain else _ENCODED + base64.b64encode(value).decode()


def _as_bytes(text: str) -> bytes:
    return base64.b64decode(text.removeprefix(_ENCODED)) if text.startswith(_ENCODED) else text.encode()
