from pathlib import Path

import pytest

from smtp.dsn import read_reply
from smtp.findings import Bounce, Unclear
from smtp.understand import understand
from tests.smtp.wire import FIXTURES

DSN = FIXTURES / "dsn"

# file -> for each recipient: action, code, enhanced code, expired
CAPTURED: dict[str, list[tuple[str, int, str, bool]]] = {
    "postfix/000-b_unk1": [("failed", 550, "5.1.1", False)],
    "postfix/001-b_full1": [("failed", 552, "5.2.2", False)],
    "postfix/002-b_dis1": [("failed", 550, "5.2.1", False)],
    "postfix/003-b_pol1": [("failed", 554, "5.7.1", False)],
    "postfix/004-b_late1": [("failed", 550, "5.7.1", False)],
    "postfix/005-b_big1": [("failed", 550, "5.3.4", False)],
    "postfix/006-b_nx1": [("failed", 550, "5.1.2", False)],
    "postfix/007-b_null1": [("failed", 550, "5.1.0", False)],
    "postfix/008-b_nomx1": [("failed", 550, "5.1.2", False)],
    "postfix/009-b_multi1": [("failed", 552, "5.2.2", False), ("failed", 550, "5.1.1", False)],
    "postfix/010-b_succ1": [("delivered", 250, "2.0.0", False)],
    "postfix/011-b_quota3": [("failed", 550, "5.2.2", False)],
    "postfix/012-b_quota4": [("failed", 550, "5.2.2", False)],
    "postfix/013-b_down1": [("delayed", 450, "4.4.1", False)],
    "postfix/014-b_grey1": [("delayed", 450, "4.2.0", False)],
    "postfix/015-b_sf1": [("delayed", 450, "4.4.3", False)],
    "postfix/016-b_slow1": [("delayed", 421, "4.7.28", False)],
    "postfix/017-b_slow1": [("failed", 421, "4.7.28", True)],
    "postfix/018-b_grey1": [("failed", 450, "4.2.0", True)],
    "postfix/019-b_down1": [("failed", 450, "4.4.1", True)],
    "postfix/020-b_sf1": [("failed", 450, "4.4.3", True)],
    "exim/000-b_xnosuch": [("failed", 550, "5.1.1", False)],
    "exim/001-b_xdis": [("failed", 550, "5.2.1", False)],
    "exim/002-b_xrbl": [("failed", 554, "5.7.1", False)],
    "exim/003-b_xspam": [("failed", 550, "5.7.1", False)],
    "exim/004-b_xuser": [("failed", 550, "5.1.1", False)],
    "exim/005-b_xmulti": [("failed", 550, "5.1.1", False), ("failed", 550, "5.2.1", False)],
    "exim/006-b_xfull": [("delayed", 452, "4.2.2", False)],
    "exim/007-b_xuser": [("delayed", 450, "4.0.0", False)],
    "exim/008-b_xgrey": [("delayed", 451, "4.7.1", False)],
    "exim/009-b_xuser": [("delayed", 450, "4.0.0", False)],
    "exim/010-b_xgrey": [("delayed", 451, "4.7.1", False)],
    "exim/011-b_xfull": [("delayed", 452, "4.2.2", False)],
    "exim/012-b_xfull": [("delayed", 452, "4.2.2", False)],
    "exim/013-b_xfull": [("failed", 452, "4.2.2", True)],
    "exim/014-b_xuser": [("failed", 550, "5.0.0", True)],
    "exim/015-b_xgrey": [("failed", 451, "4.7.1", True)],
    "opensmtpd/000-b_onosuch": [("failed", 550, "5.1.1", False)],
    "opensmtpd/001-b_odis": [("failed", 550, "5.2.1", False)],
    "opensmtpd/002-b_ogrey": [("delayed", 451, "4.7.1", False)],
    "opensmtpd/003-b_ospam": [("failed", 550, "5.7.1", False)],
    "opensmtpd/004-b_ogrey": [("failed", 450, "4.4.7", True)],
}


def _bounces(raw: bytes) -> list[Bounce]:
    return [one for one in understand(raw) if isinstance(one, Bounce)]


