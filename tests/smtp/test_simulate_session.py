"""The wire side of a simulated provider, byte by byte, over real sockets."""

import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiosmtplib
import pytest

from policy.settings import Endpoint
from smtp.simulate import Config, SimulatedProviders, read_logs
from tests.smtp.wire import Wire, stuffed

MESSAGE = b"Message-ID: <m-1.spring-0a1b@shop.example>\nSubject: x\n\nhello\n"


@pytest.fixture
async def providers(tmp_path: Path) -> AsyncIterator[SimulatedProviders]:
    async with SimulatedProviders(Config(logs=tmp_path, starttls=True, max_message_bytes=100_000)) as running:
        yield running


@pytest.fixture
def google(providers: SimulatedProviders) -> Endpoint:
    return providers.servers["google"].endpoint


def _accepted(providers: SimulatedProviders) -> list[str | None]:
    return [one.rcpt for one in read_logs(providers.config.logs) if one.event == "accepted"]


async def test_ehlo_offers_what_the_large_providers_offer(google: Endpoint) -> None:
    wire = await Wire.connect(google, ehlo=False)

    words = {line[4:].split()[0] for line in (await wire.say("EHLO x")).split("\n")[1:]}

    assert words == {"PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "STARTTLS", "ENHANCEDSTATUSCODES"}
    wire.close()


async def test_a_whole_dialogue_in_one_packet_is_answered_in_order(
    providers: SimulatedProviders, google: Endpoint
) -> None:
    wire = await Wire.connect(google)

    wire.send(
        b"MAIL FROM:<a@shop.example>\r\nRCPT TO:<unknown@gmail.example>\r\nRCPT TO:<ann@gmail.example>\r\nDATA\r\n"
    )
    replies = [(await wire.reply())[:3] for _ in range(4)]
    wire.send(stuffed(MESSAGE) + b".\r\nMAIL FROM:<a@shop.example>\r\nRSET\r\nNOOP\r\nQUIT\r\n")
    replies += [(await wire.reply())[:3] for _ in range(5)]

    assert replies == ["250", "550", "250", "354", "250", "250", "250", "250", "221"]
    assert await wire.is_hung_up()
    assert _accepted(providers) == ["ann@gmail.example"]


async def test_bytes_may_come_one_by_one(providers: SimulatedProviders, google: Endpoint) -> None:
    wire = await Wire.connect(google)
    await wire.mail("a@shop.example", "ann@gmail.example")
    await wire.say("DATA")

    for byte in stuffed(MESSAGE) + b".\r\n":
        wire.send(bytes([byte]))

    assert (await wire.reply()).startswith("250")
    assert _accepted(providers) == ["ann@gmail.example"]
    wire.close()


@pytest.mark.parametrize(
    "command",
    [
        pytest.param("MAIL FROM:ann", id="no brackets"),
        pytest.param("MAIL FROM:<a b@c>", id="blank in the address"),
        pytest.param("MAIL FROM:<a@b> FOO=BAR", id="unknown parameter"),
        pytest.param("MAIL FROM:<a@b> SIZE=999999999", id="too big by its own word"),
        pytest.param("RCPT TO:<a@gmail.example>", id="RCPT without MAIL"),
        pytest.param("DATA", id="DATA without MAIL"),
        pytest.param("BDAT 5 LAST", id="not offered"),
        pytest.param("EHLO", id="EHLO without a name"),
        pytest.param("", id="an empty line"),
    ],
)
async def test_wrong_commands_are_refused_and_the_session_goes_on(google: Endpoint, command: str) -> None:
    wire = await Wire.connect(google)

    assert (await wire.say(command))[0] == "5"
    assert (await wire.deliver("a@shop.example", "ann@gmail.example", MESSAGE)).startswith("250")
    wire.close()


async def test_mail_before_ehlo_is_refused(google: Endpoint) -> None:
    wire = await Wire.connect(google, ehlo=False)

    assert (await wire.say("MAIL FROM:<>")).startswith("503")
    wire.close()


async def test_a_second_mail_in_a_transaction_is_refused(google: Endpoint) -> None:
    wire = await Wire.connect(google)

    assert [(await wire.say("MAIL FROM:<a@b.example>"))[:3] for _ in range(2)] == ["250", "503"]
    wire.close()


async def test_a_command_without_end_is_cut_off(google: Endpoint) -> None:
    wire = await Wire.connect(google)

    assert (await wire.say(b"NOOP " + b"x" * 5_000)).startswith("500")
    assert await wire.is_hung_up()


@pytest.mark.parametrize(
    "smuggled",
    [
        pytest.param(b"a\n.\nMAIL FROM:<evil@x.example>\r\n", id="LF dot LF"),
        pytest.param(b"a\n.\r\nMAIL FROM:<evil@x.example>\r\n", id="LF dot CRLF"),
        pytest.param(b"a\r\n.\nMAIL FROM:<evil@x.example>\r\n", id="CRLF dot LF"),
        pytest.param(b"a\r.\rMAIL FROM:<evil@x.example>\r\n", id="CR dot CR"),
        pytest.param(b"a\r.\r\nMAIL FROM:<evil@x.example>\r\n", id="CR dot CRLF"),
        pytest.param(b"a\r\n.\rMAIL FROM:<evil@x.example>\r\n", id="CRLF dot CR"),
        pytest.param(b"a\n\n.\n\nMAIL FROM:<evil@x.example>\r\n", id="LF LF dot LF LF"),
        pytest.param(b"a\r\n\x00.\r\n\nMAIL FROM:<evil@x.example>\r\n", id="NUL dot, then LF"),
    ],
)
async def test_nothing_is_smuggled_behind_a_false_end(
    providers: SimulatedProviders, google: Endpoint, smuggled: bytes
) -> None:
    wire = await Wire.connect(google)
    await wire.mail("a@shop.example", "ann@gmail.example")
    await wire.say("DATA")

    wire.send(smuggled + b"RCPT TO:<bob@gmail.example>\r\nDATA\r\nhello\r\n.\r\n")

    assert (await wire.reply()).startswith("521")
    assert await wire.is_hung_up()
    assert _accepted(providers) == []


async def test_a_bare_line_feed_ends_no_command(google: Endpoint) -> None:
    wire = await Wire.connect(google)

    wire.send(b"NOOP\nNOOP\r\n")

    assert (await wire.reply()).startswith("521")
    assert await wire.is_hung_up()


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b".", id="a dot"),
        pytest.param(b"..", id="two dots"),
        pytest.param(b".hidden\r\n\r\n.\r\nlast", id="dots within"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"\r\n\r\n", id="empty lines"),
    ],
)
async def test_dots_at_line_begin_arrive_as_they_were(tmp_path: Path, body: bytes) -> None:
    config = Config(logs=tmp_path, return_path=Endpoint("127.0.0.1", 1))
    async with SimulatedProviders(config) as running:
        traps = running.servers["traps"]
        client = aiosmtplib.SMTP(hostname="127.0.0.1", port=traps.endpoint.port, start_tls=False)
        async with client:
            await client.sendmail("a@shop.example", ["t@traps.example"], b"Subject: x\r\n\r\n" + body)

        assert traps.outbox is not None
        (kept,) = traps.outbox.waiting
        assert kept.raw == b"Subject: x\r\n\r\n" + body + (b"" if body.endswith(b"\r\n") or not body else b"\r\n")


