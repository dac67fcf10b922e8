"""Retries: when a deferred message is tried again, and when it has waited long enough.

The plan is 5, 15 and 30 minutes, 1, 2 and 4 hours, then every 6 hours, unless the operator has another one (setting
``retries``); each pause is moved by up to 20 % so that messages deferred together do not come back together.
Greylisting servers (RFC 6647) let a message in when it comes again from the same address after a few minutes, which
the first steps serve: the sender keeps its address.  A category may ask for a longer first pause or for fewer
attempts; that stands in ``replies.toml``.
"""

from collections.abc import Sequence

from policy.replies import category_of

_MINUTE_S = 60
_HOUR_S = 3600
PLAN_S = (5 * _MINUTE_S, 15 * _MINUTE_S, 30 * _MINUTE_S, _HOUR_S, 2 * _HOUR_S, 4 * _HOUR_S, 6 * _HOUR_S)
JITTER = 0.2


def next_attempt(
    *,
    attempt: int,
    category: str,
    first_at: int,
    now: int,
    max_age_s: int,
    jitter: float,
    plan_s: Sequence[int] = PLAN_S,
) -> int | None:
    """When to try again, in ms, or None when the message expires first.

    ``attempt`` is the number of attempts made, 1 after the first.  ``first_at`` is the time of the first, from which
    ``max_age_s`` counts.  ``jitter`` is chance from -1 to 1; it moves the pause by up to 20 % either way, but never
    below what the category asks for.  ``plan_s`` are the pauses after the first, second, … attempt; the last one is
    repeated.
    """
    wanted = category_of(category)
    if wanted.tries is not None and attempt >= wanted.tries:
        return None
    pause_s = plan_s[min(max(attempt, 1), len(plan_s)) - 1]
    moved_s = max(pause_s, wanted.after_s) * (1 + JITTER * max(-1.0, min(1.0, jitter)))
    if moved_s < wanted.after_s:  # mirrored and not cut, so that they still do not come together
        moved_s = 2 * wanted.after_s - moved_s
    due = now + round(moved_s * 1000)
    return due if due <= first_at + max_age_s * 1000 else None
