"""Publishing where the counts stand: per campaign as they move, every few seconds per provider and address.

What may change a verdict is published at once: feedback, blocks, and whatever is counted while a rate is above its
limit.  A campaign that is well is published once a second, however many frames come of it: its next snapshot says the
same with larger numbers, and each costs its reader more than counting a frame does.

Scopes that are not a function of the topic's key (an IP address serves many campaigns) carry their partition; who
wants the whole sums over partitions.

The field ``applied`` stays empty: panes expire, and with them the offsets that a snapshot could name.  A reader that
refuses whatever names smaller offsets than before would then refuse everything for good.  Snapshots are told apart
by their time.
"""

import asyncio
from collections.abc import Mapping, MutableMapping

from agents.live import Live, Windows
from agents.ports import Known, Publish
from policy.counts import MINUTE_MS, summed
from policy.naming import campaign_scope
from policy.priors import EVERYWHERE, Pool, Priors, days_of, pooled, priors_of
from policy.verdicts import METRICS, WARNING, verdicts
from schemas.reputation import Counts, RatesSnapshot
from schemas.sending import Limits
from schemas.topics import RATES
from streams import panes
from streams.home import home

EVERY_MS = 1_000  # of a campaign that is well
_OF_RESULTS = ("hard_bounce", "block")  # what results move; feedback is published at once
_PER_TURN = 20  # campaigns, before the loop gets its turn


