"""Our own admin step: make the topics as ``schemas.topics`` lists them, and say where a broker has them otherwise.

Nothing that exists is ever changed here: partitions cannot be taken back, and a broker's settings belong to its
operator.  What differs is named, a sentence each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from policy.naming import ledger_topic, outbound_topic
from policy.settings import Settings
from schemas.topics import BY_NAME, DAY_S, LEDGER, OUTBOUND, TOPICS, Topic
from streams.admin import Admin, Planned, admin

WORKER = "mailcordon.worker"  # the Faust app of the workers: consumer group, prefix of changelogs
PANES = "panes"  # counts per campaign and minute
STANDINGS = "standings"  # where each scope stands
PANES_KEPT_S = 9 * DAY_S  # the longest window is 7 days, and feedback may be late

_SEGMENT_MS = 3_600_000  # compaction works on closed segments only; a catalogue reads what it has not got to
_SEGMENT_BYTES = 67_108_864
_CHANGELOG: Mapping[str, str] = {  # as streams.runtime.table would set them; a test compares
    # well above the group's session: a frozen worker's late write stays visible beside the newer one, so that
    # recovery can choose the one that has applied more
    "min.compaction.lag.ms": "900000",
    "max.message.bytes": "8388608",
    "segment.ms": str(_SEGMENT_MS),
    "segment.bytes": "33554432",
    "min.cleanable.dirty.ratio": "0.2",
}
_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Report:
    """What was done: created and kept topics, and a sentence for each difference of a kept one."""

    created: list[str]
    kept: list[str]
    differs: list[str] = field(default_factory=list)
    partitions: dict[str, int] = field(default_factory=dict)


async def create(bootstrap: str, settings: Settings, *, app_id: str = WORKER, within_s: float = _WITHIN_S) -> Report:
    """Create the shared topics and the workers' changelogs that are missing; compare the others."""
    return await _create(bootstrap, shared(settings) + changelogs(settings, app_id), within_s)


async def create_for_campaigns(
    bootstrap: str, campaigns: Sequence[str], settings: Settings, *, within_s: float = _WITHIN_S
) -> Report:
    """Create the outbound and ledger topics of campaigns; do this before their records are published."""
    return await _create(bootstrap, [plan for one in campaigns for plan in of_campaign(one, settings)], within_s)


async def delete_for_campaign(bootstrap: str, campaign: str, *, within_s: float = _WITHIN_S) -> list[str]:
    """Delete a retired campaign's topics and all mail that waits in them; answers those that were there."""
    async with admin(bootstrap, within_s=within_s) as edge:
        return await edge.delete([outbound_topic(campaign), ledger_topic(campaign)])


def shared(settings: Settings) -> list[Planned]:
    """The topics that all campaigns share, in flow order."""
    return [_plan(topic, topic.name, settings.partitions, settings) for topic in TOPICS if not topic.per_campaign]


def of_campaign(campaign: str, settings: Settings) -> list[Planned]:
    """The topics of one campaign."""
    return [
        _plan(BY_NAME[OUTBOUND], outbound_topic(campaign), settings.outbound_partitions, settings),
        _plan(BY_NAME[LEDGER], ledger_topic(campaign), settings.outbound_partitions, settings),
    ]


def changelogs(settings: Settings, app_id: str = WORKER) -> list[Planned]:
    """The changelogs of the workers' tables, under the names that Faust gives them."""
    config = {**_CHANGELOG, **_durable(settings)}
    panes = config | {"cleanup.policy": "compact,delete", "retention.ms": str(PANES_KEPT_S * 1000)}
    standings = config | {"cleanup.policy": "compact", "retention.ms": "-1"}
    return [
        Planned(changelog(app_id, PANES), settings.partitions, settings.replication, panes),
        Planned(changelog(app_id, STANDINGS), settings.partitions, settings.replication, standings),
    ]


def changelog(app_id: str, table: str) -> str:
    """The name of a table's changelog, as Faust makes it."""
    return f"{app_id}-{table}-changelog"


def _plan(topic: Topic, name: str, partitions: int, settings: Settings) -> Planned:
    config = {
        "cleanup.policy": topic.cleanup,
        "retention.ms": "-1" if topic.retention_s is None else str(topic.retention_s * 1000),
        "max.message.bytes": str(topic.max_bytes),
        **_durable(settings),
    }
    if "compact" in topic.cleanup or topic.name == LEDGER:  # what is deleted frees its place by whole segments
        config |= {"segment.ms": str(_SEGMENT_MS), "segment.bytes": str(_SEGMENT_BYTES)}
    return Planned(name, partitions, settings.replication, config)


def _durable(settings: Settings) -> dict[str, str]:
    """With three copies or more an acknowledged record is on two machines at least."""
    return {"min.insync.replicas": "2"} if settings.replication >= 3 else {}


async def _create(bootstrap: str, plans: Sequence[Planned], within_s: float) -> Report:
    names = [plan.name for plan in plans]
    async with admin(bootstrap, within_s=within_s) as edge:
        there = await edge.partitions(names)
        created = await edge.create([plan for plan in plans if plan.name not in there])
        kept = [plan for plan in plans if plan.name not in created]
        there |= await edge.partitions([name for name in names if name not in there])
        return Report(created, [plan.name for plan in kept], await _differences(edge, kept, there), there)


async def _differences(edge: Admin, plans: Sequence[Planned], there: Mapping[str, int]) -> list[str]:
    found = []
    in_force = await edge.configs([plan.name for plan in plans])
    for plan in plans:
        if there[plan.name] != plan.partitions:
            found.append(f"topic {plan.name} has {there[plan.name]} partitions, the settings ask for {plan.partitions}")
        for name, wanted in plan.config.items():
            has = in_force[plan.name].get(name, "")
            if _normal(has) != _normal(wanted):
                found.append(f"topic {plan.name} has {name}={has}, mailcordon would set {wanted}")
    return found


def _normal(value: str) -> str:
    return ",".join(sorted(part.strip() for part in value.split(",")))
