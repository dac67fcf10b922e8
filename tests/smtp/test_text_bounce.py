"""Bounces that only people were meant to read, of many systems and in many languages."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.replies import classify
from smtp.bounce_words import fold, meant
from smtp.findings import AutoReply, Bounce, Unclear
from smtp.mime import read
from smtp.notice import apart, plain
from smtp.understand import understand

ANN = "ann@example.net"
COPY = (
    "Return-Path: <b+x@bounces.example>\nFrom: news@shop.example\nTo: ann@example.net\nMessage-ID: <1@shop>\n\nhello\n"
)
QMAIL = "I'm afraid I wasn't able to deliver your message to the following addresses.\n\n<ann@example.net>:\n"
EXIM = "A message that you sent could not be delivered to one or more of its\nrecipients. The following "
"address(es) failed:\n"
DOMINO = "Your message\n\n  Subject: Sale\n\nwas not delivered to:\n\n  ann@example.net\n\nbecause:\n\n  "


def _mail(
    text: str,
    *,
    subject: str = "Undelivered Mail Returned to Sender",
    author: str = "MAILER-DAEMON@mx.example",
    charset: str = "utf-8",
    content_type: str = "text/plain",
    more: str = "",
) -> bytes:
    word = base64.b64encode(subject.encode(charset)).decode()
    named = subject if subject.isascii() else f"=?{charset}?B?{word}?="
    header = f"From: {author}\nSubject: {named}\n{more}Content-Type: {content_type}; charset={charset}\n\n"
    return header.encode() + text.encode(charset)


def _told(raw: bytes) -> list[tuple[str, str | None]]:
    """Category (or what is only noted) and recipient."""
    told: list[tuple[str, str | None]] = []
    for one in understand(raw):
        assert isinstance(one, Bounce), one
        if one.action != "failed":
            told.append((one.action, one.recipient))
            continue
        reading = classify(code=one.code, enhanced=one.enhanced, text=one.text)
        told.append(("expired" if one.expired else reading.category, one.recipient))
    return told


@pytest.mark.parametrize(
    ("text", "category"),
    [
        pytest.param(
            f"{QMAIL}Sorry, I couldn't find any host named x. (#5.1.2)\n\n--- Below\n", "bad_domain", id="qmail"
        ),
        pytest.param(
            f"{QMAIL}CNAME lookup failed temporarily. (#4.4.3)\nI'm not going to try again; this message has "
            f"been in the "
            "queue too long.\n",
            "expired",
            id="qmail that gave up",
        ),
        pytest.param(
            f"{EXIM}\n  ann@example.net\n    host mx [192.0.2.1]: 550 5.1.1 user unknown\n\n------ This is a "
            f"copy of the "
            f"message, including all the headers. ------\n\n{COPY}",
            "invalid_recipient",
            id="Exim",
        ),
        pytest.param(
            f"{EXIM}\n  ann@example.net\n    Connection timed out: retry timeout exceeded\n", "expired", id="Exim, late"
        ),
        pytest.param(
            "   ----- The following addresses had permanent fatal errors -----\n<ann@example.net>\n    (reason: "
            "550 5.1.1 "
            "User unknown)\n\n   ----- Transcript of session follows -----\n>>> DATA\n<<< 550 5.1.1 User unknown\n"
            "<<< 503 5.0.0 Need RCPT (recipient)\n",
            "invalid_recipient",
            id="Sendmail",
        ),
        pytest.param(
            "<ann@example.net>: host mx[192.0.2.1] said: 554 5.7.1 Service\n    unavailable; Client host [192.0.2.9] "
            "blocked using bl.spamcop.net (in reply\n    to RCPT TO command)\n",
            "blocklisted_ip",
            id="Postfix",
        ),
        pytest.param(
            "YOUR MESSAGE WAS NOT DELIVERED TO:\n\n> ann@example.net\n\n<-- 220 mx ESMTP\n<-- 250 ok\n--> RCPT To:"
            "<ann@example.net>\n<-- 550 5.1.1 Recipient unknown\n--> QUIT\n",
            "invalid_recipient",
            id="MDaemon, with all the good news of the session",
        ),
        pytest.param(
            f"{DOMINO}User ann (ann@example.net) not listed in Domino Directory\n", "invalid_recipient", id="Domino"
        ),
        pytest.param(f"{DOMINO}Delivery time expired\n", "expired", id="Domino, late"),
        pytest.param(
            "The attached file had the following undeliverable recipient(s):\n\tann@example.net\n\nTranscript "
            "of session "
            "follows:\n  550 5.2.2 mailbox full\n",
            "mailbox_full",
            id="GroupWise",
        ),
        pytest.param(
            "The following recipient(s) could not be reached:\n\n      ann@example.net on 1/2/2026 3:05 PM\n    "
            "        The "
            "e-mail account does not exist at the organization.\n            <mx.example.net #5.1.1>\n",
            "invalid_recipient",
            id="Exchange 2003",
        ),
        pytest.param(
            "Delivery has failed to these recipients or groups:\n\nann@example.net<mailto:ann@example.net>\nThe "
            "mailbox is "
            "full.\n\nann@example.net\nRemote Server returned '554 5.2.2 mailbox full;\nSTOREDRV.Deliver'\n",
            "mailbox_full",
            id="Exchange of today",
        ),
        pytest.param(
            "** Address not found **\n\nYour message wasn't delivered to ann@example.net because the address "
            "couldn't be "
            "found, or is unable to receive mail.\n",
            "invalid_recipient",
            id="Google, without a code",
        ),
        pytest.param(
            "mail for ann@example.net could not be delivered: loops back to myself\n", "routing_loop", id="a loop"
        ),
        pytest.param(
            "Your message to ann@example.net could not be delivered.\n", "other", id="no reason is no accusation"
        ),
        pytest.param(
            "Your mail to ann@example.net could not be delivered: he is not on the list of 550 guests\n",
            "other",
            id="a number",
        ),
    ],
)
def test_what_systems_write_to_people_is_understood(text: str, category: str) -> None:
    assert _told(_mail(text)) == [(category, ANN)]


UNKNOWN = [
    ("de", "iso-8859-1", "Unzustellbar: Sale", "Empfänger: ann@example.net\nGrund: Empfänger unbekannt"),
    ("fr", "windows-1252", "Échec de la remise", "N'a pas pu être remis à :\n ann@example.net\nutilisateur inconnu"),
    ("es", "utf-8", "Correo devuelto", "No se pudo entregar:\n<ann@example.net>\n\nMotivo: El usuario no existe"),
    ("pt", "iso-8859-1", "Mensagem devolvida", "Destinatário: ann@example.net\nMotivo: usuário inexistente"),
    ("it", "utf-8", "Mancato recapito", "Impossibile consegnare a ann@example.net\nMotivo: utente sconosciuto"),
    ("nl", "us-ascii", "Onbestelbaar: Sale", "Kon niet worden bezorgd aan ann@example.net.\nGebruiker onbekend."),
    ("sv", "iso-8859-1", "Kunde inte levereras", "Meddelandet till ann@example.net: okänd mottagare"),
    ("pl", "iso-8859-2", "Zwrot wiadomości", "Nie można dostarczyć do: ann@example.net\nNieznany użytkownik"),
    ("cs", "windows-1250", "Nedoručitelné", "Nebylo možné doručit na ann@example.net: uživatel neexistuje"),
    ("tr", "iso-8859-9", "Teslim edilemedi", "Teslim edilemedi: ann@example.net\nBilinmeyen kullanıcı"),
    ("ru", "koi8-r", "Сообщение не доставлено", "Не доставлено:\n\n<ann@example.net>:\nпользователь не найден"),
    ("ja", "iso-2022-jp", "配信できません", "配信できませんでした\n\n<ann@example.net>:\nユーザーが存在しません。"),
    ("zh", "gbk", "系统退信", "您的邮件无法送达:\n\n  ann@example.net\n\n退信原因: 收件人邮箱不存在"),
    ("zh-tw", "big5", "郵件退回", "郵件無法傳遞\n<ann@example.net>: 查無此人"),
    ("ko", "euc-kr", "메일 전송 실패", "전송할 수 없습니다.\nann@example.net\n존재하지 않는 사용자입니다."),
]


@pytest.mark.parametrize(("charset", "subject", "text"), [row[1:] for row in UNKNOWN], ids=[row[0] for row in UNKNOWN])
def test_nobody_of_that_name_in_many_languages_and_charsets(charset: str, subject: str, text: str) -> None:
    raw = _mail(text, subject=subject, charset=charset, author="postmaster@isp.example")

    assert _told(raw) == [("invalid_recipient", ANN)]


@pytest.mark.parametrize(
    "text",
    [
        "Das Postfach des Empfängers ist voll",
        "la boîte aux lettres est pleine",
        "el buzón está lleno",
        "caixa postal cheia",
        "skrzynka jest pełna",
        "ящик переполнен",
        "メールボックスがいっぱいです",
        "信箱已滿",
    ],
)
def test_a_full_mailbox_in_many_languages_is_no_dead_address(text: str) -> None:
    assert _told(_mail(f"Undeliverable: <ann@example.net>: {text}\n")) == [("mailbox_full", ANN)]


@pytest.mark.parametrize(
    "text",
    [
        "550 Ваше письмо отклонено: похоже на спам",
        "550 邮件被拦截: 垃圾邮件",
        "550 Nachricht blockiert, unerwünscht",
        "550 mensaje bloqueado, no existe permiso",
        "550 Sender IP 192.0.2.4 rejected, reputation too low; see http://x/user-not-found",
    ],
)
def test_a_block_in_words_is_never_the_recipients_fault(text: str) -> None:
    ((category, _),) = _told(_mail(f"<ann@example.net>: host mx said: {text}\n"))

    assert category in {"policy_block", "spam_content", "reputation_ip", "blocklisted_ip"}


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        (
            "Warning: could not send message for past 4 hours",
            "THIS IS A WARNING MESSAGE ONLY\n<ann@example.net>... Deferred",
        ),
        (
            "Delivery Status Notification (Delay)",
            "Delivery incomplete. ann@example.net. Gmail will retry for 46 more hours.",
        ),
        ("Message delayed", "has been delayed: ann@example.net\nDelivery attempts will continue for 5 days"),
        ("Verzögert", "Weitere Zustellversuche an ann@example.net folgen"),
        ("Warning", "Your message is delayed, unable to deliver yet.\n\n<ann@example.net>:\nconnection refused\n"),
    ],
)
def test_what_waits_has_not_failed(subject: str, text: str) -> None:
    assert _told(_mail(text, subject=subject)) == [("delayed", ANN)]


def test_every_recipient_has_its_own_reason() -> None:
    text = "<ann@example.net>: host mx said: 550 5.1.1\n    unknown user\n\n<bob@example.net>: 552 5.2.2 over quota\n"

    assert _told(_mail(text)) == [("invalid_recipient", ANN), ("mailbox_full", "bob@example.net")]


def test_who_is_named_in_the_header_counts_and_a_forwarder_is_traced_back() -> None:
    text = f"{EXIM}\n  fwd@other.example\n    (generated from ann@example.net)\n    mailbox is full\n"

    assert _told(_mail(text, more="X-Failed-Recipients: fwd@other.example\n")) == [("mailbox_full", ANN)]


def test_a_text_in_html_only_is_read_as_people_see_it() -> None:
    text = (
        "<html><head><style>p { x: 'user unknown' }</style></head><body><p>Your message to "
        "&lt;ann@example.net&gt; could "
        "not be<br>delivered.</p><table><tr><td>Reason: no such user here</td></tr></table></body></html>"
    )

    assert _told(_mail(text, content_type="text/html")) == [("invalid_recipient", ANN)]


def test_the_returned_mail_names_its_only_addressee_and_the_clues() -> None:
    (found,) = understand(_mail(f"Could not be delivered: user unknown\n\n--- Original message ---\n\n{COPY}"))

    assert isinstance(found, Bounce)
    assert found.recipient == ANN
    assert found.clues.return_paths[0] == "b+x@bounces.example"


def test_a_report_in_a_message_of_a_gateway_is_read() -> None:
    inner = (
        "Content-Type: multipart/report; boundary=i\n\n--i\n\nno\n--i\nContent-Type: message/delivery-status\n\n"
        "Reporting-MTA: dns; x\n\nFinal-Recipient: rfc822; ann@example.net\nAction: failed\nStatus: 5.1.1\n\n--i--\n"
    )
    text = f"--o\nContent-Type: message/rfc822\n\n{inner}\n--o--\n"

    assert _told(_mail(text, content_type="multipart/mixed; boundary=o")) == [("invalid_recipient", ANN)]


def test_a_broken_delivery_status_leaves_it_to_the_words() -> None:
    text = (
        "--o\nContent-Type: text/plain\n\nDelivery failed to:\n\nann@example.net\n\n--o\nContent-Type: text/plain\n\n"
        "Remote server returned '550 5.1.1 not found'\n--o\nContent-Type: message/delivery-status\n\ngarbage\n--o--\n"
    )

    assert _told(_mail(text, content_type="multipart/report; boundary=o")) == [("invalid_recipient", ANN)]


@pytest.mark.parametrize(
    ("author", "subject", "text"),
    [
        ("ann@example.net", "Re: Sale", "It was returned to me, user unknown. Ask bob@example.net."),
        ("shop@other.example", "Great offers", "Undeliverable offers! user unknown! sales@other.example"),
        ("support@other.example", "[#12] Ticket received", "We have your mail about ann@example.net."),
    ],
)
def test_what_people_and_shops_write_is_no_bounce(author: str, subject: str, text: str) -> None:
    (found,) = understand(_mail(text, author=author, subject=subject))

    assert isinstance(found, Unclear | AutoReply)


def test_an_absence_note_of_a_robot_is_no_bounce() -> None:
    (found,) = understand(_mail("Mail to ann@example.net will not be delivered. 550", subject="Out of office"))

    assert isinstance(found, Unclear | AutoReply)


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("Zustellung  unmöglich:\nBENUTZER UNBEKANNT", "1.1"),
        ("blocked: user unknown", "7.1"),
        ("Mailbox is FULL", "2.2"),
        ("hello", None),
    ],
)
def test_words_mean_what_they_should(text: str, detail: str | None) -> None:
    assert meant(fold(text)) == detail


@given(st.text(max_size=300))
def test_folding_is_done_once(text: str) -> None:
    assert fold(fold(text)) == fold(text)


@given(
    st.text(alphabet="@<>ab.: \n-\r\t\u200b", max_size=300),
    st.sampled_from(["text/plain", "text/html", "message/rfc822"]),
)
def test_no_text_of_a_robot_is_an_error(text: str, content_type: str) -> None:
    assert len(understand(_mail(f"could not be delivered {text}", content_type=content_type))) >= 1


def test_the_line_above_a_copy_divides_and_a_sentence_does_not() -> None:
    text = "Do not resend your original message.\n> ann@example.net\n--- Original message follows ---\n\nSubject: x\n"

    assert apart(text) == (["Do not resend your original message.", "> ann@example.net"], "Subject: x")


@pytest.mark.parametrize(
    ("html", "words"),
    [
        ("<p>a<p>b", "a\nb"),
        ("<STYLE>x</STYLE>a &amp; <b>b</b>", "a & b"),
        ("<style>never ends", "never ends"),
        ("to <ann@example.net> it", "to <ann@example.net> it"),
    ],
)
def test_html_is_read_as_people_see_it(html: str, words: str) -> None:
    (part,) = read(f"Content-Type: text/html\n\n{html}".encode()).parts

    assert plain(part).strip() == words
