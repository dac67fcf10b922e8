"""DKIM: what we sign, another implementation verifies; what is changed afterwards, it refuses."""

import base64
from pathlib import Path
from types import SimpleNamespace

import dkim
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from dkim import canonicalization
from hypothesis import given
from hypothesis import strategies as st

from smtp.dkim import Body, Key, Signer, UnusableKey, keys_for, read_key, relaxed_body, simple_body
from smtp.messages import Message

NOW = 1_764_000_000_000
FIELDS = (
    b"From: The Shop <news@shop.example>\r\n",
    b"To: ann@example.com\r\n",
    b"Subject: =?utf-8?q?Caf=C3=A9?=\r\n =?utf-8?q?_and_more?=\r\n",
    b"Date: Mon, 24 Nov 2025 16:00:00 +0000\r\n",
    b"Message-ID: <m-1@shop.example>\r\n",
    b"List-Unsubscribe: <https://u.example/t>,\r\n <mailto:off@u.example>\r\n",
    b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n",
    b"Feedback-ID: spring:shop:mail:mailcordon\r\n",
    b"X-Not-Signed: a\r\n",
    b"MIME-Version: 1.0\r\n",
)
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
ED = Ed25519PrivateKey.generate()


class VerifyKey:
    """The one class that dkimpy wants from PyNaCl, on top of what is installed anyway."""

    def __init__(self, key: bytes, encoder: object) -> None:
        del encoder
        self._key = Ed25519PublicKey.from_public_bytes(base64.b64decode(key))

    def verify(self, message: bytes, signature: bytes) -> None:
        self._key.verify(signature, message)


