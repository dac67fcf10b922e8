"""What decisions would have done to the mail: of each message its sender's state when it was sent.

A campaign that is paused, isolated or retired sends nothing: its bad messages would have been saved (bounced hard,
complained about, in a trap), its good ones (accepted, and nothing bad came back) would have been held.  While it is
throttled its mail goes out, but slowly.  Likewise its mail to one provider that is judged by itself.  A message counts
by the time at which it was sent, and once, however much comes back.
"""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field

from cli.backtest_counting import sent_at
from cli.backtest_records import Accepted, Bounced, Result
from policy.replies import category_of
from policy.transitions import RUNGS, SENDS
from schemas.feedback import FeedbackEvent
from schemas.reputation import State

BAD = ("hard_bounce", "complaint", "trap_hit")


class _Course:
    """The states of a campaign, or of its mail to one provider, and since when each holds."""

    __slots__ = ("since", "states")

    def __init__(self) -> None:
        self.since: list[int] = []
        self.states: list[State] = []

    def at(self, at: int) -> State:
        place = bisect_right(self.since, at)
        return self.states[place - 1] if place else "healthy"


@dataclass(slots=True)
class Holds:
    """The messages of one campaign that were sent while it would have been stopped, or throttled."""

    bad: dict[str, int] = field(default_factory=lambda: dict.fromkeys(BAD, 0))  # by what was wrong; may overlap
    slowed_messages: int = 0
    _accepted: int = 0
    _nameless: int = 0  # signals that do not say which message they are about
    _first: int | None = None
    _whole: _Course = field(default_factory=_Course)
    _providers: dict[str, _Course] = field(default_factory=dict)
    _bounced: set[str] = field(default_factory=set, repr=False)
    _turned_bad: set[str] = field(default_factory=set, repr=False)  # by signals, after they had been accepted

    @property
    def concerns(self) -> bool:
        """Was there a decision?  Before the first nothing is held."""
        return self._first is not None

    def enter(self, state: State, at: int, provider: str | None = None) -> None:
        """From now on the campaign, or its mail to one provider, would have been in this state."""
        course = self._whole if provider is None else self._providers.setdefault(provider, _Course())
        course.since.append(at)
        course.states.append(state)
        if self._first is None:
            self._first = at

    def results(self, results: Iterable[Result]) -> None:
        """Look at results that were counted just now."""
        first = self._first or 0
        for result in results:
            is_accepted = type(result) is Accepted
            if result.at < first or not (is_accepted or type(result) is Bounced):
                continue
            state = self._at(result.at, result.provider)
            if state == "throttled":
                self.slowed_messages += 1
            elif state in SENDS:
                continue
            elif is_accepted:
                self._accepted += 1
            elif isinstance(result, Bounced) and category_of(result.class_).counts == "hard_bounce":
                self.bad["hard_bounce"] += 1
                if result.message_id in self._turned_bad:  # its signal came first: it never was accepted
                    self._turned_bad.discard(result.message_id)
                self._bounced.add(result.message_id)

    def feedback(self, event: FeedbackEvent) -> None:
        """Look at a signal that was counted just now."""
        if event.kind not in self.bad or not self.is_held(sent_at(event), event.provider):
            return
        self.bad[event.kind] += 1
        if event.message_id is None:
            self._nameless += 1
        elif event.message_id not in self._bounced:
            self._turned_bad.add(event.message_id)

    @property
    def bad_messages(self) -> int:
        """Messages that bounced, or of which something bad came back."""
        return len(self._bounced) + len(self._turned_bad) + self._nameless

    @property
    def good_messages(self) -> int:
        """Messages that were accepted, and nothing bad came back."""
        return max(0, self._accepted - len(self._turned_bad) - self._nameless)

    def is_held(self, at: int, provider: str | None) -> bool:
        """Would a message that was sent then, to this provider, have been held?"""
        return self._at(at, provider) not in SENDS

    def _at(self, at: int, provider: str | None) -> State:
        """The stricter state of the two."""
        state = self._whole.at(at)
        own = self._providers.get(provider or "other")
        return state if own is None else max(state, own.at(at), key=RUNGS.__getitem__)
