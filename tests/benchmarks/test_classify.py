"""The benchmark of what comes back: any folder will do, readers may die, and our own corpus is read well."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import classify
from benchmarks._classify_score import Read, score, truth_of

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests/smtp/fixtures"
BOUNCE = (FIXTURES / "samples/1-dsn-userunknown.eml").read_bytes()
FIGURES = {
    "coverage",
    "right_category",
    "right_recipients",
    "blocks_called_recipient_fault",
    "crashes",
    "messages_per_cpu_s",
}


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks/classify.py"), "--runs", "1", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_our_corpus_is_recognised_and_right_and_no_block_accuses_anybody() -> None:
    done = _run("--json", str(FIXTURES))
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])

    assert done.returncode == 0, done.stderr
    assert told["bench"] == "classify"
    assert told["figures"].keys() == told["baseline"].keys() == FIGURES
    assert told["facts"]["messages"] == told["facts"]["messages_with_truth"] == 165
    assert told["figures"]["coverage"] == 1.0
    assert told["figures"]["right_category"] >= 0.95
    assert told["figures"]["blocks_called_recipient_fault"] == told["figures"]["crashes"] == 0
    assert told["ratios"].keys() == {"messages_per_cpu_s_vs_flufl"}


def test_every_fixture_has_truth_and_every_truth_a_fixture() -> None:
    files = {file.relative_to(FIXTURES).as_posix() for file in FIXTURES.rglob("*.eml")}

    assert {path.as_posix() for path in truth_of(FIXTURES / "truth.toml")} == files


def test_a_folder_without_truth_has_coverage_only_and_tells_what_was_not_recognised(tmp_path: Path) -> None:
    (tmp_path / "deep/er").mkdir(parents=True)
    (tmp_path / "deep/er/a.EML").write_bytes(BOUNCE)
    (tmp_path / "b.eml").write_bytes(b"Subject: hello\n\nHow are you?\n")
    (tmp_path / "no-mail.txt").write_bytes(BOUNCE)

    done = _run("--json", "--verbose", str(tmp_path))
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])

    assert told["figures"]["coverage"] == 0.5
    assert told["figures"]["right_category"] is None
    assert "b.eml: not recognised (unrecognised)" in done.stdout


def test_truth_of_ones_own_is_taken(tmp_path: Path) -> None:
    (tmp_path / "a.eml").write_bytes(BOUNCE)
    (tmp_path / "labels.toml").write_text('"a.eml" = [["block", "policy_block", "alice@receiver.test"]]\n')

    told = json.loads(_run("--json", "--truth", str(tmp_path / "labels.toml"), str(tmp_path)).stdout.splitlines()[-1])

    assert (told["figures"]["right_category"], told["figures"]["blocks_called_recipient_fault"]) == (0.0, 1)


@pytest.mark.parametrize(
    ("labels", "says"),
    [('"a.eml" = [["block"]]', '"a.eml": write [["kind"'), ("a = ", "--truth"), (None, "No such file")],
    ids=["a row too short", "no TOML", "no file"],
)
def test_truth_that_cannot_be_read_is_named(tmp_path: Path, labels: str | None, says: str) -> None:
    (tmp_path / "a.eml").write_bytes(BOUNCE)
    if labels is not None:
        (tmp_path / "labels.toml").write_text(labels)

    done = _run("--truth", str(tmp_path / "labels.toml"), str(tmp_path))

    assert done.returncode == 2
    assert says in done.stderr


def test_a_folder_without_mail_is_an_error(tmp_path: Path) -> None:
    done = _run(str(tmp_path))

    assert done.returncode == 2
    assert "no .eml files" in done.stderr


def test_a_reader_that_dies_is_a_crash_and_the_next_message_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    killer = tmp_path / "killer.py"
    killer.write_text(
        "import json, os, sys\n"
        "for path in sys.stdin.read().splitlines():\n"
        "    if 'deadly' in path:\n"
        "        os.abort()\n"
        "    print(json.dumps({'rows': [['noted', '', '']]}), flush=True)\n"
        "print(json.dumps({'cpu_s': 0.5}))\n"
    )
    monkeypatch.setattr(classify, "READER", [sys.executable, str(killer)])

    reads, cpu_s = classify.turn("ours", [tmp_path / name for name in ("a.eml", "deadly.eml", "c.eml")])

    assert [bool(read.error) for read in reads] == [False, True, False]
    assert score(reads, {}).crashes == 1
    assert cpu_s == 0.5


@pytest.mark.parametrize(
    ("said", "expected", "right", "blamed"),
    [
        ([["block", "spam_content", "a"]], [["block", "spam_content", "a"]], 1.0, 0),
        ([["hard_bounce", "invalid_recipient", "a"]], [["block", "spam_content", "a"]], 0.0, 1),
        ([["soft_bounce", "other", "a"]], [["soft_bounce", "other|expired", "a"]], 1.0, 0),
        ([["unclear", "unrecognised", ""]], [["none", "", ""]], 1.0, 0),
        ([["noted", "delayed", "a"]], [["none", "", ""]], 0.0, 0),
        (
            [["block", "spam_content", "a"], ["hard_bounce", "invalid_recipient", "b"]],
            [["hard_bounce", "invalid_recipient", "b"], ["block", "spam_content", "a"]],
            1.0,
            0,
        ),
        (
            [["hard_bounce", "invalid_recipient", "a"], ["hard_bounce", "invalid_recipient", "b"]],
            [["hard_bounce", "invalid_recipient", "b"], ["block", "spam_content", "a"]],
            0.0,
            1,
        ),
    ],
)
def test_scores(said: list[list[str]], expected: list[list[str]], right: float, blamed: int, tmp_path: Path) -> None:
    (tmp_path / "labels.toml").write_text(f'"x.eml" = {json.dumps(expected)}\n')
    read = Read(tmp_path / "x.eml", tuple(said))

    told = score([read], truth_of(tmp_path / "labels.toml"))

    assert (told.right_category, told.blocks_called_recipient_fault) == (right, blamed)
