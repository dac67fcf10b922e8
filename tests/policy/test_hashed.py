import random

from hypothesis import given
from hypothesis import strategies as st

from policy.hashed import HashedNumbers, Sieve

KEYS = st.integers(1, 40).map(lambda number: number * 64) | st.integers(1, 2**64 - 1)  # many of one shard
ORDERS = st.lists(st.tuples(KEYS, st.none() | st.integers(0, 2**64 - 1)), max_size=200)


@given(ORDERS)
def test_with_signs_it_behaves_as_a_dictionary_too(orders: list[tuple[int, int | None]]) -> None:
    numbers, model = HashedNumbers(signed=True), dict[int, int]()
    for unsigned, number in orders:
        key = unsigned - 2**63 or 1
        if number is None:
            numbers.drop(key)
            model.pop(key, None)
        else:
            numbers.put(key, number - 2**63)
            model[key] = number - 2**63

    assert dict(numbers) == model
    assert all(numbers.get(unsigned - 2**63 or 1) == model.get(unsigned - 2**63 or 1) for unsigned, _ in orders)


@given(ORDERS)
def test_it_behaves_as_a_dictionary(orders: list[tuple[int, int | None]]) -> None:
    numbers, model = HashedNumbers(), dict[int, int]()
    for key, number in orders:
        if number is None:
            numbers.drop(key)
            model.pop(key, None)
        else:
            numbers.put(key, number)
            model[key] = number

    assert dict(numbers) == model
    assert len(numbers) == len(model)
    assert all(numbers.get(key) == model.get(key) for key, _ in orders)


TEXTS = st.lists(st.text(alphabet="0123456789abcdef", min_size=1, max_size=20))


@given(TEXTS, TEXTS)
def test_a_sieve_lets_pass_whatever_was_put_in(put: list[str], asked: list[str]) -> None:
    sieve = Sieve()
    for text in put:
        sieve.add(text)
    passing = set(sieve.passing([*put, None, *asked]))

    assert set(range(len(put))) <= passing
    assert len(put) not in passing
    assert all(text in sieve for text in put)
    assert sieve.is_empty is not bool(put)


def test_a_sieve_holds_back_nearly_everything_else() -> None:
    chance = random.Random(1)
    sieve = Sieve()
    others = [chance.randbytes(32).hex() for _ in range(10_000)]
    assert sieve.passing(others) == []
    for _ in range(200_000):
        sieve.add(chance.randbytes(32).hex())

    assert len(sieve.passing(others)) < 200
