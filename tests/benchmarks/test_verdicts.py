"""The simulation judges by the code that decides live, leaves nothing out that matters, and counts as it should."""

import json
import math
import random
import subprocess
import sys
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks._verdict_course import Course, Event, Panes
from benchmarks._verdict_figures import Size, figures_of
from benchmarks._verdict_ours import METRICS, Ours, counts_of, limit_of
from benchmarks._verdict_pages import MARK, NAMES, least_mails, table, tables
from benchmarks._verdict_plot import picture
from benchmarks._verdict_rules import Checkpoints, PosthogLike, Ratio, SesLike, Watch, Wilson, critical_value, score
from benchmarks._verdict_streams import clustered, delayed, patched, steady, turning
from benchmarks._verdict_suite import Waits, below, chases, false_days, waits
from policy.counts import VECTOR, WINDOWS_MIN, Rolling
from policy.verdicts import interval
from schemas.generate import filled

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "verdicts.md"
KEPT = ROOT / "docs" / "img" / "verdicts.json"
LIMIT = 0.02

# -- sums


class Rolled:
    """A judge that keeps the real running sums beside the panes, and compares them at every look."""

    pace = 1.0
    slowed = False

    def __init__(self, events: list[Event]) -> None:
        self.looks = 0
        self._rolling = Rolling()
        self._events = events
        self._known = 0
        self._sent = 0
        self._minute_of: list[int] = [0]

    def look(self, now: int, panes: Panes) -> None:
        minute = now // 60_000
        assert minute == panes.minute
        for mail in range(self._sent + 1, panes.trials + 1):
            self._minute_of.append(minute if mail > self._sent else 0)
        fresh = panes.trials - self._sent
        if fresh:
            self._add(minute, accepted=fresh)
        self._sent = panes.trials
        while self._known < len(self._events) and self._events[self._known][0] <= panes.trials:
            self._add(self._minute_of[self._events[self._known][1]], complaint=1)
            self._known += 1
        windows = self._rolling.windows(minute)
        sums = {name: (counts.complaint, counts.accepted) for name, counts in windows.items()}
        assert sums == {name: panes.window(length) for name, length in WINDOWS_MIN.items()}
        self.looks += 1

    def _add(self, minute: int, **counts: int) -> None:
        self._rolling.add(minute, {"other|": [counts.get(name, 0) for name in VECTOR]})


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.4, 3.0, 40.0]), st.sampled_from(["steady", "late"]))
def test_panes_hold_the_sums_that_the_tally_holds(seed: int, per_minute: float, kind: str) -> None:
    chance = random.Random(seed)
    stream = steady(chance, 0.05) if kind == "steady" else delayed(chance, 0.05, 70)
    mails = int(per_minute * 90) + 3
    events = [event for event in islice(stream, mails) if event[0] <= mails]
    every_mail = range(1, mails + 1)  # so that no mail goes out between two minutes unseen
    judge = Rolled(events)
    Course(per_minute, minutes=90).run(judge, iter(events), every_mail)
    assert judge.looks > 30


def test_the_last_mails_are_whole_minutes() -> None:
    panes = Panes()
    for minute in range(10):
        panes.trials += 100
        panes.events += minute
        panes.next_minute()
    assert panes.last(250) == (7 + 8 + 9, 300)
    assert panes.last(5_000) == (45, 1_000)


