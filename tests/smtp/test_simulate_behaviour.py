import pytest

from smtp import simulate
from smtp.simulate.behaviour import BEHAVIOURS, Load, Traffic, behaviour_of, table
from smtp.simulate.texts import _OWN, Kind, code_of, text, wire


@pytest.mark.parametrize(
    ("local_part", "expected"),
    [
        ("unknown-17", "unknown"),
        ("UNKNOWN", "unknown"),
        ("drop-1", "drop"),
        ("dropalways-1", "dropalways"),
        ("ann.unknown", "accept"),
        ("", "accept"),
    ],
)
def test_the_local_part_tells_the_behaviour(local_part: str, expected: str) -> None:
    assert behaviour_of(local_part) == expected


@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=lambda one: one.name)
def test_every_behaviour_stands_in_the_help_table_and_in_the_documentation(behaviour: simulate.Behaviour) -> None:
    assert f"{behaviour.name}…" in table()
    assert f"{behaviour.name}…" in (simulate.__doc__ or "")


@pytest.mark.parametrize("kind", _OWN)
def test_every_line_of_an_answer_carries_the_same_code(kind: Kind) -> None:
    for answer in ("unknown", "disabled", "full", "grey", "block", "content", "listed", "too_fast", "too_many"):
        lines = text(kind, answer, rcpt="u@example.com", ip="192.0.2.1").split("\n")
        assert {(line[:3], line[4:9]) for line in lines} == {(lines[0][:3], lines[0][4:9])}
        assert [line[3] for line in lines] == ["-"] * (len(lines) - 1) + [" "]


def test_replies_go_over_the_wire_with_crlf() -> None:
    assert wire("550-5.1.1 a\n550 5.1.1 b") == b"550-5.1.1 a\r\n550 5.1.1 b\r\n"
    assert code_of("550-5.1.1 a\n550 5.1.1 b") == 550


def test_connections_of_one_address_are_bounded_and_freed() -> None:
    traffic = Traffic(Load(connections=1))

    assert traffic.connect("192.0.2.1")
    assert not traffic.connect("192.0.2.1")
    assert traffic.connect("192.0.2.2")
    traffic.release("192.0.2.1")
    traffic.release("192.0.2.1")
    assert traffic.connect("192.0.2.1")


def test_messages_a_second_are_bounded_and_the_allowance_comes_back() -> None:
    traffic = Traffic(Load(messages_per_s=2))

    assert [traffic.message("192.0.2.1", 1_000) for _ in range(3)] == [True, True, False]
    assert traffic.message("192.0.2.2", 1_000)
    assert [traffic.message("192.0.2.1", 1_500) for _ in range(2)] == [True, False]
    assert [traffic.message("192.0.2.1", 9_000) for _ in range(3)] == [True, True, False]


def test_complaints_list_one_address_and_return_path_domain() -> None:
    traffic = Traffic(Load(complaints=2))

    traffic.complain("192.0.2.1", "bounces.bad.example")
    assert not traffic.is_listed("192.0.2.1", "bounces.bad.example")
    traffic.complain("192.0.2.1", "bounces.bad.example")

    assert traffic.is_listed("192.0.2.1", "bounces.bad.example")
    assert not traffic.is_listed("192.0.2.1", "bounces.good.example")
    assert not traffic.is_listed("192.0.2.2", "bounces.bad.example")


def test_without_bounds_nothing_is_refused() -> None:
    traffic = Traffic(Load())

    assert all(traffic.connect("a") and traffic.message("a", 0) for _ in range(1_000))
