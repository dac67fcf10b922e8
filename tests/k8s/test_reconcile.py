"""The reconciler: level by level, urgent first, patient with an API that fails, and harmless to interrupt."""

import asyncio
import contextlib
import dataclasses
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
import structlog
from kubernetes.aio import client

from k8s.api import Api
from k8s.cluster import Permanent, Temporary, Unfit
from k8s.kubernetes import KubernetesCluster
from k8s.patches import Site
from k8s.reconcile import REPAIRS, Habits, Reconciler
from policy.naming import sender_name
from policy.registering import Flaw
from schemas.reputation import Control
from schemas.sending import Campaign
from tests.doubles.fake_api import Called, FakeApi
from tests.k8s.builders import NOW, Decided, campaign, control, spec, until
from tests.k8s.memory_cluster import MemoryCluster

QUICK = Habits(settle_s=0.001, longest_pause_s=0.02, longest_urgent_s=0.01, resync_s=0.05)
STILL = Habits(settle_s=0.001, longest_pause_s=0.02, longest_urgent_s=0.01, resync_s=3600)


def reconciler(
    cluster: Any, truth: Decided, habits: Habits = STILL, now: Callable[[], int] = lambda: NOW
) -> Reconciler:
    return Reconciler(cluster, truth, now=now, chance=lambda: 0.0, habits=habits)


@contextlib.asynccontextmanager
async def working(one: Reconciler) -> AsyncIterator[None]:
    task = asyncio.create_task(one.run())
    await asyncio.sleep(0)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def cluster() -> MemoryCluster:
    return MemoryCluster()


@pytest.fixture
def truth() -> Decided:
    return Decided()


def state(cluster: MemoryCluster, name: str = "spring-sale") -> tuple[str, int, int] | None:
    there = cluster.world.senders.get(sender_name(name))
    return None if there is None else (there.state, there.wanted, there.running)


async def reached(cluster: MemoryCluster, wanted: tuple[str, int, int], name: str = "spring-sale") -> None:
    await until(lambda: asyncio.sleep(0, state(cluster, name) == wanted), what=f"{name} {wanted}", within_s=5)


async def test_a_registered_campaign_with_control_gets_a_sender(cluster: MemoryCluster, truth: Decided) -> None:
    truth.say(control())

    async with working(reconciler(cluster, truth)):
        await reached(cluster, ("healthy", 1, 1))


async def test_a_campaign_without_control_gets_none(cluster: MemoryCluster, truth: Decided) -> None:
    truth.campaigns["spring-sale"] = campaign()
    one = reconciler(cluster, truth)

    assert await one.reconcile("spring-sale")

    assert cluster.acts == []


async def test_it_follows_each_decision(cluster: MemoryCluster, truth: Decided) -> None:
    one = reconciler(cluster, truth)
    states = ["healthy", "watched", "throttled", "paused", "isolated", "watched", "retired"]
    async with working(one):
        for epoch, told in enumerate(states, start=1):
            truth.say(control(told, epoch=epoch))  # type: ignore[arg-type]  # the states above
            one.wake("spring-sale")
            running = 0 if told in {"isolated", "retired"} else 1
            await reached(cluster, (told, running, running))

    acts = [act for act, _, _ in cluster.acts]
    assert acts == ["ensure", "ensure", "ensure", "ensure", "isolate", "isolate", "release", "retire", "retire"]


async def test_a_control_counts_before_the_truth_has_read_it(cluster: MemoryCluster, truth: Decided) -> None:
    truth.say(control())
    one = reconciler(cluster, truth)
    await one.reconcile("spring-sale")

    one.heard(control("isolated", epoch=2))
    await one.reconcile("spring-sale")

    assert state(cluster) == ("isolated", 0, 0)