# -- our own rule


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from(METRICS),
    st.sampled_from([0.5, 1.0, 1.5, 2.5, 8.0]),
    st.sampled_from([0.3, 5.0, 150.0]),
    st.sampled_from(["steady", "clustered", "drift", "patched"]),
)
def test_a_look_that_is_left_out_would_have_changed_nothing(
    seed: int, metric: str, multiple: float, per_minute: float, kind: str
) -> None:
    limit = limit_of(metric)
    mails = int(20 / limit)
    streams = {
        "steady": lambda chance: steady(chance, multiple * limit),
        "clustered": lambda chance: clustered(chance, multiple * limit, 5),
        "drift": lambda chance: turning(chance, 0.3 * limit, multiple * limit, mails // 2),
        "patched": lambda chance: patched(chance, 0.3 * limit, 3 * limit, mails // 3, mails // 2),
    }
    course = Course(per_minute * 0.02 / limit, mails=mails, minutes=800)
    judges = [Ours(metric, at_every_look=every).begin(course.per_minute) for every in (True, False)]
    fates = [course.run(judge, streams[kind](random.Random(seed))) for judge in judges]
    told = [[(one.at, one.from_, one.to, one.epoch, one.reason) for one in judge.decisions] for judge in judges]
    assert told[0] == told[1]
    assert fates[0] == fates[1]


def test_the_ladder_is_climbed_as_it_is_live() -> None:
    judge = Ours("hard_bounce").begin(600.0)
    fate = Course(600.0, mails=20_000).run(judge, steady(random.Random(3), 2 * LIMIT))
    assert [one.to for one in judge.decisions] == ["watched", "throttled", "isolated"]
    assert fate.slowed_at is not None
    assert fate.stopped_at is not None
    assert fate.slowed_at < fate.stopped_at


@pytest.mark.parametrize("metric", METRICS)
def test_counts_have_the_events_and_trials_of_their_metric(metric: str) -> None:
    from policy.verdicts import METRICS as OF

    assert OF[metric](counts_of(metric, 7, 1_000)) == (7, 1_000)


# -- the course


class At:
    """Looks on, slows at one mail and stops at another, and remembers when it looked."""

    def __init__(self, slow: int, stop: int) -> None:
        self.pace = 1.0
        self.slowed = False
        self.seen: list[tuple[int, int, int]] = []
        self._slow, self._stop = slow, stop

    def look(self, now: int, panes: Panes) -> None:
        self.seen.append((now, panes.trials, panes.events))
        if panes.trials >= self._slow:
            self.pace, self.slowed = 0.1, True
        if panes.trials >= self._stop:
            self.pace = 0.0


def test_a_slowed_campaign_sends_a_tenth_from_that_mail_on() -> None:
    judge = At(slow=50, stop=80)
    fate = Course(100.0).run(judge, [(50, 50), (80, 80)])
    assert (fate.slowed_at, fate.stopped_at) == (50, 80)
    assert judge.seen[0] == (30_000, 50, 1)  # half a minute for 50, then 30 more at 10 a minute
    assert judge.seen[-1][0] == pytest.approx(210_000, abs=12_000)


def test_events_marks_and_minutes_are_looked_at_and_nothing_else() -> None:
    judge = At(slow=10**9, stop=10**9)
    fate = Course(100.0, minutes=3).run(judge, [(7, 7), (7, 3), (150, 150)], marks=(200, 220))
    assert [(mails, events) for _, mails, events in judge.seen] == [
        *((7, 2), (100, 2), (150, 3), (200, 3)),
        *((200, 3), (220, 3)),
    ]
    assert (fate.mails, fate.stopped_at, fate.minutes) == (300, None, 3)


def test_parts_of_a_mail_are_not_lost() -> None:
    assert Course(0.7, minutes=1_000).run(Watch(lambda _: False), []).mails == pytest.approx(700, abs=1)


# -- streams


@pytest.mark.parametrize(
    "stream",
    [
        lambda chance: steady(chance, 0.05),
        lambda chance: clustered(chance, 0.05, 5),
        lambda chance: delayed(chance, 0.05, 100),
    ],
    ids=["steady", "clustered", "delayed"],
)
def test_streams_have_the_rate_that_they_are_asked_for(stream: Any) -> None:
    mails = [own for seen, own in islice(stream(random.Random(5)), 20_000)]
    assert len(mails) / mails[-1] == pytest.approx(0.05, rel=0.1)
    assert all(one <= other for one, other in pairwise(mails))


def test_what_is_known_late_is_known_at_once() -> None:
    events = list(islice(delayed(random.Random(1), 0.1, 50), 200))
    assert {seen % 50 for seen, _ in events} == {0}
    assert all(seen - 50 < own <= seen for seen, own in events)


def test_a_bad_block_stands_where_it_should() -> None:
    own = [mail for mail, _ in islice(patched(random.Random(2), 0.001, 0.5, 10_000, 11_000), 550)]
    assert sum(10_000 < mail <= 11_000 for mail in own) == pytest.approx(500, abs=80)
    assert sum(mail <= 10_000 for mail in own) == pytest.approx(10, abs=12)


# -- the rules of others


@given(st.integers(0, 300), st.integers(1, 20_000), st.floats(0.5, 9.0))
def test_wilsons_lower_end_above_the_limit_is_a_score_above_z(events: int, trials: int, z: float) -> None:
    events = min(events, trials)
    share, z2 = events / trials, z * z
    half = z * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials * trials))
    low = (share + z2 / (2 * trials) - half) / (1 + z2 / trials)
    if abs(low - LIMIT) > 1e-9:
        assert (low > LIMIT) == (score(events, trials, LIMIT) > z)


