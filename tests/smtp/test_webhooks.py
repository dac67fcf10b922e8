"""Webhooks over real HTTP, signed with keys made here: what is signed counts once, what is not counts never."""

import base64
import datetime as dt
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from policy.naming import campaign_name
from policy.settings import Endpoint
from policy.tokens import address_hash, message_id_header
from smtp.feedback_web import FeedbackWeb, WebhookLimits
from smtp.webhooks import postmark, sendgrid, ses
from smtp.webhooks.accounts import Accounts, Credentials, read_accounts
from smtp.webhooks.events import Event, Refusal
from smtp.webhooks.sns import Envelope, Sns, signed_text
from tests.smtp.mailroom import KEYS, NOW, OTHER_KEYS, SENT_AT, Kafka, context, signed

TOPIC = "arn:aws:sns:eu-west-1:123456789012:bounces"
CERT_URL = "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0123abcd.pem"
ANN = "ann@example.com"
BASIC = {"Authorization": "Basic " + base64.b64encode(b"hook:correct horse battery").decode()}
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())


def _certificate(until_ms: int = NOW + 86_400_000) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sns.amazonaws.com")])
    until = dt.datetime.fromtimestamp(until_ms / 1000, dt.UTC)
    made = x509.CertificateBuilder(
        name, name, RSA_KEY.public_key(), x509.random_serial_number(), until - dt.timedelta(days=9), until
    )
    return made.sign(RSA_KEY, hashes.SHA256()).public_bytes(Encoding.PEM)


class Amazon:
    """What stands behind the URLs of SNS; remembers what was asked for."""

    def __init__(self, certificate: bytes | None = None) -> None:
        self.asked: list[str] = []
        self.is_down = False
        self._certificate = certificate or _certificate()

    async def __call__(self, url: str) -> bytes:
        self.asked.append(url)
        if self.is_down:
            raise OSError("no route")
        return self._certificate if url.endswith(".pem") else b"<ConfirmSubscriptionResponse/>"


def accounts() -> Accounts:
    key = EC_KEY.public_key()
    return Accounts(
        certificate=None, topic_arns=(TOPIC,), sendgrid=key, postmark=Credentials("hook", "correct horse battery")
    )


class Poster:
    def __init__(self, server: FeedbackWeb, registry: CollectorRegistry) -> None:
        self._port = server.endpoint.port
        self._registry = registry

    async def post(self, path: str, body: bytes, headers: dict[str, str] | None = None) -> tuple[int, str]:
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"http://127.0.0.1:{self._port}/hooks/{path}", data=body, headers=headers) as answer,
        ):
            return answer.status, await answer.text()

    def counted(self, name: str, **labels: str) -> float:
        return self._registry.get_sample_value(f"mailcordon_webhook_{name}_total", labels) or 0.0


@asynccontextmanager
async def taking(kafka: Kafka, **changes: Any) -> AsyncIterator[Poster]:
    registry = CollectorRegistry()
    settings: dict[str, Any] = {"accounts": accounts(), "context": context(), "fetch": Amazon(), "now": lambda: NOW}
    server = FeedbackWeb(Endpoint("127.0.0.1", 0), publish=kafka, registry=registry, **settings | changes)
    await server.start()
    try:
        yield Poster(server, registry)
    finally:
        await server.stop()


def from_sns(message: dict[str, Any] | str, *, version: str = "2", **changes: Any) -> bytes:
    """A post of SNS with a genuine signature, unless ``Signature`` is given."""
    said: dict[str, Any] = {
        "Type": "Notification",
        "MessageId": "n-1",
        "TopicArn": TOPIC,
        "Message": message if isinstance(message, str) else json.dumps(message),
        "Timestamp": dt.datetime.fromtimestamp(NOW / 1000, dt.UTC).isoformat(),
        "SignatureVersion": version,
        "Signature": "",
        "SigningCertURL": CERT_URL,
    }
    said |= changes
    algorithm: hashes.HashAlgorithm = hashes.SHA1() if version == "1" else hashes.SHA256()  # noqa: S303 - as SNS does
    text = signed_text(msgspec.convert(said, Envelope))
    genuine = base64.b64encode(RSA_KEY.sign(text, padding.PKCS1v15(), algorithm)).decode()
    return json.dumps(said | {"Signature": changes.get("Signature", genuine)}).encode()


