"""The latency benchmark: stages that add up, trials that fail for a reason, a server that notes every MAIL FROM."""

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from benchmarks import _latency_sink
from benchmarks._latency_account import STAGES, Said, SinkLog, Trial, figures, gate_closed_at, kept, percentile
from benchmarks._latency_load import OthersResults, at_time, trap_hit
from benchmarks._latency_neighbour import Turns
from benchmarks._latency_system import Sightings
from benchmarks._running import free_port
from policy.counts import booked, booked_feedback
from schemas.codec import encode
from schemas.reputation import Control, Counts, Decision, RatesSnapshot
from schemas.sending import Pace
from schemas.topics import CONTROL, DECISIONS, RATES
from tests.benchmarks.test_benchmarks import ROOT

HIT = 1_000_000_000
STOPPED = Trial(
    campaign="trial-0",
    hit_at=HIT,
    snapshot_at=HIT + 10_000,
    control_at=HIT + 25_000,
    told_at=HIT + 90_000,
    gate_at=HIT + 60_000,
    mail_from=[HIT - 20_000, HIT, HIT + 20_000, HIT + 40_000],
    asked=100,
)


def test_a_trial_lasts_from_the_hit_to_the_last_mail_from_whatever_the_stages_say() -> None:
    assert STOPPED.failure is None
    assert STOPPED.whole_ms == 40.0
    assert STOPPED.stages_ms() == dict(zip(STAGES, [10.0, 15.0, 35.0, 0.0], strict=True))


def test_mail_after_the_gate_has_closed_is_the_last_stage() -> None:
    late = replace(STOPPED, mail_from=[HIT, HIT + 75_000])
    assert (late.whole_ms, late.stages_ms()[STAGES[-1]]) == (75.0, 15.0)


@pytest.mark.parametrize(
    ("trial", "why"),
    [
        pytest.param(replace(STOPPED, mail_from=[]), "was not sending", id="no mail at all"),
        pytest.param(replace(STOPPED, mail_from=[HIT - 600_000, HIT + 1]), "was not sending", id="paused at the hit"),
        pytest.param(replace(STOPPED, control_at=None), "never isolated", id="no decision"),
        pytest.param(replace(STOPPED, mail_from=[HIT, HIT + 6_000_000]), "went on sending", id="mail after seconds"),
        pytest.param(replace(STOPPED, asked=4), "went on sending", id="ended because nothing was left"),
        pytest.param(replace(STOPPED, gate_at=None), "not seen", id="silent sender"),
    ],
)
def test_a_trial_that_shows_no_stop_fails_and_says_why(trial: Trial, why: str) -> None:
    assert why in (trial.failure or "")
    told = figures([STOPPED, trial])
    assert (told["trials"], told["failed"], told["p99_ms"]) == (2, 1, 40.0)
    assert told["event_to_record_of_decision_p50_ms"] == 90.0


def test_what_no_trial_has_is_null_and_not_a_number_that_looks_good() -> None:
    told = figures([replace(STOPPED, mail_from=[])])
    assert (told["failed"], told["p50_ms"], told[f"{STAGES[0]}_p99_ms"]) == (1, None, None)


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([5.0], 50, 5.0),
        ([3.0, 1.0, 2.0], 50, 2.0),
        ([float(n) for n in range(1, 201)], 99, 198.0),
        ([float(n) for n in range(1, 201)], 95, 190.0),
        ([1.0, 2.0], 99, 2.0),
    ],
)
def test_a_percentile_is_one_of_the_values(values: list[float], percent: int, expected: float) -> None:
    assert percentile(values, percent) == expected


def test_a_ratio_is_the_median_of_the_turns() -> None:
    felt = Turns({"alone": [[10.0], [20.0], [40.0]], "breaching": [[11.0], [40.0], [40.0]]})
    assert felt.ratio("breaching", "alone") == 1.1
    assert felt.p99("breaching") == 40.0


def test_the_spread_of_a_ratio_is_that_of_its_turns() -> None:
    felt = Turns({"alone": [[10.0]] * 9, "breaching": [*[[11.0]] * 5, *[[9.0]] * 4]})
    assert (felt.ratio("breaching", "alone"), felt.spread("breaching", "alone", random.Random(1))) == (1.1, (0.9, 1.1))


