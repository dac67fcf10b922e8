"""What several campaigns share is judged by its sum, and told to them as a ceiling."""

from typing import Any

import msgspec
import pytest

from agents.groups import Parts
from agents.judge import Judge
from agents.live import Live
from agents.ports import now_ms
from policy.auditing import Line, verified
from policy.counts import booked
from policy.sharing import AGAIN_MS, LASTS_MS, is_shared
from schemas.codec import encode
from schemas.delivery import DeliveryResult
from schemas.reputation import Brake, Command, Control, Counts, Decision, RatesSnapshot, State
from schemas.sending import Limits, Mailbox, Pace
from schemas.topics import AUDIT, COMMANDS, DECISIONS, RATES
from streams.home import home
from streams.metrics import Metrics
from tests.agents.doubles import Arrived, Knowledge, Outbox, campaign

PARTITIONS = 4
SHOP = "tenant:shop"
HOME = home(SHOP, PARTITIONS)
SLIGHTLY = Counts(accepted=391, hard_bounce=15, attempts=406)  # 3.7 % of 406: not a breach by itself
ALIKE = ("autumn", "spring", "winter")


def known(*names: str, **fields: Any) -> Knowledge:
    found = Knowledge()
    for name in names:
        found.learn(campaign(name, tenant="shop", **fields))
    return found


def windows(counts: Counts) -> dict[str, Counts]:
    return dict.fromkeys(("5m", "1h", "24h", "7d"), counts)


class Bench:
    def __init__(self, knowledge: Knowledge, standings: dict[str, Any] | None = None) -> None:
        self.out = Outbox()
        self.standings: dict[str, Any] = {} if standings is None else standings
        self.offset = -1
        self.judge = Judge(
            standings=self.standings, known=knowledge, outlet=self.out, metrics=Metrics(), partitions=PARTITIONS
        )

    async def part(
        self, counts: Counts, names: tuple[str, ...], *, of: int = 0, at: int | None = None, offset: int | None = None
    ) -> None:
        self.offset = self.offset + 1 if offset is None else offset
        snapshot = RatesSnapshot(
            scope=f"{SHOP}/partition:{of}", at=at or now_ms(), windows=windows(counts), campaigns=list(names)
        )
        arrived = Arrived(encode(snapshot), topic=RATES, offset=self.offset, partition=HOME)
        await self.judge.rates(arrived)

    @property
    def ceilings(self) -> list[tuple[str, State | None]]:
        commands: list[Command] = self.out.to(COMMANDS)
        assert all(one.command == "ceiling" and one.source == SHOP for one in commands)
        return [(one.campaign, one.ceiling) for one in commands]

    @property
    def decisions(self) -> list[Decision]:
        return self.out.to(DECISIONS)


async def test_what_is_bad_only_together_throttles_all_that_share_it() -> None:
    bench = Bench(known(*ALIKE))
    await bench.part(SLIGHTLY, ("spring",), of=0)
    assert bench.decisions == []
    await bench.part(SLIGHTLY, ("autumn",), of=1)
    await bench.part(SLIGHTLY, ("winter",), of=2)
    assert [(one.scope, one.to) for one in bench.decisions] == [(SHOP, "watched"), (SHOP, "throttled")]
    decision = bench.decisions[-1]
    assert "45 of 1,218 messages bounced hard" in decision.reason
    assert bench.ceilings == [(name, "throttled") for name in ALIKE]


async def test_one_campaign_alone_answers_for_itself() -> None:
    bench = Bench(known("spring"))
    await bench.part(Counts(accepted=500, hard_bounce=500, attempts=1_000), ("spring",))
    assert bench.decisions == []
    assert bench.standings == {}


async def test_the_sum_never_isolates_anybody() -> None:
    bench = Bench(known(*ALIKE))
    await bench.part(Counts(accepted=500, hard_bounce=500, attempts=1_000), ALIKE)
    [decision] = bench.decisions
    assert (decision.to, decision.evidence["wanted"]) == ("throttled", "isolated")


