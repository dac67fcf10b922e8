"""A backtest decides what the workers' own agents decide from the same records, with the same words and evidence."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agents import groups as grouping
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
from schemas.reputation import Command, Decision, RatesSnapshot
from schemas.sending import Campaign, Limits, Mailbox
from schemas.topics import COMMANDS, CONTROL, DECISIONS, RATES
from streams.home import home
from streams.metrics import Metrics
from streams.suppressed import Suppressed
from tests.agents.doubles import Arrived, Knowledge, Outbox, Panes, campaign
from tests.cli.recordings import HOUR, MINUTE, PARTITIONS, T0, At, frame, placed, result, signal, story, written

SECOND, QUARTER = 1000, 250
KEYS = Keys(address=b"a" * 32, return_path=b"r" * 32)
SHARE, AT_LEAST = 1.0, 3
PIECES = 10
REVIEWED_MS = 20_000  # reviews every ten seconds may fall on other seconds than they did, and so may what follows


class Live:
    """The agents of a worker, with a clock that is moved by hand and topics that deliver at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = T0
        monkeypatch.setattr(tallying, "now_ms", lambda: self.now)
        monkeypatch.setattr(judging, "now_ms", lambda: self.now)
        monkeypatch.setattr(grouping, "now_ms", lambda: self.now)
        self.known = Knowledge()
        self.out = Outbox()
        self.decisions: list[Decision] = []
        self.decided: list[tuple[int, Decision]] = []
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
            if tick % (10 * SECOND) == 0:
                await self.tally.parts.publish(tick)
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
                    assert isinstance(record, RatesSnapshot)
                    self.known.rates[record.scope] = record
                    if "/provider:" not in (sent.key or ""):
                        await self.judge.rates(self.message(sent.topic, record, sent.key or "", sent.partition))
                case _ if sent.topic == COMMANDS:
                    await self.judge.commands(self.message(sent.topic, record, sent.key or ""))
                case _ if sent.topic == CONTROL:
                    self.known.controls[record.campaign] = record  # type: ignore[attr-defined]
                case _ if sent.topic == DECISIONS:
                    assert isinstance(record, Decision)
                    self.decisions.append(record)
                    self.decided.append((self.now, record))

    def message(self, topic: str, record: Record, key: str, partition: int | None = None) -> Arrived:
        place = home(key, PARTITIONS) if partition is None else partition
        offset = self._offsets[topic] = self._offsets.get(topic, -1) + 1
        return Arrived(encode(record), topic=topic, partition=place, offset=offset)


def backtested(file: Path, until: int, begin: int = 0) -> list[Decision]:
    with file.open("rb") as opened:
        recording = Recording(opened)
        bad = Bad()
        replay = Replay(first_campaigns(recording), what_if=WhatIf(), judged_from=begin, cap=(SHARE, AT_LEAST))
        replayed(recording, replay, bad, to=until)
    assert (recording.bad.count, bad.count) == (0, 0)
    decisions = [decision for one in replay.tracked.values() for decision in one.decisions]
    return decisions + [decision for one in replay.sharing.scopes.values() for decision in one.decisions]


def by_scope(decisions: Sequence[Decision]) -> dict[str, list[Decision]]:
    found: dict[str, list[Decision]] = {}
    for one in sorted(decisions, key=lambda one: (one.at, one.epoch)):
        found.setdefault(one.scope, []).append(one)
    return found


CAMPAIGNS: dict[str, list[Campaign]] = {
    "as_they_come": [],
    "shadow_dry_and_fixed": [
        campaign("bouncing", shadow_limits=Limits(hard_bounce=0.005)),
        campaign("hated", dry_run=True),
        campaign("blocked", limits=Limits(judging="fixed", min_volume=200, block=0.02)),
    ],
}


RELEASED = Command(
    id="c-1",
    scope=campaign_scope("hated"),
    campaign="hated",
    command="release",
    reason="cleaned",
    by="operator:eve",
    at=T0 + 220 * MINUTE,
)


@pytest.mark.parametrize("campaigns", CAMPAIGNS.values(), ids=CAMPAIGNS)
async def test_the_agents_and_a_backtest_decide_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, campaigns: list[Campaign]
) -> None:
    changed = [(T0 + 1 + number, one) for number, one in enumerate(campaigns)]
    relabelled = (T0 + HOUR, campaign("well", labels={"a": "b"}))
    records = placed([*story(1), *changed, (RELEASED.at, RELEASED), relabelled])
    until = T0 + 7 * HOUR

    live = await Live(monkeypatch).play(records, until)

    here = by_scope(backtested(written(tmp_path / "all.jsonl", records), until))
    assert here == by_scope(live)
    assert {"watched", "throttled", "isolated"} <= {one.to for one in live}
    assert any("/provider:" in one.scope or "/shadow" in one.scope for one in live)


def in_pieces(seed: int, *, minutes: int = 150) -> list[tuple[int, Record]]:
    """A bad list in pieces that are too small to show anything, and a neighbour that shares nothing with them."""
    chance = random.Random(seed)
    names = [f"piece-{number}" for number in range(PIECES)]
    mailbox = Mailbox(address="news@elsewhere.example")
    apart = msgspec.structs.replace(campaign("apart"), tenant="other", from_=mailbox)
    found: list[tuple[int, Record]] = [(T0, apart), *((T0, campaign(name)) for name in names)]
    for minute in range(minutes):
        at = T0 + minute * MINUTE
        for number, name in enumerate((*names, "apart")):
            if number % PIECES != minute % PIECES and name != "apart":
                continue
            is_bad = name != "apart" and 20 < minute < 80
            results = []
            for letter in range(12):
                bounces = chance.random() < (0.06 if is_bad else 0.002)
                sent = at + letter * SECOND
                message_id = f"{name}-{minute}-{letter}"
                outcome, category = ("bounced", "invalid_recipient") if bounces else ("accepted", None)
                one = result(message_id, sent, outcome, category)  # type: ignore[arg-type]  # one of the words
                results.append(msgspec.structs.replace(one, ip=f"192.0.2.{1 + number % 2 if name != 'apart' else 9}"))
            arrived = at + 20 * SECOND + chance.randrange(20_000)
            found.append((arrived, frame(name, results, ledger=minute)))
            said = signal(
                name, "complaint", at=arrived + MINUTE, sent_at=results[3].at, message_id=f"{name}-{minute}-3"
            )
            if chance.random() < 0.01:
                found.append((arrived + MINUTE, said))
    return found


