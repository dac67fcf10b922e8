"""TLS and logins to Kafka: what settings become, and what a real broker makes of right and wrong ones."""

import asyncio
import contextlib
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth

from cli.kafka import free_ports
from policy.settings import Settings, WrongSetting
from streams.admin import admin
from streams.kafka_security import Secured, connection, credentials, security_arguments, servers_of
from streams.refusals import refusal
from tests.streams.secure_kafka import PASSWORD, USER, Authority, SecureKafka, secure_kafka, write_private

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "deploy/compose/example"
LONG_S = 60.0  # a bound, for a machine that is busy; nothing takes so long


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    with secure_kafka(tmp_path_factory.mktemp("secure")) as one:
        yield one


def settings(folder: Path, kafka: str = "kafka:9093", **files: Any) -> Settings:
    """Settings whose files are names in a folder."""
    paths = {f"kafka_{name}": folder / one if name.endswith("_file") else one for name, one in files.items()}
    return Settings(kafka=kafka, **paths)


CA = {"ca_file": "ca.crt"}
CERTIFICATE = {"cert_file": "tls.crt", "key_file": "tls.key"}
LOGIN = {"user": USER, "password_file": "password"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    authority = Authority("ours")
    certificate, key = authority.pair(USER)
    named = {"ca.crt": authority.certificate, "tls.crt": certificate, "tls.key": key, "password": PASSWORD.encode()}
    for name, content in {**named, "empty": b"", "lines": b"a\nb\n", "line": b"secret\r\n"}.items():
        write_private(tmp_path / name, content)
    return tmp_path


def test_a_kafka_without_security_is_named_as_it_is() -> None:
    assert connection(servers_of(Settings(kafka="k:9092")) or "") == {"bootstrap_servers": "k:9092"}
    assert credentials("k:9092") is None


@pytest.mark.parametrize(
    ("given", "protocol"),
    [
        pytest.param({"tls": True}, "SSL", id="tls"),
        pytest.param(CA, "SSL", id="an authority implies tls"),
        pytest.param(CERTIFICATE, "SSL", id="a certificate implies tls"),
        pytest.param({**CA, "mechanism": "PLAIN", **LOGIN}, "SASL_SSL", id="login over tls"),
        pytest.param({"mechanism": "SCRAM-SHA-512", **LOGIN}, "SASL_PLAINTEXT", id="scram needs no tls"),
    ],
)
def test_aiokafka_and_faust_are_told_the_same(folder: Path, given: dict[str, Any], protocol: str) -> None:
    servers = servers_of(settings(folder, **given))
    assert servers is not None
    told = security_arguments(servers)

    assert told["security_protocol"] == protocol
    assert credentials_to_aiokafka_auth(credentials(servers)) == {
        name: one for name, one in told.items() if one is not None or "mechanism" in given
    }


@pytest.mark.parametrize(
    ("given", "says"),
    [
        pytest.param({"cert_file": "tls.crt"}, "kafka_key_file belong together", id="certificate without key"),
        pytest.param({"tls": True, "user": USER}, "belong together", id="user alone"),
        pytest.param({"mechanism": "PLAIN", **LOGIN}, "in the clear", id="PLAIN without TLS"),
        pytest.param({"ca_file": "none.crt"}, "kafka_ca_file cannot be used", id="no such authority"),
        pytest.param({"ca_file": "password"}, "kafka_ca_file cannot be used", id="no authority in it"),
        pytest.param({**CERTIFICATE, "key_file": "ca.crt"}, "kafka_cert_file, kafka_key_file", id="no key in it"),
        pytest.param(
            {"mechanism": "SCRAM-SHA-256", "user": USER, "password_file": "no"}, "cannot be read", id="no file"
        ),
        pytest.param({"mechanism": "SCRAM-SHA-256", "user": USER, "password_file": "empty"}, "in one line", id="empty"),
        pytest.param(
            {"mechanism": "SCRAM-SHA-256", "user": USER, "password_file": "lines"}, "in one line", id="two lines"
        ),
        pytest.param({**CA, "kafka": ""}, "need kafka", id="security of the embedded broker"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_its_name(folder: Path, given: dict[str, Any], says: str) -> None:
    with pytest.raises(WrongSetting, match=says):
        servers_of(settings(folder, **given))


def test_a_password_that_everybody_may_read_is_refused(folder: Path) -> None:
    (folder / "password").chmod(0o644)

    with pytest.raises(WrongSetting, match="chmod o="):
        servers_of(settings(folder, mechanism="SCRAM-SHA-512", **LOGIN))


def test_the_password_is_the_line_without_its_end_and_is_never_shown(folder: Path) -> None:
    servers = servers_of(settings(folder, mechanism="SCRAM-SHA-512", user=USER, password_file="line"))

    assert isinstance(servers, Secured)
    assert security_arguments(servers)["sasl_plain_password"] == "secret"
    assert "secret" not in f"{servers!r} {servers} {servers.security!r} {credentials(servers)!r}"


def test_a_renewed_certificate_is_used_by_the_next_connection_and_a_broken_one_is_not(folder: Path) -> None:
    servers = servers_of(settings(folder, **CA, **CERTIFICATE))
    assert isinstance(servers, Secured)
    context = servers.security.context
    assert context is not None

    def begins() -> ssl.SSLContext:
        return context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="127.0.0.1").context

    first = begins()
    assert begins() is first
    for name, content in zip(("tls.crt", "tls.key"), Authority("next").pair(USER), strict=True):
        write_private(folder / name, content)
    second = begins()
    write_private(folder / "tls.key", b"half a fi")
    third = begins()

    assert first is not second
    assert third is second


# -- on a real broker


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("listener", "given"),
    [
        pytest.param("login", {**CA, "mechanism": "PLAIN", **LOGIN}, id="PLAIN over TLS"),
        pytest.param("login", {**CA, "mechanism": "SCRAM-SHA-256", **LOGIN}, id="SCRAM-SHA-256 over TLS"),
        pytest.param("login", {**CA, "mechanism": "SCRAM-SHA-512", **LOGIN}, id="SCRAM-SHA-512 over TLS"),
        pytest.param("clear", {"mechanism": "SCRAM-SHA-512", **LOGIN}, id="SCRAM without TLS"),
        pytest.param("mutual", {**CA, **CERTIFICATE}, id="mutual TLS"),
    ],
)
async def test_kafka_takes_who_is_right(broker: SecureKafka, listener: str, given: dict[str, Any]) -> None:
    servers = servers_of(settings(broker.folder, getattr(broker, listener), **given))
    assert servers is not None

    async with admin(servers, within_s=LONG_S) as edge:
        assert await edge.partitions(["no-such-topic"]) == {}
    assert await refusal(servers) is None


WRONG = {
    "password": ("login", {**CA, "mechanism": "PLAIN", "user": USER, "password_file": "wrong"}, "kafka_password_file"),
    "scram password": (
        "login",
        {**CA, "mechanism": "SCRAM-SHA-512", "user": USER, "password_file": "wrong"},
        "kafka_password_file",
    ),
    "mechanism": ("clear", {"mechanism": "SCRAM-SHA-256", **LOGIN}, "kafka_mechanism"),
    "authority": ("login", {"ca_file": "wrong-ca.crt", "mechanism": "PLAIN", **LOGIN}, "kafka_ca_file"),
    "the system's authorities": ("mutual", {"tls": True}, "kafka_ca_file"),
    "our certificate": ("mutual", {**CA, "cert_file": "wrong.crt", "key_file": "wrong.key"}, "kafka_cert_file"),
    "no certificate of ours": ("mutual", CA, "kafka_cert_file"),
    "no login": ("login", CA, "kafka_mechanism"),
    "a login that nobody asks for": ("mutual", {**CA, **CERTIFICATE, "mechanism": "PLAIN", **LOGIN}, "kafka_mechanism"),
    "no TLS": ("login", {}, "kafka_tls"),
    "TLS where there is none": ("plain", CA, "kafka_tls"),
}


@pytest.mark.kafka
@pytest.mark.parametrize("wrong", WRONG)
async def test_what_is_wrong_is_a_sentence_with_the_name_of_the_setting(broker: SecureKafka, wrong: str) -> None:
    listener, given, name = WRONG[wrong]
    servers = servers_of(settings(broker.folder, getattr(broker, listener), **given))
    assert servers is not None
    said = await refusal(servers) or ""

    assert said.startswith(f"Kafka at {getattr(broker, listener)} cannot be used: ")
    assert name in said


def environment(broker: SecureKafka, tmp_path: Path, **more: str) -> dict[str, str]:
    mine = {
        "KAFKA": broker.login,
        "KAFKA_CA_FILE": broker.file("ca.crt"),
        "KAFKA_MECHANISM": "SCRAM-SHA-512",
        "KAFKA_USER": USER,
        "KAFKA_PASSWORD_FILE": broker.file("password"),
        "DATA": str(tmp_path),
        "EGRESS_CHECK": "off",
        "PARTITIONS": "2",
        "OUTBOUND_PARTITIONS": "1",
        "WEB": f"127.0.0.1:{free_ports(1)[0]}",
        "SENDER_WEB": "127.0.0.1:0",
    }
    return {**os.environ, **{f"MAILCORDON_{name}": value for name, value in {**mine, **more}.items()}}


def mailcordon(given: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cli", *arguments]
    return subprocess.run(command, env=given, cwd=ROOT, capture_output=True, text=True, timeout=LONG_S, check=False)


@pytest.mark.kafka
@pytest.mark.parametrize(
    "command",
    [
        ("topics", "create"),
        ("worker",),
        ("controller",),
        ("sender", "--campaign", "c"),
        ("return-path",),
    ],
    ids=lambda command: command[0],
)
def test_a_wrong_password_ends_every_role_with_exit_code_3_and_a_sentence(
    broker: SecureKafka, tmp_path: Path, command: tuple[str, ...]
) -> None:
    ended = mailcordon(environment(broker, tmp_path, KAFKA_PASSWORD_FILE=broker.file("wrong")), *command)

    assert ended.returncode == 3, ended.stderr
    assert "see kafka_user, kafka_password_file" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_missing_file_ends_a_command_with_exit_code_2(tmp_path: Path) -> None:
    given = {**os.environ, "MAILCORDON_KAFKA": "127.0.0.1:1", "MAILCORDON_KAFKA_CA_FILE": str(tmp_path / "none")}
    ended = mailcordon(given, "topics", "create")

    assert ended.returncode == 2
    assert "kafka_ca_file cannot be used" in ended.stderr


@pytest.mark.kafka
def test_settings_show_files_and_never_what_is_in_them(broker: SecureKafka, tmp_path: Path) -> None:
    shown = mailcordon(environment(broker, tmp_path), "settings").stdout

    assert broker.file("password") in shown
    assert PASSWORD not in shown


class Mailbox:
    """What a receiving server has taken."""

    def __init__(self) -> None:
        self.recipients: list[str] = []
        self.full = threading.Event()  # two have mail

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's
        self.recipients += envelope.rcpt_tos
        if len(self.recipients) >= 2:
            self.full.set()
        return "250 2.0.0 taken"


@contextlib.contextmanager
def role(given: dict[str, str], log: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "cli", *arguments], env=given, cwd=ROOT, stdout=out, stderr=out
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(LONG_S)


@pytest.mark.kafka
@pytest.mark.parametrize("by", ["login", "certificate"])
async def test_the_whole_way_over_tls(broker: SecureKafka, tmp_path: Path, by: str) -> None:
    mailbox = Mailbox()
    server = Controller(mailbox, hostname="127.0.0.1", port=free_ports(1)[0])
    server.start()
    certificate = {
        "KAFKA": broker.mutual,
        "KAFKA_CERT_FILE": broker.file("tls.crt"),
        "KAFKA_KEY_FILE": broker.file("tls.key"),
        **dict.fromkeys(("KAFKA_MECHANISM", "KAFKA_USER", "KAFKA_PASSWORD_FILE"), ""),
    }
    how = certificate if by == "certificate" else {}
    given = environment(broker, tmp_path, SMTP_ROUTES=f"*=127.0.0.1:{server.port}", **how)
    campaign = tmp_path / "campaign.json"
    campaign.write_text((EXAMPLE / "campaign.json").read_text().replace("spring-sale", by))
    content = tmp_path / "content.json"
    content.write_text((EXAMPLE / "content.json").read_text().replace("spring-sale", by))
    asked = [
        ("topics", "create"),
        ("campaign", "apply", str(campaign)),
        ("content", "apply", str(content)),
    ]
    people = tmp_path / "people.csv"
    people.write_text("address,name\nann@example.com,Ann\nbob@example.com,Bob\n")
    send = ("send", "--campaign", by, "--content", "hello-1", "--recipients", str(people))
    worker_log, sender_log = tmp_path / "worker.log", tmp_path / "sender.log"
    try:
        for arguments in asked:
            done = await asyncio.to_thread(mailcordon, given, *arguments)
            assert done.returncode == 0, done.stderr
        with role(given, worker_log, "worker"), role(given, sender_log, "sender", "--campaign", by):
            done = await asyncio.to_thread(mailcordon, given, *send)
            assert done.returncode == 0, done.stderr
            await asyncio.to_thread(mailbox.full.wait, LONG_S)
            status = await asyncio.to_thread(mailcordon, given, "status")
    finally:
        await asyncio.to_thread(server.stop)

    logs = worker_log.read_text() + sender_log.read_text()
    assert sorted(mailbox.recipients) == ["ann@example.com", "bob@example.com"], logs
    assert by in status.stdout, status.stderr
    assert PASSWORD not in logs
