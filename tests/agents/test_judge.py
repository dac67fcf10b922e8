from typing import Any

import msgspec
import pytest

from agents import judge as module
from agents.judge import Judge
from agents.ports import now_ms
from agents.reviews import AGAIN_MS, Reviews
from policy.auditing import Seal
from policy.naming import campaign_scope
from schemas.base import Record
from schemas.codec import encode
from schemas.reputation import Brake, Command, CommandName, Control, Counts, Decision, Narrowed, RatesSnapshot
from schemas.sending import Pace
from schemas.topics import COMMANDS, CONTROL, DEAD_LETTERS, DECISIONS, RATES
from streams.home import home
from streams.metrics import Metrics
from tests.agents.doubles import Arrived, Knowledge, Outbox, campaign

PARTITIONS = 4
SCOPE = campaign_scope("spring")
HOME = home(SCOPE, PARTITIONS)


class Standings(dict[str, Any]):
    """The table, with the rule of the real one: offsets never go back."""

    def __setitem__(self, key: str, value: Any) -> None:
        assert key not in self or all(new >= old for new, old in zip(value[0], self[key][0], strict=True))
        super().__setitem__(key, value)


class Bench:
    def __init__(
        self, standings: Standings | None = None, known: Knowledge | None = None, seal: Seal | None = None
    ) -> None:
        self.out = Outbox()
        self.standings = Standings() if standings is None else standings
        self.known = known or Knowledge()
        if known is None:
            self.known.learn(campaign())
        self.metrics = Metrics()
        self.judge = Judge(
            standings=self.standings,
            known=self.known,
            outlet=self.out,
            metrics=self.metrics,
            partitions=PARTITIONS,
            seal=seal,
        )

    async def rates(self, snapshot: Record | bytes, offset: int, partition: int = HOME) -> None:
        await self.judge.rates(arrived(snapshot, RATES, offset, partition))

    async def command(self, command: Record | bytes, offset: int, partition: int = HOME) -> None:
        await self.judge.commands(arrived(command, COMMANDS, offset, partition))

    @property
    def decisions(self) -> list[Decision]:
        return self.out.to(DECISIONS)

    @property
    def controls(self) -> list[Control]:
        return self.out.to(CONTROL)


def arrived(value: Record | bytes, topic: str, offset: int, partition: int) -> Arrived:
    raw = value if isinstance(value, bytes) else encode(value)
    return Arrived(raw, topic=topic, offset=offset, partition=partition)


def snapshot(at: int | None = None, **counts: int) -> RatesSnapshot:
    found = Counts(**{"accepted": 1000, "attempts": 1000, **counts})
    return RatesSnapshot(scope=SCOPE, at=at or now_ms(), windows=dict.fromkeys(("5m", "1h", "24h", "7d"), found))


TRAPPED = {"trap_hit": 1, "trap_hit_pristine": 1}


def command(kind: CommandName, number: int = 1, **fields: Any) -> Command:
    given = {
        "scope": SCOPE,
        "campaign": "spring",
        "reason": "because",
        "by": "operator:eve",
        "at": now_ms() + number,
        "at_once": kind == "release",
    }
    return Command(id=f"c-{number}", command=kind, **{**given, **fields})


async def test_the_first_look_gives_the_sender_its_control() -> None:
    bench = Bench()

    await bench.rates(snapshot(), 0)

    (control,) = bench.controls
    assert (control.epoch, control.may_send, control.state) == (1, True, "healthy")
    assert bench.decisions == []


async def test_a_pristine_trap_isolates() -> None:
    bench = Bench()

    await bench.rates(snapshot(), 0)
    await bench.rates(snapshot(**TRAPPED), 1)

    (decision,) = bench.decisions
    assert (decision.from_, decision.to, decision.epoch, decision.scope) == ("healthy", "isolated", 2, SCOPE)
    assert bench.controls[-1].may_send is False
    assert bench.controls[-1].epoch == 2
    assert bench.controls[-1].reason == decision.reason


async def test_rates_that_change_nothing_are_not_written() -> None:
    bench = Bench()
    await bench.rates(snapshot(), 0)
    before = dict(bench.standings)

    await bench.rates(snapshot(), 1)

    assert dict(bench.standings) == before
    assert len(bench.controls) == 1


