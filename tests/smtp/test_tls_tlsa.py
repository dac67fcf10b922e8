"""What TLSA records say of certificates; the same cases are put to OpenSSL's own DANE where it is there."""

import asyncio
import contextlib
import datetime as dt
import hashlib
import shutil
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from policy.settings import Endpoint
from smtp.tls.demand import Dane, Tlsa
from smtp.tls.der import key_of
from smtp.tls.tlsa import usable, why_not
from smtp.tls.verdict import context_for, verdict
from tests.smtp.authority import DAY, Identity, authority, identity

HOST = "mx.example.com"
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="the command openssl is not installed")


def record(usage: int, selector: int, matching: int, of: Identity) -> Tlsa:
    selected = of.spki if selector else of.der
    data = {0: lambda: selected, 1: hashlib.sha256(selected).digest, 2: hashlib.sha512(selected).digest}
    return Tlsa(usage, selector, matching, data[matching]())


@dataclass(frozen=True)
class World:
    """One of everything; ``root`` vouches for ``middle``, that for the servers, which send both unless told."""

    root: Identity
    middle: Identity
    server: Identity
    stranger: Identity
    chains: dict[str, Identity]


@cache
def world() -> World:
    root = authority("root")
    middle = authority("middle", by=root)
    old_middle = authority("old middle", by=root, starts=-3 * DAY, ends=-DAY)
    no_authority = identity("pretender.example", by=root)
    both = (middle.certificate, root.certificate)
    server = identity(HOST, by=middle, sends=both)
    chains = {
        "right": server,
        "alone": Identity(server.certificate, server.key),
        "without root": Identity(server.certificate, server.key, (middle.certificate,)),
        "self-signed": identity(HOST),
        "wrong name": identity("other.example", by=middle, sends=both),
        "wildcard": identity("*.example.com", by=middle, sends=both),
        "partial wildcard": identity("m*.example.com", by=middle, sends=both),
        "wildcard of two": identity("*.com", by=middle, sends=both),
        "expired": identity(HOST, by=middle, sends=both, starts=-3 * DAY, ends=-DAY),
        "not yet": identity(HOST, by=middle, sends=both, starts=DAY, ends=2 * DAY),
        "expired middle": identity(HOST, by=old_middle, sends=(old_middle.certificate, root.certificate)),
        "no authority": identity(HOST, by=no_authority, sends=(no_authority.certificate, root.certificate)),
        "for clients": identity(HOST, by=middle, sends=both, for_clients=True),
        "borrowed": Identity((lone := identity(HOST)).certificate, lone.key, both),
    }
    return World(root, middle, server, authority("stranger"), chains)


def _self(usage: int, selector: int, matching: int, chain: str) -> tuple[Tlsa, ...]:
    return (record(usage, selector, matching, world().chains[chain]),)


