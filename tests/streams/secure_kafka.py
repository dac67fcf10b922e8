"""A real Kafka that asks who comes: TLS with certificates drawn at start, logins by PLAIN and SCRAM, mutual TLS."""

import contextlib
import datetime as dt
import ipaddress
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cli.kafka import EmbeddedKafka, default_cache, free_ports, prepare

USER, PASSWORD = "mailcordon", "a pass=word"

_LISTENERS = """
listeners=PLAINTEXT://127.0.0.1:{{broker}},CONTROLLER://127.0.0.1:{{controller}},LOGIN://127.0.0.1:{login},MUTUAL://127.0.0.1:{mutual},CLEAR://127.0.0.1:{clear}
advertised.listeners=PLAINTEXT://127.0.0.1:{{broker}},LOGIN://127.0.0.1:{login},MUTUAL://127.0.0.1:{mutual},CLEAR://127.0.0.1:{clear}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,LOGIN:SASL_SSL,MUTUAL:SSL,CLEAR:SASL_PLAINTEXT
ssl.keystore.type=PEM
ssl.keystore.location={folder}/server.pem
ssl.truststore.type=PEM
ssl.truststore.location={folder}/ca.crt
listener.name.mutual.ssl.client.auth=required
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.clear.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.login.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}="{password}";
listener.name.login.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.login.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.clear.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
"""  # noqa: E501 - Kafka's own names


@dataclass(frozen=True, slots=True)
class SecureKafka:
    """Where it listens, and the files of its clients; ``folder`` holds ca.crt, tls.crt, tls.key, password."""

    folder: Path
    plain: str
    login: str
    mutual: str
    clear: str

    def file(self, name: str) -> str:
        """The path of one of the files."""
        return str(self.folder / name)


class Authority:
    """A certificate authority that lives for a day."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        built = self._built(self._name, self._key, ca=True)
        self.certificate = built.public_bytes(serialization.Encoding.PEM)

    def pair(self, name: str) -> tuple[bytes, bytes]:
        """A fresh certificate for loopback, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return self._built(subject, key, ca=False).public_bytes(serialization.Encoding.PEM), private

    def _built(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, ca: bool) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
            .sign(self._key, hashes.SHA256())
        )


def write_private(file: Path, content: bytes) -> None:
    """Write a file for its owner alone."""
    file.touch(mode=0o600)
    file.write_bytes(content)


@contextlib.contextmanager
def secure_kafka(folder: Path) -> Iterator[SecureKafka]:
    """Run one; its files for clients are in ``folder``."""
    ours, strangers = Authority("ours"), Authority("strangers")
    certificate, key = ours.pair("kafka")
    write_private(folder / "server.pem", key + certificate)
    certificate, key = ours.pair(USER)
    files = {"ca.crt": ours.certificate, "tls.crt": certificate, "tls.key": key, "password": PASSWORD.encode() + b"\n"}
    certificate, key = strangers.pair(USER)
    files |= {"wrong-ca.crt": strangers.certificate, "wrong.crt": certificate, "wrong.key": key, "wrong": b"guess\n"}
    for name, content in files.items():
        write_private(folder / name, content)
    ports = dict(zip(("login", "mutual", "clear"), free_ports(3), strict=True))
    more = _LISTENERS.format(folder=folder, user=USER, password=PASSWORD, **ports)
    with EmbeddedKafka(folder / "data", cache=default_cache(), more=more) as broker:
        _add_scram_user(broker)
        where = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
        yield SecureKafka(folder, broker.bootstrap, **where)


def _add_scram_user(broker: EmbeddedKafka) -> None:
    java = broker._java_command(prepare(default_cache(), print))
    tool = ["-XX:TieredStopAtLevel=1", "kafka.admin.ConfigCommand", "--bootstrap-server", broker.bootstrap]
    user = ["--alter", "--entity-type", "users", "--entity-name", USER, "--add-config"]
    for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):  # one request cannot have both
        secret = f"{mechanism}=[password={PASSWORD}]"
        subprocess.run([*java, *tool, *user, secret], check=True, timeout=60, capture_output=True)
