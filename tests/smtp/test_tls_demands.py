"""What each mail server of a domain has to prove: asked of a real name server, with DNSSEC's bit or without."""

import contextlib
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from policy.mta_sts import NoPolicy, StsPolicy
from smtp.attempts import Attempt, Envelope, Reply
from smtp.client import SmtpMailer
from smtp.mx import NextHop, NextHops
from smtp.opener import Opener
from smtp.session import Timeouts
from smtp.tls.demand import ENCRYPT, MAY, NAMES, TESTING, Dane, Demand, Tlsa
from smtp.tls.demands import Demands
from smtp.tls.secure_dns import is_secure
from smtp.tls.sts import MtaSts
from tests.doubles.name_server import SERVFAIL, SILENCE
from tests.smtp.authority import Identity, authority, identity
from tests.smtp.servers import until
from tests.smtp.tls_servers import NO_OFFER, SignedZone, StartTls, signed_zone, start_tls_server

A, B = "mx1.shop.test", "mx2.shop.test"
BYTES = bytes(range(32))
USABLE = f"3 1 1 {BYTES.hex()}"
RECORD = Tlsa(3, 1, 1, BYTES)
DANE = Dane((RECORD,), (A, "shop.test"))
ZONE: dict[tuple[str, str], str | list[str]] = {
    ("shop.test.", "MX"): [f"10 {A}.", f"20 {B}."],
    (f"{A}.", "A"): ["127.0.0.1"],
    (f"{B}.", "A"): ["127.0.0.1"],
    ("_mta-sts.shop.test.", "TXT"): ['"v=STSv1; id=1"'],
}


NOTHING = NoPolicy("none")


class Policies:
    def __init__(self, policy: StsPolicy | NoPolicy) -> None:
        self.policy = policy

    async def fetch(self, domain: str) -> StsPolicy | NoPolicy:
        del domain
        return self.policy


def policy(mode: str, *mx: str) -> StsPolicy:
    return StsPolicy(mode, mx, 86_400)  # type: ignore[arg-type]  # one of the three


@contextlib.asynccontextmanager
async def hops(
    *,
    more: dict[tuple[str, str], str | list[str]] | None = None,
    without: tuple[tuple[str, str], ...] = (),
    signed: tuple[str, ...] = ("test.",),
    sts: StsPolicy | NoPolicy = NOTHING,
    dane: bool = True,
    port: int = 25,
) -> AsyncIterator[tuple[NextHops, SignedZone]]:
    records = {key: said for key, said in (ZONE | (more or {})).items() if key not in without}
    async with signed_zone(records, signed=set(signed)) as (resolver, zone):
        mta_sts = MtaSts(resolver, Policies(sts), clock=lambda: 1.0)
        demands = Demands(resolver, mta_sts=mta_sts, dane=dane, port=port)
        yield NextHops(allow_private=True, resolver=resolver, tls=demands, port=port), zone


async def demanded(find: NextHops, domain: str = "shop.test") -> dict[str, Demand] | str:
    found = await find.find(domain)
    if isinstance(found, NextHop):
        return {target.host: target.tls for target in found.targets}
    assert isinstance(found, Reply)
    assert (found.stage, found.code, found.mx) == ("tls", None, B)
    assert found.tls_policy == ("mta-sts" if "MTA-STS" in found.text else "dane")
    return found.text


TLSA_A = {(f"_25._tcp.{A}.", "TLSA"): [USABLE]}


@pytest.mark.parametrize(
    ("sts", "demands"),
    [
        (NOTHING, {A: MAY, B: MAY}),
        (policy("none"), {A: MAY, B: MAY}),
        (policy("testing", "*.shop.test"), {A: TESTING, B: TESTING}),
        (policy("testing", A), {A: TESTING, B: MAY}),
        (policy("enforce", A, B), {A: NAMES, B: NAMES}),
        (policy("enforce", "*.shop.test"), {A: NAMES, B: NAMES}),
        (policy("enforce", B), {B: NAMES}),
        (policy("enforce", "mx.elsewhere.test"), f"the domain's MTA-STS policy does not list {B}"),
    ],
    ids=["no-policy", "none", "testing", "testing-one", "enforce", "wildcard", "one-listed", "none-listed"],
)
async def test_what_a_policy_demands(sts: StsPolicy | NoPolicy, demands: dict[str, Demand] | str) -> None:
    async with hops(sts=sts) as (find, _):
        assert await demanded(find) == demands