def cases() -> dict[str, tuple[str, tuple[Tlsa, ...], str | None]]:
    """Chain, records, and what the verdict says (None: proved)."""
    one = world()
    stranger = record(3, 1, 1, one.stranger)
    every = {
        f"server {selector}{matching}": ("right", _self(3, selector, matching, "right"), None)
        for selector in (0, 1)
        for matching in (0, 1, 2)
    } | {
        f"authority {selector}{matching} {name}": ("right", (record(2, selector, matching, of),), None)
        for selector in (0, 1)
        for matching in (0, 1, 2)
        for name, of in (("root", one.root), ("middle", one.middle))
    }
    return every | {
        "server whatever its name": ("wrong name", _self(3, 1, 1, "wrong name"), None),
        "server whatever its dates": ("expired", _self(3, 1, 1, "expired"), None),
        "server not yet": ("not yet", _self(3, 0, 1, "not yet"), None),
        "server by itself": ("self-signed", _self(3, 1, 1, "self-signed"), None),
        "server, the chain missing": ("alone", _self(3, 1, 1, "alone"), None),
        "one of two": ("right", (stranger, *_self(3, 1, 1, "right")), None),
        "a stranger": ("right", (stranger,), "none of its TLSA records"),
        "a strange authority": ("right", (record(2, 0, 1, one.stranger),), "none of its TLSA records"),
        "the middle as a server": ("right", (record(3, 1, 1, one.middle),), "none of its TLSA records"),
        "the server as an authority": ("self-signed", _self(2, 1, 1, "self-signed"), "none of its TLSA records"),
        "authority not sent": ("without root", (record(2, 0, 1, one.root),), "none of its TLSA records"),
        "authority not sent but given": ("without root", (record(2, 0, 0, one.root),), None),
        "authority, wrong name": ("wrong name", (record(2, 0, 1, one.root),), "other.example, not mx.example.com"),
        "authority, wildcard": ("wildcard", (record(2, 0, 1, one.root),), None),
        "authority, partial wildcard": ("partial wildcard", (record(2, 0, 1, one.root),), "names m*.example.com"),
        "authority, wildcard of two": ("wildcard of two", (record(2, 0, 1, one.root),), "names *.com"),
        "authority, expired": ("expired", (record(2, 0, 1, one.root),), "does not vouch"),
        "authority, not yet": ("not yet", (record(2, 0, 1, one.root),), "does not vouch"),
        "authority, expired middle": ("expired middle", (record(2, 0, 1, one.root),), "does not vouch"),
        "authority, issuer is none": ("no authority", (record(2, 0, 1, one.root),), "does not vouch"),
        "authority, not for servers": ("for clients", (record(2, 0, 1, one.root),), "does not vouch"),
        "authority in a borrowed chain": ("borrowed", (record(2, 0, 1, one.root),), "does not vouch"),
        "the stronger digest decides": (
            "right",
            (record(3, 1, 1, one.server), record(3, 1, 2, one.stranger)),
            "none of its TLSA records",
        ),
        "other selectors stay": ("right", (record(3, 0, 1, one.server), record(3, 1, 2, one.stranger)), None),
        "the whole stays beside digests": ("right", (record(3, 1, 0, one.server), record(3, 1, 2, one.stranger)), None),
    }  # fmt: skip


NAMES = list(cases())


@pytest.mark.parametrize("case", NAMES)
def test_what_records_say_of_a_chain(case: str) -> None:
    chain, records, says = cases()[case]
    sent = world().chains[chain]
    found = why_not(records, (sent.certificate, *sent.above), names=(HOST,), now=dt.datetime.now(dt.UTC))
    if says is None:
        assert found is None
    else:
        assert found is not None
        assert says in found


@pytest.mark.parametrize(
    ("tlsa", "can_be_checked"),
    [
        (Tlsa(3, 1, 1, b"x" * 32), True),
        (Tlsa(2, 0, 2, b"x" * 64), True),
        (Tlsa(3, 0, 0, b"x"), True),
        (Tlsa(0, 1, 1, b"x" * 32), False),
        (Tlsa(1, 1, 1, b"x" * 32), False),
        (Tlsa(4, 1, 1, b"x" * 32), False),
        (Tlsa(255, 1, 1, b"x" * 32), False),
        (Tlsa(3, 2, 1, b"x" * 32), False),
        (Tlsa(3, 1, 3, b"x" * 32), False),
        (Tlsa(3, 1, 1, b"x" * 31), False),
        (Tlsa(3, 1, 2, b"x" * 32), False),
        (Tlsa(3, 1, 0, b""), False),
    ],
)
def test_which_records_can_be_checked(tlsa: Tlsa, can_be_checked: bool) -> None:
    assert bool(usable([tlsa])) is can_be_checked


_RECORDS = st.lists(
    st.builds(Tlsa, st.integers(0, 4), st.integers(0, 2), st.integers(0, 3), st.binary(max_size=80)), max_size=4
)


