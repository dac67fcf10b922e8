"""The commands of the trap registry, on a real broker, and what stands in its topic."""

import asyncio
import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cli.access import publish
from cli.kafka import EmbeddedKafka
from cli.main import main
from cli.secrets import load_or_make
from policy.settings import Settings
from policy.tokens import address_hash
from policy.traps import domain_hash
from schemas.codec import decode
from schemas.feedback import Feedback, Trap
from schemas.sending import Campaign, Mailbox
from schemas.topics import CAMPAIGNS, FEEDBACK, TRAPS
from streams.reading import to_the_end
from streams.topics import create

pytestmark = pytest.mark.kafka


class Shell:
    def __init__(self, bootstrap: str, secret: Path) -> None:
        self.bootstrap = bootstrap
        self.keys = load_or_make(secret)
        self._options = ["--kafka", bootstrap, "--secret-file", str(secret)]

    def __call__(self, *arguments: str) -> Result:
        return CliRunner().invoke(main, ["traps", *arguments, *self._options])

    def listed(self) -> dict[str, dict[str, Any]]:
        result = self("list", "--json")
        assert result.exit_code == 0, result.output
        return {one["hash"]: one for one in map(json.loads, result.stdout.splitlines())}

    def feedback(self, campaign: str) -> list[Feedback]:
        async def read() -> list[Feedback]:
            found = [one async for one in to_the_end(self.bootstrap, FEEDBACK, within_s=20)]
            decoded = [decode(Feedback, one.value) for one in found if one.key == campaign.encode()]
            return [one for one in decoded if isinstance(one, Feedback)]

        return asyncio.run(read())

    def raw(self) -> bytes:
        async def read() -> bytes:
            records = [one async for one in to_the_end(self.bootstrap, TRAPS, within_s=20)]
            return b"".join((one.key or b"") + (one.value or b"") for one in records)

        return asyncio.run(read())


@pytest.fixture
def shell(kafka: EmbeddedKafka, tmp_path: Path) -> Shell:
    asyncio.run(create(kafka.bootstrap, Settings()))
    return Shell(kafka.bootstrap, tmp_path / "secret")


def test_traps_are_added_listed_and_removed_and_never_written_in_clear(shell: Shell) -> None:
    before = shell.listed().keys()
    added = shell("add", "Rosa@traps.example", "@old-shop.example", "--kind", "recycled", "--planted", "the old shop")
    decoy = shell("add", "seed-7@shop.example", "--decoy", "--planted", "partner 7", "--note", "asked for by Ann")

    assert (added.exit_code, decoy.exit_code) == (0, 0)
    rosa, old, seed = (
        address_hash(shell.keys, "rosa@traps.example"),
        domain_hash(shell.keys, "old-shop.example"),
        address_hash(shell.keys, "seed-7@shop.example"),
    )
    listed = shell.listed()
    assert listed.keys() - before == {rosa, old, seed}
    assert [(listed[one]["what"], listed[one]["kind"], listed[one]["planted"]) for one in (rosa, old, seed)] == [
        ("address", "recycled", "the old shop"),
        ("domain", "recycled", "the old shop"),
        ("decoy", "pristine", "partner 7"),
    ]
    assert listed[seed]["note"] == "asked for by Ann"
    shown = shell("list")
    assert all(word in shown.stdout for word in (rosa, "the old shop", "decoy", "recycled"))
    everything = shell.raw() + shown.stdout.encode()
    assert not any(word in everything for word in (b"rosa", b"traps.example", b"old-shop.example", b"seed-7"))

    assert shell("remove", "rosa@traps.example", "@OLD-SHOP.example", seed).exit_code == 0
    assert shell.listed().keys() == before
    assert shell("remove", "rosa@traps.example").exit_code == 1


