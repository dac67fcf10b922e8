"""What can be done at once is done at once; everything else is a race as before."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from mode import Service
from mode.services import WaitResults

from streams.runtime.first_step import FirstStep


class Plain(Service):
    """As it is in mode."""


class Quick(FirstStep):
    """As it is here."""


@pytest.fixture(params=[Plain, Quick])
async def service(request: pytest.FixtureRequest) -> AsyncIterator[Service]:
    one: Service = request.param()
    async with one:
        yield one


async def at_once(answer: Any = None) -> Any:
    return answer


async def raises() -> None:
    raise LookupError("no such partition")


async def twice(first: asyncio.Event, second: asyncio.Event) -> str:
    await first.wait()
    try:
        await asyncio.wait_for(second.wait(), 30)
    except asyncio.CancelledError:
        second.set()
        raise
    return "both"


async def test_what_needs_no_waiting_wins(service: Service) -> None:
    won = await service.wait_first(at_once("won"), asyncio.Event().wait())
    assert (won.results, won.stopped) == (["won"], False)


async def test_what_goes_wrong_at_once_is_raised(service: Service) -> None:
    with pytest.raises(LookupError):
        await service.wait_first(raises(), asyncio.Event().wait())


async def test_what_has_to_wait_goes_on_where_it_waits(service: Service) -> None:
    first, second = asyncio.Event(), asyncio.Event()
    racing = asyncio.create_task(service.wait_first(twice(first, second), asyncio.Event().wait()))
    for event in (first, second):
        await asyncio.sleep(0)
        event.set()
    assert (await racing).results == ["both"]


async def test_what_waits_is_ended_when_another_wins(service: Service) -> None:
    first, second, other = asyncio.Event(), asyncio.Event(), asyncio.Event()
    racing = asyncio.create_task(service.wait_first(twice(first, second), other.wait()))
    await asyncio.sleep(0)
    first.set()
    for _ in range(3):
        await asyncio.sleep(0)
    other.set()
    won: WaitResults = await racing
    async with asyncio.timeout(10):
        await second.wait()  # it was told
    assert won.results == [True]


async def test_the_end_of_the_service_ends_the_race(service: Service) -> None:
    racing = asyncio.create_task(service.wait_first(asyncio.Event().wait(), asyncio.Event().wait()))
    await asyncio.sleep(0)
    await service.stop()
    assert (await racing).stopped


async def test_what_needs_no_waiting_makes_no_task() -> None:
    async with Quick() as one:
        before = asyncio.all_tasks()
        tasks: set[asyncio.Task[Any]] = set()

        async def looks() -> None:
            tasks.update(asyncio.all_tasks() - before)

        await one.wait_first(looks(), asyncio.Event().wait())
        assert tasks == set()
