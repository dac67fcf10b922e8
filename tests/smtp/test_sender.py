"""The sender on topics in memory: its whole contract, and what only doubles can do."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import msgspec
import pytest
from dns.resolver import Answer

from cli.kafka import free_ports
from policy.naming import ledger_topic, outbound_topic
from policy.settings import Endpoint, Proxy
from schemas.delivery import DeliveryFrame, DeliveryResult, LedgerEntry
from schemas.sending import OutboundMessage
from smtp.egress.outage import Outage
from smtp.egress.ways import Egress
from smtp.mx import Resolver
from smtp.opener import Opener
from smtp.sending.backlog import Held, Job, Lane
from smtp.sending.done import id_hash
from smtp.sending.memory import Memory
from smtp.sending.recorder import Recorder
from smtp.session import Timeouts
from tests.doubles.egress_proxies import Socks5, proxy
from tests.smtp.doubles import MemoryBroker, MemoryInbox, MemoryLedger, MemoryResults, MovedClock
from tests.smtp.sender_contract import SenderContract, Stage, names
from tests.smtp.servers import SILENCE, Script, scripted, until
from tests.smtp.zone import providers


class MemoryWorld:
    def __init__(self) -> None:
        self.campaign = "spring"
        self.broker = MemoryBroker()
        self.partitions = self.broker.partitions

    async def put(self, value: bytes, partition: int) -> None:
        self.broker.outbound[partition].append(value)

    async def results(self) -> Sequence[DeliveryFrame]:
        return list(self.broker.results)

    async def entries(self, partition: int) -> Sequence[tuple[int, LedgerEntry]]:
        return list(enumerate(self.broker.ledger[partition]))

    async def append(self, partition: int, entry: LedgerEntry) -> int:
        self.broker.ledger[partition].append(entry)
        return len(self.broker.ledger[partition]) - 1

    async def committed(self, partition: int) -> int:
        return self.broker.committed.get(partition, 0)

    async def dead_letters(self) -> Sequence[tuple[int, int]]:
        return self.broker.dead_letters

    @contextlib.asynccontextmanager
    async def edge(self, name: str) -> AsyncIterator[tuple[MemoryInbox, MemoryLedger, MemoryResults]]:
        del name
        yield (
            MemoryInbox(self.broker, outbound_topic(self.campaign)),
            MemoryLedger(self.broker, ledger_topic(self.campaign)),
            MemoryResults(self.broker),
        )


@pytest.fixture
def world() -> MemoryWorld:
    return MemoryWorld()


@pytest.fixture
def stage(world: MemoryWorld) -> Stage:
    return Stage(world)


class TestInMemory(SenderContract):
    """The contract on topics in memory."""


async def test_a_ledger_that_cannot_be_written_ends_the_sender_before_any_mail_from(
    stage: Stage, world: MemoryWorld
) -> None:
    stage.control()
    world.broker.ledger_is_broken = True
    async with scripted(Script()) as server:
        await stage.send(*names(20))
        async with stage.sender(server.endpoint) as running:
            await asyncio.wait([running.task], timeout=5)
            assert isinstance(running.task.exception(), ExceptionGroup)
            running.was_killed = True
    assert not [line for line in server.heard if line.startswith(b"MAIL")]


async def test_while_the_ledger_does_not_answer_nothing_is_sent(stage: Stage, world: MemoryWorld) -> None:
    stage.control()
    async with scripted(Script()) as server:
        await stage.send("ann")
        async with stage.sender(server.endpoint) as running:
            await stage.has_outcomes(1)
            world.broker.delay_s = 60.0
            await stage.send(*names(20))
            await until(lambda: running.sender._lanes.in_hand == 20)
            await asyncio.sleep(0.2)
            assert [line for line in server.heard if line.startswith(b"MAIL")][1:] == []
            await running.kill()


async def test_results_that_cannot_be_published_end_the_sender_and_are_published_by_the_next(
    stage: Stage, world: MemoryWorld
) -> None:
    stage.control()
    world.broker.results_are_broken = True
    async with scripted(Script()) as server:
        await stage.send(*names(20))
        async with stage.sender(server.endpoint, connections=20) as running:
            await asyncio.wait([running.task], timeout=5)
            assert isinstance(running.task.exception(), ExceptionGroup)
            running.was_killed = True
        assert await world.committed(0) == 0
        world.broker.results_are_broken = False
        async with stage.sender(server.endpoint):
            await stage.has_outcomes(20)
            await stage.is_committed(0, 1)
    assert len(server.taken) <= 20


async def test_at_most_two_messages_for_each_connection_are_in_doubt(stage: Stage, world: MemoryWorld) -> None:
    stage.control()
    world.broker.delay_s = 0.02
    most = 0

    def dot(_: bytes) -> bytes:
        nonlocal most
        intended = {name for entry in world.broker.ledger[0] for name in entry.intents}
        settled = {result.message_id for entry in world.broker.ledger[0] for result in entry.results}
        most = max(most, len(intended - settled))
        return b"250 ok\r\n"

    async with scripted(Script(dot=dot)) as server:
        await stage.send(*names(200))
        async with stage.sender(server.endpoint, connections=4):
            await stage.has_outcomes(200)
    assert 5 <= most <= 8


async def test_an_intent_is_safe_before_its_mail_from(stage: Stage, world: MemoryWorld) -> None:
    stage.control()
    world.broker.delay_s = 0.005
    unsafe = []

    def rcpt(line: bytes) -> bytes:
        name = line.partition(b"<")[2].partition(b"@")[0].decode()
        if not any(f"m-{name}" in entry.intents for entry in world.broker.ledger[0]):
            unsafe.append(name)
        return b"250 ok\r\n"

    async with scripted(Script(rcpt=rcpt)) as server:
        await stage.send(*names(100))
        async with stage.sender(server.endpoint):
            await stage.has_outcomes(100)
    assert unsafe == []


async def test_a_fenced_sender_begins_nothing_and_writes_nothing(stage: Stage, world: MemoryWorld) -> None:
    stage.control()
    async with scripted(Script(dot=SILENCE)) as server:
        await stage.send(*names(10))
        async with stage.sender(server.endpoint, connections=1, timeouts=Timeouts(dot_s=0.3)) as running:
            await until(lambda: len(server.taken) == 2)
            running.inbox.is_fenced = True
            await asyncio.sleep(0.5)
            entries = len(world.broker.ledger[0])
            await running.sender._lanes.revoked([0, 1])
            assert running.sender._lanes.in_hand == 0
            assert len(world.broker.ledger[0]) == entries
            running.inbox.is_fenced = False
            await running.sender._lanes.assigned([0, 1])
            await until(lambda: running.sender.is_ready)
    assert len(server.taken) == 2


async def test_one_domain_that_hangs_leaves_workers_for_the_others(stage: Stage) -> None:
    stage.control()
    script = Script(rcpt=lambda line: SILENCE if b"hangs" in line else b"250 ok\r\n")
    async with scripted(script) as server:
        await stage.send(*names(50), domain="hangs.example")
        await stage.send(*names(50, 100))
        async with stage.sender(server.endpoint, connections=8, grace_s=0.1, timeouts=Timeouts(command_s=30)):
            assert len(await stage.has_outcomes(50)) == 50


async def test_a_frame_of_results_holds_many_entries_and_the_position_of_the_last(
    stage: Stage, world: MemoryWorld
) -> None:
    stage.control()
    async with scripted(Script()) as server:
        await stage.send(*names(400))
        async with stage.sender(server.endpoint):
            await stage.has_outcomes(400)
    frames = [frame for frame in world.broker.results if frame.ledger and frame.ledger.partition == 0]
    offsets = [frame.ledger.offset for frame in frames if frame.ledger]
    assert offsets == sorted(set(offsets))
    written = [entry for entry in world.broker.ledger[0] if entry.results]
    assert len(frames) < len(written)
    assert [r.message_id for f in frames for r in f.results] == [r.message_id for e in written for r in e.results]
    assert max(len(frame.results) for frame in frames) <= 500


async def recording(world: MemoryWorld, ids: Sequence[str]) -> tuple[Recorder, Lane, list[Job]]:
    """A recorder of partition 0 that only has to be run, and jobs for it."""
    recorder = Recorder(
        campaign=world.campaign,
        sender="s-0",
        inbox=(inbox := MemoryInbox(world.broker, "t")),
        ledger=MemoryLedger(world.broker, "l"),
        results=MemoryResults(world.broker),
        clock=MovedClock(),
        on_recorded=lambda job, result: None,
    )
    inbox._next[0] = 0
    lane = Lane(0, "t", Memory())
    await recorder.open(lane, ())
    jobs = [
        Job(
            lane=lane,
            held=Held(0, len(ids)),
            message=OutboundMessage(message_id=name, address=f"{name}@example.com", address_hash="h"),
            content="hello",
            key=id_hash(name),
            domain="example.com",
            starts_at=0,
            expires_at=None,
        )
        for name in ids
    ]
    return recorder, lane, jobs


async def test_an_intent_waits_while_there_are_more_results_than_one_entry_holds(world: MemoryWorld) -> None:
    recorder, _, jobs = await recording(world, names(700))
    writing = asyncio.create_task(recorder.write())
    for job in jobs[1:]:
        recorder.settle(job, DeliveryResult(message_id=job.message_id, outcome="expired", at=1))
    await recorder.intend(jobs[0])
    writing.cancel()
    assert [(len(entry.results), entry.intents) for entry in world.broker.ledger[0]] == [(500, []), (199, ["n0000"])]


async def test_parked_messages_that_are_large_are_spread_over_entries(world: MemoryWorld) -> None:
    recorder, lane, jobs = await recording(world, names(4))
    writing = asyncio.create_task(recorder.write())
    for job in jobs:
        job.message = msgspec.structs.replace(job.message, vars={"story": "x" * 700_000})
        recorder.park(job, due=1)
    await recorder.drain([lane])
    writing.cancel()
    assert [len(entry.parked) for entry in world.broker.ledger[0]] == [2, 2]
    assert len(lane.memory.waiting) == 4


async def test_while_the_proxy_is_dead_nothing_counts_and_all_goes_out_when_it_is_back(stage: Stage) -> None:
    stage.control()
    [port] = free_ports(1)
    dead = Egress(proxy=Proxy("socks5", Endpoint("127.0.0.1", port)), allow_private=True)
    opener = Opener(hostname="me.example", egress=dead, outage=Outage(hold_s=0.05, hold_most_s=0.05))
    async with scripted(Script()) as server:
        proxied = Socks5({("127.0.0.1", server.port): server.endpoint})
        async with stage.sender(server.endpoint, opener=opener):
            await stage.send(*names(10))
            await until(lambda: opener.outage.why is not None)
            async with proxy(proxied, port=port):
                outcomes = await stage.has_outcomes(10)
    assert set(outcomes.values()) == {"accepted"}
    for results in (await stage.told()).values():
        assert results[-1].attempt == 1
        assert all("Connection refused" in (one.text or "") for one in results[:-1])


@pytest.mark.parametrize("place", ["greeting", "dot"])
async def test_a_provider_that_hangs_holds_up_no_other(stage: Stage, place: str) -> None:
    stage.control()
    hangs, google, own = Script(**{place: SILENCE}), Script(), Script()
    scripts = {"mx.hangs.test": hangs, "aspmx.l.google.com": google, "mx.own.test": own}
    domains = {"hangs.test": ["mx.hangs.test"], "shop.test": ["aspmx.l.google.com"], "own.test": ["mx.own.test"]}
    async with providers(scripts, domains) as next_hops:
        await stage.send(*names(100), domain="hangs.test")
        await stage.send(*names(100, 100), domain="shop.test")
        await stage.send(*names(100, 200), domain="own.test", partition=1)
        async with stage.sender(next_hops, connections=8, grace_s=0.1, timeouts=Timeouts(greeting_s=30, dot_s=30)):
            await stage.has_outcomes(200)
            told = [result for results in (await stage.told()).values() for result in results]
    assert {result.provider for result in told if result.outcome == "accepted"} == {"google", "other"}
    assert (len(google.taken), len(own.taken)) == (100, 100)


async def test_a_name_server_that_is_silent_holds_no_worker(stage: Stage) -> None:
    stage.control()
    own = Script()
    async with providers({"mx.own.test": own}, {"own.test": ["mx.own.test"]}) as next_hops:
        known = next_hops.resolver
        assert known is not None
        next_hops.resolver = Silent(known)
        for number in range(20):
            await stage.send(f"lost-{number}", domain=f"silent{number}.test")
        await stage.send(*names(50), domain="own.test")
        async with stage.sender(next_hops, connections=1, grace_s=0.1):
            await stage.has_outcomes(50)
    assert len(own.taken) == 50


class Silent:
    """A resolver that knows nothing of some domains, and says nothing."""

    def __init__(self, known: Resolver) -> None:
        self._known = known

    async def resolve(self, qname: str, rdtype: str, *, lifetime: float) -> Answer:
        if qname.startswith("silent"):
            await asyncio.get_running_loop().create_future()
        return await self._known.resolve(qname, rdtype, lifetime=lifetime)


async def test_mail_for_a_suspended_provider_waits_in_the_ledger_untried(stage: Stage) -> None:
    stage.control()
    fast = b"421 4.7.28 Our system has detected an unusual rate of mail from your IP address\r\n"
    google, own = Script(mail=fast), Script()
    scripts = {"aspmx.l.google.com": google, "mx.own.test": own}
    domains = {"shop.test": ["aspmx.l.google.com"], "own.test": ["mx.own.test"]}
    async with providers(scripts, domains) as next_hops:
        await stage.send(*names(60), domain="shop.test")
        await stage.send(*names(60, 60), domain="own.test")
        async with stage.sender(next_hops, connections=4) as running:
            await stage.has_outcomes(60)
            metrics = running.sender.metrics.registry
            await until(lambda: metrics.get_sample_value("mailcordon_sender_backlog") == 0)
            parked = metrics.get_sample_value("mailcordon_sender_parked")
            suspended = metrics.get_sample_value(
                "mailcordon_sender_suspended", {"provider": "google", "reason": "rate_limited_ip"}
            )
        told = [result for results in (await stage.told()).values() for result in results]
    assert (parked, suspended, len(own.taken)) == (60, 1.0, 60)
    assert sum(result.outcome == "deferred" for result in told) < 30  # those that were under way when it began


async def test_who_is_suppressed_while_the_pace_lets_it_wait_is_not_sent_to(stage: Stage) -> None:
    stage.control(per_second=0.01)
    async with scripted(Script()) as server:
        await stage.send("ann", "bob")
        async with stage.sender(server.endpoint) as running:
            await stage.has_outcomes(1)
            await until(lambda: running.sender._lanes.in_hand == 1)
            stage.board.suppressions |= {"h-ann": "unsubscribe", "h-bob": "unsubscribe"}
            stage.control()
            outcomes = await stage.has_outcomes(2)
    assert sorted(outcomes.values()) == ["accepted", "suppressed"]
    assert len(server.taken) == 1


async def test_who_expires_while_its_servers_are_left_alone_is_settled(stage: Stage) -> None:
    stage.control()
    async with scripted(Script()) as server, stage.sender(server.endpoint) as running:
        running.sender._mailer.admit = lambda group: 7200.0  # type: ignore[method-assign]
        await stage.send("ann", expires_at=stage.clock.now() + 300)
        outcomes = await stage.has_outcomes(1, within_s=3)
    assert outcomes == {"m-ann": "expired"}
