"""Header lines, made by hand, because the standard library folds by encoding.

Its SMTP policy turns a long ``List-Unsubscribe`` address into encoded words, which breaks one-click
unsubscription (RFC 8058).  Here a line is folded at white space only, and only text that people read (subject,
display names) is ever encoded (RFC 2047).  Whatever stands in a value, one call gives one header field.
"""

import binascii
import re

FOLD_AT = 78  # RFC 5322 2.1.1: should not be longer
LINE_LIMIT = 998  # RFC 5322 2.1.1: must not be longer, line end not counted

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # whatever some reader takes for the end of a line
_FOLDS = re.compile(r"(?<=[^ ])(?= +[^ ])")
_NAME = re.compile(r"[!-9;-~]+\Z")  # RFC 5322 3.6.8: ftext
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~ -]*\Z")
_WORD_ROOM = 75 - len("=?utf-8?q??=")  # RFC 2047 2: an encoded word has at most 75 characters
_Q_SAFE = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!*+-/")
_Q = ["_" if byte == 0x20 else chr(byte) if byte in _Q_SAFE else f"={byte:02X}" for byte in range(256)]


class UnfitHeader(ValueError):  # noqa: N818 - a value that cannot stand in a header
    """A header that cannot be written: its name is no name, or a piece without white space is too long."""


def is_name(name: str) -> bool:
    """May this text be a header name?"""
    return _NAME.match(name) is not None and len(name) <= FOLD_AT - 2


def one_line(value: str) -> str:
    """The value without control characters: nothing in it can begin another line."""
    return _CONTROL.sub(" ", value).strip(" ")


def field(name: str, value: str) -> bytes:
    """A field whose value is never encoded: ASCII as it is, other characters as UTF-8 (RFC 6532), folded at spaces."""
    return _folded(name, one_line(value)).encode("utf-8", "replace")


def unstructured(name: str, value: str) -> bytes:
    """A field that people read, such as Subject: encoded if ASCII cannot say it or if it would be taken for encoded."""
    value = one_line(value)
    if value.isascii() and "=?" not in value:
        try:
            return _folded(name, value).encode("ascii")
        except UnfitHeader:
            pass  # one piece is longer than a line: encoded words can be parted anywhere
    return f"{name}: {encoded_words(value)}\r\n".encode("ascii")


def mailbox(name: str, address: str) -> str:
    """``name <address>``, the name quoted or encoded where it must be."""
    name = one_line(name)
    if not name:
        return address
    if not name.isascii() or "=?" in name:
        return f"{encoded_words(name)} <{address}>"
    if not _ATOMS.match(name):
        name = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"{name} <{address}>"


def encoded_words(value: str) -> str:
    """The text as encoded words in UTF-8, parted between characters, one word to a line."""
    raw = value.encode("utf-8", "replace")
    readable = sum(byte in _Q_SAFE or byte == 0x20 for byte in raw) * 2 >= len(raw)
    words: list[str] = []
    word: list[bytes] = []
    length = 0
    for character in raw.decode("utf-8"):
        piece = character.encode("utf-8")
        grows = sum(len(_Q[byte]) for byte in piece) if readable else len(piece)
        if length + grows > (_WORD_ROOM if readable else _WORD_ROOM // 4 * 3):
            words.append(_word(b"".join(word), readable=readable))
            word, length = [], 0
        word.append(piece)
        length += grows
    words.append(_word(b"".join(word), readable=readable))
    return "\r\n ".join(words)


def _word(raw: bytes, *, readable: bool) -> str:
    if readable:
        return f"=?utf-8?q?{''.join(_Q[byte] for byte in raw)}?="
    return f"=?utf-8?b?{binascii.b2a_base64(raw, newline=False).decode('ascii')}?="


def _folded(name: str, value: str) -> str:
    whole = f"{name}: {value}"
    if len(whole) <= FOLD_AT:
        return whole + "\r\n"
    lines: list[str] = []
    line = ""
    for piece in _FOLDS.split(whole):
        if line and len(line) + len(piece) > FOLD_AT and line != f"{name}:":
            lines.append(line)
            line = piece
        else:
            line += piece
    lines.append(line)
    if max(len(part.encode("utf-8", "replace")) for part in lines) > LINE_LIMIT:
        raise UnfitHeader(f"header {name} holds more than {LINE_LIMIT} characters without a space")
    return "\r\n".join(lines) + "\r\n"
