"""What others show may narrow a bound and excuse blocks; it never makes a case stronger."""

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.judging import judge
from policy.ladder import start, step
from policy.priors import EVERYWHERE, days_of, fitted, pooled, priors_of
from policy.transitions import RUNGS
from policy.verdicts import METRICS, WIDEST, verdicts
from schemas.reputation import Counts, Prior, RatesSnapshot
from schemas.sending import Campaign, Limits, Mailbox

BORROWS = Limits(prior_mails=200)
NAMES = ("7d", "24h", "1h", "5m")
GOOD = Prior(rate=0.004, mails=300.0, campaigns=8)
BLOCKED = Prior(rate=0.1, mails=300.0, campaigns=8)


def windows(**counts: int) -> dict[str, Counts]:
    return dict.fromkeys(NAMES, Counts(**counts))


def campaign_of(limits: Limits) -> Campaign:
    return Campaign(
        campaign="c", from_=Mailbox(address="news@example.com"), return_path_domain="b.example.com", limits=limits
    )


def test_too_few_campaigns_say_nothing_of_a_provider() -> None:
    assert fitted([(1, 1_000)] * 4) is None
    assert fitted([(1, 49)] * 10) is None


def test_the_moments_of_a_beta_distribution_are_found_again() -> None:
    chance = random.Random(7)
    rates = [chance.betavariate(3, 97) for _ in range(400)]
    found = fitted([(sum(chance.random() < rate for _ in range(1_000)), 1_000) for rate in rates])
    assert found is not None
    assert found.rate == pytest.approx(0.03, abs=0.003)
    assert found.mails == pytest.approx(99, rel=0.3)


def test_campaigns_that_are_all_alike_are_worth_much_and_those_that_differ_little() -> None:
    alike, different = fitted([(10, 1_000)] * 6), fitted([(0, 1_000), (900, 1_000)] * 3)
    assert alike is not None
    assert different is not None
    assert alike.mails == 1_000
    assert different.mails < 2


def test_a_campaign_is_no_evidence_about_itself() -> None:
    days = [(f"c{number}", "google", Counts(accepted=1_000, attempts=1_000)) for number in range(6)]
    own = {"google": Counts(accepted=100, block=100, attempts=200)}
    without = priors_of("c0", own, pooled(days))
    bad = pooled([*days[1:], ("c0", "google", Counts(hard_bounce=900, block=900, attempts=1_000))])
    assert priors_of("c0", own, bad) == without
    assert without[EVERYWHERE]["block"] == without["google"]["block"]


def test_a_mix_that_is_mostly_unknown_has_no_prior() -> None:
    days = [(f"c{number}", "google", Counts(accepted=1_000, attempts=1_000)) for number in range(6)]
    own = {"google": Counts(attempts=40), "other": Counts(attempts=60)}
    assert EVERYWHERE not in priors_of("c", own, pooled(days))


def test_only_fresh_snapshots_of_campaigns_at_providers_are_pooled() -> None:
    told = {"24h": Counts(attempts=1)}
    scopes = ["campaign:a/provider:google", "campaign:a", "ip:1.2.3.4/provider:google", "campaign:b/source:x"]
    snapshots = [RatesSnapshot(scope=scope, at=10_000_000, windows=told) for scope in scopes]
    assert list(days_of(snapshots, 10_000_001)) == [("a", "google", told["24h"])]
    assert not list(days_of(snapshots, 20_000_000))


def test_a_tiny_campaign_among_good_ones_is_within_its_limit() -> None:
    tiny = windows(accepted=100, attempts=100)
    assert verdicts(tiny, BORROWS)["hard_bounce"].answer == "too_few"
    assert verdicts(tiny, BORROWS, {"hard_bounce": GOOD})["hard_bounce"].answer == "within"


def test_priors_are_an_option() -> None:
    tiny = windows(accepted=50, attempts=50)
    assert verdicts(tiny, Limits(), {"hard_bounce": GOOD}) == verdicts(tiny, Limits())


def test_where_everybody_is_blocked_nobody_is_blamed() -> None:
    as_all = windows(accepted=900, block=100, attempts=1_000)
    assert verdicts(as_all, BORROWS)["block"].answer == "breach"
    assert verdicts(as_all, BORROWS, {"block": BLOCKED})["block"].answer == "too_few"
    more = windows(accepted=500, block=500, attempts=1_000)
    assert verdicts(more, BORROWS, {"block": BLOCKED})["block"].answer == "breach"
    assert verdicts(more, BORROWS, {"block": Prior(rate=0.9, mails=9, campaigns=9)})["block"].limit == WIDEST * 0.05


def test_a_provider_that_blocks_all_is_not_held_against_a_campaign_there() -> None:
    here = windows(accepted=900, block=100, attempts=1_000)
    said = RatesSnapshot(scope="campaign:c", at=60_000, windows=windows(), providers={"google": here})
    for priors, expected in (({}, 1), ({"google": {"block": BLOCKED}}, 0)):
        rates = msgspec.structs.replace(said, priors=priors)
        _, decisions = judge(start(0), scope="campaign:c", campaign=campaign_of(BORROWS), now=60_000, rates=rates)
        assert len(decisions) == expected


