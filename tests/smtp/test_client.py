"""The delivery client against servers that do everything servers do."""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.settings import Endpoint
from smtp.attempts import Envelope, Impossible, Reply, Uncertain, UnsafeEnvelope, Withheld, shown, stuffed
from smtp.client import Bounds, SmtpMailer
from smtp.egress.ways import Egress
from smtp.mx import NextHops
from smtp.opener import Opener
from smtp.session import Timeouts
from tests.smtp.servers import CLOSE, SILENCE, Inbox, Script, aiosmtpd_server, scripted, server_tls, until

SHORT = Timeouts(connect_s=0.3, greeting_s=0.3, command_s=0.3, dot_s=0.3)
AT_ONCE = Bounds(back_off_s=0.0)
ANYWHERE = Egress(allow_private=True)
DATA = b"Subject: x\r\n\r\nbody\r\n"


def yes() -> bool:
    return True


def envelope(recipient: str = "ann@example.com", data: bytes = DATA) -> Envelope:
    return Envelope.checked(sender="b+abc@bounces.shop.example", recipient=recipient, data=data)


@contextlib.asynccontextmanager
async def mailer(
    *endpoints: Endpoint, bounds: Bounds = AT_ONCE, timeouts: Timeouts = SHORT, egress: Egress = ANYWHERE
) -> AsyncIterator[SmtpMailer]:
    routes = {"*": endpoints[0]} | {f"{n}.example": endpoint for n, endpoint in enumerate(endpoints)}
    one = SmtpMailer(NextHops(routes), Opener(hostname="me.example", timeouts=timeouts, egress=egress), bounds=bounds)
    try:
        yield one
    finally:
        await one.close()


async def test_a_message_reaches_a_real_server_as_it_was_written() -> None:
    inbox = Inbox()
    data = b"Subject: dots\r\n\r\n.\r\n..\r\n.a\r\nb.\r\n"
    async with aiosmtpd_server(inbox, enable_SMTPUTF8=True) as server, mailer(server) as client:
        attempt = await client.send(envelope(data=data), go=yes)
    assert isinstance(attempt, Reply)
    assert attempt.accepted
    assert (attempt.stage, attempt.code, attempt.enhanced, attempt.text) == ("dot", 250, "2.0.0", "2.0.0 taken")
    assert (attempt.ip, attempt.mx, attempt.tls) == ("127.0.0.1", "127.0.0.1", None)
    assert inbox.envelopes[0].mail_from == "b+abc@bounces.shop.example"
    assert inbox.envelopes[0].rcpt_tos == ["ann@example.com"]
    assert inbox.envelopes[0].original_content == data


async def test_starttls_is_used_when_offered_whoever_the_certificate_names(tmp_path: Path) -> None:
    inbox = Inbox()
    async with aiosmtpd_server(inbox, tls_context=server_tls(tmp_path)) as server, mailer(server) as client:
        attempt = await client.send(envelope(), go=yes)
    assert isinstance(attempt, Reply)
    assert attempt.accepted
    assert attempt.tls is not None
    assert attempt.tls.startswith("TLSv1.")
    assert inbox.encrypted == [True]


async def test_a_server_that_fails_at_starttls_gets_its_mail_without(tmp_path: Path) -> None:
    del tmp_path
    script = Script(ehlo=b"250-mx\r\n250 STARTTLS\r\n")
    script.starttls = b"220 ready\r\n"  # type: ignore[attr-defined]  # and then it goes on in clear
    async with scripted(script), mailer(script.endpoint) as client:
        first = await client.send(envelope(), go=yes)
        assert isinstance(first, Reply)
        assert first.accepted
        assert first.tls is None
    assert script.connections == 2


async def test_a_session_is_used_again_and_ended_politely() -> None:
    script = Script()
    async with scripted(script):
        async with mailer(script.endpoint) as client:
            for _ in range(5):
                await client.send(envelope(), go=yes)
        assert script.connections == 1
        assert len(script.taken) == 5
        assert script.heard[-1] == b"QUIT\r\n"


async def test_a_session_carries_a_bounded_number_of_messages() -> None:
    script = Script()
    async with scripted(script), mailer(script.endpoint, bounds=Bounds(messages=2)) as client:
        for _ in range(5):
            await client.send(envelope(), go=yes)
        assert [taken.connection for taken in script.taken] == [1, 1, 2, 2, 3]


async def test_a_next_hop_has_a_bounded_number_of_sessions() -> None:
    script = Script()
    async with scripted(script), mailer(script.endpoint, bounds=Bounds(sessions=3)) as client:
        attempts = await asyncio.gather(*(client.send(envelope(), go=yes) for _ in range(20)))
        assert all(isinstance(attempt, Reply) and attempt.accepted for attempt in attempts)
        assert script.connections == 3


