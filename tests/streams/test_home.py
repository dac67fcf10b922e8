"""Keys belong to the partitions that all of Kafka's clients in Java, and aiokafka, find for them."""

from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given
from hypothesis import strategies as st

from streams.home import home, partition_of

partitions = st.integers(1, 64)


@given(key=st.text(max_size=40), count=partitions)
def test_producer_and_table_and_aiokafka_agree_about_the_partition_of_a_key(key: str, count: int) -> None:
    raw, numbers = key.encode(), list(range(count))
    assert home(key, count) == partition_of(raw, numbers, numbers) == DefaultPartitioner()(raw, numbers, numbers)


@given(count=partitions, available=st.integers(1, 64))
def test_a_record_without_a_key_goes_where_somebody_takes_it(count: int, available: int) -> None:
    numbers = list(range(count))
    leaders = numbers[:available]
    assert partition_of(None, numbers, leaders) in leaders
