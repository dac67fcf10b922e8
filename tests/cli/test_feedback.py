"""``mailcordon feedback import``: a line for every mail, in order, whatever it is and however it is stored."""

import json
import mailbox
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from cli.feedback_reading import Reader
from cli.mail_files import Stored, stored, streamed
from cli.main import main
from policy.providers import Providers
from smtp.reader_process import ReaderPool
from smtp.understand import understand
from tests.smtp.mailroom import KEYS, NOW, OTHER_KEYS, SENT_AT, context, signed

FIXTURES = Path(__file__).parents[1] / "smtp" / "fixtures"
SAMPLES = FIXTURES / "samples"
UNKNOWN_USER = (SAMPLES / "1-dsn-userunknown.eml").read_bytes()


def imported(tmp_path: Path, *arguments: str, given: bytes | None = None) -> Result:
    data = str(tmp_path / "data")
    return CliRunner().invoke(main, ["feedback", "import", *arguments, "--data", data], input=given)


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def delivered_to(*addresses: str, raw: bytes = UNKNOWN_USER) -> bytes:
    return b"".join(b"Delivered-To: " + one.encode() + b"\n" for one in addresses) + raw


def read(raw: bytes, *, at: int | None = None, with_keys: bool = True) -> Any:
    reader = Reader(context() if with_keys else None, Providers({}).of)
    return reader.read(Stored("a.eml", 1, raw, at=at), understand(raw), now=NOW)


def test_a_dry_run_without_keys_says_what_every_mail_is(tmp_path: Path) -> None:
    result = imported(tmp_path, str(SAMPLES), "--dry-run", "--json")

    assert result.exit_code == 0, result.output
    assert [(one["kind"], one["class"], one["category"], one["reason"]) for one in lines(result)] == [
        ("hard_bounce", "hard", "invalid_recipient", "no_key"),
        ("soft_bounce", "soft", "mailbox_full", "no_key"),
        ("soft_bounce", "soft", "expired", "no_key"),
        ("hard_bounce", "hard", "invalid_recipient", "no_key"),
        ("complaint", None, None, "no_key"),
        ("auto_reply", None, None, "no_key"),
    ]
    assert [one["position"] for one in lines(result)] == [1, 2, 3, 4, 5, 6]
    assert lines(result)[1]["recipients"] == ["bob@corp.test", "carol@corp.test"]
    assert not (tmp_path / "data" / "secrets.json").exists()


def test_people_get_a_line_a_mail_and_a_sum(tmp_path: Path) -> None:
    result = imported(tmp_path, str(SAMPLES), "--dry-run")

    assert result.stdout.startswith(
        "1-dsn-userunknown.eml#1  hard_bounce (hard: invalid_recipient)  alice@receiver.test"
    )
    assert "6 mails: 2 hard_bounce, 2 soft_bounce" in result.stderr


def test_mails_are_found_however_they_are_stored(tmp_path: Path) -> None:
    one, other = UNKNOWN_USER, (SAMPLES / "6-autoreply-not-a-bounce.eml").read_bytes()
    box = mailbox.mbox(tmp_path / "box")
    directory = mailbox.Maildir(tmp_path / "Maildir")
    for raw in (one, other):
        box.add(raw)
        directory.add(raw)
    box.close()
    (tmp_path / "one.eml").write_bytes(one)

    kinds = {}
    for name in ("box", "Maildir", "one.eml"):
        kinds[name] = sorted(
            row["kind"] for row in lines(imported(tmp_path, str(tmp_path / name), "--dry-run", "--json"))
        )
    piped = imported(tmp_path, "-", "--dry-run", "--json", given=(tmp_path / "box").read_bytes())

    assert kinds == {
        "box": ["auto_reply", "hard_bounce"],
        "Maildir": ["auto_reply", "hard_bounce"],
        "one.eml": ["hard_bounce"],
    }
    assert [row["kind"] for row in lines(piped)] == ["hard_bounce", "auto_reply"]


def test_empty_and_hostile_files_have_lines_too(tmp_path: Path) -> None:
    folder = tmp_path / "mails"
    folder.mkdir()
    (folder / "a.eml").write_bytes(b"")
    (folder / "b.eml").write_bytes(b"\x00\xff" * 50_000)
    (folder / "c.eml").write_bytes(b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n\n" * 100_000)
    (folder / "d\nd.eml").write_bytes(UNKNOWN_USER)

    found = lines(imported(tmp_path, str(folder), "--dry-run", "--json"))

    assert [(one["file"], one["kind"]) for one in found[:3]] == [
        ("a.eml", "unknown"),
        ("b.eml", "unknown"),
        ("c.eml", "unknown"),
    ]
    assert all(one["reason"] for one in found)
    assert (found[3]["file"], found[3]["kind"]) == ("d d.eml", "hard_bounce")


def test_nothing_there_is_no_and_a_wrong_format_is_wrong_use(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    assert imported(tmp_path, str(tmp_path / "empty"), "--dry-run").exit_code == 1
    assert imported(tmp_path, str(tmp_path / "missing"), "--dry-run").exit_code == 2
    assert imported(tmp_path, str(tmp_path / "empty"), "--format", "mbox", "--dry-run").exit_code == 2
    assert imported(tmp_path, str(SAMPLES)).exit_code == 2, "without keys nothing can be proven"


@pytest.mark.parametrize("field", ["Delivered-To", "X-Original-To", "Envelope-To", "X-Envelope-To", "To"])
def test_mail_to_a_signed_return_path_is_feedback_of_the_import(field: str) -> None:
    raw = f"{field}: <{signed(to='alice@receiver.test')}>\n".encode() + UNKNOWN_USER

    found = read(raw)

    [event] = found.feedback
    assert (event.kind, event.campaign, event.message_id, event.sent_at, event.source) == (
        "hard_bounce",
        "spring-sale",
        "m-1",
        SENT_AT,
        "import",
    )
    assert event.address_hash is not None
    assert (found.line.reason, found.line.campaign, found.line.message_id) == (None, "spring-sale", "m-1")


def test_the_recipient_that_proves_it_is_taken_of_many() -> None:
    forged = signed(keys=OTHER_KEYS)

    assert read(delivered_to("me@shop.example", forged, signed())).feedback
    assert read(delivered_to("me@shop.example", forged)).line.reason == "return_path_bad_signature"


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("me@shop.example", "return_path_malformed"),  # the mail that is returned quotes one that is none
        (signed(keys=OTHER_KEYS), "return_path_bad_signature"),
        (signed(sent_at=NOW - 31 * 86_400_000), "return_path_expired"),
        (signed(name="nobodys"), "unknown_campaign"),
    ],
)
def test_what_is_not_proven_is_understood_and_not_published(address: str, reason: str) -> None:
    found = read(delivered_to(address))

    assert found.feedback == ()
    assert (found.line.kind, found.line.category, found.line.reason) == ("hard_bounce", "invalid_recipient", reason)


