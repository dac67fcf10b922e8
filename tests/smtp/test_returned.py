"""What a message that came back means: the captured ones with real return paths, and what is not believed."""

import base64
from collections.abc import Sequence
from email.utils import formatdate

import pytest

from policy.naming import campaign_name
from policy.tokens import Keys, address_hash, message_id_header, message_token, unsubscribe_token
from schemas.codec import decode, encode
from schemas.dead_letters import DeadLetter
from schemas.feedback import Feedback, Trap
from smtp.findings import Clues, Report
from smtp.returned import MAX_RAW_BYTES, Meaning, Noted, meanings, trap_hit
from smtp.understand import understand
from tests.smtp.mailroom import DAY_MS, KEYS, NOW, OTHER_KEYS, SENT_AT, TRAP, context, returned, signed
from tests.smtp.wire import FIXTURES

# file -> kind and class of each recipient, or what is only noted
EXPECTED: dict[str, list[tuple[str, str | None]]] = {
    "dsn/postfix/000-b_unk1": [("hard_bounce", "invalid_recipient")],
    "dsn/postfix/001-b_full1": [("soft_bounce", "mailbox_full")],
    "dsn/postfix/002-b_dis1": [("hard_bounce", "inactive_mailbox")],
    "dsn/postfix/003-b_pol1": [("block", "spam_content")],
    "dsn/postfix/004-b_late1": [("block", "spam_content")],
    "dsn/postfix/005-b_big1": [("soft_bounce", "message_too_big")],
    "dsn/postfix/006-b_nx1": [("hard_bounce", "bad_domain")],
    "dsn/postfix/007-b_null1": [("hard_bounce", "bad_domain")],
    "dsn/postfix/008-b_nomx1": [("hard_bounce", "bad_domain")],
    "dsn/postfix/009-b_multi1": [("soft_bounce", "mailbox_full"), ("hard_bounce", "invalid_recipient")],
    "dsn/postfix/010-b_succ1": [("noted", "delivered")],
    "dsn/postfix/011-b_quota3": [("soft_bounce", "mailbox_full")],
    "dsn/postfix/012-b_quota4": [("soft_bounce", "mailbox_full")],
    "dsn/postfix/013-b_down1": [("noted", "delayed")],
    "dsn/postfix/014-b_grey1": [("noted", "delayed")],
    "dsn/postfix/015-b_sf1": [("noted", "delayed")],
    "dsn/postfix/016-b_slow1": [("noted", "delayed")],
    "dsn/postfix/017-b_slow1": [("soft_bounce", "expired")],
    "dsn/postfix/018-b_grey1": [("soft_bounce", "expired")],
    "dsn/postfix/019-b_down1": [("soft_bounce", "expired")],
    "dsn/postfix/020-b_sf1": [("soft_bounce", "expired")],
    "dsn/exim/000-b_xnosuch": [("hard_bounce", "invalid_recipient")],
    "dsn/exim/001-b_xdis": [("hard_bounce", "inactive_mailbox")],
    "dsn/exim/002-b_xrbl": [("block", "blocklisted_ip")],
    "dsn/exim/003-b_xspam": [("block", "spam_content")],
    "dsn/exim/004-b_xuser": [("hard_bounce", "invalid_recipient")],
    "dsn/exim/005-b_xmulti": [("hard_bounce", "invalid_recipient"), ("hard_bounce", "inactive_mailbox")],
    "dsn/exim/006-b_xfull": [("noted", "delayed")],
    "dsn/exim/007-b_xuser": [("noted", "delayed")],
    "dsn/exim/008-b_xgrey": [("noted", "delayed")],
    "dsn/exim/009-b_xuser": [("noted", "delayed")],
    "dsn/exim/010-b_xgrey": [("noted", "delayed")],
    "dsn/exim/011-b_xfull": [("noted", "delayed")],
    "dsn/exim/012-b_xfull": [("noted", "delayed")],
    "dsn/exim/013-b_xfull": [("soft_bounce", "expired")],
    "dsn/exim/014-b_xuser": [("soft_bounce", "expired")],
    "dsn/exim/015-b_xgrey": [("soft_bounce", "expired")],
    "dsn/opensmtpd/000-b_onosuch": [("hard_bounce", "invalid_recipient")],
    "dsn/opensmtpd/001-b_odis": [("hard_bounce", "inactive_mailbox")],
    "dsn/opensmtpd/002-b_ogrey": [("noted", "delayed")],
    "dsn/opensmtpd/003-b_ospam": [("block", "spam_content")],
    "dsn/opensmtpd/004-b_ogrey": [("soft_bounce", "expired")],
    "samples/1-dsn-userunknown": [("hard_bounce", "invalid_recipient")],
    "samples/2-dsn-two-recipients-mixed": [("soft_bounce", "mailbox_full"), ("noted", "delayed")],
    "samples/3-dsn-expired-soft": [("soft_bounce", "expired")],
    "samples/4-nonstandard-text-bounce": [("hard_bounce", "invalid_recipient")],
    "samples/5-arf-abuse-redacted": [("complaint", "abuse")],
    "samples/6-autoreply-not-a-bounce": [("auto_reply", None)],
}
UNKNOWN_USER = (FIXTURES / "samples/1-dsn-userunknown.eml").read_bytes()
ABUSE = (FIXTURES / "samples/5-arf-abuse-redacted.eml").read_bytes()