def test_every_captured_notification_has_a_row() -> None:
    assert {file.relative_to(DSN).with_suffix("").as_posix() for file in DSN.rglob("*.eml")} == set(CAPTURED)


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize(("name", "expected"), CAPTURED.items(), ids=CAPTURED)
def test_what_postfix_exim_and_opensmtpd_really_send_is_understood(
    name: str, expected: list[tuple[str, int, str, bool]], line_end: bytes
) -> None:
    raw = (DSN / f"{name}.eml").read_bytes().replace(b"\n", line_end)

    found = [(one.action, one.code, one.enhanced, one.expired) for one in _bounces(raw)]

    assert found == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("1-dsn-userunknown", [("alice@receiver.test", "failed", 550, "5.1.1", False)]),
        (
            "2-dsn-two-recipients-mixed",
            [("bob@corp.test", "failed", 552, "5.2.2", False), ("carol@corp.test", "delayed", 450, "4.4.1", False)],
        ),
        ("3-dsn-expired-soft", [("dave@slow.test", "failed", 451, "4.7.1", True)]),
        ("4-nonstandard-text-bounce", [("erin@old.host.test", "failed", 550, "5.1.1", False)]),
    ],
)
def test_samples_are_understood(name: str, expected: list[tuple[str, str, int, str, bool]]) -> None:
    raw = (FIXTURES / "samples" / f"{name}.eml").read_bytes()

    found = [(one.recipient, one.action, one.code, one.enhanced, one.expired) for one in _bounces(raw)]

    assert found == expected


def test_the_remote_reply_is_kept_without_its_codes_and_repeated_prefixes() -> None:
    (bounce,) = _bounces((DSN / "exim/003-b_xspam.eml").read_bytes())

    assert bounce.text.endswith(
        "Our system has detected that this message is likely unsolicited mail. To reduce the amount of spam sent to "
        "Gmail, this message has been blocked. abc123 - gsmtp"
    )


def test_the_return_path_of_the_returned_mail_is_a_clue() -> None:
    (bounce,) = _bounces((DSN / "postfix/000-b_unk1.eml").read_bytes())

    assert bounce.clues.return_paths == ("b+unk1@bounce.test",)


def _report(block: str, notice: str = "Sorry.") -> bytes:
    return (
        "From: MAILER-DAEMON@mx.example\nContent-Type: multipart/report; report-type=delivery-status; boundary=b\n\n"
        f"--b\n\n{notice}\n--b\nContent-Type: message/delivery-status\n\n"
        f"Reporting-MTA: dns; mx.example\n\n{block}\n--b--\n"
    ).encode()


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        pytest.param(
            "Final-Recipient: rfc822; fwd@elsewhere.example\nOriginal-Recipient: rfc822; ann@example.com\n"
            "Action: failed\nStatus: 5.1.1",
            ("ann@example.com", 550, "5.1.1"),
            id="we know the address that we wrote to",
        ),
        pytest.param(
            "Final-Recipient: rfc822; ann@example.com\nAction: failed\nStatus: 5.1.1 (bad mailbox)",
            ("ann@example.com", 550, "5.1.1"),
            id="a comment behind the status",
        ),
        pytest.param(
            "Final-Recipient: rfc822; <ann@example.com>\nAction: failed (user gone)\nStatus: 5.0.0\n"
            "Diagnostic-Code: smtp; 550 #5.1.0 Address rejected",
            ("ann@example.com", 550, "5.1.0"),
            id="an enhanced code behind a hash",
        ),
        pytest.param(
            "Final-Recipient: rfc822; ann@example.com\nAction: failed\nStatus: 5.4.1\n"
            "Diagnostic-Code: x-local; connect to 5.1.2.3[5.1.2.3]:587: refused",
            ("ann@example.com", 550, "5.4.1"),
            id="addresses and ports are no codes",
        ),
    ],
)
def test_fields_are_read_as_servers_write_them(block: str, expected: tuple[str, int, str]) -> None:
    (bounce,) = _bounces(_report(block))

    assert (bounce.recipient, bounce.code, bounce.enhanced) == expected