async def test_a_campaign_that_comes_later_is_told_too_and_nobody_twice() -> None:
    bench = Bench(known(*ALIKE))
    await bench.part(Counts(accepted=940, hard_bounce=60, attempts=1_000), ("autumn", "spring"))
    await bench.part(Counts(accepted=940, hard_bounce=60, attempts=1_000), ALIKE)
    assert bench.ceilings == [("autumn", "throttled"), ("spring", "throttled"), ("winter", "throttled")]


async def test_the_same_part_again_is_told_again_and_judged_once() -> None:
    bench = Bench(known(*ALIKE))
    await bench.part(Counts(accepted=940, hard_bounce=60, attempts=1_000), ALIKE)
    first = [encode(one) for one in bench.out.to(COMMANDS)]
    again = Bench(known(*ALIKE), bench.standings)
    await again.part(Counts(accepted=940, hard_bounce=60, attempts=1_000), ALIKE, offset=0)
    assert [encode(one) for one in again.out.to(COMMANDS)] == first
    assert again.decisions == bench.decisions


async def test_a_part_that_nobody_tells_any_more_counts_no_more() -> None:
    bench = Bench(known(*ALIKE))
    now = now_ms()
    bad, good = Counts(accepted=900, hard_bounce=100, attempts=1_000), Counts(accepted=100, attempts=100)
    await bench.part(bad, ("spring",), of=0, at=now - LASTS_MS - 1)
    await bench.part(good, ("autumn", "winter"), of=1)
    assert bench.decisions == []
    await bench.part(bad, ("spring",), of=0)
    assert [one.to for one in bench.decisions] == ["throttled"]


async def test_a_sum_is_judged_by_the_loosest_limits_of_its_campaigns() -> None:
    knowledge = known("spring", "autumn")
    knowledge.learn(campaign("winter", tenant="shop", limits=Limits(hard_bounce=0.2)))
    bench = Bench(knowledge)
    await bench.part(Counts(accepted=900, hard_bounce=100, attempts=1_000), ALIKE)
    assert bench.decisions == []


async def test_a_campaign_that_was_deleted_is_told_nothing_any_more() -> None:
    knowledge = known(*ALIKE)
    bench = Bench(knowledge)
    del knowledge.campaigns["winter"]
    await bench.part(Counts(accepted=940, hard_bounce=60, attempts=1_000), ALIKE)
    assert bench.ceilings == [("autumn", "throttled"), ("spring", "throttled")]


async def test_while_the_automation_is_stopped_a_sum_stops_nobody() -> None:
    knowledge = known(*ALIKE)
    knowledge.brakes["automation"] = Brake(brake="automation", on=True, reason="look", by="operator:eve", at=1)
    bench = Bench(knowledge)
    await bench.part(Counts(accepted=940, hard_bounce=60, attempts=1_000), ALIKE)
    assert [one.dry_run for one in bench.decisions] == [True]
    assert bench.ceilings == []


@pytest.mark.parametrize(
    ("scope", "shared"),
    [
        ("tenant:shop/partition:3", True),
        ("ip:192.0.2.1/partition:0", True),
        ("domain:shop.example/partition:0", True),
        ("ip:192.0.2.1/provider:google/partition:0", False),
        ("campaign:tenant:shop/partition:3", False),
        ("tenant:shop", False),
    ],
)
def test_which_scopes_are_parts(scope: str, shared: bool) -> None:
    assert is_shared(scope) is shared


# -- the counting side


def live(*outcomes: str, ip: str = "192.0.2.1", at: int) -> Live:
    made = Live()
    results = [
        DeliveryResult(
            message_id=f"m-{number}",
            outcome=outcome,  # type: ignore[arg-type]
            at=at,
            provider="google",
            ip=ip,
            class_="invalid_recipient" if outcome == "bounced" else None,
        )
        for number, outcome in enumerate(outcomes)
    ]
    for minute, cells in booked(results).items():
        made.add(minute, cells, ())
    return made


def told(state: State, system: State | None = None) -> Control:
    return Control(
        campaign="c", epoch=2, may_send=False, pace=Pace(), state=state, reason="so", at=1, system=system or state
    )


