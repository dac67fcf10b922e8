"""The return path and those who mean it no good: limits, false line ends, messages made to break what reads them."""

import asyncio
from base64 import b64decode
from typing import get_args

import pytest

from schemas.dead_letters import DeadLetter
from smtp import return_path_hooks
from smtp.gate import Limits
from smtp.reader_process import Unreadable, UnreadReason
from smtp.return_path_metrics import Metrics
from tests.smtp.mailroom import DOMAIN, NOW, TRAP, Kafka, counted, running, signed
from tests.smtp.obedient_reader import EATS_MEMORY, readers_that_obey
from tests.smtp.wire import FIXTURES, Wire, stuffed, until

UNKNOWN_USER = (FIXTURES / "samples/1-dsn-userunknown.eml").read_bytes()


@pytest.mark.parametrize(
    "smuggled",
    [
        pytest.param(b"\n.\n", id="LF dot LF"),
        pytest.param(b"\n.\r\n", id="LF dot CRLF"),
        pytest.param(b"\r\n.\n", id="CRLF dot LF"),
        pytest.param(b"\r.\r", id="CR dot CR"),
        pytest.param(b"\r.\r\n", id="CR dot CRLF"),
        pytest.param(b"\r\n.\r", id="CRLF dot CR"),
        pytest.param(b"\n\n.\n\n", id="LF LF dot LF LF"),
        pytest.param(b"\r\x00\n.\r\n", id="CR NUL LF"),
    ],
)
async def test_nothing_is_smuggled_behind_a_false_end(smuggled: bytes) -> None:
    kafka = Kafka()
    async with running(kafka) as listener:
        wire = await Wire.connect(listener.endpoint)
        await wire.mail("", signed())
        await wire.say("DATA")
        second = f"MAIL FROM:<>\r\nRCPT TO:<{signed('m-2')}>\r\nDATA\r\n".encode() + stuffed(UNKNOWN_USER) + b".\r\n"
        wire.send(stuffed(UNKNOWN_USER).removesuffix(b"\r\n") + smuggled + second)

        assert (await wire.reply()).startswith("521")
        assert await wire.is_hung_up()

    assert kafka.records == []
    assert counted(listener, "refused_total", reason="bare_line_end") == 1


async def test_a_bare_line_feed_ends_no_command() -> None:
    async with running(Kafka()) as listener:
        wire = await Wire.connect(listener.endpoint)
        wire.send(b"NOOP\nNOOP\r\n")

        assert (await wire.reply()).startswith("521")
        assert await wire.is_hung_up()


async def test_what_is_sent_in_clear_behind_starttls_counts_for_nothing() -> None:
    async with running(Kafka()) as listener:
        wire = await Wire.connect(listener.endpoint)

        assert (await wire.say("STARTTLS"))[:3] == "454"
        wire.close()


async def test_connections_of_one_client_are_bounded_and_come_back() -> None:
    async with running(Kafka(), limits=Limits(connections_per_client=2)) as listener:
        first, second = await Wire.connect(listener.endpoint), await Wire.connect(listener.endpoint)
        third = await Wire.connect(listener.endpoint, ehlo=False)
        assert await third.is_hung_up()
        first.close()
        await until(lambda: counted(listener, "connections") == 1)
        fourth = await Wire.connect(listener.endpoint)

        assert (await fourth.say("NOOP")).startswith("250")
        assert counted(listener, "refused_total", reason="too_many_connections") == 1
        second.close()
        fourth.close()


async def test_a_client_that_is_turned_away_may_say_what_it_wants() -> None:
    async with running(Kafka(), limits=Limits(connections=1)) as listener:
        first = await Wire.connect(listener.endpoint)
        for _ in range(5):
            turned_away = Wire(*await asyncio.open_connection(listener.endpoint.host, listener.endpoint.port))
            turned_away.send(b"EHLO x\r\nMAIL FROM:<>\r\n" * 100)
            await turned_away.reply()
            turned_away.close()

        assert (await first.say("NOOP")).startswith("250")
        first.close()


async def test_errors_of_one_connection_are_bounded() -> None:
    async with running(Kafka(), limits=Limits(errors_per_connection=3)) as listener:
        wire = await Wire.connect(listener.endpoint)
        await wire.say("MAIL FROM:<a@b.example>")
        said = [await wire.say(f"RCPT TO:<u{number}@other.example>") for number in range(3)]

        assert [one[:3] for one in said] == ["550"] * 3
        assert (await wire.reply()).startswith("421")
        assert await wire.is_hung_up()


async def test_messages_of_one_client_are_bounded_for_now() -> None:
    clock = [NOW]
    kafka = Kafka()
    async with running(kafka, limits=Limits(messages_per_minute=2), now=lambda: clock[0]) as listener:
        wire = await Wire.connect(listener.endpoint)
        for number in range(2):
            assert (await wire.deliver("", signed(f"m-{number}"), UNKNOWN_USER)).startswith("250")
        assert (await wire.deliver("", signed("m-3"), UNKNOWN_USER)).startswith("450 4.7.1")
        clock[0] += 60_000
        assert (await wire.deliver("", signed("m-3"), UNKNOWN_USER)).startswith("250")
        wire.close()