def test_a_file_is_imported_row_by_row_and_what_is_wrong_is_named(shell: Shell, tmp_path: Path) -> None:
    before = shell.listed().keys()
    file = tmp_path / "traps.csv"
    file.write_text(
        "address,kind,planted,since,what\n"
        "mia@traps.example,,footer,1764000000000,\n"
        "@gmial.example,typo,,,\n"
        "nonsense,,,,\n"
        "noa@traps.example,invented,,,\n"
        "noa@traps.example,,,yesterday,\n"
        "noa@traps.example,,told by ann@shop.example,,\n"
        f"{'cd' * 32},recycled,,5,domain\n"
        "@noa.example,,,,decoy\n"
    )
    result = shell("import", str(file), "--planted", "forms of 2026")

    assert result.exit_code == 1
    assert "3 registered, 5 rows skipped" in result.stderr
    assert all(f"line {number}:" in result.stderr for number in (4, 5, 6, 7, 9))
    listed = shell.listed()
    new = [listed[one] for one in listed.keys() - before]
    assert sorted((one["what"], one["kind"], one["planted"]) for one in new) == [
        ("address", "pristine", "footer"),
        ("domain", "recycled", "forms of 2026"),
        ("domain", "typo", "forms of 2026"),
    ]
    assert listed[address_hash(shell.keys, "mia@traps.example")]["since"] == 1_764_000_000_000


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["add", "nonsense"], "no e-mail address and no @domain"),
        (["add", "@"], "is no domain"),
        (["add", "@localhost"], "is no domain"),
        (["add", "@traps.example", "--decoy"], "leave out --decoy"),
        (["add", "rosa@traps.example", "--kind", "suspected"], "suspected"),
        (["add", "rosa@traps.example", "--planted", "x" * 201], "at most 200"),
        (["add", "rosa@traps.example", "--planted", "like rosa@traps.example"], "@-sign"),
        (["remove", "nonsense"], "no e-mail address"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value)[:30],
)
def test_wrong_use_is_told_before_anything_is_written(shell: Shell, arguments: list[str], told: str) -> None:
    before = shell.listed()
    result = shell(*arguments)

    assert (result.exit_code, told in result.output) == (2, True), result.output
    assert shell.listed() == before


def test_a_file_without_a_column_for_traps_is_wrong_use(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "traps.csv"
    file.write_text("name,kind\nann,typo\n")
    result = shell("import", str(file))

    assert (result.exit_code, "no column address" in result.output) == (2, True)


def snds(folder: Path, rows: str) -> str:
    file = folder / "snds.csv"
    file.write_text(f"IP Address,Activity period end,Trap hits\n{rows}")
    return str(file)


def test_counts_of_hits_become_suspected_hits_of_a_campaign(shell: Shell, tmp_path: Path, unique: str) -> None:
    apply = Campaign(campaign=unique, from_=Mailbox(address="news@shop.example"), return_path_domain="b.shop.example")
    asyncio.run(publish(shell.bootstrap, [(CAMPAIGNS, unique, apply)]))
    today = dt.datetime.now(dt.UTC).date().isoformat()
    file = snds(tmp_path, f"192.0.2.1,{today},2\n192.0.2.2,{today},1\n192.0.2.3,2020-01-01,1\nnonsense,{today},1\n")

    dry = shell("import-snds", file, "--campaign", unique, "--dry-run")
    assert (dry.exit_code, shell.feedback(unique)) == (1, [])
    result = shell("import-snds", file, "--campaign", unique)

    assert result.exit_code == 1  # a row was skipped
    assert "told of 4 hits on 3 days of an address, 1 rows skipped" in result.stderr
    assert "1 of these days are over for more than a week" in result.stderr
    told = shell.feedback(unique)
    assert sorted((one.ip, one.message_id) for one in told) == [
        ("192.0.2.1", f"snds-192.0.2.1-{today}-1"),
        ("192.0.2.1", f"snds-192.0.2.1-{today}-2"),
        ("192.0.2.2", f"snds-192.0.2.2-{today}-1"),
        ("192.0.2.3", "snds-192.0.2.3-2020-01-01-1"),
    ]
    assert {(one.kind, one.source, one.class_, one.provider, one.trap) for one in told} == {
        ("trap_hit", "import", "snds", "microsoft", Trap(kind="suspected", strength=0.8))
    }


def test_counts_for_a_campaign_that_nobody_knows_are_not_told(shell: Shell, tmp_path: Path, unique: str) -> None:
    result = shell("import-snds", snds(tmp_path, "192.0.2.1,2020-01-01,1\n"), "--campaign", unique)

    assert (result.exit_code, f"there is no campaign '{unique}'" in result.output) == (1, True)
    assert shell.feedback(unique) == []