async def test_a_session_that_rests_too_long_is_ended() -> None:
    script = Script()
    async with scripted(script), mailer(script.endpoint, bounds=Bounds(idle_s=0.05)) as client:
        await client.send(envelope(), go=yes)
        await until(lambda: script.open_now == 0)
        assert script.heard[-1] == b"QUIT\r\n"


async def test_a_session_that_the_server_closed_meanwhile_is_replaced_at_once() -> None:
    answers = iter([b"250 ok\r\n", CLOSE, b"250 ok\r\n"])
    script = Script(mail=lambda _: next(answers))
    async with scripted(script), mailer(script.endpoint) as client:
        await client.send(envelope(), go=yes)
        attempt = await client.send(envelope("bob@example.com"), go=yes)
        assert isinstance(attempt, Reply)
        assert attempt.accepted
        assert [taken.recipient for taken in script.taken] == [b"ann@example.com", b"bob@example.com"]


async def test_messages_for_different_hops_take_different_sessions() -> None:
    one, two = Script(), Script()
    async with scripted(one), scripted(two), mailer(one.endpoint, two.endpoint) as client:
        await client.send(envelope("a@0.example"), go=yes)
        await client.send(envelope("b@1.example"), go=yes)
    assert [len(one.taken), len(two.taken)] == [1, 1]


@pytest.mark.parametrize(
    ("script", "stage", "code", "enhanced"),
    [
        (Script(greeting=b"554 5.7.1 no service for you\r\n"), "connect", 554, "5.7.1"),
        (Script(greeting=b"421 4.7.0 busy\r\n"), "connect", 421, "4.7.0"),
        (Script(ehlo=b"502 no\r\n", helo=b"550 5.7.1 no\r\n"), "ehlo", 550, "5.7.1"),
        (Script(mail=b"550 5.7.1 blocked\r\n"), "mail", 550, "5.7.1"),
        (Script(rcpt=b"550-5.1.1 no such user\r\n550 5.1.1 at all\r\n"), "rcpt", 550, "5.1.1"),
        (Script(rcpt=b"452 4.2.2 full\r\n"), "rcpt", 452, "4.2.2"),
        (Script(data=b"451 4.3.0 later\r\n"), "data", 451, "4.3.0"),
        (Script(dot=b"552 5.2.2 over quota\r\n"), "dot", 552, "5.2.2"),
        (Script(dot=b"451 4.7.1 greylisted\r\n"), "dot", 451, "4.7.1"),
        (Script(rcpt=b"421 4.7.28 too fast\r\n"), "rcpt", 421, "4.7.28"),
        (Script(rcpt=b"550 no enhanced code\r\n"), "rcpt", 550, None),
    ],
    ids=lambda value: str(value) if isinstance(value, str | int) else "",
)
async def test_what_the_server_says_is_the_answer(script: Script, stage: str, code: int, enhanced: str | None) -> None:
    async with scripted(script), mailer(script.endpoint) as client:
        attempt = await client.send(envelope(), go=yes)
    assert isinstance(attempt, Reply)
    assert (attempt.stage, attempt.code, attempt.enhanced, attempt.accepted) == (stage, code, enhanced, False)
    assert not script.taken


@pytest.mark.parametrize("place", ["greeting", "ehlo", "mail", "rcpt", "data"])
@pytest.mark.parametrize(
    "trouble", [CLOSE, SILENCE, b"nonsense\r\n", b"9" * 40_000], ids=["lost", "late", "odd", "long"]
)
async def test_trouble_before_the_dot_is_a_reply_without_a_code(place: str, trouble: bytes) -> None:
    script = Script(**{place: trouble})
    async with scripted(script), mailer(script.endpoint) as client:
        attempt = await client.send(envelope(), go=yes)
    assert isinstance(attempt, Reply)
    assert attempt.code is None
    assert attempt.stage == {"greeting": "connect"}.get(place, place)
    assert len(attempt.text) <= 300


@pytest.mark.parametrize(
    "trouble", [CLOSE, SILENCE, b"nonsense\r\n", b"354 more\r\n"], ids=["lost", "late", "odd", "out-of-step"]
)
async def test_trouble_after_the_dot_is_uncertain(trouble: bytes) -> None:
    script = Script(dot=trouble)
    async with scripted(script), mailer(script.endpoint) as client:
        attempt = await client.send(envelope(), go=yes)
        assert isinstance(attempt, Uncertain)
        assert attempt.mx == "127.0.0.1"
        await until(lambda: script.open_now == 0)


