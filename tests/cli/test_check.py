"""A list is checked whatever it looks like: every row gets one verdict, and no row ends the reading."""

import csv
import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cli.check import check
from cli.check_reading import MAX_LINE, MAX_LINES, Row, millis, rows
from cli.check_rows import Answer, with_dns
from cli.failures import OutsideFailed, WrongUse
from schemas.codec import encode
from schemas.sending import AdmissionPolicy, Campaign, Mailbox
from smtp.domain_checks import DomainReport, Finding

MIXED = (
    b'\xef\xbb\xbfemail;name\nann@example.com;Ann\nbob@gmial.com;"two\nlines"\nabuse@example.com;1\n\n'
    b"ann@example.com;again\nx@mailinator.com\n;\n"
)


def run(file: Path, *options: str) -> Result:
    command: click.Command = check
    return CliRunner().invoke(command, [str(file), "--data", str(file.parent), *options])


def checked(tmp_path: Path, content: bytes, *options: str) -> list[dict[str, str]]:
    file, report = tmp_path / "list.csv", tmp_path / "report.csv"
    file.write_bytes(content)
    done = run(file, "--report", str(report), *options)
    assert done.exit_code in {0, 1}, done.output
    with report.open(newline="", encoding="utf-8") as text:
        return list(csv.DictReader(text))


def verdicts(tmp_path: Path, content: bytes, *options: str) -> list[tuple[str, str, str]]:
    return [(one["row"], one["verdict"], one["reason"]) for one in checked(tmp_path, content, *options)]


def test_every_row_has_its_number_a_verdict_and_one_reason(tmp_path: Path) -> None:
    assert verdicts(tmp_path, MIXED) == [
        ("2", "ok", ""),
        ("3", "refuse", "typo_domain"),
        ("5", "refuse", "role_account"),
        ("7", "flag", "duplicate"),
        ("8", "flag", "disposable"),
        ("9", "refuse", "bad_address"),
    ]


ANN = "ann@example.com"
SHAPES: dict[str, tuple[bytes, list[tuple[str, str]]]] = {
    "no_header": (b"ann@example.com\nbob@example.com\n", [("1", "ok"), ("2", "ok")]),
    "no_header_and_the_first_is_broken": (b"nobody\nbob@example.com\n", [("1", "refuse"), ("2", "ok")]),
    "no_header_second_column": (b"1,ann@example.com\n2,bob@example.com\n", [("1", "ok"), ("2", "ok")]),
    "no_line_end": (b"email\nann@example.com", [("2", "ok")]),
    "windows": (b"email,x\r\nann@example.com,1\r\n", [("2", "ok")]),
    "old_mac": (b"email,x\rann@example.com,1\rbob@example.com,1", [("2", "ok"), ("3", "ok")]),
    "tabs": (b"x\tE-Mail\n1\tann@example.com\n", [("2", "ok")]),
    "utf_16": ("email,x\nänn@example.com,1\n".encode("utf-16"), [("2", "ok")]),
    "latin_1": (
        "email,x\nann@example.com,Müller\nänn@example.com,x\n".encode("latin-1"),
        [("2", "ok"), ("3", "refuse")],
    ),
    "nul": (b"email\na\0nn@example.com\nann@example.com\n", [("2", "refuse"), ("3", "ok")]),
    "short_row": (b"x,email\n1\n2,ann@example.com\n", [("2", "refuse"), ("3", "ok")]),
    "quote_never_closed": (
        b'email,x\n"ann@example.com,1\nbob@example.com,1\n',
        [("2", "refuse"), ("3", "ok")],
    ),
    "quote_within": (b'email,x\nann@example.com,5" nail\nbob@example.com,1\n', [("2", "ok"), ("3", "ok")]),
    "long_row": (b"email\n" + b"x" * (MAX_LINE * 3) + b"\nann@example.com\n", [("2", "refuse"), ("3", "ok")]),
    "blank_rows": (b"\n\nemail\n\nann@example.com\n  \n", [("5", "ok")]),
}


@pytest.mark.parametrize(("content", "expected"), SHAPES.values(), ids=SHAPES.keys())
def test_lists_of_any_shape_are_read(tmp_path: Path, content: bytes, expected: list[tuple[str, str]]) -> None:
    assert [(row, verdict) for row, verdict, _ in verdicts(tmp_path, content)] == expected


def test_a_quote_that_never_closes_costs_no_other_row(tmp_path: Path) -> None:
    lines = [b'"open,1' if number % 7 == 3 else b"ann%d@example.com,1" % number for number in range(200)]
    found = verdicts(tmp_path, b"email,x\n" + b"\n".join(lines))
    assert [row for row, _, _ in found] == [str(number + 2) for number in range(200)]
    assert sum(verdict == "ok" for _, verdict, _ in found) == sum(not line.startswith(b'"') for line in lines)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=40).filter(lambda line: b"\n" not in line and b"\r" not in line), max_size=60))
def test_whatever_the_octets_no_reading_ends_early_and_every_row_is_there_once(
    tmp_path: Path, lines: list[bytes]
) -> None:
    file = tmp_path / "any.csv"
    file.write_bytes(b"email,x\n" + b"\n".join([*lines, b"last@example.com,1"]))
    found = list(rows(file, lambda _: None))
    numbers = [row.number for row in found]
    assert numbers == sorted(set(numbers))
    assert found[-1] == Row(len(lines) + 2, ("last@example.com", "1")) or found[-1].number > len(lines) + 2 - MAX_LINES


