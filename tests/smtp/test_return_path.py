"""The return path over real sockets: what it takes, what it says, and when it says 250."""

import asyncio
import smtplib
import ssl
from pathlib import Path

import aiosmtplib
import pytest

from smtp.gate import Limits
from smtp.return_path import tls_context
from smtp.simulate.certificate import pem
from tests.smtp.mailroom import DOMAIN, KEYS, NOW, TRAP, Kafka, counted, running, signed
from tests.smtp.wire import FIXTURES, Wire, stuffed, until

UNKNOWN_USER = (FIXTURES / "samples/1-dsn-userunknown.eml").read_bytes()
DELAYED = (FIXTURES / "dsn/postfix/013-b_down1.eml").read_bytes()


async def test_a_bounce_is_answered_with_250_when_kafka_has_it() -> None:
    kafka = Kafka()
    async with running(kafka) as listener:
        wire = await Wire.connect(listener.endpoint)
        said = await wire.deliver("", signed(), UNKNOWN_USER)
        wire.close()

    assert said.startswith("250")
    assert [(one.kind, one.message_id) for one in kafka.feedback] == [("hard_bounce", "m-1")]
    assert counted(listener, "messages_total", result="accepted") == 1
    assert counted(listener, "feedback_total", kind="hard_bounce") == 1
    assert counted(listener, "replies_total", code="354") == 1


async def test_250_is_not_said_before_kafka_has_acknowledged() -> None:
    kafka = Kafka()
    kafka.gate.clear()
    async with running(kafka) as listener:
        wire = await Wire.connect(listener.endpoint)
        await wire.mail("", signed())
        await wire.say("DATA")
        wire.send(stuffed(UNKNOWN_USER) + b".\r\n")
        reply = asyncio.create_task(wire.reply())
        await until(lambda: kafka.asked == 1)
        assert not reply.done()

        kafka.gate.set()

        assert (await reply).startswith("250")
        wire.close()


@pytest.mark.parametrize("trouble", ["down", "silent"])
async def test_without_kafka_the_peer_keeps_the_message_and_tries_again(trouble: str) -> None:
    kafka = Kafka(is_down=trouble == "down")
    if trouble == "silent":
        kafka.gate.clear()
    async with running(kafka, limits=Limits(publish_s=0.05)) as listener:
        wire = await Wire.connect(listener.endpoint)
        first = await wire.deliver("", signed(), UNKNOWN_USER)
        kafka.is_down = False
        kafka.gate.set()
        second = await wire.deliver("", signed(), UNKNOWN_USER)
        wire.close()

    assert (first[:9], second[:3]) == ("451 4.3.0", "250")
    assert [one.kind for one in kafka.feedback] == ["hard_bounce"]
    assert counted(listener, "messages_total", result="try_later") == 1


async def test_a_message_that_comes_again_within_a_minute_is_published_once() -> None:
    kafka = Kafka()
    clock = [NOW]
    async with running(kafka, now=lambda: clock[0]) as listener:
        wire = await Wire.connect(listener.endpoint)
        for _ in range(3):
            assert (await wire.deliver("", signed(), UNKNOWN_USER)).startswith("250")
            clock[0] += 30_000
        await wire.deliver("", signed("m-2"), UNKNOWN_USER)
        wire.close()

    assert [one.message_id for one in kafka.feedback] == ["m-1", "m-2"]
    assert kafka.letters == []
    assert counted(listener, "repeats_total") == 2


async def test_feedback_that_comes_again_later_was_kept_to_be_replayed_and_is_a_dead_letter() -> None:
    kafka = Kafka()
    clock = [NOW]
    async with running(kafka, now=lambda: clock[0]) as listener:
        wire = await Wire.connect(listener.endpoint)
        for pause in (59_000, 2_000, 86_400_000):
            assert (await wire.deliver("", signed(), UNKNOWN_USER)).startswith("250")
            clock[0] += pause
        assert (await wire.deliver("", signed(), UNKNOWN_USER)).startswith("250")
        wire.close()

    assert [one.message_id for one in kafka.feedback] == ["m-1"]
    assert [one.reason for one in kafka.letters] == ["replayed", "replayed"]
    assert counted(listener, "repeats_total") == 1
    assert counted(listener, "disbelieved_total", reason="replayed") == 2


