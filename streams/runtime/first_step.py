"""Races that are won before they begin.

Faust hands each event to its agent in a race with the end of the flow, and makes a task for each of four contestants:
the event, the flow, and the two ways in which a service ends.  The event takes its first step in any case before
anybody looks at the others, and nearly always that is its last, since nothing is in its way.
"""

import asyncio
import functools
import types
from collections.abc import Coroutine, Generator, Iterable
from typing import Any

from mode import Service
from mode.services import WaitResults


class FirstStep(Service):
    """A service that makes tasks of what it waits for only when there is something to wait for."""

    async def wait_first(self, *coros: Any, timeout: Any = None) -> WaitResults:  # Any: as in the base class
        """Wait for the first of some to end, or for the end of the service; see the module's docstring."""
        first, *others = coros
        if timeout is not None or not asyncio.iscoroutine(first):
            return await super().wait_first(*coros, timeout=timeout)
        try:
            waits_for = first.send(None)
        except StopIteration as done:
            _close(others)
            return WaitResults([first], [done.value], stopped=False)
        except BaseException:
            _close(others)
            raise
        return await super().wait_first(_rest(first, waits_for), *others)


def _close(coros: Iterable[Any]) -> None:  # Any: of what a service can wait for, only coroutines must be closed
    """Nobody will wait for these."""
    for one in coros:
        if asyncio.iscoroutine(one):
            one.close()


async def _rest(begun: Coroutine[Any, Any, Any], waits_for: Any) -> Any:  # Any: whatever it answers
    """What is left of a coroutine that has taken its first step, and waits for something now."""
    return await _steps(begun, waits_for)


@types.coroutine
def _steps(begun: Coroutine[Any, Any, Any], waits_for: Any) -> Generator[Any, Any, Any]:
    while True:
        try:
            answer = yield waits_for
        except BaseException as error:  # noqa: BLE001 - whatever it is, the coroutine is to know of it
            step = functools.partial(begun.throw, error)
        else:
            step = functools.partial(begun.send, answer)
        try:
            waits_for = step()
        except StopIteration as done:
            return done.value
