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
from email.utils import getaddresses
from typing import Protocol
from urllib.parse import quote

from policy import unsubscribing
from policy.addresses import CheckedAddress, check, hostname
from policy.naming import campaign_name
from schemas.sending import Campaign
from smtp.headers import UnfitHeader, field, is_name, mailbox, unstructured
from smtp.standard_fields import complaints_field, standard_fields

HEADER_LIMIT = 65_536
OWN = frozenset(
    {
        "from", "sender", "to", "cc", "bcc", "subject", "date", "message-id", "mime-version", "return-path", "received",
        "content-type", "content-transfer-encoding", "dkim-signature", "x-mailcordon-campaign",
    }
)  # fmt: skip

_CFBL = frozenset({"cfbl-address", "cfbl-feedback-id"})
_FOR_PEOPLE = frozenset({"comments", "keywords", "organization"})  # whose encoded words would be decoded
_ONE_CLICK = f"List-Unsubscribe-Post: {unsubscribing.ONE_CLICK}\r\n".encode("ascii")

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
    """Builds the messages of one campaign; the parts that all of them share are made once.

    ``signed_by`` is the domain that signs them, None when nobody does.
    """

    def __init__(self, campaign: Campaign, *, signed_by: str | None = None) -> None:
        self.campaign = campaign
        self.from_domain = from_domain(campaign)
        self._from = field("From", mailbox(campaign.from_.name, _on_the_wire(campaign.from_.address)))
        self._last = (field("X-Mailcordon-Campaign", campaign_name(campaign.campaign)), b"MIME-Version: 1.0\r\n")
        self._standard = standard_fields(campaign, from_domain=self.from_domain)
        self._standard_alone = tuple(line for _, line in self._standard)
        self._complaints = complaints_field(campaign, from_domain=self.from_domain, signed_by=signed_by)
        self._links = _Links.of(campaign)
        self._date: tuple[int, bytes] = (-1, b"")
        self._text = _Memo()
        self._html = _Memo()

    @property
    def makes_links(self) -> bool:
        """Does the campaign say what unsubscribe links begin with?"""
        return self._links is not None

    def message(
        self,
        rendered: Rendered,
        *,
        to: str,
        message_id: str,
        now: int,
        unsubscribe_token: str | None = None,
        return_path: str = "",
    ) -> Message | Unsendable:
        """The message for one recipient; ``message_id`` is the whole Message-ID header value, ``now`` in ms.

        With ``unsubscribe_token`` it says how to unsubscribe, if the campaign has a place for that.  The local part of
        its ``return_path`` stands in CFBL-Feedback-ID, so that a complaint can be believed.
        """
        try:
            fields = [
                self._from,
                field("To", to),
                unstructured("Subject", rendered.subject),
                self._dated(now),
                field("Message-ID", message_id),
                *self._further(rendered.headers, unsubscribe_token, return_path),
                *self._last,
            ]
        except UnfitHeader as unfit:
            return Unsendable("bad_header", str(unfit))
        content_fields, body = self._content(rendered.text, rendered.html)
        fields.extend(content_fields)
        size = sum(map(len, fields))
        if size > HEADER_LIMIT:
            return Unsendable("header_too_large", f"the header has {size:,} bytes, the limit is {HEADER_LIMIT:,}")
        return Message(tuple(fields), body)

    def _further(self, headers: Mapping[str, str], token: str | None, return_path: str) -> list[bytes]:
        """The content's own fields, then ours that it does not bring itself."""
        links = self._links.fields(token) if token is not None and self._links is not None else ()
        if not headers:
            return [*links, *self._standard_alone, *self._complaint(return_path)]
        own = {name.lower() for name in headers}
        fields = _own_fields(headers, may_post="list-unsubscribe" in own)
        if "list-unsubscribe" not in own:
            fields += links
        fields += [line for lower, line in self._standard if lower not in own]
        if not own & _CFBL:
            fields += self._complaint(return_path)
        return fields

    def _complaint(self, return_path: str) -> tuple[bytes, ...]:
        if self._complaints is None:
            return ()
        local = return_path.partition("@")[0]
        return (self._complaints, f"CFBL-Feedback-ID: {local}\r\n".encode("ascii")) if local else (self._complaints,)

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


def from_domain(campaign: Campaign) -> str:
    """The domain in From as it goes over the wire."""
    domain = campaign.from_.address.rpartition("@")[2]
    return hostname(domain) or domain.lower()


@dataclass(frozen=True, slots=True)
class _Links:
    """What stands around the token in List-Unsubscribe (RFC 2369 3.2, RFC 8058 3.1), which is never encoded."""

    start: str
    end: str

    @classmethod
    def of(cls, campaign: Campaign) -> "_Links | None":
        domain = hostname(campaign.return_path_domain)
        if campaign.unsubscribe_url is None or domain is None or unsubscribing.flaw_of_base(campaign.unsubscribe_url):
            return None
        mail_to = unsubscribing.mailbox(domain)
        return cls(
            f"List-Unsubscribe: <{unsubscribing.link(campaign.unsubscribe_url, '')}",
            f">,\r\n <mailto:{mail_to}?subject=",
        )

    def fields(self, token: str) -> tuple[bytes, bytes]:
        return (f"{self.start}{token}{self.end}{token}>\r\n".encode("ascii"), _ONE_CLICK)


def _own_fields(headers: Mapping[str, str], *, may_post: bool) -> list[bytes]:
    fields: list[bytes] = []
    seen: set[str] = set()
    for name, value in headers.items():
        lower = name.lower()
        if lower in OWN or lower in seen or (lower == "list-unsubscribe-post" and not may_post):
            continue
        if not is_name(name):
            raise UnfitHeader("a header of the content has a name that is no header name")
        seen.add(lower)
        fields.append(_own_field(name, lower, value))
    return fields


def _own_field(name: str, lower: str, value: str) -> bytes:
    if lower in _FOR_PEOPLE:
        return unstructured(name, value)
    if value.isascii() and not (lower == "reply-to" and "=?" in value):
        return field(name, value)
    if lower == "reply-to":
        return field(name, ", ".join(mailbox(shown, _valid(address)) for shown, address in getaddresses([value])))
    if lower.startswith("list-") and lower != "list-id":
        return field(
            name, quote(value, _IN_URL, errors="replace")
        )  # addresses of pages and mailboxes are ASCII (RFC 3986 2.5)
    return unstructured(name, value)


def _valid(address: str) -> str:
    checked = check(address)
    if not isinstance(checked, CheckedAddress):
        raise UnfitHeader("header Reply-To holds something that is no address")
    return checked.address


def _on_the_wire(address: str) -> str:
    """The address with its domain as A-labels; only a local part may need SMTPUTF8 (RFC 6531 3.2)."""
    checked = check(address)
    if isinstance(checked, CheckedAddress):
        return checked.address
    local, _, domain = address.rpartition("@")
    return f"{local}@{hostname(domain) or domain}"
