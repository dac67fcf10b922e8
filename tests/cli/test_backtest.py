"""`mailcordon backtest` and `mailcordon export` from outside: what they print, what they save, how they end."""

import json
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import click
import msgspec
import pytest
from click.testing import CliRunner, Result

from cli.backtest import backtest
from cli.backtest_asking import moment_of
from cli.backtest_input import Bad, Recording
from cli.backtest_limits import WhatIf
from cli.backtest_replay import Replay
from cli.backtest_run import replayed
from cli.failures import WrongUse
from cli.main import main
from policy.naming import campaign_scope
from schemas.codec import encode
from schemas.feedback import Trap
from schemas.reputation import Command, Decision
from schemas.topics import DECISIONS
from tests.agents.doubles import campaign
from tests.cli.recordings import HOUR, MINUTE, T0, At, frame, placed, result, signal, written

DAY_MS = 86_400_000
TRAP = Trap(kind="pristine", where="footer")


def run(*arguments: str | Path) -> Result:
    command: click.Command = backtest
    return CliRunner().invoke(command, [str(one) for one in arguments])


def told(*arguments: str | Path, exit_code: int = 0) -> dict[str, Any]:
    done = run(*arguments, "--json")
    assert done.exit_code == exit_code, done.output
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def trapped(name: str = "spring", *, at: int = T0 + 10 * MINUTE) -> list[At]:
    """A campaign of one message a second that hits a trap after ten minutes, and goes on for ten more."""
    records: list[Any] = [(T0, campaign(name))]
    for minute in range(20):
        begin = T0 + minute * MINUTE
        results = [result(f"m-{minute}-{number}", begin + number * 1000) for number in range(60)]
        records.append((begin + MINUTE, frame(name, results, ledger=minute)))
    records.append((at, signal(name, "trap_hit", at=at, sent_at=at - 30_000, message_id="m-9-30", trap=TRAP)))
    return placed(records)


def test_it_says_when_why_and_what_that_saves(tmp_path: Path) -> None:
    late = T0 + 19 * MINUTE
    more = placed(
        [
            (late, signal("spring", "complaint", at=late, sent_at=T0 + 15 * MINUTE, message_id="m-15-0")),
            (late, signal("spring", "complaint", at=late, sent_at=T0 + 5 * MINUTE, message_id="m-5-0")),
        ]
    )
    file = written(tmp_path / "all.jsonl", [*trapped(), *_after(trapped(), more)])

    (line,) = told("--input", file)["campaigns"]

    assert line["first"] == {"isolated": T0 + 10 * MINUTE}
    assert line["state"] == "isolated"
    assert "1 message hit a confirmed pristine trap (planted: footer)" in line["decisions"][0]["reason"]
    assert line["saved"] == {
        "bad_saved": 1,
        "good_held": 599,
        "slowed": 0,
        "by_kind": {"hard_bounce": 0, "complaint": 1, "trap_hit": 0},
    }
    assert line["differences"] is None


def _after(before: list[At], more: list[At]) -> list[At]:
    """Records with offsets that follow those of other ones."""
    newest: dict[tuple[str, int], int] = {}
    for one in before:
        newest[one.topic, one.partition] = max(one.offset, newest.get((one.topic, one.partition), -1))
    return [
        At(one.at, one.topic, one.partition, newest.get((one.topic, one.partition), -1) + 1 + one.offset, one.record)
        for one in more
    ]


def test_other_limits_answer_otherwise(tmp_path: Path) -> None:
    file = written(tmp_path / "all.jsonl", trapped())
    limits = tmp_path / "limits.toml"
    limits.write_text('[campaign.spring]\npristine_trap = "judge"\ntrap_hit = 0.5\n')

    (line,) = told("--input", file, "--limits", limits)["campaigns"]

    assert (line["state"], line["first"], line["limits"]["trap_hit"]) == ("healthy", {}, 0.5)


def test_it_tells_what_was_really_decided(tmp_path: Path) -> None:
    real = Decision(
        scope=campaign_scope("spring"),
        campaign="spring",
        from_="healthy",
        to="isolated",
        at=T0 + 18 * MINUTE,
        epoch=2,
        rule="operator",
        reason="a customer called",
    )
    own = At(real.at, DECISIONS, 0, 0, real)
    file = written(tmp_path / "all.jsonl", [*trapped(), own, own])

    (line,) = told("--input", file)["campaigns"]
    text = run("--input", file).output

    assert line["differences"] == [
        {"state": "isolated", "backtest": T0 + 10 * MINUTE, "really": T0 + 18 * MINUTE, "how": "earlier"}
    ]
    assert len(line["really"]) == 1
    assert "here 8 min earlier" in text