async def test_messages_of_one_connection_are_bounded() -> None:
    async with running(Kafka(), limits=Limits(messages_per_connection=1)) as listener:
        wire = await Wire.connect(listener.endpoint)
        assert (await wire.deliver("", signed(), UNKNOWN_USER)).startswith("250")
        assert (await wire.deliver("", signed(), UNKNOWN_USER)).startswith("452")
        wire.close()


async def test_recipients_of_one_message_are_bounded() -> None:
    async with running(Kafka(), limits=Limits(recipients=3)) as listener:
        wire = await Wire.connect(listener.endpoint)
        said = await wire.mail("", *[signed(f"m-{number}") for number in range(4)])
        wire.close()

    assert [one[:3] for one in said] == ["250"] * 4 + ["452"]


async def test_a_message_that_is_too_big_is_refused_by_its_word_and_by_its_bytes() -> None:
    kafka = Kafka()
    async with running(kafka, limits=Limits(message_bytes=50_000)) as listener:
        wire = await Wire.connect(listener.endpoint)
        assert (await wire.say("MAIL FROM:<> SIZE=50001"))[:3] == "552"
        assert (await wire.deliver("", signed(), UNKNOWN_USER + b"x" * 70 + b"\n" + b"y\n" * 30_000))[:3] == "552"
        assert (await wire.deliver("", signed(), UNKNOWN_USER))[:3] == "250"
        wire.close()

    assert len(kafka.records) == 1


async def test_silence_ends_the_connection() -> None:
    async with running(Kafka(), limits=Limits(idle_s=0.05)) as listener:
        wire = await Wire.connect(listener.endpoint)

        assert await wire.is_hung_up()


async def test_a_line_as_long_as_old_mail_has_is_taken() -> None:
    kafka = Kafka()
    async with running(kafka) as listener:
        wire = await Wire.connect(listener.endpoint)
        assert (await wire.deliver("", signed(), UNKNOWN_USER + b"x" * 20_000 + b"\n"))[:3] == "250"
        wire.close()

    assert len(kafka.feedback) == 1


HOSTILE = {
    "encoded words": b"Subject: " + b"=?utf-8?q?=41?= " * 17_000,
    "parameters": b"Content-Type: text/plain" + b"; a*0*=b" * 6_000,
    "recipients": b"To: " + b"a@b.example, " * 5_000,
    "parts": b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n\nx\n" * 20_000,
    "nesting": b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(2_000)),
    "zeros": b"\x00" * 60_000,
    "noise": bytes(range(1, 10)) + bytes(range(11, 13)) + bytes(range(14, 256)) * 100,
    "delivery status of one field": b"Content-Type: message/delivery-status\n\n" + b"Action: failed\n\n" * 5_000,
    "feedback report of nothing": b"Content-Type: message/feedback-report\n\n" + b"\x00",
    "a notice of addresses": b"From: MAILER-DAEMON\n\npermanent\n\n" + b"<a@b.example>:\ngone\n\n" * 5_000,
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("rcpt", [signed(), f"x@{DOMAIN}", "t@traps.example"], ids=["ticket", "own domain", "trap"])
async def test_hostile_messages_are_kept_and_break_nothing(name: str, rcpt: str) -> None:
    lines = HOSTILE[name].split(b"\n")
    folded = b"\n".join(
        b"\n ".join(line[at : at + 60_000] for at in range(0, max(1, len(line)), 60_000)) for line in lines
    )
    kafka = Kafka()
    async with running(kafka) as listener:
        wire = await Wire.connect(listener.endpoint)
        assert (await wire.deliver("", rcpt, folded + b"\n"))[:3] == "250"
        assert (await wire.deliver("", signed("next"), UNKNOWN_USER))[:3] == "250"
        wire.close()

    assert len(kafka.records) >= 2
    assert kafka.feedback[-1].message_id == "next"


@pytest.mark.parametrize("reason", get_args(UnreadReason))
async def test_a_message_that_no_reader_gets_through_is_taken_and_set_aside(reason: UnreadReason) -> None:
    async def gives_up(_raw: bytes) -> Unreadable:
        return Unreadable(reason, "it was too much")

    kafka = Kafka()
    async with running(kafka, understand=gives_up) as listener:
        wire = await Wire.connect(listener.endpoint)
        assert (await wire.deliver("", signed(), UNKNOWN_USER))[:3] == "250"
        wire.close()

    (letter,) = kafka.records
    assert isinstance(letter, DeadLetter)
    assert (letter.reason, letter.explain) == (reason, "it was too much")
    assert b64decode(letter.raw).replace(b"\r\n", b"\n") == UNKNOWN_USER


