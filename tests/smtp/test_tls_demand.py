"""Which demand is the stronger one, and that sessions of two demands cannot be mixed up."""

import itertools

import pytest

from smtp.tls.demand import ENCRYPT, MAY, NAMES, TESTING, Dane, Demand, Tlsa, label, mark, stronger

SERVER = Dane((Tlsa(3, 1, 1, b"x" * 32),), ("mx.example", "shop.example"))
AUTHORITY = Dane((Tlsa(2, 1, 1, b"x" * 32),), ("mx.example", "shop.example"))
RISING: list[Demand] = [MAY, TESTING, ENCRYPT, NAMES, SERVER]


@pytest.mark.parametrize(("weak", "strong"), list(itertools.combinations(RISING, 2)))
def test_the_stronger_demand_wins_whichever_comes_first(weak: Demand, strong: Demand) -> None:
    assert stronger(weak, strong) == stronger(strong, weak) == strong


def test_every_demand_has_a_mark_of_its_own() -> None:
    assert len({mark(demand) for demand in [*RISING, AUTHORITY]}) == len(RISING) + 1


def test_a_session_proved_by_an_authority_is_for_one_domain() -> None:
    other = Dane(AUTHORITY.records, ("mx.example", "other.example"))
    assert mark(other) != mark(AUTHORITY)
    assert mark(Dane(SERVER.records, ("mx.example", "other.example"))) == mark(SERVER)


def test_results_tell_four_demands_apart() -> None:
    assert [label(demand) for demand in RISING] == ["opportunistic", "opportunistic", "required", "mta-sts", "dane"]