def _told(found: Sequence[Meaning]) -> list[tuple[str, str | None]]:
    told: list[tuple[str, str | None]] = []
    for one in found:
        match one:
            case Feedback():
                told.append((one.kind, one.class_))
            case Noted():
                told.append(("noted", one.what))
            case DeadLetter():
                told.append(("dead letter", one.reason))
    return told


def _meant(raw: bytes, **envelope: str) -> list[Meaning]:
    return meanings(returned(raw, **envelope), understand(raw), context())  # type: ignore[arg-type]


def test_every_fixture_has_a_row() -> None:
    captured = [file for folder in ("dsn", "samples") for file in (FIXTURES / folder).rglob("*.eml")]
    assert {file.relative_to(FIXTURES).with_suffix("").as_posix() for file in captured} == set(EXPECTED)


@pytest.mark.parametrize(("name", "expected"), EXPECTED.items(), ids=EXPECTED)
def test_captured_messages_mean_what_they_should(name: str, expected: list[tuple[str, str | None]]) -> None:
    assert _told(_meant((FIXTURES / f"{name}.eml").read_bytes())) == expected


def test_a_bounce_names_the_message_its_sending_time_and_nobodys_address() -> None:
    (event,) = _meant(UNKNOWN_USER, rcpt=signed(to="alice@receiver.test"))

    assert event == Feedback(
        kind="hard_bounce",
        campaign="spring-sale",
        message_id="m-1",
        at=NOW,
        sent_at=SENT_AT,
        address_hash=address_hash(KEYS, "alice@receiver.test"),
        provider="other",
        class_="invalid_recipient",
        code=550,
        text="<address>: no such mailbox",
        source="return_path",
    )


def test_every_meaning_can_be_published() -> None:
    for name in EXPECTED:
        raw = (FIXTURES / f"{name}.eml").read_bytes().replace(b"mailbox", b"mail\xffbox\x00")
        for one in _meant(raw):
            if isinstance(one, Feedback):
                assert decode(Feedback, encode(one)) == one


@pytest.mark.parametrize(
    ("rcpt", "reason"),
    [
        pytest.param(signed(keys=OTHER_KEYS), "return_path_bad_signature", id="signed with another key"),
        pytest.param(signed()[:-30] + "a" + signed()[-29:], "return_path_bad_signature", id="one character changed"),
        pytest.param(signed(sent_at=NOW - 31 * DAY_MS), "return_path_expired", id="older than thirty days"),
        pytest.param(signed(sent_at=NOW + DAY_MS), "return_path_not_yet", id="from the future"),
        pytest.param("b+abc@bounces.shop.example", "return_path_malformed", id="too short"),
        pytest.param("someone@bounces.shop.example", "no_signed_return_path", id="none at all"),
        pytest.param(signed(name="retired"), "unknown_campaign", id="a campaign that nobody knows"),
    ],
)
def test_what_cannot_be_believed_is_a_dead_letter(rcpt: str, reason: str) -> None:
    (letter,) = _meant(UNKNOWN_USER, rcpt=rcpt)

    assert isinstance(letter, DeadLetter)
    assert letter.reason == reason
    assert base64.b64decode(letter.raw) == UNKNOWN_USER
    assert letter.headers["rcpt_to"] == rcpt


