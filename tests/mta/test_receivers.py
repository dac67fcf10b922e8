"""The real client against real Postfix, Exim and OpenSMTPD: their answers, and that what arrives does so once."""

import asyncio
import contextlib
import dataclasses
import re
from collections import Counter
from itertools import count
from pathlib import Path

import dkim
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from policy.settings import Endpoint
from policy.templates import Template, compile_content
from policy.tokens import Keys
from schemas.delivery import DeliveryResult
from schemas.sending import Campaign, Content, Mailbox, OutboundMessage
from smtp.attempts import Attempt, Envelope, Impossible, Reply
from smtp.client import Bounds, SmtpMailer
from smtp.dkim import Key
from smtp.egress.ways import Egress
from smtp.sending.compose import Composer
from smtp.session import Timeouts
from tests.mta.conftest import cannot_run
from tests.mta.exim import EXIM
from tests.mta.postfix import POSTFIX
from tests.mta.rig import DOMAIN, MOST_BYTES, MOST_SESSIONS, CannotRun, Kind, MailServer, Place, running
from tests.smtp.sender_contract import Stage
from tests.smtp.servers import until
from tests.smtp.test_client import mailer as a_mailer
from tests.smtp.test_client import yes
from tests.smtp.test_dkim import RSA, public_record
from tests.smtp.test_sender import MemoryWorld

PATIENT = Timeouts(connect_s=5, command_s=10, dot_s=10)
NOW = 1_764_000_000_000
_numbers = count()


def mailer(
    endpoint: Endpoint, *, sessions: int = 1, bind: str | None = None
) -> contextlib.AbstractAsyncContextManager[SmtpMailer]:
    egress = Egress(bind=(bind,) if bind else (), allow_private=True)
    return a_mailer(endpoint, bounds=Bounds(sessions=sessions, back_off_s=0.0), timeouts=PATIENT, egress=egress)


def envelope(name: str, *, head: str = "", body: bytes = b"Hello\r\n.\r\n..dots\r\n", sender: str = "b") -> Envelope:
    data = (
        f"From: The Shop <news@shop.example>\r\nTo: {name}@{DOMAIN}\r\nSubject: hello\r\n"
        f"Date: Tue, 25 Nov 2025 12:00:00 +0000\r\nMessage-ID: <{next(_numbers)}@shop.example>\r\n{head}\r\n"
    )
    recipient = f"{name}@{DOMAIN}"
    return Envelope.checked(sender=f"{sender}@bounces.shop.example", recipient=recipient, data=data.encode() + body)


def message_id(message: bytes) -> bytes:
    found = re.search(rb"^Message-ID: (<[^>]*>)", message, re.MULTILINE | re.IGNORECASE)
    assert found is not None, message
    return found[1]


async def arrived(server: MailServer, data: bytes) -> bytes:
    """The message as the server keeps it, once it has been delivered."""
    wanted = message_id(data)
    found: list[bytes] = []

    def is_there() -> bool:
        found[:] = [message for message in server.messages() if message_id(message) == wanted]
        return bool(found)

    await until(is_there)
    return found[0]


def accepted(attempt: Attempt) -> Reply:
    assert isinstance(attempt, Reply), attempt
    assert attempt.accepted, attempt
    return attempt


async def test_a_message_goes_over_starttls_where_that_works_and_arrives_as_it_was_written(server: MailServer) -> None:
    one = envelope("alice")
    async with mailer(server.endpoint) as client:
        attempt = accepted(await client.send(one, go=yes))
    assert (attempt.tls is not None) == server.encrypts
    assert attempt.tls is None or attempt.tls.startswith("TLSv1.")
    assert (await arrived(server, one.data)).endswith(one.data.replace(b"\r\n", b"\n"))


async def test_a_message_that_must_be_encrypted_goes_over_starttls_or_not_at_all(server: MailServer) -> None:
    one = msgspec.structs.replace(envelope("alice"), must_encrypt=True)
    async with mailer(server.endpoint) as client:
        attempt = await client.send(one, go=yes)
    assert isinstance(attempt, Reply)
    if server.encrypts:
        assert accepted(attempt).tls is not None
    else:
        assert (attempt.stage, attempt.code) == ("tls", None)
    async with mailer(server.clear) as client:
        refused = await client.send(msgspec.structs.replace(envelope("alice"), must_encrypt=True), go=yes)
    assert isinstance(refused, Reply)
    assert (refused.stage, refused.code) == ("tls", None)