async def test_an_older_control_that_comes_by_does_not_count(cluster: MemoryCluster, truth: Decided) -> None:
    truth.say(control("isolated", epoch=5))
    one = reconciler(cluster, truth)

    for told in (control("healthy", epoch=4), control("isolated", epoch=5), control("healthy", epoch=3)):
        one.heard(told)
        await one.reconcile("spring-sale")

    assert state(cluster) == ("isolated", 0, 0)
    assert one.control("spring-sale") == control("isolated", epoch=5)


async def test_of_two_heard_the_newer_counts_in_any_order(cluster: MemoryCluster, truth: Decided) -> None:
    truth.say(control())
    one = reconciler(cluster, truth)

    one.heard(control("isolated", epoch=3))
    one.heard(control("watched", epoch=2))

    told = one.control("spring-sale")
    assert told is not None
    assert told.epoch == 3


async def test_a_deleted_control_ends_its_sender(cluster: MemoryCluster, truth: Decided) -> None:
    truth.say(control())
    one = reconciler(cluster, truth)
    one.heard(control("watched", epoch=2))
    await one.reconcile("spring-sale")

    del truth.controls["spring-sale"]
    one.forgotten("spring-sale")
    await one.reconcile("spring-sale")

    assert state(cluster) == ("isolated", 0, 0)


async def test_a_resync_finds_what_nobody_told(cluster: MemoryCluster, truth: Decided) -> None:
    truth.say(control())
    async with working(reconciler(cluster, truth, QUICK)):
        await reached(cluster, ("healthy", 1, 1))
        truth.say(control("isolated", epoch=2))  # no wake
        await reached(cluster, ("isolated", 0, 0))

        drifted = cluster.world.senders[sender_name("spring-sale")]
        cluster.world.senders[drifted.name] = type(drifted)(
            **{name: getattr(drifted, name) for name in drifted.__slots__} | {"wanted": 3, "running": 3}
        )
        await reached(cluster, ("isolated", 0, 0))


async def test_a_resync_finds_a_sender_that_nobody_vouches_for(cluster: MemoryCluster, truth: Decided) -> None:
    await cluster.ensure(spec("orphan"), control(name="orphan"))

    async with working(reconciler(cluster, truth, QUICK)):
        await reached(cluster, ("isolated", 0, 0), "orphan")


async def test_a_resync_asks_only_for_what_differs(cluster: MemoryCluster, truth: Decided) -> None:
    for number in range(120):
        truth.say(control(name=f"c{number}"))
    one = reconciler(cluster, truth)
    for number in range(120):
        await one.reconcile(f"c{number}")
    reads = cluster.reads

    await one.resync()

    assert len(one._queue) == 0
    assert cluster.reads == reads


async def test_what_stops_a_sender_goes_before_what_starts_one(cluster: MemoryCluster, truth: Decided) -> None:
    for number in range(20):
        truth.say(control(name=f"c{number}"))
    truth.say(control("isolated", name="bad", epoch=2))
    one = reconciler(cluster, truth, Habits(workers=1, resync_s=3600))
    for number in range(20):
        one.wake(f"c{number}")
    one.wake("bad")

    async with working(one):
        await reached(cluster, ("isolated", 0, 0), "bad")

    assert cluster.acts[0][:2] == ("isolate", "bad")


async def test_never_two_at_the_same_campaign(cluster: MemoryCluster, truth: Decided) -> None:
    names = ["a", "b", "c"]
    one = reconciler(cluster, truth, QUICK)
    async with working(one):
        for epoch in range(1, 60):
            for name in names:
                truth.say(control("isolated" if epoch % 3 == 0 else "healthy", name=name, epoch=epoch))
                one.wake(name)
            await asyncio.sleep(0)
        for name in names:
            truth.say(control("isolated", name=name, epoch=99))
            one.wake(name)
            await reached(cluster, ("isolated", 0, 0), name)

    assert cluster.overlaps == 0
    for name in names:
        epochs = [epoch for _, who, epoch in cluster.acts if who == name]
        assert epochs == sorted(epochs)


