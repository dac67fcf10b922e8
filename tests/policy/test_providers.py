"""Who takes the mail of a domain."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.providers import Providers, of_host, shipped, shipped_suffixes

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
