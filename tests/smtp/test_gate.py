import pytest

from smtp.gate import Gate, Limits, client_of


@pytest.mark.parametrize(
    ("peer", "client"),
    [
        (("192.0.2.1", 25), "192.0.2.1"),
        (("::ffff:192.0.2.1", 25, 0, 0), "192.0.2.1"),
        (("2001:db8:1:2:3::4", 25, 0, 0), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 25, 0, 3), "fe80::/64"),
        ("/run/socket", ""),
        (None, ""),
    ],
)
def test_a_client_is_one_ipv4_address_or_one_ipv6_network(peer: object, client: str) -> None:
    assert client_of(peer) == client


def test_connections_are_bounded_by_client_and_in_all() -> None:
    gate = Gate(Limits(connections=3, connections_per_client=2))

    assert [gate.enter(one) for one in "aaabb"] == [True, True, False, True, False]
    gate.leave("a")
    assert gate.enter("b")


def test_messages_of_a_client_are_bounded_and_the_allowance_comes_back() -> None:
    gate = Gate(Limits(messages_per_minute=2))

    assert [gate.message("a", 0) for _ in range(3)] == [True, True, False]
    assert gate.message("b", 0)
    assert not gate.message("a", 29_000)
    assert gate.message("a", 59_500)
    assert [gate.message("a", 1_000_000) for _ in range(3)] == [True, True, False]


def test_a_clock_that_goes_back_gives_nothing_and_takes_nothing() -> None:
    gate = Gate(Limits(messages_per_minute=2))

    assert gate.message("a", 1_000_000)
    assert gate.message("a", 0)
    assert not gate.message("a", 0)
