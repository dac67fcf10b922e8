"""Complaints by RFC 9477: a report that quotes our header, sent to the address that the mail named, is believed."""

from policy.templates import compile_content
from policy.tokens import address_hash
from schemas.feedback import Feedback
from schemas.sending import Content, OutboundMessage
from smtp.attempts import Envelope
from smtp.dkim import Key
from smtp.returned import meanings
from smtp.sending.compose import Composer
from smtp.understand import understand
from tests.smtp.mailroom import CAMPAIGNS, KEYS, NOW, SENT_AT, context, returned
from tests.smtp.test_dkim import RSA

REPORT = b"""From: <fbl@provider.example>\r
To: <%b>\r
Subject: complaint\r
MIME-Version: 1.0\r
Content-Type: multipart/report; report-type=feedback-report; boundary="b"\r
\r
--b\r
Content-Type: message/feedback-report\r
\r
Feedback-Type: abuse\r
Version: 1\r
User-Agent: test\r
\r
--b\r
Content-Type: text/rfc822-headers\r
\r
%b\r
--b--\r
"""


def test_a_report_to_the_address_in_our_mail_is_a_complaint_about_that_mail() -> None:
    template = compile_content(Content(campaign="spring-sale", content="x", subject="Hello", text="Dear Ann"))
    composer = Composer(KEYS, find_keys=lambda _: (Key("shop.example", "s1", RSA),))
    message = OutboundMessage(
        message_id="m-1", address="ann@example.com", address_hash=address_hash(KEYS, "ann@example.com")
    )
    envelope = composer.envelope(message, campaign=CAMPAIGNS["spring-sale"], template=template, now=SENT_AT)
    assert isinstance(envelope, Envelope)
    head = envelope.data.partition(b"\r\n\r\n")[0]
    (told,) = (line for line in head.split(b"\r\n") if line.startswith(b"CFBL-Address: "))
    where = told.removeprefix(b"CFBL-Address: ").partition(b";")[0]

    raw = REPORT % (where, head)
    found = meanings(returned(raw, rcpt=where.decode()), understand(raw), context())

    assert found == [
        Feedback(
            kind="complaint",
            campaign="spring-sale",
            message_id="m-1",
            at=NOW,
            sent_at=SENT_AT,
            address_hash=message.address_hash,
            provider="other",
            class_="abuse",
            source="return_path",
        )
    ]
    assert b"Return-Path" not in head  # nothing but CFBL-Feedback-ID told it