@pytest.mark.parametrize(
    ("block", "notice", "expected"),
    [
        pytest.param(
            "Final-Recipient: rfc822; ann@example.com\nAction: failed\nStatus: 5.0.0 (recipient reached disk quota)",
            "Sorry.",
            (550, "5.2.2"),
            id="in the comment of the status",
        ),
        pytest.param(
            "Final-Recipient: rfc822; ann@example.com\nAction: failure\n"
            "Status: 553 Exceeded maximum inbound message size",
            "Sorry.",
            (553, "5.3.4"),
            id="in a status that is a reply",
        ),
        pytest.param(
            "Final-Recipient: rfc822; ann@example.com\nAction: failed\nStatus: 5.0.0",
            "Es gibt ein Problem.\nDer Empfänger ist unbekannt: Empfänger unbekannt",
            (550, "5.1.1"),
            id="in words of another language",
        ),
        pytest.param(
            "Final-Recipient: rfc822; ann@example.com\nAction: failed\nStatus: 5.0.0\n"
            "Diagnostic-Code: smtp; 550 blocked, user unknown or not",
            "Sorry.",
            (550, "5.7.1"),
            id="a block before everything that accuses",
        ),
        pytest.param(
            "Final-Recipient: rfc822; ann@example.com\nAction: failed\nStatus: 5.0.0",
            "Sorry.",
            (550, "5.0.0"),
            id="nowhere",
        ),
    ],
)
def test_a_status_that_says_nothing_is_explained_by_words(block: str, notice: str, expected: tuple[int, str]) -> None:
    (bounce,) = _bounces(_report(block, notice))

    assert (bounce.code, bounce.enhanced) == expected


def test_the_same_said_eleven_times_is_said_once() -> None:
    block = "Final-Recipient: rfc822; ann@example.com\nAction: failed\nStatus: 5.1.1\n\n" * 11

    assert len(_bounces(_report(block))) == 1


def test_a_forwarders_address_is_traced_to_the_one_we_wrote_to() -> None:
    block = "Action: failed\nFinal-Recipient: rfc822; fwd@other.example\nStatus: 5.0.0"
    notice = "Failed:\n\n  fwd@other.example\n    (generated from ann@example.com)\n    Unrouteable address"

    (bounce,) = _bounces(_report(block, notice))

    assert (bounce.recipient, bounce.enhanced) == ("ann@example.com", "5.1.1")


def test_a_status_without_recipients_is_unclear() -> None:
    (finding,) = understand(_report("X-Nothing: here"))

    assert isinstance(finding, Unclear)
    assert finding.reason == "no_recipient_block"


def test_a_thousand_recipients_are_cut_to_a_hundred() -> None:
    block = "\n\n".join(f"Final-Recipient: rfc822; u{n}@example.com\nAction: failed\nStatus: 5.1.1" for n in range(999))

    assert len(_bounces(_report(block))) == 100


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("550 5.1.1 no such user", (550, "5.1.1", "no such user")),
        ("550-5.1.1 no such\n550 5.1.1 user", (550, "5.1.1", "no such user")),
        ("host mx said: 452 4.2.2 full (in reply)", (452, "4.2.2", "full (in reply)")),
        ("Sorry, no mailbox here. (#5.1.1)", (None, "5.1.1", "Sorry, no mailbox here. (#5.1.1)")),
        ("421", (421, None, "")),
        ("Remote Server returned '550 5.1.10 RecipientNotFound'", (550, "5.1.10", "RecipientNotFound'")),
        ("<mx.example #5.1.1 smtp; 550 no such user>", (550, "5.1.1", "no such user>")),
        ("220 hello 250 ok 552 5.2.2 full", (552, "5.2.2", "full")),
        ("mailbox unavailable [SMTP Error Code 550]", (550, None, "mailbox unavailable [SMTP Error Code 550]")),
        ("a list of 560 guests, 499 of them", (None, None, "a list of 560 guests, 499 of them")),
        ("connection timed out", (None, None, "connection timed out")),
        ("", (None, None, "")),
    ],
)
def test_codes_are_found_in_replies(text: str, expected: tuple[int | None, str | None, str]) -> None:
    assert read_reply(text) == expected


def _file_id(file: Path) -> str:
    return file.stem


@pytest.mark.parametrize("file", sorted(FIXTURES.rglob("*.eml")), ids=_file_id)
def test_a_message_that_was_cut_off_anywhere_is_still_an_answer(file: Path) -> None:
    raw = file.read_bytes()

    for length in range(0, len(raw), 97):
        assert len(understand(raw[:length])) >= 1
