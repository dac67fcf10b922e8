"""Laws of the replay: order, duplication and replay of events change no verdict, and only what counts is read."""

import random
from functools import cache
from io import BytesIO
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cli.backtest_input import Bad, Recording
from cli.backtest_limits import WhatIf
from cli.backtest_records import LATEST_MS, Accepted, Frame, Line, read_results, write_line
from cli.backtest_replay import Replay
from cli.backtest_run import first_campaigns, replayed
from policy.counts import booked
from policy.verdicts import verdicts
from schemas.codec import encode
from schemas.delivery import DeliveryFrame
from schemas.reputation import Decision, Verdict
from schemas.sending import Limits
from schemas.topics import RESULTS
from tests.cli.recordings import MINUTE, T0, At, frame, placed, result, signal, story
from tests.schemas.strategies import records

ENOUGH = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
OUTCOMES = st.sampled_from(
    [("accepted", None)] * 3
    + [("bounced", "invalid_recipient"), ("bounced", "reputation_ip"), ("deferred", "transient")]
)


def played(lines: bytes, until: int | None = None) -> Replay:
    recording, bad = Recording(BytesIO(lines)), Bad()
    replay = Replay(first_campaigns(recording), what_if=WhatIf())
    replayed(recording, replay, bad, to=until)
    assert (recording.bad.count, bad.count) == (0, 0)
    return replay


def decided(lines: bytes) -> list[Decision]:
    return [decision for one in played(lines).tracked.values() for decision in one.decisions]


def joined(found: list[At]) -> bytes:
    return b"\n".join(one.line for one in found)


@cache
def recorded() -> tuple[list[At], list[Decision]]:
    found = placed(story(7, minutes=110, per_minute=20))
    return found, decided(joined(found))


@settings(ENOUGH, max_examples=8)
@given(chance=st.randoms(use_true_random=False))
def test_the_order_of_lines_and_their_duplication_change_no_decision(chance: random.Random) -> None:
    found, decisions = recorded()
    again = [*found, *chance.choices(found, k=50)]
    chance.shuffle(again)

    assert decided(joined(again)) == decisions != []


@ENOUGH
@given(events=st.lists(st.tuples(st.integers(0, 50 * MINUTE), OUTCOMES), min_size=1, max_size=200), data=st.data())
def test_how_events_of_a_window_come_in_changes_no_verdict(
    events: list[tuple[int, tuple[str, str | None]]], data: st.DataObject
) -> None:
    results = [
        result(f"m-{number}", T0 + at, outcome, category)  # type: ignore[arg-type]  # of the strategy
        for number, (at, (outcome, category)) in enumerate(events)
    ]
    in_order = placed([(T0 + 55 * MINUTE, frame("spring", sorted(results, key=lambda one: one.at), ledger=1))])
    shuffled = data.draw(st.permutations(results))
    cut = data.draw(st.integers(1, 50))
    parts = [frame("spring", shuffled[at : at + cut], ledger=at) for at in range(0, len(shuffled), cut)]
    parts += data.draw(st.lists(st.sampled_from(parts), max_size=5))  # published again, after a crash
    pieces = placed([(T0 + (50 + number % 5) * MINUTE, one) for number, one in enumerate(parts)])
    ids = {one.message_id for one in results if one.outcome == "accepted"}
    said = [signal("spring", "complaint", at=T0 + 51 * MINUTE, sent_at=T0, message_id=one) for one in sorted(ids)[:3]]
    late = [(T0 + (51 + number % 3) * MINUTE, one) for number, one in enumerate(said)]

    once = placed([*((one.at, one.record) for one in in_order), *late])
    often = placed([*((one.at, one.record) for one in pieces), *late, *late])

    assert _verdicts(once) == _verdicts(often)


def _verdicts(found: list[At]) -> dict[str, Verdict]:
    end = T0 + 56 * MINUTE
    one = played(joined(found), until=end).tracked["spring"]
    return verdicts(one.counting.windows(end), Limits())


@ENOUGH
@given(whole=records(DeliveryFrame))
def test_what_is_left_out_of_a_result_counts_nowhere(whole: DeliveryFrame) -> None:
    line = write_line(Line(topic=RESULTS, partition=0, offset=0, at=0, value=msgspec.Raw(encode(whole))))

    slim: Frame = read_results(line).value

    assert slim.campaign == whole.campaign
    assert msgspec.to_builtins(slim.ledger) == msgspec.to_builtins(whole.ledger)
    accepted = [one for one in slim.results if type(one) is Accepted]
    refused = [one for one in slim.results if type(one) is not Accepted]
    assert _sums(refused, accepted) == _sums(whole.results)
    assert [(one.outcome, one.message_id, one.at, one.class_) for one in refused] == [
        (one.outcome, one.message_id, one.at, one.class_) for one in whole.results if one.outcome != "accepted"
    ]


def _sums(results: Any, accepted: Any = ()) -> dict[tuple[int, str], list[int]]:
    """What each minute and provider gets, over all addresses that were sent from."""
    found: dict[tuple[int, str], list[int]] = {}
    for minute, cells in booked(results, accepted).items():
        for key, vector in cells.items():
            provider = key.rpartition("|")[0] or "other"
            held = found.setdefault((minute, provider), [0] * len(vector))
            found[minute, provider] = [a + b for a, b in zip(held, vector, strict=True)]
    return found


def test_a_clock_that_is_centuries_ahead_does_not_keep_anybody_waiting() -> None:
    found, decisions = recorded()
    last = found[-1]
    far = At(LATEST_MS, last.topic, last.partition, last.offset + 1, last.record)

    again = decided(joined([*found, far]))

    assert [one for one in again if one.at <= last.at] == decisions
    newest = {one.campaign: one.to for one in again}  # time has healed what it can
    assert newest == {"bouncing": "healthy", "blocked": "healthy", "hated": "isolated"}
