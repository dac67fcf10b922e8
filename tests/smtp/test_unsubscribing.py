"""Unsubscribing by mail: the second way that List-Unsubscribe names, through a real listener."""

import email.policy
from email.header import Header
from email.message import EmailMessage

import pytest

from policy.tokens import Keys, address_hash, unsubscribe_token
from schemas.dead_letters import DeadLetter
from schemas.feedback import Feedback
from smtp.unsubscribing import unsubscribed_by_mail
from tests.smtp.mailroom import KEYS, NOW, OTHER_KEYS, SENT_AT, Kafka, context, counted, returned, running
from tests.smtp.wire import Wire

ADDRESS = "unsub@bounces.shop.example"
ANN = address_hash(KEYS, "ann@example.com")


def token(keys: Keys = KEYS, campaign: str = "spring-sale", message_id: str = "m-1") -> str:
    return unsubscribe_token(keys, campaign=campaign, message_id=message_id, address_hash=ANN, sent_at=SENT_AT)


def mail(subject: str) -> bytes:
    return f"From: <someone@else.example>\r\nSubject: {subject}\r\n\r\n\r\n".encode()


def refolded(subject: str) -> bytes:
    """As Python's own library writes a long subject: in encoded words."""
    message = EmailMessage(policy=email.policy.SMTP)
    message["Subject"] = subject
    return message.as_bytes()


LONG = "a" * 26
WRITTEN = {
    "bare": mail(token()),
    "folded": mail(f"\r\n {token()}"),
    "reply": mail(f"Re: {token()}"),
    "encoded-words": refolded(token(message_id=LONG)),
    "base64-words": mail(Header(token(), "utf-8", maxlinelen=60).encode(linesep="\r\n")),
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_mail_with_our_token_unsubscribes_its_address(kind: str) -> None:
    meaning = unsubscribed_by_mail(returned(WRITTEN[kind], rcpt=ADDRESS, mail_from="someone@else.example"), context())
    assert meaning == Feedback(
        kind="unsubscribe",
        campaign="spring-sale",
        message_id=LONG if kind == "encoded-words" else "m-1",
        at=NOW,
        sent_at=SENT_AT,
        address_hash=ANN,
        source="unsubscribe:mail",
    )


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (mail("unsubscribe"), "unsubscribe_without_token"),
        (mail(token(OTHER_KEYS)), "unsubscribe_bad_signature"),
        (mail(token(campaign="forgotten")), "unknown_campaign"),
        (b"", "unsubscribe_without_token"),
        (b"A: b\r\n" * 400 + mail(token()), "unsubscribe_without_token"),
        (b"Subject: " + b"=?utf-8?q?=3D?= " * 5_000 + b"\r\n\r\n", "unsubscribe_without_token"),
        (b"Subject: =?nonsense?b?!!!?=\r\n\r\n", "unsubscribe_without_token"),
    ],
    ids=["words", "forged", "campaign-gone", "nothing", "many-fields", "bomb", "broken-words"],
)
def test_other_mail_suppresses_nobody_and_is_kept(raw: bytes, reason: str) -> None:
    meaning = unsubscribed_by_mail(returned(raw, rcpt=ADDRESS), context())
    assert isinstance(meaning, DeadLetter)
    assert meaning.reason == reason


def test_a_message_whose_id_was_too_long_keeps_its_hash() -> None:
    meaning = unsubscribed_by_mail(returned(mail(token(message_id="x" * 100)), rcpt=ADDRESS), context())
    assert isinstance(meaning, Feedback)
    assert (meaning.message_id or "").startswith("h-")


async def test_the_listener_takes_it_and_says_250_when_kafka_has_it() -> None:
    kafka = Kafka()
    async with running(kafka) as listener:
        wire = await Wire.connect(listener.endpoint)
        said = [await wire.deliver("someone@else.example", ADDRESS, mail(token())) for _ in range(2)]
        wire.close()

    assert [one[:3] for one in said] == ["250", "250"]
    assert [(one.kind, one.address_hash) for one in kafka.feedback] == [("unsubscribe", ANN)]
    assert counted(listener, "repeats_total") == 1