async def test_a_sender_that_drains_is_looked_at_until_it_has_ended(cluster: MemoryCluster, truth: Decided) -> None:
    truth.say(control())
    one = reconciler(cluster, truth)
    async with working(one):
        one.wake("spring-sale")
        await reached(cluster, ("healthy", 1, 1))
        cluster.world.hold_drain = True
        truth.say(control("isolated", epoch=2))
        one.wake("spring-sale")
        await reached(cluster, ("isolated", 0, 1))

        cluster.world.hold_drain = False
        await reached(cluster, ("isolated", 0, 0))


async def test_one_that_never_ends_is_cut(cluster: MemoryCluster, truth: Decided) -> None:
    clock = [0.0]
    truth.say(control())
    one = Reconciler(cluster, truth, now=lambda: NOW, chance=lambda: 0.0, habits=STILL, clock=lambda: clock[0])
    await one.reconcile("spring-sale")
    cluster.world.hold_drain = True
    truth.say(control("isolated", epoch=2))

    assert not await one.reconcile("spring-sale")
    clock[0] += 34
    assert not await one.reconcile("spring-sale")
    clock[0] += 2
    await one.reconcile("spring-sale")

    assert [act for act, _, _ in cluster.acts] == ["ensure", "isolate", "isolate", "cut"]


async def test_what_fails_for_a_while_is_tried_until_it_works(cluster: MemoryCluster, truth: Decided) -> None:
    truth.say(control())
    failures = Counter[str]()

    def trouble(act: str, _: str) -> None:
        failures[act] += 1
        if failures[act] <= 5:
            raise Temporary("no")

    cluster.trouble = trouble
    async with working(reconciler(cluster, truth, QUICK)):
        await reached(cluster, ("healthy", 1, 1))


async def test_pauses_grow_and_end_at_the_longest(cluster: MemoryCluster, truth: Decided) -> None:
    truth.say(control())
    one = reconciler(cluster, truth, Habits(settle_s=1, longest_pause_s=10, longest_urgent_s=3))

    healthy = [one._again("spring-sale") for _ in range(6)]
    truth.say(control("isolated", epoch=2))
    urgent = [one._again("spring-sale") for _ in range(2)]

    assert healthy == [1, 2, 4, 8, 10, 10]
    assert urgent == [3, 3]


async def test_the_patience_that_was_asked_for_is_kept_by_all_but_the_urgent(
    cluster: MemoryCluster, truth: Decided
) -> None:
    clock = [0.0]
    for name in ("a", "b"):
        truth.say(control(name=name))
    truth.say(control("isolated", name="bad", epoch=2))
    calls: list[tuple[str, str]] = []

    def busy(act: str, who: str) -> None:
        calls.append((act, who))
        if who == "a" and clock[0] < 60:
            raise Temporary("busy", retry_after_s=60)

    cluster.trouble = busy
    one = Reconciler(cluster, truth, now=lambda: NOW, chance=lambda: 0.0, habits=STILL, clock=lambda: clock[0])
    async with working(one):
        one.wake("a")
        await until(lambda: asyncio.sleep(0, ("read", "a") in calls), what="a was tried")
        one.wake("b")
        one.wake("bad")
        await reached(cluster, ("isolated", 0, 0), "bad")
        for _ in range(20):
            await asyncio.sleep(0)
        assert state(cluster, "b") is None
        assert calls.count(("read", "a")) == 1

        clock[0] = 61
        one.wake("b")
        await reached(cluster, ("healthy", 1, 1), "b")


