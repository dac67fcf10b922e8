from hypothesis import given
from hypothesis import strategies as st

from policy.hashed import HashedNumbers

KEYS = st.integers(1, 40).map(lambda number: number * 64) | st.integers(1, 2**64 - 1)  # many of one shard
ORDERS = st.lists(st.tuples(KEYS, st.none() | st.integers(0, 2**64 - 1)), max_size=200)


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
