"""Amazon SNS: what it posts to an HTTPS endpoint, and whether SNS signed it.

The certificate comes from the host of the topic's own region and from nowhere else, whatever the request says, so
that nobody can have us fetch, or believe, anything of his.  Topics are those that the operator has named.
"""

import asyncio
import base64
import binascii
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection
from datetime import UTC, datetime
from urllib.parse import quote

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from smtp.webhooks.events import Refusal, millis

MAX_AGE_MS = 86_400_000  # SNS tries for an hour; what is older was sent by somebody else
MAX_CERTIFICATE_BYTES = 65_536
_SKEW_MS = 3_600_000
_KEPT = 16
_KEPT_MS = 86_400_000
_FAILURE_KEPT_MS = 30_000
_MIN_KEY_BITS = 2048

_TOPIC = re.compile(r"arn:aws(?:-cn|-us-gov)?:sns:([a-z0-9-]{1,40}):\d{12}:[A-Za-z0-9_.-]{1,260}").fullmatch
_CERTIFICATE = re.compile(r"https://(sns\.[a-z0-9-]{1,40}\.amazonaws\.com(?:\.cn)?)/[A-Za-z0-9-]{1,100}\.pem").fullmatch
_TOKEN = re.compile(r"[A-Za-z0-9]{1,1000}").fullmatch

Fetch = Callable[[str], Awaitable[bytes]]
"""Gets what stands behind an https URL; raises OSError or TimeoutError when it cannot."""


class Envelope(msgspec.Struct, frozen=True, rename="pascal"):
    """What SNS posts."""

    type: str
    message_id: str
    topic_arn: str
    message: str
    timestamp: str
    signature: str
    signing_cert_url: str = msgspec.field(name="SigningCertURL")
    signature_version: str = "1"
    subject: str | None = None
    token: str | None = None
    subscribe_url: str | None = msgspec.field(name="SubscribeURL", default=None)


def is_topic(arn: str) -> bool:
    """Is this the name of a topic?"""
    return _TOPIC(arn) is not None


class Sns:
    """Reads posts of the ``topics``; ``fetch`` gets certificates and confirms subscriptions."""

    def __init__(self, topics: Collection[str], fetch: Fetch) -> None:
        self._topics = frozenset(topics)
        self._fetch = fetch
        self._certificates: OrderedDict[str, tuple[int, x509.Certificate | None]] = OrderedDict()
        self._fetching = asyncio.Lock()

    async def read(self, body: bytes, *, now: int) -> Envelope | Refusal:
        """The envelope, if SNS signed it for one of the topics."""
        try:
            envelope = msgspec.json.decode(body, type=Envelope)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as wrong:
            return Refusal("malformed", f"no message of SNS: {wrong}; raw message delivery must be off")
        if envelope.topic_arn not in self._topics:
            return Refusal("forged", "the topic is none of topic_arns in webhooks_file")
        sent_at = millis(envelope.timestamp)
        if sent_at is None or not now - MAX_AGE_MS <= sent_at <= now + _SKEW_MS:
            return Refusal("forged", "the message is not of the last 24 hours")
        if self._host(envelope) is None:
            return Refusal("forged", "SigningCertURL is not of the host of SNS in the topic's region")
        try:
            certificate = await self._certificate(envelope.signing_cert_url, now)
        except (OSError, TimeoutError):
            return Refusal("later", "the certificate of SNS could not be fetched")
        flaw = _flaw(envelope, certificate, now)
        return envelope if flaw is None else Refusal("forged", flaw)

    async def confirm(self, envelope: Envelope) -> Refusal | None:
        """Say yes to a subscription; the URL is made here, for none is followed that came in a request."""
        host = self._host(envelope)
        if host is None or not _TOKEN(envelope.token or ""):
            return Refusal("malformed", "the confirmation has no Token")
        query = f"Action=ConfirmSubscription&TopicArn={quote(envelope.topic_arn, safe='')}&Token={envelope.token}"
        try:
            await self._fetch(f"https://{host}/?{query}")
        except (OSError, TimeoutError):
            return Refusal("later", "SNS could not be reached to confirm the subscription")
        return None

    def _host(self, envelope: Envelope) -> str | None:
        topic, certificate = _TOPIC(envelope.topic_arn), _CERTIFICATE(envelope.signing_cert_url)
        if topic is None or certificate is None:
            return None
        region, ending = topic[1], ".cn" if envelope.topic_arn.startswith("arn:aws-cn:") else ""
        host = f"sns.{region}.amazonaws.com{ending}"
        return host if certificate[1] == host else None

    async def _certificate(self, url: str, now: int) -> x509.Certificate | None:
        """The certificate behind a URL, None for something else; one fetch at a time, and none too soon again."""
        async with self._fetching:
            until, known = self._certificates.get(url, (0, None))
            if now < until:
                if known is None:
                    raise OSError("not to be had a moment ago")
                return known
            self._keep(url, now + _FAILURE_KEPT_MS, None)
            fetched = await self._fetch(url)
            try:
                certificate = x509.load_pem_x509_certificate(fetched[:MAX_CERTIFICATE_BYTES])
            except ValueError:
                return None
            self._keep(url, now + _KEPT_MS, certificate)
            return certificate

    def _keep(self, url: str, until: int, certificate: x509.Certificate | None) -> None:
        self._certificates[url] = (until, certificate)
        self._certificates.move_to_end(url)
        if len(self._certificates) > _KEPT:
            self._certificates.popitem(last=False)


def signed_text(envelope: Envelope) -> bytes:
    """What SNS signs: names and values, each on a line, in the order of the names."""
    said: dict[str, str | None] = {
        "Message": envelope.message,
        "MessageId": envelope.message_id,
        "Subject": envelope.subject,
        "Timestamp": envelope.timestamp,
        "TopicArn": envelope.topic_arn,
        "Type": envelope.type,
    }
    if envelope.type != "Notification":
        del said["Subject"]
        said |= {"SubscribeURL": envelope.subscribe_url, "Token": envelope.token}
    return "".join(f"{name}\n{value}\n" for name, value in sorted(said.items()) if value is not None).encode()


def _flaw(envelope: Envelope, certificate: x509.Certificate | None, now: int) -> str | None:
    if certificate is None:
        return "what stands behind SigningCertURL is no certificate"
    moment = datetime.fromtimestamp(now / 1000, UTC)
    if not certificate.not_valid_before_utc <= moment <= certificate.not_valid_after_utc:
        return "the certificate of SNS is not valid now"
    key = certificate.public_key()
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size < _MIN_KEY_BITS:
        return "the certificate of SNS has no RSA key of 2048 bits"
    match envelope.signature_version:
        case "1":
            algorithm: hashes.HashAlgorithm = hashes.SHA1()  # noqa: S303 - SNS's own choice for version 1
        case "2":
            algorithm = hashes.SHA256()
        case _:
            return "SignatureVersion is neither 1 nor 2"
    try:
        signature = base64.b64decode(envelope.signature, validate=True)
        key.verify(signature, signed_text(envelope), padding.PKCS1v15(), algorithm)
    except (InvalidSignature, binascii.Error, UnicodeEncodeError, ValueError):
        return "the signature is not that of SNS"
    return None
