"""DKIM signatures (RFC 6376, RFC 8463): made once per message, over its final bytes.

The keys are read once; hashing and signing is done by ``cryptography`` directly.  ``From`` is signed one time
more often than it occurs, so that nobody can add another; what mailbox providers ask senders to cover
(List-Unsubscribe, List-Unsubscribe-Post, Feedback-ID) is covered.  Verification is not our task.
"""

import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from smtp.messages import Message

SIGNED = (
    b"from", b"to", b"cc", b"reply-to", b"subject", b"date", b"message-id", b"mime-version", b"content-type",
    b"content-transfer-encoding", b"list-id", b"list-unsubscribe", b"list-unsubscribe-post", b"feedback-id",
    b"cfbl-address", b"cfbl-feedback-id",
)  # fmt: skip
OVERSIGNED = (b"from",)
SMALLEST_RSA_BITS = 1024  # RFC 8301 3.2: verifiers refuse less; 2048 is what one should have

Body = Literal["relaxed", "simple"]

_BLANKS = re.compile(rb"[ \t]+")
_LINE_ENDS = re.compile(rb"[ \t]+(?=\r\n)")
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\Z")


class UnusableKey(ValueError):  # noqa: N818 - it is what it says
    """A key file that cannot sign; the message names the file and what it must hold."""


@dataclass(frozen=True, slots=True)
class Key:
    """A private key and where its public half stands in the DNS: ``selector._domainkey.domain``."""

    domain: str
    selector: str
    private: RSAPrivateKey | Ed25519PrivateKey

    @property
    def algorithm(self) -> bytes:
        """The value of the tag ``a=``."""
        return b"rsa-sha256" if isinstance(self.private, RSAPrivateKey) else b"ed25519-sha256"

    def sign(self, data: bytes) -> bytes:
        """The bare signature over canonical bytes."""
        if isinstance(self.private, RSAPrivateKey):
            return self.private.sign(data, padding.PKCS1v15(), hashes.SHA256())
        return self.private.sign(hashlib.sha256(data).digest())  # RFC 8463 3: the hash is what is signed