def ses_bounce(diagnostic: str = "smtp; 550 5.1.1 no such user", *, source: str | None = None, **bounce: Any) -> Any:
    recipient = {"emailAddress": ANN, "action": "failed", "status": "5.1.1", "diagnosticCode": diagnostic}
    return {
        "eventType": "Bounce",
        "mail": {"source": signed(to=ANN) if source is None else source, "headers": []},
        "bounce": {"bounceType": "Permanent", "bounceSubType": "General", "bouncedRecipients": [recipient]} | bounce,
    }


def from_sendgrid(events: list[dict[str, Any]], *, at: int = NOW, key: Any = EC_KEY) -> tuple[bytes, dict[str, str]]:
    body, timestamp = json.dumps(events).encode(), str(at // 1000)
    made = base64.b64encode(key.sign(timestamp.encode() + body, ec.ECDSA(hashes.SHA256()))).decode()
    return body, {sendgrid.SIGNATURE: made, sendgrid.TIMESTAMP: timestamp}


MESSAGE_ID = message_id_header(KEYS, campaign="spring-sale", message_id="m-1", domain="shop.example")
SG_BOUNCE = {
    "event": "bounce",
    "email": ANN,
    "timestamp": NOW // 1000,
    "smtp-id": MESSAGE_ID,
    "sg_event_id": "e-1",
    "reason": "550 5.1.1 no such user",
    "status": "5.1.1",
    "type": "bounce",
}
PM_BOUNCE = {
    "RecordType": "Bounce",
    "ID": 42,
    "Type": "HardBounce",
    "Tag": "spring-sale",
    "Email": ANN,
    "Details": "smtp;550 5.1.1 no such user",
    "BouncedAt": "2025-11-24T16:00:00.9070259Z",
    "Metadata": {"mailcordon-message-id": "m-1"},
}


async def test_a_bounce_of_ses_is_the_campaigns_hard_bounce() -> None:
    kafka = Kafka()
    async with taking(kafka) as poster:
        assert await poster.post("ses", from_sns(ses_bounce())) == (200, "stored\n")

    [event] = kafka.feedback
    assert (event.kind, event.campaign, event.message_id, event.sent_at) == (
        "hard_bounce",
        "spring-sale",
        "m-1",
        SENT_AT,
    )
    assert (event.class_, event.source) == ("invalid_recipient", "webhook:ses")
    assert event.address_hash == address_hash(KEYS, ANN)


@pytest.mark.parametrize("version", ["1", "2"])
async def test_both_versions_of_the_signature_are_believed(version: str) -> None:
    kafka = Kafka()
    async with taking(kafka) as poster:
        status, _ = await poster.post("ses", from_sns(ses_bounce(), version=version, Subject="Amazon SES"))

    assert (status, len(kafka.feedback)) == (200, 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"Signature": base64.b64encode(b"x" * 256).decode()},
        {"Signature": "no base64"},
        {"TopicArn": "arn:aws:sns:eu-west-1:999999999999:bounces"},
        {"SigningCertURL": "http://sns.eu-west-1.amazonaws.com/a.pem"},
        {"SigningCertURL": "https://sns.eu-west-1.amazonaws.com.evil.example/a.pem"},
        {"SigningCertURL": "https://sns.eu-west-1.amazonaws.com@evil.example/a.pem"},
        {"SigningCertURL": "https://sns.us-east-1.amazonaws.com/a.pem"},
        {"SigningCertURL": "https://evil.example/sns.eu-west-1.amazonaws.com/a.pem"},
        {"SignatureVersion": "3"},
        {"Timestamp": "2025-11-22T00:00:00Z"},
        {"Timestamp": "soon"},
    ],
    ids=str,
)
async def test_what_sns_did_not_sign_is_403_and_moves_nothing(changes: dict[str, Any]) -> None:
    kafka, amazon = Kafka(), Amazon()
    async with taking(kafka, fetch=amazon) as poster:
        status, said = await poster.post("ses", from_sns(ses_bounce(), **changes))

    assert (status, kafka.records) == (403, [])
    assert said.strip()
    assert set(amazon.asked) <= {CERT_URL}


