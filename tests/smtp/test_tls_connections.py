"""Connections that have to prove something, against real servers with every kind of certificate, and hostile ones."""

import contextlib
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from smtp.attempts import Attempt, Envelope, Reply
from smtp.mx import Target
from smtp.opener import Opener
from smtp.sending.outcomes import Known, Terms, result_of
from smtp.session import Session, Timeouts
from smtp.tls.demand import ENCRYPT, MAY, NAMES, TESTING, Dane, Demand, Tlsa
from smtp.tls.metrics import TlsMetrics
from tests.smtp.authority import DAY, Identity, authority, identity
from tests.smtp.tls_servers import NO_OFFER, StartTls, start_tls_server

HOST = "mx1.example.com"
SHORT = Timeouts(connect_s=1.0, command_s=1.0, dot_s=1.0)


@dataclass(frozen=True)
class World:
    known: Identity
    servers: dict[str, Identity]


@cache
def world() -> World:
    known, stranger = authority("known"), authority("stranger")
    between = authority("between", by=known)
    return World(
        known,
        {
            "right": identity(HOST, by=known),
            "by way of another": identity(HOST, by=between, sends=(between.certificate,)),
            "wildcard": identity("*.example.com", by=known),
            "wrong name": identity("mx.other.example", by=known),
            "expired": identity(HOST, by=known, starts=-3 * DAY, ends=-DAY),
            "self-signed": identity(HOST),
            "unknown": identity(HOST, by=stranger),
            "chain missing": identity(HOST, by=between),
            "common name only": identity(by=known, common_name=HOST),
        },
    )


def dane(of: str = "right") -> Dane:
    return Dane((Tlsa(3, 1, 1, hashlib.sha256(world().servers[of].spki).digest()),), (HOST, "example.com"))


@contextlib.asynccontextmanager
async def opener(folder: Path) -> AsyncIterator[Opener]:
    bundle = folder / "known.pem"
    bundle.write_bytes(world().known.pem)
    yield Opener(hostname="me.example", timeouts=SHORT, ca_file=bundle, tls_metrics=TlsMetrics(CollectorRegistry()))


async def attempt(opened_by: Opener, server: StartTls, demand: Demand) -> Attempt:
    """Open a session and send one message over it."""
    session = await opened_by.open(Target(HOST, "127.0.0.1", server.port, demand))
    if isinstance(session, Reply):
        return session
    assert isinstance(session, Session)
    envelope = Envelope.checked(
        sender="b@bounces.example", recipient="ann@example.com", data=b"Subject: x\r\n\r\nx\r\n"
    )
    answer = await session.send(envelope, go=lambda: True)
    await session.quit()
    return answer


def counted(one: Opener, policy: str) -> float:
    return one.tls_metrics.failures.labels(policy)._value.get()


@pytest.mark.parametrize("certificate", world().servers)
@pytest.mark.parametrize("demand", [MAY, ENCRYPT], ids=["may", "encrypt"])
async def test_whoever_the_certificate_names_the_mail_is_encrypted(
    tmp_path: Path, demand: Demand, certificate: str
) -> None:
    server = StartTls(world().servers[certificate].context(tmp_path))
    async with start_tls_server(server), opener(tmp_path) as one:
        answer = await attempt(one, server, demand)
    assert isinstance(answer, Reply)
    assert answer.accepted
    assert (answer.tls, answer.tls_policy) == ("TLSv1.3", "opportunistic" if demand == MAY else "required")
    assert [line.split()[0] for line in server.heard] == [b"EHLO", b"STARTTLS"]
    assert server.safe[0].startswith(b"EHLO")


@pytest.mark.parametrize("certificate", ["right", "by way of another", "wildcard"])
async def test_a_host_that_proves_its_name_gets_its_mail(tmp_path: Path, certificate: str) -> None:
    server = StartTls(world().servers[certificate].context(tmp_path))
    async with start_tls_server(server), opener(tmp_path) as one:
        answer = await attempt(one, server, NAMES)
    assert isinstance(answer, Reply)
    assert (answer.accepted, answer.tls, answer.tls_policy) == (True, "TLSv1.3", "mta-sts")
    assert server.asked_for == [HOST]


