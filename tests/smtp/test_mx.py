"""Where mail for a domain goes, asked of a real name server on loopback."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

import dns.asyncresolver
import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from policy.settings import Endpoint
from smtp.attempts import Envelope, Impossible, Reply
from smtp.client import SmtpMailer
from smtp.mx import NextHop, NextHops, Target, may_connect
from smtp.opener import Opener
from smtp.tls.demand import ENCRYPT
from tests.doubles.name_server import Hasty, NameServer, serving
from tests.smtp.servers import until
from tests.smtp.zone import Zone

ZONE: dict[tuple[str, str], str | list[str]] = {
    ("two.test.", "MX"): ["20 b.mx.test.", "10 a.mx.test."],
    ("twin.test.", "MX"): ["10 b.mx.test.", "10 a.mx.test."],
    ("null.test.", "MX"): ["0 ."],
    ("plain.test.", "A"): ["8.8.4.4"],
    ("private.test.", "MX"): ["10 inside.test."],
    ("inside.test.", "A"): ["10.0.0.1", "127.0.0.1", "169.254.169.254"],
    ("mixed.test.", "MX"): ["10 inside.test.", "20 a.mx.test."],
    ("nowhere.test.", "MX"): ["10 gone.test."],
    ("broken.test.", "MX"): "SERVFAIL",
    ("half.test.", "MX"): ["10 broken-host.test."],
    ("broken-host.test.", "A"): "SERVFAIL",
    ("broken-host.test.", "AAAA"): "SERVFAIL",
    ("slow.test.", "MX"): "silence",
    ("a.mx.test.", "A"): ["8.8.8.8"],
    ("a.mx.test.", "AAAA"): ["2001:4860:4860::8888"],
    ("b.mx.test.", "A"): ["9.9.9.9"],
    ("empty.test.", "TXT"): ["x"],
}


@contextlib.asynccontextmanager
async def hops(
    *, allow_private: bool = False, ttl: int = 300, seed: int = 1
) -> AsyncIterator[tuple[NextHops, NameServer]]:
    server = NameServer(ZONE, ttl=ttl)
    async with serving(server) as resolver:
        yield (
            NextHops(
                allow_private=allow_private,
                resolver=Hasty(resolver, most_s=0.3),
                chance=random.Random(seed),
                ask_again_after_s=0.0,
            ),
            server,
        )


async def test_mail_servers_come_in_order_of_preference_with_all_their_addresses() -> None:
    async with hops() as (find, _):
        found = await find.find("two.test")
    assert found == NextHop(
        "a.mx.test,b.mx.test",
        (
            Target("a.mx.test", "8.8.8.8", 25),
            Target("a.mx.test", "2001:4860:4860::8888", 25),
            Target("b.mx.test", "9.9.9.9", 25),
        ),
    )


async def test_equal_preferences_are_tried_in_any_order() -> None:
    first = set()
    for seed in range(8):
        async with hops(seed=seed) as (find, _):
            found = await find.find("twin.test")
            assert isinstance(found, NextHop)
            first.add(found.targets[0].host)
    assert first == {"a.mx.test", "b.mx.test"}


async def test_a_domain_without_mx_is_its_own_mail_server() -> None:
    async with hops() as (find, _):
        assert await find.find("plain.test") == NextHop("plain.test", (Target("plain.test", "8.8.4.4", 25),))


@pytest.mark.parametrize(
    ("domain", "says"),
    [
        ("null.test", "null MX"),
        ("no-such.test", "does not exist"),
        ("nowhere.test", "none of the domain's mail servers has an address"),
        ("empty.test", "none of the domain's mail servers has an address"),
        ("private.test", "no public address"),
        ("[127.0.0.1]", "does not exist"),
    ],
)
async def test_what_will_never_work_is_final(domain: str, says: str) -> None:
    async with hops() as (find, _):
        found = await find.find(domain)
    assert isinstance(found, Impossible)
    assert found.category == "bad_domain"
    assert says in found.text


@pytest.mark.parametrize("domain", ["broken.test", "slow.test", "half.test", "a" * 64 + ".test"])
async def test_a_failing_look_up_is_not_final(domain: str) -> None:
    async with hops() as (find, _):
        found = await find.find(domain)
    assert isinstance(found, Reply)
    assert (found.stage, found.code) == ("resolve", None)


async def test_private_addresses_are_left_out_and_the_others_used() -> None:
    async with hops() as (find, _):
        found = await find.find("mixed.test")
    assert isinstance(found, NextHop)
    assert {target.host for target in found.targets} == {"a.mx.test"}


async def test_private_addresses_are_used_where_an_operator_allows_it() -> None:
    async with hops(allow_private=True) as (find, _):
        found = await find.find("private.test")
    assert isinstance(found, NextHop)
    assert "10.0.0.1" in {target.address for target in found.targets}


async def test_answers_are_remembered_and_asked_for_once() -> None:
    async with hops() as (find, server):
        await asyncio.gather(*(find.find("two.test") for _ in range(10)))
        await find.find("two.test")
        assert server.asked.count(("two.test.", "MX")) == 1
        assert find.known("two.test") is not None
        assert find.known("other.test") is None


async def test_failures_are_remembered_for_a_short_time() -> None:
    async with hops() as (find, server):
        await find.find("broken.test")
        asked = len(server.asked)
        await find.find("broken.test")
        assert len(server.asked) == asked


def test_routes_come_before_the_name_servers_the_exact_one_first() -> None:
    find = NextHops({"*": Endpoint("127.0.0.1", 2525), "example.com": Endpoint("127.0.0.1", 2526)})
    assert find.known("example.com") == NextHop(
        "127.0.0.1:2526", (Target("127.0.0.1", "127.0.0.1", 2526),), is_fixed=True
    )
    assert find.known("sub.example.com") == NextHop(
        "127.0.0.1:2525", (Target("127.0.0.1", "127.0.0.1", 2525),), is_fixed=True
    )


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1",
        "255.255.255.255", "192.0.2.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fd00:ec2::254", "ff02::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::", "64:ff9b::7f00:1", "2001:db8::1",
        "64:ff9b:1::a00:1", "fec0::1", "::10.0.0.1",
    ],
)  # fmt: skip
def test_addresses_inside_are_never_connected_to(address: str) -> None:
    assert not may_connect(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2001:4860:4860::8888", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_addresses_outside_may_be_connected_to(address: str) -> None:
    assert may_connect(address)


async def test_a_name_that_points_inside_causes_no_connection() -> None:
    connected = []

    class NoOpener(Opener):
        async def open(self, target: Target) -> Reply:  # type: ignore[override]
            connected.append(target)
            return Reply(stage="connect", text="no")

    async with hops() as (find, _):
        client = SmtpMailer(find, NoOpener(hostname="me.example"))
        attempt = await client.send(
            Envelope.checked(sender="a@b.example", recipient="x@private.test", data=b""), go=lambda: True
        )
    assert isinstance(attempt, Impossible)
    assert not connected


# ---- what is remembered, and for how long

SHOP = {("shop.test", "MX"): ["10 aspmx.l.google.com."], ("aspmx.l.google.com", "A"): ["8.8.8.8"]}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def remembering(records: dict[tuple[str, str], list[str]], *, ttl: int = 300) -> tuple[NextHops, Zone, Clock]:
    zone, clock = Zone(records, ttl=ttl), Clock()
    return NextHops(resolver=zone, clock=clock, ask_again_after_s=0.0), zone, clock


async def test_whoever_runs_the_servers_is_the_provider() -> None:
    find, _, _ = remembering(SHOP)
    assert find.provider_of("shop.test") == "other"  # not looked up yet
    found = await find.find("shop.test")
    assert isinstance(found, NextHop)
    assert (found.provider, find.provider_of("shop.test")) == ("google", "google")


async def test_encryption_is_demanded_of_the_providers_that_are_named() -> None:
    find, _, _ = remembering(SHOP)
    find.must_encrypt = {"google"}.__contains__
    found = await find.find("shop.test")
    assert isinstance(found, NextHop)
    assert (found.name, found.site) == ("aspmx.l.google.com/required", "aspmx.l.google.com")
    assert {target.tls for target in found.targets} == {ENCRYPT}


async def test_who_is_asked_for_again_is_refreshed_before_anybody_waits() -> None:
    find, zone, clock = remembering(SHOP)
    await find.find("shop.test")
    clock.now = 250.0
    zone.records["aspmx.l.google.com", "A"] = ["8.8.4.4"]
    assert find.known("shop.test") is not None
    await until(lambda: zone.asked.count(("shop.test", "MX")) == 2)
    await until(lambda: not find._asking)
    clock.now = 400.0
    known = find.known("shop.test")
    assert known is not None
    assert [target.address for target in known.targets] == ["8.8.4.4"]


async def test_the_last_good_answer_serves_while_name_servers_fail_but_not_for_ever() -> None:
    find, zone, clock = remembering(SHOP)
    good = await find.find("shop.test")
    zone.fails = True
    clock.now = 4_000.0
    assert find.known("shop.test") is None
    assert await find.find("shop.test") == good
    assert find.known("shop.test") == good  # the next one does not wait for them to fail again
    clock.now = 86_000.0
    assert await find.find("shop.test") == good
    clock.now = 86_500.0
    assert isinstance(await find.find("shop.test"), Reply)


async def test_a_domain_that_has_gone_is_gone_whatever_was_known() -> None:
    find, zone, clock = remembering(SHOP)
    await find.find("shop.test")
    zone.records.clear()
    clock.now = 4_000.0
    assert isinstance(await find.find("shop.test"), Impossible)


async def test_that_a_domain_does_not_exist_is_believed_when_it_was_said_twice() -> None:
    find, zone, clock = remembering({})
    assert isinstance(await find.find("no-such.test"), Impossible)
    assert zone.asked == [("no-such.test", "MX")] * 2
    await find.find("no-such.test")
    assert len(zone.asked) == 2
    clock.now = 301.0
    zone.records |= {("no-such.test", "A"): ["8.8.8.8"]}
    assert isinstance(await find.find("no-such.test"), NextHop)


async def test_a_domain_that_is_there_after_all_gets_its_mail() -> None:
    find, zone, _ = remembering({})
    resolve = zone.resolve

    async def registered_meanwhile(qname: str, rdtype: str, *, lifetime: float) -> dns.resolver.Answer:
        try:
            return await resolve(qname, rdtype, lifetime=lifetime)
        finally:
            zone.records |= SHOP

    zone.resolve = registered_meanwhile  # type: ignore[method-assign]
    assert isinstance(await find.find("shop.test"), NextHop)


async def test_closing_gives_up_what_is_being_asked() -> None:
    async with hops() as (find, _):
        asking = asyncio.create_task(find.find("slow.test"))
        await asyncio.sleep(0)
        await find.close()
        with pytest.raises(asyncio.CancelledError):
            await asking
