"""The controller on a real API server: what it makes of decisions, and of everybody else who writes there."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from k8s import labels
from k8s.cluster import Stale
from tests.cluster.conftest import Given, until
from tests.cluster.controlling import CAMPAIGN, NAME, Field, furnished
from tests.control_plane.plane import ControlPlane
from tests.control_plane.rest import Rest
from tests.k8s.builders import Decided, control, spec


@pytest.fixture
async def field(plane: ControlPlane | Given, rest: Rest, namespace: str) -> Field:
    return await furnished(plane, rest, namespace)


async def test_a_decision_becomes_objects_conditions_and_an_event_each(field: Field) -> None:
    field.decide("healthy", reason="all is well")
    async with field.controller() as one:
        await field.is_open()
        field.decide("isolated", reason="3 trap hits in 1,204 accepted; limit 0.02 %")
        one.wake(CAMPAIGN)
        await field.is_isolated()
        field.decide("throttled", reason="released, at a tenth of the pace")
        one.wake(CAMPAIGN)
        await field.reaches(Ready=("True", "Sending"), Throttled=("True", "Throttled"))

    assert await field.events() == [
        ("Healthy", "all is well"),
        ("Isolated", "3 trap hits in 1,204 accepted; limit 0.02 %"),
        ("Released", "released, at a tenth of the pace"),
    ]
    campaign = await field.get("Campaign")
    assert campaign["spec"]["decision"]["epoch"] == 3
    assert campaign["spec"]["from"]["address"] == "news@shop.example"


async def test_the_way_out_is_open_until_the_last_pod_has_ended(
    field: Field, own_plane: ControlPlane, tmp_path: Path
) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    config = f"/api/v1/namespaces/{field.namespace}/configmaps/{field.site.config}"
    (await field.rest.merge(config, {"data": {"HOLD": str(hold)}})).wanted()
    field.image = "draining:1"
    field.decide("healthy")
    async with field.controller() as one:
        await field.reaches(Ready=("False", "Starting"))  # this one does nothing but drain: it is never ready

        async def runs() -> bool:
            logs = own_plane.pods_folder.glob(f"logs/{field.namespace}_{NAME}-*.log")
            return any("here" in log.read_text() for log in logs)

        await until(runs, what="its program runs and knows what to do when it is asked to end")
        field.decide("isolated")
        one.wake(CAMPAIGN)
        await field.reaches(Isolated=("False", "Draining"))
        deployment, policy = await field.get("Deployment"), await field.get("NetworkPolicy")
        assert (deployment["spec"]["replicas"], bool(policy["spec"]["egress"])) == (0, True)

        hold.unlink()
        await field.is_isolated()


async def test_an_address_that_people_ask_for_reaches_the_sender_and_is_given_up_with_their_wish(field: Field) -> None:
    field.decide("healthy")
    async with field.controller():
        await field.reaches(Ready=("True", "Sending"), EgressIPVerified=("Unknown", "NotAsked"))
        wish = {"address": "192.0.2.7", "heloName": "mta7.shop.example"}
        (await field.rest.merge(f"{field.paths['Campaign']}/{NAME}", {"spec": {"egress": wish}})).wanted()
        await field.reaches(Ready=("True", "Sending"), EgressIPVerified=("True", "Verified"))
        assert await addressed(field) == {
            "MAILCORDON_EGRESS_ADDRESS": wish["address"],
            "MAILCORDON_HOSTNAME": wish["heloName"],
        }

        (await field.rest.merge(f"{field.paths['Campaign']}/{NAME}", {"spec": {"egress": None}})).wanted()
        await field.reaches(Ready=("True", "Sending"), EgressIPVerified=("Unknown", "NotAsked"))

        async def given_up() -> bool:
            return await addressed(field) == {}

        await until(given_up, what="the sender has no address of its own")


async def addressed(field: Field) -> dict[str, str]:
    """The sender's own variables about the address, as its Deployment has them."""
    [container] = (await field.get("Deployment"))["spec"]["template"]["spec"]["containers"]
    names = ("MAILCORDON_EGRESS_ADDRESS", "MAILCORDON_HOSTNAME")
    return {one["name"]: one["value"] for one in container["env"] if one["name"] in names}


async def test_two_controllers_do_it_once(field: Field) -> None:
    field.decide("healthy")
    async with field.controller() as one, field.controller() as other:
        for state in ("isolated", "watched", "isolated", "healthy"):
            field.decide(state)  # type: ignore[arg-type]  # the states above
            one.wake(CAMPAIGN)
            other.wake(CAMPAIGN)
            await (field.is_isolated() if state == "isolated" else field.is_open())

    assert len(await field.events()) == field.epochs - 1  # the first was overtaken before anybody saw it, or not
    assert [said for said, _ in await field.events()][-4:] == ["Isolated", "Released", "Isolated", "Released"]


