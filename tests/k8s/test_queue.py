"""What waits: each once, urgent first, never two at the same, later when told so."""

import asyncio

import pytest

from k8s.queue import WorkQueue


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(clock: Clock) -> WorkQueue:
    return WorkQueue(clock)


async def taken(queue: WorkQueue) -> list[str]:
    """Everything that can be taken now."""
    found = []
    while len(queue):
        found.append(await asyncio.wait_for(queue.get(), 1))
    return found


async def test_in_order_of_arrival_and_each_once(queue: WorkQueue) -> None:
    for name in ("a", "b", "a", "c", "b"):
        queue.add(name)

    assert await taken(queue) == ["a", "b", "c"]


async def test_urgent_ones_go_first(queue: WorkQueue) -> None:
    queue.add("a")
    queue.add("b")
    queue.add("c", urgent=True)
    queue.add("b", urgent=True)
    queue.add("c")

    assert await taken(queue) == ["c", "b", "a"]


async def test_what_is_asked_for_during_the_work_comes_after_it(queue: WorkQueue) -> None:
    queue.add("a")
    assert await queue.get() == "a"

    queue.add("a")
    queue.add("a", urgent=True)
    queue.add("b")
    assert await queue.get() == "b"
    queue.done("a")

    assert await queue.get() == "a"
    queue.done("a")
    assert len(queue) == 0


async def test_never_two_at_the_same(queue: WorkQueue) -> None:
    queue.add("a")
    await queue.get()
    queue.add("a")

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.get(), 0.01)


async def test_later_means_later(queue: WorkQueue, clock: Clock) -> None:
    queue.add_later("a", 5)
    queue.add("b")
    assert await queue.get() == "b"
    assert queue.delayed == 1

    clock.now += 5

    assert await asyncio.wait_for(queue.get(), 1) == "a"
    assert queue.delayed == 0


async def test_asking_again_does_not_wait_for_the_delay(queue: WorkQueue, clock: Clock) -> None:
    queue.add_later("a", 5)
    queue.add("a")
    assert await queue.get() == "a"
    queue.done("a")

    clock.now += 10

    with pytest.raises(TimeoutError):  # and the delay is used up
        await asyncio.wait_for(queue.get(), 0.01)


async def test_a_delay_does_not_hide_what_was_asked_for_now(queue: WorkQueue) -> None:
    queue.add("a")
    queue.add_later("a", 500)

    assert await queue.get() == "a"


async def test_of_two_delays_the_last_counts(queue: WorkQueue, clock: Clock) -> None:
    queue.add_later("a", 1)
    queue.add_later("a", 50)
    clock.now += 2
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.get(), 0.01)

    clock.now += 50
    assert await queue.get() == "a"


async def test_a_delayed_one_can_be_urgent(queue: WorkQueue, clock: Clock) -> None:
    queue.add_later("a", 1, urgent=True)
    queue.add("b")
    clock.now += 1

    assert await queue.get() == "a"


async def test_a_waiting_worker_is_woken(queue: WorkQueue) -> None:
    worker = asyncio.create_task(queue.get())
    await asyncio.sleep(0)

    queue.add("a")

    assert await asyncio.wait_for(worker, 1) == "a"


async def test_a_waiting_worker_is_woken_when_the_time_has_come() -> None:
    queue = WorkQueue(asyncio.get_running_loop().time)
    queue.add_later("slow", 30)
    worker = asyncio.create_task(queue.get())
    await asyncio.sleep(0)

    queue.add_later("soon", 0.01)

    assert await asyncio.wait_for(worker, 5) == "soon"


async def test_many_workers_share_and_miss_nothing() -> None:
    queue = WorkQueue(asyncio.get_running_loop().time)
    seen: list[str] = []
    names = [f"c{number}" for number in range(200)]
    all_seen = asyncio.Event()

    async def work() -> None:
        while True:
            name = await queue.get()
            await asyncio.sleep(0)
            seen.append(name)
            queue.done(name)
            if len(seen) == len(names):
                all_seen.set()

    workers = [asyncio.create_task(work()) for _ in range(5)]
    for name in names:
        queue.add(name)
        await asyncio.sleep(0)
    await asyncio.wait_for(all_seen.wait(), 5)
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)

    assert sorted(seen) == sorted(names)