async def test_what_campaigns_share_is_decided_the_same_and_touches_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = placed(in_pieces(3))
    until = T0 + 6 * HOUR

    live = await Live(monkeypatch).play(records, until)

    here = by_scope(backtested(written(tmp_path / "all.jsonl", records), until))
    assert here == by_scope(live)
    assert {"tenant:shop", "domain:shop.example"} <= here.keys()
    touched = {one.campaign for one in live if one.rule == "ceiling"}
    assert touched == {f"piece-{number}" for number in range(PIECES)}
    assert {one.to for one in live if one.scope == "tenant:shop"} >= {"watched", "throttled"}


def refused_at_one(seed: int, *, minutes: int = 120) -> list[tuple[int, Record]]:
    """Three campaigns of a tenant; the servers of one provider refuse half of the mail of one of them."""
    return refused({"refused": 0.5, "welcome": 0.0, "fine": 0.0}, seed, minutes, Limits())


def refused_everywhere(seed: int, *, minutes: int = 120) -> list[tuple[int, Record]]:
    """A provider refuses a share of everybody's mail, and more of one campaign's; all borrow from each other."""
    shares = {f"c-{number}": 0.12 for number in range(7)} | {"more": 0.6}
    return refused(shares, seed, minutes, Limits(prior_mails=200))


def refused(shares: Mapping[str, float], seed: int, minutes: int, limits: Limits) -> list[tuple[int, Record]]:
    """From the twentieth minute on Yahoo refuses these shares of the mail of these campaigns."""
    chance = random.Random(seed)
    found: list[tuple[int, Record]] = [(T0, campaign(name, limits=limits)) for name in shares]
    for minute in range(minutes):
        at = T0 + minute * MINUTE
        for name, share in shares.items():
            results = []
            for number in range(30):
                provider = ("google", "yahoo")[number % 2]
                is_refused = provider == "yahoo" and minute > 20 and chance.random() < share
                outcome, category = ("deferred", "reputation_ip") if is_refused else ("accepted", None)
                sent = at + number * SECOND
                one = result(f"{name}-{minute}-{number}", sent, outcome, category, provider)  # type: ignore[arg-type]  # one of the words
                results.append(one)
            found.append((at + 40 * SECOND + chance.randrange(10_000), frame(name, results, ledger=minute)))
    return found


async def test_a_provider_at_which_one_campaign_is_stopped_stops_nobody_else_live_nor_in_a_backtest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = placed(refused_at_one(2))
    until = T0 + 3 * HOUR

    live = await Live(monkeypatch).play(records, until)

    here = by_scope(backtested(written(tmp_path / "all.jsonl", records), until))
    assert here == by_scope(live)
    assert here.keys() == {"campaign:refused/provider:yahoo"}
    assert "paused" in {one.to for one in live}


async def test_campaigns_that_borrow_from_each_other_go_the_same_way_live_and_in_a_backtest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = placed(refused_everywhere(3))
    until = T0 + 3 * HOUR

    live = await Live(monkeypatch).play(records, until)

    here = backtested(written(tmp_path / "all.jsonl", records), until)
    assert course(here) == course(live)
    assert {one.campaign for one in live if one.scope.startswith("campaign:c-") and one.to == "paused"} == set()
    assert "paused" in {one.to for one in live if one.scope == "campaign:more/provider:yahoo"}
    assert any(one.evidence.get("prior") for one in live)


@pytest.mark.parametrize("seed", [1, 4])
@pytest.mark.parametrize("made", [story, in_pieces])
async def test_from_any_time_on_a_backtest_goes_on_as_it_really_went(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Any, seed: int
) -> None:
    commands = [(RELEASED.at, RELEASED)] if made is story else []
    records = placed([*made(seed), *commands])
    until = T0 + 7 * HOUR
    live = Live(monkeypatch)
    await live.play(records, until)
    for begin in (T0 + 75 * MINUTE, T0 + 100 * MINUTE, T0 + 230 * MINUTE):
        before = [(at, one) for at, one in live.decided if at < begin]
        known = [At(at, DECISIONS, 0, number, one) for number, (at, one) in enumerate(before)]

        here = backtested(written(tmp_path / f"{begin}.jsonl", [*records, *known]), until, begin)

        really = [one for at, one in live.decided if at >= begin]
        assert course(here) == course(really)
        assert all(
            abs(one.at - other.at) <= REVIEWED_MS for one, other in zip(*map(in_order, (here, really)), strict=True)
        )


def course(decisions: Sequence[Decision]) -> dict[str, list[tuple[str, str, str]]]:
    return {scope: [(one.from_, one.to, one.rule) for one in own] for scope, own in by_scope(decisions).items()}


def in_order(decisions: Sequence[Decision]) -> list[Decision]:
    return [one for _, own in sorted(by_scope(decisions).items()) for one in own]
