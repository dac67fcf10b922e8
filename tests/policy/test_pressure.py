"""How much a provider can be asked for, after what it has said."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.pressure import GROW_S, SETTLE_S, Limits, Pressure, Trouble
from policy.shaping import Shape, Shaping

GOOGLE = Shaping().of("google")
YAHOO = Shaping().of("yahoo")
MICROSOFT = Shaping().of("microsoft")

troubles = st.builds(
    Trouble,
    category=st.sampled_from(
        [
            "too_many_connections", "session_limit", "rate_limited_ip", "reputation_ip", "reputation_ip_hard",
            "blocklisted_ip", "spam_content", "transient", "greylisted", "invalid_recipient", "namespace_mining",
        ]
    ),
    code=st.sampled_from([421, 450, 550]),
    text=st.sampled_from(["", "[tss04]", "[ts02]", "rl0000", "[hcm1]"]),
)  # fmt: skip
shapes = st.sampled_from([Shaping().route, Shaping().of("other"), *Shaping().named.values()])
histories = st.lists(st.tuples(st.floats(0, 5000), troubles, st.integers(1, 2000)), max_size=40)


def trouble(category: str, *, code: int = 421, text: str = "") -> Trouble:
    return Trouble(category=category, code=code, text=text)


def after(shape: Shape, *met: tuple[float, Trouble], in_use: int = 100) -> tuple[Pressure, str | None]:
    pressure, said = Pressure(), None
    for now, one in met:
        pressure, change = pressure.after(one, shape, now, in_use=in_use)
        said = change.sentence if change is not None else said
    return pressure, said


def replayed(shape: Shape, history: list[tuple[float, Trouble, int]]) -> tuple[Pressure, float]:
    pressure, now = Pressure(), 0.0
    for pause, one, in_use in history:
        now += pause
        pressure, _ = pressure.after(one, shape, now, in_use=in_use)
    return pressure, now


@given(shape=shapes, history=histories, later=st.floats(0, 100_000))
def test_limits_are_never_above_the_shape_and_never_below_one(
    shape: Shape, history: list[tuple[float, Trouble, int]], later: float
) -> None:
    pressure, now = replayed(shape, history)
    limits = pressure.limits(shape, now + later)
    assert 1 <= limits.connections <= shape.connections
    assert 1 <= limits.messages <= shape.messages
    assert limits.per_second >= 0
    if shape.per_second > 0:
        assert 0 < limits.per_second <= shape.per_second


@given(shape=shapes, history=histories)
def test_time_without_trouble_gives_everything_back(shape: Shape, history: list[tuple[float, Trouble, int]]) -> None:
    pressure, now = replayed(shape, history)
    limits = pressure.limits(shape, now + 2 * 7 * 86_400)
    assert limits == Limits(shape.connections, shape.messages, shape.per_second)


@given(shape=shapes, history=histories, steps=st.lists(st.floats(0.1, 3600), max_size=20))
def test_nothing_changes_by_itself_before_the_time_that_is_told(
    shape: Shape, history: list[tuple[float, Trouble, int]], steps: list[float]
) -> None:
    pressure, now = replayed(shape, history)
    limits = pressure.limits(shape, now)
    for step in steps:
        now += step
        if now < limits.until:
            assert pressure.limits(shape, now) == limits
        limits = pressure.limits(shape, now)


@given(shape=shapes, history=histories)
def test_trouble_never_gives_more(shape: Shape, history: list[tuple[float, Trouble, int]]) -> None:
    pressure, now = Pressure(), 0.0
    for pause, one, in_use in history:
        now += pause
        before = pressure.limits(shape, now)
        pressure, _ = pressure.after(one, shape, now, in_use=in_use)
        limits = pressure.limits(shape, now)
        assert limits.connections <= before.connections
        assert limits.suspended_until >= before.suspended_until


def test_connections_are_halved_once_for_all_that_hear_it_and_come_back_one_by_one() -> None:
    busy = trouble("transient")
    pressure, _ = after(YAHOO, *((at / 10, busy) for at in range(10)), in_use=8)
    widths = [pressure.limits(YAHOO, GROW_S * steps).connections for steps in (0.1, 1, 2, 3, 100)]
    assert widths == [4, 5, 6, 7, 10]
    again, _ = pressure.after(busy, YAHOO, SETTLE_S, in_use=4)
    assert again.limits(YAHOO, SETTLE_S).connections == 2


@pytest.mark.parametrize(
    ("said", "is_too_much"),
    [
        (trouble("transient"), True),
        (trouble("too_many_connections", code=451), True),
        (trouble("rate_limited_ip", code=450), True),
        (trouble("session_limit"), False),
        (trouble("transient", code=451), False),
        (trouble("greylisted", code=450), False),
        (trouble("mailbox_full", code=452), False),
        (trouble("invalid_recipient", code=550), False),
        (trouble("spam_content", code=550), False),
    ],
)
def test_only_a_busy_provider_gets_fewer_connections(said: Trouble, is_too_much: bool) -> None:
    assert said.is_too_much == is_too_much


def test_google_that_finds_us_too_fast_twice_gets_nothing_for_ten_minutes_and_then_little() -> None:
    fast = trouble("rate_limited_ip")
    once, _ = after(GOOGLE, (0, fast))
    assert once.limits(GOOGLE, 0).suspended_until == 0
    twice, said = after(GOOGLE, (0, fast), (60, fast))
    assert said == (
        "suspended for 10 min, then at most 1 connection and at most 10 messages per minute for 30 min: "
        "2 replies 'rate_limited_ip' within an hour"
    )
    assert (twice.limits(GOOGLE, 61).suspended_until, twice.limits(GOOGLE, 61).why) == (660, "rate_limited_ip")
    assert twice.limits(GOOGLE, 700) == Limits(1, 50, 10 / 60, why="rate_limited_ip", until=2460)
    assert twice.limits(GOOGLE, 2460).per_second == 0


def test_replies_count_only_within_an_hour() -> None:
    fast = trouble("rate_limited_ip")
    pressure, said = after(GOOGLE, (0, fast), (3601, fast))
    assert said is None
    assert pressure.limits(GOOGLE, 3601).suspended_until == 0


def test_replies_to_what_was_under_way_do_not_make_a_suspension_longer() -> None:
    fast = trouble("rate_limited_ip")
    pressure, _ = after(GOOGLE, (0, fast), (1, fast), (2, fast), (3, fast), (4, fast))
    assert pressure.limits(GOOGLE, 5).suspended_until == 601


@pytest.mark.parametrize(
    ("shape", "said", "times", "suspended_s"),
    [
        (YAHOO, trouble("reputation_ip", text="4.7.0 [tss04] messages from 192.0.2.7"), 2, 7200),
        (YAHOO, trouble("reputation_ip", text="4.7.0 [tss05]"), 2, 14400),
        (YAHOO, trouble("blocklisted_ip", code=553), 5, 7200),
        (MICROSOFT, trouble("rate_limited_ip"), 3, 1800),
        (MICROSOFT, trouble("blocklisted_ip", code=550), 5, 7200),
        (Shaping().of("apple"), trouble("reputation_ip", text="[hcm1]"), 3, 900),
        (Shaping().of("mimecast"), trouble("greylisted", text="internal resources temporarily unavailable"), 3, 1800),
        (Shaping().of("qq"), trouble("rate_limited_ip", code=550), 5, 3600),
    ],
)
def test_when_a_provider_is_suspended(shape: Shape, said: Trouble, times: int, suspended_s: int) -> None:
    before, _ = after(shape, *((0.0, said),) * (times - 1))
    assert before.limits(shape, 0).suspended_until == 0
    then, _ = after(shape, *((0.0, said),) * times)
    assert then.limits(shape, 0).suspended_until == suspended_s


def test_fewer_connections_without_a_suspension() -> None:
    pressure, said = after(MICROSOFT, (0, trouble("too_many_connections")), (9, trouble("too_many_connections")))
    assert said == "at most 1 connection for 1 h: 2 replies 'too_many_connections' within an hour"
    assert (pressure.limits(MICROSOFT, 10).connections, pressure.limits(MICROSOFT, 10).suspended_until) == (1, 0)
    assert pressure.limits(MICROSOFT, 3700).connections == 5
