# ruff: noqa: E501 - lines as they are written by machines
"""Bounces, delays and challenges as systems of the world word them; each says who it is about and what is wrong."""

import pytest

from policy.replies import category_of, classify
from smtp.findings import AutoReply, Bounce
from smtp.understand import understand

ANN = "ann@example.net"
OUR_PATH = "b+12x@bounces.example"


def _mail(text: str, subject: str, author: str, more: str = "") -> bytes:
    header = f"From: {author}\nTo: {OUR_PATH}\nSubject: {subject}\n{more}Content-Type: text/plain; charset=utf-8\n\n"
    return f"{header}{text}".encode()


DAEMON = "Mail Delivery System <mailer-daemon@mx.example>"
UNDELIVERED = "Undelivered Mail Returned to Sender"

# sender, subject, text, what is wrong
TOLD: dict[str, tuple[str, str, str, str]] = {
    "Exim's warning after hours": (
        DAEMON,
        "Warning: message 1Nu3PW-0004hr-Lq delayed 24 hours",
        (
            "This message was created automatically by mail delivery software.\nA message that you sent has not yet been "
            "delivered to one or more of its\nrecipients after more than 24 hours on the queue on mx.example.\n\nThe "
            "message identifier is:     1Nu3PW-0004hr-Lq\nThe subject of the message is: Sale\nThe date of the message is: "
            "Tue, 1 Jan 2019 10:00:00 +0000\n\nThe address to which the message has not yet been delivered is:\n\n  "
            "ann@example.net\n\nNo action is required on your part. Delivery attempts will continue for\nsome time, and this "
            "warning may be repeated at intervals if the message\nremains undelivered.\n"
        ),
        "delayed",
    ),
    "sendmail's warning after 4 hours": (
        "Mail Delivery Subsystem <MAILER-DAEMON@mx.example>",
        "Warning: could not send message for past 4 hours",
        (
            "    **********************************************\n    **      THIS IS A WARNING MESSAGE ONLY      **\n    "
            "**  YOU DO NOT NEED TO RESEND YOUR MESSAGE  **\n    **********************************************\n\nThe "
            "original message was received at Mon, 1 Jan 2018 04:00:00 GMT\nfrom mail [192.0.2.1]\n\n   ----- The following "
            "addresses had transient non-fatal errors -----\n<ann@example.net>\n\n   ----- Transcript of session follows "
            "-----\n<ann@example.net>... Deferred: Connection timed out with example.net.\nWarning: message still "
            "undelivered after 4 hours\nWill keep trying until message is 5 days old\n"
        ),
        "delayed",
    ),
    "an old Exim that gave up": (
        DAEMON,
        "Mail delivery failed: returning message to sender",
        (
            "A message that you sent could not be delivered to one or more of its\nrecipients. This is a permanent error. "
            "The following address(es) failed:\n\n  bob@elsewhere.example\n    (ultimately generated from ann@example.net)\n"
            "    all hosts for 'elsewhere.example' have been failing for a long time (and retry time not reached)\n"
        ),
        "expired",
    ),
    "Exim with an alias": (
        DAEMON,
        "Mail delivery failed: returning message to sender",
        (
            "A message that you sent could not be delivered to one or more of its\nrecipients. The following address(es) "
            "failed:\n\n  bob@elsewhere.example\n    (generated from ann@example.net)\n    host mx.elsewhere.example "
            "[192.0.2.9]\n    SMTP error from remote mail server after RCPT TO:<bob@elsewhere.example>:\n    550 5.1.1 "
            "<bob@elsewhere.example>: Recipient address rejected: User unknown\n"
        ),
        "invalid_recipient",
    ),
    "Postfix with an alias": (
        DAEMON,
        UNDELIVERED,
        (
            "This is the mail system at host mx.example.\n\nI'm sorry to have to inform you that your message could not\nbe "
            "delivered to one or more recipients. It's attached below.\n\n<bob@elsewhere.example> (expanded from "
            "<ann@example.net>): host\n    mx.elsewhere.example[192.0.2.9] said: 552 5.2.2 Mailbox full (in reply to RCPT\n    "
            "TO command)\n"
        ),
        "mailbox_full",
    ),
    "AOL greets us": (
        "Mail Delivery Subsystem <MAILER-DAEMON@aol.com>",
        "Mail Delivery Problem",
        (
            f"Sorry {OUR_PATH}. Your mail to the following recipients could not be delivered because they are not "
            "accepting mail with attachments or embedded images:\n\n\tann@example.net\n"
        ),
        "other",
    ),
    "Exchange 2003": (
        "System Administrator <postmaster@corp.example>",
        "Undeliverable: Sale",
        (
            "Your message\n\n  To:      Ann\n  Subject: Sale\n  Sent:    Tue, 1 Jan 2008 10:00:00 +0100\n\ndid not reach the "
            "following recipient(s):\n\nann@example.net on Tue, 1 Jan 2008 10:00:02 +0100\n    The e-mail account does not "
            "exist at the organization this message was sent to.  Check the e-mail address, or contact the recipient "
            "directly to find out the correct address.\n    <mx.corp.example #5.1.1>\n"
        ),
        "invalid_recipient",
    ),
    "Exchange in German": (
        "Postmaster <postmaster@firma.example>",
        "Unzustellbar: Angebot",
        (
            "Fehler bei der Zustellung an folgende Empfänger oder Verteilerlisten:\n\nann@example.net\nDie eingegebene "
            "E-Mail-Adresse konnte nicht gefunden werden. Überprüfen Sie die E-Mail-Adresse, und versuchen Sie, die "
            "Nachricht erneut zu senden.\n\nDiagnoseinformation für Administratoren:\n\nGenerierender Server: "
            "ex.firma.example\n\nann@example.net\n#550 5.1.1 RESOLVER.ADR.RecipNotFound; not found ##\n"
        ),
        "invalid_recipient",
    ),
    "Exchange in French": (
        "postmaster@societe.example",
        "Non remis : Offre",
        (
            "Échec de la remise pour ces destinataires ou groupes :\n\nann@example.net\nLa boîte aux lettres du destinataire "
            "est pleine et ne peut plus accepter de messages. Réessayez plus tard.\n\nInformations de diagnostic pour les "
            "administrateurs :\nann@example.net\nRemote Server returned '554 5.2.2 mailbox full; "
            "STOREDRV.Deliver.Exception:QuotaExceededException'\n"
        ),
        "mailbox_full",
    ),
    "GroupWise": (
        "Mailer-Daemon@gw.example",
        "Message status - undeliverable",
        (
            "The message that you sent was undeliverable to the following:\n\tann@example.net (user not found)\n\n"
            "Possibly truncated original message follows:\n\n"
        ),
        "invalid_recipient",
    ),
    "Domino": (
        "Postmaster@notes.example",
        "DELIVERY FAILURE: User ann (ann@example.net) not listed in Domino Directory",
        (
            "Your message\n\n  Subject: Sale\n\nwas not delivered to:\n\n  ann@example.net\n\nbecause:\n\n  User ann "
            "(ann@example.net) not listed in Domino Directory\n"
        ),
        "invalid_recipient",
    ),
    "Courier": (
        '"Courier mail server at mx.example" <@mx.example>',
        "NOTICE: mail delivery status.",
        (
            "This is a delivery status notification from mx.example,\nrunning the Courier mail server, version 0.65.\n\nThe "
            "original message was received on Tue, 1 Jan 2013 10:00:00 +0100\nfrom mail.example (mail.example "
            "[192.0.2.1])\n\n---------------------------------------------------------------------------\n\n               "
            "                UNDELIVERABLE MAIL\n\nYour message to the following recipients cannot be delivered:\n\n"
            "<ann@example.net>:\n    mx.example.net [192.0.2.9]:\n<<< 550 User unknown.\n"
        ),
        "invalid_recipient",
    ),
    "MDaemon": (
        "Postmaster@md.example",
        "Permanent Delivery Failure",
        (
            "The following data may contain sections which represent BASE64 encoded\nfile attachments. \n\n--- Session "
            "Transcript ---\n Tue 2015-01-06 10:00:00: Attempting SMTP connection to [192.0.2.9]\n Tue 2015-01-06 10:00:01: "
            "--> RCPT To:<ann@example.net>\n Tue 2015-01-06 10:00:01: <-- 550 5.7.1 Message blocked using bl.spamcop.net\n"
            "--- End Transcript ---\n"
        ),
        "blocklisted_ip",
    ),
    "Mimecast": (
        "Mimecast Postmaster <postmaster@mimecast.example>",
        "[Postmaster] Email Delivery Failure",
        (
            "This is a delivery failure notification message indicating that an email you addressed to email address :\n-- "
            "ann@example.net\ncould not be delivered. The problem appears to be :\n-- Recipient email server rejected the "
            "message\nAdditional information follows :\n-- 550 Rejected by header based Anti-Spoofing policy\nThis "
            "condition occurred after 1 attempt(s) to deliver over a period of 0 hour(s).\n"
        ),
        "recipient_policy",
    ),
    "Barracuda": (
        "MAILER-DAEMON@barracuda.example (Mail Delivery System)",
        "Undelivered Mail Returned to Sender",
        (
            "Your message to <ann@example.net> was blocked by our Spam Firewall. The email you sent with the following "
            "subject has NOT BEEN DELIVERED:\n\nSubject: Sale\n"
        ),
        "spam_content",
    ),
    "qmail on a full disk": (
        "MAILER-DAEMON@q.example",
        "failure notice",
        (
            "Hi. This is the qmail-send program at q.example.\nI'm afraid I wasn't able to deliver your message to the "
            "following addresses.\nThis is a permanent error; I've given up. Sorry it didn't work out.\n\n"
            "<ann@example.net>:\nThe users mailfolder is over the allowed quota (size). (#5.2.2)\n"
        ),
        "mailbox_full",
    ),
    "Zimbra": (
        "MAILER-DAEMON@zimbra.example",
        UNDELIVERED,
        (
            "This is the mail system at host zimbra.example.\n\n<ann@example.net>: host zimbra.example[192.0.2.9] said: 550 "
            "5.1.1\n    <ann@example.net>: Recipient address rejected: example.net (in reply to RCPT TO command)\n"
        ),
        "invalid_recipient",
    ),
    "Proofpoint": (
        "Mail Delivery Subsystem <MAILER-DAEMON@pp.example>",
        "Returned mail: see transcript for details",
        (
            "   ----- The following addresses had permanent fatal errors -----\n<ann@example.net>\n    (reason: 554 Blocked - "
            "see https://ipcheck.proofpoint.com/?ip=192.0.2.1)\n"
        ),
        "reputation_ip",
    ),
    "Spanish": (
        "postmaster@correo.example",
        "No se puede entregar: Oferta",
        (
            "Su mensaje no pudo ser entregado a los siguientes destinatarios:\n\nann@example.net\n    El buzón del "
            "destinatario está lleno\n"
        ),
        "mailbox_full",
    ),
    "Italian": (
        "mailer-daemon@posta.example",
        "Mancata consegna del messaggio",
        "Impossibile recapitare il messaggio al seguente destinatario:\n\nann@example.net\n    Utente sconosciuto\n",
        "invalid_recipient",
    ),
    "Portuguese": (
        "mailer-daemon@correio.example",
        "Mensagem não entregue",
        (
            "A sua mensagem não pôde ser entregue ao seguinte destinatário:\n\nann@example.net\n    A caixa postal do "
            "destinatário está cheia\n"
        ),
        "mailbox_full",
    ),
    "Russian": (
        "mailer-daemon@pochta.example",
        "Недоставленное сообщение",
        (
            "Это письмо создано автоматически сервером. К сожалению, мы не смогли доставить ваше письмо следующим "
            "адресатам:\n\nann@example.net\n    Пользователь не найден\n"
        ),
        "invalid_recipient",
    ),
    "Polish": (
        "mailer-daemon@poczta.example",
        "Niedostarczona wiadomość",
        (
            "Wiadomość nie mogła zostać dostarczona do następującego odbiorcy:\n\nann@example.net\n    Skrzynka odbiorcy "
            "jest przepełniona\n"
        ),
        "mailbox_full",
    ),
    "Dutch": (
        "postmaster@post.example",
        "Onbestelbaar: Aanbieding",
        "Uw bericht kon niet worden bezorgd aan de volgende geadresseerde:\n\nann@example.net\n    Gebruiker onbekend\n",
        "invalid_recipient",
    ),
    "Japanese": (
        "MAILER-DAEMON@mail.example",
        "配信不能のお知らせ",
        "以下の宛先にメールを配信できませんでした。\n\n<ann@example.net>\n    宛先が見つかりません\n",
        "invalid_recipient",
    ),
    "Chinese": (
        "postmaster@mail.example",
        "系统退信",
        "很抱歉您的邮件被退回来了，以下是该邮件的相关信息：\n\n收件人邮件地址：ann@example.net\n退信原因：收件人邮箱已满\n",
        "mailbox_full",
    ),
}


