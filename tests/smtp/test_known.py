from collections import UserDict
from collections.abc import Iterator

import pytest

from policy.naming import campaign_name
from policy.tokens import campaign_ref
from schemas.sending import Campaign
from smtp.known import Known
from tests.smtp.mailroom import NOW, campaign


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


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("anybody@traps.example", True),
        ("ANYBODY@TRAPS.example", True),
        ("seed-1@shop.example", True),
        ("Seed-1@SHOP.example", True),
        ("seed-2@shop.example", False),
        ("anybody@x.traps.example", False),
    ],
)
def test_traps_are_domains_and_addresses(address: str, expected: bool) -> None:
    known = Known({}, trap_domains=["traps.example"], trap_addresses=["Seed-1@shop.example"])

    assert known.is_trap(address) is expected


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
