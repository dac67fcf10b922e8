"""MTA-STS policies: fetched from a real HTTPS server, found by a real name server, kept against those in between."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

import smtp.tls.sts
from policy.mta_sts import MAX_POLICY_BYTES, NoPolicy, StsPolicy
from smtp.mx import may_connect
from smtp.tls.metrics import TlsMetrics
from smtp.tls.policy_host import PolicyHost
from smtp.tls.sts import LOOK_AGAIN_S, REFRESH_S, TRY_AGAIN_S, MtaSts
from tests.doubles.name_server import SERVFAIL, SILENCE
from tests.smtp.authority import DAY, Identity, authority, identity
from tests.smtp.tls_servers import PolicyServer, SignedZone, policy_server, signed_zone

GOOD = b"version: STSv1\r\nmode: enforce\r\nmx: mx.shop.test\r\nmax_age: 604800\r\n"
POLICY = StsPolicy("enforce", ("mx.shop.test",), 604_800)
PUBLIC = {("mta-sts.shop.test.", "A"): ["127.0.0.1"]}


@cache
def known() -> Identity:
    return authority("known")


@cache
def certificate(kind: str) -> Identity:
    match kind:
        case "wrong name":
            return identity("other.shop.test", by=known())
        case "expired":
            return identity("mta-sts.shop.test", by=known(), starts=-3 * DAY, ends=-DAY)
        case "self-signed":
            return identity("mta-sts.shop.test")
        case _:
            return identity("mta-sts.shop.test", by=known())


@contextlib.asynccontextmanager
async def policy_host(
    folder: Path, server: PolicyServer, *, kind: str = "right", private: bool = True
) -> AsyncIterator[PolicyHost]:
    bundle = folder / "known.pem"
    bundle.write_bytes(known().pem)
    async with (
        policy_server(server, certificate(kind).context(folder)),
        signed_zone(PUBLIC) as (resolver, _),
    ):
        yield PolicyHost(
            resolver,
            may_connect=(lambda _: True) if private else may_connect,
            ca_file=bundle,
            port=server.port,
            within_s=1.0,
        )


async def test_a_policy_is_fetched_from_its_one_place(tmp_path: Path) -> None:
    server = PolicyServer(GOOD)
    async with policy_host(tmp_path, server) as host:
        assert await host.fetch("shop.test") == POLICY
    assert server.asked == ["mta-sts.shop.test/.well-known/mta-sts.txt"]


@pytest.mark.parametrize(
    ("server", "says"),
    [
        (PolicyServer(status=301, headers={"Location": "https://elsewhere.test/"}), "answered with 301"),
        (PolicyServer(status=404), "answered with 404"),
        (PolicyServer(status=500), "answered with 500"),
        (PolicyServer(GOOD, headers={"Content-Type": "text/html"}), "text/html, not text/plain"),
        (PolicyServer(GOOD + b"x: y\n" * MAX_POLICY_BYTES), "more than 65,536 bytes"),
        (PolicyServer(GOOD, headers={"Content-Type": "text/plain", "Content-Encoding": "gzip"}), None),
        (PolicyServer(GOOD, headers={"Content-Type": "text/plain; charset=utf-8"}), None),
        (PolicyServer(b"not found"), "line 1"),
        (PolicyServer(silent=True), "did not answer within 1 s"),
    ],
    ids=["redirect", "missing", "broken", "a-page", "too-long", "not-unpacked", "charset", "no-policy", "silent"],
)
async def test_what_a_policy_host_says(tmp_path: Path, server: PolicyServer, says: str | None) -> None:
    async with policy_host(tmp_path, server) as host:
        fetched = await host.fetch("shop.test")
    if says is None:
        assert fetched == POLICY
    else:
        assert isinstance(fetched, NoPolicy)
        assert says in fetched.explain
    assert len(server.asked) == 1


@pytest.mark.parametrize("kind", ["wrong name", "expired", "self-signed"])
async def test_a_policy_host_has_to_prove_its_name(tmp_path: Path, kind: str) -> None:
    server = PolicyServer(GOOD)
    async with policy_host(tmp_path, server, kind=kind) as host:
        assert isinstance(await host.fetch("shop.test"), NoPolicy)
    assert not server.asked


async def test_a_policy_host_inside_is_not_connected_to(tmp_path: Path) -> None:
    server = PolicyServer(GOOD)
    async with policy_host(tmp_path, server, private=False) as host:
        fetched = await host.fetch("shop.test")
    assert isinstance(fetched, NoPolicy)
    assert "no address that may be connected to" in fetched.explain
    assert not server.asked


async def test_a_policy_host_that_does_not_exist_is_no_policy(tmp_path: Path) -> None:
    async with policy_host(tmp_path, PolicyServer(GOOD)) as host:
        assert isinstance(await host.fetch("other.test"), NoPolicy)


@dataclass
class Remembering:
    """Policies by domain, and who was asked for."""

    policies: dict[str, StsPolicy | NoPolicy] = field(default_factory=lambda: {"shop.test": POLICY})
    fetched: list[str] = field(default_factory=list)

    async def fetch(self, domain: str) -> StsPolicy | NoPolicy:
        self.fetched.append(domain)
        return self.policies.get(domain, NoPolicy("nothing there"))


@dataclass
class Story:
    """Policies of shop.test as time goes by."""

    sts: MtaSts
    zone: SignedZone
    host: Remembering
    registry: CollectorRegistry
    now: float = 1_000_000.0

    async def policy(self, *, after_s: float = 0.0) -> StsPolicy | None:
        self.now += after_s
        return await self.sts.policy("Shop.Test.")

    def record(self, said: list[str] | str) -> None:
        self.zone.records["_mta-sts.shop.test.", "TXT"] = said

    def counted(self, answer: str) -> float:
        return self.registry.get_sample_value("mailcordon_sender_mta_sts_total", {"answer": answer}) or 0.0


RECORD = {("_mta-sts.shop.test.", "TXT"): ['"v=STSv1; " "id=1;"']}


@contextlib.asynccontextmanager
async def story() -> AsyncIterator[Story]:
    host, registry = Remembering(), CollectorRegistry()
    async with signed_zone(RECORD) as (resolver, zone):
        sts = MtaSts(resolver, host, clock=lambda: told.now, metrics=TlsMetrics(registry))
        told = Story(sts, zone, host, registry)
        yield told


async def test_a_policy_is_fetched_once_and_then_kept() -> None:
    async with story() as told:
        assert [await told.policy(after_s=seconds) for seconds in (0, 1, 3600, 3600)] == [POLICY] * 4
        assert told.host.fetched == ["shop.test"]
        assert (told.counted("fetched"), told.counted("cached")) == (1, 2)


async def test_without_a_record_no_policy_host_is_asked() -> None:
    async with story() as told:
        assert await told.sts.policy("other.test") is None
        assert await told.sts.policy("[127.0.0.1]") is None
        assert await told.sts.policy("ä.test") is None
        assert told.host.fetched == []


@pytest.mark.parametrize("said", [[], SERVFAIL, SILENCE, ['"v=STSv1; id=1"', '"v=STSv1; id=2"']])
async def test_a_policy_outlives_a_record_that_is_kept_from_us_but_not_itself(said: list[str] | str) -> None:
    async with story() as told:
        await told.policy()
        told.record(said)
        if said == []:
            del told.zone.records["_mta-sts.shop.test.", "TXT"]
        assert await told.policy(after_s=86_400) == POLICY
        assert await told.policy(after_s=POLICY.max_age_s - 86_401) == POLICY
        assert await told.policy(after_s=2) is None


async def test_a_policy_outlives_a_policy_host_that_is_kept_from_us() -> None:
    async with story() as told:
        await told.policy()
        told.record(['"v=STSv1; id=2"'])
        told.host.policies = {}
        assert await told.policy(after_s=LOOK_AGAIN_S) == POLICY
        assert await told.policy(after_s=LOOK_AGAIN_S) == POLICY
        assert len(told.host.fetched) == 2  # not again at once
        assert await told.policy(after_s=TRY_AGAIN_S) == POLICY
        assert len(told.host.fetched) == 3
        assert told.counted("kept") == 2


async def test_a_new_id_brings_a_new_policy() -> None:
    newer = StsPolicy("none", (), 86_400)
    async with story() as told:
        await told.policy()
        told.record(['"v=STSv1; id=2"'])
        told.host.policies["shop.test"] = newer
        assert await told.policy(after_s=1) == POLICY
        assert await told.policy(after_s=LOOK_AGAIN_S) == newer


async def test_an_unchanged_id_is_not_believed_for_longer_than_a_day() -> None:
    async with story() as told:
        await told.policy()
        await told.policy(after_s=REFRESH_S - 1)
        assert len(told.host.fetched) == 1
        await told.policy(after_s=LOOK_AGAIN_S)
        assert len(told.host.fetched) == 2


async def test_a_policy_that_cannot_be_had_is_not_asked_for_all_the_time() -> None:
    async with story() as told:
        told.host.policies = {}
        assert [await told.policy(after_s=seconds) for seconds in (0, 61, 61, 61)] == [None] * 4
        assert len(told.host.fetched) == 1
        told.host.policies = {"shop.test": POLICY}
        assert await told.policy(after_s=TRY_AGAIN_S) == POLICY


async def test_a_record_is_asked_for_once_a_minute() -> None:
    async with story() as told:
        for _ in range(5):
            await told.policy(after_s=10)
        assert told.zone.asked.count(("_mta-sts.shop.test.", "TXT")) == 1


async def test_what_is_kept_is_bounded_and_policies_are_kept_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtp.tls.sts, "MOST_POLICIES", 5)
    async with story() as told:
        await told.policy()
        for number in range(12):
            await told.sts.policy(f"d{number}.test")
        told.record(SERVFAIL)
        assert len(told.sts._kept) <= 5
        assert await told.policy(after_s=LOOK_AGAIN_S) == POLICY
