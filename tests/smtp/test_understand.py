import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp.findings import AutoReply, Bounce, Unclear, clean, redacted
from smtp.understand import understand
from tests.smtp.wire import FIXTURES


def test_an_absence_note_is_no_bounce_whatever_numbers_it_holds() -> None:
    (found,) = understand((FIXTURES / "samples/6-autoreply-not-a-bounce.eml").read_bytes())

    assert isinstance(found, AutoReply)


@pytest.mark.parametrize(
    "header",
    [
        "Auto-Submitted: auto-replied",
        "Auto-Submitted: Auto-Generated; owner-email=x@y.example",
        "X-Autoreply: yes",
        "X-Autorespond: holiday",
        "Precedence: auto_reply",
        "Subject: Out of office: spring",
        "Subject: Automatic reply: spring",
        "Subject: AW: Abwesenheitsnotiz",
    ],
)
def test_automatic_replies_are_known_by_their_header(header: str) -> None:
    (found,) = understand(f"From: ann@example.com\n{header}\n\nI am away, 550 5.1.1 is my room.\n".encode())

    assert isinstance(found, AutoReply)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(
            b"From: ann@example.com\nSubject: Re: spring\n\nThank you!\n\nann@example.com\nPhone 550\n", id="a person"
        ),
        pytest.param(b"From: ann@example.com\nAuto-Submitted: no\n\nHello\n", id="not automatic"),
        pytest.param(
            b"From: MAILER-DAEMON@x.example\n\nSomething permanent happened.\n", id="a robot without addresses"
        ),
        pytest.param(b"\xff\xfe\x00", id="noise"),
    ],
)
def test_what_is_not_known_is_unclear(raw: bytes) -> None:
    (found,) = understand(raw)

    assert isinstance(found, Unclear)
    assert found.reason == "unrecognised"


def test_a_message_of_qmails_kind_that_was_queued_too_long_is_expired() -> None:
    (found,) = understand(
        b"From: MAILER-DAEMON@x.example\n\nI'm afraid I wasn't able to deliver your message.\n\n<ann@example.com>:\n"
        b"Connected to 192.0.2.1 but connection died. (#4.4.2)\nI'm not going to try again; this message has been in "
        b"the queue too long.\n"
    )

    assert isinstance(found, Bounce)
    assert (found.enhanced, found.expired) == ("4.4.2", True)


def test_structure_without_end_is_told_as_too_complex() -> None:
    (found,) = understand(b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n\nx\n" * 1_000)

    assert isinstance(found, Unclear)
    assert found.reason == "too_complex"


@given(st.binary(max_size=600))
def test_noise_always_has_an_answer(noise: bytes) -> None:
    assert len(understand(b"From: MAILER-DAEMON@x.example\nContent-Type: message/delivery-status\n\n" + noise)) >= 1


@given(st.text(max_size=2_000))
def test_text_that_is_kept_is_short_printable_and_without_lone_surrogates(text: str) -> None:
    kept = clean(text)

    assert len(kept) <= 300
    assert "\n" not in kept
    kept.encode()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<ann@example.com>: user unknown", "<address>: user unknown"),
        ("rcpt ann.lee+x@mail.example.com, bob@b.example rejected", "rcpt address, address rejected"),
        ("no address here", "no address here"),
    ],
)
def test_addresses_in_replies_are_not_kept(text: str, expected: str) -> None:
    assert redacted(text) == expected