async def test_what_will_not_work_is_told_and_not_hammered(cluster: MemoryCluster, truth: Decided) -> None:
    truth.say(control())

    def refuse(act: str, _: str) -> None:
        if act == "ensure":
            raise Permanent("quota")

    cluster.trouble = refuse
    with structlog.testing.capture_logs() as logs:
        one = reconciler(cluster, truth)
        async with working(one):
            one.wake("spring-sale")
            await until(lambda: asyncio.sleep(0, any(e["log_level"] == "error" for e in logs)), what="told")
            for _ in range(50):
                await asyncio.sleep(0)

    told = [(e["event"], e["why"]) for e in logs if e["log_level"] == "error"]
    assert set(told) == {("sender cannot be made what it should be", "quota")}
    assert len(told) <= 2, "once for the wake and once for the first resync"


async def test_a_bug_that_one_campaign_brings_out_stays_with_it(cluster: MemoryCluster, truth: Decided) -> None:
    def bug(_: str, who: str) -> None:
        if who == "odd":
            raise ZeroDivisionError

    cluster.trouble = bug
    truth.say(control(name="odd"))
    truth.say(control("isolated", name="bad", epoch=2))
    one = reconciler(cluster, truth, Habits(workers=1, settle_s=0.001, resync_s=3600))
    one.wake("odd")
    one.wake("bad")

    async with working(one):
        await reached(cluster, ("isolated", 0, 0), "bad")


async def test_a_place_that_cannot_be_listed_is_asked_again(cluster: MemoryCluster, truth: Decided) -> None:
    truth.say(control())
    failed = Counter[str]()

    def trouble(act: str, _: str) -> None:
        failed[act] += 1
        if act == "list" and failed[act] < 4:
            raise Temporary("away")

    cluster.trouble = trouble
    one = reconciler(cluster, truth)
    assert one.since_resync_s() is None
    async with working(one):
        await reached(cluster, ("healthy", 1, 1))

    assert one.since_resync_s() is not None


async def test_the_decisions_own_sentence_is_told_with_the_time_it_took(cluster: MemoryCluster, truth: Decided) -> None:
    truth.say(control())
    one = reconciler(cluster, truth, now=lambda: NOW + 250)
    await one.reconcile("spring-sale")
    truth.say(control("isolated", epoch=2, reason="3 trap hits in 1,204 accepted; limit 0.02 %"))

    with structlog.testing.capture_logs() as logs:
        while not await one.reconcile("spring-sale"):
            pass

    [begun, done] = [event for event in logs if event["log_level"] == "info"]
    assert begun["event"] == "sender is being isolated"
    assert (done["event"], done["reason"], done["took_ms"]) == (
        "sender isolated",
        "3 trap hits in 1,204 accepted; limit 0.02 %",
        250,
    )


async def test_what_ends_between_two_looks_is_told_and_timed_as_well(cluster: MemoryCluster, truth: Decided) -> None:
    truth.say(control())
    one = reconciler(cluster, truth, now=lambda: NOW + 250)
    await one.reconcile("spring-sale")
    truth.say(control("isolated", epoch=2, reason="3 trap hits"))

    with structlog.testing.capture_logs() as logs:
        cluster.world.hold_drain = True
        assert not await one.reconcile("spring-sale"), "its sender finishes its mail"
        [(name, left)] = cluster.world.senders.items()
        cluster.world.senders[name] = dataclasses.replace(left, running=0, egress_open=False)
        assert await one.reconcile("spring-sale"), "it ended by itself: nothing is left to do"
        assert await one.reconcile("spring-sale")

    told = [(event["event"], event.get("took_ms")) for event in logs if event["log_level"] == "info"]
    assert told == [("sender is being isolated", None), ("sender isolated", 250)]
    timed = "mailcordon_controller_control_to_done_seconds_count"
    assert one.metrics.registry.get_sample_value(timed, {"act": "isolate"}) == 1


async def test_a_controller_that_knows_less_than_the_place_waits(cluster: MemoryCluster, truth: Decided) -> None:
    await cluster.isolate(spec(), control("isolated", epoch=9))
    truth.say(control("healthy", epoch=8))

    one = reconciler(cluster, truth)

    with structlog.testing.capture_logs() as logs:
        await one.resync()
        assert await one.reconcile("spring-sale")

    assert state(cluster) == ("isolated", 0, 0)
    assert [(event["known"], event["fence"]) for event in logs] == [(8, 9)], "said once"


