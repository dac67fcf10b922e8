"""Telling whether a stream has CRLF line ends only (RFC 5321 2.3.8).

A bare LF or CR that one server takes for a line end and the next does not is how a second message is smuggled
behind the first; nobody who speaks SMTP to us needs one.
"""

_LF = 0x0A


class LineEnds:
    """Watches the chunks of one stream; the border between two chunks may lie inside a CRLF."""

    __slots__ = ("_after_cr",)

    def __init__(self) -> None:
        self._after_cr = False

    def are_strict(self, chunk: bytes) -> bool:
        """Whether the stream, this chunk included, had no bare LF and no bare CR."""
        if not chunk:
            return True
        pairs = chunk.count(b"\r\n")
        bare_lf, bare_cr = chunk.count(b"\n") - pairs, chunk.count(b"\r") - pairs
        if self._after_cr:
            if chunk[0] != _LF:
                return False
            bare_lf -= 1
        self._after_cr = chunk.endswith(b"\r")
        if self._after_cr:
            bare_cr -= 1
        return bare_lf == 0 and bare_cr == 0
