"""What goes between the return path and its readers: frames of bytes one way, findings the other.

Findings travel by the name of their type, so that the wire follows the union ``Finding`` by itself.  Nothing that is
read here can be more than a finding, whatever a reader was made to say.
"""

import struct
from collections.abc import Sequence
from typing import Any, get_args

import msgspec

from smtp.findings import Finding

MAX_MESSAGE_BYTES = 16 * 1_048_576
MAX_ANSWER_BYTES = 4 * 1_048_576
LENGTH = struct.Struct(">I")

_KINDS: dict[str, msgspec.msgpack.Decoder[Any]] = {
    kind.__name__: msgspec.msgpack.Decoder(kind) for kind in get_args(Finding)
}


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a reader says about one message: its findings, or the name of the mistake that it made.

    ``cpu_s`` is what reading took; ``peak_kib`` is the most memory that the reader ever had.
    """

    findings: list[tuple[str, msgspec.Raw]] = []
    mistake: str = ""
    cpu_s: float
    peak_kib: int


class Garbled(ValueError):  # noqa: N818 - says what is so
    """An answer that no reader of ours gives."""


_encoder = msgspec.msgpack.Encoder()
_answers = msgspec.msgpack.Decoder(Answer)


def framed(payload: bytes) -> bytes:
    """The payload with its length in front."""
    return LENGTH.pack(len(payload)) + payload


def written(findings: Sequence[Finding], *, cpu_s: float, peak_kib: int) -> bytes:
    """An answer of findings."""
    named = [(type(one).__name__, msgspec.Raw(_encoder.encode(one))) for one in findings]
    return _encoder.encode(Answer(findings=named, cpu_s=cpu_s, peak_kib=peak_kib))


def mistaken(mistake: str, *, cpu_s: float, peak_kib: int) -> bytes:
    """An answer that names a mistake of ours."""
    return _encoder.encode(Answer(mistake=mistake, cpu_s=cpu_s, peak_kib=peak_kib))


def answer(payload: bytes) -> tuple[Answer, list[Finding]]:
    """Read an answer; raises :class:`Garbled` when it is none."""
    try:
        said = _answers.decode(payload)
        return said, [_KINDS[name].decode(finding) for name, finding in said.findings]
    except (msgspec.DecodeError, KeyError, UnicodeDecodeError) as wrong:
        raise Garbled(str(wrong)) from wrong
