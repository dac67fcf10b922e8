"""Pressure: how much a provider can be asked for now, from what it has said lately.

Three things move the limits, none of them above what ``shaping.toml`` says:

* **Reactions** of the provider's shape: after so many replies of a kind within the hour, a suspension, or fewer
  connections, fewer messages per connection, a rate, for a while.
* **Width**: the connections that a busy provider bears.  Half of those in use when it says 421 or that we are too fast,
  once per ``SETTLE_S`` however many connections hear it; one more for each ``GROW_S`` without trouble.
* **Time**: everything ends by itself, so that no provider is left alone for ever.

A value that makes new values; ``now`` is in seconds on any clock that never goes back.
"""

from dataclasses import dataclass, replace

from policy.replies import category_of
from policy.shaping import WITHIN_S, Reaction, Shape

SETTLE_S = 5.0
GROW_S = 30.0
_FOR_EVER = float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """One reply that was no yes: its category, its code, and its text in lower case."""

    category: str
    code: int
    text: str

    @property
    def is_too_much(self) -> bool:
        """Does it say that the provider is busy, rather than something about one recipient?"""
        if self.category == "session_limit":  # a connection's natural end
            return False
        return self.code == 421 or category_of(self.category).kind == "throttle"


@dataclass(frozen=True, slots=True)
class Limits:
    """What holds now, and until when nothing changes by itself; ``suspended_until`` is 0 when mail may go."""

    connections: int
    messages: int
    per_second: float
    suspended_until: float = 0.0
    why: str = ""
    until: float = _FOR_EVER


@dataclass(frozen=True, slots=True)
class _Measure:
    """A reaction that holds: suspended before ``starts``, limited up to ``ends``."""

    reaction: Reaction
    starts: float
    ends: float
    why: str


@dataclass(frozen=True, slots=True)
class Change:
    """What an operator is told: which reaction was taken, after how many replies of which category."""

    reaction: Reaction
    category: str
    times: int

    @property
    def sentence(self) -> str:
        """What holds from now on, and why."""
        return f"{_told(self.reaction)}: {self.times} replies {self.category!r} within an hour"


@dataclass(frozen=True, slots=True)
class Pressure:
    """What a provider has said lately."""

    narrowed_to: float | None = None
    narrowed_at: float = 0.0
    measures: tuple[_Measure, ...] = ()
    met: tuple[tuple[Reaction, tuple[float, ...]], ...] = ()

    def limits(self, shape: Shape, now: float) -> Limits:
        """What may be asked for now; never more than the shape says, never less than one of each."""
        width, until = self._width(shape, now)
        messages, per_second = shape.messages, shape.per_second
        suspended_until, why = 0.0, ""
        for measure in self.measures:
            if now >= measure.ends:
                continue
            if now < measure.starts:
                until = min(until, measure.starts)
                if measure.starts > suspended_until:
                    suspended_until, why = measure.starts, measure.why
            else:
                until = min(until, measure.ends)
            reaction = measure.reaction
            width = min(width, reaction.connections or width)
            messages = min(messages, reaction.messages or messages)
            if reaction.per_minute is not None:
                rate = reaction.per_minute / 60
                per_second = min(per_second, rate) if per_second > 0 else rate
            why = why or measure.why
        return Limits(max(1, int(width)), max(1, messages), per_second, suspended_until, why, until)

    def after(self, trouble: Trouble, shape: Shape, now: float, *, in_use: int) -> tuple["Pressure", Change | None]:
        """The state after one more reply, and the reaction that was taken, if any; ``in_use`` are connections."""
        after = self._narrowed(shape, now, in_use) if trouble.is_too_much else self
        reaction = next((one for one in shape.reactions if one.fits(trouble.category, trouble.text)), None)
        if reaction is None:
            return after, None
        met = {one: times for one, times in after.met if one in shape.reactions}
        times = (*(at for at in met.get(reaction, ()) if at > now - WITHIN_S), now)[-reaction.times :]
        if len(times) < reaction.times or _is_taken(after, reaction, now):
            met[reaction] = times
            return replace(after, met=tuple(met.items())), None
        met.pop(reaction, None)
        starts = now + (reaction.suspend_s or 0)
        measure = _Measure(reaction, starts, starts + (reaction.for_s or 0), trouble.category)
        kept = tuple(one for one in after.measures if one.ends > now and one.reaction != reaction)
        change = Change(reaction, trouble.category, reaction.times)
        return replace(after, met=tuple(met.items()), measures=(*kept, measure)), change

    def _width(self, shape: Shape, now: float) -> tuple[float, float]:
        if self.narrowed_to is None:
            return float(shape.connections), _FOR_EVER
        steps = max(0, int((now - self.narrowed_at) / GROW_S))
        width = min(float(shape.connections), self.narrowed_to + steps)
        return width, _FOR_EVER if width >= shape.connections else self.narrowed_at + (steps + 1) * GROW_S

    def _narrowed(self, shape: Shape, now: float, in_use: int) -> "Pressure":
        if self.narrowed_to is not None and now - self.narrowed_at < SETTLE_S:
            return self
        width, _ = self._width(shape, now)
        return replace(self, narrowed_to=max(1.0, min(width, float(in_use)) / 2), narrowed_at=now)


def _is_taken(pressure: Pressure, reaction: Reaction, now: float) -> bool:
    """Replies to what was under way when the provider was suspended do not suspend it for longer."""
    return any(one.reaction == reaction and now < one.starts for one in pressure.measures)


def _told(reaction: Reaction) -> str:
    parts = [f"suspended for {_span(reaction.suspend_s)}"] if reaction.suspend_s else []
    limits = [
        f"at most {value:g} {unit}"
        for value, unit in (
            (reaction.connections, "connection" if reaction.connections == 1 else "connections"),
            (reaction.messages, "messages per connection"),
            (reaction.per_minute, "messages per minute"),
        )
        if value is not None
    ]
    if limits and reaction.for_s:
        parts.append(f"{' and '.join(limits)} for {_span(reaction.for_s)}")
    return ", then ".join(parts)


def _span(seconds: int | None) -> str:
    seconds = seconds or 0
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
