"""What the DNS says about a domain, asked of a real name server on loopback."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from policy.typos import is_real
from smtp.domain_checks import DomainChecks, DomainReport, clusters, parking_service
from tests.doubles.name_server import Hasty, NameServer, serving

PUBLIC = ["8.8.8.8"]
ZONE: dict[tuple[str, str], str | list[str]] = {
    ("good.test.", "MX"): ["10 mx.good.test."],
    ("mx.good.test.", "A"): PUBLIC,
    ("null.test.", "MX"): ["0 ."],
    ("plain.test.", "A"): PUBLIC,
    ("silent.test.", "A"): PUBLIC,
    ("silent.test.", "TXT"): ['"something else"', '"v=spf1 " "-all"'],
    ("empty.test.", "TXT"): ["x"],
    ("private.test.", "MX"): ["10 inside.test."],
    ("inside.test.", "A"): ["10.0.0.1", "127.0.0.1"],
    ("nowhere.test.", "MX"): ["10 gone.test."],
    ("broken.test.", "MX"): "SERVFAIL",
    ("slow.test.", "MX"): "silence",
    ("half.test.", "MX"): ["10 broken-host.test."],
    ("broken-host.test.", "A"): "SERVFAIL",
    ("broken-host.test.", "AAAA"): "SERVFAIL",
    ("sold.test.", "MX"): ["10 mail.h-email.net."],
    ("mail.h-email.net.", "A"): PUBLIC,
    ("for-sale.test.", "MX"): ["10 mx.good.test."],
    ("for-sale.test.", "NS"): ["ns1.sedoparking.com."],
    ("gmial.com.", "MX"): ["10 catch.trap.test."],
    ("hotmial.com.", "MX"): ["10 catch.trap.test."],
    ("yaho.com.", "MX"): ["10 mx.good.test."],
    ("outlok.com.", "A"): PUBLIC,
    ("catch.trap.test.", "A"): PUBLIC,
    ("gmaill.com.", "MX"): ["5 gmail-smtp-in.l.google.com."],
    ("gmail-smtp-in.l.google.com.", "A"): PUBLIC,
}


@contextlib.asynccontextmanager
async def checks(**fields: object) -> AsyncIterator[tuple[DomainChecks, NameServer]]:
    server = NameServer(ZONE)
    async with serving(server) as resolver:
        made = DomainChecks(resolver=Hasty(resolver, most_s=0.3), **fields)  # type: ignore[arg-type]
        yield made, server
        await made.close()


@pytest.mark.parametrize(
    ("domain", "verdict", "kinds"),
    [
        ("good.test", "good", []),
        ("gone.test", "bad", ["no_domain"]),
        ("null.test", "bad", ["null_mx"]),
        ("plain.test", "doubtful", ["implicit_mx"]),
        ("silent.test", "bad", ["no_mail_policy"]),
        ("empty.test", "bad", ["no_mail_server"]),
        ("private.test", "bad", ["no_public_server"]),
        ("nowhere.test", "bad", ["no_mail_server"]),
        ("broken.test", "unknown", ["unknown"]),
        ("slow.test", "unknown", ["unknown"]),
        ("half.test", "unknown", ["unknown"]),
        ("sold.test", "doubtful", ["parked"]),
        ("for-sale.test", "doubtful", ["parked"]),
        ("gmial.com", "doubtful", ["foreign_mx"]),
        ("outlok.com", "doubtful", ["implicit_mx", "foreign_mx"]),
        ("gmaill.com", "good", []),
        ("a" * 64 + ".test", "unknown", ["unknown"]),
    ],
)
async def test_each_finding(domain: str, verdict: str, kinds: list[str]) -> None:
    async with checks() as (made, _):
        report = await made.of(domain)
        assert (report.verdict, [one.kind for one in report.findings]) == (verdict, kinds)


async def test_private_servers_are_good_where_they_are_allowed() -> None:
    async with checks(allow_private=True) as (made, _):
        assert (await made.of("private.test")).verdict == "good"


async def test_many_addresses_of_a_domain_cost_one_question() -> None:
    async with checks() as (made, server):
        await asyncio.gather(*(made.of("good.test") for _ in range(50)))
        await made.of("good.test")
        assert server.asked.count(("good.test.", "MX")) == 1


@pytest.mark.parametrize(("domain", "after_s", "asked"), [("good.test", 599.0, 1), ("good.test", 601.0, 2)])
async def test_an_answer_is_asked_for_again_when_its_time_is_over(domain: str, after_s: float, asked: int) -> None:
    now = 0.0
    async with checks(clock=lambda: now) as (made, server):
        await made.of(domain)
        now = after_s
        await made.of(domain)
        assert server.asked.count((f"{domain}.", "MX")) == asked


async def test_silence_is_asked_about_again_soon() -> None:
    now = 0.0
    async with checks(clock=lambda: now) as (made, server):
        assert (await made.of("broken.test")).verdict == "unknown"
        server.records = {**ZONE, ("broken.test.", "MX"): ["10 mx.good.test."]}
        now = 301.0
        assert (await made.of("broken.test")).verdict == "good"


async def test_no_more_are_asked_at_once_than_allowed() -> None:
    async with checks(at_once=2) as (made, server):
        reports = await asyncio.gather(*(made.of(f"n{number}.test") for number in range(20)))
        assert {one.verdict for one in reports} == {"bad"}
        assert len(server.asked) == 20


async def test_look_alikes_with_one_mail_server_are_a_cluster() -> None:
    async with checks() as (made, _):
        reports = [await made.of(one) for one in ("gmial.com", "hotmial.com", "yaho.com", "good.test", "gmaill.com")]
    found = clusters(reports)
    assert set(found) == {"gmial.com", "hotmial.com"}
    assert found["gmial.com"].strength == 0.4
    assert "catch.trap.test" in found["gmial.com"].explain


def test_a_cluster_grows_stronger_with_its_domains_and_never_certain() -> None:
    names = ["gmial.com", "gmai.com", "gmal.com", "hotmial.com", "hotmai.com", "yaho.com", "yahooo.com", "outlok.com"]
    strengths = [
        clusters(DomainReport(one, hosts=("mx.trap.test",)) for one in names[:count])["gmial.com"].strength
        for count in range(2, len(names) + 1)
    ]
    assert strengths == sorted(strengths)
    assert strengths[-1] == 0.7


def test_servers_of_a_known_provider_are_no_cluster() -> None:
    reports = [DomainReport(one, hosts=("gmail-smtp-in.l.google.com",)) for one in ("gmial.com", "hotmial.com")]
    assert clusters(reports) == {}
    assert not any(is_real(one.domain) for one in reports)


@pytest.mark.parametrize(
    ("host", "service"),
    [("ns1.sedoparking.com", "sedoparking.com"), ("bodis.com", "bodis.com"), ("notbodis.com", None), ("", None)],
)
def test_parking_services_are_known_by_the_end_of_the_name(host: str, service: str | None) -> None:
    assert parking_service(host) == service
