"""Priors: what other campaigns of the installation show at the same providers, for a campaign that has little to show.

An option (``limits.prior_mails``, 0 by default).  Of the shares of other campaigns at a provider a beta distribution
is fitted by moments: their mean, and as many mails as their spread allows, at most ``limits.prior_mails``.

- The interval's upper end counts these mails as if they were the campaign's own, so that a campaign of a
  hundred mails where nobody has trouble is called within its limit and not too small to tell.  Its lower end never
  rises.
- For blocks, which are an opinion of the provider, the limit is widened to the mean where that is higher, up to four
  times: where everybody is turned away nobody is blamed for it.  Bounces, complaints and traps are made by lists; that
  others have them, too, excuses nobody.

So evidence can only become weaker.  What is promised without priors, that a campaign at its limit is hardly ever called
a breach, holds with them at every provider; it is paid for with later verdicts where all are blocked.  ``within`` leans
on others then and is no test; nothing is restricted by it, and a restricted campaign is let go by its own mail alone.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from policy.naming import campaign_scope
from policy.verdicts import METRICS
from schemas.reputation import Counts, Prior, RatesSnapshot

AT_LEAST_CAMPAIGNS = 5
AT_LEAST_TRIALS = 50
EVERYWHERE = "*"  # in place of a provider: a campaign's mix of providers
FRESH_MS = 3_600_000  # what was told earlier is no news of a provider
_CAMPAIGN = campaign_scope("")
_PROVIDER = "/provider:"
_MOST = 1_000.0
_NO_SPREAD = 1e-12
_HALF = 0.5

Priors = dict[str, dict[str, Prior]]
"""By provider and metric."""

Pool = Mapping[str, Mapping[str, Counts]]
"""What was counted on the last day, by provider and campaign."""


def fitted(shares: Sequence[tuple[int, int]]) -> Prior | None:
    """The prior of events and trials, campaign by campaign; None when too few say too little.

    By moments: the spread of the shares, less what chance makes of it, is that of a beta distribution.
    """
    told = [(min(events, trials), trials) for events, trials in shares if trials >= AT_LEAST_TRIALS]
    if len(told) < AT_LEAST_CAMPAIGNS:
        return None
    if not any(events for events, _ in told):
        return Prior(rate=_HALF / sum(trials for _, trials in told), mails=_MOST, campaigns=len(told))
    rates = [events / trials for events, trials in told]
    mean = sum(rates) / len(rates)
    spread = sum((rate - mean) ** 2 for rate in rates) / (len(rates) - 1)
    by_chance = sum(mean * (1 - mean) / trials for _, trials in told) / len(told)
    mails = mean * (1 - mean) / max(spread - by_chance, _NO_SPREAD) - 1
    return Prior(rate=mean, mails=min(_MOST, max(0.0, mails)), campaigns=len(told))


def priors_of(campaign: str, own: Mapping[str, Counts], pool: Pool) -> Priors:
    """The priors of a campaign by provider and metric; ``own`` is what it was counted at each provider.

    Its mix is that of its own attempts; a metric has a prior there when the providers that have one got most of them.
    """
    found: Priors = {}
    for provider in own:
        others = [counts for name, counts in pool.get(provider, {}).items() if name != campaign]
        known = {metric: fitted([of(counts) for counts in others]) for metric, of in METRICS.items()}
        if told := {metric: prior for metric, prior in known.items() if prior is not None}:
            found[provider] = told
    mix: dict[str, Prior] = {}
    for metric in METRICS:
        parts = [(own[name].attempts, one[metric]) for name, one in found.items() if metric in one]
        if 2 * sum(mails for mails, _ in parts) > sum(counts.attempts for counts in own.values()):
            mix[metric] = _mixed(parts)
    return found | {EVERYWHERE: mix} if mix else found


def _mixed(parts: Sequence[tuple[int, Prior]]) -> Prior:
    whole = sum(mails for mails, _ in parts)
    return Prior(
        rate=sum(mails * one.rate for mails, one in parts) / whole,
        mails=min(one.mails for _, one in parts),
        campaigns=min(one.campaigns for _, one in parts),
    )


def days_of(snapshots: Iterable[RatesSnapshot], now: int) -> Iterator[tuple[str, str, Counts]]:
    """Campaigns, providers and their last day, of those snapshots that are about them and not too old."""
    for one in snapshots:
        campaign, is_one, provider = one.scope.removeprefix(_CAMPAIGN).rpartition(_PROVIDER)
        if is_one and one.scope.startswith(_CAMPAIGN) and one.at > now - FRESH_MS and "24h" in one.windows:
            yield campaign, provider, one.windows["24h"]


def pooled(days: Iterable[tuple[str, str, Counts]]) -> Pool:
    """Campaigns, providers and what was counted there on the last day, by provider."""
    pool: dict[str, dict[str, Counts]] = {}
    for campaign, provider, counts in days:
        pool.setdefault(provider, {})[campaign] = counts
    return pool