async def test_a_changed_message_is_not_believed() -> None:
    kafka = Kafka()
    genuine = json.loads(from_sns(ses_bounce()))
    async with taking(kafka) as poster:
        status, _ = await poster.post("ses", json.dumps(genuine | {"Message": json.dumps(ses_bounce("x"))}).encode())

    assert (status, kafka.records) == (403, [])


async def test_a_certificate_that_has_ended_is_not_believed() -> None:
    async with taking(Kafka(), fetch=Amazon(_certificate(NOW - 1_000))) as poster:
        status, _ = await poster.post("ses", from_sns(ses_bounce()))

    assert status == 403


async def test_the_certificate_is_fetched_once_and_a_failure_is_not_repeated_at_once() -> None:
    amazon = Amazon()
    async with taking(Kafka(), fetch=amazon) as poster:
        for number in range(3):
            await poster.post("ses", from_sns(ses_bounce(), MessageId=f"n-{number}"))
    assert amazon.asked == [CERT_URL]

    amazon = Amazon()
    amazon.is_down = True
    async with taking(Kafka(), fetch=amazon) as poster:
        answers = [await poster.post("ses", from_sns(ses_bounce())) for _ in range(3)]
    assert [status for status, _ in answers] == [503, 503, 503]
    assert amazon.asked == [CERT_URL]


async def test_a_subscription_is_confirmed_at_amazon_only() -> None:
    amazon = Amazon()
    changes = {"Type": "SubscriptionConfirmation", "Token": "abc123", "SubscribeURL": "https://evil.example/"}
    async with taking(Kafka(), fetch=amazon) as poster:
        status, _ = await poster.post("ses", from_sns("You have chosen to subscribe", **changes))

    assert status == 200
    assert amazon.asked == [
        CERT_URL,
        (
            "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription"
            "&TopicArn=arn%3Aaws%3Asns%3Aeu-west-1%3A123456789012%3Abounces&Token=abc123"
        ),
    ]


async def test_a_subscription_of_another_topic_is_not_confirmed() -> None:
    amazon = Amazon()
    changes = {"Type": "SubscriptionConfirmation", "Token": "abc123", "TopicArn": f"{TOPIC}-2"}
    async with taking(Kafka(), fetch=amazon) as poster:
        status, _ = await poster.post("ses", from_sns("x", **changes))

    assert (status, amazon.asked) == (403, [])


async def test_a_bounce_of_sendgrid_is_tied_by_the_message_id() -> None:
    kafka = Kafka()
    async with taking(kafka) as poster:
        status, _ = await poster.post("sendgrid", *from_sendgrid([SG_BOUNCE]))

    [event] = kafka.feedback
    assert (status, event.kind, event.campaign, event.message_id) == (200, "hard_bounce", "spring-sale", "m-1")
    assert event.source == "webhook:sendgrid"


