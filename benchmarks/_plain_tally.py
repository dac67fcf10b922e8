"""Tally and judge as one would write them with Faust as it comes: one record per result, a stock tumbling table.

The baseline of ``streams.py``.  Each result adds one to the vector of its campaign's minute; when a campaign's bounces
in that minute exceed a fixed share, a decision is published, once.  That is much less than our judge does (no windows
beyond a minute, no rates topic, no sequential test, no providers or addresses), so the comparison errs to its favour.
"""

import time

import faust
from faust.types import StreamT
from faust.types.models import FieldDescriptorT

from benchmarks._plain_options import OPTIONS, PARTITIONS

APP = "plain-tally"
RESULTS = "plain.results"
DECISIONS = "plain.decisions"
CHANGELOG = f"{APP}-panes-changelog"

ACCEPTED, BOUNCED, DEFERRED, OTHER = range(4)
LIMIT, ENOUGH = 0.05, 5
_COLUMNS = {"accepted": ACCEPTED, "bounced": BOUNCED, "deferred": DEFERRED}


class Result(faust.Record, validation=True, serializer="json"):
    """What became of one attempt; ``at`` is in seconds."""

    campaign: str
    message_id: str
    outcome: str
    at: float
    attempt: int
    provider: str
    ip: str
    mx: str
    code: int
    enhanced: str
    text: str
    tls: str
    took_ms: int
    category: str | None = None


class Decision(faust.Record, serializer="json"):
    """A campaign that is to stop."""

    campaign: str
    at: int
    bounced: int
    attempts: int
    reason: str


app = faust.App(APP, **OPTIONS)
results = app.topic(RESULTS, key_type=str, value_type=Result, partitions=PARTITIONS)
decisions = app.topic(DECISIONS, key_type=str, value_type=Decision, partitions=PARTITIONS)
sent_at: FieldDescriptorT[float] = Result.at  # type: ignore[assignment]  # on the class it is the field's descriptor
panes = (
    app.Table("panes", default=lambda: [0, 0, 0, 0], partitions=PARTITIONS)
    .tumbling(60.0, expires=3600.0)
    .relative_to_field(sent_at)
)
stopped = app.Table("stopped", partitions=PARTITIONS)


@app.agent(results)
async def tally(stream: StreamT[Result]) -> None:
    """One result after the other."""
    async for result in stream:
        pane = panes[result.campaign]
        counts = added(pane.value(), result.outcome)
        panes[result.campaign] = counts
        if is_bad(counts) and result.campaign not in stopped:
            stopped[result.campaign] = True
            attempts = sum(counts)
            decision = Decision(
                campaign=result.campaign,
                at=int(time.time() * 1000),
                bounced=counts[BOUNCED],
                attempts=attempts,
                reason=f"{counts[BOUNCED]} of {attempts} messages of a minute bounced; the limit is {LIMIT:.0%}",
            )
            await decisions.send(key=result.campaign, value=decision)


def added(counts: list[int], outcome: str) -> list[int]:
    """The vector with one more result; the old one may not have been written yet."""
    counts = counts.copy()
    counts[column(outcome)] += 1
    return counts


def column(outcome: str) -> int:
    """Where an outcome counts."""
    return _COLUMNS.get(outcome, OTHER)


def is_bad(counts: list[int]) -> bool:
    """Has so much bounced that the campaign must stop?"""
    return counts[BOUNCED] >= ENOUGH and counts[BOUNCED] > LIMIT * sum(counts)
