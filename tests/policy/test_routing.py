"""A message id always meets the same partition, and no admitted message is lost on the way to it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.admission import Admission
from policy.routing import frames, partition_of
from schemas.sending import OutboundMessage, SendRequest

NOW = 1_764_000_000_000
REQUEST = SendRequest(
    request_id="r-1", campaign="spring-sale", content="hello-1", recipients=[], not_before=NOW + 1, expires_at=NOW + 2
)


def admission_of(ids: list[str]) -> Admission:
    return Admission(
        messages=[OutboundMessage(message_id=one, address="ann@example.com", address_hash="00") for one in ids],
        refused=[],
    )


GOLDEN = {"m-1": 0, "m-2": 2, "spring": 1, "": 0, "Grüße": 1}


@pytest.mark.parametrize(("message_id", "partition"), GOLDEN.items(), ids=map(repr, GOLDEN))
def test_partitions_do_not_change_between_versions(message_id: str, partition: int) -> None:
    """A message that was sent from one partition must be asked about there."""
    assert partition_of(message_id, 4) == partition


@given(st.text(max_size=128), st.integers(1, 100))
def test_a_partition_exists(message_id: str, partitions: int) -> None:
    assert 0 <= partition_of(message_id, partitions) < partitions


def test_partitions_are_used_alike() -> None:
    used = [partition_of(f"m-{n}", 4) for n in range(4_000)]
    assert all(900 < used.count(partition) < 1_100 for partition in range(4))


@given(st.lists(st.text(min_size=1, max_size=8), unique=True, max_size=60), st.integers(1, 8))
def test_frames_hold_every_message_once_in_order_where_its_id_belongs(ids: list[str], partitions: int) -> None:
    made = frames(admission_of(ids), REQUEST, partitions=partitions, now=NOW)
    shares = {partition: [one.message_id for one in frame.messages] for partition, frame in made.items()}
    assert shares == {
        partition: share
        for partition in range(partitions)
        if (share := [one for one in ids if partition_of(one, partitions) == partition])
    }


def test_a_frame_carries_what_the_request_said() -> None:
    (frame,) = frames(admission_of(["m-1"]), REQUEST, partitions=4, now=NOW).values()
    assert (frame.campaign, frame.content, frame.request_id) == ("spring-sale", "hello-1", "r-1")
    assert (frame.admitted_at, frame.not_before, frame.expires_at) == (NOW, NOW + 1, NOW + 2)


def test_nothing_admitted_makes_no_frame() -> None:
    assert frames(admission_of([]), REQUEST, partitions=4, now=NOW) == {}