@pytest.mark.parametrize(
    ("more", "demands"),
    [
        (TLSA_A, {A: DANE, B: MAY}),
        ({(f"_25._tcp.{A}.", "TLSA"): [USABLE, f"0 0 1 {BYTES.hex()}"]}, {A: DANE, B: MAY}),
        ({(f"_25._tcp.{A}.", "TLSA"): [f"1 1 1 {BYTES.hex()}"]}, {A: ENCRYPT, B: MAY}),
        ({(f"_25._tcp.{A}.", "TLSA"): ["0x03010100"]}, {B: MAY}),
        ({(f"_25._tcp.{A}.", "TLSA"): SERVFAIL}, {B: MAY}),
        ({(f"_25._tcp.{A}.", "TLSA"): SILENCE}, {B: MAY}),
        (
            {(f"_25._tcp.{A}.", "TLSA"): SERVFAIL, (f"_25._tcp.{B}.", "TLSA"): SERVFAIL},
            f"no secure answer for the TLSA records of {B}: NoNameservers",
        ),
    ],
    ids=["usable", "one-usable", "usage-1", "malformed", "bogus", "silent", "both-bogus"],
)
async def test_what_tlsa_records_demand(
    more: dict[tuple[str, str], str | list[str]], demands: dict[str, Demand] | str
) -> None:
    async with hops(more=more) as (find, _):
        assert await demanded(find) == demands


@pytest.mark.parametrize("signed", [(), (f"{A}.",), ("shop.test.",)], ids=["nothing", "the-host-only", "all-of-it"])
async def test_only_a_chain_of_secure_answers_asks_for_dane(signed: tuple[str, ...]) -> None:
    async with hops(more=TLSA_A, signed=signed) as (find, zone):
        assert await demanded(find) == {A: DANE if "shop.test." in signed else MAY, B: MAY}
        asked = [kind for _, kind in zone.asked].count("TLSA")
    assert asked == (2 if "shop.test." in signed else 0)  # a zone that is not signed may have servers that choke on it


async def test_a_host_in_an_unsigned_zone_is_not_under_dane() -> None:
    more = {("far.test.", "MX"): ["10 mx.plain.example."], ("mx.plain.example.", "A"): ["127.0.0.1"]}
    async with hops(more=more | {("_25._tcp.mx.plain.example.", "TLSA"): [USABLE]}) as (find, _):
        assert await demanded(find, "far.test") == {"mx.plain.example": MAY}


async def test_dane_is_not_asked_for_when_it_is_off() -> None:
    async with hops(more=TLSA_A, dane=False) as (find, zone):
        assert await demanded(find) == {A: MAY, B: MAY}
        assert "TLSA" not in {kind for _, kind in zone.asked}


async def test_dane_wins_over_mta_sts_even_where_the_policy_does_not_list_the_host() -> None:
    async with hops(more=TLSA_A, sts=policy("enforce", B)) as (find, _):
        assert await demanded(find) == {A: DANE, B: NAMES}


async def test_a_failing_dane_is_not_mended_by_mta_sts() -> None:
    more: dict[tuple[str, str], str | list[str]] = {(f"_25._tcp.{A}.", "TLSA"): SERVFAIL}
    async with hops(more=more | {("shop.test.", "MX"): [f"10 {A}."]}, sts=policy("enforce", A)) as (find, _):
        found = await find.find("shop.test")
    assert isinstance(found, Reply)
    assert (found.text, found.tls_policy) == (f"no secure answer for the TLSA records of {A}: NoNameservers", "dane")