async def test_sendgrids_signature_is_of_its_key_its_body_and_its_time() -> None:
    kafka = Kafka()
    other = ec.generate_private_key(ec.SECP256R1())
    body, headers = from_sendgrid([SG_BOUNCE])
    async with taking(kafka) as poster:
        answers = [
            await poster.post("sendgrid", *from_sendgrid([SG_BOUNCE], key=other)),
            await poster.post("sendgrid", body + b" ", headers),
            await poster.post("sendgrid", body, headers | {sendgrid.TIMESTAMP: str(NOW // 1000 + 1)}),
            await poster.post("sendgrid", body),
            await poster.post("sendgrid", *from_sendgrid([SG_BOUNCE], at=NOW - 601_000)),
            await poster.post("sendgrid", *from_sendgrid([SG_BOUNCE], at=NOW + 601_000)),
        ]

    assert [status for status, _ in answers] == [403] * 6
    assert kafka.records == []


async def test_an_event_that_cannot_be_read_keeps_no_other_from_counting() -> None:
    kafka = Kafka()
    async with taking(kafka) as poster:
        status, _ = await poster.post("sendgrid", *from_sendgrid([{"event": 7}, SG_BOUNCE, []]))  # type: ignore[list-item]

    assert status == 200
    assert [one.kind for one in kafka.feedback] == ["hard_bounce"]
    assert [one.reason for one in kafka.letters] == ["webhook_event_malformed"] * 2


async def test_a_bounce_of_postmark_is_tied_by_its_tag() -> None:
    kafka = Kafka()
    async with taking(kafka) as poster:
        status, _ = await poster.post("postmark", json.dumps(PM_BOUNCE).encode(), BASIC)

    [event] = kafka.feedback
    assert (status, event.kind, event.campaign, event.message_id) == (200, "hard_bounce", "spring-sale", "m-1")


@pytest.mark.parametrize("user", [None, "hook:wrong horse battery", "hook", "", "hook:correct horse battery2"])
async def test_without_postmarks_password_nothing_is_read(user: str | None) -> None:
    kafka = Kafka()
    headers = {} if user is None else {"Authorization": "Basic " + base64.b64encode(user.encode()).decode()}
    async with taking(kafka) as poster:
        status, _ = await poster.post("postmark", json.dumps(PM_BOUNCE).encode(), headers)

    assert (status, kafka.records) == (403, [])


async def test_an_event_that_is_told_again_counts_once() -> None:
    kafka = Kafka()
    async with taking(kafka) as poster:
        for _ in range(3):
            assert (await poster.post("postmark", json.dumps(PM_BOUNCE).encode(), BASIC))[0] == 200
        assert poster.counted("events", service="postmark", result="repeat") == 2

    assert len(kafka.records) == 1


async def test_200_only_when_kafka_has_it() -> None:
    kafka = Kafka(is_down=True)
    async with taking(kafka) as poster:
        assert (await poster.post("ses", from_sns(ses_bounce())))[0] == 503
        kafka.is_down = False
        assert (await poster.post("ses", from_sns(ses_bounce())))[0] == 200

    assert len(kafka.feedback) == 1


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (signed(to=ANN, keys=OTHER_KEYS), "webhook_bad_signature"),
        (signed(to=ANN, sent_at=NOW - 31 * 86_400_000), "webhook_expired"),
        ("news@shop.example", "webhook_without_campaign"),
        (signed(to=ANN, name="nobodys"), "webhook_without_campaign"),
    ],
)
async def test_what_cannot_be_tied_is_a_dead_letter(source: str, reason: str) -> None:
    kafka = Kafka()
    async with taking(kafka) as poster:
        status, _ = await poster.post("ses", from_sns(ses_bounce(source=source)))

    assert (status, [one.reason for one in kafka.letters], kafka.feedback) == (200, [reason], [])
    assert ANN.encode() in base64.b64decode(kafka.letters[0].raw)


async def test_a_forged_mark_in_a_message_id_is_not_believed() -> None:
    kafka = Kafka()
    forged = message_id_header(OTHER_KEYS, campaign="spring-sale", message_id="m-1", domain="shop.example")
    async with taking(kafka) as poster:
        await poster.post("sendgrid", *from_sendgrid([SG_BOUNCE | {"smtp-id": forged}]))

    assert ([one.reason for one in kafka.letters], kafka.feedback) == (["webhook_bad_signature"], [])


async def test_an_address_that_the_message_was_not_sent_to_is_not_named() -> None:
    kafka = Kafka()
    async with taking(kafka) as poster:
        await poster.post("ses", from_sns(ses_bounce(source=signed(to="bob@example.com"))))

    assert kafka.feedback[0].address_hash is None


@pytest.mark.parametrize(
    ("path", "status"),
    [("ses", 400), ("postmark", 400), ("sendgrid", 403), ("nothing", 404)],
)
async def test_nonsense_gets_a_sentence(path: str, status: int) -> None:
    async with taking(Kafka()) as poster:
        answered, said = await poster.post(path, b"{" * 5_000, BASIC)

    assert answered == status
    assert 10 < len(said) < 400


async def test_too_much_is_413_and_too_often_429() -> None:
    limits = WebhookLimits(body_bytes=1_000, requests_per_minute=2)
    async with taking(Kafka(), limits=limits) as poster:
        answers = [await poster.post("postmark", b"x" * 1_001, BASIC) for _ in range(3)]

    assert [status for status, _ in answers] == [413, 413, 429]


async def test_other_services_than_the_named_ones_are_404() -> None:
    only = Accounts(certificate=None, topic_arns=(TOPIC,))
    async with taking(Kafka(), accounts=only) as poster:
        assert [(await poster.post(one, b"{}"))[0] for one in ("sendgrid", "postmark", "ses")] == [404, 404, 400]


SES_CASES = {
    "block": (ses_bounce("smtp; 550 5.7.1 blocked using zen.spamhaus.org"), "block"),
    "transient never hard": (ses_bounce("smtp; 550 5.1.1 no such user", bounceType="Transient"), "soft_bounce"),
    "no text": (ses_bounce("", bounceSubType="NoEmail"), "hard_bounce"),
    "mailbox full": (ses_bounce("", bounceType="Transient", bounceSubType="MailboxFull"), "soft_bounce"),
    "on a suppression list": (ses_bounce("x", bounceSubType="OnAccountSuppressionList"), "hard_bounce"),
    "complaint": (
        {"eventType": "Complaint", "complaint": {"complainedRecipients": [{"emailAddress": ANN}]}},
        "complaint",
    ),
    "not spam": ({"notificationType": "Complaint", "complaint": {"complaintFeedbackType": "not-spam"}}, "not_spam"),
    "delay": (
        {"eventType": "DeliveryDelay", "deliveryDelay": {"delayedRecipients": [{"emailAddress": ANN}]}},
        "soft_bounce",
    ),
    "reject": ({"eventType": "Reject", "reject": {"reason": "Bad content"}}, "block"),
    "unsubscribed": (
        {"eventType": "Subscription", "subscription": {"newTopicPreferences": {"unsubscribeAll": True}}},
        "unsubscribe",
    ),
    "delivery": ({"eventType": "Delivery"}, None),
}


@pytest.mark.parametrize(("message", "kind"), SES_CASES.values(), ids=SES_CASES)
async def test_what_ses_says_is_feedback_of_the_right_kind(message: dict[str, Any], kind: str | None) -> None:
    kafka = Kafka()
    tied = {"mail": {"headers": [{"name": "X-Mailcordon-Campaign", "value": campaign_name("spring-sale")}]}} | message
    async with taking(kafka) as poster:
        status, _ = await poster.post("ses", from_sns(tied))

    assert (status, [one.kind for one in kafka.records]) == (200, [kind] if kind else [])  # type: ignore[union-attr]


SENDGRID_CASES = {
    "blocked": ({"type": "blocked", "reason": "550 5.7.1 message rejected as spam", "status": "5.7.1"}, "block"),
    "deferred": ({"event": "deferred", "response": "450 4.2.2 mailbox full"}, "soft_bounce"),
    "classification": ({"reason": "failed", "status": None, "bounce_classification": "Invalid Address"}, "hard_bounce"),
    "dropped, bounced before": ({"event": "dropped", "reason": "Bounced Address"}, "hard_bounce"),
    "dropped, left before": ({"event": "dropped", "reason": "Unsubscribed Address"}, "unsubscribe"),
    "spam report": ({"event": "spamreport"}, "complaint"),
    "group": ({"event": "group_unsubscribe"}, "unsubscribe"),
    "open": ({"event": "open"}, None),
}


@pytest.mark.parametrize(("changes", "kind"), SENDGRID_CASES.values(), ids=SENDGRID_CASES)
async def test_what_sendgrid_says_is_feedback_of_the_right_kind(changes: dict[str, Any], kind: str | None) -> None:
    kafka = Kafka()
    async with taking(kafka) as poster:
        status, _ = await poster.post("sendgrid", *from_sendgrid([SG_BOUNCE | changes]))

    assert (status, [one.kind for one in kafka.records]) == (200, [kind] if kind else [])  # type: ignore[union-attr]


POSTMARK_CASES = {
    "soft": ({"Type": "SoftBounce", "Details": "smtp;452 4.2.2 mailbox full"}, "soft_bounce"),
    "blocked": ({"Type": "Blocked", "Details": ""}, "block"),
    "spam": ({"Type": "SpamNotification", "Details": ""}, "block"),
    "late": ({"Type": "Transient", "Details": "smtp;451 4.7.1 try later"}, "soft_bounce"),
    "away": ({"Type": "AutoResponder"}, "auto_reply"),
    "complaint": ({"RecordType": "SpamComplaint", "Type": "SpamComplaint"}, "complaint"),
    "left": (
        {"RecordType": "SubscriptionChange", "SuppressSending": True, "SuppressionReason": "ManualSuppression"},
        "unsubscribe",
    ),
    "came back": ({"RecordType": "SubscriptionChange", "SuppressSending": False}, None),
    "delivery": ({"RecordType": "Delivery", "Type": None}, None),
}


@pytest.mark.parametrize(("changes", "kind"), POSTMARK_CASES.values(), ids=POSTMARK_CASES)
async def test_what_postmark_says_is_feedback_of_the_right_kind(changes: dict[str, Any], kind: str | None) -> None:
    kafka = Kafka()
    async with taking(kafka) as poster:
        status, _ = await poster.post("postmark", json.dumps(PM_BOUNCE | changes).encode(), BASIC)

    assert (status, [one.kind for one in kafka.records]) == (200, [kind] if kind else [])  # type: ignore[union-attr]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=20,
)