async def test_a_mistake_in_finding_the_meaning_loses_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RecursionError

    monkeypatch.setattr(return_path_hooks, "meanings", broken)
    kafka = Kafka()
    async with running(kafka) as listener:
        wire = await Wire.connect(listener.endpoint)
        assert (await wire.deliver("", signed(), UNKNOWN_USER))[:3] == "250"
        wire.close()

    (letter,) = kafka.records
    assert isinstance(letter, DeadLetter)
    assert letter.reason == "reader_failed"


async def test_when_no_reader_can_be_started_the_peer_keeps_the_message() -> None:
    async def cannot(_raw: bytes) -> Unreadable:
        raise OSError("no more processes")

    kafka = Kafka()
    async with running(kafka, understand=cannot) as listener:
        wire = await Wire.connect(listener.endpoint)
        assert (await wire.deliver("", signed(), UNKNOWN_USER)).startswith("451 4.3.0")
        wire.close()

    assert kafka.records == []


async def test_mail_for_traps_and_of_people_who_unsubscribe_needs_no_reader() -> None:
    async def never(_raw: bytes) -> Unreadable:
        raise AssertionError

    kafka = Kafka()
    async with running(kafka, understand=never) as listener:
        wire = await Wire.connect(listener.endpoint)
        await wire.deliver(signed("m-5"), TRAP, b"Subject: buy\n\nnow\n")
        wire.close()

    assert [one.kind for one in kafka.feedback] == ["trap_hit"]


async def test_messages_that_wait_are_bounded() -> None:
    kafka = Kafka()
    kafka.gate.clear()
    async with running(kafka, limits=Limits(messages_in_hand=1)) as listener:
        first, second = await Wire.connect(listener.endpoint), await Wire.connect(listener.endpoint)
        await first.mail("", signed())
        await first.say("DATA")
        first.send(stuffed(UNKNOWN_USER) + b".\r\n")
        await until(lambda: kafka.asked == 1)
        assert (await second.say("MAIL FROM:<>")).startswith("452 4.3.1")
        kafka.gate.set()
        assert (await first.reply()).startswith("250")
        assert (await second.say("MAIL FROM:<>")).startswith("250")
        first.close()
        second.close()

    assert counted(listener, "refused_total", reason="messages_in_hand") == 1


async def test_a_bomb_in_one_connection_ends_a_reader_and_nothing_else() -> None:
    kafka, metrics = Kafka(), Metrics()
    async with (
        readers_that_obey(observe=metrics.read) as pool,
        running(kafka, understand=pool.understand, metrics=metrics) as listener,
    ):
        wires = [await Wire.connect(listener.endpoint) for _ in range(3)]
        said = await asyncio.gather(
            wires[0].deliver("", signed("m-0"), EATS_MEMORY),
            wires[1].deliver("", signed("m-1"), UNKNOWN_USER),
            wires[2].deliver("", signed("m-2"), UNKNOWN_USER),
        )
        assert (await wires[0].deliver("", signed("m-3"), UNKNOWN_USER))[:3] == "250"
        for wire in wires:
            wire.close()

    assert [one[:3] for one in said] == ["250"] * 3
    assert {one.message_id for one in kafka.feedback} == {"m-1", "m-2", "m-3"}
    assert [one.reason for one in kafka.letters] == ["reader_killed"]
    assert counted(listener, "unread_total", reason="reader_killed") == 1
    assert counted(listener, "parser_seconds_count") == 3


async def test_a_peer_that_hangs_up_while_kafka_is_slow_takes_nothing_down() -> None:
    kafka = Kafka()
    kafka.gate.clear()
    async with running(kafka) as listener:
        wire = await Wire.connect(listener.endpoint)
        await wire.mail("", signed())
        await wire.say("DATA")
        wire.send(stuffed(UNKNOWN_USER) + b".\r\n")
        await until(lambda: kafka.asked == 1)
        wire.close()
        await until(lambda: counted(listener, "connections") == 0)
        kafka.gate.set()

        again = await Wire.connect(listener.endpoint)
        assert (await again.deliver("", signed(), UNKNOWN_USER))[:3] == "250"
        again.close()

    assert [one.message_id for one in kafka.feedback] == ["m-1"]


async def test_addresses_with_odd_bytes_are_refused_or_kept_but_never_break_the_session() -> None:
    kafka = Kafka()
    async with running(kafka) as listener:
        wire = await Wire.connect(listener.endpoint)
        for odd in (b"\xff\xfe", b"\xc3\xbc", b"a\x01b", b"a\tb", b'"a b"', b"a" * 300, b"<", b"\xed\xa0\x80"):
            await wire.say(b"RSET")
            said = [
                await wire.say(b"MAIL FROM:<" + odd + b"@x.example>"),
                await wire.say(b"RCPT TO:<" + odd + b"@" + DOMAIN.encode() + b">"),
            ]
            assert all(one[:1] in {"2", "5"} for one in said)
        await wire.say(b"RSET")
        assert (await wire.deliver("ü@x.example", f"ü@{DOMAIN}", UNKNOWN_USER))[:3] == "250"
        wire.close()

    assert len(kafka.letters) == 1
