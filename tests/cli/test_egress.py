"""The way out as operators see it: the command, wrong settings, and a sender that does not begin without one."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError
from aiosmtpd.smtp import AuthResult, LoginPassword

from cli.egress import routes, smarthost, way_out
from cli.failures import WrongUse
from cli.kafka import EmbeddedKafka, free_ports
from cli.sender_role import run_sender
from policy.naming import sender_group
from policy.settings import Endpoint, Proxy, Relay, Settings
from policy.tokens import Keys
from smtp.credentials import Credentials
from smtp.egress import check
from streams.topics import create, create_for_campaigns
from tests.doubles.egress_proxies import CLOSES, Socks5, proxy
from tests.smtp.servers import Inbox, Script, aiosmtpd_server, scripted, server_tls, until

RELAY = Endpoint("relay.example", 587)


def auth(folder: Path, text: str = "shop:s3cret") -> Path:
    file = folder / "auth"
    file.write_text(text)
    file.chmod(0o600)
    return file


def test_the_settings_make_a_way_out(tmp_path: Path) -> None:
    egress = way_out(
        Settings(
            bind=("192.0.2.7",),
            egress_address=("198.51.100.7",),
            egress_proxy=Proxy("socks5", Endpoint("proxy.example", 1080)),
            egress_proxy_auth_file=auth(tmp_path),
            smtp_routes={"one.example": Endpoint("10.0.0.1", 25)},
            smarthost=Relay(RELAY),
        )
    )

    assert (egress.bind, egress.addresses) == (("192.0.2.7",), ("198.51.100.7",))
    assert egress.credentials == Credentials("shop", "s3cret")
    assert egress.fixed == {Endpoint("10.0.0.1", 25), RELAY}
    assert not egress.allow_private


def test_a_smarthost_takes_all_mail_but_that_of_fixed_routes(tmp_path: Path) -> None:
    settings = Settings(
        smarthost=Relay(RELAY),
        smarthost_auth_file=auth(tmp_path),
        smtp_routes={"one.example": Endpoint("10.0.0.1", 25)},
    )
    relay = smarthost(settings)

    assert routes(settings) == {"*": RELAY, "one.example": Endpoint("10.0.0.1", 25)}
    assert relay is not None
    assert (relay.where, relay.credentials, relay.must_encrypt) == (RELAY, Credentials("shop", "s3cret"), True)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"egress_proxy": Proxy("haproxy2", RELAY)}, "MAILCORDON_EGRESS_ADDRESS"),
        ({"egress_proxy": Proxy("socks5", RELAY), "egress_proxy_auth_file": Path("/none")}, "/none cannot be read"),
        ({"smarthost": Relay(RELAY), "smtp_routes": {"*": RELAY}}, "both want all mail"),
        ({"smarthost": Relay(RELAY), "smarthost_auth_file": Path("/none")}, "/none cannot be read"),
        ({"smarthost": Relay(RELAY), "smarthost_ca_file": Path("/none")}, "there is no file /none"),
    ],
)
def test_what_cannot_work_is_wrong_use(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(WrongUse, match=says):
        (way_out(Settings(**settings)), smarthost(Settings(**settings)))


async def command(*arguments: str) -> tuple[int, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAILCORDON_")}
    ran = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "cli", "egress", "check", *arguments],
        capture_output=True, text=True, timeout=30, env=environment, check=False,
    )  # fmt: skip
    return ran.returncode, ran.stdout


@pytest.mark.parametrize("server", ["gmail.com:smtp", "2001:db8::1"])
async def test_a_server_that_is_none_is_wrong_use(server: str) -> None:
    assert (await command(f"--mx={server}"))[0] == WrongUse.exit_code


async def test_the_command_says_in_json_what_is_in_order_and_whether_a_server_was_reached(tmp_path: Path) -> None:
    async with scripted(Script()) as mx:
        server = Socks5({("127.0.0.1", mx.port): mx.endpoint}, password=(b"shop", b"s3cret"))
        async with proxy(server) as where:
            code, said = await command(
                "--json", "--hostname=mta1.shop.example", f"--egress-proxy=socks5://{where}",
                f"--egress-proxy-auth-file={auth(tmp_path)}", "--egress-address=10.0.0.9",
                f"--mx=127.0.0.1:{mx.port}", "--allow-private-mx=true",
            )  # fmt: skip
    told = json.loads(said)
    assert (code, told["ok"], told["ehlo"], told["proxy"]) == (0, True, "mta1.shop.example", f"socks5://{where}")
    assert [(one["address"], one["answer"], one["ptr"]) for one in told["addresses"]] == [
        ("10.0.0.9", "not_checked", [])
    ]
    assert told["connection"] == {
        "host": f"127.0.0.1:{mx.port}", "reached": True, "why": None, "ip": "10.0.0.9", "tls": None,
    }  # fmt: skip
    assert mx.heard == [b"EHLO mta1.shop.example\r\n", b"QUIT\r\n"]


async def test_the_command_tries_a_smarthost_with_its_password(tmp_path: Path) -> None:
    tls = server_tls(tmp_path)
    right = {"ok": True, "says": None}
    wrong = {"ok": False, "says": "auth: smarthost"}
    async with aiosmtpd_server(Inbox(), tls_context=tls, authenticator=knows_shop) as where:
        for password, expected in (("shop:s3cret", right), ("shop:other", wrong)):
            code, said = await command(
                "--json", f"--smarthost={where}", f"--smarthost-auth-file={auth(tmp_path, password)}",
                f"--smarthost-ca-file={tmp_path / 'cert.pem'}",
            )  # fmt: skip
            told = json.loads(said)
            assert (code, told["ok"]) == (0 if expected["ok"] else 1, expected["ok"])
            assert (told["connection"]["why"] or "").startswith(str(expected["says"] or ""))
            assert "s3cret" not in said
            assert "other" not in said


def knows_shop(server: object, session: object, envelope: object, mechanism: str, auth: object) -> AuthResult:
    del server, session, envelope, mechanism
    assert isinstance(auth, LoginPassword)
    return AuthResult(success=(auth.login, auth.password) == (b"shop", b"s3cret"), handled=False)


async def test_a_hostname_that_is_none_is_wrong_use() -> None:
    code, _ = await command("--hostname=two words")

    assert code == 2


async def test_the_command_says_no_for_people_too() -> None:
    [port] = free_ports(1)
    code, said = await command(f"--egress-proxy=socks5://127.0.0.1:{port}", "--egress-address=10.0.0.9")

    assert code == 1
    assert said.splitlines()[-1] == f"NOT in order: egress proxy socks5://127.0.0.1:{port}: Connection refused"


async def ready(port: int) -> tuple[int, str | None]:
    try:
        async with aiohttp.ClientSession() as web, web.get(f"http://127.0.0.1:{port}/readyz") as page:
            return page.status, (await page.json())["why"]
    except aiohttp.ClientConnectionError:
        return 0, None


async def members(bootstrap: str, group: str) -> int:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        async with asyncio.timeout(30):
            while True:
                try:
                    [described] = await admin.describe_consumer_groups([group])
                except GroupCoordinatorNotAvailableError:  # a broker that has had no group yet makes room for them
                    await asyncio.sleep(0.05)
                else:
                    return len(described.groups[0][5])
    finally:
        await admin.close()


@pytest.mark.kafka
async def test_a_sender_without_a_way_out_says_so_and_joins_when_it_has_one(
    kafka: EmbeddedKafka, unique: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "AGAIN_S", 0.05)
    monkeypatch.setattr(check, "AGAIN_MOST_S", 0.05)
    web, port = free_ports(2)
    settings = Settings(
        outbound_partitions=1,
        data=tmp_path,
        smtp_routes={"*": Endpoint("127.0.0.1", 1)},
        sender_web=Endpoint("127.0.0.1", web),
        egress_proxy=Proxy("socks5", Endpoint("127.0.0.1", port)),
        hostname="me.example",
    )
    await create(kafka.bootstrap, settings)
    await create_for_campaigns(kafka.bootstrap, [unique], settings)
    end = asyncio.Event()

    async def told() -> None:
        await end.wait()

    sending = asyncio.create_task(
        run_sender(
            settings, unique, Keys(address=b"a" * 32, return_path=b"r" * 32), bootstrap=kafka.bootstrap,
            dkim_folder=tmp_path, end=told,
        )
    )  # fmt: skip

    async def answers(status: int, why: str | None) -> None:
        async with asyncio.timeout(30):
            while await ready(web) != (status, why):
                if sending.done():
                    sending.result()
                await asyncio.sleep(0.02)

    broken = Socks5(greets=CLOSES)
    async with proxy(broken, port=port):
        why = f"egress proxy socks5://127.0.0.1:{port}: the proxy closed the connection"
        await answers(503, f"the source address is not verified: {why}")
        await until(lambda: broken.connections > 15)  # it had time enough to join
        assert await members(kafka.bootstrap, sender_group(unique)) == 0
        broken.greets = ""
        await answers(200, None)
        assert await members(kafka.bootstrap, sender_group(unique)) == 1
        end.set()
        await sending
