"""``mailcordon rules``: mistakes are told with their place and fix, and every reading with its reason."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.failures import WrongUse
from cli.main import main
from cli.rules import put_rules_in_force
from policy.replies import classify, put_in_force

GOOD = """
[[rule]]
id = "partner"
provider = "google"
class = 5
any = ["partner mailbox is gone"]
sample = ["550 5.1.1 partner mailbox is gone"]
category = "invalid_recipient"

[[rule]]
id = "try-it"
all = ["quarantined", "by"]
sample = ["550 5.7.1 Quarantined by us"]
category = "spam_content"
dry_run = true

[[hint]]
id = "our-trap-words"
trap = 0.2
any = ["tripwire"]
sample = ["550 tripwire hit"]
"""


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["rules", *arguments])


def written(folder: Path, text: str) -> str:
    file = folder / "own.toml"
    file.write_text(text, encoding="utf-8")
    return str(file)


def test_a_file_in_order_is_told_so(tmp_path: Path) -> None:
    result = run("check", written(tmp_path, GOOD))
    assert result.exit_code == 0, result.output
    assert "2 rules and 1 hints are in order, 3 samples" in result.output


MISTAKES = {
    "no_toml": ("[[rule", "", "", "no TOML"),
    "own_category": ('[category.x]\nkind = "soft"\n', "", "category", "categories and codes are mailcordon's"),
    "unknown_table": ("[rules]\n", "", "rules", "[[rule]] and [[hint]]"),
    "one_bracket": ('[rule]\nid = "x"\n', "", "rule", "two brackets"),
    "misspelt_field": ('[[rule]]\nid = "x"\nanny = ["x"]\ncategory = "other"\n', "x", "anny", "no such field"),
    "wrong_type": ('[[rule]]\nid = "x"\nany = "x"\ncategory = "other"\n', "x", "any", "array"),
    "no_id": ('[[rule]]\nany = ["x"]\ncategory = "other"\n', "rule 1", "id", "missing"),
    "no_category": ('[[rule]]\nid = "x"\nany = ["x"]\ncategory = "nope"\n', "x", "category", "those that exist"),
    "hard_without_class": (
        '[[rule]]\nid = "x"\nany = ["x"]\ncategory = "invalid_recipient"\n',
        "x",
        "class",
        "needs class = 5",
    ),
    "everything": ('[[rule]]\nid = "x"\ncategory = "other"\n', "x", "", "matches everything"),
    "broken_pattern": ('[[rule]]\nid = "x"\npattern = "a("\ncategory = "other"\n', "x", "pattern", "RE2"),
    "sample_of_others": (
        '[[rule]]\nid = "x"\nany = ["yyy"]\ncategory = "other"\nsample = ["550 zzz"]\n',
        "x",
        "sample",
        "is read by 'code 5'",
    ),
    "never_reached": (
        '[[rule]]\nid = "x"\nany = ["yy"]\ncategory = "other"\n[[rule]]\nid = "z"\nany = ["yyy"]\ncategory = "virus"\n',
        "z",
        "any",
        "rule x before it matches whatever it matches, and the two contradict each other",
    ),
    "block_made_hard": (
        '[[rule]]\nid = "x"\nclass = 5\nany = ["reputation"]\ncategory = "invalid_recipient"\n',
        "x",
        "unless",
        "for a dead address",
    ),
    "hint_that_proves": ('[[hint]]\nid = "x"\nany = ["x"]\ntrap = 1.0\n', "x", "trap", "at most 0.5"),
    "hint_sample": (
        '[[hint]]\nid = "x"\nany = ["yyy"]\ntrap = 0.1\nsample = ["550 z"]\n',
        "x",
        "sample",
        "none of its words",
    ),
}


@pytest.mark.parametrize(("text", "rule", "field", "explain"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_told_with_its_rule_its_field_and_the_fix(
    tmp_path: Path, text: str, rule: str, field: str, explain: str
) -> None:
    file = written(tmp_path, text)
    result = CliRunner().invoke(main, ["rules", "check", file, "--json"])
    assert result.exit_code == 1, result.output
    found = json.loads(result.stdout)["mistakes"]
    assert [(one["rule"], one["field"]) for one in found] == [(rule, field)], found
    assert explain in found[0]["explain"]


def test_every_mistake_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    result = run("check", written(tmp_path, "".join(one[0] for one in list(MISTAKES.values())[7:11])))
    assert result.exit_code == 1
    assert len([line for line in result.output.splitlines() if line.startswith("rule x")]) == 4, result.output


def test_what_can_never_match_the_same_is_no_overlap(tmp_path: Path) -> None:
    rules = "".join(
        f'[[rule]]\nid = "{name}"\n{condition}\nany = ["yy"]\ncategory = "{category}"\n'
        for name, condition, category in (
            ("a", 'provider = "google"', "other"),
            ("b", "codes = [550]", "virus"),
            ("c", 'unless = ["zz"]', "expired"),
            ("d", "", "transient"),
        )
    )
    assert run("check", written(tmp_path, rules)).exit_code == 0


def test_a_reading_is_explained_for_people() -> None:
    result = run("explain", "550 5.1.1 No such user here")
    assert result.exit_code == 0
    for words in ("no-such-user", "its pattern finds", "invalid_recipient", "hard", "suppressed for everybody"):
        assert words in result.output


def test_a_reading_is_explained_for_programs() -> None:
    result = run("explain", "554 5.7.1 Client host [192.0.2.1] blocked using psbl.surriel.com", "--json")
    said = json.loads(result.stdout)
    assert (said["category"], said["class"], said["suppress"], said["trap"]) == ("blocklisted_ip", "block", "", 0.1)
    assert said["pauses"] == "ip"
    assert "nobody is suppressed" in said["follows"]


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ("550 5.1.1 zzz", "no rule knows the text, so the enhanced code 5.1.1 decides"),
        ("552 zzz", "the digits 552 decide"),
        ("zzz", "there is no code of a refusal"),
        ("", "there is no code of a refusal"),
    ],
)
def test_what_no_rule_knows_is_explained_by_its_codes(reply: str, why: str) -> None:
    assert why in run("explain", reply).output


def test_no_address_is_repeated() -> None:
    result = run("explain", "550 5.1.1 <ann@shop.example>: user unknown", "--json")
    assert "ann@" not in result.output


def test_own_rules_can_be_tried(tmp_path: Path) -> None:
    file = written(tmp_path, GOOD)
    result = run("explain", "550 partner mailbox is gone", "--rules", file)
    assert "your rule partner" in result.output
    assert "try-it (spam_content) would have decided" in run("explain", "550 quarantined by x", "--rules", file).output


@pytest.fixture
def _ours_again() -> Iterator[None]:
    yield
    put_in_force(None)


@pytest.mark.usefixtures("_ours_again")
def test_a_role_reads_by_the_operators_rules(tmp_path: Path) -> None:
    put_rules_in_force(Path(written(tmp_path, GOOD)))
    assert classify(code=550, enhanced=None, text="partner mailbox is gone").rule == "partner"


@pytest.mark.parametrize("content", [None, b"\xff", b"[[rule]]\nid = 1\n"], ids=["no file", "no text", "nonsense"])
def test_a_file_that_cannot_be_meant_ends_the_role_with_its_name(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "own.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(WrongUse) as refused:
        put_rules_in_force(file)
    assert f"rules_file {file}" in str(refused.value)


def test_without_a_file_it_is_as_shipped() -> None:
    put_rules_in_force(None)
    assert classify(code=550, enhanced=None, text="partner mailbox is gone").rule == "code 5"