class Counting:
    def __init__(self, **campaigns: Live) -> None:
        self.out = Outbox()
        self.known = known(*campaigns)
        self.parts = Parts(campaigns, known=self.known, outlet=self.out, partitions=PARTITIONS)

    def newest(self) -> dict[str, RatesSnapshot]:
        return {one.scope.partition("/partition:")[0]: one for one in self.out.to(RATES)}


async def test_tenant_domain_and_address_are_told_with_those_they_are_made_of() -> None:
    now = now_ms()
    counting = Counting(spring=live("accepted", "bounced", at=now))
    await counting.parts.publish(now)
    found = counting.newest()
    assert set(found) == {SHOP, "domain:shop.example", "ip:192.0.2.1"}
    assert {tuple(one.campaigns) for one in found.values()} == {("spring",)}
    assert (found[SHOP].windows["24h"].accepted, found[SHOP].windows["24h"].hard_bounce) == (1, 1)
    assert {key: partition for _, key, partition in placed(counting.out)} == {
        one.scope: home(scope, PARTITIONS) for scope, one in found.items()
    }


def placed(out: Outbox) -> list[tuple[str, str | None, int | None]]:
    return [(one.topic, one.key, one.partition) for one in out.sent]


async def test_what_a_smaller_scope_answers_for_is_left_out_but_a_ceiling_does_not_hide_it() -> None:
    now = now_ms()
    same = home("spring", PARTITIONS)
    names = [name for name in (f"c-{number}" for number in range(40)) if home(name, PARTITIONS) == same][:3]
    counting = Counting(**{name: live("accepted", at=now) for name in names})
    counting.known.controls[names[0]] = told("isolated")
    counting.known.controls[names[1]] = told("throttled", system="healthy")
    await counting.parts.publish(now)
    assert counting.newest()[SHOP].campaigns == sorted(names[1:])
    assert counting.newest()[SHOP].windows["24h"].accepted == 2


async def test_what_has_not_moved_is_told_once_a_minute() -> None:
    now = now_ms() // 60_000 * 60_000
    counting = Counting(spring=live("accepted", at=now))
    for later in (0, 10_000, 20_000):
        await counting.parts.publish(now + later)
    assert len([one for one in counting.out.to(RATES) if one.scope.startswith(SHOP)]) == 1
    await counting.parts.publish(now + AGAIN_MS)
    assert len([one for one in counting.out.to(RATES) if one.scope.startswith(SHOP)]) == 2


async def test_campaigns_without_a_tenant_of_their_own_are_no_group() -> None:
    now = now_ms()
    counting = Counting(spring=live("accepted", at=now))
    counting.known.campaigns["spring"] = msgspec.structs.replace(
        counting.known.campaigns["spring"], tenant="default", from_=Mailbox(address="a@Other.Example")
    )
    await counting.parts.publish(now)
    assert set(counting.newest()) == {"domain:other.example", "ip:192.0.2.1"}


async def test_decisions_about_what_is_shared_are_audited_and_told_again_after_a_crash() -> None:
    bench = Bench(known(*ALIKE))
    bad = Counts(accepted=940, hard_bounce=60, attempts=1_000)
    await bench.part(bad, ALIKE)

    restarted = Bench(known(*ALIKE), msgspec.json.decode(msgspec.json.encode(bench.standings)))
    await restarted.part(bad, ALIKE, offset=0)

    first, again = ([value for topic, value, _, _ in one.out.forwarded if topic == AUDIT] for one in (bench, restarted))
    assert verified([Line(raw, "") for raw in first]).wrong == []
    assert msgspec.json.decode(first[0])["what"] == "begun"
    assert [msgspec.json.decode(raw)["decision"]["epoch"] for raw in first[1:]] == [
        one.epoch for one in bench.decisions
    ]
    assert [msgspec.json.decode(raw)["scope"] for raw in first] == [SHOP] * len(first)
    assert again == first
    assert restarted.decisions == bench.decisions
