"""What is planned, as a table: what should be × what is."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8s.cluster import CLOSED_STATES, SenderStatus, SourceAddress
from k8s.plan import (
    DRAIN_MARGIN_MS,
    ORPHAN,
    Desired,
    Ensure,
    Isolate,
    Release,
    Retire,
    as_asked,
    desired,
    holds,
    is_urgent,
    plan,
)
from schemas.reputation import Control, State
from tests.k8s.builders import campaign, control

SHAPE = "f00d"


def wish(told: Control | None, *, registered: bool = True, replicas: int = 1) -> Desired:
    return desired("spring-sale", campaign() if registered else None, told, grace_s=20, replicas=replicas)


def status(state: str = "healthy", **changes: object) -> SenderStatus:
    closed = state in CLOSED_STATES
    there = SenderStatus(
        campaign="spring-sale",
        name=wish(None).spec.name,
        exists=True,
        wanted=0 if closed else 1,
        running=0 if closed else 1,
        egress_open=not closed,
        epoch=1,
        state=state,
        reason=f"{state} by epoch 1",
        shape=SHAPE,
    )
    return dataclasses.replace(there, **changes)  # type: ignore[arg-type]  # fields by name


def steps(told: Control | None, there: SenderStatus | None, **wished: object) -> list[str]:
    return [type(step).__name__ for step in plan(wish(told, **wished), there, shape=SHAPE)]  # type: ignore[arg-type]


TABLE = {
    "no control, nothing there": (None, None, []),
    "no control, something runs": (None, status(), ["Isolate"]),
    "no control, all shut": (None, status("isolated"), []),
    "healthy, nothing there": (control(), None, ["Ensure"]),
    "healthy, as it should be": (control(), status(), []),
    "healthy, a part is missing": (control(), status(exists=False), ["Ensure"]),
    "healthy, somebody changed it": (control(), status(shape=""), ["Ensure"]),
    "healthy, somebody scaled it": (control(), status(wanted=5), ["Ensure"]),
    "healthy, somebody shut its way out": (control(), status(egress_open=False), ["Ensure"]),
    "healthy, half done": (control(), status(agreed=False), ["Ensure"]),
    "healthy, not all started yet": (control(), status(running=0), []),
    "healthy again, newer epoch": (control(epoch=2), status(), ["Ensure"]),
    "healthy, new sentence": (control(reason="calm"), status(), ["Ensure"]),
    "watched": (control("watched", epoch=2), status(), ["Ensure"]),
    "throttled": (control("throttled", epoch=2), status(), ["Ensure"]),
    "paused keeps its process": (control("paused"), status("paused"), []),
    "paused, nothing there": (control("paused"), None, ["Ensure"]),
    "isolated, runs": (control("isolated", epoch=2), status(), ["Isolate"]),
    "isolated, drains": (control("isolated"), status("isolated", running=1), ["Isolate"]),
    "isolated, way out still open": (control("isolated"), status("isolated", egress_open=True), ["Isolate"]),
    "isolated, somebody scaled it up": (control("isolated"), status("isolated", wanted=2), ["Isolate"]),
    "isolated, as it should be": (control("isolated"), status("isolated"), []),
    "isolated, half done": (control("isolated"), status("isolated", agreed=False), ["Isolate"]),
    "isolated anew": (control("isolated", epoch=2), status("isolated"), ["Isolate"]),
    "isolated, nothing there": (control("isolated"), None, ["Isolate"]),
    "isolated, another image": (control("isolated"), status("isolated", shape="old"), []),
    "released": (control("watched", epoch=2), status("isolated"), ["Release"]),
    "released, half done": (control("watched", epoch=2), status("isolated", egress_open=True, epoch=2), ["Release"]),
    "retired, runs": (control("retired", epoch=2), status(), ["Retire"]),
    "retired after isolation": (control("retired", epoch=2), status("isolated"), ["Retire"]),
    "retired, as it should be": (control("retired"), status("retired"), []),
    "retired, nothing there": (control("retired"), None, []),
    "older than the fence, runs": (control("isolated", epoch=1), status(epoch=2), []),
    "older than the fence, shut": (control("healthy", epoch=1), status("isolated", epoch=2), []),
}


@pytest.mark.parametrize(("told", "there", "wanted"), TABLE.values(), ids=TABLE.keys())
def test_the_table(told: Control | None, there: SenderStatus | None, wanted: list[str]) -> None:
    assert steps(told, there) == wanted


@pytest.mark.parametrize("state", ["healthy", "watched", "throttled", "paused"])
def test_a_campaign_that_is_not_registered_gets_no_sender(state: State) -> None:
    assert steps(control(state), None, registered=False) == []
    assert steps(control(state), status(), registered=False) == ["Isolate"]


def test_an_isolation_needs_no_campaign_record() -> None:
    assert steps(control("isolated", epoch=2), status(), registered=False) == ["Isolate"]


def test_an_orphan_is_shut_without_moving_its_fence() -> None:
    [step] = plan(wish(None), status(epoch=7), shape=SHAPE)

    assert isinstance(step, Isolate)
    assert (step.control.epoch, step.control.reason) == (7, ORPHAN)


def test_an_orphan_opens_again_with_the_epoch_that_it_had() -> None:
    shut = status("isolated", epoch=7, reason=ORPHAN)

    assert [type(step) for step in plan(wish(control(epoch=7)), shut, shape=SHAPE)] == [Release]


@pytest.mark.parametrize(("draining_ms", "cut"), [(0, False), (20_000 + DRAIN_MARGIN_MS, False), (36_000, True)])
@pytest.mark.parametrize(("state", "kind"), [("isolated", Isolate), ("retired", Retire)])
def test_mail_in_flight_has_its_grace_and_no_more(
    draining_ms: int, cut: bool, state: State, kind: type[Isolate | Retire]
) -> None:
    draining = status(state, running=1, egress_open=True)

    [step] = plan(wish(control(state)), draining, shape=SHAPE, draining_ms=draining_ms)

    assert isinstance(step, kind)
    assert step.cut is cut


def test_a_scaled_campaign_is_brought_back_to_its_replicas() -> None:
    assert steps(control(), status(wanted=1), replicas=3) == ["Ensure"]
    assert steps(control(), status(wanted=3, running=3), replicas=3) == []


@pytest.mark.parametrize(
    ("state", "urgent"), [("isolated", True), ("retired", True), ("paused", False), ("healthy", False)]
)
def test_what_stops_a_sender_goes_first(state: State, urgent: bool) -> None:
    assert is_urgent(control(state)) is urgent


def test_the_owner_may_write_any_label() -> None:
    told = desired("c", campaign("c", tenant="a b", labels={"team": "ü"}), None, grace_s=5)

    assert (told.spec.tenant, told.spec.labels, told.spec.grace_s) == ("a b", (("team", "ü"),), 5)


STATES = st.sampled_from(["healthy", "watched", "throttled", "paused", "isolated", "retired"])
STATUSES = st.builds(
    SenderStatus,
    campaign=st.just("spring-sale"),
    name=st.just(wish(None).spec.name),
    exists=st.booleans(),
    wanted=st.integers(0, 3),
    running=st.integers(0, 3),
    egress_open=st.booleans(),
    epoch=st.integers(0, 4),
    state=STATES | st.just(""),
    reason=st.just("r"),
    agreed=st.booleans(),
    shape=st.sampled_from(["", SHAPE]),
)
CONTROLS = st.none() | st.builds(
    lambda state, epoch: control(state, epoch=epoch, reason="r"), STATES, st.integers(1, 4)
)


@given(CONTROLS, st.none() | STATUSES, st.booleans())
def test_nothing_older_than_the_fence_ever_acts(
    told: Control | None, there: SenderStatus | None, registered: bool
) -> None:
    for step in plan(wish(told, registered=registered), there, shape=SHAPE):
        assert there is None or step.control.epoch >= there.epoch


@given(CONTROLS, st.none() | STATUSES, st.booleans())
def test_nothing_is_opened_that_may_not_run(told: Control | None, there: SenderStatus | None, registered: bool) -> None:
    opened = [s for s in plan(wish(told, registered=registered), there, shape=SHAPE) if isinstance(s, Ensure | Release)]

    assert not opened or (told is not None and registered and told.state not in CLOSED_STATES)


@given(CONTROLS, STATUSES, st.booleans())
def test_only_a_release_opens_what_was_closed(told: Control | None, there: SenderStatus, registered: bool) -> None:
    if there.closed:
        assert not any(isinstance(s, Ensure) for s in plan(wish(told, registered=registered), there, shape=SHAPE))


@given(CONTROLS, STATUSES, st.booleans())
def test_what_was_done_leaves_nothing_to_do(told: Control | None, there: SenderStatus, registered: bool) -> None:
    desire = wish(told, registered=registered)
    for step in plan(desire, there, shape=SHAPE):
        opens = isinstance(step, Ensure | Release)
        done = dataclasses.replace(
            there,
            exists=True,
            wanted=step.spec.replicas if opens else 0,
            running=step.spec.replicas if opens else 0,
            egress_open=opens,
            epoch=step.control.epoch,
            state=step.control.state,
            reason=step.control.reason,
            agreed=True,
            shape=SHAPE,
        )
        assert plan(desire, done, shape=SHAPE) == []


@pytest.mark.parametrize(("asked", "most", "replicas"), [(None, 4, 1), (3, 4, 3), (9, 4, 4), (0, 4, 0), (-1, 4, 0)])
def test_people_say_how_many_replicas_and_partitions_are_the_most(asked: int | None, most: int, replicas: int) -> None:
    one = wish(control())

    assert as_asked(one, status(asked=asked), most=most).spec.replicas == replicas


def test_an_address_that_people_ask_for_is_taken_and_given_up_again() -> None:
    one, asked = wish(control()), SourceAddress("192.0.2.7")
    own = as_asked(one, status(source=asked), most=9)

    assert own.spec.source == asked
    assert as_asked(own, status(), most=9).spec.source is None


def test_what_is_shown_of_a_sender_that_nobody_vouches_for_says_so() -> None:
    one = wish(control(epoch=4), registered=False)
    told = holds(one, status(epoch=4))

    assert told is not None
    assert (told.state, told.epoch, told.reason) == ("isolated", 4, ORPHAN)


def test_whoever_knows_less_than_the_place_shows_nothing() -> None:
    one = wish(control(epoch=4))

    assert holds(one, status(epoch=5)) is None
    assert holds(one, None) is None