@pytest.mark.parametrize("change", [str.upper, str.title], ids=["upper case", "mixed case"])
def test_a_return_path_is_believed_in_whatever_case_it_comes_back(change: object) -> None:
    local, _, domain = signed().partition("@")

    assert _told(_meant(UNKNOWN_USER, rcpt=f"{change(local)}@{domain}")) == [("hard_bounce", "invalid_recipient")]  # type: ignore[operator]


def test_a_dead_letter_keeps_a_bounded_part_of_a_large_message() -> None:
    (letter,) = _meant(UNKNOWN_USER + b"x" * MAX_RAW_BYTES, rcpt="someone@bounces.shop.example")

    assert isinstance(letter, DeadLetter)
    assert len(base64.b64decode(letter.raw)) == MAX_RAW_BYTES
    assert letter.headers["cut_from_bytes"] == str(len(UNKNOWN_USER) + MAX_RAW_BYTES)


def test_a_message_that_says_nothing_we_know_is_a_dead_letter_even_with_a_good_return_path() -> None:
    assert _told(_meant(b"Subject: hello\n\nHow are you?\n")) == [("dead letter", "unrecognised")]


def test_many_unclear_findings_are_one_dead_letter() -> None:
    raw = (FIXTURES / "dsn/postfix/009-b_multi1.eml").read_bytes()

    assert _told(_meant(raw, rcpt=signed(keys=OTHER_KEYS))) == [("dead letter", "return_path_bad_signature")]


@pytest.mark.parametrize(
    "place",
    [
        pytest.param("Original-Mail-From: <{path}>", id="Original-Mail-From"),
        pytest.param("CFBL-Feedback-ID: {path}", id="CFBL-Feedback-ID"),
        pytest.param("Return-Path: <{path}>", id="Return-Path"),
        pytest.param("Return-Path: <SRS0=ab=cd={domain}={local}@forwarder.example>", id="rewritten by a forwarder"),
    ],
)
def test_a_report_to_a_fixed_address_is_found_by_the_return_path_that_it_quotes(place: str) -> None:
    path = signed("m-77", name="bought-list")
    local, _, domain = path.partition("@")
    quoted = place.format(path=path, local=local, domain=domain)
    raw = "\n".join(
        quoted if line.startswith(f"{quoted.partition(':')[0]}:") else line
        for line in ABUSE.decode().split("\n")
        if line.startswith(f"{quoted.partition(':')[0]}:")
        or not line.startswith(("Original-Mail-From", "CFBL", "List-Unsub", "Return-Path: <b+"))
    )
    (event,) = _meant(raw.encode(), rcpt="fbl@fbl.shop.example")

    assert isinstance(event, Feedback)
    assert (event.kind, event.campaign, event.message_id) == ("complaint", "bought-list", "m-77")


def test_a_report_that_quotes_nothing_signed_is_a_dead_letter() -> None:
    assert _told(_meant(ABUSE, rcpt="fbl@fbl.shop.example")) == [("dead letter", "no_signed_return_path")]


def test_a_complaint_tells_the_sending_address_and_no_hash_of_a_hidden_recipient() -> None:
    (event,) = _meant(ABUSE)

    assert isinstance(event, Feedback)
    assert (event.ip, event.address_hash, event.provider) == ("192.0.2.10", None, "other")


