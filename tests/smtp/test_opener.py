"""How a session begins: a step that fails is an answer with its name; and a smarthost wants to know who we are."""

import asyncio
import ssl
import stat
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import AuthResult, LoginPassword

from cli.kafka import free_ports
from policy.settings import Endpoint, Proxy
from smtp.attempts import Envelope, Reply, Withheld
from smtp.client import Bounds, SmtpMailer
from smtp.credentials import Credentials, UnusableCredentials, read_credentials
from smtp.egress.outage import OurFault, Outage
from smtp.egress.ways import Egress
from smtp.mx import NextHops, Target
from smtp.opener import Opener
from smtp.session import Session, Timeouts
from smtp.smarthost import Smarthost
from tests.doubles.egress_proxies import Socks5, proxy
from tests.smtp.servers import CLOSE, SILENCE, Inbox, Script, aiosmtpd_server, scripted, server_tls

SHORT = Timeouts(connect_s=0.5, greeting_s=0.2, command_s=0.2, dot_s=1)
PATIENT = Timeouts(connect_s=2, greeting_s=5, command_s=5, dot_s=5)
PASSWORD = Credentials("shop", "s3cret")


def opener(timeouts: Timeouts = SHORT, **more: Any) -> Opener:
    return Opener(hostname="me.example", timeouts=timeouts, **more)


def target(where: Endpoint, host: str = "mx.example") -> Target:
    return Target(host, where.host, where.port)


@pytest.mark.parametrize(
    ("script", "stage", "code", "text"),
    [
        pytest.param(Script(greeting=SILENCE), "connect", None, "no greeting within 0.2 s", id="no greeting"),
        pytest.param(
            Script(greeting=b"220-wait\r\n"), "connect", None, "no greeting within 0.2 s", id="half a greeting"
        ),
        pytest.param(
            Script(greeting=CLOSE), "connect", None, "the connection ended before the greeting", id="hangs up"
        ),
        pytest.param(Script(greeting=b"421 4.3.2 busy\r\n"), "connect", 421, "4.3.2 busy", id="421"),
        pytest.param(Script(greeting=b"450 later\r\n"), "connect", 450, "later", id="450"),
        pytest.param(Script(greeting=b"554 5.7.1 go away\r\n"), "connect", 554, "5.7.1 go away", id="554"),
        pytest.param(Script(greeting=b"250 hello\r\n"), "connect", None, "hello", id="no greeting's code"),
        pytest.param(
            Script(greeting=b"220-" + b"x" * 70 + b"\r\n" + b"220-y\r\n" * 200_000),
            "connect",
            None,
            "Response too long",
            id="1 MB of greeting",
        ),
        pytest.param(
            Script(greeting=b"220 " + b"x" * 1_000_000), "connect", None, "Response too long", id="one line of 1 MB"
        ),
        pytest.param(Script(greeting=b"\x00\xff\r\n"), "connect", None, "Malformed SMTP", id="no reply at all"),
        pytest.param(Script(ehlo=SILENCE), "ehlo", None, "Timed out", id="EHLO unanswered"),
        pytest.param(Script(ehlo=CLOSE), "ehlo", None, "Unexpected EOF", id="hangs up at EHLO"),
        pytest.param(Script(ehlo=b"421 4.7.0 no\r\n"), "ehlo", 421, "4.7.0 no", id="421 to EHLO"),
        pytest.param(Script(ehlo=b"500 ?\r\n", helo=b"550 5.7.1 no\r\n"), "ehlo", 550, "5.7.1 no", id="no HELO either"),
        pytest.param(
            Script(ehlo=b"250 mx\r\n250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n"),
            "ehlo",
            None,
            "the server answers what was not asked",
            id="answers ahead",
        ),
        pytest.param(
            Script(greeting=b"220 mx\r\n250 mx\r\n"),
            "ehlo",
            None,
            "the server answers what was not asked",
            id="greets on",
        ),
    ],
)
async def test_a_step_that_fails_is_named(script: Script, stage: str, code: int | None, text: str) -> None:
    async with scripted(script):
        opened = await opener().open(target(script.endpoint))

    assert isinstance(opened, Reply)
    assert not isinstance(opened, OurFault)
    assert (opened.stage, opened.code, opened.text[: len(text)], opened.mx) == (stage, code, text, "mx.example")


