"""What a replayed campaign borrows is what the workers' campaigns borrow: the last day of others that still move."""

import pytest

from cli.backtest_priors import Borrowing
from cli.backtest_tracked import Tracked
from policy.counts import VECTOR, cell_key
from policy.priors import EVERYWHERE, FRESH_MS, Priors, days_of, pooled, priors_of
from schemas.reputation import Counts, RatesSnapshot
from schemas.sending import Limits
from tests.agents.doubles import campaign
from tests.cli.recordings import HOUR, MINUTE, T0

BORROWS = Limits(prior_mails=200)
NAMES = tuple(f"c-{number}" for number in range(7))
USUAL = Counts(accepted=900, block=100, attempts=1_000)


def tracked(name: str, counts: Counts = USUAL, *, limits: Limits = BORROWS, at: int = T0) -> Tracked:
    recorded = campaign(name, limits=limits)
    one = Tracked(recorded, recorded, is_known=True)
    add(one, counts, at)
    return one


def add(one: Tracked, counts: Counts, at: int) -> None:
    """Count it, and look at it at once."""
    one.counting.live.add(at // MINUTE, {cell_key("yahoo", "::1"): [getattr(counts, name) for name in VECTOR]}, ())
    one.counting.live.published_at = at


def everybody() -> dict[str, Tracked]:
    return {name: tracked(name) for name in NAMES}


def as_workers_tell(known: dict[str, Tracked], now: int) -> Priors:
    """What the first of them would borrow from the snapshots of the others."""
    snapshots = [
        RatesSnapshot(scope=f"campaign:{name}/provider:{provider}", at=one.counting.live.published_at, windows=windows)
        for name, one in known.items()
        for provider, windows in one.counting.live.rolling.by_provider(now // MINUTE).items()
    ]
    own = known[NAMES[0]].counting.live.rolling.by_provider(now // MINUTE)
    days = {provider: windows["24h"] for provider, windows in own.items()}
    return priors_of(NAMES[0], days, pooled(days_of(snapshots, now)))


def test_whoever_does_not_ask_borrows_nothing() -> None:
    known = everybody()
    assert Borrowing().priors(tracked("alone", limits=Limits()), known, T0) == {}


def test_it_is_what_others_show_at_the_same_providers() -> None:
    known = everybody()
    add(known[NAMES[0]], Counts(block=5_000, attempts=5_000), T0)

    found = Borrowing().priors(known[NAMES[0]], known, T0)

    assert found == as_workers_tell(known, T0)
    assert (found["yahoo"]["block"].rate, found["yahoo"]["block"].campaigns) == (pytest.approx(0.1), 6)
    assert found[EVERYWHERE]["block"].rate == pytest.approx(0.1)


def test_it_is_made_once_a_minute() -> None:
    known, borrowing = everybody(), Borrowing()
    before = borrowing.priors(known[NAMES[0]], known, T0)
    add(known[NAMES[1]], Counts(block=1_000, attempts=1_000), T0)

    assert borrowing.priors(known[NAMES[0]], known, T0 + MINUTE - 1) == before
    assert borrowing.priors(known[NAMES[0]], known, T0 + MINUTE) == as_workers_tell(known, T0 + MINUTE) != before


def test_what_was_told_an_hour_ago_is_no_news_of_a_provider() -> None:
    known = everybody()
    for name in NAMES[:2]:
        add(known[name], USUAL, T0 + HOUR)
    now = T0 + FRESH_MS

    assert Borrowing().priors(known[NAMES[0]], known, now - 1)["yahoo"]["block"].campaigns == 6
    assert Borrowing().priors(known[NAMES[0]], known, now) == as_workers_tell(known, now) == {}


def test_what_is_older_than_a_day_is_none_of_it() -> None:
    known = everybody()
    now = T0 + 25 * HOUR
    for name in NAMES:
        known[name].counting.live.published_at = now - 1

    assert Borrowing().priors(known[NAMES[0]], known, now) == as_workers_tell(known, now) == {}
