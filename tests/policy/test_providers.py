"""Who takes the mail of a domain."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.providers import Providers, shipped

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
