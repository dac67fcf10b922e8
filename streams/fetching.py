"""Reading much from Kafka without copying it time and again: :func:`hasten` does it for one of aiokafka's consumers.

aiokafka reads an answer through asyncio's ``StreamReader``.  That grows one buffer piece by piece, stops the socket
whenever 128 kilobytes wait, and copies the whole once more at the end; and it computes checksums without the
processor's instruction for them.  To fetch a frame costs so more than to count what is in it.

Here the pieces of an answer are joined once, when the last one is there, and the checksums of what was fetched are
compared by a faster library.  Everything else is aiokafka's: what becomes of an answer, of a connection that is
lost, and of records whose checksum is wrong, which it then finds by itself.
"""

import asyncio
import struct
import weakref
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.protocol.fetch import FetchRequest
from google_crc32c import value as crc32c

# The head of a record batch: base offset, length, leader's epoch, version, checksum of what follows.
# https://kafka.apache.org/documentation/#recordbatch
_HEAD = struct.Struct(">qiibI")
_LENGTH_ENDS = 12
_VERSION = 2

_SIZE = struct.Struct(">i")  # in front of each answer


def hasten(consumer: AIOKafkaConsumer) -> None:
    """Make a consumer that was not started yet read large answers for less; what it does stays the same."""
    client = consumer._client  # noqa: SLF001 - aiokafka is pinned, and has no other place for this
    connect, send = client._get_conn, client.send  # noqa: SLF001

    async def connected(*args: Any, **options: Any) -> Any:  # Any: aiokafka has no types
        connection = await connect(*args, **options)
        if connection is not None:
            _read_whole(connection)  # the loop gets no turn in between, so nobody has asked anything yet
        return connection

    async def sent(node: Any, request: Any, **options: Any) -> Any:
        answer = await send(node, request, **options)
        if isinstance(request, FetchRequest) and (fetcher := consumer._fetcher) is not None:  # noqa: SLF001
            # The fetcher unpacks this answer before the loop gets a turn; other answers have set this anew by then.
            fetcher._check_crcs = not _is_intact(answer)  # noqa: SLF001
        return answer

    client._get_conn = connected  # noqa: SLF001
    if consumer._check_crcs:  # noqa: SLF001
        client.send = sent


def are_intact(records: bytes) -> bool:
    """Whether each whole record batch in what a broker sent has the right checksum; the last batch may be cut off."""
    at, end = 0, len(records)
    while at + _HEAD.size <= end:
        _, length, _, version, checksum = _HEAD.unpack_from(records, at)
        after = at + _LENGTH_ENDS + length
        if version != _VERSION or after < at + _HEAD.size:
            return False
        if after <= end and crc32c(records[at + _HEAD.size : after]) != checksum:
            return False
        at = after
    return True


def _is_intact(answer: Any) -> bool:  # Any: of many versions; the records come last in all of them
    return all(are_intact(one[-1] or b"") for _, partitions in answer.topics for one in partitions)


class Answers(asyncio.Protocol):
    """Takes the place of the protocol of a connection that is established, and hands on each answer when it is whole.

    The protocol that was there before is told of everything but data.  aiokafka still waits for its reader, and so
    learns there that the connection is lost; an answer that cannot be read raises here, which loses the connection too.
    """

    def __init__(self, connection: Any) -> None:  # Any: aiokafka has no types
        self._connection = weakref.ref(connection)  # aiokafka closes one that nobody holds any more
        self._before = connection._protocol  # noqa: SLF001
        self._pieces: list[bytes] = []
        self._have = 0
        self._need = _SIZE.size  # of the size itself, then of the answer
        self._is_size = True

    def data_received(self, data: bytes) -> None:
        """Keep a piece, and hand on what is whole now."""
        self._pieces.append(data)
        self._have += len(data)
        while self._have >= self._need:
            found = b"".join(self._pieces)
            whole, rest = found[: self._need], found[self._need :]  # no copy when nothing follows, as mostly
            self._pieces, self._have = [rest], len(rest)
            if self._is_size:
                (self._need,) = _SIZE.unpack(whole)
                if self._need < 0:
                    raise ValueError(f"an answer of {self._need} bytes")
            else:
                self._need = _SIZE.size
                self._hand_on(whole)
            self._is_size = not self._is_size

    def _hand_on(self, answer: bytes) -> None:
        connection = self._connection()
        if connection is not None and connection.connected():  # else it was closed meanwhile, and nobody waits
            connection._handle_frame(answer)  # noqa: SLF001

    def eof_received(self) -> bool | None:
        """The broker says no more."""
        closes: bool | None = self._before.eof_received()
        return closes

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, whatever the reason."""
        self._pieces = []
        self._before.connection_lost(exc)

    def pause_writing(self) -> None:
        """The broker takes no more for now."""
        self._before.pause_writing()

    def resume_writing(self) -> None:
        """The broker takes more again."""
        self._before.resume_writing()


def _read_whole(connection: Any) -> None:  # Any: aiokafka has no types
    transport = connection._writer.transport  # noqa: SLF001
    if not isinstance(transport.get_protocol(), Answers):
        transport.set_protocol(Answers(connection))
