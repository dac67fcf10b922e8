"""From bytes to replies (RFC 5321 4.2): a code and a text, whatever the bytes are and however they are cut.

Texts stay bytes, since most of them are never looked at.

Lines end with LF, with or without CR before it, since some servers write them so.  What is no reply (no code, two
codes in one reply, more than 64 KiB) is :class:`Unfit`, and after that the dialogue cannot be trusted any more.
"""

from collections.abc import Iterator

LONGEST = 65_536


class Unfit(Exception):  # noqa: N818 - says what it is
    """Bytes that are no reply, or a reply that does not fit what it answers; the message shows some of it."""


class ReplyLines:
    """Reads replies of one connection as their bytes come in."""

    __slots__ = ("_begun", "_code", "_lines", "_size")

    def __init__(self) -> None:
        self._begun = b""
        self._code = -1
        self._lines: list[bytes] = []
        self._size = 0

    def read(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The replies that are complete with these bytes."""
        if self._begun:
            data = self._begun + data
            self._begun = b""
        at = 0
        while (end := data.find(b"\n", at)) >= 0:
            line = data[at:end]
            at = end + 1
            if (known := _USUAL.get(line[:4])) and not self._lines and end < LONGEST:
                yield known, line[4:]
                continue
            code, goes_on = self._parted(line)
            self._lines.append(line[4:].strip())
            self._size += len(line)
            if self._size > LONGEST:
                raise Unfit(f"a reply of more than {LONGEST:,} bytes")
            if not goes_on:
                text = b"\n".join(self._lines)
                self._lines, self._size = [], 0
                yield code, text
        self._begun = data[at:]
        if self._size + len(self._begun) > LONGEST:
            raise Unfit(f"a reply of more than {LONGEST:,} bytes")

    def _parted(self, line: bytes) -> tuple[int, bool]:
        """The line's code, and whether more lines follow."""
        digits, between = line[:3], line[3:4]
        if len(digits) < 3 or not digits.isdigit() or between not in _BETWEEN:
            raise Unfit(f"no reply: {line[:80].decode('utf-8', 'replace')}")
        code = int(digits)
        if self._lines and code != self._code:
            raise Unfit(f"one reply with two codes, {self._code} and {code}")
        self._code = code
        return code, between == b"-"


_USUAL = {b"%d " % code: code for code in range(200, 600)}
_BETWEEN = frozenset((b" ", b"-", b"\r", b"", b"\t"))
