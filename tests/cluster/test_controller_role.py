"""`mailcordon controller --backend kubernetes` as people run it: Kafka on one side, a real API server on the other."""

import asyncio
import functools
import json
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from cli.kafka import EmbeddedKafka
from policy.naming import sender_name
from policy.settings import Settings
from schemas.base import Record
from schemas.codec import decode, encode
from schemas.reputation import Brake
from schemas.sending import Campaign
from schemas.topics import BRAKES, CAMPAIGNS, COMMANDS, CONTROL
from streams.topics import create
from tests.cluster.conftest import Given, until
from tests.cluster.controlling import Field, furnished
from tests.control_plane.plane import ControlPlane
from tests.control_plane.rest import Rest
from tests.k8s.builders import control

pytestmark = pytest.mark.kafka

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def field(plane: ControlPlane | Given, rest: Rest, namespace: str) -> Field:
    return await furnished(plane, rest, namespace)


@pytest.fixture
async def producer(kafka: EmbeddedKafka) -> AsyncIterator[AIOKafkaProducer]:
    await create(kafka.bootstrap, Settings())
    one = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, acks="all")
    await one.start()
    yield one
    await one.stop()


@pytest.fixture
async def controller(
    field: Field, kafka: EmbeddedKafka, producer: AIOKafkaProducer, tmp_path: Path
) -> AsyncIterator[str]:
    """The role as a process, ready; where its pages are."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        web = f"127.0.0.1:{free.getsockname()[1]}"
    log = tmp_path / "controller.log"
    options = ["--backend=kubernetes", f"--namespace={field.namespace}", f"--image={field.image}"]
    command = [sys.executable, "-m", "cli", "controller", f"--kafka={kafka.bootstrap}", f"--controller-web={web}"]
    environment = os.environ | {
        "KUBECONFIG": str(field.plane.kubeconfig("controller")),
        "MAILCORDON_DATA": str(tmp_path),
    }
    with log.open("wb") as said:
        process = await asyncio.create_subprocess_exec(
            *command, *options, cwd=ROOT, env=environment, stdout=said, stderr=said
        )
    try:

        async def ready() -> bool:
            assert process.returncode is None, log.read_text()[-3000:]
            return (await page(web, "readyz"))[0] == 200

        await until(ready, what=f"the controller is ready; {log}", within_s=120)
        yield web
    finally:
        process.terminate()
        async with asyncio.timeout(30):
            assert await process.wait() == 0, log.read_text()[-3000:]


async def page(web: str, name: str) -> tuple[int, str]:
    try:
        limit = aiohttp.ClientTimeout(total=5)
        async with aiohttp.ClientSession(timeout=limit) as http, http.get(f"http://{web}/{name}") as got:
            return got.status, await got.text()
    except (aiohttp.ClientError, TimeoutError):
        return 0, ""


async def publish(producer: AIOKafkaProducer, topic: str, key: str, record: Record) -> None:
    await producer.send_and_wait(topic, encode(record), key=key.encode())


async def read(kafka: EmbeddedKafka, topic: str, key: str, wanted: Callable[[bytes], bool] = lambda _: True) -> bytes:
    """The first record with this key that is as wanted."""
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        async with asyncio.timeout(60):
            async for record in consumer:
                if record.key == key.encode() and record.value is not None and wanted(record.value):
                    return bytes(record.value)
    finally:
        await consumer.stop()
    raise AssertionError("the loop ends by time or by the record")


async def test_a_campaign_made_with_kubectl_is_registered_judged_and_shown(
    field: Field, controller: str, kafka: EmbeddedKafka, producer: AIOKafkaProducer, unique: str
) -> None:
    made = {
        "apiVersion": "mailcordon.dev/v1alpha1",
        "kind": "Campaign",
        "metadata": {"name": "mine", "namespace": field.namespace},
        "spec": {
            "campaign": unique,
            "from": {"address": "news@shop.example"},
            "returnPathDomain": "bounces.shop.example",
            "maxAgeSeconds": 3600,
        },
    }
    field.plane.run_kubectl("apply", "--filename=-", stdin=json.dumps(made))

    registered = decode(Campaign, await read(kafka, CAMPAIGNS, unique))
    assert isinstance(registered, Campaign)
    assert (registered.from_.address, registered.max_age_s) == ("news@shop.example", 3600)
    asked = json.loads(await read(kafka, COMMANDS, f"campaign:{unique}"))
    assert (asked["command"], asked["campaign"]) == ("review", unique)

    now = time.time_ns() // 1_000_000
    await publish(producer, CONTROL, unique, control("healthy", name=unique, epoch=1, at=now))
    await told(field, "mine", Ready="True", Isolated="False", AutomationPaused="False")
    assert await field.get("Campaign", sender_name(unique)) is None, "one resource for a campaign"
    assert (await field.get("Deployment", sender_name(unique)))["spec"]["replicas"] == 1

    brake = Brake(brake="automation", on=True, reason="a drill", by="operator:kim", at=now)
    await publish(producer, BRAKES, "automation", brake)
    await told(field, "mine", AutomationPaused="True")
    await publish(producer, BRAKES, "automation", Brake(brake="automation", on=False, reason="", by="", at=now))

    await publish(producer, CONTROL, unique, control("isolated", name=unique, epoch=2, at=now))
    await told(field, "mine", Ready="False", Isolated="True", AutomationPaused="False")
    events = await field.events(of="mine")  # the broker is everybody's: campaigns of other tests are shown here, too
    assert [reason for reason, _ in events] == ["Healthy", "Isolated"]

    status, metrics = await page(controller, "metrics")
    assert status == 200
    assert 'mailcordon_controller_api_calls_total{code="200",kind="Deployment",verb="patch"}' in metrics
    assert json.loads((await page(controller, "readyz"))[1]) == {"ready": True, "lacks": [], "notes": []}


async def test_a_campaign_of_kubectl_is_changed_by_its_maker_and_nonsense_is_told_where_he_looks(
    field: Field, controller: str, kafka: EmbeddedKafka, producer: AIOKafkaProducer, unique: str
) -> None:
    example = (ROOT / "deploy/kubernetes/campaign.yaml").read_text(encoding="utf-8")
    kubectl = functools.partial(field.plane.run_kubectl, f"--namespace={field.namespace}")

    def apply(name: str, campaign: str, old: str = "", new: str = "") -> None:
        named = example.replace("name: autumn", f"name: {name}").replace("campaign: autumn", f"campaign: {campaign}")
        assert old in named
        kubectl("apply", "--filename=-", stdin=named.replace(old, new))

    apply("mine", unique)
    await read(kafka, CAMPAIGNS, unique)
    now = time.time_ns() // 1_000_000
    await publish(producer, CONTROL, unique, control("healthy", name=unique, epoch=1, at=now))
    await told(field, "mine", Ready="True")

    apply("mine", unique, "maxAgeSeconds: 86400", "maxAgeSeconds: 7200")
    changed = decode(Campaign, await read(kafka, CAMPAIGNS, unique, lambda value: b":7200" in value))
    assert isinstance(changed, Campaign)
    assert (changed.tenant, changed.max_age_s) == ("shop", 7200)

    apply("second", unique, "perSecond: 20", "perSecond: 50")
    apply("odd", f"{unique}-odd", "news@shop.example", "news@-shop.example")
    await told(field, "second", Ready="False")
    await told(field, "odd", Ready="False")
    assert [await refusal(field, name) for name in ("second", "odd")] == ["DuplicateCampaign", "Invalid"]

    kubectl("delete", "campaign", "second", "mine")
    await told(field, sender_name(unique), Ready="True")
    projected = (await field.get("Campaign", sender_name(unique)))["spec"]
    assert (projected["origin"], projected["maxAgeSeconds"], projected["pace"]["perSecond"]) == ("Topic", 7200, 20)

    apply("mine", unique, "perSecond: 20", "perSecond: 50")
    await told(field, "mine", Ready="False")
    assert await refusal(field, "mine") == "OwnedByTopic"


async def refusal(field: Field, name: str) -> str:
    [ready] = (await field.get("Campaign", name))["status"]["conditions"]
    return str(ready["reason"])


async def told(field: Field, name: str, **wanted: str) -> None:
    seen: list[Any] = []

    async def says() -> bool:
        told = (await field.get("Campaign", name) or {}).get("status", {}).get("conditions", ())
        seen.append({one["type"]: one["status"] for one in told})
        return bool(wanted.items() <= seen[-1].items())

    try:
        await until(says, what=str(wanted))
    except AssertionError as missed:
        raise AssertionError(f"{missed}; last seen: {seen[-1:]}") from missed
