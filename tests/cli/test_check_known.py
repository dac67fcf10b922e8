"""``check --known`` on a real broker: what the installation knows of a list's addresses decides about its rows."""

import asyncio
import csv
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.kafka import EmbeddedKafka
from cli.main import main
from policy.settings import Settings
from streams.topics import create

pytestmark = pytest.mark.kafka


class Shell:
    """The command line of one installation; every list has domains of this test's own."""

    def __init__(self, bootstrap: str, folder: Path, unique: str) -> None:
        self.folder = folder
        self.domain = f"{unique}.example"
        self._options = ["--kafka", bootstrap, "--secret-file", str(folder / "secret")]

    def __call__(self, *arguments: str) -> Result:
        return CliRunner().invoke(main, [*arguments, *self._options])

    def told(self, *arguments: str) -> None:
        """A command that changes what is known; it must do so."""
        result = self(*arguments)
        assert result.exit_code == 0, result.output

    def checked(self, addresses: list[str], *options: str) -> tuple[Result, list[tuple[str, str]]]:
        """The result of a check, and of each row verdict and reason."""
        given, report = self.folder / "list.csv", self.folder / "checked.csv"
        given.write_text("\n".join(["address", *addresses]) + "\n")
        result = self("check", str(given), "--report", str(report), "--known", *options)
        with report.open(newline="") as text:
            return result, [(row["verdict"], row["reason"]) for row in csv.DictReader(text)]


@pytest.fixture
def shell(kafka: EmbeddedKafka, tmp_path: Path, unique: str) -> Shell:
    asyncio.run(create(kafka.bootstrap, Settings()))
    return Shell(kafka.bootstrap, tmp_path, unique)


def test_registered_traps_and_suppressions_refuse_their_rows_and_no_others(shell: Shell) -> None:
    shell.told("traps", "add", f"rosa@{shell.domain}", f"@old.{shell.domain}", "--kind", "recycled")
    shell.told("suppress", "add", f"Ann@{shell.domain}", "--reason", "complaint")

    listed = [f"rosa@{shell.domain}", f"who@old.{shell.domain}", f"ann@{shell.domain}", f"bob@{shell.domain}"]
    result, rows = shell.checked(listed)

    assert rows == [("refuse", "known_trap"), ("refuse", "known_trap"), ("refuse", "suppressed"), ("ok", "")]
    assert result.exit_code == 1
    assert "were asked at" in result.output


def test_what_was_lifted_and_removed_is_known_no_more(shell: Shell) -> None:
    shell.told("traps", "add", f"rosa@{shell.domain}")
    shell.told("suppress", "add", f"ann@{shell.domain}")
    shell.told("traps", "remove", f"rosa@{shell.domain}")
    shell.told("suppress", "remove", f"ann@{shell.domain}")

    result, rows = shell.checked([f"rosa@{shell.domain}", f"ann@{shell.domain}"])

    assert rows == [("ok", ""), ("ok", "")]
    assert result.exit_code == 0


def test_a_suppressed_domain_refuses_every_address_of_it(shell: Shell) -> None:
    shell.told("suppress", "add", f"@{shell.domain}", "--until", "2099-01-01")

    _, rows = shell.checked([f"ann@{shell.domain}", f"ann@other.{shell.domain}"])

    assert rows == [("refuse", "suppressed"), ("ok", "")]


def test_a_tenants_suppression_holds_for_its_campaigns_alone(shell: Shell) -> None:
    tenant = shell.domain.removesuffix(".example")
    shell.told("suppress", "add", f"ann@{shell.domain}", "--scope", f"tenant:{tenant}")
    campaign = shell.folder / "campaign.json"
    record = {"v": 1, "campaign": "spring", "from": {"address": "news@shop.example"}}
    campaign.write_text(json.dumps(record | {"return_path_domain": "b.shop.example", "tenant": tenant}))

    _, of_tenant = shell.checked([f"ann@{shell.domain}"], "--policy", str(campaign))
    _, of_nobody = shell.checked([f"ann@{shell.domain}"])

    assert (of_tenant, of_nobody) == ([("refuse", "suppressed")], [("ok", "")])


def test_nothing_known_is_written_in_clear_but_the_addresses_that_were_given(shell: Shell) -> None:
    shell.told("traps", "add", f"rosa@{shell.domain}", "--planted", "the old shop")

    result, rows = shell.checked([f"ROSA@{shell.domain}"], "--redact")

    written = (shell.folder / "checked.csv").read_text() + result.output
    assert rows == [("refuse", "known_trap")]
    assert "rosa" not in written.lower()
    assert "the old shop" not in written