@pytest.mark.parametrize(
    ("certificate", "says"),
    [
        ("wrong name", "certificate names mx.other.example, not mx1.example.com"),
        ("expired", "certificate is not valid: certificate has expired"),
        ("self-signed", "certificate is not valid: self-signed certificate"),
        ("unknown", "certificate is not valid: unable to get local issuer certificate"),
        ("chain missing", "certificate is not valid: unable to get local issuer certificate"),
        ("common name only", "certificate names no host, not mx1.example.com"),
    ],
)
async def test_a_host_that_does_not_prove_its_name_gets_nothing_and_the_result_says_why(
    tmp_path: Path, certificate: str, says: str
) -> None:
    server = StartTls(world().servers[certificate].context(tmp_path))
    async with start_tls_server(server), opener(tmp_path) as one:
        answer = await attempt(one, server, NAMES)
        assert counted(one, "mta-sts") == 1
    assert isinstance(answer, Reply)
    assert (answer.stage, answer.code, answer.text, answer.tls_policy, answer.mx) == (
        "tls",
        None,
        says,
        "mta-sts",
        HOST,
    )
    assert not [line for line in server.all_heard if line.startswith(b"MAIL")]


@pytest.mark.parametrize("certificate", ["right", "wrong name", "expired", "self-signed"])
async def test_a_host_that_its_tlsa_record_names_gets_its_mail_whatever_else_is_in_the_certificate(
    tmp_path: Path, certificate: str
) -> None:
    server = StartTls(world().servers[certificate].context(tmp_path))
    async with start_tls_server(server), opener(tmp_path) as one:
        answer = await attempt(one, server, dane(certificate))
    assert isinstance(answer, Reply)
    assert (answer.accepted, answer.tls, answer.tls_policy) == (True, "TLSv1.3", "dane")
    assert server.asked_for == [HOST]


async def test_a_valid_certificate_that_no_tlsa_record_names_is_no_proof(tmp_path: Path) -> None:
    server = StartTls(world().servers["right"].context(tmp_path))
    async with start_tls_server(server), opener(tmp_path) as one:
        answer = await attempt(one, server, dane("expired"))
        assert counted(one, "dane") == 1
    assert isinstance(answer, Reply)
    assert (answer.stage, answer.tls_policy) == ("tls", "dane")
    assert "none of its TLSA records" in answer.text
    assert not [line for line in server.all_heard if line.startswith(b"MAIL")]


BROKEN = {
    "not offered": (StartTls(ehlo=NO_OFFER), "does not offer STARTTLS"),
    "454": (StartTls(starttls=b"454 4.7.0 not now\r\n"), "STARTTLS was answered with 454 4.7.0 not now"),
    "554": (StartTls(starttls=b"554 5.7.0 never\r\n"), "STARTTLS was answered with 554 5.7.0 never"),
    "nonsense": (StartTls(starttls=b"hello\r\n"), "answer to STARTTLS is no reply"),
    "hangs up": (StartTls(), "handshake failed"),
    "goes on in clear": (StartTls(after_220=b"250 mx\r\n" * 100), "handshake failed"),
}


def broken(name: str) -> StartTls:
    of = BROKEN[name][0]
    return StartTls(ehlo=of.ehlo, starttls=of.starttls, after_220=of.after_220)


@pytest.mark.parametrize("demand", [ENCRYPT, NAMES, dane()], ids=["encrypt", "names", "dane"])
@pytest.mark.parametrize("name", BROKEN)
async def test_where_encryption_is_demanded_a_server_without_it_hears_no_mail(
    tmp_path: Path, name: str, demand: Demand
) -> None:
    server = broken(name)
    async with start_tls_server(server), opener(tmp_path) as one:
        answer = await attempt(one, server, demand)
    assert isinstance(answer, Reply)
    assert (answer.stage, answer.tls) == ("tls", None)
    assert BROKEN[name][1] in answer.text
    assert not [line for line in server.all_heard if line.startswith(b"MAIL")]
    assert server.connections == 1