async def test_a_server_that_knows_no_ehlo_is_greeted_by_helo() -> None:
    async with scripted(Script(ehlo=b"502 5.5.1 what?\r\n")) as script:
        opened = await opener().open(target(script.endpoint))
        assert isinstance(opened, Session)
        await opened.quit()
        assert script.heard[:2] == [b"EHLO me.example\r\n", b"HELO me.example\r\n"]


async def test_a_greeting_may_take_its_time() -> None:
    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.3)  # what is measured: longer than a command may take
        await Script().serve(reader, writer)

    async with await asyncio.start_server(slowly, "127.0.0.1", 0) as server:
        where = Endpoint(*server.sockets[0].getsockname())
        opened = await opener(Timeouts(greeting_s=5, command_s=0.2)).open(target(where))
        assert isinstance(opened, Session)
        await opened.quit()


# ---- our own fault


def test_a_way_out_that_fails_is_left_alone_longer_each_time() -> None:
    outage = Outage()
    holds = []
    now_s = 100.0
    for _ in range(8):
        outage.failed("dead", now_s=now_s)
        outage.failed("dead", now_s=now_s)  # twenty at once count as one
        holds.append(outage.held_for_s(now_s=now_s))
        now_s += holds[-1]
    assert holds == [1, 2, 4, 8, 16, 32, 60, 60]

    outage.worked()
    assert (outage.why, outage.held_for_s(now_s=now_s)) == (None, 0)


def envelope(domain: str) -> Envelope:
    return Envelope.checked(sender="b@s.example", recipient=f"ann@{domain}", data=b"Subject: x\r\n\r\nx\r\n")


async def test_a_dead_proxy_holds_back_every_domain_and_blames_no_server() -> None:
    async with scripted(Script()) as mx:
        server = Socks5({("127.0.0.1", mx.port): mx.endpoint})
        [port] = free_ports(1)
        opens = opener(PATIENT, egress=Egress(proxy=Proxy("socks5", Endpoint("127.0.0.1", port)), allow_private=True))
        mailer = SmtpMailer(NextHops({"*": mx.endpoint}), opens, bounds=Bounds(back_off_s=100))
        attempt = await mailer.send(envelope("one.example"), go=lambda: True)

        assert attempt == Withheld(f"egress proxy socks5://127.0.0.1:{port}: Connection refused")
        assert 0 < mailer.closed_for_s("never-heard-of.example") <= 1
        assert opens.outage.why == f"egress proxy socks5://127.0.0.1:{port}: Connection refused"

        async with proxy(server) as where:  # it is back, somewhere
            opens.egress = Egress(proxy=Proxy("socks5", where), allow_private=True)
            attempt = await mailer.send(envelope("one.example"), go=lambda: True)
            assert isinstance(attempt, Reply)
            assert attempt.accepted
            assert (mailer.closed_for_s("one.example"), opens.outage.why) == (0, None)
            await mailer.close()


async def test_a_server_that_may_not_be_connected_to_says_nothing_about_the_way_out() -> None:
    [port] = free_ports(1)
    opens = opener(egress=Egress(proxy=Proxy("socks5", Endpoint("127.0.0.1", port))))
    assert isinstance(await opens.open(Target("mx.example", "8.8.8.8", 25)), OurFault)
    why = opens.outage.why
    assert why is not None
    assert not isinstance(await opens.open(Target("mx.example", "10.0.0.1", 25)), Session)
    assert opens.outage.why == why
    assert opens.held_for_s() > 0


# ---- smarthost


class Accounts:
    """Who may send: what aiosmtpd asks for."""

    def __init__(self) -> None:
        self.tried: list[tuple[str, bytes]] = []

    def __call__(self, server: object, session: object, envelope: object, mechanism: str, auth: object) -> AuthResult:
        assert isinstance(auth, LoginPassword)
        self.tried.append((mechanism, auth.login))
        return AuthResult(success=(auth.login, auth.password) == (b"shop", b"s3cret"), handled=False)


def relay(where: Endpoint, folder: Path, **more: Any) -> Smarthost:
    return Smarthost(**({"where": where, "credentials": PASSWORD, "ca_file": folder / "cert.pem"} | more))