class Snapshots:
    """Publishes snapshots of the running sums."""

    def __init__(self, live: MutableMapping[str, Live], *, known: Known, outlet: Publish, partitions: int) -> None:
        self._live = live
        self._known = known
        self._outlet = outlet
        self._partitions = partitions
        self._late: set[str] = set()  # campaigns that moved since their last snapshot
        self._pool: Pool = {}  # of the campaigns of all workers, as they were in the minute
        self._pool_of = -1
        self._made: dict[str, Priors] = {}

    async def results(self, name: str, live: Live, now: int, *, blocked: bool) -> None:
        """Publish a campaign whose results were counted: at once, or when its second is over."""
        is_soon = 0 <= now - live.published_at < EVERY_MS
        if is_soon and not blocked and not live.turned_away and not self._is_above_limit(name, live, now):
            self._late.add(name)
        else:
            await self.campaign(name, live, now)

    async def late(self, now: int) -> None:
        """Publish the campaigns that have waited for their second."""
        for number, name in enumerate(list(self._late), start=1):
            live = self._live.get(name)
            if live is None:
                self._late.discard(name)
            elif not 0 <= now - live.published_at < EVERY_MS:
                await self.campaign(name, live, now)
            if number % _PER_TURN == 0:
                await asyncio.sleep(0)

    def rebuilt(self) -> None:
        """All campaigns were counted anew: what was not published before the worker ended is published now."""
        self._late = set(self._live)

    def _is_above_limit(self, name: str, live: Live, now: int) -> bool:
        return is_above_limit(live.rolling.windows(now // MINUTE_MS), self._limits(name))

    async def campaign(self, name: str, live: Live, now: int) -> None:
        """Publish where a campaign stands now."""
        self._late.discard(name)
        live.published_at = now
        live.published = live.rolling.windows(now // MINUTE_MS)
        priors = self._priors(name, live, now)
        found = verdicts(live.published, self._limits(name), priors.get(EVERYWHERE, {}))
        if found["block"].evidence >= WARNING:
            live.turned_away = True
        snapshot = RatesSnapshot(
            scope=campaign_scope(name),
            at=now,
            windows=live.published,
            verdicts=found,
            recent=panes.references(live.recent),
            providers=self._by_provider(name, live, now),
            priors=priors,
        )
        await self._publish(snapshot)

    def _priors(self, name: str, live: Live, now: int) -> Priors:
        """What other campaigns show at its providers, made once a minute; nothing, unless its limits ask for it."""
        if not self._limits(name).prior_mails:
            return {}
        minute = now // MINUTE_MS
        if self._pool_of != minute:
            self._pool, self._pool_of, self._made = pooled(days_of(self._known.rates.values(), now)), minute, {}
        if name not in self._made:
            own = {provider: windows["24h"] for provider, windows in live.rolling.by_provider(minute).items()}
            self._made[name] = priors_of(name, own, self._pool)
        return self._made[name]

    def _by_provider(self, name: str, live: Live, now: int) -> dict[str, Windows]:
        """The windows of single providers, when some turn the campaign away or are judged by themselves."""
        control = self._known.controls.get(name)
        if not live.turned_away and (control is None or not control.providers):
            return {}
        return live.rolling.by_provider(now // MINUTE_MS)

    async def providers(self, now: int) -> None:
        """Publish what moved since the last time, per provider and list source of a campaign, and per address."""
        due = [(name, live) for name, live in self._live.items() if live.providers_due]
        addresses: set[tuple[int, str, str]] = set()
        for number, (name, live) in enumerate(due, start=1):
            live.providers_due = False
            partition = home(name, self._partitions)
            was_turned_away, live.turned_away = live.turned_away, False
            for provider, windows in live.rolling.by_provider(now // MINUTE_MS).items():
                scope = f"{campaign_scope(name)}/provider:{provider}"
                found = verdicts(windows, self._limits(name))
                live.turned_away |= found["block"].evidence >= WARNING
                await self._publish(RatesSnapshot(scope=scope, at=now, windows=windows, verdicts=found))
            for source, windows in live.sources.by_provider(now // MINUTE_MS).items() if live.sources else ():
                scope = f"{campaign_scope(name)}/source:{source}"
                found = verdicts(windows, self._limits(name))
                await self._publish(RatesSnapshot(scope=scope, at=now, windows=windows, verdicts=found))
            if live.turned_away and not was_turned_away:  # one provider of many: the campaign's own rate says nothing
                await self.campaign(name, live, now)
            addresses |= {(partition, *pair) for pair in live.rolling.by_ip_provider(now // MINUTE_MS)}
            if number % _PER_TURN == 0:
                await asyncio.sleep(0)
        for (partition, ip, provider), windows in self._by_address(addresses, now).items():
            scope = f"ip:{ip}/provider:{provider}/partition:{partition}"
            await self._publish(RatesSnapshot(scope=scope, at=now, windows=windows))

    async def moved(self, now: int) -> None:
        """Publish the campaigns whose windows moved by time alone, and forget those of which nothing is left."""
        for number, (name, live) in enumerate(list(self._live.items()), start=1):
            windows = live.rolling.windows(now // MINUTE_MS)
            if windows != live.published:
                live.providers_due = True
                await self.campaign(name, live, now)
            live.forget(now // MINUTE_MS)
            if _empty(windows) and self._live.get(name) is live:
                del self._live[name]
            if number % _PER_TURN == 0:
                await asyncio.sleep(0)

    def _by_address(self, wanted: set[tuple[int, str, str]], now: int) -> Mapping[tuple[int, str, str], Windows]:
        """The sums of some addresses over all campaigns of their partition."""
        sums: dict[tuple[int, str, str], Windows] = {}
        partitions = {partition for partition, _, _ in wanted}
        for name, live in self._live.items():
            partition = home(name, self._partitions)
            if partition not in partitions:
                continue
            for pair, windows in live.rolling.by_ip_provider(now // MINUTE_MS).items():
                key = (partition, *pair)
                if key in wanted:
                    sums[key] = _sum(sums[key], windows) if key in sums else windows
        return sums

    def _limits(self, name: str) -> Limits:
        campaign = self._known.campaigns.get(name)
        return Limits() if campaign is None else campaign.limits

    async def _publish(self, snapshot: RatesSnapshot) -> None:
        await self._outlet.publish(RATES, snapshot, key=snapshot.scope)


def is_above_limit(windows: Windows, limits: Limits) -> bool:
    """Is a rate that results move above its limit, in some window?"""
    before = None
    for counts in windows.values():
        if counts is before:  # young campaigns have the same in all windows
            continue
        before = counts
        for metric in _OF_RESULTS:
            events, trials = METRICS[metric](counts)
            if events > trials * getattr(limits, metric):
                return True
    return False


def _sum(one: Windows, other: Windows) -> Windows:
    return {name: summed(counts, other[name]) for name, counts in one.items()}


def _empty(windows: Windows) -> bool:
    return all(counts == _NOTHING for counts in windows.values())


_NOTHING = Counts()
