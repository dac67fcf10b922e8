"""Narrowing: a provider that turns a campaign away is judged by itself, and what is left of the counts without it.

Blocks are one server's opinion.  Once mail to it is slowed or paused, its answers are held against nothing wider: the
campaign, nor what the campaign shares with others.  Bounces, complaints and traps are made by the list; they count as
ever, wherever the mail went.
"""

from collections.abc import Iterable, Mapping

import msgspec

from policy.transitions import RUNGS
from schemas.reputation import Counts, State

Windows = dict[str, Counts]


def is_narrowed(state: State) -> bool:
    """Does a provider that stands so answer for itself?"""
    return RUNGS[state] >= RUNGS["throttled"]


def answers_of(providers: Iterable[Mapping[str, Counts]]) -> Windows:
    """What some providers have answered, by window: how often in all, and how often they turned us away."""
    told: Windows = {}
    for windows in providers:
        for name, counts in windows.items():
            held = told.get(name)
            block, attempts = (0, 0) if held is None else (held.block, held.attempts)
            told[name] = Counts(block=block + counts.block, attempts=attempts + counts.attempts)
    return told


def without(windows: Mapping[str, Counts], answers: Mapping[str, Counts]) -> Windows:
    """The windows as they were without these answers; after a release they may hold fewer blocks than those."""
    return {name: _less(counts, answers[name]) if name in answers else counts for name, counts in windows.items()}


def _less(counts: Counts, answers: Counts) -> Counts:
    return msgspec.structs.replace(
        counts,
        block=max(0, counts.block - answers.block),
        attempts=max(0, counts.attempts - answers.attempts),
    )
