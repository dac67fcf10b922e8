"""What a sender promises, as tests that run on topics in memory and on a real Kafka alike."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Protocol

import pytest

from policy.naming import outbound_topic
from policy.settings import Endpoint
from policy.tokens import Keys, read_return_path
from policy.traps import domain_hash
from schemas.codec import encode
from schemas.delivery import FINAL, DeliveryFrame, DeliveryResult, LedgerEntry
from schemas.reputation import Brake, Control, Narrowed
from schemas.sending import Campaign, Content, Mailbox, OutboundFrame, OutboundMessage, Pace
from smtp.client import Bounds as HopBounds
from smtp.client import SmtpMailer
from smtp.mx import NextHops
from smtp.opener import Opener
from smtp.sending.compose import Composer
from smtp.sending.memory import WITHHELD
from smtp.sending.sender import Bounds, Sender
from smtp.session import Timeouts
from tests.smtp.doubles import MemoryBoard, MovedClock
from tests.smtp.servers import CLOSE, SILENCE, Script, scripted, until

KEYS = Keys(address=b"a" * 32, return_path=b"r" * 32)
SUBJECT = "Hello {{name}}"
PATIENT = Timeouts(connect_s=1, command_s=2, dot_s=2)
EAGER = HopBounds(back_off_s=0.05)


class World(Protocol):
    """The topics of one campaign, wherever they are."""

    campaign: str
    partitions: int

    async def put(self, value: bytes, partition: int) -> None:
        """Append to the outbound topic."""

    async def results(self) -> Sequence[DeliveryFrame]:
        """All frames published so far."""

    async def entries(self, partition: int) -> Sequence[tuple[int, LedgerEntry]]:
        """All ledger entries so far."""

    async def append(self, partition: int, entry: LedgerEntry) -> int:
        """Write a ledger entry, as a sender that ran before would have."""

    async def committed(self, partition: int) -> int:
        """The committed offset, 0 for none."""

    async def dead_letters(self) -> Sequence[tuple[int, int]]:
        """Partition and offset of frames set aside."""

    def edge(self, name: str) -> contextlib.AbstractAsyncContextManager[Any]:
        """A new sender's inbox, ledger and results, as a tuple."""


