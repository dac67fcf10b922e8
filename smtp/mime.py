"""Reading a stranger's message with every dimension bounded before anything is parsed.

The standard library's parser is right but not made for enemies: a long header of parameters, a deep nesting or many
thousand parts keep it busy for seconds and gigabytes.  This reader looks at the first part of a message only, walks
the structure by hand, never decodes a header word, and stops with an answer when there is too much of anything.
"""

import binascii
import quopri
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

MAX_BYTES = 262_144  # a report stands in front of the mail that it returns
MAX_DEPTH = 6
MAX_PARTS = 40
MAX_HEADER_BYTES = 65_536
MAX_FIELDS = 300
MAX_FIELD_CHARS = 4_096
MAX_TEXT_BYTES = 32_768
_LONGEST_TAIL = 80  # blanks that may follow a delimiter on its line

_BOUNDARY = re.compile(r'boundary\s{0,9}=\s{0,9}(?:"([^"]{1,200})"|([^\s;"]{1,200}))', re.IGNORECASE)
_CHARSET = re.compile(r'charset\s{0,9}=\s{0,9}"?([\w.:-]{1,40})', re.IGNORECASE)
CHARSETS = {
    **{f"iso-8859-{n}": f"iso-8859-{n}" for n in (*range(1, 12), *range(13, 17))},
    **{f"windows-125{n}": f"cp125{n}" for n in range(9)},
    **{one: one for one in ("utf-8", "utf-16", "utf-16le", "utf-16be", "koi8-r", "koi8-u", "big5", "tis-620", "cp866")},
    **dict.fromkeys(("gb2312", "gbk", "gb18030", "cp936", "x-gbk", "euc-cn"), "gb18030"),
    **dict.fromkeys(("euc-jp", "x-euc-jp"), "euc_jp"),
    **dict.fromkeys(("euc-kr", "ks_c_5601-1987", "cp949", "windows-949"), "cp949"),
    **dict.fromkeys(("shift_jis", "shift-jis", "sjis", "x-sjis", "windows-31j", "cp932"), "cp932"),
    **dict.fromkeys(("iso-2022-jp", "iso-2022-jp-1", "iso-2022-jp-2"), "iso2022_jp_2"),
    "iso-2022-kr": "iso2022_kr",
    "unicode-1-1-utf-7": "utf-7",
    "utf-7": "utf-7",
    "utf8": "utf-8",
    "iso-8859-8-i": "iso-8859-8",
    "latin1": "iso-8859-1",
    "cp1252": "cp1252",
    "windows-874": "cp874",
    "macintosh": "mac_roman",
}  # the names that mail uses; no other codec of Python is ever looked up
_BLANK_LINE = re.compile(rb"(?:\A|\n)\r?\n")


class TooComplexError(Exception):
    """More structure than an honest report has; the message names the bound."""


@dataclass(frozen=True, slots=True)
class Fields:
    """Header fields in their order, unfolded; names in lower case."""

    pairs: tuple[tuple[str, str], ...] = ()

    def get(self, name: str) -> str | None:
        """The first field of that name."""
        return next((value for known, value in self.pairs if known == name), None)

    def all(self, name: str) -> list[str]:
        """Every field of that name."""
        return [value for known, value in self.pairs if known == name]


@dataclass(frozen=True, slots=True)
class Part:
    """One leaf of a message: its content type in lower case, its own fields, its body as it was sent."""

    content_type: str
    fields: Fields
    body: bytes = field(repr=False)

    def text(self) -> str:
        """The body as text, decoded, at most ``MAX_TEXT_BYTES`` of it."""
        charset = _CHARSET.search(self.fields.get("content-type") or "")
        return as_text(self._decoded(), charset[1] if charset else "").replace("\r\n", "\n")

    def _decoded(self) -> bytes:
        encoding = (self.fields.get("content-transfer-encoding") or "").strip().lower()
        if encoding == "base64":
            return _from_base64(self.body[: 2 * MAX_TEXT_BYTES])[:MAX_TEXT_BYTES]
        if encoding == "quoted-printable":
            return quopri.decodestring(self.body[: 3 * MAX_TEXT_BYTES])[:MAX_TEXT_BYTES]
        return self.body[:MAX_TEXT_BYTES]


@dataclass(frozen=True, slots=True)
class Message:
    """The fields of a message, and its leaves in order; a message without parts is its own single leaf."""

    fields: Fields
    parts: tuple[Part, ...]

    def first(self, *content_types: str) -> Part | None:
        """The first leaf of one of these types."""
        return next((part for part in self.parts if part.content_type in content_types), None)