async def test_another_signal_about_the_same_message_is_no_replay() -> None:
    kafka = Kafka()
    clock = [NOW]
    async with running(kafka, now=lambda: clock[0]) as listener:
        wire = await Wire.connect(listener.endpoint)
        await wire.deliver("", signed(), UNKNOWN_USER)
        clock[0] += 3_600_000
        await wire.deliver("", signed(), (FIXTURES / "samples/5-arf-abuse-redacted.eml").read_bytes())
        wire.close()

    assert [one.kind for one in kafka.feedback] == ["hard_bounce", "complaint"]


async def test_what_kafka_did_not_get_is_believed_when_it_comes_again() -> None:
    kafka = Kafka(is_down=True)
    clock = [NOW]
    async with running(kafka, now=lambda: clock[0]) as listener:
        wire = await Wire.connect(listener.endpoint)
        assert (await wire.deliver("", signed(), UNKNOWN_USER)).startswith("451")
        kafka.is_down = False
        clock[0] += 3_600_000
        assert (await wire.deliver("", signed(), UNKNOWN_USER)).startswith("250")
        wire.close()

    assert [one.kind for one in kafka.feedback] == ["hard_bounce"]


async def test_news_without_a_consequence_is_taken_and_not_published() -> None:
    kafka = Kafka()
    async with running(kafka) as listener:
        wire = await Wire.connect(listener.endpoint)
        assert (await wire.deliver("", signed(), DELAYED)).startswith("250")
        wire.close()

    assert kafka.records == []
    assert counted(listener, "noted_total", what="delayed") == 1


async def test_a_forged_return_path_is_a_dead_letter_and_250() -> None:
    kafka = Kafka()
    forged = f"b+{'a' * 50}@{DOMAIN}"
    async with running(kafka) as listener:
        wire = await Wire.connect(listener.endpoint)
        assert (await wire.deliver("", forged, UNKNOWN_USER)).startswith("250")
        wire.close()

    assert kafka.feedback == []
    (letter,) = kafka.letters
    assert counted(listener, "dead_letters_total", reason=letter.reason) == 1
    assert counted(listener, "disbelieved_total", reason="bad_signature") == 1


async def test_a_complaint_with_a_forged_message_id_is_a_dead_letter_and_counted() -> None:
    kafka = Kafka()
    parts = (
        "Content-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\n",
        "Content-Type: message/rfc822\r\n\r\nMessage-ID: <m-5.shop-aaaaaaaa.aaaaaaaaaaaaaaaa@shop.example>\r\n\r\n",
    )
    report = "Content-Type: multipart/report; report-type=feedback-report; boundary=b\r\n\r\n"
    report += "".join(f"--b\r\n{part}" for part in parts) + "--b--\r\n"
    async with running(kafka) as listener:
        wire = await Wire.connect(listener.endpoint)
        assert (await wire.deliver("", f"complaints@{DOMAIN}", report.encode())).startswith("250")
        wire.close()

    assert [letter.reason for letter in kafka.letters] == ["message_id_bad_signature"]
    assert counted(listener, "disbelieved_total", reason="bad_signature") == 1


async def test_trap_mail_is_a_trap_hit_of_its_campaign() -> None:
    kafka = Kafka()
    async with running(kafka) as listener:
        wire = await Wire.connect(listener.endpoint)
        await wire.deliver(signed("m-5", name="bought-list"), TRAP, b"Subject: buy\n\nnow\n")
        wire.close()

    (event,) = kafka.feedback
    assert (event.kind, event.campaign, event.message_id) == ("trap_hit", "bought-list", "m-5")


