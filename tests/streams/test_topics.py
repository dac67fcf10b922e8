import pytest
from aiokafka.errors import KafkaConnectionError

from cli.kafka import EmbeddedKafka
from policy.naming import ledger_topic, outbound_topic
from policy.settings import Settings
from schemas.topics import TOPICS
from streams.admin import BATCH, TopicRefused, admin
from streams.runtime.table import CHANGELOG_CONFIG
from streams.topics import (
    Planned,
    changelogs,
    create,
    create_for_campaigns,
    delete_for_campaign,
    of_campaign,
    shared,
)

SETTINGS = Settings()


@pytest.mark.kafka
async def test_creating_twice_changes_nothing(kafka: EmbeddedKafka, unique: str) -> None:
    first = await create(kafka.bootstrap, SETTINGS, app_id=unique)
    second = await create(kafka.bootstrap, SETTINGS, app_id=unique)

    assert {plan.name for plan in changelogs(SETTINGS, unique)} <= set(first.created)
    assert second.created == []
    assert set(second.kept) == set(first.created) | set(first.kept)
    assert second.differs == []


@pytest.mark.kafka
async def test_topics_have_the_settings_of_the_table(kafka: EmbeddedKafka, unique: str) -> None:
    await create(kafka.bootstrap, SETTINGS, app_id=unique)
    plans = shared(SETTINGS) + changelogs(SETTINGS, unique)

    async with admin(kafka.bootstrap, within_s=10) as edge:
        partitions = await edge.partitions([plan.name for plan in plans])
        configs = await edge.configs([plan.name for plan in plans])

    assert partitions == {plan.name: plan.partitions for plan in plans}
    for plan in plans:
        assert {name: configs[plan.name][name] for name in plan.config} == dict(plan.config)


@pytest.mark.kafka
async def test_what_differs_is_named_and_left_alone(kafka: EmbeddedKafka, unique: str) -> None:
    asked, other = Settings(outbound_partitions=3), Settings(outbound_partitions=2)
    strange = [Planned(plan.name, 2, 1, {**plan.config, "retention.ms": "1000"}) for plan in of_campaign(unique, other)]
    async with admin(kafka.bootstrap, within_s=10) as edge:
        await edge.create(strange)

    report = await create_for_campaigns(kafka.bootstrap, [unique], asked)

    assert report.created == []
    assert report.differs[:2] == [
        f"topic {outbound_topic(unique)} has 2 partitions, the settings ask for 3",
        f"topic {outbound_topic(unique)} has retention.ms=1000, mailcordon would set 1209600000",
    ]
    assert report.partitions == {outbound_topic(unique): 2, ledger_topic(unique): 2}
    await delete_for_campaign(kafka.bootstrap, unique)


@pytest.mark.kafka
async def test_more_campaigns_than_a_request_takes(kafka: EmbeddedKafka, unique: str) -> None:
    campaigns = [f"{unique}-{number}" for number in range(BATCH // 2 + 5)]
    settings = Settings(outbound_partitions=1)

    report = await create_for_campaigns(kafka.bootstrap, campaigns, settings)

    assert len(report.created) == 2 * len(campaigns) > BATCH
    async with admin(kafka.bootstrap, within_s=30) as edge:
        assert sorted(await edge.delete(report.created)) == sorted(report.created)


@pytest.mark.kafka
async def test_deleting_a_campaigns_topics_twice_is_harmless(kafka: EmbeddedKafka, unique: str) -> None:
    await create_for_campaigns(kafka.bootstrap, [unique], SETTINGS)

    deleted = await delete_for_campaign(kafka.bootstrap, unique)

    assert sorted(deleted) == sorted([outbound_topic(unique), ledger_topic(unique)])
    assert await delete_for_campaign(kafka.bootstrap, unique) == []


@pytest.mark.kafka
async def test_the_brokers_refusal_is_quoted(kafka: EmbeddedKafka, unique: str) -> None:
    with pytest.raises(TopicRefused, match=f"did not create topic {outbound_topic(unique)}: .*replicat"):
        await create_for_campaigns(kafka.bootstrap, [unique], Settings(replication=3))


async def test_a_broker_that_is_not_there_is_an_error_in_words() -> None:
    with pytest.raises(KafkaConnectionError, match=r"no Kafka answers at 127\.0\.0\.1:1; start it"):
        await create("127.0.0.1:1", SETTINGS, within_s=5)


def test_changelogs_are_made_as_the_runtime_would_make_them() -> None:
    for plan in changelogs(SETTINGS):
        assert plan.config.items() >= CHANGELOG_CONFIG.items()


def test_every_topic_of_the_table_is_planned() -> None:
    planned = {plan.name for plan in shared(SETTINGS)}

    assert planned == {topic.name for topic in TOPICS if not topic.per_campaign}


def test_three_copies_are_acknowledged_by_two_machines() -> None:
    plans = shared(Settings(replication=3)) + changelogs(Settings(replication=3))

    assert all(plan.config["min.insync.replicas"] == "2" for plan in plans)
