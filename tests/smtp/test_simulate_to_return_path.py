"""From a provider back to the return path: real notifications, real reports, real trap mail, over real sockets."""

from pathlib import Path

import pytest

from policy.naming import campaign_name
from policy.tokens import address_hash, message_id_header
from smtp.findings import Bounce, Report
from smtp.simulate import Config, SimulatedProviders, read_logs
from smtp.simulate.reports import Taken, bounce, complaint
from smtp.simulate.texts import _OWN, Kind
from smtp.understand import understand
from tests.smtp.mailroom import DOMAIN, KEYS, SENT_AT, Kafka, running, signed
from tests.smtp.wire import Wire, until


def _message(message_id: str, campaign: str) -> bytes:
    header = message_id_header(KEYS, campaign=campaign, message_id=message_id, domain="shop.example")
    return f"Message-ID: {header}\nFrom: news@shop.example\nTo: x@y.example\nSubject: z\n\nhello\n".encode()


@pytest.mark.parametrize(
    ("provider", "rcpt", "kind", "is_hash_known"),
    [
        ("google", "late-1@gmail.example", "hard_bounce", True),
        ("microsoft", "late-1@outlook.example", "hard_bounce", True),
        ("yahoo", "late-1@yahoo.example", "hard_bounce", True),
        ("yahoo", "complain-1@yahoo.example", "complaint", True),
        ("apple", "complain-1@icloud.example", "complaint", False),
        ("traps", "rosa@traps.example", "trap_hit", True),
        ("other", "rosa@traps.example", "trap_hit", True),
    ],
)
async def test_what_a_provider_sends_back_becomes_feedback_of_the_right_message(
    tmp_path: Path, provider: str, rcpt: str, kind: str, is_hash_known: bool
) -> None:
    kafka = Kafka()
    async with running(kafka) as listener:
        config = Config(logs=tmp_path, return_path=listener.endpoint, late_s=0.01, complain_s=0.01)
        async with SimulatedProviders(config) as providers:
            wire = await Wire.connect(providers.servers[provider].endpoint)
            said = await wire.deliver(signed("m-3", name="bought-list", to=rcpt), rcpt, _message("m-3", "bought-list"))
            wire.close()
            await until(lambda: bool(kafka.records))

    assert said.startswith("250")
    (event,) = kafka.feedback
    assert (event.kind, event.campaign, event.message_id, event.sent_at) == (kind, "bought-list", "m-3", SENT_AT)
    assert event.address_hash == (address_hash(KEYS, rcpt) if is_hash_known else None)
    (line,) = read_logs(tmp_path)
    assert (line.event, line.message_token, line.campaign_name) == ("accepted", "m-3", campaign_name("bought-list"))


async def test_nothing_is_sent_back_to_the_null_return_path(tmp_path: Path) -> None:
    kafka = Kafka()
    async with running(kafka) as listener:
        config = Config(logs=tmp_path, return_path=listener.endpoint, late_s=0.0)
        async with SimulatedProviders(config) as providers:
            wire = await Wire.connect(providers.servers["google"].endpoint)
            assert (await wire.deliver("", "late-1@gmail.example", b"Subject: x\n\ny\n")).startswith("250")
            wire.close()
            assert providers.waiting == 0

    assert kafka.records == []


async def test_mail_of_strangers_in_a_trap_is_handed_on_with_its_envelope(tmp_path: Path) -> None:
    kafka = Kafka()
    async with (
        running(kafka) as listener,
        SimulatedProviders(Config(logs=tmp_path, return_path=listener.endpoint)) as providers,
    ):
        wire = await Wire.connect(providers.servers["traps"].endpoint)
        await wire.deliver("spammer@evil.example", "rosa@traps.example", b"Subject: x\n\n.dots\n..\n")
        wire.close()
        await until(lambda: bool(kafka.records))

    (letter,) = kafka.letters
    assert (letter.headers["mail_from"], letter.headers["rcpt_to"]) == ("spammer@evil.example", "rosa@traps.example")


TAKEN = Taken(
    mail_from=f"b+x@{DOMAIN}",
    rcpt="ann@gmail.example",
    ip="192.0.2.1",
    taken_at=SENT_AT,
    content=_message("m-1", "spring-sale").replace(b"\n", b"\r\n"),
)


@pytest.mark.parametrize("kind", _OWN)
def test_every_kind_of_notification_is_understood(kind: Kind) -> None:
    (found,) = understand(bounce(TAKEN, hostname="mx.example", kind=kind, id_="i1", now=SENT_AT))

    assert isinstance(found, Bounce)
    assert (found.action, found.code, found.enhanced, found.recipient) == ("failed", 550, "5.1.1", "ann@gmail.example")
    assert found.clues.return_paths == (TAKEN.mail_from,)


@pytest.mark.parametrize("kind", _OWN)
def test_every_kind_of_complaint_is_understood(kind: Kind) -> None:
    raw = complaint(TAKEN, hostname="mx.example", kind=kind, id_="i1", now=SENT_AT)
    (found,) = understand(raw)

    assert isinstance(found, Report)
    assert (found.type, found.source_ip) == ("abuse", "192.0.2.1")
    assert TAKEN.mail_from in found.clues.return_paths
    assert (b"ann@" in raw) == (kind not in {"google", "apple"})