@given(records=_RECORDS)
def test_records_made_up_by_anybody_prove_nothing_and_raise_nothing(records: list[Tlsa]) -> None:
    sent = world().chains["right"]
    chain = (sent.certificate, *sent.above)
    assert why_not(records, chain, names=(HOST,), now=dt.datetime.now(dt.UTC)) is not None


def test_no_certificate_proves_nothing() -> None:
    assert why_not(_self(3, 1, 1, "right"), (), names=(HOST,), now=dt.datetime.now(dt.UTC)) is not None


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 2048),
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["rsa", "curve", "edwards"],
)
def test_the_key_is_found_where_it_stands(key: rsa.RSAPrivateKey) -> None:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x" * 60)])
    now = dt.datetime.now(dt.UTC)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + DAY)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(f"{n}.example.com") for n in range(100)]), False)
        .sign(key, algorithm)
    )
    assert key_of(certificate) == key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


async def _command(*arguments: str | Path) -> None:
    made = await asyncio.create_subprocess_exec(
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    async with asyncio.timeout(10):
        assert await made.wait() == 0


@needs_openssl
async def test_a_key_in_another_form_is_the_one_in_the_certificate(tmp_path: Path) -> None:
    key, file = tmp_path / "key.pem", tmp_path / "cert.pem"
    await _command("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)
    await _command("openssl", "ec", "-in", key, "-conv_form", "compressed", "-out", key)
    await _command("openssl", "req", "-x509", "-new", "-key", key, "-out", file, "-subj", f"/CN={HOST}")
    certificate = x509.load_pem_x509_certificate(file.read_bytes())
    anew = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert len(key_of(certificate)) < len(anew)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key)
    records = (Tlsa(3, 1, 1, hashlib.sha256(key_of(certificate)).digest()),)
    async with tls_server(context) as server:
        assert (await _ours(server, records), await _openssl(server, records)) == (True, True)


@contextlib.asynccontextmanager
async def tls_server(context: ssl.SSLContext) -> AsyncIterator[Endpoint]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await reader.read(100)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield Endpoint("127.0.0.1", server.sockets[0].getsockname()[1])
    finally:
        server.close()


async def _ours(where: Endpoint, records: tuple[Tlsa, ...]) -> bool:
    demand = Dane(records, (HOST,))
    reader, writer = await asyncio.open_connection(
        where.host, where.port, ssl=context_for(demand), server_hostname=HOST
    )
    del reader
    try:
        connection = writer.get_extra_info("ssl_object")
        return verdict(demand, connection, HOST, now=dt.datetime.now(dt.UTC)) is None
    finally:
        writer.transport.abort()


async def _openssl(where: Endpoint, records: tuple[Tlsa, ...]) -> bool:
    asked = [
        argument
        for one in records
        for argument in ("-dane_tlsa_rrdata", f"{one.usage} {one.selector} {one.matching} {one.data.hex()}")
    ]
    client = await asyncio.create_subprocess_exec(
        "openssl", "s_client", "-connect", str(where), "-servername", HOST, "-dane_tlsa_domain", HOST, *asked,
        "-dane_ee_no_namechecks", "-verify_return_error", "-verify", "9", "-brief",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    async with asyncio.timeout(10):
        return await client.wait() == 0


@needs_openssl
async def test_our_verdicts_over_real_connections_are_those_of_openssl(tmp_path: Path) -> None:
    told = {}
    async with contextlib.AsyncExitStack() as stack:
        servers = {
            chain: await stack.enter_async_context(tls_server(of.context(tmp_path)))
            for chain, of in world().chains.items()
            if chain in {chain for chain, _, _ in cases().values()}
        }
        for name, (chain, records, says) in cases().items():
            told[name] = (await _ours(servers[chain], records), await _openssl(servers[chain], records), says is None)
    assert told.pop("authority, partial wildcard") == (False, True, False)  # forbidden by RFC 8461 4.1
    assert {name: verdicts for name, verdicts in told.items() if len(set(verdicts)) > 1} == {}
    assert {verdicts[0] for verdicts in told.values()} == {True, False}
