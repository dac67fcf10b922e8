"""Every benchmark explains itself, checks what it measures, and ends with the JSON that the contract promises."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks._cpu import cpu_s
from benchmarks._harness import Report, Spread, Subject, Turn
from benchmarks._plain_tally import added, is_bad
from benchmarks._plain_validate import Outbound, Request, checked

ROOT = Path(__file__).parents[2]
BENCHES = sorted((ROOT / "benchmarks").glob("[a-z]*.py"))
SMALLEST = {
    "admission": ["--addresses", "2000", "--plain-addresses", "500"],
    "sender": ["--messages", "20", "--plain-messages", "5", "--connections", "2", "--sink", "own", "--only", "stage"],
    "streams": ["--campaigns", "2", "--requests", "4", "--frames", "4", "--size", "5", "--messages", "10"],
}
KEYS = {
    "admission": {"addresses_per_cpu_s", "with_screens_per_cpu_s"},
    "sender": {"stage", "stage_10kb", "stage_100kb", "stage_20ms"},
    "streams": {"validate_route", "tally_judge"},
}
RATIOS = {
    "admission": {"addresses_per_cpu_s_vs_email_validator", "with_screens_per_cpu_s_vs_email_validator"},
    "sender": {"stage_vs_plain", "stage_vs_plain_10kb", "stage_vs_plain_100kb", "stage_vs_plain_20ms"},
    "streams": {"validate_route_vs_plain", "tally_judge_vs_plain"},
}


def run(bench: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(bench), *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("bench", BENCHES, ids=lambda bench: bench.stem)
def test_help_has_every_option_and_examples(bench: Path) -> None:
    told = run(bench, "--help")
    assert "--json" in told
    assert f"benchmarks/{bench.name} --" in told


@pytest.mark.kafka
@pytest.mark.parametrize("bench", [one for one in BENCHES if one.stem in KEYS], ids=lambda bench: bench.stem)
def test_last_line_is_the_json_of_the_contract(bench: Path) -> None:
    told: dict[str, Any] = json.loads(run(bench, "--runs", "1", "--json", *SMALLEST[bench.stem]).splitlines()[-1])
    keys = KEYS[bench.stem]
    assert told["bench"] == bench.stem
    assert told["figures"].keys() == told["baseline"].keys() == keys
    assert told["ratios"].keys() == RATIOS[bench.stem]
    assert all(value > 0 for part in ("figures", "baseline", "ratios") for value in told[part].values())
    assert told["machine"]["cores"] >= 1
    assert told["checks"]


def test_figures_are_medians_and_a_ratio_is_that_of_each_turn() -> None:
    ours = [Turn(events=100, cpu_s=cpu, wall_s=9.0) for cpu in (1.0, 0.5, 2.0)]
    plain = [Turn(events=10, cpu_s=cpu, wall_s=9.0) for cpu in (1.0, 2.0, 1.0)]
    told: dict[str, Any] = Report("any", [Subject("key", "things", ours, plain)], [], {}).as_json()
    assert (told["figures"], told["baseline"]) == ({"key": 100.0}, {"key": 10.0})
    assert told["ratios"] == {"key_vs_plain": 10.0}
    assert told["spread"]["key"]["ratio"] == {"low": 5.0, "high": 40.0, "runs": [10.0, 40.0, 5.0]}


def test_where_waiting_is_the_limit_wall_clock_counts_and_the_variant_ends_each_key() -> None:
    ours, baseline = [Turn(events=100, cpu_s=9.0, wall_s=1.0)], [Turn(events=100, cpu_s=1.0, wall_s=4.0)]
    subject = Subject("client", "messages", ours, baseline, "smtp_source", "_20ms", by_wall=True)
    told: dict[str, Any] = Report("any", [subject], [], {}).as_json()
    assert told["figures"] == {"client_20ms": 100.0}
    assert told["ratios"] == {"client_vs_smtp_source_20ms": 4.0}


def test_spread_names_the_outermost_runs() -> None:
    assert str(Spread([300.0, 100.0, 2000.0])).split() == ["300", "(100", "to", "2,000)"]


def test_processor_time_counts_children_that_run_and_that_have_ended() -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass\n"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}]); print('over'); input()"
    parent = f"import subprocess, sys\nwith subprocess.Popen([sys.executable, '-c', {child!r}]): pass"
    process = subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    used = cpu_s(process.pid)
    process.communicate(b"\n")
    assert used >= 0.3


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("campaign", "unknown", "unknown_campaign"),
        ("address", "nobody.example.com", "bad_address"),
        ("vars", {}, "missing_variable"),
    ],
    ids=["campaign", "address", "variable"],
)
def test_plain_version_refuses_what_ours_refuses(
    monkeypatch: pytest.MonkeyPatch, field: str, value: object, reason: str
) -> None:
    monkeypatch.setattr("benchmarks._plain_validate.outbound", {"known": None})
    asked: dict[str, Any] = {
        "request_id": "r",
        "message_id": "m",
        "campaign": "known",
        "content": "c",
        "address": "Ann@example.com",
        "vars": {"name": "Ann"},
        "source": "form",
        "opted_in_at": 0,
    }
    assert isinstance(checked(Request(**asked)), Outbound)
    refused = checked(Request(**asked | {field: value}))
    assert isinstance(refused, tuple)
    assert refused[0] == reason


def test_plain_version_decides_about_campaigns_that_bounce_too_much() -> None:
    counts = [0, 0, 0, 0]
    for outcome in ["accepted"] * 60 + ["bounced"] * 4:
        counts = added(counts, outcome)
    assert not is_bad(counts)
    assert is_bad(added(counts, "bounced"))