def test_a_list_without_addresses_says_what_is_missing(tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    file.write_bytes(b"name,town\nAnn,Rome\n")
    done = run(file)
    assert done.exit_code == WrongUse.exit_code
    assert "--column" in done.output


@pytest.mark.parametrize("column", ["Contact", "2"])
def test_the_column_may_be_named_or_numbered(tmp_path: Path, column: str) -> None:
    found = verdicts(tmp_path, b"name,contact\nAnn,ann@example.com\n", "--column", column)
    assert found == [("2", "ok", "")]


def test_redacted_reports_hold_no_address(tmp_path: Path) -> None:
    found = checked(tmp_path, MIXED, "--redact")
    assert "address" not in found[0]
    assert "@example.com" not in (tmp_path / "report.csv").read_text()


@pytest.mark.parametrize("start", ["=", "+", "-"])
def test_no_cell_of_the_report_is_a_formula(tmp_path: Path, start: str) -> None:
    (found,) = checked(tmp_path, f"email\n{start}cmd@example.com\n".encode())
    assert found["address"] == f"'{start}cmd@example.com"


def test_the_summary_counts_verdicts_and_reasons_and_says_what_was_not_asked(tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    file.write_bytes(MIXED)
    done = run(file, "--json")
    told: dict[str, Any] = json.loads(done.stdout)
    assert done.exit_code == 1
    assert (told["rows"], told["verdicts"]) == (6, {"ok": 1, "flag": 2, "hold": 0, "refuse": 3})
    assert told["reasons"]["typo_domain"] == 1
    assert "NOT asked" in told["known"]


def test_a_good_list_ends_with_0(tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    file.write_bytes(b"email\nann@example.com\n")
    assert run(file).exit_code == 0


def test_kafka_that_is_silent_is_told_and_insisted_on_only_if_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.check.ANSWER_WITHIN_S", 0.2)
    file = tmp_path / "list.csv"
    file.write_bytes(b"email\nann@example.com\n")
    silent = ("--kafka", "127.0.0.1:9")
    told = run(file, *silent)
    assert told.exit_code == 0, told.output
    assert "NOT asked: Kafka at 127.0.0.1:9 did not answer" in told.stdout
    assert run(file, *silent, "--known").exit_code == OutsideFailed.exit_code
    assert run(file, *silent, "--no-known").exit_code == 0
    assert run(file, "--known").exit_code == WrongUse.exit_code


OLD = b"email,source,opted_in_at,last_seen_at\nann@example.com,form,2001-01-01,2001-02-01T10:00:00Z\n"


def test_a_campaigns_own_policy_is_taken(tmp_path: Path) -> None:
    campaign = Campaign(
        campaign="c",
        from_=Mailbox(address="news@shop.example"),
        return_path_domain="b.shop.example",
        admission=AdmissionPolicy(sunset="hold"),
    )
    (tmp_path / "campaign.json").write_bytes(encode(campaign))
    assert verdicts(tmp_path, OLD, "--policy", str(tmp_path / "campaign.json")) == [("2", "hold", "sunset")]
    assert verdicts(tmp_path, OLD) == [("2", "ok", "")]
    assert verdicts(tmp_path, OLD, "--policy", "strict")[0][1] == "refuse"
    assert verdicts(tmp_path, b"email\nann@example.com\n", "--policy", "strict") == [("2", "refuse", "provenance")]


def test_a_time_that_is_none_is_named(tmp_path: Path) -> None:
    (found,) = checked(tmp_path, b"email,opted_in_at\nann@example.com,soon\n")
    assert (found["reason"], found["explain"][:11]) == ("bad_field", "opted_in_at")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1700000000000", 1_700_000_000_000),
        ("1700000000", 1_700_000_000_000),
        ("2023-11-14T22:13:20Z", 1_700_000_000_000),
        ("2023-11-14 22:13:20", 1_700_000_000_000),
        ("2023-11-15T00:13:20+02:00", 1_700_000_000_000),
        ("yesterday", None),
        ("", None),
        ("9" * 40, None),
        ("²", None),
    ],
)
def test_times_are_read_as_people_write_them(text: str, expected: int | None) -> None:
    assert millis(text) == expected


def report_of(kind: str, strength: float) -> DomainReport:
    return DomainReport("example.com", (Finding(kind, strength, "is so"),))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("before", "report", "verdict", "reason"),
    [
        ("ok", DomainReport("example.com"), "ok", ""),
        ("ok", None, "ok", ""),
        ("ok", report_of("no_domain", 1.0), "refuse", "no_domain"),
        ("flag", report_of("null_mx", 1.0), "refuse", "null_mx"),
        ("ok", report_of("parked", 0.4), "flag", "parked"),
        ("ok", report_of("unknown", 0.0), "flag", "dns_unknown"),
        ("refuse", report_of("no_domain", 1.0), "refuse", "was"),
        ("hold", report_of("no_domain", 1.0), "refuse", "no_domain"),
    ],
)
def test_what_the_dns_says_counts_if_it_is_worse(
    before: str, report: DomainReport | None, verdict: str, reason: str
) -> None:
    answer = Answer(1, ANN, before, "" if before == "ok" else "was")  # type: ignore[arg-type]
    found = with_dns(answer, report)
    assert (found.verdict, found.reason) == (verdict, reason)