class Stage:
    """A world with a campaign on the board and senders that can be started and ended."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.board = MemoryBoard()
        self.clock = MovedClock()
        self.epoch = 0
        self.campaign(in_doubt="hold")
        self.board.content(
            Content(
                campaign=world.campaign, content="hello", subject=SUBJECT, text="Dear {{name}}", html="<p>{{name}}</p>"
            )
        )

    def campaign(self, **fields: Any) -> None:
        self.board.campaigns[self.world.campaign] = Campaign(
            campaign=self.world.campaign,
            from_=Mailbox(name="The Shop", address="news@shop.example"),
            return_path_domain="bounces.shop.example",
            **fields,
        )

    def control(
        self,
        *,
        may_send: bool = True,
        epoch: int | None = None,
        per_second: float = 0.0,
        connections: int = 20,
        **fields: Any,
    ) -> None:
        self.epoch = self.epoch + 1 if epoch is None else epoch
        self.board.controls[self.world.campaign] = Control(
            campaign=self.world.campaign,
            epoch=self.epoch,
            may_send=may_send,
            pace=Pace(per_second=per_second, connections=connections),
            state="healthy" if may_send else "isolated",
            reason="the test says so",
            at=self.clock.now(),
            **fields,
        )

    async def send(
        self,
        *names: str,
        partition: int = 0,
        domain: str = "example.com",
        content: str = "hello",
        flags: Sequence[str] = (),
        last_seen_at: int | None = None,
        source: str | None = None,
        **fields: Any,
    ) -> None:
        """Put one frame with a message for each name; ``ann`` is message id ``m-ann``."""
        frame = OutboundFrame(
            campaign=self.world.campaign,
            request_id="r-1",
            content=content,
            admitted_at=fields.pop("admitted_at", self.clock.now()),
            messages=[
                OutboundMessage(
                    message_id=f"m-{name}",
                    address=f"{name}@{domain}",
                    address_hash=f"h-{name}",
                    vars={"name": name},
                    flags=tuple(flags),
                    last_seen_at=last_seen_at,
                    source=source,
                )
                for name in names
            ],
            **fields,
        )
        await self.world.put(encode(frame), partition)

    @contextlib.asynccontextmanager
    async def sender(
        self,
        route: Endpoint | NextHops,
        *,
        name: str = "s-0",
        timeouts: Timeouts = PATIENT,
        hops: HopBounds = EAGER,
        opener: Opener | None = None,
        **bounds: Any,
    ) -> AsyncIterator["Running"]:
        """A sender that runs until the block ends; then it is stopped, unless it was killed."""
        async with self.world.edge(name) as (inbox, ledger, results):
            sender = Sender(
                campaign=self.world.campaign,
                name=name,
                inbox=inbox,
                ledger=ledger,
                results=results,
                board=self.board,
                mailer=SmtpMailer(
                    route if isinstance(route, NextHops) else NextHops({"*": route}),
                    opener or Opener(hostname="me.example", timeouts=timeouts),
                    bounds=hops,
                ),
                composer=Composer(KEYS),
                clock=self.clock,
                jitter=random.Random(1).random,
                bounds=Bounds(**({"grace_s": 5.0} | bounds)),
            )
            running = Running(sender, asyncio.create_task(sender.run()), inbox)
            try:
                yield running
            finally:
                if not running.task.done():
                    sender.stop()
                if not running.was_killed:
                    async with asyncio.timeout(30):
                        await running.task

    async def told(self) -> dict[str, list[DeliveryResult]]:
        """Published results by message id, repeats of a ledger position left out as their readers do."""
        newest: dict[int, int] = {}
        found: dict[str, list[DeliveryResult]] = {}
        for frame in await self.world.results():
            assert frame.ledger is not None
            if frame.ledger.offset <= newest.get(frame.ledger.partition, -1):
                continue
            newest[frame.ledger.partition] = frame.ledger.offset
            for result in frame.results:
                found.setdefault(result.message_id, []).append(result)
        return found

    async def outcomes(self) -> dict[str, str]:
        """The final outcome of each message; more than one is an error."""
        final: dict[str, str] = {}
        for message_id, results in (await self.told()).items():
            outcomes = [result.outcome for result in results if result.outcome in FINAL]
            assert len(outcomes) <= 1, f"{message_id} has two final results: {outcomes}"
            if outcomes:
                final[message_id] = outcomes[0]
        return final

    async def has_outcomes(self, count: int, *, within_s: float = 20.0) -> dict[str, str]:
        """Wait until so many messages are final."""
        outcomes: dict[str, str] = {}
        async with asyncio.timeout(within_s):
            while len(outcomes := await self.outcomes()) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        return outcomes

    async def is_committed(self, partition: int, offset: int) -> None:
        async with asyncio.timeout(10):
            while await self.world.committed(partition) < offset:  # noqa: ASYNC110
                await asyncio.sleep(0.02)


class Running:
    """A sender and the task that it runs in."""

    def __init__(self, sender: Sender, task: "asyncio.Task[None]", inbox: Any) -> None:
        self.sender = sender
        self.task = task
        self.inbox = inbox
        self.was_killed = False

    async def kill(self) -> None:
        """End it in the middle of whatever it does; nothing is written, told or committed any more."""
        self.was_killed = True
        self.task.cancel()
        await asyncio.wait([self.task])


def names(count: int, start: int = 0) -> list[str]:
    return [f"n{number:04}" for number in range(start, start + count)]


def by_recipient(answers: dict[str, bytes], *, otherwise: bytes) -> Callable[[bytes], bytes]:
    """A server's answer by the name before the @."""

    def answer(line: bytes) -> bytes:
        return next((said for name, said in answers.items() if f"{name}@".encode() in line), otherwise)

    return answer


REPLIES: dict[str, tuple[str, bytes, str, str | None]] = {
    "ok": ("dot", b"250 2.0.0 Ok\r\n", "accepted", None),
    "unknown": ("rcpt", b"550 5.1.1 no such user\r\n", "bounced", "invalid_recipient"),
    "full": ("rcpt", b"452 4.2.2 mailbox full\r\n", "deferred", "mailbox_full"),
    "grey": ("rcpt", b"451 4.7.1 Greylisted, try again later\r\n", "deferred", "greylisted"),
    "spam": ("dot", b"554 5.7.1 Message rejected as spam\r\n", "bounced", "spam_content"),
    "lost-before": ("rcpt", CLOSE, "deferred", "connection"),
    "lost-after": ("dot", CLOSE, "in_doubt", "uncertain"),
    "silent-after": ("dot", SILENCE, "in_doubt", "uncertain"),
}


