"""Domains that may get mail, and those that may not, with all below them."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.addresses import CheckedAddress, check
from policy.domain_lists import domain_lists, flaw_of_domains
from policy.screens import Objection, Screens
from policy.settings import WrongSetting, read
from policy.tokens import Keys, address_hash
from schemas.sending import AdmissionPolicy, Recipient

KEYS = Keys(address=b"a" * 32, return_path=b"r" * 32)


def denied(address: str, *, campaign: AdmissionPolicy | None = None, **lists: tuple[str, ...]) -> list[Objection]:
    checked = check(address)
    assert isinstance(checked, CheckedAddress)
    screens = Screens(KEYS, lists=domain_lists(lists.get("allow", ()), lists.get("deny", ())))
    questions = screens.of(campaign or AdmissionPolicy())
    found = questions.objections(Recipient(address=address), checked, address_hash(KEYS, address), 1)
    return [one for one in found if one.screen == "denied_domain"]


# address, allowed, denied, is denied
LISTS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...], bool]] = {
    "no lists": ("ann@shop.example.com", (), (), False),
    "denied": ("ann@example.com", (), ("example.com",), True),
    "below a denied one": ("ann@a.b.example.com", (), ("example.com",), True),
    "above a denied one": ("ann@example.com", (), ("a.example.com",), False),
    "an end of letters is no parent": ("ann@notexample.com", (), ("example.com",), False),
    "a whole top-level domain": ("ann@example.com", (), ("com",), True),
    "allowed": ("ann@example.com", ("example.com",), (), False),
    "below an allowed one": ("ann@a.example.com", ("example.com",), (), False),
    "not allowed": ("ann@example.org", ("example.com",), (), True),
    "denied below an allowed one": ("ann@old.example.com", ("example.com",), ("old.example.com",), True),
    "in capitals": ("ann@EXAMPLE.com", (), ("Example.COM",), True),
    "as people write it": ("ann@bücher.de", (), ("BÜCHER.de",), True),
    "as DNS has it": ("ann@bücher.de", (), ("xn--bcher-kva.de",), True),
}


@pytest.mark.parametrize(("address", "allow", "deny", "is_denied"), LISTS.values(), ids=LISTS.keys())
def test_a_list_is_of_domains_and_all_below_them(
    address: str, allow: tuple[str, ...], deny: tuple[str, ...], is_denied: bool
) -> None:
    policy = AdmissionPolicy(allow_domains=allow, deny_domains=deny)

    assert bool(denied(address, allow=allow, deny=deny)) is is_denied
    assert bool(denied(address, campaign=policy)) is is_denied


def test_what_one_of_both_denies_the_other_does_not_allow() -> None:
    allows = AdmissionPolicy(allow_domains=("example.com",))

    assert denied("ann@example.com", campaign=allows, deny=("example.com",))
    assert denied("ann@example.com", campaign=allows, allow=("example.org",))
    assert denied("ann@example.org", campaign=allows, allow=("example.org",))


def test_the_sentence_says_whose_list_it_was_and_does_not_quote_the_domain() -> None:
    (installation,) = denied("ann@example.com", deny=("example.com",))
    (campaign,) = denied("ann@example.com", campaign=AdmissionPolicy(deny_domains=("example.com",)))

    assert (installation.does, installation.field) == ("refuse", "address")
    assert "the installation" in installation.explain
    assert "the campaign" in campaign.explain
    assert "example" not in installation.explain + campaign.explain


labels = st.sampled_from(["a", "b", "example", "com"])
names = st.lists(labels, min_size=1, max_size=4).map(".".join)


@given(names, st.lists(names, max_size=4), st.lists(names, max_size=4))
def test_lists_mean_what_the_ends_of_names_mean(domain: str, allow: list[str], deny: list[str]) -> None:
    def below(parents: list[str]) -> bool:
        return any(f".{domain}".endswith(f".{parent}") for parent in parents)

    lists = domain_lists(tuple(allow), tuple(deny))

    assert lists.denies(domain) is (below(deny) or (bool(allow) and not below(allow)))


@pytest.mark.parametrize("name", ["@example.com", "*.example.com", "exa mple.com", "-a.com"])
def test_what_is_no_domain_is_said_with_its_place(name: str) -> None:
    flaw = flaw_of_domains(AdmissionPolicy(deny_domains=("example.com", name)))

    assert flaw is not None
    assert flaw.startswith("admission.deny_domains[1] is no domain")
    with pytest.raises(WrongSetting, match="a test: expected domains"):
        read({"deny_domains": (f"example.com,{name}", "a test")})


def test_a_policy_with_lists_is_a_value() -> None:
    policy = AdmissionPolicy(deny_domains=("a.example",))

    assert msgspec.convert({"deny_domains": ["a.example"]}, AdmissionPolicy) == policy
    assert hash(policy) == hash(msgspec.convert({"deny_domains": ["a.example"]}, AdmissionPolicy))
