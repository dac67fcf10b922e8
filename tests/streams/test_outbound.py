import pytest

from cli.kafka import EmbeddedKafka
from policy.naming import ledger_topic, outbound_topic
from policy.settings import Settings
from streams.admin import TopicRefused, admin
from streams.outbound import OutboundTopics
from streams.topics import create_for_campaigns, delete_for_campaign

pytestmark = pytest.mark.kafka


async def test_a_topic_has_the_partitions_that_it_has_and_is_asked_for_once(kafka: EmbeddedKafka, unique: str) -> None:
    await create_for_campaigns(kafka.bootstrap, [unique], Settings(outbound_partitions=3))
    topics = OutboundTopics(kafka.bootstrap, Settings())

    assert await topics.partitions(unique) == 3
    await delete_for_campaign(kafka.bootstrap, unique)
    assert await topics.partitions(unique) == 3


async def test_a_missing_topic_is_made_with_its_ledger(kafka: EmbeddedKafka, unique: str) -> None:
    assert await OutboundTopics(kafka.bootstrap, Settings(outbound_partitions=2)).partitions(unique) == 2

    async with admin(kafka.bootstrap, within_s=10) as edge:
        there = await edge.partitions([outbound_topic(unique), ledger_topic(unique)])
    assert there == {outbound_topic(unique): 2, ledger_topic(unique): 2}
    await delete_for_campaign(kafka.bootstrap, unique)


async def test_a_topic_that_the_broker_refuses_to_make_is_refused(kafka: EmbeddedKafka, unique: str) -> None:
    with pytest.raises(TopicRefused):
        await OutboundTopics(kafka.bootstrap, Settings(replication=3)).partitions(unique)