@pytest.mark.parametrize(("author", "subject", "text", "wrong"), TOLD.values(), ids=TOLD.keys())
def test_a_notice_says_whom_it_is_about_and_what_is_wrong(author: str, subject: str, text: str, wrong: str) -> None:
    (found,) = understand(_mail(text, subject, author))
    assert isinstance(found, Bounce)
    assert found.recipient == ANN
    reading = classify(code=found.code, enhanced=found.enhanced, text=found.text)
    said = found.action if found.action != "failed" else "expired" if found.expired else reading.category
    assert said == wrong


def _report(status: str, notice: str = "It failed.", author: str = DAEMON) -> bytes:
    return (
        f"From: {author}\nTo: {OUR_PATH}\nSubject: {UNDELIVERED}\n"
        "Content-Type: multipart/report; report-type=delivery-status; boundary=x\n\n"
        f"--x\nContent-Type: text/plain\n\n{notice}\n--x\nContent-Type: message/delivery-status\n\n"
        f"Reporting-MTA: dns; mx.example\n\n{status}\n--x--\n"
    ).encode()


@pytest.mark.parametrize(
    ("status", "notice", "recipient"),
    [
        pytest.param(
            "Final-Recipient: rfc822; bob@elsewhere.example\nOriginal-Recipient: rfc822; ann@example.net\n"
            "Action: failed\nStatus: 5.1.1\n",
            "<bob@elsewhere.example> (expanded from <ann@example.net>): unknown user",
            ANN,
            id="the original recipient counts",
        ),
        pytest.param(
            "Final-Recipient: rfc822; bob@elsewhere.example\nAction: failed\nStatus: 5.1.1\n",
            "<bob@elsewhere.example> (expanded from <ann@example.net>): unknown user",
            ANN,
            id="and stands in the text",
        ),
        pytest.param(
            "Final-Recipient: rfc822; 1@mx.example\nOriginal-Recipient: rfc822; 1\nAction: failed\nStatus: 5.1.1\n",
            '<1@mx.example> (expanded from <1>): unknown user: "1"',
            "1@mx.example",
            id="a local name is no address",
        ),
        pytest.param(
            "Original-Recipient: rfc822;<ann@example.net>\nFinal-Recipient: LOCAL;<ann>\nAction: failed\n"
            "Status: 5.0.0\n",
            "Failed to deliver to '<ann@example.net>'\nLOCAL module(account ann) reports:\n account is full",
            ANN,
            id="not the name of a local account",
        ),
    ],
)
def test_a_recipient_is_named_as_we_wrote_to_it(status: str, notice: str, recipient: str) -> None:
    (found,) = understand(_report(status, notice))
    assert isinstance(found, Bounce)
    assert found.recipient == recipient


WAITLISTED = "Final-Recipient: rfc822; ann@example.net\nAction: failed\nStatus: 4.7.0\n"


def test_a_guard_that_calls_its_question_a_delivery_status_is_not_counted() -> None:
    (found,) = understand(_report(WAITLISTED, "Your message was waitlisted. Click here.", "noreply@boxbe.com"))
    assert isinstance(found, AutoReply)
    assert found.what == "challenge"


def test_the_mail_server_of_such_a_service_bounces_like_others() -> None:
    (found,) = understand(_report(WAITLISTED.replace("4.7.0", "5.1.1"), author="MAILER-DAEMON@boxbe.com"))
    assert isinstance(found, Bounce)
    assert category_of(classify(code=found.code, enhanced=found.enhanced, text=found.text).category).kind == "hard"