class SenderContract:
    """Run by a subclass with a fixture ``stage``."""

    async def test_every_message_is_sent_once_and_everything_is_accounted_for(self, stage: Stage) -> None:
        stage.control()
        async with scripted(Script()) as server:
            for partition in range(stage.world.partitions):
                for start in (0, 30, 60):
                    await stage.send(*[f"p{partition}{name}" for name in names(30, start)], partition=partition)
            count = 90 * stage.world.partitions
            async with stage.sender(server.endpoint):
                outcomes = await stage.has_outcomes(count)
                assert set(outcomes.values()) == {"accepted"}
                for partition in range(stage.world.partitions):
                    await stage.is_committed(partition, 3)
        assert Counter(taken.recipient for taken in server.taken).most_common(1)[0][1] == 1
        assert len(server.taken) == count

    async def test_the_account_of_a_message(self, stage: Stage) -> None:
        stage.control()
        async with scripted(Script()) as server:
            await stage.send("ann", domain="Example.COM", flags=["disposable"], source="fair-2026")
            async with stage.sender(server.endpoint, name="spring-0"):
                await stage.has_outcomes(1)
        (result,) = (await stage.told())["m-ann"]
        assert (result.outcome, result.code, result.enhanced, result.attempt) == ("accepted", 250, "2.0.0", 1)
        assert (result.ip, result.mx, result.provider) == ("127.0.0.1", "127.0.0.1", "other")
        assert (result.domain, result.flags, result.list_source) == ("example.com", ("disposable",), "fair-2026")
        assert (result.address_hash, result.class_, result.next_attempt_at) == ("h-ann", None, None)
        (frame,) = await stage.world.results()
        assert (frame.campaign, frame.sender) == (stage.world.campaign, "spring-0")
        (covered,) = frame.covers
        assert (covered.topic, covered.partition, covered.from_, covered.to) == (
            outbound_topic(stage.world.campaign), 0, 0, 0,
        )  # fmt: skip
        entries = await stage.world.entries(0)
        assert frame.ledger is not None
        assert dict(entries)[frame.ledger.offset].results == frame.results
        intents = [offset for offset, entry in entries if entry.intents == ["m-ann"]]
        assert intents[0] < frame.ledger.offset

    async def test_the_message_on_the_wire(self, stage: Stage) -> None:
        stage.control()
        async with scripted(Script()) as server:
            await stage.send("ann")
            async with stage.sender(server.endpoint):
                await stage.has_outcomes(1)
        (taken,) = server.taken
        assert taken.recipient == b"ann@example.com"
        ticket = read_return_path(KEYS, taken.sender.decode(), now=stage.clock.now())
        assert getattr(ticket, "message_id", None) == "m-ann"
        assert taken.sender.endswith(b"@bounces.shop.example")
        assert b"Subject: Hello ann\r\n" in taken.data
        assert b"Message-ID: <m-ann." in taken.data

    async def test_every_kind_of_answer_has_its_outcome(self, stage: Stage) -> None:
        stage.control()
        script = Script(
            rcpt=by_recipient({n: r[1] for n, r in REPLIES.items() if r[0] == "rcpt"}, otherwise=b"250 ok\r\n"),
            dot=by_recipient({n: r[1] for n, r in REPLIES.items() if r[0] == "dot"}, otherwise=b"250 ok\r\n"),
        )
        async with scripted(script) as server:
            await stage.send(*REPLIES)
            async with stage.sender(server.endpoint, timeouts=Timeouts(command_s=1, dot_s=0.3)):
                async with asyncio.timeout(20):
                    while len(told := await stage.told()) < len(REPLIES):  # noqa: ASYNC110
                        await asyncio.sleep(0.02)
        said = {name: (told[f"m-{name}"][-1].outcome, told[f"m-{name}"][-1].class_) for name in REPLIES}
        assert said == {name: (outcome, category) for name, (_, _, outcome, category) in REPLIES.items()}
        for name in ("full", "grey", "lost-before"):
            assert (told[f"m-{name}"][-1].next_attempt_at or 0) > stage.clock.now()
        await stage.is_committed(0, 1)  # deferred messages wait in the ledger

    async def test_a_deferred_message_is_tried_again_when_its_time_has_come(self, stage: Stage) -> None:
        stage.control()
        answers = iter([b"451 4.7.1 Greylisted\r\n", b"451 4.7.1 Greylisted\r\n", b"250 ok\r\n"])
        async with scripted(Script(rcpt=lambda _: next(answers))) as server:
            await stage.send("ann")
            async with stage.sender(server.endpoint):
                for _ in range(2):
                    async with asyncio.timeout(10):
                        while not (told := await stage.told()) or not self._waits(told["m-ann"][-1], stage):  # noqa: ASYNC110
                            await asyncio.sleep(0.02)
                    stage.clock.advance(3600)
                await stage.has_outcomes(1)
        results = (await stage.told())["m-ann"]
        assert [(result.outcome, result.attempt) for result in results] == [
            ("deferred", 1), ("deferred", 2), ("accepted", 3),
        ]  # fmt: skip

    async def test_what_may_not_go_to_one_provider_waits_while_all_else_goes(self, stage: Stage) -> None:
        def narrowed(may_send: bool, per_second: float = 0.0) -> dict[str, Narrowed]:
            pace = Pace(per_second=per_second)
            return {"google": Narrowed(may_send=may_send, pace=pace, state="paused", reason="it refuses us")}

        stage.control(providers=narrowed(False))
        async with scripted(Script()) as server:
            await stage.send("ann", "ben", "cat", domain="gmail.com")
            await stage.send("dan", domain="example.com")
            async with stage.sender(server.endpoint):
                assert await stage.has_outcomes(1) == {"m-dan": "accepted"}
                stage.control(providers=narrowed(True, per_second=1))
                stage.clock.advance(601)
                assert len(await stage.has_outcomes(2)) == 2, "the first one's turn comes at once"
                stage.clock.advance(1)
                await stage.has_outcomes(3)
                stage.control()
                stage.clock.advance(10)
                assert set((await stage.has_outcomes(4)).values()) == {"accepted"}
        assert len(server.taken) == 4

    async def test_a_campaign_that_warms_up_writes_to_engaged_recipients_first(self, stage: Stage) -> None:
        now = stage.clock.now()
        stage.control(engaged_since=now - 1000)
        async with scripted(Script()) as server:
            await stage.send("ann", last_seen_at=now - 2000)
            await stage.send("ben")
            await stage.send("cat", last_seen_at=now - 500)
            async with stage.sender(server.endpoint):
                assert await stage.has_outcomes(1) == {"m-cat": "accepted"}
                stage.control()
                stage.clock.advance(601)
                assert len(await stage.has_outcomes(3)) == 3

    async def test_the_brake_on_all_sending_stops_it_and_lets_it_go_on(self, stage: Stage) -> None:
        stage.control()
        stage.board.brakes["sending"] = Brake(brake="sending", on=True, reason="wrong price", by="ann", at=1)
        async with scripted(Script()) as server:
            await stage.send("ann")
            async with stage.sender(server.endpoint) as running:
                await until(lambda: running.sender.gate.closed() == "brake")
                assert not server.taken
                stage.board.brakes["sending"] = Brake(brake="sending", on=False, reason="mended", by="ann", at=2)
                await stage.has_outcomes(1)

    @staticmethod
    def _waits(result: DeliveryResult, stage: Stage) -> bool:
        return result.outcome == "deferred" and (result.next_attempt_at or 0) > stage.clock.now()

    async def test_a_deferral_survives_the_sender(self, stage: Stage) -> None:
        stage.control()
        script = Script(rcpt=b"451 4.7.1 Greylisted\r\n")
        async with scripted(script) as server:
            await stage.send("ann")
            async with stage.sender(server.endpoint):
                async with asyncio.timeout(10):
                    while not await stage.told():  # noqa: ASYNC110
                        await asyncio.sleep(0.02)
            script.rcpt = b"250 ok\r\n"
            async with stage.sender(server.endpoint) as running:
                await until(lambda: running.sender.is_ready)
                await stage.send("bob")
                await stage.has_outcomes(1)  # bob's; ann's time has not come
                stage.clock.advance(3600)
                await stage.has_outcomes(2)
        assert [(r.outcome, r.attempt) for r in (await stage.told())["m-ann"]] == [("deferred", 1), ("accepted", 2)]

    async def test_a_message_id_is_sent_once_however_often_it_is_asked_for(self, stage: Stage) -> None:
        stage.control()
        async with scripted(Script()) as server:
            await stage.send("ann", "bob", "ann")
            await stage.send("ann", "cid")
            async with stage.sender(server.endpoint):
                await stage.has_outcomes(3)
                await stage.is_committed(0, 2)
            await stage.send("bob", "cid", "dan")
            async with stage.sender(server.endpoint):
                await stage.has_outcomes(4)
                await stage.is_committed(0, 3)
        assert sorted(taken.recipient for taken in server.taken) == [
            b"ann@example.com", b"bob@example.com", b"cid@example.com", b"dan@example.com",
        ]  # fmt: skip

    async def test_without_control_nothing_is_sent_and_with_it_everything(self, stage: Stage) -> None:
        async with scripted(Script()) as server:
            await stage.send("ann")
            async with stage.sender(server.endpoint) as running:
                await until(lambda: running.sender.is_ready and running.sender._lanes.unfinished == 1)
                assert running.sender.gate.closed() == "no_control"
                await asyncio.sleep(0.1)
                assert not server.heard
                stage.control()
                await stage.has_outcomes(1)

    async def test_stopped_by_control_it_stops_within_one_message_per_connection(self, stage: Stage) -> None:
        stage.control()
        sent_before_stop = 0

        def dot(_: bytes) -> bytes:
            if len(server.taken) == 5:
                stage.control(may_send=False)
            return b"250 ok\r\n"

        server = Script(dot=dot)
        async with scripted(server):
            await stage.send(*names(50))
            async with stage.sender(server.endpoint, connections=1) as running:
                await until(lambda: running.sender.gate.closed() == "isolated")
                sent_before_stop = len(server.taken)
                await asyncio.sleep(0.2)
                assert len(server.taken) == sent_before_stop == 6
                stage.control()
                await stage.has_outcomes(50)
        assert len(server.taken) == 50

    async def test_an_older_epoch_releases_nobody(self, stage: Stage) -> None:
        stage.control(may_send=False, epoch=7)
        async with scripted(Script()) as server:
            await stage.send("ann")
            async with stage.sender(server.endpoint) as running:
                await until(lambda: running.sender.gate.closed() == "isolated")
                stage.control(may_send=True, epoch=6)
                assert running.sender.gate.closed() == "isolated"
                await asyncio.sleep(0.1)
                assert not server.heard
                stage.control(may_send=True, epoch=8)
                await stage.has_outcomes(1)

    async def test_a_sender_that_cannot_hear_control_sends_nothing(self, stage: Stage) -> None:
        stage.control()
        stage.board.is_deaf = True
        async with scripted(Script()) as server:
            await stage.send("ann")
            async with stage.sender(server.endpoint) as running:
                await until(lambda: running.sender._lanes.unfinished == 1)
                assert running.sender.gate.closed() == "deaf"
                await asyncio.sleep(0.1)
                assert not server.heard
                stage.board.is_deaf = False
                await stage.has_outcomes(1)

    async def test_stopped_between_intent_and_mail_from_a_message_is_not_in_doubt(self, stage: Stage) -> None:
        stage.control()

        def greet(_: bytes) -> bytes:
            stage.control(may_send=False)
            return b"220 hello\r\n"

        async with scripted(Script(greeting=greet)) as server:
            await stage.send("ann")
            async with stage.sender(server.endpoint) as running:
                await until(lambda: running.sender.metrics.withheld._value.get() == 1)
            assert not [line for line in server.heard if line.startswith(b"MAIL")]
            entries = [entry for _, entry in await stage.world.entries(0)]
            assert [r.class_ for entry in entries for r in entry.results] == [WITHHELD]
            server.greeting = b"220 hello\r\n"
            stage.control()
            async with stage.sender(server.endpoint):
                assert await stage.has_outcomes(1) == {"m-ann": "accepted"}
        assert [r.attempt for r in (await stage.told())["m-ann"]] == [1]

    async def test_pace_follows_control_at_once(self, stage: Stage) -> None:
        stage.control(per_second=0.01)
        async with scripted(Script()) as server:
            await stage.send(*names(30))
            async with stage.sender(server.endpoint):
                await until(lambda: len(server.taken) == 1)
                await asyncio.sleep(0.15)
                assert len(server.taken) == 1
                stage.control(per_second=0)
                await stage.has_outcomes(30, within_s=5)

    async def test_connections_follow_control_and_campaign(self, stage: Stage) -> None:
        stage.control(connections=3)
        stage.campaign(pace=Pace(connections=2))
        async with scripted(Script()) as server:
            await stage.send(*names(30))
            async with stage.sender(server.endpoint):
                await stage.has_outcomes(30)
        assert server.connections == 2

    async def test_what_may_not_be_sent_any_more_is_told(self, stage: Stage) -> None:
        stage.control()
        now = stage.clock.now()
        stage.board.suppressions["h-sue"] = "complaint"
        async with scripted(Script()) as server:
            await stage.send("sue", "ann")
            await stage.send("late", expires_at=now - 1)
            await stage.send("old", admitted_at=now - 172_800_000)
            async with stage.sender(server.endpoint):
                outcomes = await stage.has_outcomes(4)
                await stage.is_committed(0, 3)
        assert outcomes == {"m-sue": "suppressed", "m-ann": "accepted", "m-late": "expired", "m-old": "expired"}
        assert (await stage.told())["m-sue"][0].class_ == "complaint"
        assert [taken.recipient for taken in server.taken] == [b"ann@example.com"]

    async def test_nobody_at_a_suppressed_domain_gets_mail(self, stage: Stage) -> None:
        stage.control()
        stage.board.suppressions[domain_hash(KEYS, "gone.example")] = "bad_domain"
        async with scripted(Script()) as server:
            await stage.send("ann", domain="Gone.Example")
            await stage.send("bob")
            async with stage.sender(server.endpoint):
                assert await stage.has_outcomes(2) == {"m-ann": "suppressed", "m-bob": "accepted"}
        assert (await stage.told())["m-ann"][0].class_ == "bad_domain"
        assert [taken.recipient for taken in server.taken] == [b"bob@example.com"]

    async def test_a_message_waits_for_its_time(self, stage: Stage) -> None:
        stage.control()
        async with scripted(Script()) as server:
            await stage.send("ann", not_before=stage.clock.now() + 3_600_000)
            await stage.send("bob")
            async with stage.sender(server.endpoint):
                assert await stage.has_outcomes(1) == {"m-bob": "accepted"}
                stage.clock.advance(3601)
                await stage.has_outcomes(2)

    async def test_what_cannot_be_made_a_message_bounces_with_its_reason(self, stage: Stage) -> None:
        stage.control()
        stage.board.content(Content(campaign=stage.world.campaign, content="more", subject="{{name}} {{city}}"))
        async with scripted(Script()) as server:
            await stage.send("ann", content="withdrawn")
            await stage.send("bob", content="more")
            await stage.send("cid")
            async with stage.sender(server.endpoint):
                await stage.has_outcomes(3)
        told = await stage.told()
        assert {name: told[f"m-{name}"][0].class_ for name in ("ann", "bob", "cid")} == {
            "ann": "unknown_content", "bob": "missing_variable", "cid": None,
        }  # fmt: skip
        assert len(server.taken) == 1

    async def test_nothing_in_a_frame_adds_a_line_to_mail_or_dialogue(self, stage: Stage) -> None:
        stage.control()
        evil = "x\r\nBcc: victim@example.org\r\n\r\n.\r\nMAIL FROM:<a@b.example>\r\n"
        frame = OutboundFrame(
            campaign=stage.world.campaign,
            request_id="r",
            content="hello",
            admitted_at=stage.clock.now(),
            messages=[
                OutboundMessage(message_id="m-1", address="ann@example.com", address_hash="h1", vars={"name": evil}),
                OutboundMessage(
                    message_id="m-2",
                    address="a@example.com>\r\nRCPT TO:<b@example.com",
                    address_hash="h2",
                    vars={"name": "x"},
                ),
                OutboundMessage(
                    message_id="m-3\r\nBcc: x", address="cid@example.com", address_hash="h3", vars={"name": "x"}
                ),
            ],
        )
        async with scripted(Script()) as server:
            await stage.world.put(encode(frame), 0)
            async with stage.sender(server.endpoint):
                await stage.has_outcomes(3)
        assert {(await stage.told())[name][0].outcome for name in ("m-1", "m-2")} == {"bounced"}
        assert [taken.recipient for taken in server.taken] == [b"cid@example.com"]
        assert b"Bcc" not in server.taken[0].data
        assert not [line for line in server.heard if b"victim" in line or b"a@b.example" in line]

    async def test_a_message_that_makes_us_fail_waits_and_its_neighbours_are_sent(self, stage: Stage) -> None:
        stage.control()
        look_up = stage.board.suppressed

        def suppressed(address_hash: str, campaign: str) -> str | None:
            if address_hash == "h-poison":
                raise ValueError("no such hash")
            return look_up(address_hash, campaign)

        stage.board.suppressed = suppressed  # type: ignore[method-assign]
        async with scripted(Script()) as server:
            await stage.send("ann", "poison", "bob")
            async with stage.sender(server.endpoint):
                await stage.has_outcomes(2)
                (result,) = (await stage.told())["m-poison"]
                assert (result.outcome, result.class_) == ("deferred", "internal_error")
                stage.board.suppressed = look_up  # type: ignore[method-assign]
                stage.clock.advance(3600)
                assert set((await stage.has_outcomes(3)).values()) == {"accepted"}

    async def test_a_frame_that_cannot_be_read_is_set_aside_and_its_neighbours_are_sent(self, stage: Stage) -> None:
        stage.control()
        async with scripted(Script()) as server:
            await stage.send("ann")
            await stage.world.put(b'{"v":1,"campaign":3}', 0)
            await stage.world.put(b"\xff\xfe", 0)
            await stage.send("bob")
            async with stage.sender(server.endpoint):
                await stage.has_outcomes(2)
                await stage.is_committed(0, 4)
        assert sorted(await stage.world.dead_letters()) == [(0, 1), (0, 2)]

    async def test_stopping_finishes_what_is_in_flight_and_nothing_is_in_doubt(self, stage: Stage) -> None:
        stage.control()
        async with scripted(Script()) as server:
            await stage.send(*names(200))
            async with stage.sender(server.endpoint, connections=10) as running:
                await until(lambda: len(server.taken) >= 20)
                running.sender.stop()
                await running.task
            sent = len(server.taken)
            assert 20 <= sent < 200
            outcomes = await stage.outcomes()
            assert Counter(outcomes.values()) == {"accepted": sent}
            async with stage.sender(server.endpoint):
                outcomes = await stage.has_outcomes(200)
                await stage.is_committed(0, 1)
        assert Counter(outcomes.values()) == {"accepted": 200}
        assert len(server.taken) == 200

    async def test_stopping_does_not_wait_for_a_server_that_hangs_longer_than_allowed(self, stage: Stage) -> None:
        stage.control()
        async with scripted(Script(dot=SILENCE)) as server:
            await stage.send("ann")
            async with stage.sender(server.endpoint, grace_s=0.2, timeouts=Timeouts()) as running:
                await until(lambda: len(server.taken) == 1)
                running.sender.stop()
                async with asyncio.timeout(5):
                    await running.task
        assert await stage.outcomes() == {"m-ann": "in_doubt"}

    @pytest.mark.parametrize(("in_doubt", "outcome", "copies"), [("hold", "in_doubt", 1), ("resend", "accepted", 2)])
    async def test_killed_after_the_dot(self, stage: Stage, in_doubt: str, outcome: str, copies: int) -> None:
        stage.campaign(in_doubt=in_doubt)
        stage.control()
        script = Script(dot=SILENCE)
        async with scripted(script) as server:
            await stage.send("ann")
            async with stage.sender(server.endpoint, timeouts=Timeouts()) as running:
                await until(lambda: len(server.taken) == 1)
                await running.kill()
            script.dot = b"250 ok\r\n"
            async with stage.sender(server.endpoint):
                assert await stage.has_outcomes(1) == {"m-ann": outcome}
                await stage.is_committed(0, 1)
        assert len(server.taken) == copies

    async def test_a_doubtful_message_that_waits_is_not_sent_again_once_its_campaign_says_hold(
        self, stage: Stage
    ) -> None:
        stage.campaign(in_doubt="resend")
        stage.control(may_send=False)
        await stage.world.append(0, LedgerEntry(sender="old", at=1, intents=["m-ann"]))
        await stage.send("ann", "bob")
        async with scripted(Script()) as server, stage.sender(server.endpoint) as running:
            await until(lambda: running.sender.is_ready and running.sender._lanes.unfinished == 2)
            stage.campaign(in_doubt="hold")
            stage.control()
            assert await stage.has_outcomes(2) == {"m-ann": "in_doubt", "m-bob": "accepted"}
        assert [taken.recipient for taken in server.taken] == [b"bob@example.com"]

    async def test_results_that_may_not_have_been_published_are_published_again_as_the_same(self, stage: Stage) -> None:
        stage.control()
        await stage.send("ann", "bob")
        results = [DeliveryResult(message_id=f"m-{name}", outcome="accepted", at=5) for name in ("ann", "bob")]
        await stage.world.append(0, LedgerEntry(sender="old", at=1, intents=["m-ann", "m-bob"]))
        first = await stage.world.append(0, LedgerEntry(sender="old", at=2, results=results[:1]))
        second = await stage.world.append(0, LedgerEntry(sender="old", at=3, results=results[1:], published=first))
        async with scripted(Script()) as server:
            async with stage.sender(server.endpoint):
                await stage.is_committed(0, 1)
            (frame,) = await stage.world.results()
            assert (frame.sender, frame.results) == ("old", results[1:])
            assert frame.ledger is not None
            assert (frame.ledger.partition, frame.ledger.offset) == (0, second)
            async with stage.sender(server.endpoint) as running:
                await until(lambda: running.sender.is_ready)
        assert len(await stage.world.results()) == 1
        assert not server.taken

    async def test_what_a_former_owner_wrote_after_its_successor_is_told_to_nobody(self, stage: Stage) -> None:
        stage.control()
        await stage.send("ann", "bob")
        said = DeliveryResult(message_id="m-ann", outcome="in_doubt", at=5)
        late = DeliveryResult(message_id="m-ann", outcome="accepted", at=4)
        bob = DeliveryResult(message_id="m-bob", outcome="accepted", at=4)
        await stage.world.append(0, LedgerEntry(sender="frozen", at=1, intents=["m-ann", "m-bob"]))
        await stage.world.append(0, LedgerEntry(sender="new", at=2, results=[said]))
        await stage.world.append(0, LedgerEntry(sender="frozen", at=3, results=[late, bob]))
        async with scripted(Script()) as server, stage.sender(server.endpoint):
            assert await stage.has_outcomes(2) == {"m-ann": "in_doubt", "m-bob": "accepted"}
            await stage.is_committed(0, 1)
        assert await stage.outcomes() == {"m-ann": "in_doubt", "m-bob": "accepted"}
        assert not server.taken

    async def test_partitions_move_to_a_second_replica_and_every_message_is_sent_once(self, stage: Stage) -> None:
        stage.control()
        async with scripted(Script()) as server:
            for start in range(0, 300, 20):
                for partition in range(stage.world.partitions):
                    await stage.send(*[f"p{partition}{name}" for name in names(20, start)], partition=partition)
            count = 300 * stage.world.partitions
            async with stage.sender(server.endpoint, name="s-0", connections=4) as first:
                await until(lambda: len(server.taken) > 20)
                async with stage.sender(server.endpoint, name="s-1", connections=4) as second:
                    await until(lambda: second.sender.is_ready or len(server.taken) == count, within_s=20)
                    await stage.send("last0", partition=0)
                    await stage.send("last1", partition=1)
                    outcomes = await stage.has_outcomes(count + 2, within_s=30)
                assert first.sender._lanes is not None
        assert Counter(outcomes.values()) == {"accepted": count + 2}
        assert len(server.taken) == count + 2
        senders = {frame.sender for frame in await stage.world.results()}
        assert senders == {"s-0", "s-1"}

    async def test_what_waits_in_memory_is_bounded(self, stage: Stage) -> None:
        stage.control(may_send=False)
        async with scripted(Script()) as server:
            for start in range(0, 100, 10):
                await stage.send(*names(10, start))
            async with stage.sender(server.endpoint, backlog=25) as running:
                await until(lambda: running.sender._lanes.unfinished >= 25)
                await asyncio.sleep(0.3)
                assert running.sender._lanes.unfinished < 40
                stage.control()
                await stage.has_outcomes(100)

    async def test_a_server_that_says_421_is_left_alone_and_the_others_are_not(self, stage: Stage) -> None:
        stage.control()
        answers = iter([b"421 4.7.0 slow down\r\n"])
        async with scripted(Script(mail=lambda _: next(answers, b"250 ok\r\n"))) as server:
            await stage.send("ann", "bob", "cid")
            async with stage.sender(server.endpoint, connections=1):
                assert Counter((await stage.has_outcomes(2)).values()) == {"accepted": 2}
        deferred = [r for results in (await stage.told()).values() for r in results if r.outcome == "deferred"]
        assert [(result.code, result.attempt) for result in deferred] == [(421, 1)]