def test_a_complaint_that_names_the_recipient_has_its_hash_and_provider() -> None:
    abuse = ABUSE.replace(b"redacted-9f2c@provider.test", b"Ann@gmail.example")
    (event,) = _meant(abuse, rcpt=signed(to="ann@gmail.example"))

    assert isinstance(event, Feedback)
    assert (event.address_hash, event.provider) == (address_hash(KEYS, "ann@gmail.example"), "google")


@pytest.mark.parametrize(
    ("feedback_type", "expected"),
    [
        ("abuse", ("complaint", "abuse")),
        ("fraud", ("complaint", "fraud")),
        ("virus", ("complaint", "virus")),
        ("not-spam", ("not_spam", "not-spam")),
        ("opt-out", ("unsubscribe", "opt-out")),
        ("auth-failure", ("noted", "auth-failure")),
        ("other", ("dead letter", "unknown_feedback_type")),
        ("x" * 40, ("dead letter", "unknown_feedback_type")),
    ],
)
def test_types_of_reports(feedback_type: str, expected: tuple[str, str]) -> None:
    report = Report(type=feedback_type, recipient=None, source_ip=None, clues=Clues())

    assert _told(meanings(returned(b""), [report], context())) == [expected]


def test_a_signed_return_path_in_a_trap_is_proof() -> None:
    event = trap_hit(returned(b"Subject: x\n\nbuy\n", rcpt=TRAP, mail_from=signed("m-9")), context())

    assert isinstance(event, Feedback)
    assert event.trap is not None
    assert (event.kind, event.campaign, event.message_id, event.sent_at) == ("trap_hit", "spring-sale", "m-9", SENT_AT)
    assert (event.trap.kind, event.trap.strength) == ("pristine", 1.0)
    assert event.address_hash == address_hash(KEYS, TRAP)


def test_the_return_path_of_another_message_proves_nothing_in_a_trap() -> None:
    """Whoever got one of our messages has a return path that we signed, and may know a trap."""
    stolen = signed("m-9", to="villain@evil.example")

    letter = trap_hit(returned(b"Subject: x\n\nbuy\n", rcpt=TRAP, mail_from=stolen), context())

    assert isinstance(letter, DeadLetter)
    assert letter.reason == "not_sent_to_this_trap"


def _trapped(*fields: str, mail_from: str = "x@y.example") -> Meaning:
    raw = "\n".join((*fields, "Subject: x", "", "buy", "")).encode()
    return trap_hit(returned(raw, rcpt=TRAP, mail_from=mail_from), context())


def _link(*, to: str = TRAP, sent_at: int = SENT_AT, keys: Keys = KEYS) -> str:
    hashed = address_hash(keys, to)
    token = unsubscribe_token(keys, campaign="spring-sale", message_id="m-9", address_hash=hashed, sent_at=sent_at)
    return f"List-Unsubscribe: <https://u.shop.example/u/{token}>"


def _name(*, name: str = "spring-sale", keys: Keys = KEYS) -> str:
    return f"Message-ID: {message_id_header(keys, campaign=name, message_id='m-9', domain='shop.example')}"


DATE = f"Date: {formatdate(SENT_AT / 1000)}"
OLD_DATE = f"Date: {formatdate((NOW - 31 * DAY_MS) / 1000)}"
OURS = {
    "unsubscribe link": ([_link()], SENT_AT),
    "unsubscribe link, and a path that somebody rewrote": ([_link(), _name(), "To: x@y.example"], SENT_AT),
    "Message-ID": ([_name(), f"To: <{TRAP}>", DATE], SENT_AT),
    "Message-ID without a date": ([_name(), f"To: Rosa <{TRAP.upper()}>"], None),
}


@pytest.mark.parametrize(("fields", "sent_at"), OURS.values(), ids=OURS)
def test_what_only_we_can_have_written_proves_a_trap_hit_without_the_return_path(
    fields: list[str], sent_at: int | None
) -> None:
    event = _trapped(*fields)

    assert isinstance(event, Feedback)
    assert event.trap == Trap(kind="pristine")
    assert (event.campaign, event.message_id, event.sent_at) == ("spring-sale", "m-9", sent_at)
    assert event.address_hash == address_hash(KEYS, TRAP)


