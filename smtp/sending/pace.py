"""How fast: a token bucket whose rate may change with every question."""

from dataclasses import dataclass

BURST_S = 0.1  # what may be caught up after a pause


@dataclass(slots=True)
class Bucket:
    """Messages per second, spread evenly; unused time is forgotten after a tenth of a second."""

    _tokens: float = 1.0
    _at_s: float = 0.0

    def take(self, *, per_second: float, now_s: float) -> float:
        """Take one message's turn: 0 when it may go now, else the seconds after which to ask again."""
        if per_second <= 0:
            return 0.0
        room = max(1.0, per_second * BURST_S)
        self._tokens = min(room, self._tokens + (now_s - self._at_s) * per_second)
        self._at_s = now_s
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / per_second