def to_relay(one: Smarthost, timeouts: Timeouts = PATIENT) -> tuple[SmtpMailer, Opener]:
    opens = opener(timeouts, smarthost=one, egress=Egress(fixed=frozenset({one.where})))
    return SmtpMailer(NextHops({"*": one.where}), opens), opens


async def test_all_mail_goes_through_the_smarthost_with_tls_and_password(tmp_path: Path) -> None:
    inbox, accounts = Inbox(), Accounts()
    tls = server_tls(tmp_path)
    async with aiosmtpd_server(inbox, tls_context=tls, authenticator=accounts, auth_required=True) as where:
        mailer, _ = to_relay(relay(where, tmp_path))
        for domain in ("one.example", "two.example"):
            attempt = await mailer.send(envelope(domain), go=lambda: True)
            assert isinstance(attempt, Reply)
            assert attempt.accepted
            assert attempt.tls is not None
        await mailer.close()
    assert [user for _, user in accounts.tried] == [b"shop"]  # one session for both messages
    assert [one.rcpt_tos for one in inbox.envelopes] == [["ann@one.example"], ["ann@two.example"]]
    assert inbox.encrypted == [True, True]


async def test_a_smarthost_may_speak_tls_from_the_first_byte(tmp_path: Path) -> None:
    script = Script(ehlo=b"250-mx\r\n250 AUTH PLAIN\r\n")
    script.auth = b"235 2.7.0 ok\r\n"  # type: ignore[attr-defined]
    server = await asyncio.start_server(script.serve, "127.0.0.1", 0, ssl=server_tls(tmp_path))
    async with server:
        where = Endpoint(*server.sockets[0].getsockname())
        mailer, _ = to_relay(relay(where, tmp_path, implicit_tls=True))
        attempt = await mailer.send(envelope("one.example"), go=lambda: True)
        assert isinstance(attempt, Reply)
        assert (attempt.accepted, attempt.tls) == (True, "TLSv1.3")
        await mailer.close()
    assert script.heard[1] == b"AUTH PLAIN AHNob3AAczNjcmV0\r\n"


@pytest.mark.parametrize(
    ("greeting", "code", "text"),
    [
        (b"421 4.3.2 busy\r\n", 421, "4.3.2 busy"),
        (SILENCE, None, "no greeting within 0.2 s"),
        (CLOSE, None, "the connection ended before the greeting"),
    ],
    ids=["busy", "silent", "hangs up"],
)
async def test_what_a_smarthost_says_for_itself_is_not_our_fault(
    greeting: bytes, code: int | None, text: str, tmp_path: Path
) -> None:
    server = await asyncio.start_server(Script(greeting=greeting).serve, "127.0.0.1", 0, ssl=server_tls(tmp_path))
    async with server:
        where = Endpoint(*server.sockets[0].getsockname())
        _, opens = to_relay(relay(where, tmp_path, implicit_tls=True), SHORT)
        opened = await opens.open(Target(where.host, where.host, where.port))
    assert isinstance(opened, Reply)
    assert not isinstance(opened, OurFault)
    assert (opened.stage, opened.code, opened.text) == ("connect", code, text)


def without_starttls() -> Script:
    script = Script(ehlo=b"250-mx\r\n250 AUTH PLAIN LOGIN\r\n")
    script.auth = b"235 ok\r\n"  # type: ignore[attr-defined]
    return script


async def test_a_password_never_goes_in_clear(tmp_path: Path) -> None:
    server_tls(tmp_path)
    async with scripted(without_starttls()) as script:
        mailer, opens = to_relay(relay(script.endpoint, tmp_path))
        attempt = await mailer.send(envelope("one.example"), go=lambda: True)

    assert isinstance(attempt, Withheld)
    assert attempt.text == f"smarthost {script.endpoint}, TLS: SMTP STARTTLS extension not supported by server."
    assert [line.split()[0] for line in script.heard] == [b"EHLO"]
    assert opens.outage.why == attempt.text


