import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.suppressed import Suppressed

ANN, BOB = "ab" * 32, "cd" * 32
SCOPES = ("platform", "tenant:shop", "campaign:spring")


def test_an_address_is_suppressed_in_its_scope_alone() -> None:
    suppressed = Suppressed()
    suppressed.add(ANN, "tenant:shop", reason="complaint")

    assert suppressed.reason(ANN, SCOPES, now=1) == "complaint"
    assert suppressed.reason(ANN, ("platform", "tenant:other"), now=1) is None
    assert suppressed.reason(BOB, SCOPES, now=1) is None


def test_a_suppression_ends_at_its_time() -> None:
    suppressed = Suppressed()
    suppressed.add(ANN, "platform", reason="mailbox_full", until=100)

    assert suppressed.reason(ANN, SCOPES, now=99) == "mailbox_full"
    assert suppressed.reason(ANN, SCOPES, now=100) is None


def test_an_ended_suppression_does_not_hide_another_scope() -> None:
    suppressed = Suppressed()
    suppressed.add(ANN, "platform", reason="mailbox_full", until=100)
    suppressed.add(ANN, "tenant:shop", reason="complaint")

    assert suppressed.reason(ANN, SCOPES, now=200) == "complaint"


def test_a_longer_suppression_replaces_one_that_ends() -> None:
    suppressed = Suppressed()
    suppressed.add(ANN, "platform", reason="mailbox_full", until=100)
    suppressed.add(ANN, "platform", reason="invalid_recipient")

    assert suppressed.reason(ANN, SCOPES, now=200) == "invalid_recipient"


@pytest.mark.parametrize("address_hash", ["", "ann@example.com", "abcd", "zz" * 32], ids=repr)
def test_what_is_no_hash_is_an_error(address_hash: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of bytes.fromhex or ours
        Suppressed().add(address_hash, "platform", reason="manual")


HASHES = st.sampled_from([f"{number:02x}" * 32 for number in range(4)])
ORDERS = st.lists(st.tuples(st.booleans(), HASHES, st.sampled_from(SCOPES)))


@given(ORDERS)
def test_it_behaves_as_a_set_of_pairs(orders: list[tuple[bool, str, str]]) -> None:
    suppressed, model = Suppressed(), set()
    for lifts, address_hash, scope in orders:
        if lifts:
            suppressed.lift(address_hash, scope)
            model.discard((address_hash, scope))
        else:
            suppressed.add(address_hash, scope, reason="manual")
            model.add((address_hash, scope))

    assert len(suppressed) == len(model)
    for address_hash, scope in model:
        assert suppressed.reason(address_hash, (scope,), now=1) == "manual"


def test_a_question_about_the_past_is_answered_as_then() -> None:
    suppressed = Suppressed()
    suppressed.add(ANN, "platform", reason="invalid_recipient", since=100)
    suppressed.add(ANN, "platform", reason="trap", since=200)

    assert suppressed.reason(ANN, SCOPES, now=99) is None
    assert suppressed.reason(ANN, SCOPES, now=100) == "trap"


def test_lifted_and_suppressed_again_counts_from_then() -> None:
    suppressed = Suppressed()
    suppressed.add(ANN, "platform", reason="manual", since=100)
    suppressed.lift(ANN, "platform")
    suppressed.add(ANN, "platform", reason="manual", since=300)

    assert suppressed.reason(ANN, SCOPES, now=200) is None


def test_a_text_that_is_no_hash_is_suppressed_nowhere() -> None:
    suppressed = Suppressed()
    suppressed.add(ANN, "platform", reason="manual")

    assert suppressed.reason("ann@example.com", SCOPES, now=1) is None


def test_an_empty_text_is_suppressed_nowhere_though_the_sieve_lets_it_pass() -> None:
    suppressed = Suppressed()
    suppressed.add(ANN, "platform", reason="manual")
    suppressed._all.add("")

    assert suppressed.may_know("")
    assert suppressed.reason("", SCOPES, now=1) is None


def test_as_many_reasons_as_there_are_people_still_suppress() -> None:
    suppressed = Suppressed()
    for number in range(70_000):
        suppressed.add(f"{number:064x}"[::-1], "platform", reason=f"because of {number}")

    assert suppressed.reason(f"{1:064x}"[::-1], SCOPES, now=1) == "because of 1"
    assert suppressed.reason(f"{69_999:064x}"[::-1], SCOPES, now=1) == "other"


def test_fifty_octets_are_enough_for_each() -> None:
    suppressed, chance = Suppressed(), random.Random(1)
    for _ in range(100_000):
        suppressed.add(chance.randbytes(16).hex(), "platform", reason="hard_bounce", since=1_764_000_000_000)

    assert len(suppressed) == 100_000
    assert suppressed.bytes_used() < 5_000_000 + 4_194_304


@given(ORDERS)
def test_the_sieve_hides_nobody_who_is_suppressed(orders: list[tuple[bool, str, str]]) -> None:
    suppressed = Suppressed()
    for lifts, address_hash, scope in orders:
        if lifts:
            suppressed.lift(address_hash, scope)
        else:
            suppressed.add(address_hash, scope, reason="hard_bounce", until=5)
            assert address_hash in suppressed.ending
        assert all(suppressed.may_know(one) for _, one, _ in orders if suppressed.past(one, SCOPES))


def test_only_what_has_an_end_is_worth_a_look_back() -> None:
    suppressed, heard = Suppressed(), list[str]()
    suppressed.on_domain = heard.append
    suppressed.add(ANN, "platform", reason="invalid_recipient")
    suppressed.add(BOB, "platform", reason="bad_domain", until=5)
    suppressed.add(ANN, "platform", reason="manual", until=5)
    assert suppressed.ending.is_empty
    assert heard == [BOB]

    suppressed.add(ANN, "platform", reason="invalid_recipient", until=5)
    assert suppressed.ending.passing([BOB, ANN]) == [1]


def test_what_is_over_is_remembered() -> None:
    suppressed = Suppressed()
    suppressed.add(ANN, "platform", reason="invalid_recipient", since=100, until=200)
    suppressed.add(ANN, "tenant:shop", reason="complaint", since=150)

    assert suppressed.past(ANN, SCOPES) == [("invalid_recipient", 100, 200), ("complaint", 150, None)]
    assert suppressed.past(ANN, ("platform",)) == [("invalid_recipient", 100, 200)]
    assert suppressed.past(BOB, SCOPES) == suppressed.past("ann@example.com", SCOPES) == []


def test_one_whose_time_was_over_begins_anew() -> None:
    suppressed = Suppressed()
    suppressed.add(ANN, "platform", reason="invalid_recipient", since=100, until=200)
    suppressed.add(ANN, "platform", reason="invalid_recipient", since=150, until=300)
    assert suppressed.past(ANN, SCOPES) == [("invalid_recipient", 100, 300)]

    suppressed.add(ANN, "platform", reason="invalid_recipient", since=400)
    assert suppressed.past(ANN, SCOPES) == [("invalid_recipient", 400, None)]
