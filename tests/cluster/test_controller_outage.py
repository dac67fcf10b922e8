"""A breach while the API server is away: the sender, a real one, has stopped by then, and its objects follow."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cli.kafka import EmbeddedKafka
from k8s import labels
from k8s.answers import Expired
from k8s.api import Api
from k8s.watching import SENDERS
from policy.naming import sender_name
from tests.cluster.conftest import until
from tests.cluster.controlling import Field, furnished
from tests.control_plane.plane import ControlPlane
from tests.control_plane.rest import Rest
from tests.k8s.builders import control
from tests.streams.test_sender_process import MESSAGES, SETTINGS, Journey, on

pytestmark = pytest.mark.kafka

TRIED = 25
"""So often the controller tries to isolate in vain: with at most two seconds between tries that takes a minute."""


@pytest.fixture
async def journey(kafka: EmbeddedKafka, unique: str, tmp_path: Path) -> AsyncIterator[Journey]:
    async with on(kafka, unique, tmp_path) as one:
        yield one


@pytest.fixture
async def field(own_plane: ControlPlane, rest: Rest, namespace: str, journey: Journey) -> Field:
    """An installation whose senders are those of this checkout."""
    one = await furnished(own_plane, rest, namespace)
    one.image = "mailcordon:0.1.0"
    variables = {
        "MAILCORDON_KAFKA": journey.world.bootstrap,
        "MAILCORDON_OUTBOUND_PARTITIONS": str(SETTINGS.outbound_partitions),
        "MAILCORDON_SMTP_ROUTES": f"*=127.0.0.1:{journey.server.port}",
        "MAILCORDON_HOSTNAME": "me.example",
    }
    keys = json.dumps({"key_id": "1", "address": "aa" * 32, "return_path": "bb" * 32})
    base = f"/api/v1/namespaces/{namespace}"
    (await rest.merge(f"{base}/configmaps/{one.site.config}", {"data": variables})).wanted()
    (await rest.merge(f"{base}/secrets/{one.site.secret}", {"stringData": {"secrets.json": keys}})).wanted()
    return one


async def test_the_sender_stops_without_kubernetes_and_the_objects_follow(
    field: Field, journey: Journey, own_plane: ControlPlane
) -> None:
    campaign = journey.world.campaign
    name = sender_name(campaign)
    await journey.prepare(in_doubt="hold")
    await journey.control(may_send=True, per_second=50)
    field.truth.say(control("healthy", name=campaign, epoch=1))
    async with field.controller() as one:

        async def at_work() -> bool:
            return len(journey.server.taken) >= 50

        await until(at_work, what="the sender is at work")
        await asyncio.to_thread(own_plane.stop_api)

        await journey.control(may_send=False)
        field.truth.say(control("isolated", name=campaign, epoch=2, reason="a trap was hit"))
        one.wake(campaign)
        had, took_s = await quiet(journey)
        assert had < MESSAGES
        tried = ("mailcordon_controller_reconciled_total", {"result": "temporary"})

        async def in_vain() -> bool:
            return (one.metrics.registry.get_sample_value(*tried) or 0) >= TRIED

        await until(in_vain, what="the controller has tried all the time", within_s=180)
        assert len(journey.server.taken) == had, "nothing was sent while nobody could reach its objects"

        await asyncio.to_thread(own_plane.start_api)

        async def isolated() -> bool:
            told = await field.get("Campaign", name)
            conditions = {one["type"]: one["status"] for one in told["status"]["conditions"]}
            return told["spec"]["decision"]["epoch"] == 2 and conditions["Isolated"] == "True"

        # the controllers of Kubernetes itself look again after half a minute at most, twice that with their jitter
        await until(isolated, what="isolated in Kubernetes, too", within_s=180)

    deployment, policy = await field.get("Deployment", name), await field.get("NetworkPolicy", name)
    assert (deployment["spec"]["replicas"], policy["spec"].get("egress", [])) == (0, [])
    assert deployment["metadata"]["annotations"][labels.REASON] == "a trap was hit"
    assert await field.pods() == []
    assert len(journey.server.taken) == had
    print(f"the last message was taken {took_s * 1000:.0f} ms after the decision")


async def quiet(journey: Journey) -> tuple[int, float]:
    """How many messages were taken until no more came for 40 looks, and how long after the call the last one was."""
    began = time.monotonic()
    had, since, still = len(journey.server.taken), 0.0, 0
    while still < 40:
        await asyncio.sleep(0.05)
        now = len(journey.server.taken)
        since, still = (since, still + 1) if now == had else (time.monotonic() - began, 0)
        had = now
    return had, since


async def test_a_version_that_the_api_server_has_forgotten_is_told_apart(field: Field) -> None:
    cluster = await field.cluster()
    edge: Api = cluster._api
    with pytest.raises(Expired):
        async for _ in edge.watch("Deployment", SENDERS, "1"):
            pass
    await cluster.close()


async def test_a_frozen_api_server_holds_up_nothing_for_longer_than_it_is_frozen(
    field: Field, own_plane: ControlPlane
) -> None:
    field.image = "pause:1"
    field.decide("healthy")
    async with field.controller() as one:
        await field.is_open()
        own_plane.freeze_api()
        field.decide("isolated")
        one.wake("spring-sale")
        tried = ("mailcordon_controller_reconciled_total", {"result": "temporary"})
        try:
            await until(
                lambda: asyncio.sleep(0, one.metrics.registry.get_sample_value(*tried)), what="a call was given up"
            )
        finally:
            own_plane.thaw_api()
        await field.is_isolated()
