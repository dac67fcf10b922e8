"""flufl.bounce as the last resort: addresses, and nothing that could be held against them."""

import logging

import pytest

from policy.replies import classify
from smtp import last_resort
from smtp.findings import Bounce
from smtp.mime import read
from smtp.returned import kind_of
from tests.smtp.wire import FIXTURES

FLUFL = FIXTURES / "flufl"


@pytest.mark.parametrize(
    ("name", "action", "recipients"),
    [
        ("yahoo_05", "failed", ["userx@example.com", "usery@example.com"]),
        ("qmail_01", "failed", ["userx@example.de"]),
        ("simple_40", "delayed", ["user@example.com"]),
        ("llnl_01", "failed", ["user1@example.gov"]),
    ],
)
def test_addresses_are_found_without_a_reason(name: str, action: str, recipients: list[str]) -> None:
    found = last_resort.findings(read((FLUFL / f"{name}.eml").read_bytes()))

    assert [one.recipient for one in found if isinstance(one, Bounce)] == recipients
    assert {one.action for one in found if isinstance(one, Bounce)} == {action}


def test_what_it_finds_is_never_a_hard_bounce_nor_suppressed() -> None:
    found = 0
    for file in FLUFL.glob("*.eml"):
        for one in last_resort.findings(read(file.read_bytes())):
            assert isinstance(one, Bounce)
            reading = classify(code=one.code, enhanced=one.enhanced, text=one.text)
            assert (kind_of(reading.category), reading.category, reading.suppress) == ("soft_bounce", "other", False)
            found += 1
    assert found > 60


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"From: ann@example.com\nSubject: lunch\n\n<bob@example.com>:\nno\n", id="a person"),
        pytest.param(b"From: postmaster@x\nSubject: out of office\n\n<bob@example.com>:\nno\n", id="somebody is away"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xff\x00: mailer-daemon\n\n\xff@\xff", id="noise"),
    ],
)
def test_nobody_is_asked_about_other_mail(raw: bytes) -> None:
    assert last_resort.findings(read(raw)) == []


def test_what_it_stumbles_over_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        last_resort.findings(read(b"Subject: Returned mail\n\n<ann@example.com>: no\n"))

    assert caplog.records == []


def test_an_error_of_the_library_is_no_bounce_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def stumbles(message: object) -> None:
        raise IndexError("list index out of range")

    monkeypatch.setattr(last_resort, "all_failures", stumbles)

    assert last_resort.findings(read((FLUFL / "qmail_01.eml").read_bytes())) == []
