"""What the return path knows of the world: which domains are ours, which are traps, which campaigns there are."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from policy.addresses import hostname
from policy.naming import campaign_name
from policy.tokens import Keys, address_hash, campaign_ref
from policy.traps import TrapFact, domain_hash
from schemas.sending import Campaign

_REBUILD_AFTER_MS = 1_000
_OF_SETTINGS = TrapFact(what="domain")


@dataclass(frozen=True, slots=True)
class _Index:
    built_at: int
    domains: frozenset[str]
    by_ref: Mapping[bytes, str]
    by_name: Mapping[str, str]


class Known:
    """Answers from the catalogue's campaigns and the settings.

    ``registered`` answers for the keyed hash of an address, or of ``@`` and a domain, whether it is in the registry of
    traps; to ask it one needs the ``keys``.

    The look-up tables are made anew when something is not found and they are older than a second, so a campaign that
    was registered just now is known, and strangers who ask for nonsense cost nothing.
    """

    def __init__(
        self,
        campaigns: Mapping[str, Campaign],
        *,
        own_domains: Iterable[str] = (),
        trap_domains: Iterable[str] = (),
        keys: Keys | None = None,
        registered: Callable[[str], TrapFact | None] | None = None,
    ) -> None:
        self._campaigns = campaigns
        self._own = frozenset(filter(None, map(hostname, own_domains)))
        self._trap_domains = frozenset(filter(None, map(hostname, trap_domains)))
        self._keys = keys
        self._registered = registered
        self._index = _Index(-_REBUILD_AFTER_MS, frozenset(), {}, {})

    def is_trap(self, address: str) -> bool:
        """Whether mail to this address is a trap hit."""
        return self.trap(address) is not None

    def trap(self, address: str) -> TrapFact | None:
        """What is known of the trap that this address is: by itself, by its domain, or by the settings."""
        local, _, given = address.rpartition("@")
        domain = hostname(given)
        if not local or domain is None:
            return None
        if self._registered is not None and self._keys is not None:
            found = self._registered(address_hash(self._keys, address))
            found = found or self._registered(domain_hash(self._keys, domain))
            if found is not None:
                return found
        return _OF_SETTINGS if domain in self._trap_domains else None

    def is_own(self, domain: str, now: int) -> bool:
        """Whether mail for this domain is for us."""
        name = hostname(domain)
        if name is None:
            return False
        return name in self._own or name in self._index.domains or name in self._fresh(now).domains

    def by_ref(self, ref: bytes, now: int) -> str | None:
        """The campaign that a return path stands for."""
        return self._index.by_ref.get(ref) or self._fresh(now).by_ref.get(ref)

    def by_name(self, name: str, now: int) -> str | None:
        """The campaign of this name, as topics and Message-ID carry it."""
        return self._index.by_name.get(name) or self._fresh(now).by_name.get(name)

    def _fresh(self, now: int) -> _Index:
        if now - self._index.built_at >= _REBUILD_AFTER_MS:
            campaigns = dict(self._campaigns)
            self._index = _Index(
                built_at=now,
                domains=frozenset(filter(None, (hostname(one.return_path_domain) for one in campaigns.values()))),
                by_ref={campaign_ref(campaign): campaign for campaign in campaigns},
                by_name={campaign_name(campaign): campaign for campaign in campaigns},
            )
        return self._index