async def test_whoever_undoes_it_over_and_over_is_answered_ever_more_slowly(
    cluster: MemoryCluster, truth: Decided
) -> None:
    clock = [0.0]
    truth.say(control())
    one = Reconciler(cluster, truth, now=lambda: NOW, chance=lambda: 0.0, habits=STILL, clock=lambda: clock[0])
    name = sender_name("spring-sale")
    async with working(one):
        one.wake("spring-sale")
        await reached(cluster, ("healthy", 1, 1))
        for _ in range(20):
            cluster.world.senders[name] = dataclasses.replace(cluster.world.senders[name], wanted=5, running=5)
            one.changed("spring-sale")
            for _ in range(20):
                await asyncio.sleep(0)

        assert len(cluster.acts) == 1 + REPAIRS, "and then it waits"
        clock[0] += STILL.longest_pause_s
        one.wake("other")  # the queue looks at the clock again
        await reached(cluster, ("healthy", 1, 1))


async def test_what_a_place_shows_follows_each_decision(cluster: MemoryCluster, truth: Decided) -> None:
    truth.say(control())
    one = reconciler(cluster, truth)
    for epoch, told in enumerate(("healthy", "isolated", "watched"), start=1):
        truth.say(control(told, epoch=epoch))  # type: ignore[arg-type]  # the states above
        while not await one.reconcile("spring-sale"):
            pass
        assert cluster.world.shown["spring-sale"][:2] == (told, epoch)

    assert cluster.world.said == [("spring-sale", 1), ("spring-sale", 2), ("spring-sale", 3)], "each once"


async def test_what_was_not_shown_is_found_by_a_resync(cluster: MemoryCluster, truth: Decided) -> None:
    truth.say(control())
    one = reconciler(cluster, truth)
    await one.reconcile("spring-sale")
    cluster.world.shown.clear()

    async with working(one):
        await until(lambda: asyncio.sleep(0, "spring-sale" in cluster.world.shown), what="shown")


async def test_a_pulled_brake_is_shown(cluster: MemoryCluster, truth: Decided) -> None:
    truth.say(control())
    one = Reconciler(cluster, truth, now=lambda: NOW, chance=lambda: 0.0, habits=STILL, paused=lambda: True)
    await one.reconcile("spring-sale")

    assert cluster.world.shown["spring-sale"][2]


class Registry:
    """Remembers what was registered; a campaign of tenant ``odd`` has a flaw."""

    def __init__(self, truth: Decided) -> None:
        self.truth, self.registered = truth, list[Campaign]()

    def completed(self, made: Campaign) -> Campaign:
        return msgspec.structs.replace(made, unsubscribe_url="https://u.shop.example/u")

    def flaw(self, made: Campaign) -> Flaw | None:
        return Flaw("return_path_domain", "is odd") if made.tenant == "odd" else None

    async def register(self, made: Campaign) -> None:
        self.registered.append(made)


def registering(cluster: MemoryCluster, truth: Decided) -> tuple[Reconciler, Registry]:
    registry = Registry(truth)
    one = Reconciler(cluster, truth, now=lambda: NOW, chance=lambda: 0.0, habits=STILL, registrar=registry)
    return one, registry


async def test_a_campaign_that_people_made_in_the_place_is_registered_once(
    cluster: MemoryCluster, truth: Decided
) -> None:
    one, registry = registering(cluster, truth)
    made = cluster.world.defined["spring-sale"] = campaign()
    for _ in range(3):
        await one.reconcile("spring-sale")
    truth.campaigns["spring-sale"] = registry.completed(made)
    await one.reconcile("spring-sale")

    assert registry.registered == [registry.completed(made)]
    assert cluster.world.claimed == ["spring-sale"]
    assert cluster.acts == [], "a sender begins with its first decision"


