"""Role accounts never get a campaign; people with similar names do."""

import pytest

from policy.addresses import CheckedAddress, check
from policy.screens import role_accounts


def screened(local: str) -> bool:
    checked = check(f"{local}@example.com")
    assert isinstance(checked, CheckedAddress)
    return role_accounts(checked) is not None


@pytest.mark.parametrize(
    "local",
    [
        *(
            "abuse",
            "postmaster",
            "hostmaster",
            "webmaster",
            "noc",
            "security",
            "mailer-daemon",
            "MAILER-DAEMON",
            "spam",
        ),
        *("junk", "root", "no-reply", "noreply", "No_Reply", "do-not-reply", "donotreply", "uucp", "usenet"),
        *("list-request", "ispfeedback", "Postmaster", "post.master", "abuse+tag", "announce-request"),
    ],
)
def test_role_accounts_are_screened(local: str) -> None:
    assert screened(local)


@pytest.mark.parametrize(
    "local", ["ann", "info", "sales", "rooter", "nora", "abuser", "noctua", "spammy", "request", "ann.request"]
)
def test_people_and_contact_addresses_pass(local: str) -> None:
    assert not screened(local)


def test_the_sentence_does_not_quote_the_address() -> None:
    checked = check("postmaster@zebra.example")
    assert isinstance(checked, CheckedAddress)
    objection = role_accounts(checked)
    assert objection is not None
    assert "zebra" not in objection[1]
    assert "postmaster" not in objection[1]
