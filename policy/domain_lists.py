"""Which domains may get mail at all: lists of domains, each of which stands for everything below it, too."""

from collections.abc import Iterable
from functools import lru_cache

import msgspec

from policy.addresses import hostname
from schemas.sending import AdmissionPolicy

LISTS_REMEMBERED = 256


class DomainLists(msgspec.Struct, frozen=True, gc=False):
    """Denied is what ``deny`` names, and, where ``allow`` names anything, what it does not name."""

    allow: frozenset[str] = frozenset()
    deny: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.allow or self.deny)

    def denies(self, domain: str) -> bool:
        """May a domain (lower case, A-labels) get no mail?"""
        return _is_below(domain, self.deny) or (bool(self.allow) and not _is_below(domain, self.allow))


@lru_cache(LISTS_REMEMBERED)
def domain_lists(allow: tuple[str, ...], deny: tuple[str, ...]) -> DomainLists:
    """Lists as they are written; what is no domain is left out, :func:`flaw_of_domains` names it."""
    return DomainLists(frozenset(_read(allow)), frozenset(_read(deny)))


def flaw_of_domains(policy: AdmissionPolicy) -> str | None:
    """Why the lists of a campaign cannot be meant, with the field and the fix."""
    for field, names in (("allow_domains", policy.allow_domains), ("deny_domains", policy.deny_domains)):
        for at, name in enumerate(names):
            if hostname(name) is None:
                return f"admission.{field}[{at}] is no domain; write names such as example.com, without @ or *"
    return None


def _read(names: Iterable[str]) -> Iterable[str]:
    return filter(None, map(hostname, names))


def _is_below(domain: str, names: frozenset[str]) -> bool:
    if not names:
        return False
    while domain:
        if domain in names:
            return True
        domain = domain.partition(".")[2]
    return False