def test_one_turn_in_which_the_machine_stalls_moves_nothing() -> None:
    felt = Turns({"alone": [[10.0]] * 9, "breaching": [*[[11.0]] * 8, [5_000.0]]})
    assert (felt.ratio("breaching", "alone"), felt.spread("breaching", "alone", random.Random(1))) == (1.1, (1.1, 1.1))


def _steady(seconds: int, *, on_their_way: list[int]) -> list[Said]:
    """A background of 2,000 a second that keeps its clock, with so many on their way at each second."""
    return [Said(float(at), at * 2_000, at * 2_000 - on_their_way[at % len(on_their_way)]) for at in range(seconds)]


def test_a_short_span_whose_end_has_more_on_its_way_is_not_a_slow_background() -> None:
    spans = [_steady(7, on_their_way=[0, 0, 0, 0, 0, 0, 400]), _steady(60, on_their_way=[100])]
    rate, missing = kept(spans)
    assert (rate > 0.99 * 2_000, missing) == (True, 400)


def test_a_background_that_slips_is_seen_in_its_rate_and_in_what_is_missing() -> None:
    slipping = [Said(float(at), at * 2_000, at * 1_900) for at in range(30)]
    assert kept([slipping]) == (1_900.0, 2_900)


def test_a_background_that_says_nothing_has_no_rate() -> None:
    assert kept([]) == kept([[]]) == (0.0, 0)


def test_the_log_is_read_on_and_never_half_a_line(tmp_path: Path) -> None:
    file = tmp_path / "sink.log"
    file.write_text("M 5 a.bounces.example\nA 7 m-1\nM 9 b.bou")
    log = SinkLog(file)
    log.read()
    assert (dict(log.mail_from), log.taken) == ({"a.bounces.example": [5]}, {"m-1": 7})
    with file.open("a") as more:
        more.write("nces.example\nA 11 m-1\n")
    log.read()
    assert (log.mail_from["b.bounces.example"], log.taken) == ([9], {"m-1": 7})


def test_the_gate_closes_at_the_first_word_of_it(tmp_path: Path) -> None:
    log = tmp_path / "sender.log"
    assert gate_closed_at(log) is None
    events = [
        {"event": "sending", "timestamp": "2026-01-01T00:00:00.000000Z"},
        {"event": "not sending: stopped by control", "timestamp": "2026-01-01T00:00:01.250000Z"},
        {"event": "stopping", "timestamp": "2026-01-01T00:00:02.000000Z"},
    ]
    log.write_text("\n".join(map(json.dumps, events)) + '\n{"event": "stop')
    assert gate_closed_at(log) == 1_767_225_601_250_000


def test_the_first_snapshot_with_the_hit_and_the_first_isolation_count() -> None:
    seen = Sightings()
    for at, hits in ((1, 0), (2, 1), (3, 1)):
        windows = {name: Counts(trap_hit=hits, trap_hit_pristine=hits) for name in ("5m", "7d")}
        seen.take(RATES, "campaign:trial-1", encode(RatesSnapshot(scope="campaign:trial-1", at=0, windows=windows)), at)
    for at, to in ((4, "throttled"), (5, "isolated"), (6, "isolated")):
        decision = Decision(
            scope="campaign:trial-1",
            campaign="trial-1",
            from_="healthy",
            to=to,  # type: ignore[arg-type]
            at=0,
            epoch=at,
            rule="pristine_trap",
            reason="a trap was hit",
        )
        seen.take(DECISIONS, "campaign:trial-1", encode(decision), at)
        control = Control(
            campaign="trial-1",
            epoch=at,
            may_send=to != "isolated",
            pace=Pace(),
            state=to,  # type: ignore[arg-type]
            reason="a trap was hit",
            at=0,
        )
        seen.take(CONTROL, "trial-1", encode(control), at + 10)
    seen.take(CONTROL, "trial-1", b"{", 1)
    assert (seen.snapshot_at, seen.control_at, seen.told_at) == ({"trial-1": 2}, {"trial-1": 15}, {"trial-1": 5})


