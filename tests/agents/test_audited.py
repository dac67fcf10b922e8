"""What the judge writes into the audit log, and that it continues it through whatever happens."""

from typing import Any

import msgspec
import pytest

from agents import judge as module
from agents.ports import now_ms
from policy.auditing import Line, Verified, sealer, verified
from policy.tokens import Keys
from schemas.audit import AuditEntry
from schemas.codec import decode, encode
from schemas.reputation import Control
from schemas.sending import Pace
from schemas.topics import AUDIT, RATES
from tests.agents.doubles import Arrived, campaign
from tests.agents.test_judge import HOME, SCOPE, TRAPPED, Bench, Standings, command, snapshot

KEYS = Keys(address=b"a" * 32, return_path=b"r" * 32)


def lines(*benches: Bench) -> list[bytes]:
    return [value for bench in benches for topic, value, _, _ in bench.out.forwarded if topic == AUDIT]


def entries(*benches: Bench) -> list[dict[str, Any]]:
    return [msgspec.json.decode(one) for one in lines(*benches)]


def look(found: list[bytes], **fields: Any) -> Verified:
    return verified([Line(raw, f"@{number}") for number, raw in enumerate(found)], **fields)


async def test_each_decision_and_command_is_an_entry_that_follows_the_one_before() -> None:
    bench = Bench()

    await bench.rates(snapshot(), 3)
    await bench.rates(snapshot(**TRAPPED), 4)
    await bench.command(command("release", 1), 0)
    await bench.command(command("release", 1), 1)  # the same again: refused
    await bench.command(command("retire", 2), 2)

    found = entries(bench)
    assert [one["what"] for one in found] == ["begun", "decision", "command", "refused", "command"]
    assert [one["seq"] for one in found] == [1, 2, 3, 4, 5]
    assert [one["decision"]["by"] for one in found[1:]] == ["policy", *["operator:eve"] * 3]
    assert [(one["cause"]["topic"], one["cause"]["offset"]) for one in found[1:3]] == [
        ("mail.reputation.rates", 4),
        ("mail.commands", 0),
    ]
    assert found[1]["decision"]["evidence"]["counts"]["trap_hit_pristine"] == 1
    done = look(lines(bench), epochs={SCOPE: bench.controls[-1].epoch})
    assert (done.wrong, done.chains[0].entries) == ([], 5)
    assert {key for _, _, key, _ in bench.out.forwarded} == {SCOPE}


async def test_what_is_told_again_after_a_crash_is_the_same_bytes() -> None:
    bench = Bench()
    events = [snapshot(), snapshot(**TRAPPED)]
    for offset, one in enumerate(events):
        await bench.rates(one, offset)
    await bench.command(command("release"), 0)

    stored = msgspec.json.decode(msgspec.json.encode(bench.standings))  # as the changelog gives it back
    restarted = Bench(Standings(stored))
    for offset, one in enumerate(events):
        await restarted.rates(one, offset)
    await restarted.command(command("release"), 0)
    await restarted.command(command("isolate", 2), 1)

    assert lines(restarted)[:3] == lines(bench)
    done = look(lines(bench, restarted))
    assert (done.wrong, done.chains[0].entries) == ([], 4)


async def test_nothing_is_said_of_a_decision_before_the_table_has_it() -> None:
    """A crash in between would have it judged again, at another time, and entry 2 would be there in two versions."""
    bench = Bench()
    await bench.rates(snapshot(), 0)
    assert bench.out.settled_after == []

    await bench.rates(snapshot(**TRAPPED), 1)

    assert bench.out.settled_after == [1]
    assert len(lines(bench)) == 2


async def test_the_first_entry_is_the_same_bytes_when_its_event_is_judged_once_more() -> None:
    first, second = Bench(), Bench()
    for bench, now in ((first, 1), (second, 2)):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(module, "now_ms", lambda now=now: now)
            rates = encode(snapshot(at=1_764_000_000_000))
            await bench.judge.rates(Arrived(rates, topic=RATES, partition=HOME, timestamp=1_764_000_000.25))

    assert lines(first) == lines(second)
    assert entries(first)[0]["at"] == 1_764_000_000_250