@pytest.fixture(autouse=True)
def _ed25519_without_pynacl(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {
        "signing": SimpleNamespace(VerifyKey=VerifyKey),
        "encoding": SimpleNamespace(Base64Encoder=None),
        "exceptions": SimpleNamespace(BadSignatureError=InvalidSignature, ValueError=ValueError),
    }
    monkeypatch.setattr(dkim, "nacl", SimpleNamespace(**parts), raising=False)


def public_record(name: bytes, timeout: float = 5) -> bytes:
    del timeout
    if name.startswith(b"rsa."):
        der = RSA.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        return b"v=DKIM1; k=rsa; p=" + base64.b64encode(der)
    raw = ED.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return b"v=DKIM1; k=ed25519; p=" + base64.b64encode(raw)


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


KEYS = {
    "rsa": Key("shop.example", "rsa", RSA),
    "ed25519": Key("shop.example", "ed", ED),
}


def signed(message: Message, kind: str, body: Body = "relaxed") -> bytes:
    return message.data(*Signer([KEYS[kind]], body=body).signatures(message, now=NOW))


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("form", ["relaxed", "simple"])
@pytest.mark.parametrize(
    "body",
    [b"Dear Ann\r\n", b"", b"\r\n\r\n", b"a  b\t c \r\n\r\n x\r\n\r\n\r\n", b"no line end", b".\r\n..\r\n"],
    ids=["plain", "empty", "only-line-ends", "white-space", "no-end", "dots"],
)
def test_another_implementation_verifies_the_signature(kind: str, form: Body, body: bytes) -> None:
    assert dkim.verify(signed(Message(FIELDS, body), kind, form), dnsfunc=public_record)


@given(body=st.lists(st.sampled_from([b" ", b"\t", b"\r\n", b"a", b"=20", b"."]), max_size=30).map(b"".join))
def test_both_canonical_forms_agree_with_the_other_implementation(body: bytes) -> None:
    assert relaxed_body(body) == canonicalization.Relaxed.canonicalize_body(body)
    assert simple_body(body) == canonicalization.Simple.canonicalize_body(body)


@pytest.mark.parametrize("field", range(8))
@pytest.mark.parametrize("kind", KEYS)
def test_a_change_of_any_signed_field_is_noticed(kind: str, field: int) -> None:
    data = signed(Message(FIELDS, b"Dear Ann\r\n"), kind)
    name, _, _ = FIELDS[field].partition(b":")
    changed = data.replace(FIELDS[field], name + b": something else\r\n")
    assert changed != data
    assert not dkim.verify(changed, dnsfunc=public_record)


@pytest.mark.parametrize("kind", KEYS)
def test_a_second_from_is_noticed(kind: str) -> None:
    data = signed(Message(FIELDS, b"Dear Ann\r\n"), kind)
    assert not dkim.verify(b"From: mallory@evil.example\r\n" + data, dnsfunc=public_record)


def test_a_change_of_the_body_is_noticed() -> None:
    data = signed(Message(FIELDS, b"Dear Ann\r\n"), "rsa")
    assert not dkim.verify(data.replace(b"Dear Ann", b"Dear Bob"), dnsfunc=public_record)


def test_two_keys_give_two_signatures_and_both_hold() -> None:
    message = Message(FIELDS, b"Dear Ann\r\n")
    fields = Signer(list(KEYS.values())).signatures(message, now=NOW)
    assert [b"a=rsa-sha256" in field or b"a=ed25519-sha256" in field for field in fields] == [True, True]
    both = dkim.DKIM(message.data(*fields))
    assert both.verify(0, dnsfunc=public_record)
    assert both.verify(1, dnsfunc=public_record)


def test_one_signer_signs_many_bodies() -> None:
    signer = Signer([KEYS["ed25519"]])
    for body in (b"one\r\n", b"two\r\n", b"one\r\n"):
        message = Message(FIELDS, body)
        assert dkim.verify(message.data(*signer.signatures(message, now=NOW)), dnsfunc=public_record)


def test_signature_lines_are_short() -> None:
    for field in Signer(list(KEYS.values())).signatures(Message(FIELDS, b""), now=NOW):
        assert max(map(len, field.split(b"\r\n"))) <= 100


def test_without_keys_nothing_is_added() -> None:
    assert Signer([]).signatures(Message(FIELDS, b""), now=NOW) == ()


def folder(tmp_path: Path, **files: bytes) -> Path:
    for name, content in files.items():
        domain, _, selector = name.partition("__")
        place = tmp_path / domain.replace("_", ".")
        place.mkdir(exist_ok=True)
        (place / f"{selector}.pem").write_bytes(content)
    return tmp_path


def test_keys_are_found_by_domain_and_selector_rsa_first(tmp_path: Path) -> None:
    found = keys_for(folder(tmp_path, shop_example__b=pem(ED), shop_example__c=pem(RSA)), "shop.example")
    assert [(key.domain, key.selector, key.algorithm) for key in found] == [
        ("shop.example", "c", b"rsa-sha256"),
        ("shop.example", "b", b"ed25519-sha256"),
    ]


def test_the_last_selector_of_a_kind_signs(tmp_path: Path) -> None:
    place = folder(tmp_path, shop_example__s2025=pem(RSA), shop_example__s2026=pem(RSA))
    assert [key.selector for key in keys_for(place, "shop.example")] == ["s2026"]


def test_a_domain_without_keys_takes_those_of_the_domain_above(tmp_path: Path) -> None:
    place = folder(tmp_path, shop_example__s1=pem(ED), example__no=pem(ED))
    assert [key.domain for key in keys_for(place, "news.shop.example")] == ["shop.example"]


def test_a_key_may_be_a_file_of_a_mounted_secret_which_has_no_folders(tmp_path: Path) -> None:
    place = folder(tmp_path, shop_example__s1=pem(RSA))
    (place / "shop.example__s2.pem").write_bytes(pem(RSA))
    (place / "shop.example.org__s3.pem").write_bytes(pem(RSA))

    assert [(key.domain, key.selector) for key in keys_for(place, "shop.example")] == [("shop.example", "s2")]


@pytest.mark.parametrize("domain", ["other.test", "../../etc", "..", ""])
def test_no_keys_no_signatures(tmp_path: Path, domain: str) -> None:
    assert keys_for(folder(tmp_path, shop_example__s1=pem(ED)), domain) == ()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"nonsense", "no private key"),
        (pem(RSA).replace(b"M", b"N", 1), "no private key"),
        (pem(ec.generate_private_key(ec.SECP256R1())), "DKIM knows RSA and Ed25519"),
    ],
    ids=["no-pem", "broken", "elliptic-curve"],
)
def test_a_file_that_is_no_key_is_named(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "s1.pem"
    file.write_bytes(content)
    with pytest.raises(UnusableKey, match=says):
        read_key(file, domain="shop.example")


_SOME_FIELDS = st.lists(
    st.sampled_from(
        [
            b"From: a@shop.example\r\n",
            b"To: ann@example.com\r\n",
            b"To: bob@example.com\r\n",
            b"Subject: one\r\n",
            b"Subject: two\r\n two again\r\n",
            b"List-Id: <a>\r\n",
            b"X-Other: x\r\n",
        ]
    ),
    max_size=6,
).map(tuple)


@given(messages=st.lists(_SOME_FIELDS, max_size=6))
def test_what_a_signer_remembers_of_the_last_message_changes_no_signature(messages: list[tuple[bytes, ...]]) -> None:
    key = Key("shop.example", "s", Ed25519PrivateKey.generate())
    remembers = Signer([key])
    for fields in messages:
        message = Message(fields, b"body\r\n")
        assert remembers.signatures(message, now=0) == Signer([key]).signatures(message, now=0)