async def test_nobody_listening_is_a_reply_without_a_code() -> None:
    async with scripted(Script()) as script:
        endpoint = script.endpoint
    async with mailer(endpoint) as client:
        attempt = await client.send(envelope(), go=yes)
    assert isinstance(attempt, Reply)
    assert (attempt.stage, attempt.code) == ("connect", None)


async def test_a_refused_recipient_does_not_disturb_the_next_message() -> None:
    refused = b"550 5.1.1 no such user\r\n"
    script = Script(rcpt=lambda line: refused if b"unknown" in line else b"250 ok\r\n")
    async with scripted(script), mailer(script.endpoint) as client:
        await client.send(envelope("unknown@example.com"), go=yes)
        attempt = await client.send(envelope(), go=yes)
        assert isinstance(attempt, Reply)
        assert attempt.accepted
        assert script.connections == 1
        assert b"RSET\r\n" in script.heard


async def test_no_means_no_mail_from() -> None:
    script = Script()
    async with scripted(script), mailer(script.endpoint) as client:
        assert await client.send(envelope(), go=lambda: False) == Withheld()
        assert not [line for line in script.heard if line.startswith(b"MAIL")]
        assert isinstance(await client.send(envelope(), go=yes), Reply)
        assert script.connections == 1


@pytest.mark.parametrize("place", ["greeting", "mail", "rcpt", "data", "dot"])
async def test_421_closes_the_session_and_leaves_the_hop_alone_longer_each_time(place: str) -> None:
    script = Script(**{place: b"421 4.7.0 try later\r\n"})
    async with scripted(script), mailer(script.endpoint, bounds=Bounds(back_off_s=0.02)) as client:
        waits = []
        for _ in range(3):
            attempt = await client.send(envelope(), go=yes)
            assert isinstance(attempt, Reply)
            assert attempt.code == 421
            waits.append(client.closed_for_s("example.com"))
            await until(lambda: client.closed_for_s("example.com") == 0.0)
        assert 0 < waits[0] < waits[1] < waits[2]
        await until(lambda: script.open_now == 0)


async def test_a_good_answer_ends_the_backing_off() -> None:
    answers = iter([b"421 no\r\n", b"250 ok\r\n", b"421 no\r\n"])
    script = Script(mail=lambda _: next(answers))
    async with scripted(script), mailer(script.endpoint, bounds=Bounds(back_off_s=0.05)) as client:
        await client.send(envelope(), go=yes)
        first = client.closed_for_s("example.com")
        await client.send(envelope(), go=yes)
        await until(lambda: client.closed_for_s("example.com") == 0.0)
        await client.send(envelope(), go=yes)
        assert client.closed_for_s("example.com") <= 0.05
        assert first <= 0.05


async def test_smtputf8_is_asked_for_and_used() -> None:
    script = Script(ehlo=b"250-mx\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n")
    async with scripted(script), mailer(script.endpoint) as client:
        attempt = await client.send(envelope("zoë@example.com"), go=yes)
        assert isinstance(attempt, Reply)
        assert attempt.accepted
    assert b"MAIL FROM:<b+abc@bounces.shop.example> SMTPUTF8 BODY=8BITMIME\r\n" in script.heard
    assert "RCPT TO:<zoë@example.com>\r\n".encode() in script.heard


async def test_a_server_without_smtputf8_cannot_get_such_mail() -> None:
    script = Script()
    async with scripted(script), mailer(script.endpoint) as client:
        attempt = await client.send(envelope("zoë@example.com"), go=yes)
        assert isinstance(attempt, Impossible)
        assert attempt.category == "smtputf8_unsupported"
        assert isinstance(await client.send(envelope(), go=yes), Reply)
    assert script.connections == 1


async def test_a_message_over_the_servers_size_is_not_begun() -> None:
    script = Script(ehlo=b"250-mx\r\n250 SIZE 100\r\n")
    async with scripted(script), mailer(script.endpoint) as client:
        attempt = await client.send(envelope(data=b"x" * 101), go=yes)
        assert isinstance(attempt, Impossible)
        assert attempt.category == "message_too_big"
        await client.send(envelope(data=b"y" * 98 + b"\r\n"), go=yes)
    assert [line for line in script.heard if line.startswith(b"MAIL")] == [
        b"MAIL FROM:<b+abc@bounces.shop.example> SIZE=100\r\n"
    ]


async def test_an_old_server_without_ehlo_gets_its_mail() -> None:
    script = Script(ehlo=b"500 what?\r\n")
    async with scripted(script), mailer(script.endpoint) as client:
        attempt = await client.send(envelope(), go=yes)
    assert isinstance(attempt, Reply)
    assert attempt.accepted
    assert b"HELO me.example\r\n" in script.heard


