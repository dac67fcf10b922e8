"""Throw-away domains and all below them are known; where people keep mailboxes is not among them."""

import pytest

from policy import providers
from policy.disposable import disposable_parent


@pytest.mark.parametrize(
    ("domain", "parent"),
    [
        ("mailinator.com", "mailinator.com"),
        ("sub.mailinator.com", "mailinator.com"),
        ("a.b.c.guerrillamail.com", "guerrillamail.com"),
        ("yopmail.com", "yopmail.com"),
        ("tempmail.com", "tempmail.com"),
        ("x.tempmail.com", "tempmail.com"),
    ],
)
def test_a_disposable_domain_is_known_with_all_that_is_below_it(domain: str, parent: str) -> None:
    assert disposable_parent(domain) == parent


@pytest.mark.parametrize(
    "domain",
    [
        *("gmail.com", "example.com", "zebramailinator.com", "mailinator.com.example", "com", "", "gotmail.com"),
        *("duck.com", "mozmail.com", "privaterelay.appleid.com", "21cn.com", "vip.21cn.com", "email.net"),
    ],
)
def test_a_domain_where_people_keep_mailboxes_is_not(domain: str) -> None:
    assert disposable_parent(domain) is None


def test_no_domain_of_a_known_provider_is_disposable() -> None:
    assert [one for one in providers.shipped() if disposable_parent(one) is not None] == []