@pytest.mark.parametrize("implicit", [False, True], ids=["STARTTLS", "implicit TLS"])
@pytest.mark.parametrize("ca", [None, "other"], ids=["of nobody we trust", "of another name"])
async def test_a_smarthost_that_proves_to_be_somebody_else_gets_no_password(
    ca: str | None, implicit: bool, tmp_path: Path
) -> None:
    accounts = Accounts()
    tls = server_tls(tmp_path, address="127.0.0.77" if ca else "127.0.0.1")
    script = Script()
    if implicit:
        server = await asyncio.start_server(script.serve, "127.0.0.1", 0, ssl=tls)
        where = Endpoint(*server.sockets[0].getsockname())
        async with server:
            one = relay(where, tmp_path, implicit_tls=True, **({} if ca else {"ca_file": None}))
            attempt = await to_relay(one)[0].send(envelope("one.example"), go=lambda: True)
    else:
        async with aiosmtpd_server(Inbox(), tls_context=tls, authenticator=accounts) as where:
            one = relay(where, tmp_path, **({} if ca else {"ca_file": None}))
            attempt = await to_relay(one)[0].send(envelope("one.example"), go=lambda: True)

    assert isinstance(attempt, Withheld)
    assert attempt.text is not None
    assert attempt.text.startswith(f"smarthost {where}, TLS: certificate not valid: ")
    assert (accounts.tried, script.heard) == ([], [])


@pytest.mark.parametrize(
    ("password", "says"),
    [(Credentials("shop", "wrong"), "AUTH: 535 5.7.8"), (Credentials("shopp", "s3cret"), "AUTH: 535 5.7.8")],
    ids=["password", "user"],
)
async def test_a_refused_password_holds_mail_back_and_bounces_nothing(
    password: Credentials, says: str, tmp_path: Path
) -> None:
    tls = server_tls(tmp_path)
    async with aiosmtpd_server(Inbox(), tls_context=tls, authenticator=Accounts()) as where:
        mailer, opens = to_relay(relay(where, tmp_path, credentials=password))
        attempt = await mailer.send(envelope("one.example"), go=lambda: True)

    assert isinstance(attempt, Withheld)
    assert attempt.text is not None
    assert says in attempt.text
    assert password.password not in attempt.text
    assert mailer.closed_for_s("two.example") > 0
    assert opens.outage.why == attempt.text


async def test_only_the_smarthost_is_told_the_password(tmp_path: Path) -> None:
    tls = server_tls(tmp_path)
    accounts = Accounts()
    async with aiosmtpd_server(Inbox(), tls_context=tls, authenticator=accounts) as where:
        elsewhere = relay(Endpoint("relay.example", 587), tmp_path)
        opened = await opener(PATIENT, smarthost=elsewhere).open(target(where))
        assert isinstance(opened, Session)
        await opened.quit()
    assert accounts.tried == []


# ---- credentials


@pytest.mark.parametrize(
    "text", ["shop:s3:cret\n", "shop\ns3:cret\n", "\nshop\n\ns3:cret"], ids=["line", "two", "gaps"]
)
def test_user_and_password_stand_in_one_line_or_two(text: str, tmp_path: Path) -> None:
    file = tmp_path / "auth"
    file.write_text(text)
    file.chmod(0o640)

    assert read_credentials(file) == Credentials("shop", "s3:cret")
    assert "s3:cret" not in repr(read_credentials(file))


@pytest.mark.parametrize(
    ("text", "mode", "says"),
    [
        ("shop:s3cret", 0o644, "can be read by everybody; run: chmod o= "),
        ("s3cret", 0o600, "must hold one line user:password"),
        ("", 0o600, "must hold one line user:password"),
        (":s3cret", 0o600, "must hold one line user:password"),
        ("a\ns3cret\nc", 0o600, "must hold one line user:password"),
        ("a:" + "s3cret" * 50, 0o600, "user and password may have 255 bytes each"),
    ],
)
def test_a_file_that_will_not_do_is_named_and_not_repeated(text: str, mode: int, says: str, tmp_path: Path) -> None:
    file = tmp_path / "auth"
    file.write_text(text)
    file.chmod(stat.S_IMODE(mode))
    with pytest.raises(UnusableCredentials) as wrong:
        read_credentials(file)

    assert str(wrong.value).startswith(str(file))
    assert says in str(wrong.value)
    assert "s3cret" not in str(wrong.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnusableCredentials, match="none cannot be read: No such file"):
        read_credentials(tmp_path / "none")


def test_the_context_of_a_smarthost_asks_for_its_name(tmp_path: Path) -> None:
    server_tls(tmp_path)
    context = relay(Endpoint("relay.example", 587), tmp_path).context()

    assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)
