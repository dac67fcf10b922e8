"""The sender of this checkout as a pod: Kubernetes starts it, ends it by scaling to 0, and starts it again."""

import dataclasses
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cli.kafka import EmbeddedKafka
from k8s.cluster import SourceAddress
from k8s.kubernetes import KubernetesCluster
from k8s.patches import Site
from smtp.return_path import ReturnPath
from tests.cluster.conftest import until
from tests.control_plane.plane import ControlPlane
from tests.control_plane.rest import Rest
from tests.k8s.builders import control, spec
from tests.smtp.mailroom import Kafka, counted, running
from tests.streams.test_sender_process import MESSAGES, SETTINGS, Journey, copies, on

pytestmark = pytest.mark.kafka


@pytest.fixture
async def journey(kafka: EmbeddedKafka, unique: str, tmp_path: Path) -> AsyncIterator[Journey]:
    async with on(kafka, unique, tmp_path) as one:
        yield one


@pytest.fixture
async def senders(
    own_plane: ControlPlane, rest: Rest, namespace: str, journey: Journey
) -> AsyncIterator[KubernetesCluster]:
    """Where senders run, furnished as an installation is."""
    site = Site(namespace=namespace)
    variables = {
        "MAILCORDON_KAFKA": journey.world.bootstrap,
        "MAILCORDON_OUTBOUND_PARTITIONS": str(SETTINGS.outbound_partitions),
        "MAILCORDON_SMTP_ROUTES": f"*=127.0.0.1:{journey.server.port}",
        "MAILCORDON_HOSTNAME": "me.example",
    }
    keys = json.dumps({"key_id": "1", "address": "aa" * 32, "return_path": "bb" * 32})
    base = f"/api/v1/namespaces/{namespace}"
    (await rest.create(f"{base}/configmaps", {"metadata": {"name": site.config}, "data": variables})).wanted()
    secret = {"metadata": {"name": site.secret}, "stringData": {"secrets.json": keys}}
    (await rest.create(f"{base}/secrets", secret)).wanted()
    cluster = await KubernetesCluster.connect(site, kubeconfig=str(own_plane.kubeconfig()))
    yield cluster
    await cluster.close()


async def test_an_isolation_ends_a_sender_at_work_and_a_release_goes_on_where_it_stopped(
    senders: KubernetesCluster, journey: Journey, rest: Rest
) -> None:
    one = spec(journey.world.campaign)
    await journey.prepare(in_doubt="hold")
    await journey.control(may_send=True, per_second=250)

    await senders.ensure(one, control(name=one.campaign))
    await until(lambda: sent(journey, 100), what="the sender is at work")

    async def closed() -> bool:
        await senders.isolate(one, control("isolated", name=one.campaign, epoch=2))
        status = await senders.read(one)
        return status is not None and status.running == 0 and not status.egress_open

    await until(closed, what="its pod has ended and nothing can leave")
    had = len(journey.server.taken)
    assert had < MESSAGES

    await senders.release(one, control("watched", name=one.campaign, epoch=3))
    outcomes = await journey.stage.has_outcomes(MESSAGES, within_s=60)

    assert set(outcomes.values()) == {"accepted"}
    assert set(copies(journey.server).values()) == {1}


async def sent(journey: Journey, count: int) -> bool:
    return len(journey.server.taken) >= count


async def test_a_sender_is_ready_when_it_says_so(
    senders: KubernetesCluster, journey: Journey, rest: Rest, namespace: str
) -> None:
    one = spec(journey.world.campaign)
    await journey.prepare(in_doubt="hold")
    await journey.control(may_send=True, per_second=1)

    await senders.ensure(one, control(name=one.campaign))

    async def ready() -> bool:
        deployment = (await rest.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/{one.name}")).wanted()
        return bool(deployment["status"].get("readyReplicas", 0) == 1)

    await until(ready, what="its probe on the metrics port has succeeded")


async def test_a_sender_takes_no_mail_before_the_return_path_has_seen_it_come_from_its_address(
    senders: KubernetesCluster, journey: Journey, rest: Rest, namespace: str
) -> None:
    await journey.prepare(in_doubt="hold")
    await journey.control(may_send=True, per_second=250)
    one = spec(journey.world.campaign)
    async with running(Kafka()) as return_path:
        own = {"MAILCORDON_EGRESS_SEEN_BY": str(return_path.endpoint), "MAILCORDON_EGRESS_CHECK": "off"}
        config = {"metadata": {"name": one.name}, "data": own}
        (await rest.create(f"/api/v1/namespaces/{namespace}/configmaps", config)).wanted()

        await senders.ensure(dataclasses.replace(one, source=SourceAddress("192.0.2.7")), control(name=one.campaign))
        await until(lambda: asked(return_path, 2), what="the sender has asked twice")
        status = await senders.read(one)
        assert status is not None
        assert (status.ready, status.leaves_from, journey.server.taken) == (0, frozenset(), [])

        await senders.ensure(dataclasses.replace(one, source=SourceAddress("127.0.0.1")), control(name=one.campaign))
        await journey.stage.has_outcomes(MESSAGES, within_s=60)

        async def verified() -> bool:
            status = await senders.read(one)
            return status is not None and status.leaves_from == {"127.0.0.1"}

        await until(verified, what="a pod that is ready was told to send from the address")


async def asked(return_path: ReturnPath, times: int) -> bool:
    """Was EHLO answered so often?"""
    return counted(return_path, "replies_total", code="250") >= times