def test_what_came_before_from_is_counted_and_not_judged(tmp_path: Path) -> None:
    file = written(tmp_path / "all.jsonl", trapped())
    begin = T0 + 15 * MINUTE

    (line,) = told("--input", file, "--from", begin)["campaigns"]
    (before,) = told("--input", file, "--to", T0 + 9 * MINUTE)["campaigns"]

    assert line["first"] == {"isolated": begin}
    assert line["results"] == 1200
    assert (before["first"], before["results"]) == ({}, 540)


def test_it_begins_where_the_decisions_before_left_off_or_as_healthy(tmp_path: Path) -> None:
    before = Decision(
        scope=campaign_scope("spring"),
        campaign="spring",
        from_="healthy",
        to="isolated",
        at=T0 + 2 * MINUTE,
        epoch=2,
        rule="isolate",
        reason="a customer called",
        by="operator:eve",
    )
    known = At(before.at, DECISIONS, 0, 0, before)
    file = written(tmp_path / "all.jsonl", [*trapped(), known])
    begin = T0 + 5 * MINUTE

    (retained,) = told("--input", file, "--from", begin)["campaigns"]
    (healthy,) = told("--input", file, "--from", begin, "--start", "healthy")["campaigns"]

    assert (retained["state"], retained["first"]) == ("isolated", {})
    assert retained["saved"]["good_held"] == 899
    assert (healthy["state"], healthy["first"]) == ("isolated", {"isolated": T0 + 10 * MINUTE})


def test_an_operators_word_is_obeyed_or_not(tmp_path: Path) -> None:
    command = Command(
        id="c-1",
        scope=campaign_scope("spring"),
        campaign="spring",
        command="isolate",
        reason="bought",
        by="operator:eve",
        at=T0 + 5 * MINUTE,
    )
    file = written(tmp_path / "all.jsonl", [*trapped(), *placed([(command.at, command)])])

    (obeyed,) = told("--input", file)["campaigns"]
    (alone,) = told("--input", file, "--no-commands")["campaigns"]

    assert obeyed["first"] == {"isolated": T0 + 5 * MINUTE}
    assert alone["first"] == {"isolated": T0 + 10 * MINUTE}


def test_bad_lines_are_told_of_and_end_with_1(tmp_path: Path) -> None:
    found = trapped()
    half = found[4].line[:-9]
    wrong = found[5].line.replace(b'"accepted"', b'"excepted"')
    file = tmp_path / "all.jsonl"
    file.write_bytes(b"\n".join([*(one.line for one in found[:4]), half, wrong, b"nonsense"]))

    done = run("--input", file)

    assert done.exit_code == 1
    assert "line 5: not a JSON object" in done.stderr
    assert "line 6: field results[0].outcome" in done.stderr
    assert "line 7: not a JSON object" in done.stderr
    assert "3 lines of the input could not be read" in done.stderr
    assert "180 results" in done.stdout
    assert told("--input", file, exit_code=1)["read"]["bad"] == 3


def test_records_that_were_sent_on_count_where_they_arrived(tmp_path: Path) -> None:
    found = trapped()
    strays = [At(one.at, one.topic, (one.partition + 1) % 4, 100 + one.offset, one.record) for one in found[1:]]
    file = written(tmp_path / "all.jsonl", [*found, *strays])

    made = told("--input", file)

    assert (made["read"]["results"], made["read"]["elsewhere"]) == (1200, 21)


def test_a_campaign_without_a_record_is_judged_by_the_default_limits_and_that_is_said(tmp_path: Path) -> None:
    file = written(tmp_path / "all.jsonl", trapped()[1:])

    done = run("--input", file)

    assert done.exit_code == 0
    assert "of 1 campaign there is no record, so the default limits hold: spring" in done.stdout


def test_a_name_that_is_not_there_is_wrong_use(tmp_path: Path) -> None:
    file = written(tmp_path / "all.jsonl", trapped())

    done = run("--input", file, "--campaign", "sprig")

    assert done.exit_code == 2
    assert "--campaign sprig: there is nothing about it in the input" in done.output


