"""The table of the ladder: where each signal leads from each state.  Everything else looks it up.

- ``pristine_trap``: a confirmed pristine trap was hit, and the campaign does not tolerate one.
- ``grave``: a breach beyond doubt: the evidence is the square of what a breach needs, or the rate is surely twice
  the limit.  Blocks are an answer of servers to many things; ``grave_block`` therefore only pauses.
- ``lasting``: a breach that has grown since the campaign was throttled half an hour ago; ``lasting_block`` likewise.
- ``breach`` and ``warning``: what the verdicts say.
- ``clean``: for half an hour the upper end of the rate that led here lay below half of its limit, or none of its
  events is left in the window, and no other metric warns; the newest rates are fresh.
- ``cooled_down``: a pause is over.  A paused campaign sends nothing, so no rate could ever show that it got better;
  it tries again, throttled, and is judged by what is new.  Each further pause takes twice as long, up to a day.
- ``warmed``: the last stage of warming up is over (:mod:`policy.warming`).
- ``isolate``, ``release``, ``retire``: an operator's commands.  Nobody else leads out of ``isolated``; nothing leads
  out of ``retired``.  What was stopped comes back throttled and warms up.
"""

from collections.abc import Mapping
from typing import Literal

from schemas.reputation import State

Signal = Literal[
    "pristine_trap",
    "grave",
    "grave_block",
    "lasting",
    "lasting_block",
    "breach",
    "warning",
    "clean",
    "cooled_down",
    "warmed",
    "isolate",
    "release",
    "retire",
]

RUNGS: Mapping[State, int] = {
    "healthy": 0,
    "watched": 1,
    "throttled": 2,
    "paused": 3,
    "isolated": 4,
    "retired": 5,
}
SENDS: frozenset[State] = frozenset({"healthy", "watched", "throttled"})
"""The states in which a sender may send."""

TRANSITIONS: Mapping[State, Mapping[Signal, State]] = {
    "healthy": {
        "pristine_trap": "isolated",
        "grave": "isolated",
        "grave_block": "paused",
        "lasting": "throttled",
        "lasting_block": "throttled",
        "breach": "throttled",
        "warning": "watched",
        "clean": "healthy",
        "cooled_down": "healthy",
        "warmed": "healthy",
        "isolate": "isolated",
        "release": "healthy",
        "retire": "retired",
    },
    "watched": {
        "pristine_trap": "isolated",
        "grave": "isolated",
        "grave_block": "paused",
        "lasting": "throttled",
        "lasting_block": "throttled",
        "breach": "throttled",
        "warning": "watched",
        "clean": "healthy",
        "cooled_down": "watched",
        "warmed": "watched",
        "isolate": "isolated",
        "release": "healthy",
        "retire": "retired",
    },
    "throttled": {
        "pristine_trap": "isolated",
        "grave": "isolated",
        "grave_block": "paused",
        "lasting": "isolated",
        "lasting_block": "paused",
        "breach": "throttled",
        "warning": "throttled",
        "clean": "watched",
        "cooled_down": "throttled",
        "warmed": "healthy",
        "isolate": "isolated",
        "release": "healthy",
        "retire": "retired",
    },
    "paused": {
        "pristine_trap": "isolated",
        "grave": "isolated",
        "grave_block": "paused",
        "lasting": "isolated",
        "lasting_block": "paused",
        "breach": "paused",
        "warning": "paused",
        "clean": "paused",
        "cooled_down": "throttled",
        "warmed": "paused",
        "isolate": "isolated",
        "release": "throttled",
        "retire": "retired",
    },
    "isolated": {
        "pristine_trap": "isolated",
        "grave": "isolated",
        "grave_block": "isolated",
        "lasting": "isolated",
        "lasting_block": "isolated",
        "breach": "isolated",
        "warning": "isolated",
        "clean": "isolated",
        "cooled_down": "isolated",
        "warmed": "isolated",
        "isolate": "isolated",
        "release": "throttled",
        "retire": "retired",
    },
    "retired": {
        "pristine_trap": "retired",
        "grave": "retired",
        "grave_block": "retired",
        "lasting": "retired",
        "lasting_block": "retired",
        "breach": "retired",
        "warning": "retired",
        "clean": "retired",
        "cooled_down": "retired",
        "warmed": "retired",
        "isolate": "retired",
        "release": "retired",
        "retire": "retired",
    },
}