async def test_unusable_records_and_a_policy_ask_for_the_policy() -> None:
    more: dict[tuple[str, str], str | list[str]] = {(f"_25._tcp.{A}.", "TLSA"): [f"1 1 1 {BYTES.hex()}"]}
    async with hops(more=more, sts=policy("enforce", A, B)) as (find, _):
        assert await demanded(find) == {A: NAMES, B: NAMES}


async def test_a_domain_without_mx_is_asked_as_its_own_mail_server() -> None:
    more: dict[tuple[str, str], str | list[str]] = {
        ("shop.test.", "A"): ["127.0.0.1"],
        ("_25._tcp.shop.test.", "TLSA"): [USABLE],
    }
    async with hops(more=more, without=(("shop.test.", "MX"),)) as (find, _):
        assert await demanded(find) == {"shop.test": Dane((RECORD,), ("shop.test",))}


async def test_a_domain_with_other_letters_is_asked_in_those_of_name_servers() -> None:
    more: dict[tuple[str, str], str | list[str]] = {
        ("xn--mnchen-3ya.test.", "A"): ["127.0.0.1"],
        ("_25._tcp.xn--mnchen-3ya.test.", "TLSA"): [USABLE],
        ("_mta-sts.xn--mnchen-3ya.test.", "TXT"): ['"v=STSv1; id=1"'],
    }
    sts = policy("enforce", "xn--mnchen-3ya.test")
    async with hops(more=more, sts=sts) as (find, _):
        assert await demanded(find, "münchen.test") == {"münchen.test": Dane((RECORD,), ("xn--mnchen-3ya.test",))}
    async with hops(more=more, sts=sts, dane=False) as (find, _):
        assert await demanded(find, "münchen.test") == {"münchen.test": NAMES}


@pytest.mark.parametrize("at", ["real.test", A], ids=["at-the-canonical-name", "at-its-own-name"])
async def test_an_aliased_host_is_asked_for_at_its_canonical_name_first(at: str) -> None:
    more: dict[tuple[str, str], str | list[str]] = {
        (f"{A}.", "CNAME"): ["real.test."],
        ("real.test.", "A"): ["127.0.0.1"],
        (f"_25._tcp.{at}.", "TLSA"): [USABLE],
    }
    async with hops(more=more, without=((f"{A}.", "A"),)) as (find, _):
        names = tuple(dict.fromkeys((at, A, "shop.test")))
        assert await demanded(find) == {A: Dane((RECORD,), names), B: MAY}


async def test_hosts_that_must_not_be_used_any_more_are_not_served_from_memory() -> None:
    now = 0.0
    async with hops() as (find, zone):
        find.clock = lambda: now
        assert await demanded(find) == {A: MAY, B: MAY}
        zone.records |= {(f"_25._tcp.{host}.", "TLSA"): SERVFAIL for host in (A, B)}
        now = 3_000.0
        await find.find("shop.test")  # served once more while it is asked again
        await until(lambda: not find._asking)
        assert await demanded(find) == f"no secure answer for the TLSA records of {B}: NoNameservers"


async def test_sessions_of_different_demands_have_different_hops() -> None:
    async with hops() as (find, _):
        plain = await find.find("shop.test")
    async with hops(more=TLSA_A, sts=policy("enforce", B)) as (find, _):
        proved = await find.find("shop.test")
    assert isinstance(plain, NextHop)
    assert isinstance(proved, NextHop)
    assert plain.name == f"{A},{B}"
    assert proved.name == f"{A}/dane,{B}/mta-sts"
    assert plain.at_least(ENCRYPT).name not in {plain.name, proved.name}
    assert {target.tls for target in plain.at_least(ENCRYPT).targets} == {ENCRYPT}
    assert proved.at_least(ENCRYPT) is proved


@pytest.mark.parametrize(
    ("trusted", "address", "secure"),
    [
        (False, "127.0.0.1", True),
        (False, "127.0.0.53", True),
        (False, "::1", True),
        (False, "192.0.2.53", False),
        (False, "https://dns.example/dns-query", False),
        (False, None, False),
        (True, "192.0.2.53", True),
    ],
)
async def test_the_bit_is_believed_from_this_machine_and_from_those_we_are_told_to_trust(
    trusted: bool, address: str | None, secure: bool
) -> None:
    async with signed_zone(ZONE, signed={"test."}) as (resolver, _):
        answer = await resolver.resolve("shop.test.", "MX", lifetime=1.0)
    answer.nameserver = address
    assert is_secure(answer, trusted=trusted) is secure


