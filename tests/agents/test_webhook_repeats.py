"""A webhook's event that is posted again to another process is published again, and counted once."""

import pytest

from agents.ports import now_ms
from schemas.topics import RATES
from streams.home import home
from tests.agents.doubles import campaign
from tests.agents.test_tally import PARTITIONS, Bench
from tests.smtp.mailroom import Kafka
from tests.smtp.test_webhooks import SG_BOUNCE, from_sendgrid, taking

NAME = "spring-sale"


@pytest.mark.parametrize("changes", [{}, {"sg_event_id": "e-2"}], ids=["the same event", "under another id"])
async def test_an_event_that_two_processes_were_told_counts_once(changes: dict[str, str]) -> None:
    now = now_ms()
    bench = Bench()
    bench.known.learn(campaign(NAME))
    told: list[Kafka] = []
    for event in (SG_BOUNCE, SG_BOUNCE | changes):
        told.append(Kafka())
        body, headers = from_sendgrid([event | {"timestamp": now // 1000}], at=now)
        async with taking(told[-1], now=lambda: now) as poster:
            assert (await poster.post("sendgrid", body, headers))[0] == 200
    published = [one for kafka in told for one in kafka.feedback]

    for offset, one in enumerate(published):
        await bench.feedback(one, offset=offset, partition=home(NAME, PARTITIONS))

    assert len(published) == 2  # neither process knows what the other was told
    snapshots = [one for one in bench.out.to(RATES) if one.scope == f"campaign:{NAME}"]
    assert snapshots[-1].windows["24h"].hard_bounce == 1