async def test_an_edit_of_it_is_registered_anew(cluster: MemoryCluster, truth: Decided) -> None:
    one, registry = registering(cluster, truth)
    truth.campaigns["spring-sale"] = registry.completed(campaign())
    cluster.world.defined["spring-sale"] = campaign(tenant="other")
    await one.reconcile("spring-sale")

    assert [made.tenant for made in registry.registered] == ["other"]


async def test_a_resync_finds_a_campaign_that_was_made_while_nobody_watched(
    cluster: MemoryCluster, truth: Decided
) -> None:
    one, registry = registering(cluster, truth)
    cluster.world.defined["spring-sale"] = campaign()

    async with working(one):
        await until(lambda: asyncio.sleep(0, registry.registered), what="registered")


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (Unfit("spec.from: the field is missing"), "spec.from: the field is missing"),
        ("odd", "spec.returnPathDomain: is odd"),
    ],
    ids=["unfit", "flaw"],
)
async def test_one_that_cannot_be_registered_is_refused_once_and_its_maker_sees_why(
    cluster: MemoryCluster, truth: Decided, made: Unfit | str, said: str
) -> None:
    one, registry = registering(cluster, truth)
    cluster.world.defined["spring-sale"] = campaign(tenant=made) if isinstance(made, str) else made
    for _ in range(3):
        await one.reconcile("spring-sale")

    assert cluster.world.refused == [said]
    assert registry.registered == []


async def test_what_cannot_be_claimed_is_not_registered(cluster: MemoryCluster, truth: Decided) -> None:
    one, registry = registering(cluster, truth)
    cluster.world.defined["spring-sale"] = campaign()

    def busy(call: str, _: str) -> None:
        if call == "claim":
            raise Temporary("it is being changed")

    cluster.trouble = busy
    with contextlib.suppress(Temporary):
        await one.reconcile("spring-sale")

    assert registry.registered == []


async def test_an_edit_that_is_not_registered_is_shown_until_it_is_mended(
    cluster: MemoryCluster, truth: Decided
) -> None:
    one, registry = registering(cluster, truth)
    truth.say(control())
    truth.campaigns["spring-sale"] = registry.completed(campaign())
    cluster.world.defined["spring-sale"] = campaign(tenant="odd")
    await one.reconcile("spring-sale")
    assert cluster.world.unfit["spring-sale"] == Unfit("spec.returnPathDomain: is odd")

    cluster.world.defined["spring-sale"] = campaign()
    await one.reconcile("spring-sale")

    assert cluster.world.unfit["spring-sale"] is None


async def test_a_topic_that_cannot_be_reached_holds_up_no_isolation(cluster: MemoryCluster, truth: Decided) -> None:
    one, registry = registering(cluster, truth)
    truth.say(control("isolated"))
    cluster.world.defined["spring-sale"] = campaign(tenant="other")

    async def away(_: Campaign) -> None:
        raise ConnectionError

    registry.register = away  # type: ignore[assignment,method-assign]  # a broker that is away
    with contextlib.suppress(ConnectionError):
        await one.reconcile("spring-sale")

    assert state(cluster) == ("isolated", 0, 0)


# Killed between any two calls of the Kubernetes API.


@contextlib.asynccontextmanager
async def fake_api() -> AsyncIterator[tuple[FakeApi, client.ApiClient]]:
    async with FakeApi(lag_s=0.001, drain_s=0.002) as api:
        settings = client.Configuration()
        settings.host = api.url
        async with client.ApiClient(settings) as connection:
            yield api, connection


def to_kubernetes(connection: client.ApiClient) -> KubernetesCluster:
    return KubernetesCluster(Api(connection, "mailcordon", timeout_s=5), Site())


