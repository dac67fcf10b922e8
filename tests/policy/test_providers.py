"""Who takes the mail of a domain, and who passes complaints on."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.counts import MINUTE_MS, VECTOR, booked, booked_feedback
from policy.providers import (
    Providers,
    heard,
    loops_of,
    of_host,
    put_loops_in_force,
    shipped,
    shipped_loops,
    shipped_suffixes,
)
from schemas.delivery import DeliveryResult
from schemas.feedback import Feedback

KNOWN = {
    "gmail.com": "google",
    "googlemail.com": "google",
    "outlook.com": "microsoft",
    "hotmail.co.uk": "microsoft",
    "yahoo.com": "yahoo",
    "aol.com": "yahoo",
    "yahoo.co.jp": "yahoo_japan",
    "icloud.com": "apple",
    "web.de": "gmx",
    "comcast.net": "comcast",
    "wanadoo.fr": "orange",
    "bk.ru": "mailru",
    "foxmail.com": "qq",
    "126.com": "netease",
    "GMail.COM": "google",
    "gmail.com.": "google",
    "example.com": "other",
    "mail.gmail.com": "other",
    "notgmail.com": "other",
    "": "other",
}


@pytest.mark.parametrize(("domain", "provider"), KNOWN.items(), ids=[domain or "nothing" for domain in KNOWN])
def test_the_provider_of_a_domain(domain: str, provider: str) -> None:
    assert Providers({}).of(domain) == provider


def test_an_installations_own_domains_win() -> None:
    providers = Providers({"Gmail.Example": "google", "web.de": "mine"})
    assert [providers.of(one) for one in ("gmail.example", "web.de", "gmx.de")] == ["google", "mine", "gmx"]


def test_every_shipped_domain_is_in_lower_case_and_every_name_fits_a_label() -> None:
    assert all(domain == domain.lower() and "." in domain for domain in shipped())
    assert all(name.isidentifier() and name.islower() for name in shipped().values())


@given(st.text(max_size=80))
def test_every_domain_has_an_answer(domain: str) -> None:
    assert Providers({}).of(domain)


HOSTS = {
    "aspmx.l.google.com": "google",
    "gmail-smtp-in.l.google.com": "google",
    "aspmx2.googlemail.com": "google",
    "smtp.google.com": "google",
    "outlook-com.olc.protection.outlook.com": "microsoft",
    "shop-example.mail.protection.outlook.com": "microsoft365",
    "shop-example.r-v1.mx.microsoft": "microsoft365",
    "mta5.am0.yahoodns.net": "yahoo",
    "mx01.mail.icloud.com": "apple",
    "eu-smtp-inbound-1.mimecast.com": "mimecast",
    "mxa-0001.pphosted.com": "proofpoint",
    "d1.ess.barracudanetworks.com": "barracuda",
    "mx00.emig.gmx.net": "gmx",
    "mx-ha02.web.de": "gmx",
    "smtp-in.orange.fr": "orange",
    "mx1.qq.com": "qq",
    "163mx01.mxmail.netease.com": "netease",
    "mx1.comcast.net": "comcast",
    "ASPMX.L.Google.COM.": "google",
    "aspmx.l.notgoogle.com": None,
    "google.com.example": None,
    "protection.outlook.com": None,
    "com": None,
    "": None,
}


@pytest.mark.parametrize(("host", "provider"), HOSTS.items(), ids=[host or "nothing" for host in HOSTS])
def test_the_provider_behind_a_mail_server(host: str, provider: str | None) -> None:
    assert of_host(host) == provider


@pytest.mark.parametrize(
    ("domain", "hosts", "provider"),
    [
        ("shop.example", ["aspmx.l.google.com"], "google"),
        ("shop.example", ["mx.shop.example"], "other"),
        ("shop.example", [], "other"),
        ("web.de", ["aspmx.l.google.com"], "gmx"),
        ("shop.example", ["mx.shop.example", "mx1.qq.com"], "qq"),
    ],
    ids=["company at google", "own servers", "unknown", "a listed domain stays its provider's", "first that is known"],
)
def test_a_domain_is_listed_or_its_mail_servers_owners(domain: str, hosts: list[str], provider: str) -> None:
    assert Providers({}).of(domain, hosts) == provider


def test_every_shipped_suffix_is_in_lower_case_and_every_name_fits_a_label() -> None:
    assert all(suffix == suffix.lower() and "." in suffix for suffix in shipped_suffixes())
    assert all(name.isidentifier() and name.islower() for name in shipped_suffixes().values())


@given(st.text(max_size=80))
def test_every_host_has_an_answer(host: str) -> None:
    of_host(host)


MINUTE = 1_000
AT = MINUTE * MINUTE_MS

LOOPS: dict[str, tuple[tuple[str, ...], frozenset[str]]] = {
    "as shipped": ((), shipped_loops()),
    "one more": (("+google",), shipped_loops() | {"google"}),
    "one less": (("-yahoo",), shipped_loops() - {"yahoo"}),
    "more and less": (("-yahoo", "+gmx", "+mine"), (shipped_loops() | {"gmx", "mine"}) - {"yahoo"}),
    "one that is there": (("+yahoo",), shipped_loops()),
    "one that is not there": (("-google",), shipped_loops()),
    "these alone": (("google", "mine"), frozenset({"google", "mine"})),
    "nobody": (("none",), frozenset()),
}


@pytest.mark.parametrize(("words", "loops"), LOOPS.values(), ids=LOOPS.keys())
def test_who_passes_complaints_on(words: tuple[str, ...], loops: frozenset[str]) -> None:
    assert loops_of(words, ["mine"]) == loops


@pytest.mark.parametrize("word", ["gogle", "+gogle", "-gogle", "+-google", "+mine", "+other"])
def test_a_loop_of_nobody_who_is_known_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match="no provider is called"):
        loops_of([word])


@pytest.fixture
def _shipped_again() -> Iterator[None]:
    yield
    put_loops_in_force(None)


@pytest.mark.usefixtures("_shipped_again")
def test_the_loops_in_force_decide_what_complaints_are_divided_by() -> None:
    sent = DeliveryResult(message_id="m-1", outcome="accepted", at=AT, provider="google")
    complaint = Feedback(kind="complaint", campaign="spring", message_id="m-1", at=AT, provider="google")
    heard_of, unheard = VECTOR.index("accepted_heard"), VECTOR.index("complaint_unheard")

    def counted() -> tuple[int, int]:
        (mail,), (told,) = booked([sent])[MINUTE].values(), booked_feedback([complaint])[MINUTE].values()
        return mail[heard_of], told[unheard]

    before = counted()
    put_loops_in_force(loops_of(["+google"]))
    assert (before, counted(), "google" in heard()) == ((0, 1), (1, 0), True)