def test_others_results_are_the_same_for_the_same_seed_and_breach_nothing() -> None:
    made = [list(islice(OthersResults(["a", "b"], frame=25, seed=3).frames(), 400)) for _ in range(2)]
    assert made[0] == made[1]
    assert [one.campaign for one in made[0][:3]] == ["a", "b", "a"]
    results = [result for one in made[0] for result in at_time(one, 60_000).results]
    assert len({result.message_id for result in results}) == len(results) == 10_000
    counted = [cell for cells in booked(results).values() for cell in cells.values()]
    assert sum(sum(cell) for cell in counted) > 0
    share = sum(result.outcome == "bounced" for result in results) / len(results)
    assert 0 < share < 0.01  # half of the limit


def test_a_trap_hit_counts_as_a_confirmed_pristine_one() -> None:
    [(minute, cells)] = booked_feedback([trap_hit("a", "m-1", at=120_000)]).items()
    assert minute == 2
    assert any(any(cell) for cell in cells.values())


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[tuple[int, int, Path]]:
    log = tmp_path / "sink.log"
    port, hang_port = free_port(), free_port()
    orders = json.dumps({"port": port, "hang_port": hang_port, "log": str(log)})
    process = subprocess.Popen([sys.executable, "-m", _latency_sink.__name__, orders], cwd=ROOT)
    try:
        yield port, hang_port, log
    finally:
        process.kill()
        process.wait()


async def _connected(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    deadline = time.monotonic() + 30
    while True:
        try:
            return await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)


async def test_every_mail_from_is_in_the_log_before_its_answer(sink: tuple[int, int, Path]) -> None:
    port, _, log = sink
    reader, writer = await _connected(port)
    await reader.readline()
    begin = time.time_ns() // 1000
    for said, answers in (
        (b"EHLO us.example\r\n", 3),
        (b"MAIL FROM:<b+1@trial-1.bounces.example> SIZE=10\r\nRCPT TO:<m-1@x.example>\r\nDATA\r\n", 3),
        (b"Subject: hello\r\n\r\nhello\r\n.\r\n", 1),
        (b"MAIL FROM:<b+2@trial-2.bounces.example>\r\nRCPT TO:<unknown-1@x.example>\r\nDATA\r\n", 3),
    ):
        writer.write(said)
        told = [await asyncio.wait_for(reader.readline(), 30) for _ in range(answers)]
    writer.close()
    assert [line[:3] for line in told] == [b"250", b"550", b"554"]
    seen = SinkLog(log)
    seen.read()
    assert [len(seen.mail_from[f"trial-{number}.bounces.example"]) for number in (1, 2)] == [1, 1]
    assert seen.taken.keys() == {"m-1"}
    assert begin <= seen.mail_from["trial-1.bounces.example"][0] <= seen.taken["m-1"] <= time.time_ns() // 1000


async def test_the_other_port_takes_connections_and_says_nothing(sink: tuple[int, int, Path]) -> None:
    port, hang_port, _ = sink
    _, answering = await _connected(port)
    answering.close()
    reader, writer = await _connected(hang_port)
    writer.write(b"EHLO us.example\r\n")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.3)
    writer.close()


@pytest.mark.kafka
@pytest.mark.faults
def test_a_few_trials_isolate_and_a_neighbour_loses_nothing() -> None:
    small = ["--trials", "2", "--at-once", "2", "--runs", "1", "--turn", "2", "--background", "100", "--frame", "5"]
    done = subprocess.run(
        [sys.executable, "benchmarks/latency.py", "--json", *small],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode in {0, 1}, done.stderr  # 1 where the machine is too busy to say how soon
    told = json.loads(done.stdout.splitlines()[-1])
    figures = told["figures"]
    assert (figures["trials"], figures["neighbour_lost"]) == (2, 0)
    assert {f"{stage}_p99_ms" for stage in STAGES} | {
        "p50_ms",
        "p95_ms",
        "p99_ms",
        "background_per_s",
    } <= figures.keys()
    ratios = told["ratios"]
    assert 0 < ratios["neighbour_p99_ratio_low"] <= ratios["neighbour_p99_ratio_high"]
    assert not [wrong for wrong in told["wrong"] if "never isolated" in wrong]
