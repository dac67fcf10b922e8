from hypothesis import given
from hypothesis import strategies as st

from schemas.delivery import Position
from streams import panes

CELLS = {"google|192.0.2.1": [1, 2, 3]}


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
    assert panes.cells_of(more) == {"google|192.0.2.1": [2, 4, 6]}


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

    panes.with_results(held, {"google|192.0.2.1": [5, 5, 5]}, [signal("block", 2)], offset=2, ledger=position(2))
    panes.with_feedback(held, {"google|192.0.2.1": [5, 5, 5]}, [signal("complaint", 2)], offset=2, ids=["a"])

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


VECTORS = st.lists(st.integers(0, 100), min_size=3, max_size=3)
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
