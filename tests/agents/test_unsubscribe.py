"""From a mail to a click to a sender that refuses: real Kafka, a real worker and sender, SMTP and HTTPS on loopback."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cli.access import producer
from cli.return_path_role import _Publish, unsubscribe_web
from cli.sender_role import run_sender
from policy.naming import outbound_topic
from policy.settings import Endpoint, Settings
from policy.tokens import Keys, address_hash
from schemas.reputation import Control
from schemas.sending import OutboundFrame, OutboundMessage, Pace
from schemas.topics import CAMPAIGNS, CONTROL, REFUSED, REQUESTS, RESULTS, SUPPRESSIONS
from smtp.known import Known
from smtp.return_path import ReturnPath
from smtp.returned import Context
from streams.catalogue import Catalogue
from tests.agents.doubles import campaign, content
from tests.agents.plant import Plant, Worker
from tests.agents.test_worker import ann, asked
from tests.smtp.mailroom import read_here
from tests.smtp.servers import Script, scripted, until

pytestmark = pytest.mark.kafka

KEYS = Keys(address=b"a" * 32, return_path=b"r" * 32)
ADDRESS = "m-1@example.org"  # of ann("m-1")


@asynccontextmanager
async def sender(plant: Plant, name: str, server: Script) -> AsyncIterator[None]:
    ending = asyncio.Event()
    settings = Settings(
        smtp_routes={"*": server.endpoint}, sender_web=Endpoint("127.0.0.1", 0), hostname="me.example", grace_s=5
    )

    async def told() -> None:
        await ending.wait()

    running = asyncio.create_task(
        run_sender(
            settings,
            name,
            KEYS,
            bootstrap=plant.bootstrap,
            dkim_folder=Path("/nonexistent"),
            name="s",
            session_s=6.0,
            end=told,
        )
    )
    try:
        yield
    finally:
        ending.set()
        await asyncio.wait_for(running, 30)


@asynccontextmanager
async def links(plant: Plant, out: Any) -> AsyncIterator[int]:
    """The server of unsubscribe links, joined as the role joins it; its port."""
    settings = Settings(unsubscribe_web=Endpoint("127.0.0.1", 0), unsubscribe_plain_http=True)
    catalogue = Catalogue(plant.bootstrap, (CAMPAIGNS,), client_id="links")
    await catalogue.start()
    context = Context(keys=KEYS, known=Known(catalogue.campaigns), provider_of=lambda _: "other")
    publish = _Publish(out)
    listener = ReturnPath(
        Endpoint("127.0.0.1", 0), context=context, understand=read_here, publish=publish, hostname="mx.example"
    )
    web = unsubscribe_web(settings, listener, context, catalogue.campaigns, publish)
    assert web is not None
    await web.start()
    try:
        yield web.endpoint.port
    finally:
        await web.stop()
        await catalogue.stop()


async def post(url: str) -> int:
    async with aiohttp.ClientSession() as http, http.post(url, data={"List-Unsubscribe": "One-Click"}) as answer:
        return answer.status


async def test_one_click_on_the_link_of_a_mail_makes_worker_and_sender_refuse_the_next_within_seconds(
    plant: Plant, worker: Worker, unique: str
) -> None:
    await plant.register(campaign(unique, tenant=unique, unsubscribe_url="https://u.shop.example/u"), content(unique))
    control = Control(
        campaign=unique,
        epoch=1_000,
        may_send=True,
        pace=Pace(connections=2),
        state="healthy",
        reason="the test says so",
        at=1,
    )
    await plant.publish((CONTROL, unique, control))
    async with (
        scripted(Script()) as server,
        sender(plant, unique, server),
        producer(plant.bootstrap) as out,
        links(plant, out) as port,
    ):
        await plant.publish((REQUESTS, "r-1", asked(unique, "r-1", ann("m-1"), {**ann("m-2"), "message_id": "m-2"})))
        await until(lambda: len(server.taken) == 2, within_s=30)
        mail = next(one.data for one in server.taken if ADDRESS.encode() in one.recipient)
        found = re.search(rb"List-Unsubscribe: <https://u\.shop\.example(/u/[\w-]+)>", mail)
        assert found, mail
        path = found[1].decode()

        assert await post(f"http://127.0.0.1:{port}{path[:-4]}AAAA") == 404
        assert await post(f"http://127.0.0.1:{port}{path}") == 200
        suppressions = await plant.read(
            SUPPRESSIONS, lambda found: len(found) >= 1, lambda one: one.scope.endswith(unique)
        )
        assert [(one.address_hash, one.scope, one.reason) for one in suppressions] == [
            (address_hash(KEYS, ADDRESS), f"tenant:{unique}", "unsubscribe")
        ]

        await plant.publish((REQUESTS, "r-2", asked(unique, "r-2", {**ann("m-1"), "message_id": "m-3"})))
        refused = await plant.read(REFUSED, lambda found: len(found) >= 1, lambda one: one.campaign == unique)
        assert [(one.message_id, one.reason) for one in refused] == [("m-3", "suppressed")]

        past_the_worker = OutboundFrame(
            campaign=unique,
            request_id="r-3",
            content="hello",
            admitted_at=time.time_ns() // 1_000_000,
            messages=[
                OutboundMessage(
                    message_id="m-4", address=ADDRESS, address_hash=address_hash(KEYS, ADDRESS), vars={"name": "Ann"}
                )
            ],
        )
        await plant.publish((outbound_topic(unique), None, past_the_worker), partition=0)
        frames = await plant.read(
            RESULTS,
            lambda found: any(result.message_id == "m-4" for frame in found for result in frame.results),
            lambda one: one.campaign == unique,
        )
        outcomes = {result.message_id: result.outcome for frame in frames for result in frame.results}
        assert outcomes == {"m-1": "accepted", "m-2": "accepted", "m-4": "suppressed"}
    assert len(server.taken) == 2