@given(body=st.binary(max_size=200) | JSON.map(lambda one: json.dumps(one).encode()))
def test_whatever_is_posted_is_an_answer(body: bytes) -> None:
    for found in (sendgrid.events(body), postmark.events(body), ses.events(body.decode("latin-1"), id="n")):
        assert isinstance(found, Refusal | list)


@given(st.dictionaries(st.sampled_from(list(SG_BOUNCE) + list(PM_BOUNCE) + ["category"]), JSON))
def test_known_names_with_any_value_are_an_answer(fields: dict[str, Any]) -> None:
    body = json.dumps(SG_BOUNCE | fields).encode()
    for found in (sendgrid.events(b"[" + body + b"]"), postmark.events(json.dumps(PM_BOUNCE | fields).encode())):
        assert isinstance(found, Refusal) or len(found) == 1


def test_depth_is_no_crash() -> None:
    deep = b'[{"event":"bounce","x":' + b"[" * 100_000
    assert isinstance(sendgrid.events(deep), Refusal)
    assert isinstance(postmark.events(b'{"RecordType":"Bounce","Metadata":{"a":' + b"[" * 100_000), Refusal)


async def test_raw_delivery_is_told_to_be_switched_off() -> None:
    found = await Sns((TOPIC,), Amazon()).read(json.dumps(ses_bounce()).encode(), now=NOW)

    assert isinstance(found, Refusal)
    assert "raw message delivery must be off" in found.explain


