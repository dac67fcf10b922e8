"""The strikes in ``mail.suppressions``, by address hash and category: soft failures of the last weeks, in memory.

Only workers keep them.  Of more than ``REMEMBERED`` the oldest are forgotten: somebody is then suppressed later.
"""

from collections import OrderedDict
from collections.abc import Iterator

from policy.replies import category_of
from policy.strikes import Strike, read_scope

REMEMBERED = 500_000  # pairs of address and category
CAMPAIGNS_REMEMBERED = 64  # of one pair
_Pair = tuple[str, str]  # address hash and category


class Strikes:
    """The newest of each campaign; pairs that have enough campaigns to be looked at are ``due``."""

    def __init__(self, *, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._held: OrderedDict[_Pair, dict[str, tuple[int, int]]] = OrderedDict()  # campaign -> at, until
        self._due: dict[_Pair, None] = {}

    def __len__(self) -> int:
        return len(self._held)

    def apply(self, address_hash: str, scope: str, at: int | None, until: int | None) -> bool:
        """Take in one record, ``at`` None: it is gone; answers False if it is no strike."""
        named = read_scope(scope)
        if named is None:
            return False
        pair, campaign = (address_hash, named[0]), named[1]
        own = self._held.setdefault(pair, {})
        if at is None:
            own.pop(campaign, None)
        elif len(own) < CAMPAIGNS_REMEMBERED or campaign in own:
            own[campaign] = (at, at if until is None else until)
        if not own:
            del self._held[pair]
        wanted = category_of(pair[1]).after_campaigns
        if wanted and len(own) >= wanted:
            self._due[pair] = None
        else:
            self._due.pop(pair, None)
        while len(self._held) > self._remembered:
            oldest, _ = self._held.popitem(last=False)
            self._due.pop(oldest, None)
        return True

    def of(self, address_hash: str, category: str) -> list[Strike]:
        """The strikes of an address."""
        return [Strike(name, at) for name, (at, _) in self._held.get((address_hash, category), {}).items()]

    def due(self, limit: int) -> list[_Pair]:
        """Addresses and categories that may have enough strikes and were not :meth:`judged` since their last one."""
        return [pair for pair, _ in zip(self._due, range(limit), strict=False)]

    def judged(self, pair: _Pair) -> None:
        """Nothing is to be done about these strikes until there is another."""
        self._due.pop(pair, None)

    def over(self, now: int) -> Iterator[str]:
        """The keys of strikes that are too old to count."""
        for (address_hash, category), own in self._held.items():
            for campaign, (_, until) in own.items():
                if until <= now:
                    yield f"{address_hash}|strike:{category}:{campaign}"