NOT_PROVED = {
    "link of another recipient": ([_link(to="villain@evil.example"), _name(), f"To: {TRAP}"], "not_sent_to_this_trap"),
    "Message-ID, forwarded": ([_name(), "To: ann@shop.example"], "not_sent_to_this_trap"),
    "Message-ID, no To": ([_name()], "not_sent_to_this_trap"),
    "Message-ID, long ago": ([_name(), f"To: {TRAP}", OLD_DATE], "message_id_expired"),
    "Message-ID of nobody": ([_name(name="retired"), f"To: {TRAP}"], "unknown_campaign"),
    "link of another key": ([_link(keys=OTHER_KEYS)], "unidentified_trap_hit"),
    "link, long ago": ([_link(sent_at=NOW - 31 * DAY_MS)], "unidentified_trap_hit"),
}


@pytest.mark.parametrize(("fields", "reason"), NOT_PROVED.values(), ids=NOT_PROVED)
def test_what_was_not_sent_to_the_trap_by_us_is_no_hit(fields: list[str], reason: str) -> None:
    letter = _trapped(*fields)

    assert isinstance(letter, DeadLetter)
    assert letter.reason == reason


@pytest.mark.parametrize(
    ("fields", "mail_from"),
    [
        pytest.param([_name(keys=OTHER_KEYS), f"To: {TRAP}"], "x@y.example", id="a mark of another key"),
        pytest.param([_name(), f"To: {TRAP}"], signed(keys=OTHER_KEYS), id="somebody tried with the return path"),
    ],
)
def test_what_was_forged_is_a_suspicion_at_most(fields: list[str], mail_from: str) -> None:
    event = _trapped(*fields, mail_from=mail_from)

    assert isinstance(event, Feedback)
    assert event.trap is not None
    assert (event.trap.kind, event.campaign) == ("suspected", "spring-sale")


def test_a_report_suppresses_nobody_but_the_one_who_got_the_message() -> None:
    (event,) = _meant(UNKNOWN_USER, rcpt=signed(to="villain@evil.example"))

    assert isinstance(event, Feedback)
    assert (event.kind, event.address_hash) == ("hard_bounce", None)


@pytest.mark.parametrize(
    ("header", "message_id"),
    [
        pytest.param(f"Message-ID: <m-9.{campaign_name('bought-list')}@shop.example>", "m-9", id="Message-ID"),
        pytest.param(f"X-Mailcordon-Campaign: {campaign_name('bought-list')}", None, id="our own header"),
    ],
)
def test_an_unsigned_trap_hit_is_a_suspicion_and_no_proof(header: str, message_id: str | None) -> None:
    event = trap_hit(returned(f"{header}\n\nbuy\n".encode(), rcpt=TRAP, mail_from="x@y.example"), context())

    assert isinstance(event, Feedback)
    assert event.trap is not None
    assert (event.campaign, event.message_id, event.sent_at) == ("bought-list", message_id, None)
    assert event.trap.kind == "suspected"
    assert event.trap.strength < 0.5


@pytest.mark.parametrize(
    ("raw", "mail_from", "reason"),
    [
        pytest.param(
            b"Subject: x\n\nbuy\n", "spammer@evil.example", "unidentified_trap_hit", id="somebody else's spam"
        ),
        pytest.param(b"Subject: x\n\nbuy\n", "", "unidentified_trap_hit", id="backscatter"),
        pytest.param(b"X: y\n" * 9_000, "", "unidentified_trap_hit", id="too much of a header"),
        pytest.param(b"Message-ID: <a.b@c>\n\n", signed(keys=OTHER_KEYS), "unidentified_trap_hit", id="forged"),
        pytest.param(b"\n", signed(name="retired"), "unknown_campaign", id="a campaign that nobody knows"),
    ],
)
def test_trap_mail_that_names_nobody_of_ours_is_a_dead_letter(raw: bytes, mail_from: str, reason: str) -> None:
    letter = trap_hit(returned(raw, rcpt=TRAP, mail_from=mail_from), context())

    assert isinstance(letter, DeadLetter)
    assert letter.reason == reason


