"""Complaints in the forms that providers have: who is meant, about which of our messages, and how many."""

import pytest

from policy.naming import campaign_name
from policy.tokens import address_hash
from policy.traps import TrapFact
from schemas.feedback import Feedback
from smtp.arf import MAX_INCIDENTS
from smtp.clues import are_empty, clues_anywhere, clues_in, links_in, milliseconds
from smtp.findings import Clues, Report
from smtp.known import Known
from smtp.mime import Fields, read, read_fields
from smtp.returned import Context, meanings, trap_hit
from smtp.understand import understand
from tests.smtp.mailroom import CAMPAIGNS, KEYS, TRAP, context, returned, signed

ANN = "ann@example.net"
OURS = signed(to=ANN)
ORIGINAL = f"Return-Path: <{OURS}>\nFrom: news@shop.example\nTo: {ANN}\nSubject: Sale\nMessage-ID: <m-1@shop.example>\n"


def arf(fields: str, original: str = ORIGINAL, *, author: str = "fbl@provider.example") -> bytes:
    return (
        f"From: {author}\nTo: fbl@fbl.shop.example\nSubject: complaint\n"
        "Content-Type: multipart/report; report-type=feedback-report; boundary=x\n\n"
        "--x\nContent-Type: text/plain\n\nA user complained.\n"
        f"--x\nContent-Type: message/feedback-report\n\n{fields}\n"
        f"--x\nContent-Type: message/rfc822\n\n{original}\nhello\n--x--\n"
    ).encode()


FORMS = {
    "Amazon SES": (
        ("Feedback-Type: abuse\nUser-Agent: Amazon SES Mailbox Simulator\nVersion: 0.1\n"
        f"Original-Mail-From: <{OURS}>\nArrival-Date: Mon, 24 Nov 2025 10:00:00 GMT\nReported-Domain: shop.example\n"),
        ANN, None, 1,
    ),
    "Yahoo": (
        ("Feedback-Type: abuse\nUser-Agent: Yahoo!-Mail-Feedback/2.0\nVersion: 0.1\n"
        f"Original-Mail-From: <{OURS}>\nOriginal-Rcpt-To: {ANN}\nReceived-Date: Mon, 24 Nov 2025 10:00:00 -0000\n"
        "Source-IP: 192.0.2.7\nReported-Domain: shop.example\nAuthentication-Results: none\n"),
        ANN, "192.0.2.7", 1,
    ),
    "with its type as data": (f"Feedback-Type: ABUSE\nOriginal-Rcpt-To: rfc822;{ANN}\n", ANN, None, 1),
    "an IPv6 source": (
        f"Feedback-Type: abuse\nSource-IP: [IPv6:2001:db8::1]\nOriginal-Rcpt-To: <{ANN}>\n", ANN, "2001:db8::1", 1
    ),
    "many at once": (f"Feedback-Type: abuse\nIncidents: 12\nOriginal-Rcpt-To: {ANN}\n", ANN, None, 12),
    "no number": (f"Feedback-Type: abuse\nIncidents: many\nOriginal-Rcpt-To: {ANN}\n", ANN, None, 1),
    "none at all": (f"Feedback-Type: abuse\nIncidents: 0\nOriginal-Rcpt-To: {ANN}\n", ANN, None, 1),
    "below none": (f"Feedback-Type: abuse\nIncidents: -4\nOriginal-Rcpt-To: {ANN}\n", ANN, None, 1),
    "a foreign digit": (f"Feedback-Type: abuse\nIncidents: ٣\nOriginal-Rcpt-To: {ANN}\n", ANN, None, 1),
    "more than there can be": (
        f"Feedback-Type: abuse\nIncidents: 99999999999\nOriginal-Rcpt-To: {ANN}\n", ANN, None, MAX_INCIDENTS
    ),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "recipient", "ip", "incidents"), FORMS.values(), ids=FORMS.keys())
def test_a_feedback_report_says_who_where_and_how_many(
    fields: str, recipient: str, ip: str | None, incidents: int
) -> None:
    (found,) = understand(arf(fields))
    assert isinstance(found, Report)
    assert (found.type, found.recipient, found.source_ip, found.incidents) == ("abuse", recipient, ip, incidents)
    (meant,) = meanings(returned(arf(fields), rcpt="fbl@fbl.shop.example"), [found], context())
    assert isinstance(meant, Feedback)
    assert (meant.kind, meant.campaign, meant.message_id) == ("complaint", "spring-sale", "m-1")


