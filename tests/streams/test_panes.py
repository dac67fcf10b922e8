from hypothesis import given
from hypothesis import strategies as st

from policy.counts import VECTOR
from schemas.delivery import Position
from schemas.feedback import Trap
from schemas.reputation import Reference
from streams import panes

WIDTH = len(VECTOR)
CELLS = {"google|192.0.2.1": [1, 2, 3, *[0] * (WIDTH - 3)]}


def position(offset: int, partition: int = 0) -> Position:
    return Position(topic="mail.ledger.spring", partition=partition, offset=offset)


def signal(kind: str, at: int) -> panes.Signal:
    return panes.signal(0, partition=1, offset=at, message_id=f"m-{at}", kind=kind, at=at)


def test_a_frame_that_comes_again_changes_nothing() -> None:
    pane = panes.with_results(panes.EMPTY, CELLS, [], offset=7, ledger=position(3))
    assert pane is not None

    assert panes.with_results(pane, CELLS, [], offset=7, ledger=position(3)) is None


def test_a_frame_that_was_published_again_changes_nothing() -> None:
    pane = panes.with_results(panes.EMPTY, CELLS, [], offset=7, ledger=position(3))
    assert pane is not None

    assert panes.with_results(pane, CELLS, [], offset=8, ledger=position(3)) is None
    assert panes.with_results(pane, CELLS, [], offset=8, ledger=position(2)) is None


def test_each_ledger_partition_has_a_position_of_its_own() -> None:
    pane = panes.with_results(panes.EMPTY, CELLS, [], offset=7, ledger=position(3, partition=0))
    assert pane is not None

    more = panes.with_results(pane, CELLS, [], offset=8, ledger=position(1, partition=1))

    assert more is not None
    assert panes.cells_of(more) == {"google|192.0.2.1": [2, 4, 6, *[0] * (WIDTH - 3)]}


def test_results_and_feedback_have_offsets_of_their_own() -> None:
    pane = panes.with_results(panes.EMPTY, CELLS, [], offset=7, ledger=None)
    assert pane is not None

    pane = panes.with_feedback(pane, CELLS, [], offset=2, ids=["a"])

    assert pane is not None
    assert panes.applied(pane) == [7, 2]
    assert panes.with_feedback(pane, CELLS, [], offset=2, ids=["a"]) is None


def test_a_pane_is_never_changed_in_place() -> None:
    held = panes.with_results(panes.EMPTY, CELLS, [signal("block", 1)], offset=1, ledger=position(1))
    assert held is not None
    before = repr(held)

    panes.with_results(held, {"google|192.0.2.1": [5] * WIDTH}, [signal("block", 2)], offset=2, ledger=position(2))
    panes.with_feedback(held, {"google|192.0.2.1": [5] * WIDTH}, [signal("complaint", 2)], offset=2, ids=["a"])

    assert repr(held) == before
    assert panes.EMPTY == [[-1, -1], {}, [], [], {}]


def test_many_signals_of_one_kind_do_not_push_out_another() -> None:
    signals = [signal("trap_hit", 0), *(signal("hard_bounce", at) for at in range(1, 100))]

    kept = panes.newest([], signals)

    assert [one[4] for one in kept] == ["trap_hit"] + ["hard_bounce"] * panes.RECENT_PER_KIND
    assert kept[-1][5] == 99


def test_the_same_message_may_bring_two_kinds_of_feedback() -> None:
    assert panes.feedback_id("m-1", "complaint") != panes.feedback_id("m-1", "unsubscribe")
    assert panes.feedback_id("m-1", "complaint") == panes.feedback_id("m-1", "complaint")


# As a changelog of the first version holds it: ten columns, signals of six parts.
OLD = [
    [7, 2],
    {"google|192.0.2.1": [90, 1, 2, 3, 4, 5, 6, 2, 8, 100]},
    [[1, 0, 2, "m-1", "trap_hit", 5]],
    ["a"],
    {"0": 3},
]


def test_a_pane_of_the_first_version_is_read_and_added_to() -> None:
    columns = dict(zip(VECTOR, panes.cells_of(OLD)["google|192.0.2.1"], strict=True))

    assert (columns["accepted"], columns["attempts"], columns["trap_hit"]) == (90, 100, 6)
    assert (columns["trap_weight"], columns["trap_hit_recycled"], columns["trap_hit_typo"]) == (600, 0, 0)

    more = panes.with_results(OLD, {"google|192.0.2.1": [1] * WIDTH}, [], offset=8, ledger=None)

    assert more is not None
    columns = dict(zip(VECTOR, panes.cells_of(more)["google|192.0.2.1"], strict=True))
    assert (columns["accepted"], columns["trap_hit"], columns["trap_weight"]) == (91, 7, 601)
    assert [one.kind for one in panes.references(panes.recent_of(more))] == ["trap_hit"]


def test_a_signal_of_a_trap_says_which_kind_and_where_it_was_planted() -> None:
    trap = Trap(kind="typo", strength=0.5, where="footer")
    one = panes.signal(1, partition=0, offset=2, message_id="m-1", kind="trap_hit", at=5, trap=trap)

    assert panes.references([one]) == [
        Reference(topic="mail.feedback", partition=0, offset=2, message_id="m-1", kind="trap_hit", at=5, trap=trap)
    ]


VECTORS = st.lists(st.integers(0, 100), min_size=WIDTH, max_size=WIDTH)
SOME_CELLS = st.dictionaries(st.sampled_from(["a|1", "a|2", "b|1"]), VECTORS)


@given(st.lists(SOME_CELLS, max_size=6), st.randoms())
def test_the_order_of_frames_does_not_matter(frames: list[panes.Cells], chance: object) -> None:
    def total(order: list[panes.Cells]) -> panes.Cells:
        held: panes.Cells = {}
        for cells in order:
            held = panes.added(held, cells)
        return held

    shuffled = list(frames)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]  # a random.Random

    assert total(frames) == total(shuffled)