def test_wilson_at_95_per_cent_is_the_interval_that_we_show() -> None:
    for events in range(60):
        assert (interval(events, 1_000)[0] > LIMIT) == (score(events, 1_000, LIMIT) > 1.959963984540054)


# trials, limit, level, the fewest events: values of a reference implementation
CRITICAL = [
    *((100, 0.02, 0.01, 7), (500, 0.02, 0.01, 19), (1_000, 0.02, 0.01, 32), (5_000, 0.02, 0.01, 125)),
    *((20_000, 0.02, 0.01, 448), (1_000, 0.001, 0.01, 5), (20_000, 0.001, 0.01, 32), (100_000, 0.001, 0.01, 125)),
]


@pytest.mark.parametrize(("trials", "limit", "alpha", "events"), CRITICAL)
def test_the_exact_test_has_the_known_lines(trials: int, limit: float, alpha: float, events: int) -> None:
    assert critical_value(trials, limit, alpha) == events


def stopped(rule: Any, events: list[int], mails: int, per_minute: float = 600.0) -> int | None:
    return (
        Course(per_minute, mails=mails)
        .run(rule.begin(per_minute), [(mail, mail) for mail in events], rule.marks)
        .stopped_at
    )


EVERY_TENTH = list(range(10, 50_001, 10))
STOPS = {
    "ratio_waits_for_its_minimum": (Ratio(LIMIT, 1_000), EVERY_TENTH, 1_000),
    "ratio_at_the_first_event_beyond": (Ratio(LIMIT, 200), [1, 2, 3, 4, 240], 240),
    "ratio_at_the_limit_is_not_above": (Ratio(LIMIT, 200), [50 * one for one in range(1, 900)], None),
    "wilson_without_a_minimum": (Wilson(LIMIT, 6.9, "w"), EVERY_TENTH, 150),
    "exact_only_at_checkpoints": (Checkpoints(LIMIT, 0.001), EVERY_TENTH, 200),
    "ses_at_ten_per_cent": (SesLike("hard_bounce"), EVERY_TENTH, 1_000),
    "ses_not_below": (SesLike("hard_bounce"), EVERY_TENTH[::2], None),
    "ses_forgets_what_is_old": (SesLike("hard_bounce"), list(range(20_001, 50_001, 5)), 25_001),
    "ses_knows_no_traps": (SesLike("trap_hit"), EVERY_TENTH, None),
    "posthog_at_the_next_hour": (PosthogLike("hard_bounce"), EVERY_TENTH, 36_000),
    "posthog_knows_no_traps": (PosthogLike("trap_hit"), EVERY_TENTH, None),
}


@pytest.mark.parametrize(("rule", "events", "at"), STOPS.values(), ids=STOPS.keys())
def test_a_rule_stops_at(rule: Any, events: list[int], at: int | None) -> None:
    assert stopped(rule, events, 49_000) == at


# -- figures