async def test_entries_go_out_in_their_order_whichever_event_comes_again_first() -> None:
    bench = Bench()
    await bench.rates(snapshot(), 0)
    await bench.rates(snapshot(**TRAPPED), 1)
    await bench.command(command("release"), 0)

    restarted = Bench(Standings(bench.standings))  # killed before anything was told: the log is empty
    await restarted.command(command("release"), 0)
    await restarted.rates(snapshot(**TRAPPED), 1)
    await restarted.command(command("isolate", 2), 1)

    assert lines(restarted)[:3] == lines(bench)
    done = look(lines(restarted))
    assert (done.wrong, done.chains[0].entries) == ([], 4)
    assert [one.epoch for one in restarted.decisions] == [3, 2, 4]


async def test_after_many_decisions_the_newest_are_told_again() -> None:
    bench = Bench()
    await bench.rates(snapshot(), 0)
    given = [command("isolate" if number % 2 else "release", number) for number in range(1, 21)]
    for offset, one in enumerate(given):
        await bench.command(one, offset)

    restarted = Bench(Standings(bench.standings))
    for offset, one in enumerate(given):
        await restarted.command(one, offset)

    assert lines(restarted) == lines(bench)[-len(lines(restarted)) :]
    assert 8 <= len(lines(restarted)) <= 10


async def test_the_log_of_a_scope_that_an_older_version_knew_begins_where_it_stands() -> None:
    bench = Bench()
    await bench.rates(snapshot(), 0)
    await bench.command(command("isolate"), 0)
    offsets, standing, kept, _head = bench.standings[SCOPE]
    older = Standings({SCOPE: [offsets, standing, [one[:3] for one in kept if one[2]["rule"] != "begun"]]})

    upgraded = Bench(older)
    await upgraded.command(command("isolate"), 0)  # its decision is told again, and has no entry
    await upgraded.command(command("release", 2), 1)

    found = entries(upgraded)
    assert [(one["what"], one["decision"]["to"], one["decision"]["epoch"]) for one in found] == [
        ("begun", "isolated", 2),
        ("command", "healthy", 3),
    ]
    assert [one.epoch for one in upgraded.decisions] == [2, 3]
    assert look(lines(upgraded), epochs={SCOPE: 3}).wrong == []


async def test_a_table_that_was_lost_shows() -> None:
    bench = Bench()
    await bench.rates(snapshot(), 0)
    await bench.command(command("isolate"), 0)

    lost = Bench()
    lost.known.controls["spring"] = Control(
        campaign="spring", epoch=2, may_send=False, pace=Pace(), state="isolated", reason="an operator", at=now_ms()
    )
    await lost.command(command("release", 2), 0)

    assert [one.fault for one in look(lines(bench, lost)).wrong] == ["doubled", "doubled"]


async def test_entries_are_sealed_with_the_keys_of_the_installation() -> None:
    bench = Bench(seal=sealer(KEYS))
    await bench.rates(snapshot(), 0)
    await bench.rates(snapshot(**TRAPPED), 1)

    assert look(lines(bench), seal=sealer(KEYS)).wrong == []
    others = sealer(Keys(address=b"a" * 32, return_path=b"x" * 32))
    assert [one.fault for one in look(lines(bench), seal=others).wrong] == ["seal", "seal"]


@pytest.mark.parametrize("dry_run", [False, True])
async def test_entries_are_records_of_their_topic(dry_run: bool) -> None:
    bench = Bench()
    bench.known.learn(campaign(dry_run=dry_run))
    await bench.rates(snapshot(**TRAPPED), 0)

    read = [decode(AuditEntry, one) for one in lines(bench)]
    assert [one.what for one in read if isinstance(one, AuditEntry)] == ["begun", "decision"]
    assert [one.decision.dry_run for one in read if isinstance(one, AuditEntry)][1] is dry_run