async def test_each_recipient_of_a_message_counts_for_itself_and_all_unread_share_one_dead_letter() -> None:
    kafka = Kafka()
    async with running(kafka) as listener:
        wire = await Wire.connect(listener.endpoint)
        await wire.mail(signed("m-5"), signed("m-1"), signed("m-2"), TRAP, f"a@{DOMAIN}", f"b@{DOMAIN}")
        await wire.say("DATA")
        assert (await wire.say(stuffed(UNKNOWN_USER) + b".")).startswith("250")
        wire.close()

    assert {(one.kind, one.message_id) for one in kafka.feedback} == {
        ("hard_bounce", "m-1"),
        ("hard_bounce", "m-2"),
        ("trap_hit", "m-5"),
    }
    (letter,) = kafka.letters
    assert letter.headers["rcpt_to"] == f"a@{DOMAIN}, b@{DOMAIN}"


@pytest.mark.parametrize(
    ("rcpt", "code"),
    [
        pytest.param("someone@other.example", "550 5.7.1", id="another domain"),
        pytest.param(f"someone%other.example@{DOMAIN}", "550 5.7.1", id="percent hack"),
        pytest.param(f"other.example!someone@{DOMAIN}", "550 5.7.1", id="bang path"),
        pytest.param(f'"someone@other.example"@{DOMAIN}', "550 5.7.1", id="quoted address"),
        pytest.param(f"@{DOMAIN}:someone@other.example", "550 5.7.1", id="source route through us"),
        pytest.param(f"@other.example:b+x@{DOMAIN}", "550 5.7.1", id="source route to us"),
        pytest.param(f"someone@other.example@{DOMAIN}", "550 5.7.1", id="two at signs"),
        pytest.param(f"someone@sub.{DOMAIN}", "550 5.7.1", id="a domain below ours"),
        pytest.param("someone@[127.0.0.1]", "550 5.7.1", id="address literal"),
        pytest.param("someone", "550 5.7.1", id="no domain"),
        pytest.param(f"@{DOMAIN}", "550 5.7.1", id="no local part"),
        pytest.param("", "550 5.7.1", id="null recipient"),
        pytest.param(f"x@{DOMAIN}\x00", "553 5.1.3", id="a control character"),
        pytest.param("postmaster", "250 2.1.5", id="postmaster without a domain"),
        pytest.param(f"postmaster@{DOMAIN}", "250 2.1.5", id="postmaster"),
        pytest.param(f"B+x@{DOMAIN.upper()}", "250 2.1.5", id="our domain in upper case"),
        pytest.param("fbl@fbl.shop.example", "250 2.1.5", id="a domain of the settings"),
        pytest.param("anything%at.all@traps.example", "250 2.1.5", id="a trap takes everything"),
    ],
)
async def test_it_takes_mail_for_its_own_domains_and_relays_for_nobody(rcpt: str, code: str) -> None:
    async with running(Kafka()) as listener:
        wire = await Wire.connect(listener.endpoint)
        said = await wire.mail("someone@other.example", rcpt)
        wire.close()

    assert said[-1].startswith(code)
    assert len(said[-1]) > len(code) or code.startswith("250")


async def test_a_refused_recipient_does_not_take_the_others_along() -> None:
    kafka = Kafka()
    async with running(kafka) as listener:
        wire = await Wire.connect(listener.endpoint)
        await wire.mail("", "x@other.example", signed())
        await wire.say("DATA")
        assert (await wire.say(stuffed(UNKNOWN_USER) + b".")).startswith("250")
        wire.close()

    assert len(kafka.feedback) == 1


async def test_it_tells_a_client_by_which_address_it_came() -> None:
    async with running(Kafka()) as listener:
        wire = await Wire.connect(listener.endpoint, ehlo=False)
        greeted = (await wire.say("EHLO x")).split("\n")[0].strip()
        wire.close()

    assert greeted == "250-mx.shop.example greets you, [127.0.0.1]"


