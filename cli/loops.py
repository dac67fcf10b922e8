"""How roles that are no stream processors run: to their end, on the loop that all processes run on."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from streams.loops import loop_factory


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run to the end, as ``asyncio.run`` does."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(work)