def test_a_proof_is_as_old_as_it_was_when_the_mail_was_delivered() -> None:
    sent_at = NOW - 60 * 86_400_000
    raw = delivered_to(signed(sent_at=sent_at))

    assert read(raw).line.reason == "return_path_expired"
    assert read(raw, at=sent_at + 86_400_000).feedback


def test_mail_that_anybody_can_send_to_a_trap_proves_nothing() -> None:
    raw = b"Delivered-To: rosa@traps.example\nX-Mailcordon-Campaign: x\nMessage-ID: <m.spring-sale@x>\n\nhi"

    assert read(raw).feedback == ()


@given(raw=st.binary(max_size=400))
def test_any_octets_are_a_line(raw: bytes) -> None:
    for keys in (True, False):
        found = read(raw, with_keys=keys)
        assert found.line.kind
        assert found.feedback == ()


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_what_an_mbox_holds_is_cut_at_its_separators_only(tmp_path_factory: Any, bodies: list[bytes]) -> None:
    clean = [body.replace(b"From ", b"from ") for body in bodies]
    text = b"".join(b"From a@b Mon Jan  1 10:00:00 2024\n\n" + body + b"\n\n" for body in clean)
    file = tmp_path_factory.mktemp("box") / "box"
    file.write_bytes(text)

    assert len(list(stored(file, "mbox"))) == len(bodies)
    with file.open("rb") as stream:
        assert [one.raw for one in streamed(stream, "mbox")] == [one.raw for one in stored(file, "mbox")]


NO_SEPARATORS = {
    "a sentence with a time": b"From 10:30 on we are closed.\nSee you.\n",
    "one with a day and a time": b"From Monday 09:00 to Friday 17:00\n",
    "a date, and no header below": b"From our meeting on Tue Jan  2 10:00:00 2024\nthere is nothing to say\n",
    "a letter": b"From the desk of Ann\n\nFrom here: nothing\n",
}
SEPARATORS = {
    "as RFC 4155 has it": b"From a@b.example Mon Jan  1 10:00:00 2024\n",
    "of nobody": b"From MAILER-DAEMON Fri Jul  8 12:08:34 2011\n",
    "of Thunderbird": b"From - Tue Jan 02 10:00:00 2024\n",
    "of Google": b"From 1788@xxx Mon Jan 01 10:00:00 +0000 2024\n",
    "with its day first": b"From a@b Mon, 1 Jan 2024 10:00:00 +0100\n",
    "as ISO 8601 has it": b"From a@b 2024-01-01T10:00:00\n",
}


@pytest.mark.parametrize("sentence", NO_SEPARATORS.values(), ids=NO_SEPARATORS.keys())
def test_a_body_that_is_not_quoted_is_not_cut_at_a_sentence(tmp_path: Path, sentence: bytes) -> None:
    mail = b"Subject: one\n\nHello,\n\n" + sentence
    between = b"From a@b Mon Jan  1 10:00:00 2024\n"
    (tmp_path / "box").write_bytes(between + mail + b"\n" + between + mail)

    assert [one.raw for one in stored(tmp_path / "box", "mbox")] == [mail + b"\n", mail]


@pytest.mark.parametrize("separator", SEPARATORS.values(), ids=SEPARATORS.keys())
def test_mails_are_apart_however_their_separator_is_written(tmp_path: Path, separator: bytes) -> None:
    (tmp_path / "box").write_bytes((separator + b"Subject: one\n\nhi\n\n") * 3)

    assert [one.position for one in stored(tmp_path / "box", "mbox")] == [1, 2, 3]


def test_an_import_reads_within_the_bounds_of_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []

    def noted(**bounds: Any) -> Any:
        asked.append(bounds)
        return ReaderPool(**bounds)

    monkeypatch.setattr("cli.feedback.ReaderPool", noted)
    bounds = ("--parsers", "3", "--parser-memory-mib", "128", "--parser-s", "9")

    assert imported(tmp_path, str(SAMPLES), "--dry-run", *bounds).exit_code == 0
    assert asked == [{"processes": 3, "memory_mib": 128, "message_s": 9}]


def test_the_keys_of_nobody_are_not_ours() -> None:
    assert KEYS.return_path != bytes(32)
