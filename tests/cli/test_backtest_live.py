"""A backtest decides what the workers' own agents decide from the same records, with the same words and evidence."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from agents import judge as judging
from agents import tally as tallying
from agents.history import History
from agents.judge import Judge
from agents.reviews import Reviews
from agents.tally import Tally
from cli.backtest_input import Bad, Recording
from cli.backtest_limits import WhatIf
from cli.backtest_replay import Replay
from cli.backtest_run import first_campaigns, replayed
from policy.naming import campaign_scope
from policy.tokens import Keys
from schemas.base import Record
from schemas.codec import encode
from schemas.reputation import Command, Decision
from schemas.sending import Campaign, Limits
from schemas.topics import COMMANDS, CONTROL, DECISIONS, RATES
from streams.home import home
from streams.metrics import Metrics
from streams.suppressed import Suppressed
from tests.agents.doubles import Arrived, Knowledge, Outbox, Panes, campaign
from tests.cli.recordings import HOUR, MINUTE, PARTITIONS, T0, At, placed, story, written

SECOND, QUARTER = 1000, 250
KEYS = Keys(address=b"a" * 32, return_path=b"r" * 32)
SHARE, AT_LEAST = 1.0, 3


class Live:
    """The agents of a worker, with a clock that is moved by hand and topics that deliver at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = T0
        monkeypatch.setattr(tallying, "now_ms", lambda: self.now)
        monkeypatch.setattr(judging, "now_ms", lambda: self.now)
        self.known = Knowledge()
        self.out = Outbox()
        self.decisions: list[Decision] = []
        metrics = Metrics()
        self.tally = Tally(
            table=Panes(),
            known=self.known,
            history=History(Suppressed(), keys=KEYS, trap={}.get),
            outlet=self.out,
            metrics=metrics,
            partitions=PARTITIONS,
        )
        self.judge = Judge(
            standings={},
            known=self.known,
            outlet=self.out,
            metrics=metrics,
            partitions=PARTITIONS,
            isolate_share=SHARE,
            isolate_at_least=AT_LEAST,
        )
        self.reviews = Reviews(self.known, self.out)
        self._offsets: dict[str, int] = {}

    async def play(self, records: Sequence[At], until: int) -> list[Decision]:
        for one in records:
            await self.pass_time(one.at)
            await self.arrive(one)
        await self.pass_time(until)
        return self.decisions

    async def arrive(self, one: At) -> None:
        self.now = one.at
        message = Arrived(encode(one.record), topic=one.topic, partition=one.partition, offset=one.offset)
        match one.record:
            case Campaign() as found:
                self.known.learn(found)
                self.reviews.changed(found.campaign)
                await self.reviews.ask(self.now)
            case Command() as command:
                await self.out.publish(COMMANDS, command, key=command.scope)
            case _ if one.topic.endswith("results"):
                await self.tally.results(message)
            case _:
                await self.tally.feedback(message)
        await self.deliver()

    async def pass_time(self, to: int) -> None:
        """The timers of a worker, each at round times."""
        tick = (self.now // QUARTER + 1) * QUARTER
        while tick <= to:
            self.now = tick
            if self.tally.snapshots._late:
                await self.tally.snapshots.late(tick)
                await self.deliver()
            if tick % (5 * SECOND) == 0:
                await self.tally.snapshots.providers(tick)
                await self.deliver()
            if tick % MINUTE == 0:
                await self.tally.snapshots.moved(tick)
                await self.deliver()
            if tick % SECOND == 0:
                await self.reviews.ask(tick)
                await self.deliver()
            tick += QUARTER
        self.now = to

    async def deliver(self) -> None:
        while self.out.sent:
            sent = self.out.sent.pop(0)
            record: Record = sent.record
            match sent.topic:
                case _ if sent.topic == RATES:
                    if "/provider:" not in (sent.key or ""):
                        await self.judge.rates(self.message(sent.topic, record, sent.key or ""))
                case _ if sent.topic == COMMANDS:
                    await self.judge.commands(self.message(sent.topic, record, sent.key or ""))
                case _ if sent.topic == CONTROL:
                    self.known.controls[record.campaign] = record  # type: ignore[attr-defined]
                case _ if sent.topic == DECISIONS:
                    self.decisions.append(record)  # type: ignore[arg-type]

    def message(self, topic: str, record: Record, key: str) -> Arrived:
        offset = self._offsets[topic] = self._offsets.get(topic, -1) + 1
        return Arrived(encode(record), topic=topic, partition=home(key, PARTITIONS), offset=offset)


def backtested(file: Path, until: int) -> list[Decision]:
    with file.open("rb") as opened:
        recording = Recording(opened)
        bad = Bad()
        replay = Replay(first_campaigns(recording), what_if=WhatIf(), cap=(SHARE, AT_LEAST))
        replayed(recording, replay, bad, to=until)
    assert (recording.bad.count, bad.count) == (0, 0)
    return [decision for one in replay.tracked.values() for decision in one.decisions]


def by_campaign(decisions: Sequence[Decision]) -> dict[str, list[Decision]]:
    found: dict[str, list[Decision]] = {}
    for one in sorted(decisions, key=lambda one: (one.at, one.epoch)):
        found.setdefault(one.campaign, []).append(one)
    return found


CAMPAIGNS: dict[str, list[Campaign]] = {
    "as_they_come": [],
    "shadow_dry_and_fixed": [
        campaign("bouncing", shadow_limits=Limits(hard_bounce=0.005)),
        campaign("hated", dry_run=True),
        campaign("blocked", limits=Limits(judging="fixed", min_volume=200, block=0.02)),
    ],
}


@pytest.mark.parametrize("campaigns", CAMPAIGNS.values(), ids=CAMPAIGNS)
async def test_the_agents_and_a_backtest_decide_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, campaigns: list[Campaign]
) -> None:
    released = Command(
        id="c-1",
        scope=campaign_scope("hated"),
        campaign="hated",
        command="release",
        reason="cleaned",
        by="operator:eve",
        at=T0 + 220 * MINUTE,
    )
    changed = [(T0 + 1 + number, one) for number, one in enumerate(campaigns)]
    relabelled = (T0 + HOUR, campaign("well", labels={"a": "b"}))
    records = placed([*story(1), *changed, (released.at, released), relabelled])
    until = T0 + 7 * HOUR

    live = await Live(monkeypatch).play(records, until)

    here = by_campaign(backtested(written(tmp_path / "all.jsonl", records), until))
    assert here == by_campaign(live)
    assert {"watched", "throttled", "isolated"} <= {one.to for one in live}
    assert any("/provider:" in one.scope or "/shadow" in one.scope for one in live)
