"""The benchmarks of what is lost and what is remembered: their JSON, their course, and an account that can say no."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks._kill_account import Account
from benchmarks._kill_load import CAMPAIGN
from benchmarks._kill_run import Course, Outcome, steps
from schemas.codec import encode
from schemas.delivery import DeliveryFrame, DeliveryResult, Position
from schemas.delivery import Outcome as Of
from tests.benchmarks.test_benchmarks import ROOT, run


def told_by(bench: str, *arguments: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(run(ROOT / "benchmarks" / bench, "--json", *arguments).splitlines()[-1])
    assert told.keys() >= {"bench", "figures", "baseline", "ratios", "machine"}
    return told


@pytest.mark.kafka
@pytest.mark.faults
@pytest.mark.parametrize("policy", ["hold", "resend"])
def test_a_small_run_with_kills_closes_its_account(policy: str) -> None:
    figures = told_by("kill_sender.py", "--messages", "1500", "--kills", "3", "--policy", policy)["figures"]
    assert (figures["lost"], figures["finals_twice"], figures["kills"]) == (0, 0, 3)
    assert figures["doubled"] <= figures["doubled_bound"]
    assert figures["in_doubt"] == 0 or policy == "hold"


@pytest.mark.kafka
@pytest.mark.faults
def test_memory_is_measured() -> None:
    figures = told_by("memory.py", "--ledger", "2000", "--suppressions", "2000")["figures"]
    assert 10 < figures["baseline_mib"] <= figures["rss_mib"] + 5
    assert figures["start_s"] > 0


@pytest.mark.kafka
@pytest.mark.faults
def test_ways_to_keep_a_ledger_are_compared() -> None:
    told = told_by("ledger.py", "--entries", "5", "--runs", "1")
    assert {"kafka_ms", "both_ms", "kafka_per_s", "both_per_s"} <= told["figures"].keys()
    assert {"file_ms", "file_per_s"} <= told["baseline"].keys()
    assert told["ratios"].keys() == {"kafka_vs_file_ms", "both_vs_file_ms"}


COURSE = Course(messages=200_000, kills=40, seed=3, policy="hold", connections=20, defer=0.0, drop=0.0)


def test_a_course_is_the_same_for_the_same_seed_and_has_all_its_kills() -> None:
    course = steps(COURSE)
    assert course == steps(COURSE)
    assert sum(step.what != "rebalance" for step in course) == 40
    assert {step.what for step in course} == {"sender", "worker", "broker", "rebalance"}
    assert all(0 < step.at < 200_000 for step in course)


def frame(offset: int, *results: tuple[int, Of]) -> bytes:
    return encode(
        DeliveryFrame(
            campaign=CAMPAIGN,
            sender="s",
            covers=[],
            results=[DeliveryResult(message_id=f"m-{number}", outcome=outcome, at=1) for number, outcome in results],
            ledger=Position(topic="l", partition=0, offset=offset),
        )
    )


def test_the_account_sees_what_is_lost_doubled_and_told_twice(tmp_path: Path) -> None:
    log = tmp_path / "received.log"
    log.write_bytes(b"m-0\nm-1\nm-1\nm-4!\nm-5\nm-")
    account = Account(7)
    account.take_frame(frame(1, (0, "accepted"), (1, "accepted"), (2, "accepted")))
    account.take_frame(frame(1, (0, "accepted"), (1, "accepted"), (2, "accepted")))  # a repeat
    account.take_frame(frame(2, (3, "bounced"), (4, "in_doubt"), (5, "deferred")))
    account.take_frame(frame(3, (3, "bounced"), (5, "accepted")))
    account.read_log(log)

    assert account.lost == 2  # 2 never arrived, 6 has no final record
    assert account.doubled == 1
    assert account.finals_twice == 1
    assert (account.in_doubt, account.in_doubt_received) == (1, 1)
    assert (account.final, account.lines, account.replies_lost) == (6, 5, 1)


@pytest.mark.parametrize("wrong", [{"lost": 1}, {"finals_twice": 1}, {"doubled": 3}, {"in_doubt": 2}], ids=str)
def test_a_run_that_is_not_right_says_so(wrong: dict[str, int]) -> None:
    right: dict[str, int | float] = {"lost": 0, "finals_twice": 0, "doubled": 2, "doubled_bound": 2}
    right |= {"in_doubt": 1, "in_doubt_bound": 1}

    assert Outcome(right, "resend").is_right
    assert not Outcome(right | wrong, "resend").is_right