async def test_a_stale_controller_is_refused_and_changes_nothing(field: Field) -> None:
    behind = Decided()
    behind.say(control("healthy", epoch=1, reason="it is healthy"))
    field.decide("healthy")
    field.decide("isolated")
    async with field.controller():
        await field.is_isolated()
    before = await field.lasting()
    cluster = await field.cluster()
    for act in (cluster.ensure, cluster.release):
        with pytest.raises(Stale):
            await act(spec(), control("healthy", epoch=1))

    async with field.controller(behind) as stale:
        stale.wake(CAMPAIGN)
        await until(lambda: asyncio.sleep(0, stale.since_resync_s() is not None), what="it has compared everything")
        assert await stale.reconcile(CAMPAIGN)
    await cluster.close()

    assert await field.lasting() == before


async def test_the_api_server_itself_refuses_the_older_epoch(field: Field) -> None:
    """Even a controller that has looked at nothing since: its write carries the newest version and an old decision."""
    field.decide("healthy")
    field.decide("isolated")
    async with field.controller():
        await field.is_isolated()

    cluster = await field.cluster()
    live = await cluster._api.get("Deployment", NAME)
    stale = control("healthy", epoch=1)
    bodies = cluster._bodies(spec(), stale, replicas=1, is_open=True)
    with pytest.raises(Exception, match="stale decision"):
        await cluster._api.apply("Deployment", bodies["Deployment"], over=live)
    await cluster.close()
    await field.stays_isolated()


DRIFTS: dict[str, tuple[str, Callable[[Field], Any]]] = {
    "a policy is deleted": ("NetworkPolicy", lambda f: f.rest.delete(f"{f.paths['NetworkPolicy']}/{NAME}")),
    "a Deployment is deleted": ("Deployment", lambda f: f.rest.delete(f"{f.paths['Deployment']}/{NAME}")),
    "the Campaign is deleted": ("Campaign", lambda f: f.rest.delete(f"{f.paths['Campaign']}/{NAME}")),
    "the image is changed": (
        "Deployment",
        lambda f: f.rest.strategic(
            f"{f.paths['Deployment']}/{NAME}",
            {"spec": {"template": {"spec": {"containers": [{"name": "sender", "image": "evil:1"}]}}}},
        ),
    ),
    "the reason is rewritten": (
        "Deployment",
        lambda f: f.rest.merge(
            f"{f.paths['Deployment']}/{NAME}", {"metadata": {"annotations": {labels.REASON: "nothing to see"}}}
        ),
    ),
    "the definition is edited": (
        "Campaign",
        lambda f: f.rest.merge(f"{f.paths['Campaign']}/{NAME}", {"spec": {"tenant": "mine"}}),
    ),
    "the port is changed": (
        "Service",
        lambda f: f.rest.merge(
            f"{f.paths['Service']}/{NAME}", {"spec": {"ports": [{"name": "smtp", "port": 25, "targetPort": 26}]}}
        ),
    ),
}


@pytest.mark.parametrize("drift", DRIFTS.values(), ids=DRIFTS.keys())
async def test_what_others_change_is_put_right_without_a_resync(
    field: Field, drift: tuple[str, Callable[[Field], Any]]
) -> None:
    kind, meddle = drift
    field.decide("healthy")
    async with field.controller():
        await field.is_open()
        before = (await field.lasting())[kind]
        (await meddle(field)).wanted()

        async def right() -> bool:
            return bool((await field.lasting()).get(kind) == before)

        await until(right, what=f"the {kind} is as it was", within_s=10)
        await field.is_open()


OPENINGS: dict[str, Callable[[Field], Any]] = {
    "somebody opens its policy": lambda f: f.rest.merge(
        f"{f.paths['NetworkPolicy']}/{NAME}", {"spec": {"egress": [{"ports": [{"port": 25}]}]}}
    ),
    "somebody scales its Deployment": lambda f: f.rest.merge(
        f"{f.paths['Deployment']}/{NAME}", {"spec": {"replicas": 2}}
    ),
}


@pytest.mark.parametrize("opening", OPENINGS.values(), ids=OPENINGS.keys())
async def test_without_the_guard_an_isolated_sender_is_closed_again(
    field: Field, opening: Callable[[Field], Any]
) -> None:
    field.decide("isolated")
    where = f"/api/v1/namespaces/{field.namespace}"
    (await field.rest.merge(where, {"metadata": {"labels": {labels.GUARDED: None}}})).wanted()
    async with field.controller():
        await field.is_isolated()

        async def opened() -> bool:
            return bool((await opening(field)).ok)

        await until(opened, what="the guard is off")

        async def closed() -> bool:
            deployment, policy = await field.get("Deployment"), await field.get("NetworkPolicy")
            return (deployment["spec"]["replicas"], policy["spec"].get("egress", [])) == (0, [])

        await until(closed, what="closed again", within_s=10)
        await field.is_isolated()