def test_what_a_provider_is_excused_for_is_not_held_against_the_campaign_either() -> None:
    here, elsewhere = Counts(accepted=320, block=80, attempts=400), Counts(accepted=600, attempts=600)
    said = RatesSnapshot(
        scope="campaign:c",
        at=60_000,
        windows=windows(accepted=920, block=80, attempts=1_000),
        providers={"google": dict.fromkeys(NAMES, here), "yahoo": dict.fromkeys(NAMES, elsewhere)},
    )
    excuse = {"google": {"block": Prior(rate=0.19, mails=300.0, campaigns=8)}}  # of yahoo, and so of the mix, nothing
    for priors, expected in (({}, [("campaign:c/provider:google", "paused")]), (excuse, [])):
        rates = msgspec.structs.replace(said, priors=priors)
        _, decisions = judge(start(0), scope="campaign:c", campaign=campaign_of(BORROWS), now=60_000, rates=rates)
        assert [(one.scope, one.to) for one in decisions] == expected


def test_the_evidence_holds_the_prior_and_decides_the_same_again() -> None:
    campaign = campaign_of(BORROWS)
    priors = {EVERYWHERE: {"block": BLOCKED}}
    rates = RatesSnapshot(
        scope="campaign:c", at=60_000, windows=windows(accepted=500, block=500, attempts=1_000), priors=priors
    )
    _, decision = step(start(0), scope="campaign:c", campaign=campaign, now=60_000, rates=rates)
    assert decision is not None
    told: Any = decision.evidence
    again = RatesSnapshot(
        scope="campaign:c",
        at=60_000,
        windows={name: Counts(**counts) for name, counts in told["windows"].items()},
        priors={EVERYWHERE: {"block": msgspec.convert(told["prior"], Prior)}},
    )
    _, second = step(start(0), scope="campaign:c", campaign=campaign, now=60_000, rates=again)
    assert second == decision


SHARES = st.floats(0.0, 1.0, allow_nan=False)


@settings(max_examples=400)
@given(st.integers(0, 300), st.integers(0, 3_000), SHARES, st.floats(0.0, 1_000.0), st.sampled_from(sorted(METRICS)))
def test_a_prior_never_makes_a_case_stronger(events: int, good: int, rate: float, mails: float, metric: str) -> None:
    name = {"trap_hit": "trap_hit", "complaint": "complaint"}.get(metric, metric)
    seen = windows(**{name: events, "accepted": good, "attempts": good + events})
    alone = verdicts(seen, BORROWS)[metric]
    borrowed = verdicts(seen, BORROWS, {metric: Prior(rate=rate, mails=mails, campaigns=5)})[metric]
    assert borrowed.evidence <= alone.evidence
    assert borrowed.low == alone.low
    assert borrowed.low <= borrowed.rate <= borrowed.high


PRIORS = st.dictionaries(
    st.sampled_from(sorted(METRICS)),
    st.builds(Prior, rate=SHARES, mails=st.floats(0.0, 1_000.0), campaigns=st.integers(5, 50)),
)
LOOKS = st.lists(
    st.tuples(
        st.builds(
            Counts,
            accepted=st.integers(0, 2_000),
            attempts=st.just(3_000),
            **{name: st.sampled_from([0, 1, 5, 20, 100, 500]) for name in ("hard_bounce", "block", "complaint")},
        ),
        st.dictionaries(st.sampled_from([EVERYWHERE, "google", "yahoo"]), PRIORS),
        st.sampled_from([60_000, 600_000, 3_600_000]),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=300, deadline=None)
@given(LOOKS)
def test_wherever_a_campaign_stands_a_prior_leads_no_further_up_at_it_or_at_its_providers(
    history: list[tuple[Counts, dict[str, dict[str, Prior]], int]],
) -> None:
    campaign, standing, now = campaign_of(BORROWS), start(0), 0
    for whole, priors, later in history:
        now += later
        rates = RatesSnapshot(
            scope="campaign:c",
            at=now,
            windows=dict.fromkeys(NAMES, whole),
            providers={"google": dict.fromkeys(NAMES, whole), "yahoo": windows(accepted=100, attempts=100)},
        )
        alone, _ = judge(standing, scope="campaign:c", campaign=campaign, now=now, rates=rates)
        borrowing = msgspec.structs.replace(rates, priors=priors)
        standing, _ = judge(standing, scope="campaign:c", campaign=campaign, now=now, rates=borrowing)

        assert RUNGS[standing.judged] <= RUNGS[alone.judged]
        for name, one in standing.providers.items():
            assert RUNGS[one.judged] <= RUNGS[alone.providers[name].judged]


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), max_size=12))
def test_a_fit_is_a_share_and_a_bounded_weight(shares: list[tuple[int, int]]) -> None:
    found = fitted(shares)
    if found is not None:
        assert 0.0 <= found.rate <= 1.0
        assert 0.0 <= found.mails <= 1_000.0
