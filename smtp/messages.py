"""Messages: the bytes that go over the wire after DATA, built from a rendered content and one recipient.

RFC 5322 with CRLF everywhere and every body line encoded to at most 76 characters, so that no server has to
change anything and a signature stays valid.  What is the same for all recipients of a campaign is built once.
Dots are stuffed by the delivery client and nowhere else.
"""

import binascii
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote

from policy.naming import campaign_name
from schemas.sending import Campaign
from smtp.headers import UnfitHeader, field, is_name, mailbox, unstructured

HEADER_LIMIT = 65_536
OWN = frozenset(
    {
        "from", "sender", "to", "cc", "bcc", "subject", "date", "message-id", "mime-version", "return-path", "received",
        "content-type", "content-transfer-encoding", "dkim-signature", "x-mailcordon-campaign",
    }
)  # fmt: skip

# "=_" never occurs in quoted-printable text and "_" never in base64, so no body holds the boundary.
_BOUNDARY = b"=_mailcordon"
_ALTERNATIVE = b'Content-Type: multipart/alternative; boundary="' + _BOUNDARY + b'"\r\n'
_IN_URL = "".join(map(chr, range(0x20, 0x7F)))
_NEWLINES = re.compile(r"\r\n?|\n")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Rendered(Protocol):
    """What a template gives for one recipient."""

    @property
    def subject(self) -> str:
        """The subject."""

    @property
    def text(self) -> str:
        """The plain part, empty for none."""

    @property
    def html(self) -> str:
        """The HTML part, empty for none."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Further header fields of the content."""


@dataclass(frozen=True, slots=True)
class Unsendable:
    """Why no message can be made of a content and a recipient."""

    reason: str
    explain: str


@dataclass(frozen=True, slots=True)
class Message:
    """A finished message: its header fields in order, each with its line end, and its body."""

    fields: tuple[bytes, ...]
    body: bytes

    def data(self, *before: bytes) -> bytes:
        """The whole message; ``before`` are fields that come first, such as signatures."""
        return b"".join((*before, *self.fields, b"\r\n", self.body))


class Letterhead:
    """Builds the messages of one campaign; the parts that all of them share are made once."""

    def __init__(self, campaign: Campaign) -> None:
        self.campaign = campaign
        self.from_domain = campaign.from_.address.rpartition("@")[2].lower()
        self._from = field("From", mailbox(campaign.from_.name, campaign.from_.address))
        self._mark = field("X-Mailcordon-Campaign", campaign_name(campaign.campaign))
        self._date: tuple[int, bytes] = (-1, b"")
        self._text = _Memo()
        self._html = _Memo()

    def message(self, rendered: Rendered, *, to: str, message_id: str, now: int) -> Message | Unsendable:
        """The message for one recipient; ``message_id`` is the whole Message-ID header value, ``now`` in ms."""
        try:
            fields = [
                self._from,
                field("To", to),
                unstructured("Subject", rendered.subject),
                self._dated(now),
                field("Message-ID", message_id),
                *_further(rendered.headers),
                self._mark,
                b"MIME-Version: 1.0\r\n",
            ]
        except UnfitHeader as unfit:
            return Unsendable("bad_header", str(unfit))
        content_fields, body = self._content(rendered.text, rendered.html)
        fields.extend(content_fields)
        size = sum(map(len, fields))
        if size > HEADER_LIMIT:
            return Unsendable("header_too_large", f"the header has {size:,} bytes, the limit is {HEADER_LIMIT:,}")
        return Message(tuple(fields), body)

    def _content(self, text: str, html: str) -> tuple[tuple[bytes, ...], bytes]:
        if not html:
            return self._text.encoded(text, b"plain")
        if not text:
            return self._html.encoded(html, b"html")
        parts: list[bytes] = []
        for fields, body in (self._text.encoded(text, b"plain"), self._html.encoded(html, b"html")):
            parts.extend((b"--", _BOUNDARY, b"\r\n", *fields, b"\r\n", body, b"\r\n"))
        return (_ALTERNATIVE,), b"".join((*parts, b"--", _BOUNDARY, b"--\r\n"))

    def _dated(self, now: int) -> bytes:
        second = now // 1000
        if self._date[0] != second:
            self._date = (second, b"Date: " + date(second).encode("ascii") + b"\r\n")
        return self._date[1]


class _Memo:
    """Remembers the newest encoded text: a part without variables is encoded once."""

    __slots__ = ("_encoded", "_text")

    def __init__(self) -> None:
        self._text: str | None = None
        self._encoded: tuple[tuple[bytes, ...], bytes] = ((), b"")

    def encoded(self, text: str, subtype: bytes) -> tuple[tuple[bytes, ...], bytes]:
        if text != self._text:
            encoding, body = encode_text(text)
            kind = b"Content-Type: text/" + subtype + b'; charset="utf-8"\r\n'
            self._encoded = ((kind, b"Content-Transfer-Encoding: " + encoding + b"\r\n"), body)
            self._text = text
        return self._encoded


def encode_text(text: str) -> tuple[bytes, bytes]:
    """Transfer encoding and encoded body: lines of at most 76 characters, each ended by CRLF (RFC 2045 6.7, 6.8)."""
    lines = _NEWLINES.sub("\r\n", text) if "\r" in text else text.replace("\n", "\r\n")
    if not lines.endswith("\r\n"):
        lines += "\r\n"  # b2a_qp breaks lines the way that it sees lines broken
    raw = lines.encode("utf-8", "replace")
    if (len(raw) - len(lines)) * 10 > len(raw):  # from about here on quoted-printable is the longer one
        return b"base64", _base64(raw)
    return b"quoted-printable", binascii.b2a_qp(raw, istext=True)


def date(second: int) -> str:
    """A time in the form of RFC 5322 3.3, in UTC."""
    at = time.gmtime(second)
    clock = f"{at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02}"
    return f"{_DAYS[at.tm_wday]}, {at.tm_mday:02} {_MONTHS[at.tm_mon - 1]} {at.tm_year} {clock} +0000"


def _base64(raw: bytes) -> bytes:
    return b"".join(binascii.b2a_base64(raw[at : at + 57], newline=False) + b"\r\n" for at in range(0, len(raw), 57))


def _further(headers: Mapping[str, str]) -> list[bytes]:
    fields: list[bytes] = []
    seen = set(OWN)
    for name, value in headers.items():
        lower = name.lower()
        if lower in seen:
            continue
        if not is_name(name):
            raise UnfitHeader("a header of the content has a name that is no header name")
        seen.add(lower)
        fields.append(_further_field(name, lower, value))
    if "precedence" not in seen:
        fields.append(b"Precedence: bulk\r\n")
    return fields


def _further_field(name: str, lower: str, value: str) -> bytes:
    if value.isascii():
        return field(name, value)
    if lower == "reply-to":
        shown, bracket, address = value.rpartition("<")
        return field(name, mailbox(shown.strip(' "'), address.partition(">")[0]) if bracket else quote(value, _IN_URL))
    if lower.startswith("list-") and lower != "list-id":
        return field(name, quote(value, _IN_URL))  # addresses of pages and mailboxes are ASCII (RFC 3986 2.5)
    return unstructured(name, value)
