"""Robots that answer for people, in many languages; and what only looks like one."""

from email.header import Header

import pytest

from smtp.findings import AutoReply
from smtp.understand import understand

PERSON = "Ann <ann@example.org>"


def mail(subject: str, *fields: str, sender: str = PERSON, text: str = "Thank you.") -> bytes:
    shown = subject if subject.isascii() else Header(subject, "utf-8", maxlinelen=900).encode()
    lines = (f"From: {sender}", f"Subject: {shown}", *fields, "", text, "")
    return "\r\n".join(lines).encode()


def what(raw: bytes) -> str | None:
    (found,) = understand(raw)
    return found.what if isinstance(found, AutoReply) else None


@pytest.mark.parametrize(
    "subject",
    [
        *("Out of Office", "Automatic reply: Spring sale", "Re: Out of office", "Autoreply: hello"),
        *("Abwesenheitsnotiz: Frühling", "Automatische Antwort: Angebot", "Réponse automatique : offre"),
        *("Absence du bureau", "Risposta automatica: Offerta", "Fuori ufficio", "Respuesta automática: Oferta"),
        *("Resposta automática: Promoção", "Automatisch antwoord: aanbod", "Autosvar: Tilbud"),
        *("Automatiskt svar: erbjudande", "Automaattinen vastaus: tarjous", "Odpowiedź automatyczna: oferta"),
        *("Automatická odpověď: nabídka", "Automatikus válasz: ajánlat", "Răspuns automat: ofertă"),
        *("Otomatik Yanıt: teklif", "Автоматический ответ: акция", "Автоматична відповідь: акція"),
        *("Αυτόματη απάντηση: προσφορά", "自動返信: セール", "自动回复: 优惠", "자동 회신: 세일", "رد تلقائي: عرض"),
    ],
)
def test_an_absence_is_known_by_its_subject(subject: str) -> None:
    assert what(mail(subject)) == "reply"


@pytest.mark.parametrize(
    "field",
    [
        "Auto-Submitted: auto-replied",
        "Auto-Submitted: auto-generated (vacation)",
        "Precedence: auto_reply",
        "X-Autoreply: yes",
        "X-Autorespond: hello",
    ],
)
def test_an_absence_is_known_by_its_header(field: str) -> None:
    assert what(mail("Your spring sale", field)) == "reply"


@pytest.mark.parametrize(
    ("subject", "sender"),
    [
        ("Your spring sale", "Spam Arrest <verify@spamarrest.com>"),
        ("Please confirm your message", "ann-confirm-123.abc@example.org"),
        ("Your email requires verification", "ann@boxbe.com"),
    ],
)
def test_a_guard_that_asks_whether_we_are_human_is_a_challenge(subject: str, sender: str) -> None:
    assert what(mail(subject, sender=sender)) == "challenge"


def test_a_help_desk_sends_a_receipt() -> None:
    assert what(mail("Ticket received: 4711", "Auto-Submitted: auto-replied", "X-Zammad-Ticket-Id: 4711")) == "receipt"


@pytest.mark.parametrize(
    ("subject", "fields"),
    [
        ("Re: Spring sale", ()),
        ("Can I still order?", ()),
        ("Spring sale", ("Auto-Submitted: no",)),
    ],
)
def test_a_persons_letter_is_none(subject: str, fields: tuple[str, ...]) -> None:
    assert what(mail(subject, *fields)) is None


@pytest.mark.parametrize(
    "subject", ["Undelivered Mail Returned to Sender", "Unzustellbar: Angebot", "failure notice", "Delivery Status"]
)
def test_a_mail_server_that_speaks_of_a_delivery_is_none_whatever_its_header_says(subject: str) -> None:
    raw = mail(subject, "Auto-Submitted: auto-replied", "Precedence: auto_reply", sender="MAILER-DAEMON@mx.example")
    assert what(raw) is None
