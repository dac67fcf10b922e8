from collections import UserDict
from collections.abc import Iterator

import pytest

from policy.naming import campaign_name
from policy.tokens import address_hash, campaign_ref
from policy.traps import TrapFact, domain_hash
from schemas.sending import Campaign
from smtp.known import Known
from tests.smtp.mailroom import KEYS, NOW, campaign


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("bounces.shop.example", True),
        ("BOUNCES.Shop.Example", True),
        ("fbl.shop.example", True),
        ("bücher.example", True),
        ("xn--bcher-kva.example", True),
        ("shop.example", False),
        ("x.bounces.shop.example", False),
        ("bounces.shop.example.", False),
        ("[127.0.0.1]", False),
        ("", False),
        ("a" * 300, False),
    ],
)
def test_only_whole_names_of_our_domains_are_ours(domain: str, expected: bool) -> None:
    known = Known({"spring-sale": campaign("spring-sale")}, own_domains=["fbl.shop.example", "bücher.example"])

    assert known.is_own(domain, NOW) is expected


REGISTERED = {
    address_hash(KEYS, "Seed-1@shop.example"): TrapFact(where="partner 7", what="decoy"),
    address_hash(KEYS, "own@gmial.example"): TrapFact(where="a hidden link"),
    domain_hash(KEYS, "GMIAL.example"): TrapFact(kind="typo", what="domain"),
    domain_hash(KEYS, "traps.example"): TrapFact(kind="recycled", where="the old shop", what="domain"),
    domain_hash(KEYS, "bücher.example"): TrapFact(kind="recycled", what="domain"),
}


def knowing() -> Known:
    return Known({}, trap_domains=["traps.example", "old.example"], keys=KEYS, registered=REGISTERED.get)


@pytest.mark.parametrize(
    ("address", "kind", "where"),
    [
        ("seed-1@shop.example", "pristine", "partner 7"),
        ("SEED-1@Shop.example", "pristine", "partner 7"),
        ("anybody@gmial.example", "typo", ""),
        ("own@gmial.example", "pristine", "a hidden link"),
        ("anybody@traps.example", "recycled", "the old shop"),
        ("anybody@old.example", "pristine", ""),
        ("ANYBODY@OLD.example", "pristine", ""),
        ("anybody@bücher.example", "recycled", ""),
        ("anybody@xn--bcher-kva.example", "recycled", ""),
    ],
)
def test_a_trap_is_known_by_its_address_then_its_domain_then_the_settings(address: str, kind: str, where: str) -> None:
    fact = knowing().trap(address)

    assert fact is not None
    assert (fact.kind, fact.where, fact.strength) == (kind, where, 1.0)
    assert knowing().is_trap(address)


@pytest.mark.parametrize(
    "address",
    ["seed-2@shop.example", "anybody@x.traps.example", "anybody@x.old.example", "traps.example", "@", "", "a" * 400],
)
def test_what_is_not_registered_is_no_trap(address: str) -> None:
    assert knowing().trap(address) is None
    assert not knowing().is_trap(address)


def test_without_a_registry_the_settings_count() -> None:
    known = Known({}, trap_domains=["traps.example"])

    assert known.trap("anybody@traps.example") == TrapFact(what="domain")
    assert known.trap("anybody@shop.example") is None


def test_a_campaign_that_was_registered_just_now_is_known_within_a_second() -> None:
    campaigns = {"spring-sale": campaign("spring-sale")}
    known = Known(campaigns)
    assert known.by_name(campaign_name("late"), NOW) is None
    campaigns["late"] = campaign("late", "bounces.late.example")

    assert known.by_ref(campaign_ref("late"), NOW + 1_000) == "late"
    assert known.by_name(campaign_name("late"), NOW + 1_000) == "late"
    assert known.is_own("bounces.late.example", NOW + 1_000)


class _Counting(UserDict[str, Campaign]):
    read = 0

    def __iter__(self) -> Iterator[str]:
        self.read += 1
        return super().__iter__()


def test_asking_for_nonsense_reads_the_campaigns_once_a_second_at_most() -> None:
    campaigns = _Counting({"spring-sale": campaign("spring-sale")})
    known = Known(campaigns)
    campaigns.read = 0

    for number in range(1_000):
        known.is_own(f"d{number}.example", NOW)
    assert campaigns.read == 1

    known.is_own("once-more.example", NOW + 1_000)
    assert campaigns.read == 2