async def worked(connection: client.ApiClient, told: Control) -> None:
    """One controller's life: until what is there is what should be, or until it cannot go on."""
    one = reconciler(to_kubernetes(connection), truth_of(told))
    await until(lambda: one.reconcile("spring-sale"), what="all done")


HISTORIES: dict[str, list[Control]] = {
    "ensure": [control()],
    "change": [control(), control("throttled", epoch=2)],
    "isolate": [control(), control("isolated", epoch=2)],
    "isolate what is not there": [control("isolated", epoch=2)],
    "release": [control(), control("isolated", epoch=2), control("watched", epoch=3)],
    "retire": [control(), control("retired", epoch=2)],
}


def lasting(api: FakeApi) -> dict[str, Any]:
    shown = {key: body for key, body in api.state().items() if not key.startswith("pods/")}
    return shown | {"pods": sum(key[0] == "pods" and not held.deleted_at for key, held in api.objects.items())}


async def settled(api: FakeApi, pods: int) -> dict[str, Any]:
    await until(lambda: asyncio.sleep(0, lasting(api)["pods"] == pods), what=f"{pods} pods")
    return lasting(api)


@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES.keys())
async def test_killed_at_any_call_it_ends_in_the_same_state(history: list[Control]) -> None:
    """The controller dies before each request of the last decision, and after each write before it hears of it."""
    pods = 0 if history[-1].state in {"isolated", "retired"} else 1
    async with fake_api() as (api, connection):
        for told in history[:-1]:
            await worked(connection, told)
            await settled(api, 0 if told.state == "isolated" else 1)
        before, first = api.snapshot(), api.requests
        await worked(connection, history[-1])
        undisturbed = await settled(api, pods)
        made = api.methods[first:]

        points = [(number, "before") for number in range(1, len(made) + 1)]
        points += [(number, "after") for number, method in enumerate(made, start=1) if method == "PATCH"]
        died = 0
        for number, moment in points:
            api.restore(before)
            api.die_at = (api.requests + number, moment)
            with contextlib.suppress(Temporary):
                await worked(connection, history[-1])
            died += api.dead
            api.revive()
            await worked(connection, history[-1])

            assert await settled(api, pods) == undisturbed, f"killed {moment} request {number}"

    # how often draining is looked at depends on the machine, and with it how many of the last points there are
    assert died >= len(points) // 2, "most points were met"
    assert died >= 15


def truth_of(told: Control) -> Decided:
    one = Decided()
    one.say(told)
    return one


async def test_a_storm_of_refusals_ends_in_the_right_state() -> None:
    """A third of all answers are 409, 429 or 500: isolations and releases still arrive."""
    async with fake_api() as (api, connection):
        truth = truth_of(control())
        weather = random.Random(7)

        def stormy(call: Called) -> None:
            if weather.random() < 1 / 3:
                code = weather.choice((429, 500, 503) if call.verb != "patch" else (409, 429, 500, 503))
                api.refuse_next(code, retry_after_s=0)

        api.before_call = stormy
        one = reconciler(to_kubernetes(connection), truth)
        async with working(one):
            for epoch, told in ((1, "healthy"), (2, "isolated"), (3, "watched"), (4, "isolated")):
                truth.say(control(told, epoch=epoch))  # type: ignore[arg-type]  # the states above
                one.wake("spring-sale")
                pods = 0 if told == "isolated" else 1

                async def there(told: str = told, pods: int = pods) -> bool:
                    held = api.objects.get(("deployments", "mailcordon", sender_name("spring-sale")))
                    policy = api.objects.get(("networkpolicies", "mailcordon", sender_name("spring-sale")))
                    if held is None or policy is None:
                        return False
                    states = {one.leaves["metadata", "annotations", "mailcordon.dev/state"] for one in (held, policy)}
                    return states == {told} and lasting(api)["pods"] == pods

                await until(there, what=told, within_s=15)