async def test_an_event_that_comes_again_is_told_again_and_decided_once() -> None:
    bench = Bench()
    events = [snapshot(), snapshot(**TRAPPED), snapshot(**TRAPPED)]
    for offset, one in enumerate(events):
        await bench.rates(one, offset)
    (decision,) = bench.decisions

    restarted = Bench(Standings(bench.standings))  # nothing of it may have reached its topics
    for offset, one in enumerate(events):
        await restarted.rates(one, offset)

    assert restarted.decisions == [decision]
    assert {control.epoch for control in restarted.controls} == {2}
    assert restarted.standings == bench.standings


async def test_a_release_that_comes_again_does_not_wake_who_was_isolated_since() -> None:
    bench = Bench()
    await bench.rates(snapshot(**TRAPPED), 0)
    await bench.command(command("release"), 0)
    await bench.command(command("isolate", 2), 1)
    assert [one.to for one in bench.decisions] == ["isolated", "healthy", "isolated"]

    restarted = Bench(Standings(bench.standings))
    await restarted.command(command("release"), 0)

    assert [one.to for one in restarted.decisions] == ["healthy"]  # the old decision, of its old epoch
    assert restarted.decisions[0].epoch < restarted.controls[-1].epoch
    assert restarted.controls[-1].may_send is False


async def test_epochs_only_grow() -> None:
    bench = Bench()
    await bench.rates(snapshot(), 0)
    for offset, kind in enumerate(("isolate", "release", "isolate", "release", "retire")):
        await bench.command(command(kind, offset), offset)  # type: ignore[arg-type]

    epochs = [control.epoch for control in bench.controls]
    assert epochs == sorted(epochs)
    assert [one.epoch for one in bench.decisions] == [2, 3, 4, 5, 6]


async def test_a_command_is_answered_by_a_decision_with_its_id() -> None:
    bench = Bench()

    await bench.command(command("isolate"), 0)

    (decision,) = bench.decisions
    assert (decision.command_id, decision.by, decision.to) == ("c-1", "operator:eve", "isolated")


async def test_a_command_that_is_refused_is_answered_too() -> None:
    bench = Bench()

    await bench.command(command("release"), 0)
    await bench.command(command("release"), 0)  # read again

    assert [(one.command_id, one.rule, one.from_, one.to) for one in bench.decisions] == [
        ("c-1", "refused", "healthy", "healthy")
    ] * 2
    assert "nothing to release" in bench.decisions[0].reason


async def test_a_review_tells_the_control_again_with_its_epoch_and_its_date() -> None:
    bench = Bench()
    await bench.command(command("isolate"), 0)

    for offset in (1, 2):
        await bench.command(command("review", offset + 1, by="policy"), offset)

    assert len(bench.decisions) == 1
    assert bench.controls[1] == bench.controls[2] == bench.controls[0]


async def test_a_changed_pace_reaches_the_sender_by_a_review() -> None:
    bench = Bench()
    await bench.rates(snapshot(), 0)
    bench.known.learn(campaign(pace=Pace(per_second=5.0)))

    await bench.command(command("review", by="policy"), 0)

    assert bench.controls[-1].pace.per_second == 5.0
    assert bench.controls[-1].epoch == 1


async def test_without_the_table_what_senders_were_told_stays_in_force() -> None:
    bench = Bench()
    bench.known.controls["spring"] = Control(
        campaign="spring", epoch=41, may_send=False, pace=Pace(), state="isolated", reason="a trap", at=5
    )

    await bench.rates(snapshot(), 0)
    await bench.command(command("release"), 0)

    assert [(one.epoch, one.may_send) for one in bench.controls] == [(41, False), (42, True)]
    assert bench.controls[0].reason == "a trap"


async def test_scopes_within_a_campaign_move_no_control() -> None:
    bench = Bench()
    counts = {"24h": Counts(accepted=10, trap_hit=1, trap_hit_pristine=1)}

    for scope in (f"{SCOPE}/provider:google", "ip:192.0.2.1/provider:google/partition:0", "campaign:stranger"):
        await bench.rates(RatesSnapshot(scope=scope, at=now_ms(), windows=counts), 0)

    assert bench.out.sent == []


