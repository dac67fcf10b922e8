"""A wall clock that is set, and what a sender makes of it."""

import asyncio

import pytest

from smtp.sending.clock import BELIEVED_AFTER_MS, SteadyClock
from tests.smtp.sender_contract import Stage
from tests.smtp.servers import Script, scripted, until
from tests.smtp.test_sender import MemoryWorld

START = 1_764_000_000_000
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
JUMPS = {"days ahead": 3 * DAY_MS, "hours ahead": 5 * HOUR_MS, "hours back": -5 * HOUR_MS, "days back": -3 * DAY_MS}


class Times:
    """A machine's two clocks, moved by hand."""

    def __init__(self) -> None:
        self.wall = START
        self.steady = 1_000
        self.clock = SteadyClock(wall_ms=lambda: self.wall, steady_ms=lambda: self.steady)

    def passes(self, ms: int) -> None:
        self.wall += ms
        self.steady += ms

    def advance(self, seconds: float) -> None:
        self.passes(round(seconds * 1000))

    def now(self) -> int:
        return self.clock.now()

    def monotonic(self) -> float:
        return self.clock.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@pytest.mark.parametrize("jump_ms", JUMPS.values(), ids=JUMPS)
def test_a_clock_that_is_set_and_set_right_again_moves_nothing(jump_ms: int) -> None:
    times = Times()
    times.wall += jump_ms
    times.passes(60_000)
    assert times.now() == START + 60_000

    times.wall -= jump_ms
    times.passes(60_000)
    assert times.now() == START + 120_000


@pytest.mark.parametrize("jump_ms", JUMPS.values(), ids=JUMPS)
def test_a_clock_that_stays_where_it_was_set_is_believed(jump_ms: int) -> None:
    times = Times()
    times.wall += jump_ms
    times.now()
    times.passes(BELIEVED_AFTER_MS - 1)
    assert times.now() == START + BELIEVED_AFTER_MS - 1

    times.passes(1)
    assert times.now() == START + jump_ms + BELIEVED_AFTER_MS


def test_a_clock_that_is_slewed_is_followed() -> None:
    times = Times()
    for _ in range(100):
        times.steady += 1_000
        times.wall += 1_500
        times.now()
    assert times.now() == START + 150_000


@pytest.fixture
def stage() -> Stage:
    return Stage(MemoryWorld())


@pytest.mark.parametrize("jump_ms", JUMPS.values(), ids=JUMPS)
async def test_no_message_expires_or_comes_at_the_wrong_time_when_the_clock_jumps(stage: Stage, jump_ms: int) -> None:
    times = Times()
    stage.clock = times  # type: ignore[assignment]  # has what a stage asks of its clock
    stage.control()
    script = Script(rcpt=b"451 4.3.0 later\r\n")
    async with scripted(script) as server:
        await stage.send("ann")
        async with stage.sender(server.endpoint) as running:
            await until(lambda: running.sender._lanes.parked == 1)
            times.wall += jump_ms
            script.rcpt = b"250 ok\r\n"
            await stage.send("bob")
            assert await stage.has_outcomes(1) == {"m-bob": "accepted"}
            times.passes(600_000)
            assert await stage.has_outcomes(2) == {"m-ann": "accepted", "m-bob": "accepted"}
    told = await stage.told()
    assert abs(told["m-bob"][0].at - START) < 60_000
    assert [(result.outcome, result.attempt) for result in told["m-ann"]] == [("deferred", 1), ("accepted", 2)]


async def test_a_clock_that_is_believed_says_of_each_message_that_its_time_is_over(stage: Stage) -> None:
    times = Times()
    stage.clock = times  # type: ignore[assignment]
    stage.control()
    async with scripted(Script(rcpt=b"451 4.3.0 later\r\n")) as server:
        await stage.send("ann")
        async with stage.sender(server.endpoint) as running:
            await until(lambda: running.sender._lanes.parked == 1)
            times.wall += 3 * DAY_MS
            times.now()
            times.passes(BELIEVED_AFTER_MS)
            assert await stage.has_outcomes(1) == {"m-ann": "expired"}
    (*_, last) = (await stage.told())["m-ann"]
    assert (last.class_, last.text) == ("expired", "its time was over before it could be sent")
    assert last.at == START + 3 * DAY_MS + BELIEVED_AFTER_MS