def test_a_long_message_id_is_found_again_by_the_message_id_header() -> None:
    long_id = "order-2026-11-24-confirmation-0000001"
    raw = UNKNOWN_USER.replace(b"<m7f3a@sender.test>", f"<{message_token(long_id)}.x-1@shop.example>".encode())

    (event,) = _meant(raw, rcpt=signed(long_id))

    assert isinstance(event, Feedback)
    assert event.message_id == long_id


def test_a_long_message_id_that_nothing_tells_has_a_stable_stand_in() -> None:
    (first,) = _meant(UNKNOWN_USER, rcpt=signed("an id / that is no atom and longer than twenty"))
    (second,) = _meant(UNKNOWN_USER, rcpt=signed("an id / that is no atom and longer than twenty"))

    assert isinstance(first, Feedback)
    assert isinstance(second, Feedback)
    assert first.message_id == second.message_id == message_token("an id / that is no atom and longer than twenty")


MARKED = message_id_header(KEYS, campaign="bought-list", message_id="m-5", domain="shop.example")
FORGED = message_id_header(OTHER_KEYS, campaign="bought-list", message_id="m-5", domain="shop.example")
LINK = unsubscribe_token(
    KEYS,
    campaign="bought-list",
    message_id="m-5",
    address_hash=address_hash(KEYS, "ann@hotmail.example"),
    sent_at=SENT_AT,
)


def _jmrp(header: str) -> bytes:
    return (
        "From: staff@hotmail.example\nSubject: complaint about message from 192.0.2.10\nMIME-Version: 1.0\n"
        "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: message/rfc822\n\n"
        f"X-HmXmrOriginalRecipient: victim@hotmail.example\nFrom: news@shop.example\n{header}\n\nbuy\n--b--\n"
    ).encode()


@pytest.mark.parametrize(
    ("header", "hashed"),
    [
        pytest.param(f"Message-ID: {MARKED}", None, id="Message-ID"),
        pytest.param(f"Message-ID: <x@gateway.example>\nMessage-ID: {MARKED}", None, id="the last Message-ID"),
        pytest.param(
            f"List-Unsubscribe: <https://u.example/{LINK}>",
            address_hash(KEYS, "ann@hotmail.example"),
            id="unsubscribe link",
        ),
    ],
)
def test_a_complaint_is_tied_to_its_message_and_suppresses_nobody_else(header: str, hashed: str | None) -> None:
    (event,) = _meant(_jmrp(header), rcpt="fbl@fbl.shop.example")

    assert isinstance(event, Feedback)
    assert (event.kind, event.campaign, event.message_id, event.ip) == ("complaint", "bought-list", "m-5", "192.0.2.10")
    assert event.address_hash == hashed


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        pytest.param(f"Message-ID: {FORGED}", "message_id_bad_signature", id="forged"),
        pytest.param(f"Message-ID: {MARKED}\nDate: Tue, 24 Nov 2020 02:00:00 +0000", "message_id_expired", id="old"),
        pytest.param(
            f"Feedback-ID: {campaign_name('bought-list')}:t:bulk:mailcordon", "no_signed_return_path", id="only named"
        ),
    ],
)
def test_a_complaint_that_proves_nothing_is_a_dead_letter(header: str, reason: str) -> None:
    (letter,) = _meant(_jmrp(header), rcpt="fbl@fbl.shop.example")

    assert isinstance(letter, DeadLetter)
    assert letter.reason == reason
    assert ("names_campaign" in letter.headers) == (reason == "no_signed_return_path")


def test_an_automatic_reply_by_any_name_swallows_no_bounce() -> None:
    for name in EXPECTED:
        if name.startswith("dsn/"):
            raw = (FIXTURES / f"{name}.eml").read_bytes()
            marked = b"X-Autoreply: yes\nAuto-Submitted: auto-replied\nX-BoxTrapper: 1\n" + raw
            assert _told(_meant(marked)) == _told(_meant(raw))
