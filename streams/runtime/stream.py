"""Events that count as done only when the agent says so."""

from collections.abc import AsyncIterator
from typing import Any

import faust
from faust.types import EventT


class SafeStream(faust.Stream[Any]):  # Any: bytes, as they travelled
    """A stream whose events can be held back from commit."""

    async def held(self) -> AsyncIterator[EventT[Any]]:
        """Yield events, each done when the body asks for the next one, and never if the body raises.

        Faust's own iteration acknowledges in a ``finally``, so that an event whose processing failed is lost.
        """
        async for event in self.noack().events():
            yield event
            await self.ack(event)
