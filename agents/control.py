"""Control: wakes the controller for each record of ``mail.control``.

It decides nothing and waits for nothing: what counts is the newest Control that the reconciler knows, and what is
not done when this process dies is found by the next one, which reads all of them.
"""

from typing import Any, Protocol

import faust
import structlog
from faust.types import AgentT, StreamT

from agents.ports import Message
from agents.setting_aside import Aside
from schemas.codec import Malformed, decode
from schemas.reputation import Control
from schemas.topics import CONTROL
from streams.runtime import SafeStream

log = structlog.get_logger()


class Reconciles(Protocol):
    """What is woken: the reconciler."""

    def heard(self, control: Control) -> None:
        """A Control came by."""

    def forgotten(self, campaign: str) -> None:
        """The Control of a campaign was deleted."""


class Wake:
    """What is done with one record."""

    def __init__(self, reconciler: Reconciles, aside: Aside) -> None:
        self._reconciler = reconciler
        self._aside = aside

    async def handle(self, message: Message) -> None:
        """Wake the campaign of this record; what cannot be read is set aside."""
        if message.value is None:
            self._reconciler.forgotten((message.key or b"").decode("utf-8", "replace"))
            return
        match decode(Control, message.value):
            case Malformed() as malformed:
                log.warning("control cannot be read", partition=message.partition, offset=message.offset)
                await self._aside.malformed(message, malformed)
            case control:
                self._reconciler.heard(control)


def attach_control(app: faust.App, *, partitions: int, reconciler: Reconciles, aside: Aside) -> AgentT[Any]:
    """Attach the agent to a controller's app."""
    wake = Wake(reconciler, aside)

    async def control(stream: StreamT[bytes]) -> None:
        assert isinstance(stream, SafeStream), "set by the app"  # noqa: S101 - narrows the type
        async for event in stream.held():
            await wake.handle(event.message)

    return app.agent(app.topic(CONTROL, partitions=partitions), name="control")(control)
