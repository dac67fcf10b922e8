"""From topics to lines: what a backtest reads, in the order of time, with addresses made unreadable for others."""

import base64
import hashlib
import hmac
import re
from collections.abc import AsyncIterator, Callable
from typing import IO, Any

import msgspec
from aiokafka import ConsumerRecord

from cli.backtest_records import LATEST_MS, TOPICS, Line, write_line
from schemas.topics import BY_NAME, DECISIONS
from streams.admin import admin
from streams.reading import to_the_end

WITHIN_S = 30.0

_ADDRESS = re.compile(r'(?:"[^"]*"|[^\s"<>()\[\],;:@]+)@(?=[^\s"<>()\[\],;:@])')
_raw = msgspec.json.Decoder(msgspec.Raw)
_json = msgspec.json.Decoder()
_encode = msgspec.json.Encoder().encode


async def lines_of(bootstrap: str, *, since: int | None, to: int | None) -> AsyncIterator[Line]:
    """Every record between two times of the topics that a backtest reads, one partition after the other.

    Of topics that keep the newest record of each key everything is taken, however old; and of the decisions, which say
    where all stood in the beginning.
    """
    async with admin(bootstrap, within_s=WITHIN_S) as edge:
        partitions = await edge.partitions(TOPICS)
    for topic in TOPICS:
        if topic not in partitions:
            continue
        begin = None if topic == DECISIONS or BY_NAME[topic].cleanup == "compact" else since
        async for record in to_the_end(bootstrap, topic, within_s=WITHIN_S, since_ms=begin):
            if (begin is None or record.timestamp >= begin) and (to is None or record.timestamp <= to):
                yield line_of(record, partitions[topic])


def line_of(record: ConsumerRecord, partitions: int) -> Line:
    """A record as a line."""
    line = Line(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        at=min(max(0, record.timestamp), LATEST_MS),
        key=None if record.key is None else record.key.decode(errors="replace"),
        partitions=partitions,
    )
    if record.value is None:
        return line
    try:
        text = record.value if b"\n" not in record.value else msgspec.json.format(record.value, indent=-1)
        return msgspec.structs.replace(line, value=_raw.decode(text))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return msgspec.structs.replace(line, raw=base64.b64encode(record.value).decode())


async def write_lines(lines: AsyncIterator[Line], out: IO[bytes], progress: Callable[[int], None]) -> int:
    """Write lines; answers how many."""
    count = 0
    async for line in lines:
        out.write(write_line(line) + b"\n")
        count += 1
        progress(count)
    return count


class Redaction:
    """Makes addresses unreadable, each always in the same way: reply texts and message ids may hold some.

    What stands before the ``@`` becomes a keyed hash; the key is thrown away after the export.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def line(self, line: Line) -> Line:
        """The line without addresses."""
        value = bytes(line.value)
        if line.raw is not None:
            return msgspec.structs.replace(line, raw="", key=self.text(line.key or ""))
        key = None if line.key is None else self.text(line.key)
        if b"@" not in value and b"\\u0040" not in value:
            return msgspec.structs.replace(line, key=key)
        return msgspec.structs.replace(line, key=key, value=msgspec.Raw(_encode(self._walk(_json.decode(value)))))

    def text(self, text: str) -> str:
        """A text without addresses."""
        return _ADDRESS.sub(self._hidden, text) if "@" in text else text

    def _hidden(self, found: re.Match[str]) -> str:
        digest = hmac.new(self._key, found[0][:-1].encode("utf-8", "surrogatepass"), hashlib.sha256)
        return f"redacted-{digest.hexdigest()[:8]}@"

    def _walk(self, value: Any) -> Any:  # Any: JSON
        match value:
            case str():
                return self.text(value)
            case list():
                return [self._walk(one) for one in value]
            case dict():
                return {name: self._walk(one) for name, one in value.items()}
            case _:
                return value