def as_text(raw: bytes, charset: str) -> str:
    """Bytes as text; a charset that is unknown, missing or a lie costs letters and never raises."""
    known = CHARSETS.get(charset.lower())
    if known is None:
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            return raw.decode("utf-8" if charset else "cp1252", "replace")
    try:
        return raw.decode(known, "replace")
    except (UnicodeError, ValueError):
        return raw.decode("ascii", "replace")


def _from_base64(coded: bytes) -> bytes:
    whole = re.sub(rb"[^A-Za-z0-9+/]", b"", coded)
    whole = whole[: len(whole) - (len(whole) % 4 == 1)]  # one digit alone is no byte
    return binascii.a2b_base64(whole + b"=" * (-len(whole) % 4))


def read(raw: bytes) -> Message:
    """Take a message apart; raises :class:`TooComplexError` when it has more structure than we look at."""
    looked_at = raw[:MAX_BYTES]
    fields, body = split(looked_at)
    parts: list[Part] = []
    _walk(fields, body, parts, depth=0)
    return Message(fields=fields, parts=tuple(parts))


def split(raw: bytes) -> tuple[Fields, bytes]:
    """The header fields of a message or part, and what follows the blank line."""
    blank = _BLANK_LINE.search(raw)
    header, body = (raw[: blank.start()], raw[blank.end() :]) if blank else (raw, b"")
    if len(header) > MAX_HEADER_BYTES:
        raise TooComplexError(f"a header of {len(header):,} bytes; at most {MAX_HEADER_BYTES:,} are read")
    return read_fields(header.decode("utf-8", "replace")), body


def read_fields(text: str) -> Fields:
    """Header fields of a block of lines, unfolded (RFC 5322 2.2.3); lines that are no field are passed over."""
    pairs: list[tuple[str, str]] = []
    for line in text.split("\n")[: 20 * MAX_FIELDS]:
        if line[:1] in {" ", "\t"}:
            if pairs and len(pairs[-1][1]) < MAX_FIELD_CHARS:
                name, so_far = pairs[-1]
                pairs[-1] = (name, f"{so_far} {line.strip()}"[:MAX_FIELD_CHARS])
            continue
        name, colon, value = line.partition(":")
        if not colon or not name.strip() or " " in name.strip():
            continue
        if len(pairs) >= MAX_FIELDS:
            raise TooComplexError(f"more than {MAX_FIELDS} header fields")
        pairs.append((name.strip().lower()[:100], value.strip()[:MAX_FIELD_CHARS]))
    return Fields(tuple(pairs))


def _walk(fields: Fields, body: bytes, parts: list[Part], *, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise TooComplexError(f"parts nested deeper than {MAX_DEPTH}")
    content_type = fields.get("content-type") or "text/plain"
    kind = content_type.partition(";")[0].strip().lower()
    boundary = _BOUNDARY.search(content_type)
    if not kind.startswith("multipart/") or boundary is None:
        if len(parts) >= MAX_PARTS:
            raise TooComplexError(f"more than {MAX_PARTS} parts")
        parts.append(Part(content_type=kind, fields=fields, body=body))
        return
    delimiter = b"--" + (boundary[1] or boundary[2]).strip().encode("utf-8", "replace")
    empty = True
    for piece in _pieces(body, delimiter):
        empty = False
        inner_fields, inner_body = split(piece)
        _walk(inner_fields, inner_body, parts, depth=depth + 1)
    if empty:  # counts as a part, so that thousands of hollow ones meet the bound too
        _walk(Fields(), body, parts, depth=depth + 1)


def _pieces(body: bytes, delimiter: bytes) -> Iterator[bytes]:
    """The parts between the delimiter lines of a multipart (RFC 2046 5.1); the last one may be cut off."""
    body, at_line_start = b"\n" + body, b"\n" + delimiter
    start: int | None = None
    at = body.find(at_line_start)
    while at >= 0:
        after = at + len(at_line_start)
        end_of_line = body.find(b"\n", after, after + _LONGEST_TAIL)
        rest = body[after : end_of_line if end_of_line >= 0 else after + _LONGEST_TAIL].strip()
        if rest in {b"", b"--"}:
            if start is not None:
                yield body[start:at].removesuffix(b"\r")
            if rest == b"--" or end_of_line < 0:
                return
            start = end_of_line + 1
        at = body.find(at_line_start, end_of_line if end_of_line >= 0 else after)
    if start is not None:
        yield body[start:]
