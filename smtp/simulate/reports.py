"""The mail that a provider sends back: delivery status notifications (RFC 3464) and abuse reports (RFC 5965)."""

from dataclasses import dataclass
from email.utils import formatdate
from typing import Literal

from smtp.simulate.texts import Kind, text

ReportKind = Literal["bounce", "complaint", "trap"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A message that a provider has taken, for one of its recipients."""

    mail_from: str
    rcpt: str
    ip: str
    taken_at: int
    content: bytes


def headers_of(content: bytes) -> bytes:
    """The header of a message, without the blank line."""
    return content.partition(b"\r\n\r\n")[0][:65_536]


def bounce(taken: Taken, *, hostname: str, kind: Kind, id_: str, now: int) -> bytes:
    """A notification that a mailbox behind the provider's front door does not exist after all."""
    said = " ".join(text(kind, "failed_later", rcpt=taken.rcpt, ip=taken.ip).split("\n"))
    boundary = f"=_{id_}"
    lines = [
        f"Date: {_date(now)}",
        f"From: Mail Delivery System <MAILER-DAEMON@{hostname}>",
        f"To: <{taken.mail_from}>",
        "Subject: Undelivered mail is returned",
        f"Message-ID: <{id_}@{hostname}>",
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type=delivery-status; boundary="{boundary}"',
        "",
        f"--{boundary}",
        "Content-Type: text/plain; charset=utf-8",
        "",
        f"The mail server {hostname} could not deliver your message; it will not try again.",
        "",
        f"<{taken.rcpt}>: {said}",
        "",
        f"--{boundary}",
        "Content-Type: message/delivery-status",
        "",
        f"Reporting-MTA: dns; {hostname}",
        f"Arrival-Date: {_date(taken.taken_at)}",
        "",
        f"Final-Recipient: rfc822; {taken.rcpt}",
        f"Original-Recipient: rfc822;{taken.rcpt}",
        "Action: failed",
        "Status: 5.1.1",
        f"Remote-MTA: dns; store.{hostname}",
        f"Diagnostic-Code: smtp; {said}",
        "",
        f"--{boundary}",
        "Content-Type: text/rfc822-headers",
        "",
        f"Return-Path: <{taken.mail_from}>",
    ]
    return _joined(lines, headers_of(taken.content), boundary)


def complaint(taken: Taken, *, hostname: str, kind: Kind, id_: str, now: int) -> bytes:
    """A report that the recipient pressed the spam button; Apple's and Google's kind hide who it was."""
    hidden = kind in {"google", "apple"}
    domain = taken.rcpt.rpartition("@")[2]
    boundary = f"=_{id_}"
    lines = [
        f"Date: {_date(now)}",
        f"From: Feedback loop <feedback@{hostname}>",
        f"To: <{taken.mail_from}>",
        "Subject: Complaint about a message",
        f"Message-ID: <{id_}@{hostname}>",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type=feedback-report; boundary="{boundary}"',
        "",
        f"--{boundary}",
        "Content-Type: text/plain; charset=utf-8",
        "",
        "This is an abuse report: a user marked the message below as spam.",
        "",
        f"--{boundary}",
        "Content-Type: message/feedback-report",
        "",
        "Feedback-Type: abuse",
        f"User-Agent: {hostname}/1.0",
        "Version: 1",
        f"Original-Mail-From: <{taken.mail_from}>",
        f"Original-Rcpt-To: <{'redacted' if hidden else taken.rcpt.rpartition('@')[0]}@{domain}>",
        f"Arrival-Date: {_date(taken.taken_at)}",
        f"Source-IP: {taken.ip}",
        "",
        f"--{boundary}",
        "Content-Type: text/rfc822-headers",
        "",
        f"Return-Path: <{taken.mail_from}>",
    ]
    headers = b"\r\n".join(
        line for line in headers_of(taken.content).split(b"\r\n") if not (hidden and line[:3].lower() == b"to:")
    )
    return _joined(lines, headers, boundary)


def _joined(lines: list[str], original: bytes, boundary: str) -> bytes:
    head = "\r\n".join(lines).encode()
    return b"".join([head, b"\r\n", original, b"\r\n\r\n--", boundary.encode(), b"--\r\n"])


def _date(ms: int) -> str:
    return formatdate(ms / 1000)
