import pytest

from smtp.findings import Report, Unclear
from smtp.understand import understand
from tests.smtp.wire import FIXTURES

SAMPLE = (FIXTURES / "samples/5-arf-abuse-redacted.eml").read_bytes()


def _only(raw: bytes) -> Report:
    (found,) = understand(raw)
    assert isinstance(found, Report)
    return found


def test_a_complaint_tells_type_address_and_every_place_of_the_return_path() -> None:
    report = _only(SAMPLE)

    assert (report.type, report.recipient, report.source_ip) == ("abuse", "redacted-9f2c@provider.test", "192.0.2.10")
    assert report.clues.return_paths == (
        "1.cmp42.m7f3e.k3jq2x7abg",
        "b+1.cmp42.m7f3e.k3jq2x7abg@bounce.sender.test",
    )
    assert report.clues.message_id == "<m7f3e@sender.test>"


@pytest.mark.parametrize("kind", ["fraud", "not-spam", "auth-failure", "opt-out"])
def test_the_type_is_told_as_it_stands(kind: str) -> None:
    assert _only(SAMPLE.replace(b"Feedback-Type: abuse", f"Feedback-Type: {kind.title()}".encode())).type == kind


def test_a_report_without_a_type_is_unclear() -> None:
    (found,) = understand(SAMPLE.replace(b"Feedback-Type: abuse\n", b""))

    assert isinstance(found, Unclear)
    assert found.reason == "unknown_feedback_type"


def test_a_source_that_is_no_address_is_left_out() -> None:
    assert _only(SAMPLE.replace(b"192.0.2.10", b"mx.example")).source_ip is None


def test_without_a_named_recipient_the_returned_mail_tells_it() -> None:
    raw = SAMPLE.replace(b"Original-Rcpt-To: <redacted-9f2c@provider.test>\n", b"")

    assert _only(raw).recipient == "undisclosed@provider.test"