def test_events_of_ses_are_one_for_each_recipient() -> None:
    recipients = [{"emailAddress": f"{number}@example.com"} for number in range(3)]
    found = ses.events(json.dumps(ses_bounce(bouncedRecipients=recipients)), id="n")

    assert isinstance(found, list)
    assert len({one.id for one in found if isinstance(one, Event)}) == 3


SPKI = base64.b64encode(EC_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


def test_the_file_says_who_may_post(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("correct horse battery\n")
    (tmp_path / "password").chmod(0o640)
    file = tmp_path / "webhooks.toml"
    file.write_text(
        f'[tls]\nplain_http = true\n[ses]\ntopic_arns = ["{TOPIC}"]\n[sendgrid]\npublic_key = "{SPKI}"\n'
        '[postmark]\nuser = "hook"\npassword_file = "password"\n'
    )

    found = read_accounts(file)

    assert found.topic_arns == (TOPIC,)
    assert found.postmark == Credentials("hook", "correct horse battery")
    assert found.sendgrid is not None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", r"\[tls\] needs certificate and key"),
        ("[tls]\nplain_http = true", "names no service"),
        ('[tls]\nplain_http = true\n[ses]\ntopic_arns = ["x"]', "is no topic"),
        ('[tls]\nplain_http = true\n[sendgrid]\npublic_key = "x"', "no public key"),
        ('[tls]\nplain_http = true\n[postmark]\nuser = "a"\npassword_file = "missing"', "password_file"),
        ("[tsl]\nplain_http = true", "tsl"),
        ("not toml", "webhooks_file"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "webhooks.toml"
    file.write_text(text)

    with pytest.raises(ValueError, match=says):
        read_accounts(file)
