"""What a replayed campaign borrows from the others, made once a minute as the workers make it."""

from collections.abc import Mapping

from cli.backtest_tracked import Tracked
from policy.counts import MINUTE_MS
from policy.priors import FRESH_MS, Pool, Priors, pooled, priors_of


class Borrowing:
    """The priors of campaigns whose limits ask for them."""

    def __init__(self) -> None:
        self._minute = -1
        self._pool: Pool = {}
        self._made: dict[str, Priors] = {}

    def priors(self, one: Tracked, tracked: Mapping[str, Tracked], now: int) -> Priors:
        """What the other campaigns show at the providers of one."""
        if not one.campaign.limits.prior_mails:
            return {}
        minute = now // MINUTE_MS
        if minute != self._minute:
            self._minute, self._made = minute, {}
            self._pool = pooled(
                (name, provider, windows["24h"])
                for name, other in tracked.items()
                if other.counting.live.published_at > now - FRESH_MS
                for provider, windows in other.counting.live.rolling.by_provider(minute).items()
            )
        name = one.campaign.campaign
        if name not in self._made:
            own = one.counting.live.rolling.by_provider(minute)
            self._made[name] = priors_of(name, {where: windows["24h"] for where, windows in own.items()}, self._pool)
        return self._made[name]
