"""What decisions would have done to the mail: of each message its sender's state when it was sent.

A campaign that is paused, isolated or retired sends nothing: its bad messages would have been saved (bounced hard,
complained about, in a trap), its good ones (accepted, and nothing bad came back) would have been held.  While it is
throttled its mail goes out, but slowly.  A message counts by the time at which it was sent; each counts once, however
much comes back.
"""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field

from cli.backtest_records import Result
from policy.replies import category_of
from policy.transitions import SENDS
from schemas.feedback import FeedbackEvent
from schemas.reputation import State

BAD = ("hard_bounce", "complaint", "trap_hit")


@dataclass(slots=True)
class Holds:
    """The messages of one campaign that were sent while it would have been stopped, or throttled."""

    bad: dict[str, int] = field(default_factory=lambda: dict.fromkeys(BAD, 0))  # by what was wrong; may overlap
    bad_messages: int = 0
    good_messages: int = 0
    slowed_messages: int = 0
    _since: list[int] = field(default_factory=list)
    _states: list[State] = field(default_factory=list)
    _known_bad: set[str] = field(default_factory=set, repr=False)

    @property
    def concerns(self) -> bool:
        """Was there a decision?  Before the first nothing is held."""
        return bool(self._since)

    def enter(self, state: State, at: int) -> None:
        """From now on the campaign would have been in this state."""
        self._since.append(at)
        self._states.append(state)

    def results(self, results: Iterable[Result]) -> None:
        """Look at results that were counted just now."""
        first = self._since[0]
        for result in results:
            if result.at < first or result.outcome not in ("accepted", "bounced"):
                continue
            state = self._at(result.at)
            if state == "throttled":
                self.slowed_messages += 1
            elif state is None or state in SENDS:
                continue
            elif result.outcome == "accepted":
                if result.message_id not in self._known_bad:
                    self.good_messages += 1
            elif category_of(result.class_).counts == "hard_bounce":
                self.bad["hard_bounce"] += 1
                self._is_bad(result.message_id)

    def feedback(self, event: FeedbackEvent) -> None:
        """Look at a signal that was counted just now."""
        if event.kind not in self.bad:
            return
        state = self._at(event.at if event.sent_at is None else min(event.sent_at, event.at))
        if state is None or state in SENDS:
            return
        self.bad[event.kind] += 1
        if self._is_bad(event.message_id) and self.good_messages:
            self.good_messages -= 1  # it had been accepted, and thus taken for good

    def _is_bad(self, message_id: str | None) -> bool:
        """Note a bad message; answers whether it was not known to be one."""
        if message_id is not None:
            if message_id in self._known_bad:
                return False
            self._known_bad.add(message_id)
        self.bad_messages += 1
        return True

    def _at(self, sent_at: int) -> State | None:
        place = bisect_right(self._since, sent_at)
        return self._states[place - 1] if place else None