async def test_an_answer_without_the_bit_is_never_secure() -> None:
    async with signed_zone(ZONE) as (resolver, _):
        answer = await resolver.resolve("shop.test.", "MX", lifetime=1.0)
    assert not is_secure(answer, trusted=True)


# ---- from the domain to the message


def _known() -> Identity:
    return authority("known")


async def _sent(find: NextHops, folder: Path, known: Identity, *, must_encrypt: bool = False) -> Attempt:
    bundle = folder / "known.pem"
    bundle.write_bytes(known.pem)
    opener = Opener(hostname="me.example", timeouts=Timeouts(connect_s=1, command_s=1, dot_s=1), ca_file=bundle)
    mailer = SmtpMailer(find, opener)
    envelope = Envelope.checked(
        sender="b@bounces.example", recipient="ann@shop.test", data=b"\r\nx\r\n", must_encrypt=must_encrypt
    )
    try:
        return await mailer.send(envelope, go=lambda: True)
    finally:
        await mailer.close()


@pytest.mark.parametrize(
    ("wanted", "name", "proves"),
    [
        ("mta-sts", A, True),
        ("mta-sts", "mx.other.test", False),
        ("dane", "mx.other.test", True),
        ("dane, another key", A, False),
        ("required", "mx.other.test", True),
        ("opportunistic", "mx.other.test", True),
    ],
)
async def test_a_message_goes_only_where_its_domain_lets_it_go(
    tmp_path: Path, wanted: str, name: str, proves: bool
) -> None:
    known = _known()
    one, other = identity(name, by=known), identity(A, by=known)
    named = other if wanted == "dane, another key" else one
    tlsa = f"3 1 1 {hashlib.sha256(named.spki).hexdigest()}"
    async with start_tls_server(StartTls(one.context(tmp_path))) as server:
        more: dict[tuple[str, str], str | list[str]] = {("shop.test.", "MX"): [f"10 {A}."]}
        if wanted.startswith("dane"):
            more[f"_{server.port}._tcp.{A}.", "TLSA"] = [tlsa]
        sts = policy("enforce", A) if wanted == "mta-sts" else NOTHING
        async with hops(more=more, sts=sts, port=server.port) as (find, _):
            answer = await _sent(find, tmp_path, known, must_encrypt=wanted == "required")
    assert isinstance(answer, Reply)
    assert answer.tls_policy == wanted.partition(",")[0]
    assert answer.accepted is proves
    if not proves:
        assert answer.stage == "tls"
    assert any(line.startswith(b"MAIL") for line in server.safe) is proves
    assert not any(line.startswith(b"MAIL") for line in server.heard)


async def test_the_next_mail_server_is_tried_when_the_first_does_not_prove_itself(tmp_path: Path) -> None:
    known = _known()
    async with (
        start_tls_server(StartTls(identity(B, by=known).context(tmp_path))) as server,
        hops(sts=policy("enforce", "*.shop.test"), port=server.port) as (find, _),
    ):
        answer = await _sent(find, tmp_path, known)
    assert isinstance(answer, Reply)
    assert (answer.accepted, answer.mx, answer.tls_policy) == (True, B, "mta-sts")
    assert server.connections == 2


async def test_a_campaign_that_requires_encryption_sends_nothing_in_clear(tmp_path: Path) -> None:
    async with start_tls_server(StartTls(ehlo=NO_OFFER)) as server, hops(port=server.port) as (find, _):
        answer = await _sent(find, tmp_path, _known(), must_encrypt=True)
        assert isinstance(answer, Reply)
        assert (answer.stage, answer.tls_policy) == ("tls", "required")
        assert not any(line.startswith(b"MAIL") for line in server.heard)
        assert isinstance(await _sent(find, tmp_path, _known()), Reply)
        assert any(line.startswith(b"MAIL") for line in server.heard)
