"""The server behind unsubscribe links, over real HTTPS: who presses is out, who looks is not, who forges is told."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import FormData
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from multidict import CIMultiDict

from policy.settings import Endpoint
from policy.tokens import address_hash, unsubscribe_token
from schemas.feedback import Feedback
from smtp.certificates import Certificate
from smtp.http_server import WebLimits
from smtp.return_path_metrics import Metrics
from smtp.unsubscribe_web import UnsubscribeWeb, posted
from tests.smtp.authority import Identity, identity
from tests.smtp.mailroom import CAMPAIGNS, KEYS, NOW, OTHER_KEYS, SENT_AT, Kafka, context
from tests.smtp.wire import until

HOST = "u.shop.example"
ONE_CLICK = {"List-Unsubscribe": "One-Click"}
ANN = address_hash(KEYS, "ann@example.com")


def token(keys: Any = KEYS, campaign: str = "spring-sale", message_id: str = "m-1") -> str:
    return unsubscribe_token(keys, campaign=campaign, message_id=message_id, address_hash=ANN, sent_at=SENT_AT)


def written(one: Identity, folder: Path) -> tuple[Path, Path]:
    certificate, key = folder / "tls.crt", folder / "tls.key"
    certificate.write_bytes(one.pem)
    key.write_bytes(one.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return certificate, key


class Browser:
    """Asks the server by HTTPS (or by HTTP), believing one certificate only."""

    def __init__(self, server: UnsubscribeWeb, trusted: Identity | None, metrics: Metrics) -> None:
        self.port = server.endpoint.port
        self._metrics = metrics
        self._scheme = "http" if trusted is None else "https"
        self._tls: ssl.SSLContext | bool = True
        if trusted is not None:
            self._tls = ssl.create_default_context(cadata=trusted.pem.decode())

    async def ask(self, method: str, path: str, **options: Any) -> tuple[int, str, Any]:
        async with (
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http,
            http.request(
                method,
                f"{self._scheme}://127.0.0.1:{self.port}{path}",
                ssl=self._tls,
                server_hostname=HOST if self._scheme == "https" else None,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=20),
                **options,
            ) as answer,
        ):
            return answer.status, await answer.text(), answer.headers

    def counted(self, result: str) -> float:
        name = "mailcordon_return_path_unsubscribe_total"
        return self._metrics.registry.get_sample_value(name, {"result": result}) or 0.0


@asynccontextmanager
async def serving(
    kafka: Kafka, *, certificate: Certificate | None = None, trusted: Identity | None = None, **changes: Any
) -> AsyncIterator[Browser]:
    metrics = Metrics()
    settings: dict[str, Any] = {
        "context": context(),
        "campaigns": CAMPAIGNS,
        "publish": kafka,
        "metrics": metrics,
        "certificate": certificate,
        "now": lambda: NOW,
    }
    server = UnsubscribeWeb(Endpoint("127.0.0.1", 0), **settings | changes)
    await server.start()
    try:
        yield Browser(server, trusted, metrics)
    finally:
        await server.stop()


@asynccontextmanager
async def https(folder: Path, kafka: Kafka, **changes: Any) -> AsyncIterator[Browser]:
    one = identity(HOST)
    async with serving(kafka, certificate=Certificate(*written(one, folder)), trusted=one, **changes) as browser:
        yield browser


def as_multipart() -> FormData:
    form = FormData(default_to_multipart=True)
    form.add_field("List-Unsubscribe", "One-Click")
    return form


@pytest.mark.parametrize("body", ["urlencoded", "multipart"])
async def test_one_click_unsubscribes(tmp_path: Path, body: str) -> None:
    kafka = Kafka()
    async with https(tmp_path, kafka) as browser:
        status, text, headers = await browser.ask(
            "POST", f"/u/{token()}", data=ONE_CLICK if body == "urlencoded" else as_multipart()
        )
        assert browser.counted("one-click") == 1

    assert status == 200
    assert "You get no more mail from news@shop.example" in text
    assert "Set-Cookie" not in headers
    assert kafka.records == [
        Feedback(
            kind="unsubscribe",
            campaign="spring-sale",
            message_id="m-1",
            at=NOW,
            sent_at=SENT_AT,
            address_hash=ANN,
            source="unsubscribe:one-click",
        )
    ]


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_looking_at_a_link_unsubscribes_nobody(tmp_path: Path, method: str) -> None:
    kafka = Kafka()
    async with https(tmp_path, kafka) as browser:
        status, text, headers = await browser.ask(method, f"/u/{token()}")

    assert status == (204 if method == "OPTIONS" else 200)
    assert ('<form method="post">' in text) is (method == "GET")
    assert headers.get("Allow", "") == ("GET, HEAD, POST, OPTIONS" if method == "OPTIONS" else "")
    assert kafka.asked == 0


async def test_the_button_of_the_page_unsubscribes(tmp_path: Path) -> None:
    kafka = Kafka()
    async with https(tmp_path, kafka) as browser:
        _, page, _ = await browser.ask("GET", f"/u/{token()}")
        assert '<input type="hidden" name="List-Unsubscribe" value="Page">' in page
        status, _, _ = await browser.ask("POST", f"/u/{token()}", data={"List-Unsubscribe": "Page"})

    assert status == 200
    assert [one.source for one in kafka.feedback] == ["unsubscribe:page"]


BROKEN = {
    "another-installation": token(OTHER_KEYS),
    "cut": token()[:-1],
    "changed": ("A" if token()[0] != "A" else "B") + token()[1:],
    "nothing": "",
    "odd": "%2e%2e%2f%00<script>",
    "long": "a" * 3000,
}


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("kind", BROKEN)
async def test_a_link_that_we_did_not_make_suppresses_nobody_and_says_so(method: str, kind: str) -> None:
    kafka = Kafka()
    async with serving(kafka) as browser:
        data = ONE_CLICK if method == "POST" else None
        status, text, _ = await browser.ask(method, f"/u/{BROKEN[kind]}", data=data)
        assert browser.counted("forged") == 1

    assert status == 404
    assert "This link is not valid" in text
    assert "script" not in text
    assert kafka.asked == 0


async def test_a_link_of_a_campaign_that_is_gone_says_so() -> None:
    kafka = Kafka()
    async with serving(kafka) as browser:
        status, text, _ = await browser.ask("POST", f"/{token(campaign='forgotten')}", data=ONE_CLICK)
        assert browser.counted("unknown_campaign") == 1

    assert (status, kafka.asked) == (410, 0)
    assert "no longer valid" in text


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 400),
        (b"List-Unsubscribe=Two-Clicks", 400),
        (b"list-unsubscribe=One-Click&" * 50, 400),
        (b"\xff\x00", 400),
        (b"x" * 9_000, 413),
    ],
    ids=["empty", "other", "many-fields", "bytes", "large"],
)
async def test_a_body_that_does_not_ask_for_it_unsubscribes_nobody(data: bytes, status: int) -> None:
    kafka = Kafka()
    async with serving(kafka) as browser:
        found, text, _ = await browser.ask("POST", f"/u/{token()}", data=data)
        assert browser.counted("bad_request") == 1

    assert (found, kafka.asked) == (status, 0)
    assert "Not unsubscribed" in text


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "PROPFIND"])
async def test_other_methods_are_refused(method: str) -> None:
    kafka = Kafka()
    async with serving(kafka) as browser:
        status, _, headers = await browser.ask(method, f"/u/{token()}", data=ONE_CLICK)

    assert (status, headers["Allow"], kafka.asked) == (405, "GET, HEAD, POST, OPTIONS", 0)


@pytest.mark.parametrize(
    "line",
    ["OPTIONS * HTTP/1.1", "CONNECT u.example:443 HTTP/1.1", "GET / HTTP/1.1\r\nExpect: much"],
    ids=["options-all", "connect", "expect"],
)
async def test_no_request_gets_past_the_limit_of_requests(line: str) -> None:
    async with serving(Kafka(), limits=WebLimits(requests_per_minute=1)) as browser:
        answers = []
        for _ in range(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", browser.port)
            writer.write(f"{line}\r\nHost: u.example\r\n\r\n".encode())
            async with asyncio.timeout(10):
                answers.append(await reader.read())  # to the end: one request per connection
            writer.close()
    assert b"Server: mailcordon" in answers[0]
    assert answers[1].startswith(b"HTTP/1.1 429 ")


async def test_whoever_asks_before_he_posts_is_told_to_go_on() -> None:
    kafka = Kafka()
    async with serving(kafka) as browser:
        status, _, _ = await browser.ask("POST", f"/u/{token()}", data=ONE_CLICK, expect100=True)

    assert (status, len(kafka.records)) == (200, 1)


async def test_200_is_not_said_before_kafka_has_it() -> None:
    kafka = Kafka()
    kafka.gate.clear()
    async with serving(kafka) as browser:
        asking = asyncio.create_task(browser.ask("POST", f"/u/{token()}", data=ONE_CLICK))
        await until(lambda: kafka.asked == 1)
        assert not asking.done()
        kafka.gate.set()
        status, _, _ = await asking

    assert (status, len(kafka.records)) == (200, 1)


@pytest.mark.parametrize("trouble", ["down", "slow"])
async def test_without_kafka_the_client_is_told_to_try_again(trouble: str) -> None:
    kafka = Kafka(is_down=trouble == "down")
    if trouble == "slow":
        kafka.gate.clear()
    async with serving(kafka, limits=WebLimits(publish_s=0.05)) as browser:
        status, text, headers = await browser.ask("POST", f"/u/{token()}", data=ONE_CLICK)
        assert browser.counted("try_later") == 1

    assert (status, headers["Retry-After"]) == (503, "60")
    assert "Not unsubscribed yet" in text


async def test_nothing_is_kept_told_on_indexed_or_framed() -> None:
    async with serving(Kafka()) as browser:
        answers = [
            await browser.ask("GET", f"/u/{token()}"),
            await browser.ask("POST", f"/u/{token()}", data=ONE_CLICK),
            await browser.ask("GET", "/u/forged"),
            await browser.ask("DELETE", "/"),
        ]
    for _, _, headers in answers:
        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["X-Robots-Tag"] == "noindex, nofollow"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["Server"] == "mailcordon"
        assert "Location" not in headers


async def test_robots_are_told_to_keep_out() -> None:
    async with serving(Kafka()) as browser:
        assert (await browser.ask("GET", "/robots.txt"))[1] == "User-agent: *\nDisallow: /\n"


async def test_a_name_in_from_is_shown_escaped() -> None:
    odd = {name: with_name(one, "<b>Shop</b>") for name, one in CAMPAIGNS.items()}
    async with serving(Kafka(), campaigns=odd) as browser:
        _, text, _ = await browser.ask("GET", f"/u/{token()}")
    assert "&lt;b&gt;Shop&lt;/b&gt;" in text


def with_name(one: Any, name: str) -> Any:
    return msgspec.structs.replace(one, from_=msgspec.structs.replace(one.from_, name=name))


async def test_too_many_requests_of_one_client_are_put_off_and_others_are_not() -> None:
    kafka = Kafka()
    async with serving(kafka, limits=WebLimits(requests_per_minute=2)) as browser:
        busy = {"X-Forwarded-For": "203.0.113.9, 192.0.2.1"}
        statuses = [(await browser.ask("GET", f"/u/{token()}", headers=busy))[0] for _ in range(3)]
        forged = {"X-Forwarded-For": "198.51.100.1, 192.0.2.1"}  # what the client writes itself stands in front
        statuses.append((await browser.ask("GET", f"/u/{token()}", headers=forged))[0])
        other = {"X-Forwarded-For": "192.0.2.2"}
        statuses.append((await browser.ask("POST", f"/u/{token()}", data=ONE_CLICK, headers=other))[0])

    assert statuses == [200, 200, 429, 429, 200]


async def test_a_proxy_that_adds_a_line_of_its_own_is_believed_and_not_the_client() -> None:
    async with serving(Kafka(), limits=WebLimits(requests_per_minute=1)) as browser:
        statuses = []
        for number in range(2):  # as HAProxy does: the client's line stays, its own comes last
            lines = [("X-Forwarded-For", f"198.51.100.{number}"), ("X-Forwarded-For", "192.0.2.1")]
            statuses.append((await browser.ask("GET", "/", headers=CIMultiDict(lines)))[0])
    assert statuses == [404, 429]


async def test_over_https_nobody_is_believed_about_where_he_comes_from(tmp_path: Path) -> None:
    async with https(tmp_path, Kafka(), limits=WebLimits(requests_per_minute=1)) as browser:
        statuses = [
            (await browser.ask("GET", "/", headers={"X-Forwarded-For": f"192.0.2.{number}"}))[0] for number in range(2)
        ]
    assert statuses == [404, 429]


@pytest.mark.parametrize(
    "said",
    [b"", b"POST /u/x HTTP/1.1\r\nHost: x\r\nX-Slow: ", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01"],
    ids=["silent", "in-a-header", "in-the-head", "tls-to-plain"],
)
async def test_whoever_speaks_slowly_is_hung_up_on(said: bytes) -> None:
    async with serving(Kafka(), limits=WebLimits(connection_s=0.2)) as browser:
        reader, writer = await asyncio.open_connection("127.0.0.1", browser.port)
        writer.write(said)
        async with asyncio.timeout(10):
            with suppress(ConnectionResetError):
                await reader.read()
        writer.close()


async def test_connections_beyond_the_limit_are_closed_and_later_ones_let_in() -> None:
    async with serving(Kafka(), limits=WebLimits(connections=1)) as browser:
        _, first = await asyncio.open_connection("127.0.0.1", browser.port)
        with pytest.raises(aiohttp.ClientError):
            await browser.ask("GET", "/")
        first.close()
        await first.wait_closed()
        assert await asyncio.wait_for(let_in(browser), 10) == 404


async def let_in(browser: Browser) -> int:
    while True:
        try:
            return (await browser.ask("GET", "/"))[0]
        except aiohttp.ClientError:
            await asyncio.sleep(0.01)


async def test_a_handshake_that_never_ends_counts_as_a_connection(tmp_path: Path) -> None:
    async with https(tmp_path, Kafka(), limits=WebLimits(connections_per_client=1)) as browser:
        _, silent = await asyncio.open_connection("127.0.0.1", browser.port)
        with pytest.raises(aiohttp.ClientError):
            await browser.ask("GET", "/")
        assert browser.counted("too_many") == 1
        silent.close()
        await silent.wait_closed()
        assert await asyncio.wait_for(let_in(browser), 10) == 404


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n"], ids=["silent", "cut", "no-tls"])
async def test_whoever_ends_no_handshake_makes_room_again(tmp_path: Path, said: bytes) -> None:
    limits = WebLimits(connections_per_client=1, handshake_s=0.1)
    async with https(tmp_path, Kafka(), limits=limits) as browser:
        reader, writer = await asyncio.open_connection("127.0.0.1", browser.port)
        writer.write(said)
        async with asyncio.timeout(10):
            with suppress(ConnectionResetError):
                await reader.read()
            assert await let_in(browser) == 404
        writer.close()


async def test_the_end_does_not_wait_for_handshakes(tmp_path: Path) -> None:
    async with asyncio.timeout(5), https(tmp_path, Kafka()) as browser:
        reader, writer = await asyncio.open_connection("127.0.0.1", browser.port)
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        with suppress(ConnectionResetError):
            await reader.read()
    writer.close()


@pytest.mark.parametrize("line", [b"GET /" + b"a" * 5_000, b"GET / HTTP/1.1\r\nX: " + b"a" * 9_000, b"NONSENSE"])
async def test_headers_beyond_the_limit_are_refused(line: bytes) -> None:
    async with serving(Kafka()) as browser:
        reader, writer = await asyncio.open_connection("127.0.0.1", browser.port)
        writer.write(line + b"\r\n\r\n")
        async with asyncio.timeout(10):
            answer = await reader.read()
        writer.close()
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400")), answer


@pytest.mark.parametrize(
    "line",
    [
        f"GET /u/{token()}{'a' * 5_000} HTTP/1.1",
        f"GET http://[{token()} HTTP/1.1",
        f"GET /u/{token()} HTTP/1.1\r\nX Y: 1",
        f"{token()} / HTTP/1.1",
    ],
    ids=["long", "url", "field", "method"],
)
async def test_what_strangers_say_instead_of_http_is_not_logged(line: str, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(Kafka()) as browser:
        reader, writer = await asyncio.open_connection("127.0.0.1", browser.port)
        writer.write(line.encode() + b"\r\n\r\n")
        async with asyncio.timeout(10):
            assert (await reader.read()).startswith(b"HTTP/1.0 400")
        writer.close()
    assert [one.getMessage() for one in caplog.records if one.levelno > logging.DEBUG] == []


async def test_whoever_hangs_up_in_the_middle_of_a_post_is_no_error_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    kafka = Kafka()
    async with serving(kafka) as browser:
        _, writer = await asyncio.open_connection("127.0.0.1", browser.port)
        writer.write(f"POST /u/{token()} HTTP/1.1\r\nHost: u.example\r\nContent-Length: 30\r\n\r\nList".encode())
        await asyncio.sleep(0.05)
        writer.close()
        await until(lambda: browser.counted("bad_request") == 1)
    assert kafka.asked == 0
    assert [one.getMessage() for one in caplog.records if one.levelno > logging.DEBUG] == []


async def test_a_certificate_with_a_key_of_another_kind_replaces_the_old_one(tmp_path: Path) -> None:
    certificate = Certificate(*written(identity(HOST), tmp_path))
    key = rsa.generate_private_key(65537, 2048)
    new = identity(HOST, key=key)
    written(new, tmp_path)
    certificate.look()
    async with serving(Kafka(), certificate=certificate, trusted=new) as browser:
        assert (await browser.ask("GET", "/"))[0] == 404


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked_for_it(tmp_path: Path) -> None:
    one = identity(HOST)
    files = written(one, tmp_path)
    files[1].write_bytes(one.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    with pytest.raises(ssl.SSLError):
        Certificate(*files)


async def test_a_renewed_certificate_is_used_without_a_restart(tmp_path: Path) -> None:
    old, new = identity(HOST), identity(HOST)
    async with serving(
        Kafka(), certificate=Certificate(*written(old, tmp_path)), trusted=old, look_every_s=0.02
    ) as browser:
        assert (await browser.ask("GET", "/"))[0] == 404
        written(new, tmp_path)
        renewed = Browser.__new__(Browser)
        renewed.__dict__ |= browser.__dict__ | {"_tls": ssl.create_default_context(cadata=new.pem.decode())}

        async def is_believed() -> int:
            while True:
                try:
                    return (await renewed.ask("GET", "/"))[0]
                except aiohttp.ClientConnectorCertificateError:
                    await asyncio.sleep(0.02)

        assert await asyncio.wait_for(is_believed(), 10) == 404


async def test_a_certificate_that_cannot_be_used_leaves_the_old_one(tmp_path: Path) -> None:
    old = identity(HOST)
    certificate = Certificate(*written(old, tmp_path))
    async with serving(Kafka(), certificate=certificate, trusted=old) as browser:
        (tmp_path / "tls.crt").write_bytes(identity(HOST).pem)  # and the key that belongs to the old one
        certificate.look()
        assert (await browser.ask("GET", "/"))[0] == 404
        (tmp_path / "tls.key").unlink()
        certificate.look()
        assert (await browser.ask("GET", "/"))[0] == 404


FIELD = b'--b\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n\r\nOne-Click\r\n--b--\r\n'


@pytest.mark.parametrize(
    ("content_type", "body", "value"),
    [
        ("application/x-www-form-urlencoded", b"List-Unsubscribe=One-Click", "One-Click"),
        ("", b"List-Unsubscribe=One-Click", "One-Click"),
        ("text/plain", b"a=b&List-Unsubscribe=One-Click\r\n", "One-Click"),
        ("multipart/form-data; boundary=b", FIELD, "One-Click"),
        ('Multipart/Form-Data; boundary="b"', FIELD, "One-Click"),
        ("multipart/form-data; boundary=other", FIELD, None),
        ("multipart/form-data", FIELD, None),
        ("multipart/form-data; boundary=b", FIELD.replace(b"Unsubscribe", b"Subscribe"), None),
        ("multipart/form-data; boundary=b", b"--b\r\n" * 100, None),
        ("application/json", b'{"List-Unsubscribe": "One-Click"}', None),
    ],
    ids=["form", "no-type", "text", "multipart", "quoted", "other-boundary", "none", "other-field", "hollow", "json"],
)
def test_both_kinds_of_forms_are_read(content_type: str, body: bytes, value: str | None) -> None:
    assert posted(content_type, body) == value
