"""Publishing where the counts stand: after every frame per campaign, every few seconds per provider and address.

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
from policy.counts import MINUTE_MS, VECTOR
from policy.naming import campaign_scope
from policy.verdicts import WARNING, verdicts
from schemas.reputation import Counts, RatesSnapshot
from schemas.sending import Limits
from schemas.topics import RATES
from streams import panes
from streams.home import home

_PER_TURN = 20  # campaigns, before the loop gets its turn


class Snapshots:
    """Publishes snapshots of the running sums."""

    def __init__(self, live: MutableMapping[str, Live], *, known: Known, outlet: Publish, partitions: int) -> None:
        self._live = live
        self._known = known
        self._outlet = outlet
        self._partitions = partitions

    async def campaign(self, name: str, live: Live, now: int) -> None:
        """Publish where a campaign stands now."""
        live.published = live.rolling.windows(now // MINUTE_MS)
        found = verdicts(live.published, self._limits(name))
        if found["block"].evidence >= WARNING:
            live.turned_away = True
        snapshot = RatesSnapshot(
            scope=campaign_scope(name),
            at=now,
            windows=live.published,
            verdicts=found,
            recent=panes.references(live.recent),
            providers=self._by_provider(name, live, now),
        )
        await self._publish(snapshot)

    def _by_provider(self, name: str, live: Live, now: int) -> dict[str, Windows]:
        """The windows of single providers, when some turn the campaign away or are judged by themselves."""
        control = self._known.controls.get(name)
        if not live.turned_away and (control is None or not control.providers):
            return {}
        return live.rolling.by_provider(now // MINUTE_MS)

    async def providers(self, now: int) -> None:
        """Publish what moved since the last time, per provider of a campaign and per sending address."""
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


def _sum(one: Windows, other: Windows) -> Windows:
    return {
        name: Counts(**{field: getattr(counts, field) + getattr(other[name], field) for field in VECTOR})
        for name, counts in one.items()
    }


def _empty(windows: Windows) -> bool:
    return all(counts == _NOTHING for counts in windows.values())


_NOTHING = Counts()