OLD_FORMS = {
    "Microsoft JMRP": (
        "From: staff@hotmail.example\nSubject: complaint about message from 192.0.2.7\n"
        "Content-Type: message/rfc822\n\nX-HmXmrOriginalRecipient: ann@example.net\n" + ORIGINAL + "\nhi\n",
        "abuse",
    ),
    "SpamCop": (
        "From: 123@reports.spamcop.example\nSubject: [SpamCop (192.0.2.7) id:123]Sale\nContent-Type: text/plain\n\n"
        "[ SpamCop V5 ]\nThis message is brief for your comfort.\n\n[ Offending message ]\n\n" + ORIGINAL + "\nhi\n",
        "abuse",
    ),
}


@pytest.mark.parametrize(("raw", "type_"), OLD_FORMS.values(), ids=OLD_FORMS.keys())
def test_complaints_that_are_no_feedback_reports_are_tied_to_their_message(raw: str, type_: str) -> None:
    (found,) = understand(raw.encode())
    assert isinstance(found, Report)
    assert (found.type, found.source_ip) == (type_, "192.0.2.7")
    (meant,) = meanings(returned(raw.encode(), rcpt="fbl@fbl.shop.example"), [found], context())
    assert isinstance(meant, Feedback)
    assert (meant.kind, meant.campaign) == ("complaint", "spring-sale")


def test_mail_of_apple_that_unsubscribes_is_a_wish_to_leave() -> None:
    raw = f"From: Ann <{ANN}>\nTo: {OURS}\nX-Apple-Unsubscribe: true\nSubject: unsubscribe\n\n\n"

    (found,) = understand(raw.encode())

    assert isinstance(found, Report)
    assert (found.type, found.recipient) == ("opt-out", ANN)
    assert not are_empty(found.clues)


def test_clues_are_bounded_in_number_and_length() -> None:
    many = "".join(f"Errors-To: <b{number}@x.example>\nTo: t{number}@x.example\n" for number in range(90))
    clues = clues_in(read_fields(many + "Feedback-ID: " + "f" * 900 + "\n"))

    assert len(clues.return_paths) <= 20
    assert len(clues.addressees) == 5
    assert len(clues.feedback_id or "") <= 200


def test_the_field_that_we_signed_for_complaints_comes_before_what_others_wrote() -> None:
    local = OURS.partition("@")[0]

    clues = clues_in(read_fields(f"Return-Path: <other@x.example>\nCFBL-Feedback-ID: {local}\n"))

    assert clues.return_paths == (local, "other@x.example")


def test_the_nearest_message_of_a_thread_comes_first() -> None:
    around = read_fields("In-Reply-To: <c@x>\nReferences: <a@x> <b@x> <c@x>\n")

    assert clues_in(Fields(), around=around).references == ("<c@x>", "<b@x>", "<a@x>")


def test_what_is_ours_is_found_in_any_text_and_nothing_else_is() -> None:
    told = read(f"Subject: x\nContent-Type: text/plain\n\nYour mail from {OURS} was reported.\n".encode())
    nothing = read(b"Subject: x\nContent-Type: text/plain\n\nhello bob@example.net\n")

    assert not are_empty(clues_anywhere(told))
    assert clues_anywhere(nothing) == Clues()
    assert links_in("no links here") == ()


@pytest.mark.parametrize(
    ("date", "ms"),
    [
        ("Mon, 24 Nov 2025 10:00:00 +0000", 1_763_978_400_000),
        ("Mon, 24 Nov 2025 10:00:00", 1_763_978_400_000),
        ("Mon, 24 Nov 2025 11:00:00 +0100", 1_763_978_400_000),
        ("yesterday", None),
        ("", None),
        (None, None),
        ("Mon, 99 Nov 99999 10:00:00 +9999", None),
    ],
)
def test_a_date_is_read_or_left_out(date: str | None, ms: int | None) -> None:
    assert milliseconds(date) == ms


@pytest.mark.parametrize(
    ("mail_from", "head", "kind", "strength"),
    [
        pytest.param(signed(to=TRAP), "", "recycled", 0.8, id="proved"),
        pytest.param(
            "who@else.example",
            f"X-Mailcordon-Campaign: {campaign_name('spring-sale')}\n",
            "suspected",
            0.2,
            id="suspected",
        ),
    ],
)
def test_a_hit_tells_where_its_trap_was_planted(mail_from: str, head: str, kind: str, strength: float) -> None:
    fact = TrapFact(kind="recycled", strength=0.8, where="old newsletter")
    planted = {address_hash(KEYS, TRAP): fact}
    where = Context(
        keys=KEYS, known=Known(CAMPAIGNS, keys=KEYS, registered=planted.get), provider_of=context().provider_of
    )

    hit = trap_hit(returned(f"{head}Subject: Sale\n\nhi".encode(), rcpt=TRAP, mail_from=mail_from), where)

    assert isinstance(hit, Feedback)
    assert hit.trap is not None
    assert (hit.campaign, hit.trap.kind, hit.trap.strength, hit.trap.where) == (
        *("spring-sale", kind, strength, "old newsletter"),
    )