REFUSED = {
    "nosuch": ("rcpt", 550, r"User unknown|Invalid recipient"),
    "full": ("rcpt", 552, r"5\.2\.2 .*mailbox is full"),
    "policy": ("rcpt", 554, r"5\.7\.1 .*you are not wanted here"),
    "disk": ("rcpt", 452, r"4\.3\.1 .*Insufficient system storage"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_refused_recipient_is_told_and_the_session_goes_on(server: MailServer, name: str) -> None:
    stage, code, text = REFUSED[name]
    good = envelope("alice")
    async with mailer(server.clear) as client:
        attempts = await asyncio.gather(
            client.send(envelope("bob"), go=yes), client.send(envelope(name), go=yes), client.send(good, go=yes)
        )
    refused = attempts[1]
    assert isinstance(refused, Reply)
    assert (refused.stage, refused.code) == (stage, code)
    assert re.search(text, refused.text)
    assert "@" not in refused.text
    accepted(attempts[0])
    accepted(attempts[2])
    await arrived(server, good.data)


async def test_content_that_is_refused_after_the_dot_is_a_reply_to_the_dot(server: MailServer) -> None:
    unwanted, good = envelope("alice", head="X-Spam: yes\r\n"), envelope("alice")
    async with mailer(server.clear) as client:
        refused, taken = await asyncio.gather(client.send(unwanted, go=yes), client.send(good, go=yes))
    assert isinstance(refused, Reply)
    assert (refused.stage, refused.code, refused.text) == ("dot", 550, "5.7.1 content is not wanted")
    accepted(taken)
    await arrived(server, good.data)
    assert message_id(unwanted.data) not in {message_id(message) for message in server.messages()}


async def test_a_message_that_is_bigger_than_the_server_says_is_not_begun(server: MailServer) -> None:
    big = envelope("alice", body=b"x" * 70 + b"\r\n" + (b"y" * 70 + b"\r\n") * (MOST_BYTES // 70))
    async with mailer(server.clear) as client:
        attempt = await client.send(big, go=yes)
        accepted(await client.send(envelope("alice"), go=yes))
    assert isinstance(attempt, Impossible)
    assert attempt.category == "message_too_big"
    assert "50,000" in attempt.text


async def test_many_messages_over_few_sessions_arrive_once_each_and_whole(server: MailServer) -> None:
    sent = [envelope(("alice", "bob", "full", "nosuch")[n % 4], body=b"." * n + b"\r\n") for n in range(60)]
    async with mailer(server.clear, sessions=2) as client:
        attempts = await asyncio.gather(*(client.send(one, go=yes) for one in sent))
    taken = [
        one for one, attempt in zip(sent, attempts, strict=True) if isinstance(attempt, Reply) and attempt.accepted
    ]
    assert len(taken) == 30
    for one in taken:
        assert (await arrived(server, one.data)).endswith(one.data.replace(b"\r\n", b"\n"))
    assert Counter(message_id(message) for message in server.messages()).most_common(1)[0][1] == 1


async def test_a_421_ends_the_session_and_only_that(server: MailServer) -> None:
    async with mailer(server.clear) as client:
        accepted(await client.send(envelope("alice"), go=yes))
        busy = await client.send(envelope("busy"), go=yes)
        accepted(await client.send(envelope("alice"), go=yes))
    assert isinstance(busy, Reply)
    assert (busy.stage, busy.code, busy.enhanced) == ("rcpt", 421, "4.7.28")


async def test_a_server_that_takes_no_more_sessions_is_asked_again_later(server: MailServer) -> None:
    others = [await asyncio.open_connection(server.clear.host, server.clear.port) for _ in range(MOST_SESSIONS)]
    for reader, _ in others:
        assert (await reader.readline()).startswith(b"220")
    one = envelope("alice")
    async with mailer(server.clear) as client:
        attempt = await client.send(one, go=yes)
        assert isinstance(attempt, Reply)
        if server.kind.limits_sessions:
            assert attempt.stage in {"connect", "ehlo"}
            assert attempt.code == 421
        else:
            accepted(attempt)
        for _, writer in others:
            writer.close()
        async with asyncio.timeout(10):
            while not attempt.accepted:  # until the server has noticed
                again = await client.send(one, go=yes)
                assert isinstance(again, Reply)
                attempt = again
    await arrived(server, one.data)


async def test_a_server_that_has_heard_too_many_errors_is_asked_in_another_session(server: MailServer) -> None:
    async with mailer(server.clear) as client:
        attempts = [await client.send(envelope("nosuch"), go=yes) for _ in range(30)]
        accepted(await client.send(envelope("alice"), go=yes))
    codes = Counter(attempt.code for attempt in attempts if isinstance(attempt, Reply))
    assert codes[550] + codes[421] == 30
    assert codes[550] > 20


async def test_greylisting_lets_the_same_address_in_the_second_time(server: MailServer) -> None:
    async def attempt(bind: str) -> Reply:
        async with mailer(server.clear, bind=bind) as client:
            said = await client.send(envelope("grey", sender="grey-test"), go=yes)
        assert isinstance(said, Reply)
        return said

    first, other, second = [await attempt(bind) for bind in ("127.0.0.2", "127.0.0.3", "127.0.0.2")]
    assert [(said.stage, said.code, said.ip) for said in (first, other, second)] == [
        ("rcpt", 450, "127.0.0.2"),
        ("rcpt", 450, "127.0.0.3"),
        ("dot", 250, "127.0.0.2"),
    ]


async def test_a_signature_is_still_good_in_the_mailbox(server: MailServer) -> None:
    content = Content(
        campaign="spring",
        content="hello",
        subject="Caf\u00e9 {{name}}",
        text="Dear {{name}}\n.\n\ttab",
        html="<p>{{name}}</p>",
    )
    template = compile_content(content)
    assert isinstance(template, Template)
    composer = Composer(
        Keys(address=b"a" * 32, return_path=b"r" * 32), find_keys=lambda _: [Key("shop.example", "rsa", RSA)]
    )
    composed = composer.envelope(
        OutboundMessage(message_id="m-1", address=f"alice@{DOMAIN}", address_hash="h", vars={"name": "Zo\u00eb"}),
        campaign=Campaign(
            campaign="spring",
            from_=Mailbox(name="The Shop", address="news@shop.example"),
            return_path_domain="bounces.shop.example",
        ),
        template=template,
        now=NOW,
    )
    assert isinstance(composed, Envelope)
    async with mailer(server.endpoint) as client:
        accepted(await client.send(composed, go=yes))
    kept = (await arrived(server, composed.data)).replace(b"\n", b"\r\n")
    assert isinstance(RSA, rsa.RSAPrivateKey)
    assert dkim.verify(kept, dnsfunc=public_record)
    assert not dkim.verify(kept.replace(b"Dear", b"Deer"), dnsfunc=public_record)


async def test_a_whole_sender_accounts_for_what_a_real_server_says(server: MailServer) -> None:
    stage = Stage(MemoryWorld())
    stage.control(connections=MOST_SESSIONS)
    good = [f"{('alice', 'bob')[n % 2]}+accounted-{n}" for n in range(40)]
    for start in range(0, 40, 10):
        await stage.send(*good[start : start + 10], domain=DOMAIN, partition=start // 10 % 2)
    await stage.send("nosuch", "full", "policy", "disk", domain=DOMAIN)
    async with stage.sender(server.clear, timeouts=PATIENT):
        outcomes = await stage.has_outcomes(len(good) + 3)
        disk = await told(stage, "m-disk")
    assert outcomes == {
        **{f"m-{name}": "accepted" for name in good},
        "m-nosuch": "bounced", "m-full": "bounced", "m-policy": "bounced",
    }  # fmt: skip
    assert (disk.outcome, disk.code) == ("deferred", 452)
    there: Counter[str] = Counter()
    async with asyncio.timeout(10):
        while there.total() < len(good):
            await asyncio.sleep(0.02)
            there = Counter(
                re.findall(r"^To:.*?(\w+\+accounted-\d+)@", b"\n".join(server.messages()).decode(), re.MULTILINE)
            )
    assert there == dict.fromkeys(good, 1)


async def test_a_whole_sender_gets_through_greylisting_by_its_retry_plan(server: MailServer) -> None:
    stage = Stage(MemoryWorld())
    stage.control()
    await stage.send("grey", domain=DOMAIN)
    async with stage.sender(server.clear, timeouts=PATIENT):
        first = await told(stage, "m-grey")
        assert (first.outcome, first.class_) == ("deferred", "greylisted")
        stage.clock.advance(3600)
        second = await told(stage, "m-grey", number=2)
        assert (second.outcome, second.attempt) == ("accepted", 2)


async def told(stage: Stage, message_id: str, *, number: int = 1) -> DeliveryResult:
    """A result of a message, the first if nothing else is said."""
    results: list[DeliveryResult] = []
    async with asyncio.timeout(10):
        while len(results) < number:
            await asyncio.sleep(0.02)
            results = (await stage.told()).get(message_id, [])
    return results[number - 1]


FULL_DISK = {
    "Postfix": (POSTFIX, "etc/postfix/main.cf", "queue_minfree = 1000000000000000\n"),
    "Exim": (EXIM, "etc/exim4/exim4.conf", "check_spool_space = 1000000G\n"),
}


@pytest.mark.parametrize(("kind", "file", "line"), FULL_DISK.values(), ids=FULL_DISK)
async def test_a_server_whose_disk_is_full_puts_the_message_off(
    kind: Kind, file: str, line: str, tmp_path: Path
) -> None:
    def configure(place: Place) -> None:
        kind.configure(place)
        written = place.run / file
        written.write_text(line + written.read_text())

    try:
        with running(dataclasses.replace(kind, configure=configure), tmp_path) as full:
            async with mailer(full.clear) as client:
                attempts = await asyncio.gather(*(client.send(envelope("alice"), go=yes) for _ in range(3)))
    except CannotRun as why:
        cannot_run(why)
    for attempt in attempts:
        assert isinstance(attempt, Reply)
        assert (attempt.stage, attempt.code) == ("mail", 452)
        assert re.search("storage|space", attempt.text.lower())
