"""In which order the partitions of a topic are read, and how they are numbered, changes no result of a backtest."""

from collections.abc import Sequence
from functools import cache
from io import BytesIO
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cli.backtest_input import Bad, Recording
from cli.backtest_limits import WhatIf
from cli.backtest_replay import Replay
from cli.backtest_run import first_campaigns, replayed
from schemas.reputation import Decision
from schemas.topics import DECISIONS
from streams.home import home
from tests.cli.recordings import HOUR, MINUTE, PARTITIONS, T0, At, placed
from tests.cli.test_backtest_live import by_scope, in_pieces, refused_at_one

BEGIN = T0 + 80 * MINUTE
UNTIL = T0 + 5 * HOUR
MADE = {"in_pieces": in_pieces, "refused_at_one": refused_at_one}


def played(found: Sequence[At], begin: int = 0, until: int = UNTIL) -> Replay:
    recording, bad = Recording(BytesIO(b"\n".join(one.line for one in found))), Bad()
    replay = Replay(first_campaigns(recording), what_if=WhatIf(), judged_from=begin)
    replayed(recording, replay, bad, to=until)
    assert (recording.bad.count, bad.count) == (0, 0)
    return replay


def decided(replay: Replay) -> list[Decision]:
    found = [*replay.tracked.values(), *replay.sharing.scopes.values()]
    return [decision for one in found for decision in one.decisions]


def result_of(replay: Replay) -> dict[str, Any]:
    """All that is told of it: decisions, where everything stands, and whom shared scopes touched since when."""
    return {
        "decisions": by_scope(decided(replay)),
        "standings": {name: one.standing for name, one in sorted(replay.tracked.items())},
        "touched": {name: one.touched for name, one in sorted(replay.sharing.scopes.items())},
        "told": {
            name: None if one.held is None else dict(one.held.told)
            for name, one in sorted(replay.sharing.scopes.items())
        },
    }


@cache
def recorded(name: str) -> tuple[list[At], list[Decision]]:
    """Records, and the decisions that were made of them."""
    found = placed(MADE[name](3))
    return found, sorted(decided(played(found)), key=lambda one: (one.at, one.epoch))


def retained(decisions: Sequence[Decision], partition_of: Sequence[int]) -> list[At]:
    """The decisions before the beginning, in the partitions of their keys, which are numbered so."""
    offsets = [0] * PARTITIONS
    found = []
    for one in decisions:
        if one.at >= BEGIN:
            continue
        partition = partition_of[home(one.scope, PARTITIONS)]
        found.append(At(one.at, DECISIONS, partition, offsets[partition], one))
        offsets[partition] += 1
    return found


@cache
def expected(name: str) -> dict[str, Any]:
    found, decisions = recorded(name)
    return result_of(played([*found, *retained(decisions, range(PARTITIONS))], BEGIN))


@pytest.mark.parametrize("name", MADE)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(order=st.permutations(range(PARTITIONS)), numbers=st.permutations(range(PARTITIONS)))
def test_the_order_and_numbers_of_partitions_change_no_result(name: str, order: list[int], numbers: list[int]) -> None:
    found, decisions = recorded(name)
    together = [*found, *retained(decisions, numbers)]
    one_by_one = sorted(together, key=lambda one: order[one.partition])  # as a fetch may bring them

    assert result_of(played(one_by_one, BEGIN)) == expected(name)


@pytest.mark.parametrize("numbers", [(0, 1), (1, 0)], ids=["the_tenant_first", "its_campaign_first"])
def test_a_campaign_may_tell_of_its_ceiling_before_the_wider_scope_does(numbers: tuple[int, int]) -> None:
    found, _ = recorded("in_pieces")
    at, reason = T0 + 30 * MINUTE, "too much of it bounces"
    tenant = Decision(
        scope="tenant:shop",
        campaign="piece-0",
        from_="healthy",
        to="throttled",
        at=at,
        epoch=2,
        rule="hard_bounce",
        reason=reason,
        evidence={"metric": "hard_bounce", "e_value": 200.0},
    )
    piece = Decision(
        scope="campaign:piece-0",
        campaign="piece-0",
        from_="healthy",
        to="throttled",
        at=at,
        epoch=2,
        rule="ceiling",
        reason=f"tenant:shop: {reason}",
        evidence={"source": "tenant:shop", "ceiling": "throttled"},
    )
    known = [At(at, DECISIONS, number, 0, one) for number, one in zip(numbers, (tenant, piece), strict=True)]

    shared = played([*found, *known], at + MINUTE, at + 2 * MINUTE).sharing.scopes["tenant:shop"]

    assert shared.touched["piece-0"] == at
    assert shared.held is not None
    assert (shared.held.standing.since, shared.held.told["piece-0"]) == (at, "throttled")