async def test_cut_gives_everybody_under_way_an_answer() -> None:
    script = Script(dot=SILENCE)
    async with scripted(script), mailer(script.endpoint, timeouts=Timeouts()) as client:
        under_way = [asyncio.create_task(client.send(envelope(), go=yes)) for _ in range(3)]
        await until(lambda: len(script.taken) == 3)
        client.cut()
        assert [type(attempt) for attempt in await asyncio.gather(*under_way)] == [Uncertain] * 3
        script.dot = b"250 ok\r\n"
        assert isinstance(await client.send(envelope(), go=yes), Reply)


async def test_cut_reaches_those_that_are_still_connecting() -> None:
    script = Script(greeting=SILENCE)
    async with scripted(script), mailer(script.endpoint, timeouts=Timeouts()) as client:
        connecting = asyncio.create_task(client.send(envelope(), go=yes))
        await until(lambda: script.connections == 1)
        client.cut()
        attempt = await connecting
        assert isinstance(attempt, Reply)
        assert (attempt.stage, attempt.code) == ("connect", None)
        assert client.closed_for_s("example.com") == 0.0


async def test_after_closing_nobody_gets_a_connection() -> None:
    script = Script(dot=SILENCE)
    async with scripted(script), mailer(script.endpoint, bounds=Bounds(sessions=1), timeouts=Timeouts()) as client:
        under_way = asyncio.create_task(client.send(envelope(), go=yes))
        await until(lambda: len(script.taken) == 1)
        waiting = asyncio.create_task(client.send(envelope(), go=yes))
        await asyncio.sleep(0)
        await client.close()
        assert isinstance(await under_way, Uncertain)
        for late in (await waiting, await client.send(envelope(), go=yes)):
            assert isinstance(late, Reply)
            assert (late.stage, late.code) == ("connect", None)
        assert script.connections == 1


async def test_a_cancelled_attempt_leaves_no_session_behind() -> None:
    script = Script(rcpt=SILENCE)
    async with scripted(script), mailer(script.endpoint, bounds=Bounds(sessions=1), timeouts=Timeouts()) as client:
        under_way = asyncio.create_task(client.send(envelope(), go=yes))
        await until(lambda: any(line.startswith(b"RCPT") for line in script.heard))
        under_way.cancel()
        with pytest.raises(asyncio.CancelledError):
            await under_way
        await until(lambda: script.open_now == 0)
        script.rcpt = b"250 ok\r\n"
        assert isinstance(await client.send(envelope(), go=yes), Reply)
    gc.collect()


async def test_the_source_address_is_the_one_that_was_set() -> None:
    script = Script()
    async with (
        scripted(script),
        mailer(script.endpoint, egress=Egress(bind=("127.0.0.2",), allow_private=True)) as client,
    ):
        attempt = await client.send(envelope(), go=yes)
    assert isinstance(attempt, Reply)
    assert attempt.ip == "127.0.0.2"


@pytest.mark.parametrize(
    "address",
    [
        "a@b.example\r\nRCPT TO:<c@d.example>",
        "a@b.example> NOTIFY=NEVER",
        "<a@b.example",
        "a b@c.example",
        "ab",
        "a\0@b",
    ],
)
def test_an_address_that_would_break_its_command_is_never_sent(address: str) -> None:
    with pytest.raises(UnsafeEnvelope) as refused:
        envelope(address)
    assert address not in str(refused.value)


@pytest.mark.parametrize(
    "data", [b"a\n.\r\n", b"a\r\n.\n", b"a\r.\r\n", b"\r\r\n", b"\n"], ids=["lf-dot", "dot-lf", "cr", "cr-cr-lf", "lf"]
)
def test_bare_line_ends_are_never_sent(data: bytes) -> None:
    with pytest.raises(UnsafeEnvelope):
        envelope(data=data)


@given(lines=st.lists(st.sampled_from([b"", b".", b"..", b"a", b".a", b"a."]), min_size=1, max_size=8))
def test_stuffing_is_undone_by_the_rule_of_the_rfc(lines: list[bytes]) -> None:
    data = b"".join(line + b"\r\n" for line in lines)
    *on_the_wire, end = stuffed(data).split(b"\r\n")
    assert end == b""
    assert [line.removeprefix(b".") for line in on_the_wire] == lines
    assert b"." not in on_the_wire


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("5.1.1 <ann@example.com>: no\nsuch user", "5.1.1 <<address>>: no such user"),
        ("user ann@example.com unknown", "user <address> unknown"),
        ("x\x00\x1b[31m\r\ny", "x [31m y"),
        ("\udcff\udcfe", "??"),
        ("a" * 500, "a" * 300),
    ],
    ids=["brackets", "bare", "controls", "no-utf8", "long"],
)
def test_replies_are_cut_cleaned_and_without_addresses(said: str, kept: str) -> None:
    assert shown(said) == kept