@pytest.mark.parametrize("name", BROKEN)
async def test_where_nothing_is_demanded_mail_goes_in_clear_and_the_host_is_remembered(
    tmp_path: Path, name: str
) -> None:
    server = broken(name)
    async with start_tls_server(server), opener(tmp_path) as one:
        answers = [await attempt(one, server, MAY) for _ in range(2)]
    for answer in answers:
        assert isinstance(answer, Reply)
        assert (answer.accepted, answer.tls, answer.tls_policy) == (True, None, "opportunistic")
    assert server.heard.count(b"STARTTLS\r\n") == (name != "not offered")


@pytest.mark.parametrize("demand", [MAY, NAMES], ids=["may", "names"])
async def test_what_is_injected_behind_the_220_is_never_heard(tmp_path: Path, demand: Demand) -> None:
    injected = b"220 go\r\n250-evil.example\r\n250-PIPELINING\r\n250 SMTPUTF8\r\n"
    server = StartTls(world().servers["right"].context(tmp_path), starttls=injected)
    async with start_tls_server(server), opener(tmp_path) as one:
        session = await one.open(Target(HOST, "127.0.0.1", server.port, demand))
        assert isinstance(session, Session)
        assert session.tls == "TLSv1.3"
        assert (session.room, session._utf8) == (1, False)
        await session.quit()
    assert [line.split()[0] for line in server.safe] == [b"EHLO", b"QUIT"]


async def test_what_was_offered_in_clear_is_forgotten(tmp_path: Path) -> None:
    server = StartTls(
        world().servers["right"].context(tmp_path), ehlo=b"250-mx\r\n250-PIPELINING\r\n250-SMTPUTF8\r\n250 STARTTLS\r\n"
    )
    async with start_tls_server(server), opener(tmp_path) as one:
        session = await one.open(Target(HOST, "127.0.0.1", server.port, ENCRYPT))
        assert isinstance(session, Session)
        assert (session.room, session._utf8) == (1, False)
        await session.quit()


@pytest.mark.parametrize(("certificate", "failures"), [("right", 0), ("wrong name", 1), ("expired", 1)])
async def test_a_policy_that_is_being_tested_is_counted_and_hinders_nobody(
    tmp_path: Path, certificate: str, failures: int
) -> None:
    server = StartTls(world().servers[certificate].context(tmp_path))
    async with start_tls_server(server), opener(tmp_path) as one:
        answer = await attempt(one, server, TESTING)
        assert counted(one, "mta-sts-testing") == failures
        assert counted(one, "opportunistic") == counted(one, "mta-sts") == 0
    assert isinstance(answer, Reply)
    assert (answer.accepted, answer.tls, answer.tls_policy) == (True, "TLSv1.3", "opportunistic")


async def test_sessions_are_counted_by_what_they_proved(tmp_path: Path) -> None:
    server = StartTls(world().servers["right"].context(tmp_path))
    registry = CollectorRegistry()
    async with start_tls_server(server), opener(tmp_path) as one:
        one.tls_metrics = TlsMetrics(registry)
        await attempt(one, server, NAMES)
        server.ehlo = NO_OFFER
        await attempt(one, server, MAY)
    sample = "mailcordon_sender_tls_sessions_total"
    assert registry.get_sample_value(sample, {"policy": "mta-sts", "version": "TLSv1.3"}) == 1
    assert registry.get_sample_value(sample, {"policy": "opportunistic", "version": "none"}) == 1


@pytest.mark.parametrize("code", [None, 454, 554])
def test_what_was_not_proved_is_tried_again_later(code: int | None) -> None:
    reply = Reply(stage="tls", code=code, text="certificate has expired", mx=HOST, tls_policy="mta-sts")
    known = Known(message_id="m", address_hash="0" * 64, number=1, provider="other", now=1_000)
    terms = Terms(starts_at=0, expires_at=None, max_age_s=86_400, in_doubt="hold")
    result = result_of(reply, known, terms=terms, jitter=0.0)
    assert (result.outcome, result.class_, result.tls, result.tls_policy, result.text) == (
        "deferred", "tls_failure", None, "mta-sts", "certificate has expired",
    )  # fmt: skip
    assert result.next_attempt_at is not None
    assert result.next_attempt_at >= 901_000
