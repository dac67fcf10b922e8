"""The course of a campaign's verdicts, thinned out as it grows, for the plot."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from schemas.reputation import Verdict

MOST = 2_000  # points; then every second one goes


@dataclass(slots=True)
class Trace:
    """Points in time and what the verdicts were; of points that lie close, the one with the most evidence stays."""

    points: list[tuple[int, Mapping[str, Verdict]]] = field(default_factory=list)
    _apart_ms: int = 1

    def add(self, at: int, verdicts: Mapping[str, Verdict]) -> None:
        """Note the verdicts of a moment."""
        points = self.points
        if points and at // self._apart_ms == points[-1][0] // self._apart_ms:
            if _most(verdicts) >= _most(points[-1][1]):
                points[-1] = (at, verdicts)
            return
        points.append((at, verdicts))
        if len(points) > MOST:
            self._thin()

    def _thin(self) -> None:
        span = self.points[-1][0] - self.points[0][0]
        self._apart_ms = max(2 * self._apart_ms, 2 * span // MOST)
        held, self.points = self.points, []
        for at, verdicts in held:
            self.add(at, verdicts)


def _most(verdicts: Mapping[str, Verdict]) -> float:
    return max((one.evidence for one in verdicts.values()), default=0.0)