def read_key(file: Path, *, domain: str) -> Key:
    """Read a private key in PEM: ``SELECTOR.pem``, or ``DOMAIN__SELECTOR.pem``."""
    selector = file.stem.removeprefix(f"{domain}__")
    if not _LABEL.match(selector):
        raise UnusableKey(f"{file}: the file name is the DKIM selector; use letters, digits, - and .")
    try:
        private = load_pem_private_key(file.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as wrong:
        raise UnusableKey(f"{file}: no private key in PEM without a passphrase: {wrong}") from wrong
    if not isinstance(private, RSAPrivateKey | Ed25519PrivateKey):
        raise UnusableKey(f"{file}: DKIM knows RSA and Ed25519 keys, this is {type(private).__name__}")
    if isinstance(private, RSAPrivateKey) and private.key_size < SMALLEST_RSA_BITS:
        raise UnusableKey(f"{file}: {private.key_size} bits are refused everywhere; make a key of 2048 bits")
    return Key(domain, selector, private)


def keys_for(folder: Path, domain: str) -> tuple[Key, ...]:
    """The keys in ``folder/DOMAIN/SELECTOR.pem`` for a From domain or the nearest domain above it.

    ``folder/DOMAIN__SELECTOR.pem`` is the same: the keys of a Kubernetes Secret become files, and cannot have a slash.

    At most one key of each kind signs, RSA first: the last one by name, so that a new selector that sorts later
    takes over.
    """
    labels = domain.lower().rstrip(".").split(".")
    for at in range(max(1, len(labels) - 1)):
        name = ".".join(labels[at:])
        if not _LABEL.match(name):
            break
        files = [*(folder / name).glob("*.pem"), *folder.glob(f"{name}__*.pem")]
        found = sorted((read_key(file, domain=name) for file in files), key=lambda key: key.selector)
        if found:
            newest = {key.algorithm: key for key in found}
            return tuple(sorted(newest.values(), key=lambda key: key.algorithm, reverse=True))
    return ()


class Signer:
    """Signs messages with one or more keys; ``body`` is the canonical form of the body.

    What was the same in the last message, as most of a campaign's header fields are, is not worked out again.
    """

    def __init__(self, keys: Sequence[Key], *, body: Body = "relaxed") -> None:
        self._keys = tuple(keys)
        self._form = body
        self._hashed: tuple[bytes | None, bytes] = (None, b"")
        self._fields: tuple[bytes, ...] = ()  # of the last message
        self._names: tuple[bytes, ...] = ()
        self._canonical: list[bytes] = []
        self._order = _order_of(())

    def signatures(self, message: Message, *, now: int) -> tuple[bytes, ...]:
        """The DKIM-Signature fields of a message, each with its line end; ``now`` in ms."""
        if not self._keys:
            return ()
        canonical = self._canonical_fields(message.fields)
        signed = b"".join([canonical[at] for at in self._order.indices])
        order = self._order
        second, body_hash = now // 1000, self._body_hash(message.body)
        return tuple(self._signature(key, order.names, signed, body_hash, second) for key in self._keys)

    def _signature(self, key: Key, names: Sequence[bytes], signed: bytes, body_hash: bytes, second: int) -> bytes:
        """One field; its own relaxed form, which is signed too, is written beside it rather than worked out of it."""
        form = self._form.encode("ascii")
        start = b" v=1; a=%b; c=relaxed/%b; d=%b; s=%b;" % (
            key.algorithm,
            form,
            key.domain.encode("ascii"),
            key.selector.encode("ascii"),
        )
        middle = b"t=%d; bh=%b;" % (second, body_hash)
        relaxed = b"dkim-signature:%b %b h=%b; b=" % (start[1:], middle, b": ".join(names))
        signature = binascii.b2a_base64(key.sign(signed + relaxed), newline=False)
        return b"DKIM-Signature:%b\r\n\t%b\r\n\th=%b;\r\n\tb=%b\r\n" % (
            start,
            middle,
            b":\r\n\t ".join(names),
            b"\r\n\t ".join([signature[at : at + 70] for at in range(0, len(signature), 70)]),
        )

    def _canonical_fields(self, fields: tuple[bytes, ...]) -> list[bytes]:
        """The canonical form of each field; only those that differ from the last message's are worked out."""
        if len(fields) == len(self._fields):
            for at, (field, last) in enumerate(zip(fields, self._fields, strict=True)):
                if field != last:
                    if not field.lower().startswith(self._names[at] + b":"):
                        break
                    self._canonical[at] = relaxed_field(field)
            else:
                self._fields = fields
                return self._canonical
        self._fields = fields
        self._canonical = [relaxed_field(field) for field in fields]
        names = tuple(field.partition(b":")[0].lower() for field in fields)
        if names != self._names:
            self._names, self._order = names, _order_of(names)
        return self._canonical

    def _body_hash(self, body: bytes) -> bytes:
        if body is not self._hashed[0]:
            canonical = relaxed_body(body) if self._form == "relaxed" else simple_body(body)
            self._hashed = (body, binascii.b2a_base64(hashlib.sha256(canonical).digest(), newline=False))
        return self._hashed[1]


@dataclass(frozen=True, slots=True)
class _Order:
    """Which fields are signed, in which order, and the value of ``h=`` in lines."""

    indices: tuple[int, ...]
    names: tuple[bytes, ...]


def _order_of(names: Sequence[bytes]) -> _Order:
    """The last field of a name is signed first (RFC 6376 5.4.2)."""
    indices: list[int] = []
    signed: list[bytes] = []
    for name in SIGNED:
        for at in range(len(names) - 1, -1, -1):
            if names[at] == name:
                indices.append(at)
                signed.append(name)
    signed.extend(OVERSIGNED)
    return _Order(tuple(indices), tuple(b":".join(signed[at : at + 4]) for at in range(0, len(signed), 4)))


def relaxed_field(field: bytes) -> bytes:
    """A header field in relaxed form (RFC 6376 3.4.2), line end included."""
    name, _, value = field.partition(b":")
    value = value.replace(b"\r\n", b"")
    if b"  " in value or b"\t" in value:
        value = _BLANKS.sub(b" ", value)
    return name.rstrip(b" \t").lower() + b":" + value.strip(b" \t\r\n") + b"\r\n"


def simple_body(body: bytes) -> bytes:
    """A body in simple form (RFC 6376 3.4.3): one line end at its end."""
    return body.rstrip(b"\r\n") + b"\r\n"  # our bodies hold CR and LF only in pairs


def relaxed_body(body: bytes) -> bytes:
    """A body in relaxed form (RFC 6376 3.4.4): white space runs are one space, none before a line end."""
    if b"\t" in body or b"  " in body:
        body = _BLANKS.sub(b" ", body)
    if b" \r\n" in body:
        body = _LINE_ENDS.sub(b"", body)
    body = simple_body(body)
    return b"" if body == b"\r\n" else body