async def test_there_is_no_auth_and_no_telling_of_addresses() -> None:
    async with running(Kafka()) as listener:
        wire = await Wire.connect(listener.endpoint, ehlo=False)
        offered = {line[4:].split()[0] for line in (await wire.say("EHLO x")).split("\n")[1:]}
        auth = await wire.say("AUTH PLAIN AGEAYg==")
        verified = await wire.say(f"VRFY postmaster@{DOMAIN}")
        expanded = await wire.say("EXPN all")
        wire.close()

    assert offered == {"SIZE", "8BITMIME", "SMTPUTF8"}
    assert (auth[0], verified[:3], expanded[0]) == ("5", "252", "5")


@pytest.mark.parametrize(
    "command", ["RCPT TO:<" + "x" * 400 + ">", "MAIL FROM:<a@b> AUTH=<>", "MAIL a@b", "RCPT", "BDAT 1"]
)
async def test_what_is_not_understood_is_refused_and_the_session_goes_on(command: str) -> None:
    kafka = Kafka()
    async with running(kafka) as listener:
        wire = await Wire.connect(listener.endpoint)
        assert (await wire.say(command))[0] == "5"
        assert (await wire.deliver("", signed(), UNKNOWN_USER)).startswith("250")
        wire.close()


async def test_smtplib_delivers_a_bounce() -> None:
    kafka = Kafka()

    def deliver(port: int, rcpt: str) -> None:
        with smtplib.SMTP("127.0.0.1", port, timeout=10) as client:
            client.sendmail("", [rcpt], UNKNOWN_USER.decode())

    async with running(kafka) as listener:
        await asyncio.to_thread(deliver, listener.endpoint.port, signed())

    assert len(kafka.feedback) == 1


async def test_every_captured_message_is_answered_with_250() -> None:
    kafka = Kafka()
    files = [file for folder in ("dsn", "samples") for file in sorted((FIXTURES / folder).rglob("*.eml"))]
    async with running(kafka) as listener:
        client = aiosmtplib.SMTP(hostname="127.0.0.1", port=listener.endpoint.port, start_tls=False)
        async with client:
            for number, file in enumerate(files):
                await client.sendmail("", [signed(f"m-{number}")], file.read_bytes())

    assert counted(listener, "messages_total", result="accepted") == len(files) == 48
    assert kafka.letters == []


async def test_starttls_with_a_certificate_from_files(tmp_path: Path) -> None:
    pair = tmp_path / "pair.pem"
    pair.write_bytes(pem("mx.shop.example"))
    kafka = Kafka()
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    async with running(kafka, tls=tls_context(pair, pair)) as listener:
        client = aiosmtplib.SMTP(
            hostname="127.0.0.1", port=listener.endpoint.port, start_tls=True, tls_context=trusting
        )
        async with client:
            assert not client.supports_extension("auth")
            await client.sendmail("", [signed()], UNKNOWN_USER)

    assert len(kafka.feedback) == 1


async def test_stopping_answers_what_was_taken_and_hangs_up_on_the_rest() -> None:
    kafka = Kafka()
    kafka.gate.clear()
    async with running(kafka) as listener:
        idle = await Wire.connect(listener.endpoint)
        busy = await Wire.connect(listener.endpoint)
        await busy.mail("", signed())
        await busy.say("DATA")
        busy.send(stuffed(UNKNOWN_USER) + b".\r\n")
        await until(lambda: kafka.asked == 1)

        stopping = asyncio.create_task(listener.stop(grace_s=10.0))
        assert (await idle.reply()).startswith("421")
        assert await idle.is_hung_up()
        kafka.gate.set()

        assert (await busy.reply()).startswith("250")
        assert (await busy.reply()).startswith("421")
        assert await busy.is_hung_up()
        await stopping
    with pytest.raises(OSError, match="Connect call failed"):
        await asyncio.open_connection(listener.endpoint.host, listener.endpoint.port)


async def test_keys_never_stand_in_what_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    async with running(Kafka(is_down=True)) as listener:
        wire = await Wire.connect(listener.endpoint)
        await wire.deliver("ann@example.com", signed(), UNKNOWN_USER)
        wire.close()

    written = "".join(capsys.readouterr())
    assert "message not stored" in written
    assert "ann@example.com" not in written
    assert signed() not in written
    assert KEYS.return_path.decode() not in written