async def test_an_empty_message_is_a_message(providers: SimulatedProviders, google: Endpoint) -> None:
    wire = await Wire.connect(google)
    await wire.mail("a@shop.example", "ann@gmail.example")
    await wire.say("DATA")

    assert (await wire.say(".")).startswith("250")
    assert _accepted(providers) == ["ann@gmail.example"]
    wire.close()


async def test_a_message_that_is_too_big_is_refused_and_the_next_one_taken(
    providers: SimulatedProviders, google: Endpoint
) -> None:
    wire = await Wire.connect(google)

    assert (await wire.deliver("a@shop.example", "ann@gmail.example", b"x" * 70 + b"\n" + b"y\n" * 90_000))[:3] == "552"
    assert (await wire.deliver("a@shop.example", "bob@gmail.example", MESSAGE)).startswith("250")
    assert _accepted(providers) == ["bob@gmail.example"]
    wire.close()


async def test_addresses_may_be_utf8(providers: SimulatedProviders, google: Endpoint) -> None:
    wire = await Wire.connect(google)

    assert (await wire.say("MAIL FROM:<ü@shop.example> SMTPUTF8"))[:3] == "250"
    assert (await wire.say("RCPT TO:<üü@gmail.example>"))[:3] == "250"
    await wire.say("RSET")
    assert (await wire.say(b"MAIL FROM:<\xff@shop.example>"))[:3] == "501"
    wire.close()


async def test_starttls_works_with_a_certificate_drawn_at_start(google: Endpoint) -> None:
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    client = aiosmtplib.SMTP(hostname="127.0.0.1", port=google.port, start_tls=True, tls_context=trusting)

    async with client:
        assert not client.supports_extension("starttls")
        _, said = await client.sendmail("a@shop.example", ["ann@gmail.example"], MESSAGE)

    assert said.startswith("2.0.0 Ok")


async def test_what_is_sent_in_clear_behind_starttls_counts_for_nothing(google: Endpoint) -> None:
    wire = await Wire.connect(google)

    wire.send(b"STARTTLS\r\nMAIL FROM:<evil@x.example>\r\n")

    assert (await wire.reply()).startswith("503")
    assert await wire.is_hung_up()


async def test_a_handshake_that_is_none_ends_the_connection(google: Endpoint) -> None:
    wire = await Wire.connect(google)
    await wire.say("STARTTLS")

    wire.send(b"this is no handshake\r\n" * 3)

    await wire.reply()
    assert await wire.is_hung_up()
