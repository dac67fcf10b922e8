"""Which address servers see, asked of a real return path on loopback, directly and through proxies."""

import pytest

from cli.kafka import free_ports
from policy.settings import Endpoint, Proxy
from smtp.egress.check import Check
from smtp.egress.mirror import Seen, literal, look
from smtp.egress.ways import Egress
from tests.doubles.egress_proxies import ProxyV2, Socks5, proxy
from tests.smtp.mailroom import Kafka, running
from tests.smtp.servers import Say, Script, scripted

PUBLIC, SOURCE = "8.8.8.8", "9.9.9.9"


async def asked(egress: Egress, mirror: Endpoint) -> Seen:
    return await look(egress, mirror, ehlo="me.example", within_s=2)


async def test_the_return_path_sees_the_address_that_mail_leaves_from() -> None:
    own = Egress(bind=("127.0.0.9",), addresses=("127.0.0.9",), allow_private=True)
    async with running(Kafka()) as listener:
        assert await asked(own, listener.endpoint) == Seen(addresses=("127.0.0.9",))


async def test_another_address_is_told_with_what_to_look_at() -> None:
    other = Egress(bind=("127.0.0.9",), addresses=("192.0.2.7",), allow_private=True)
    async with running(Kafka()) as listener:
        seen = await asked(other, listener.endpoint)

    assert seen.elsewhere is not None
    assert seen.elsewhere.startswith(
        f"mail leaves from 127.0.0.9 and not from 192.0.2.7, as {listener.endpoint} sees it: look at the proxy"
    )


async def test_without_a_wish_whatever_is_seen_is_right() -> None:
    async with running(Kafka()) as listener:
        assert await asked(Egress(allow_private=True), listener.endpoint) == Seen(addresses=("127.0.0.1",))


async def test_a_proxy_is_asked_the_same_way_as_for_mail() -> None:
    async with running(Kafka()) as listener, proxy(Socks5({(PUBLIC, 25): listener.endpoint})) as where:
        through = Egress(proxy=Proxy("socks5", where), addresses=(SOURCE,))
        seen = await asked(through, Endpoint(PUBLIC, 25))

    assert seen.addresses == ("127.0.0.1",), "the address that the proxy connected from, and not what it says of itself"
    assert seen.elsewhere is not None


async def test_a_proxy_that_is_told_its_source_is_not_taken_at_its_word() -> None:
    async with running(Kafka()) as listener, proxy(ProxyV2({(PUBLIC, 25): listener.endpoint})) as where:
        seen = await asked(Egress(proxy=Proxy("haproxy2", where), addresses=(SOURCE,)), Endpoint(PUBLIC, 25))

    assert seen.elsewhere is not None


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"250-mx.example\r\n250 8BITMIME\r\n", "its answer to EHLO is mx.example"),
        (b"250 mx.example greets you, [:::1.2]\r\n", "its answer to EHLO is mx.example greets you"),
        (b"421 4.7.0 too many\r\n", "too many"),
        (b"\r\n\x00\xff", ""),
    ],
    ids=["no address", "nonsense", "turned away", "no SMTP"],
)
async def test_a_server_that_does_not_tell_is_no_wrong_address(answer: Say, why: str) -> None:
    async with scripted(Script(ehlo=answer)) as server:
        seen = await asked(Egress(addresses=("127.0.0.1",), allow_private=True), server.endpoint)

    assert seen.elsewhere is None
    assert seen.unseen is not None
    assert seen.unseen.startswith(f"{server.endpoint} does not tell which address it sees: ")
    assert why in seen.unseen


async def test_a_server_that_is_away_or_lacks_a_kind_of_address_is_no_wrong_address() -> None:
    [closed] = free_ports(1)
    away = await asked(Egress(allow_private=True), Endpoint("127.0.0.1", closed))
    six = await asked(Egress(addresses=("2620:fe::fe",), allow_private=True), Endpoint("127.0.0.1", closed))

    assert away == Seen(unseen=f"127.0.0.1:{closed} does not tell which address it sees: Connection refused")
    assert six == Seen(unseen=f"127.0.0.1:{closed} does not tell which address it sees: it has no IPv6 address")


@pytest.mark.parametrize(
    ("peer", "said"),
    [
        (("192.0.2.7", 1234), "[192.0.2.7]"),
        (("2001:db8::7", 1234, 0, 0), "[IPv6:2001:db8::7]"),
        (("::ffff:192.0.2.7", 1234, 0, 0), "[192.0.2.7]"),
        (("fe80::1%eth0", 1234, 0, 2), "[IPv6:fe80::1]"),
        ("", None),
        (None, None),
    ],
)
def test_an_address_is_written_as_a_literal(peer: object, said: str | None) -> None:
    assert literal(peer) == said


async def test_the_check_asks_the_mirror_even_where_no_name_is_checked() -> None:
    async with running(Kafka()) as listener:
        egress = Egress(addresses=(SOURCE,), allow_private=True)
        check = Check(egress=egress, hostname="me.example", machine="m", mirror=listener.endpoint, own=list)
        skipped = await check.skipped()

    assert not skipped.ok
    assert skipped.strays is not None
    assert skipped.why.startswith("mail leaves from 127.0.0.1 and not from 9.9.9.9")


async def test_behind_a_proxy_the_address_need_not_be_set_where_a_mirror_tells_it() -> None:
    async with running(Kafka()) as listener, proxy(Socks5({(PUBLIC, 25): listener.endpoint})) as where:
        check = Check(
            egress=Egress(proxy=Proxy("socks5", where)),
            hostname="me.example",
            machine="m",
            mirror=Endpoint(PUBLIC, 25),
        )
        checked = await check()

    assert (checked.ok, [one.address for one in checked.identities]) == (True, ["127.0.0.1"])
