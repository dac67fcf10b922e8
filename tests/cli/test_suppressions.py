"""The commands of suppressions on a real broker: what is exported comes back as it was."""

import asyncio
import csv
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from agents.ports import now_ms
from cli.kafka import EmbeddedKafka
from cli.main import main
from cli.secrets import load_or_make
from cli.suppressions import lifted
from policy.settings import Settings
from policy.tokens import address_hash
from policy.traps import domain_hash
from schemas.feedback import Suppression
from streams.topics import create

pytestmark = pytest.mark.kafka
JANUARY_31 = 1_801_353_600_000  # 2027-01-31, UTC
Row = tuple[str, str, str, str]


class Shell:
    def __init__(self, bootstrap: str, folder: Path, scope: str) -> None:
        self.folder = folder
        self.scope = scope
        self.keys = load_or_make(folder / "secret")
        self._options = ["--kafka", bootstrap, "--secret-file", str(folder / "secret")]

    def __call__(self, *arguments: str) -> Result:
        return CliRunner().invoke(main, ["suppress", *arguments, *self._options])

    def export(self, name: str = "exported.csv") -> Path:
        file = self.folder / name
        result = self("export", "--output", str(file))
        assert result.exit_code == 0, result.output
        return file

    def exported(self) -> dict[str, Row]:
        """What is in this test's scope, by hash."""
        with self.export().open(newline="") as text:
            return {
                row["address_hash"]: (row["scope"], row["reason"], row["since"], row["until"])
                for row in csv.DictReader(text)
                if row["scope"] == self.scope
            }

    def file(self, text: str) -> str:
        written = self.folder / "list.csv"
        written.write_text(text)
        return str(written)


@pytest.fixture
def shell(kafka: EmbeddedKafka, tmp_path: Path, unique: str) -> Shell:
    asyncio.run(create(kafka.bootstrap, Settings()))
    return Shell(kafka.bootstrap, tmp_path, f"tenant:{unique}")


def test_an_address_and_a_domain_are_suppressed_until_a_day_and_lifted(shell: Shell) -> None:
    arguments = ["--scope", shell.scope, "--reason", "closed", "--until", "2027-01-31"]
    assert shell("add", "Ann@shop.example", "@OLD.example", *arguments).exit_code == 0

    ann, old = address_hash(shell.keys, "ann@shop.example"), domain_hash(shell.keys, "old.example")
    held = shell.exported()
    assert held.keys() == {ann, old}
    assert all((row[1], row[3]) == ("closed", str(JANUARY_31)) for row in held.values())
    assert b"shop.example" not in shell.export().read_bytes()

    assert shell("remove", "ann@shop.example", "@old.example", "--scope", shell.scope).exit_code == 0
    assert shell.exported() == {}


@pytest.mark.parametrize(
    ("reason", "until", "now", "over_at"),
    [
        ("invalid_recipient", None, 100, 100),
        ("bad_domain", 50, 100, 50),
        ("mailbox_full", 200, 100, 100),
        ("hard_bounce", None, 5, 10),
        ("complaint", None, 100, None),
        ("manual", None, 100, None),
    ],
)
def test_who_was_dead_is_remembered_when_the_suppression_is_lifted(
    reason: str, until: int | None, now: int, over_at: int | None
) -> None:
    one = Suppression(address_hash="ab" * 32, scope="platform", reason=reason, since=10, until=until)
    left = lifted(one, now)

    assert left == (None if over_at is None else msgspec.structs.replace(one, until=over_at))
    assert lifted(None, now) is None


def test_a_dead_address_is_lifted_with_its_past_or_forgotten_and_strikes_are_not_exported(shell: Shell) -> None:
    text = (
        "address,scope,reason,since,until\n"
        f"ann@shop.example,{shell.scope},invalid_recipient,1764000000000,\n"
        f"bob@shop.example,{shell.scope},complaint,1764000000001,\n"
    )
    assert shell("import", shell.file(text)).exit_code == 0
    assert shell("remove", "ann@shop.example", "bob@shop.example", "--scope", shell.scope).exit_code == 0
    ann = address_hash(shell.keys, "ann@shop.example")
    [(hashed, (_, reason, since, until))] = shell.exported().items()
    assert (hashed, reason, since) == (ann, "invalid_recipient", "1764000000000")
    assert 1_764_000_000_000 < int(until) <= now_ms()

    assert shell("remove", ann, "--scope", shell.scope, "--forget").exit_code == 0
    assert shell.exported() == {}

    strike = shell.file(f"address,scope\nann@shop.example,strike:mailbox_full:{shell.scope}\n")
    assert shell("import", strike).exit_code == 1


def test_what_was_exported_comes_back_as_it_was(shell: Shell) -> None:
    text = (
        "address,scope,reason,since,until\n"
        f"ann@shop.example,{shell.scope},invalid_recipient,1764000000000,1764000600000\n"
        f"bob@shop.example,{shell.scope},complaint,1764000000001,\n"
        f"@old.example,{shell.scope},bad_domain,2026-01-01,2027-01-31T00:00\n"
    )
    assert shell("import", shell.file(text)).exit_code == 0
    before = shell.exported()
    assert sorted(row[1:] for row in before.values()) == [
        ("bad_domain", "1767225600000", str(JANUARY_31)),
        ("complaint", "1764000000001", ""),
        ("invalid_recipient", "1764000000000", "1764000600000"),
    ]

    exported = shell.export("again.csv")
    for hashed in before:
        shell("remove", hashed, "--scope", shell.scope, "--forget")
    assert shell.exported() == {}
    assert shell("import", str(exported)).exit_code == 0

    assert shell.exported() == before


def test_options_stand_in_for_empty_cells_and_wrong_rows_are_named(shell: Shell) -> None:
    text = (
        "email,scope,reason,since,until\n"
        "ann@shop.example,,,,\n"
        "nonsense,,,,\n"
        "bob@shop.example,everywhere,,,\n"
        "bob@shop.example,,,yesterday,\n"
        "bob@shop.example,,,,soon\n"
        "bob@shop.example,,fax,5,6\n"
    )
    result = shell("import", shell.file(text), "--scope", shell.scope, "--reason", "asked", "--until", "1801353600000")

    assert result.exit_code == 1
    assert "2 suppressed, 4 rows skipped" in result.stderr
    assert all(f"line {number}:" in result.stderr for number in (3, 4, 5, 6))
    held = shell.exported()
    assert held[address_hash(shell.keys, "bob@shop.example")] == (shell.scope, "fax", "5", "6")
    ann = held[address_hash(shell.keys, "ann@shop.example")]
    assert (ann[1], ann[3]) == ("asked", str(JANUARY_31))
    assert int(ann[2]) > 1_764_000_000_000


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["add", "nonsense"], "no e-mail address"),
        (["add", "@localhost"], "is no domain"),
        (["add", "ann@shop.example", "--scope", "everywhere"], "expected platform"),
        (["add", "ann@shop.example", "--until", "soon"], "until 'soon'"),
        (["remove", "ann@shop.example", "--scope", "tenant:"], "expected platform"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value)[:30],
)
def test_wrong_use(shell: Shell, arguments: list[str], told: str) -> None:
    result = shell(*arguments)

    assert (result.exit_code, told in result.output) == (2, True), result.output