def test_the_plot_is_xml_that_names_the_campaign_and_its_decisions(tmp_path: Path) -> None:
    well = placed([(T0 + MINUTE, frame("well", [result("w", T0)], ledger=1))])
    file = written(tmp_path / "all.jsonl", [*trapped(), *_after(trapped(), well)])
    drawn = tmp_path / "plot.svg"

    assert run("--input", file, "--plot", drawn).exit_code == 0

    text = " ".join(ET.parse(drawn).getroot().itertext())  # noqa: S314 - our own
    assert "spring: trap hits" in text
    assert "isolated: 1 message hit a confirmed pristine trap" in text


def test_it_reads_what_export_writes_from_standard_input(tmp_path: Path) -> None:
    file = written(tmp_path / "all.jsonl", trapped())

    done = CliRunner().invoke(main, ["backtest", "--input", "-", "--json"], input=file.read_bytes())

    assert json.loads(done.stdout)["totals"]["isolated"] == 1


TIMES = {
    "day": ("2026-11-20", 1_795_132_800_000),
    "time": ("2026-11-20T10:30", 1_795_170_600_000),
    "zone": ("2026-11-20T10:30+01:00", 1_795_167_000_000),
    "millis": ("1764000000000", T0),
    "days_ago": ("7d", T0 - 7 * DAY_MS),
    "hours_ago": ("36h", T0 - 36 * HOUR),
    "minutes_ago": ("90m", T0 - 90 * MINUTE),
    "nothing": (None, None),
}


@pytest.mark.parametrize(("text", "at"), TIMES.values(), ids=TIMES)
def test_times_are_read_as_people_write_them(text: str | None, at: int | None) -> None:
    assert moment_of("from", text, T0) == at


@pytest.mark.parametrize("text", ["yesterday", "7w", "2026-13-01", "", "9" * 16])
def test_what_is_no_time_is_wrong_use(text: str) -> None:
    with pytest.raises(WrongUse, match="expected a day"):
        moment_of("from", text, T0)


def test_the_end_comes_after_the_begin(tmp_path: Path) -> None:
    file = written(tmp_path / "all.jsonl", trapped())

    done = run("--input", file, "--from", "2026-11-20", "--to", "2026-11-19")

    assert (done.exit_code, "is not after" in done.output) == (2, True)


def test_a_campaign_in_dry_run_is_told_of_as_if_it_were_not(tmp_path: Path) -> None:
    found = trapped()
    dry = msgspec.structs.replace(campaign("spring"), dry_run=True)
    file = written(tmp_path / "all.jsonl", [At(T0, found[0].topic, found[0].partition, 0, dry), *found[1:]])
    assert encode(dry) != encode(campaign("spring"))

    (line,) = told("--input", file)["campaigns"]

    assert (line["state"], line["saved"]["good_held"], line["decisions"][0]["dry_run"]) == ("isolated", 600, True)


@pytest.mark.parametrize(("as_if_held", "accepted", "complaints"), [(False, 1200, 2), (True, 600, 1)])
def test_what_was_sent_while_stopped_is_judged_as_it_was_or_left_out(
    as_if_held: bool, accepted: int, complaints: int
) -> None:
    late = T0 + 20 * MINUTE
    more = placed(
        (late, signal("spring", "complaint", at=late, sent_at=T0 + minute * MINUTE, message_id=f"m-{minute}-0"))
        for minute in (5, 15)
    )
    lines = b"\n".join(one.line for one in [*trapped(), *_after(trapped(), more)])
    replay = Replay({}, what_if=WhatIf(), as_if_held=as_if_held)

    replayed(Recording(BytesIO(lines)), replay, Bad(), to=None)

    one = replay.tracked["spring"]
    day = one.counting.windows(late)["24h"]
    assert (day.accepted, day.complaint) == (accepted, complaints)
    assert (one.counting.results, one.holds.good_messages) == (1200, 599)


def test_limits_of_a_campaign_that_is_not_there_are_told_of(tmp_path: Path) -> None:
    file = written(tmp_path / "all.jsonl", trapped())
    limits = tmp_path / "limits.toml"
    limits.write_text("[campaign.sprig]\nhard_bounce = 0.5\n")

    done = run("--input", file, "--limits", limits)

    assert (done.exit_code, "nothing about campaign sprig" in done.stderr) == (0, True)