async def test_a_tombstone_of_rates_is_nothing_to_judge() -> None:
    bench = Bench()

    await bench.judge.rates(Arrived(None, topic=RATES, partition=HOME))

    assert bench.out.sent == []


async def test_a_command_for_a_stranger_is_set_aside_after_a_look() -> None:
    bench = Bench(known=Knowledge())

    await bench.command(command("isolate"), 0)

    assert bench.known.waits == 1
    assert [one.reason for one in bench.out.to(DEAD_LETTERS)] == ["unknown_campaign"]


@pytest.mark.parametrize("kind", ["ceiling", "review"])
async def test_our_own_word_about_a_campaign_that_was_deleted_is_dropped_and_counted(kind: CommandName) -> None:
    bench = Bench(known=Knowledge())

    await bench.command(command(kind, by="policy", ceiling="throttled", source="tenant:shop"), 0)

    assert bench.known.waits == 1
    assert bench.out.sent == []
    assert bench.standings == {}
    counted = bench.metrics.registry.get_sample_value(
        "mailcordon_commands_dropped_total", {"command": kind, "why": "campaign_deleted"}
    )
    assert counted == 1


@pytest.mark.parametrize("kind", ["ceiling", "review"])
async def test_what_somebody_else_says_about_a_stranger_in_our_words_is_kept(kind: CommandName) -> None:
    bench = Bench(known=Knowledge())

    await bench.command(command(kind), 0)

    assert [one.reason for one in bench.out.to(DEAD_LETTERS)] == ["unknown_campaign"]


async def test_control_under_a_ceiling_dates_from_when_it_began_to_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    began = now_ms()
    monkeypatch.setattr(module, "now_ms", lambda: began)
    lower = command("ceiling", by="policy", ceiling="throttled", source="tenant:shop", at=began)
    await bench.command(lower, 0)
    monkeypatch.setattr(module, "now_ms", lambda: began + 60_000)
    await bench.rates(snapshot(at=began + 60_000, accepted=382, hard_bounce=18, attempts=400), 0)  # watched by itself
    await bench.command(lower, 0)

    assert [one.to for one in bench.decisions][:2] == ["throttled", "watched"]
    assert {(one.state, one.at) for one in bench.controls} == {("throttled", began)}


async def test_a_campaign_that_arrives_while_we_wait_is_no_stranger() -> None:
    bench = Bench(known=Knowledge(arriving=[campaign()]))

    await bench.command(command("isolate"), 0)

    assert [one.to for one in bench.decisions] == ["isolated"]


@pytest.mark.parametrize(
    "raw",
    [b"{", b'{"v":1}', encode(command("isolate", scope="campaign:other"))],
    ids=["no JSON", "no fields", "another's scope"],
)
async def test_what_cannot_be_obeyed_is_kept(raw: bytes) -> None:
    bench = Bench()

    await bench.command(raw, 0)

    assert [one.topic for one in bench.out.to(DEAD_LETTERS)] == [COMMANDS]
    assert bench.decisions == []


async def test_a_record_in_a_strange_partition_is_sent_home() -> None:
    bench = Bench()

    await bench.command(command("isolate"), 0, partition=(HOME + 1) % PARTITIONS)

    assert [(topic, key) for topic, _, key, _ in bench.out.forwarded] == [(COMMANDS, SCOPE)]
    assert bench.standings == {}


async def test_our_own_failure_is_kept_and_the_next_event_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    with monkeypatch.context() as patched:
        patched.setattr(module, "judge", lambda *_, **__: 1 / 0)
        await bench.rates(snapshot(), 0)
    await bench.rates(snapshot(**TRAPPED), 1)

    assert [one.reason for one in bench.out.to(DEAD_LETTERS)] == ["agent_failed"]
    assert [one.to for one in bench.decisions] == ["isolated"]


async def test_a_provider_that_refuses_is_told_to_the_sender_with_an_epoch_of_its_own() -> None:
    bench = Bench()
    await bench.rates(snapshot(), 0)
    split = msgspec.structs.replace(
        snapshot(block=200, deferral=200),
        providers={"yahoo": dict.fromkeys(("5m", "1h", "24h", "7d"), Counts(block=200, attempts=200))},
    )
    await bench.rates(split, 1)
    assert [(one.scope, one.to, one.epoch) for one in bench.decisions] == [(f"{SCOPE}/provider:yahoo", "paused", 2)]
    newest = bench.controls[-1]
    assert (newest.epoch, newest.state, newest.may_send) == (2, "healthy", True)
    assert not newest.providers["yahoo"].may_send