async def test_replicas_are_asked_of_the_campaign(field: Field) -> None:
    field.decide("healthy")
    async with field.controller():
        await field.is_open()
        scale = f"{field.paths['Campaign']}/{NAME}/scale"
        (await field.rest.merge(scale, {"spec": {"replicas": 3}})).wanted()

        async def scaled() -> bool:
            return bool((await field.get("Campaign"))["status"]["replicas"] == 3 and len(await field.pods()) == 3)

        await until(scaled, what="three replicas run")
        told = (await field.rest.get(scale)).wanted()
        assert (told["spec"]["replicas"], told["status"]["replicas"]) == (3, 3)
        assert labels.CAMPAIGN in told["status"]["selector"]


AUTOSCALER = {
    "apiVersion": "autoscaling/v2",
    "kind": "HorizontalPodAutoscaler",
    "spec": {
        "scaleTargetRef": {"apiVersion": "mailcordon.dev/v1alpha1", "kind": "Campaign", "name": NAME},
        "minReplicas": 2,
        "maxReplicas": 4,
    },
}


async def test_an_autoscaler_does_not_undo_a_throttle(field: Field) -> None:
    """The pace is the decision's and not the replicas': as many as it likes share it."""
    field.decide("healthy")
    path = f"/apis/autoscaling/v2/namespaces/{field.namespace}/horizontalpodautoscalers/{NAME}"
    async with field.controller() as one:
        await field.is_open()
        field.decide("throttled")
        one.wake(CAMPAIGN)
        await field.reaches(Throttled=("True", "Throttled"))
        (await field.rest.apply(path, AUTOSCALER)).wanted()

        async def two() -> bool:
            return len(await field.pods()) == 2

        await until(two, what="the autoscaler's minimum runs")
        await field.reaches(Ready=("True", "Sending"), Throttled=("True", "Throttled"))
        (await field.rest.delete(path)).wanted()

    deployment = await field.get("Deployment")
    assert deployment["metadata"]["annotations"][labels.STATE] == "throttled"


async def test_an_autoscaler_scales_the_open_and_does_not_wake_the_isolated(field: Field) -> None:
    """An HPA on the Campaign: its minimum is kept at once, even without metrics."""
    field.decide("healthy")
    path = f"/apis/autoscaling/v2/namespaces/{field.namespace}/horizontalpodautoscalers/{NAME}"
    async with field.controller() as one:
        await field.is_open()
        (await field.rest.apply(path, AUTOSCALER)).wanted()

        async def two() -> bool:
            return len(await field.pods()) == 2

        await until(two, what="the autoscaler's minimum runs")
        field.decide("isolated")
        one.wake(CAMPAIGN)
        await field.is_isolated()
        (await field.rest.merge(path, {"spec": {"minReplicas": 3}})).wanted()

        async def tried() -> bool:
            told = (await field.rest.get(path)).wanted()["status"].get("conditions", ())
            return any(one["type"] == "AbleToScale" and one["status"] == "False" for one in told)

        await until(tried, what="the autoscaler was refused")
        await field.stays_isolated()


async def test_a_watch_that_is_too_old_begins_anew_with_a_list(field: Field, own_plane: ControlPlane) -> None:
    field.decide("healthy")
    async with field.controller():
        await field.is_open()
        # an API server that was away comes back with an empty watch cache and knows no older version than its own
        await asyncio.to_thread(own_plane.stop_api)
        await asyncio.to_thread(own_plane.start_api)
        (await field.rest.delete(f"{field.paths['NetworkPolicy']}/{NAME}")).wanted()

        async def back() -> bool:
            return await field.get("NetworkPolicy") is not None

        await until(back, what="the policy is made again")


async def test_with_the_api_server_away_the_objects_follow_when_it_is_back(
    field: Field, own_plane: ControlPlane
) -> None:
    """The breach happens while nothing can be asked of Kubernetes; the decision is what counts when it is back."""
    field.decide("healthy")
    async with field.controller() as one:
        await field.is_open()
        await asyncio.to_thread(own_plane.stop_api)
        field.decide("isolated", reason="a trap was hit while the API server was away")
        one.wake(CAMPAIGN)
        failed = one.metrics.registry
        await until(
            lambda: asyncio.sleep(
                0, failed.get_sample_value("mailcordon_controller_reconciled_total", {"result": "temporary"})
            ),
            what="it has tried",
        )
        await asyncio.to_thread(own_plane.start_api)
        await field.is_isolated()

    assert (await field.events())[-1] == ("Isolated", "a trap was hit while the API server was away")
