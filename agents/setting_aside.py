"""What agents do with an event that they cannot work on: a dead letter with its raw bytes, a count, and on they go."""

from agents.ports import Message, Publish, now_ms
from schemas.codec import Malformed
from schemas.topics import DEAD_LETTERS
from streams.dead_letters import AGENT_FAILED, of_message
from streams.metrics import Metrics


class Aside:
    """Sets records aside."""

    def __init__(self, outlet: Publish, metrics: Metrics) -> None:
        self._outlet = outlet
        self._metrics = metrics

    async def malformed(self, message: Message, malformed: Malformed) -> None:
        """Set aside what cannot be read."""
        await self.put(message, malformed.reason, malformed.explain)

    async def failed(self, message: Message, agent: str, error: Exception) -> None:
        """Set aside what makes our own code fail; the log has the traceback, the dead letter the type."""
        await self.put(message, AGENT_FAILED, f"{type(error).__name__} in {agent}; the log has the traceback")

    async def put(self, message: Message, reason: str, explain: str) -> None:
        """Set a record aside for a reason."""
        letter = of_message(message, reason=reason, explain=explain, now=now_ms())
        await self._outlet.publish(DEAD_LETTERS, letter, key=message.topic)
        self._metrics.dead_letters.labels(message.topic, reason).inc()
