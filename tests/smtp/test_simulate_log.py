from pathlib import Path

import pytest

from smtp.simulate.log import Log, Seen, doubled, last_mail_from_at, read_logs


def _seen(**changes: object) -> Seen:
    fields: dict[str, object] = {
        "at": 10,
        "event": "accepted",
        "provider": "google",
        "mail_from": "b+x@bounces.example",
        "mail_from_at": 9,
        "rcpt": "ann@gmail.example",
        "code": 250,
        "accepted_at": 10,
        "campaign_name": "spring-1",
        "message_token": "m-1",
    }
    return Seen(**(fields | changes))  # type: ignore[arg-type]


def test_what_is_written_is_read_back_from_all_providers_oldest_first(tmp_path: Path) -> None:
    lines = {"google": _seen(at=20), "yahoo": _seen(at=10, provider="yahoo")}
    for provider, line in lines.items():
        log = Log(tmp_path, provider)
        log.write([line])
        log.close()

    assert read_logs(tmp_path) == [lines["yahoo"], lines["google"]]


def test_a_line_that_was_cut_off_by_a_kill_is_passed_over(tmp_path: Path) -> None:
    log = Log(tmp_path, "google")
    log.write([_seen()])
    log.close()
    with log.file.open("ab") as out:
        out.write(b'{"at":1')

    assert read_logs(tmp_path) == [_seen()]


def test_any_other_broken_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "google.jsonl").write_text("{}\n")

    with pytest.raises(ValueError, match=r"google\.jsonl, line 1"):
        read_logs(tmp_path)


def test_a_refused_recipient_gets_its_campaign_from_the_return_path(tmp_path: Path) -> None:
    log = Log(tmp_path, "google")
    log.write([_seen(event="rejected", campaign_name=None, message_token=None, code=550, accepted_at=None)])
    log.close()

    (line,) = read_logs(tmp_path, campaign_of=lambda mail_from: "spring-1" if mail_from.startswith("b+x") else None)

    assert line.campaign_name == "spring-1"


def test_a_message_that_was_accepted_twice_is_doubled() -> None:
    seen = [_seen(), _seen(at=11, provider="other"), _seen(message_token="m-2"), _seen(event="rejected")]

    assert doubled(seen) == {("spring-1", "m-1"): 2}


def test_the_last_mail_from_of_a_campaign_counts_refused_ones_too() -> None:
    seen = [
        _seen(mail_from_at=5),
        _seen(mail_from_at=8, event="rejected"),
        _seen(mail_from_at=9, campaign_name="other"),
    ]

    assert last_mail_from_at(seen, "spring-1") == 8
    assert last_mail_from_at(seen, "nobody") is None


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    (tmp_path / "google.jsonl").symlink_to("/dev/full")
    log = Log(tmp_path, "google")

    with pytest.raises(OSError, match="No space left"):
        log.write([_seen()])
    log.close()