def test_every_rule_meets_the_same_events_and_chance_begins_with_the_seed() -> None:
    chase = chases(LIMIT)["5"]
    one, same, other = (
        waits(Ours("hard_bounce"), chase, f"{seed}/above/hard_bounce/5", range(8)) for seed in (1, 1, 2)
    )
    assert one == same != other


def test_stopped_campaigns_begin_anew_on_the_next_day() -> None:
    found = false_days(Ratio(LIMIT, 1), below(LIMIT)["1.0"], "1/x", range(10))
    assert (found.days, found.stopped) == (20, 20)


def test_never_is_neither_a_median_nor_forgotten() -> None:
    both = Waits((5.0, math.inf), (5.0, 7.0)) + Waits((math.inf,), (math.inf,))
    assert both == Waits((5.0, math.inf, math.inf), (5.0, 7.0, math.inf))


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    return figures_of(["hard_bounce"], Size(seed=5, days=4, runs=4, processes=1))


def test_the_figures_have_the_keys_that_were_promised(told: dict[str, Any]) -> None:
    figures = told["figures"]
    assert {"bench", "figures", "baseline", "ratios", "machine"} <= told.keys()
    assert figures["false_per_1000_days"].keys() == figures["mails_to_isolation"].keys() == NAMES.keys()
    assert list(figures["false_per_1000_days"]["mailcordon"]) == ["0.5", "0.8", "1.0"]
    assert list(figures["mails_to_isolation"]["mailcordon"]) == ["1.5", "2", "5", "20"]
    assert figures["mails_to_isolation"]["mailcordon"]["2"].keys() == {"median", "p90", "never", "runs"}
    json.dumps(told, allow_nan=False)


def test_the_number_of_processes_changes_no_figure(told: dict[str, Any]) -> None:
    again: dict[str, Any] = figures_of(["hard_bounce"], Size(seed=5, days=4, runs=4, processes=2))
    assert again["figures"]["metrics"] == told["figures"]["metrics"]


def test_tables_and_picture_name_every_rule(told: dict[str, Any]) -> None:
    assert all(name in tables(told) for name in NAMES.values())
    drawn = picture("hard_bounce", told["figures"]["metrics"]["hard_bounce"])
    assert drawn.startswith("<svg ")
    assert "mailcordon" in drawn


def test_the_least_that_any_rule_needs() -> None:
    """Wald's bound: ln 1,000 by the divergence of the two rates."""
    assert least_mails(0.02, 0.04) == pytest.approx(6.9078 / 0.007935, rel=1e-3)


def test_a_table() -> None:
    assert table(["rule", "1"], [["ours", "2"]]) == "| rule | 1 |\n| --- | --: |\n| ours | 2 |"


def test_the_page_shows_what_was_kept() -> None:
    kept = json.loads(KEPT.read_text(encoding="utf-8"))
    page = PAGE.read_text(encoding="utf-8")
    assert filled(page, MARK, tables(kept)) == page
    for metric, found in kept["figures"]["metrics"].items():
        assert (KEPT.parent / f"verdicts-{metric}.svg").read_text(encoding="utf-8") == picture(metric, found)


def test_the_goals_are_met_by_what_was_kept() -> None:
    kept = json.loads(KEPT.read_text(encoding="utf-8"))["figures"]
    mails = kept["mails_to_isolation"]
    assert all(one["false_per_1000_days"]["mailcordon"]["0.5"] < 1.0 for one in kept["metrics"].values())
    for multiple in ("2", "5", "20"):
        assert mails["mailcordon"][multiple]["median"] < mails["ratio_1000"][multiple]["median"]
        assert mails["mailcordon"][multiple]["p90"] < mails["wilson_calibrated"][multiple]["p90"]


def test_the_command_tells_in_json_what_it_shows() -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/verdicts.py", "--json", "--from", str(KEPT)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert json.loads(done.stdout.splitlines()[-1]) == json.loads(KEPT.read_text(encoding="utf-8"))
    assert "wilson_calibrated" in done.stdout
