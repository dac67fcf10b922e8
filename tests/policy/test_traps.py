import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.tokens import Keys, address_hash
from policy.traps import TrapFact, domain_hash, fact_of, is_confirmed, weight_of
from schemas.feedback import FeedbackEvent, RegisteredTrap, Trap, TrapKind

KEYS = Keys(address=b"a" * 32, return_path=b"r" * 32)


def hit(trap: Trap | None, source: str = "return_path") -> FeedbackEvent:
    return FeedbackEvent(kind="trap_hit", campaign="spring-sale", at=1, trap=trap, source=source)


@pytest.mark.parametrize(
    ("trap", "source", "weight"),
    [
        (Trap(kind="pristine"), "return_path", 100),
        (Trap(kind="recycled"), "return_path", 40),
        (Trap(kind="typo"), "return_path", 15),
        (Trap(kind="recycled", strength=0.7), "worker", 28),
        (Trap(kind="typo", strength=0.3), "worker", 4),
        (Trap(kind="suspected", strength=0.3), "worker", 30),
        (Trap(kind="suspected", strength=0.9), "import", 90),
        (Trap(kind="suspected", strength=0.9), "return_path", 0),
        (None, "operator", 100),
    ],
)
def test_hits_weigh_by_kind_and_strength(trap: Trap | None, source: str, weight: int) -> None:
    assert weight_of(hit(trap, source)) == weight


KINDS = st.sampled_from(["pristine", "recycled", "typo", "suspected"])


@given(KINDS, st.floats(0, 1), st.sampled_from(["return_path", "worker", "import", "operator"]))
def test_no_hit_weighs_more_than_a_pristine_one(kind: TrapKind, strength: float, source: str) -> None:
    assert 0 <= weight_of(hit(Trap(kind=kind, strength=strength), source)) <= 100


@pytest.mark.parametrize(
    ("trap", "expected"),
    [
        (Trap(kind="pristine"), True),
        (Trap(kind="typo"), True),
        (Trap(kind="recycled", strength=0.99), False),
        (Trap(kind="suspected"), False),
        (None, True),
    ],
)
def test_only_mail_in_an_own_trap_is_confirmed(trap: Trap | None, expected: bool) -> None:
    assert is_confirmed(trap) is expected


def test_a_domain_has_one_hash_however_it_is_written() -> None:
    hashes = {domain_hash(KEYS, name) for name in ("bücher.example", "Bücher.Example", "xn--bcher-kva.example")}

    assert len(hashes) == 1
    assert hashes == {address_hash(KEYS, "@xn--bcher-kva.example")}
    assert domain_hash(KEYS, "shop.example") != address_hash(KEYS, "ann@shop.example")


def test_a_fact_says_what_feedback_says_of_it() -> None:
    record = RegisteredTrap(hash="ab" * 32, kind="recycled", planted="the old shop", what="domain", since=1, note="n")

    assert fact_of(record) == TrapFact(kind="recycled", where="the old shop", what="domain", since=1)
    assert fact_of(record).trap == Trap(kind="recycled", where="the old shop")
