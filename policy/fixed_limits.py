"""Fixed limits: the bare rate against the limit, once there is a minimum of messages, as Amazon SES does it.

For those who want these numbers and know what they cost: looked at after every message, a bare rate crosses its line
by chance sooner or later (``docs/verdicts.md`` says how often), and a small sender can do harm below the minimum.
"""

from collections.abc import Callable, Mapping

from schemas.reputation import Answer, Counts, Verdict
from schemas.sending import Limits

WINDOWS = ("24h", "7d")  # the shortest of these that has the minimum decides
_NOTHING = Counts()


def fixed_verdict(
    windows: Mapping[str, Counts],
    limits: Limits,
    limit: float,
    of: Callable[[Counts], tuple[int, int]],
    interval: Callable[[int, int], tuple[float, float]],
    *,
    breach: float,
    grave: float,
) -> Verdict:
    """The verdict on one metric; its evidence is 1, ``breach``, or ``grave`` at ``grave_factor`` times the limit."""
    window, (events, trials) = WINDOWS[0], (0, 0)
    for window in WINDOWS:
        events, trials = of(windows.get(window, _NOTHING))
        if trials >= limits.min_volume:
            break
    rate = events / trials if trials else 0.0
    low, high = interval(events, trials)
    evidence = 1.0
    answer: Answer = "too_few"
    if trials >= limits.min_volume:
        answer = "breach" if rate >= limit and events else "within"
        if answer == "breach":
            evidence = grave if rate >= limits.grave_factor * limit else breach
    return Verdict(
        answer=answer,
        rate=rate,
        low=low,
        high=high,
        limit=limit,
        events=events,
        trials=trials,
        window=window,
        evidence=evidence,
    )