async def test_with_the_brake_on_decisions_are_made_and_nothing_follows() -> None:
    bench = Bench()
    bench.known.brakes["automation"] = Brake(brake="automation", on=True, reason="so", by="ann", at=1)
    await bench.rates(snapshot(**TRAPPED), 0)
    assert [(one.to, one.dry_run) for one in bench.decisions] == [("isolated", True)]
    assert bench.controls[-1].may_send
    await bench.command(command("isolate"), 0)
    assert not bench.controls[-1].may_send, "an operator's word counts"


def isolated(name: str) -> Control:
    return Control(
        campaign=name, epoch=2, may_send=False, pace=Pace(), state="isolated", reason="a trap", at=now_ms() - 1000
    )


async def test_one_more_than_the_policy_may_isolate_within_an_hour_is_throttled_and_a_person_asked() -> None:
    bench = Bench()
    bench.known.controls |= {f"c-{number}": isolated(f"c-{number}") for number in range(3)}
    await bench.rates(snapshot(**TRAPPED), 0)
    [decision] = bench.decisions
    assert (decision.to, decision.evidence["wanted"]) == ("throttled", "isolated")
    assert "has isolated 3 of 3 campaigns within an hour" in decision.reason
    bench.known.controls.clear()
    await bench.rates(snapshot(**TRAPPED), 1)
    assert [one.to for one in bench.decisions] == ["throttled", "isolated"]


async def test_what_this_judge_has_isolated_itself_counts_before_the_catalogue_knows_it() -> None:
    bench = Bench()
    names = [f"x{number}" for number in range(200) if home(campaign_scope(f"x{number}"), PARTITIONS) == HOME][:4]
    for offset, name in enumerate(names):
        bench.known.learn(campaign(name))
        await bench.rates(msgspec.structs.replace(snapshot(**TRAPPED), scope=campaign_scope(name)), offset)
    assert [one.to for one in bench.decisions] == ["isolated", "isolated", "isolated", "throttled"]


def told(state: str, **fields: Any) -> Control:
    return Control(campaign="spring", epoch=1, may_send=True, pace=Pace(), state=state, reason="", at=1, **fields)  # type: ignore[arg-type]


YAHOO = {"yahoo": Narrowed(may_send=False, pace=Pace(), state="paused", reason="it refuses us")}


@pytest.mark.parametrize(
    ("control", "is_due"),
    [
        pytest.param(None, True, id="no control"),
        pytest.param(told("healthy"), False, id="healthy"),
        pytest.param(told("healthy", providers=YAHOO), True, id="healthy but at one provider"),
        pytest.param(told("throttled"), True, id="throttled"),
        pytest.param(told("isolated"), True, id="isolated"),
        pytest.param(told("retired"), False, id="retired"),
    ],
)
async def test_a_review_is_asked_for_who_may_have_sat_out_its_time(control: Control | None, is_due: bool) -> None:
    out, known = Outbox(), Knowledge()
    known.learn(campaign())
    if control is not None:
        known.controls["spring"] = control
    reviews = Reviews(known, out)

    first = await reviews.ask(AGAIN_MS)
    soon = await reviews.ask(AGAIN_MS + 1000)
    later = await reviews.ask(2 * AGAIN_MS)

    assert (first, soon, later) == ((["spring"], [], ["spring"]) if is_due else ([], [], []))
    assert all((one.command, one.scope) == ("review", SCOPE) for one in out.to(COMMANDS))


async def test_a_changed_campaign_is_reviewed_at_once_and_once() -> None:
    out, known = Outbox(), Knowledge()
    known.learn(campaign())
    known.controls["spring"] = told("healthy")
    reviews = Reviews(known, out)

    reviews.changed("spring")
    reviews.changed("gone")

    assert await reviews.ask(AGAIN_MS) == ["spring"]
    assert await reviews.ask(AGAIN_MS + 1000) == []
