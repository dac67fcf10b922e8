"""Screens: what there is against writing to a well-formed address, and what the campaign's policy makes of it.

A screen looks at one recipient and answers with a sentence or with nothing; which field the sentence is about stands
beside it.  The campaign says of each screen whether its objection refuses the recipient, holds the message until
somebody decides, or only flags it.  All screens are asked; the most severe answer wins, and the flags of those that
let pass travel with the message.

Sentences never quote the address, nor say where a trap was planted: whoever sends to one would only take it off the
list.  What depends on the domain alone is worked out once per domain and remembered.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, TypeVar

import msgspec

from policy.addresses import CheckedAddress
from policy.disposable import disposable_parent
from policy.domain_lists import DomainLists, domain_lists
from policy.roles import Role, role_of
from policy.tokens import Keys
from policy.traps import TrapFact, domain_hash
from policy.typos import likely_domain
from schemas.sending import AdmissionPolicy, Recipient, Screening

DOMAINS_REMEMBERED = 16_384
POLICIES_REMEMBERED = 1_024
CONTACT = "role_contact"
ABOUT_TRAPS = "find out where it came from, the other addresses of that source are in doubt as well"
_ROLE_ACCOUNT = "belongs to a function of its domain and not to a person who signed up; remove it from the list"
_ROLE_CONTACT = "is read by whoever is on duty and not by one person; make sure that somebody signed up with it"
_DAY_MS = 86_400_000
_SEVERITY: dict[Screening, int] = {"refuse": 3, "hold": 2, "flag": 1, "off": 0}


TrapOf = Callable[[str], TrapFact | None]
"""Answers for the keyed hash of an address, or of ``@`` and a domain, whether it is one of our own traps."""

RecycledOf = Callable[[str, int], str | None]
"""Answers for such a hash why the mailbox, or the domain, may be a trap at a time; continues ``the address …``."""


class Domain(msgspec.Struct, frozen=True, gc=False):
    """What is known of a domain: its hash, the provider's domain that was likely meant, the disposable one it is of.

    ``is_odd`` says that a screen has something against the domain itself.
    """

    hashed: str
    likely: str | None
    disposable: str | None
    is_odd: bool


class Objection(msgspec.Struct, frozen=True, gc=False):
    """What a screen has against a recipient: about which of its fields, in a sentence, and what follows."""

    screen: str
    does: Screening
    field: str
    explain: str

    @property
    def severity(self) -> int:
        """More is worse."""
        return _SEVERITY[self.does]


_Against = tuple[str, str] | None
"""The field and the sentence that continues it; None: nothing against it."""

_OfHash = tuple[str, Screening, Callable[[str, int], object], Callable[[Any], str]]  # Any: what the third answers
_OfDomain = tuple[str, Screening, Callable[[Domain], _Against]]
_OfRecord = tuple[str, Screening, Callable[[Recipient, int], _Against]]


def nothing_known(_: str) -> None:
    """Of no address and no domain."""
    return


def never_dead(_: str, _at: int) -> None:
    """No address and no domain ever was."""
    return


class Screens:
    """The screens of an installation."""

    def __init__(
        self,
        keys: Keys,
        *,
        trap: TrapOf = nothing_known,
        recycled: RecycledOf = never_dead,
        lists: DomainLists | None = None,
    ) -> None:
        self._keys = keys
        self._lists = lists or DomainLists()
        self._trap = trap
        self._recycled = recycled
        self._domain = lru_cache(DOMAINS_REMEMBERED)(self._look_at_domain)
        self._made: dict[int, tuple[AdmissionPolicy, Questions]] = {}  # by identity; held, so that it stays its own

    def of(self, policy: AdmissionPolicy) -> "Questions":
        """The screens that a campaign wants to be asked."""
        made = self._made.get(id(policy))
        if made is None:
            if len(self._made) >= POLICIES_REMEMBERED:
                self._made.clear()
            made = self._made[id(policy)] = (policy, self._questions(policy))
        return made[1]

    def _questions(self, policy: AdmissionPolicy) -> "Questions":
        of_hash: tuple[_OfHash, ...] = (
            ("known_trap", policy.known_trap, self._trap_at, _known_trap),
            ("recycled", policy.recycled, self._recycled, _suspected),
        )
        of_record: tuple[_OfRecord, ...] = (
            ("sunset", policy.sunset, _sunset(policy.sunset_days * _DAY_MS)),
            ("age", policy.age, _age(policy.age_days * _DAY_MS)),
            ("provenance", policy.provenance, _provenance),
        )
        of_domain: tuple[_OfDomain, ...] = (
            ("typo_domain", policy.typo_domain, _typo_domain),
            ("disposable", policy.disposable, _disposable),
        )
        roles: Mapping[Role, Objection] = {
            "never": Objection("role_account", policy.role_account, "address", _ROLE_ACCOUNT),
            "contact": Objection(CONTACT, "flag", "address", _ROLE_CONTACT),
        }
        own = domain_lists(policy.allow_domains, policy.deny_domains)
        lists = ((self._lists, _denied_by("the installation")), (own, _denied_by("the campaign (admission)")))
        return Questions(
            tuple(one for one in lists if one[0]),
            _asked(of_hash),
            {} if policy.role_account == "off" else roles,
            _asked(of_record),
            _asked(of_domain),
            self._domain,
        )

    def _trap_at(self, hashed: str, now: int) -> TrapFact | None:
        """A trap that was registered later changes nothing of what was said before."""
        fact = self._trap(hashed)
        return fact if fact is not None and fact.since <= now else None

    def _look_at_domain(self, domain: str) -> Domain:
        likely, disposable = likely_domain(domain), disposable_parent(domain)
        return Domain(domain_hash(self._keys, domain), likely, disposable, likely is not None or disposable is not None)


class Questions:
    """The screens of one campaign's policy; a value, the same for all campaigns with that policy."""

    __slots__ = ("_lists", "_of_domain", "_of_hash", "_of_record", "_of_role", "domain")

    def __init__(
        self,
        lists: tuple[tuple[DomainLists, Objection], ...],
        of_hash: tuple[_OfHash, ...],
        of_role: Mapping[Role, Objection],
        of_record: tuple[_OfRecord, ...],
        of_domain: tuple[_OfDomain, ...],
        domain: Callable[[str], Domain],
    ) -> None:
        self._lists = lists
        self._of_hash = of_hash
        self._of_role = of_role
        self._of_record = of_record
        self._of_domain = of_domain
        self.domain = domain

    def objections(
        self, recipient: Recipient, checked: CheckedAddress, hashed: str, now: int, *, heard_of: bool = True
    ) -> list[Objection]:
        """What the screens have against a recipient, the worst first.

        ``heard_of`` False: neither the address nor its domain is a trap or suspected, so nobody need ask.
        """
        domain, role = self.domain(checked.domain), role_of(checked.local)
        found = [denied for lists, denied in self._lists if lists.denies(checked.domain)] if self._lists else []
        if heard_of:
            for name, does, of_hash, sentence in self._of_hash:
                fact = of_hash(hashed, now) or of_hash(domain.hashed, now)
                if fact:
                    found.append(Objection(name, does, "address", sentence(fact)))
        if role is not None and role in self._of_role:
            found.append(self._of_role[role])
        for name, does, of_record in self._of_record:
            against = of_record(recipient, now)
            if against is not None:
                found.append(Objection(name, does, *against))
        if domain.is_odd:
            found += [
                Objection(name, does, *against)
                for name, does, of_domain in self._of_domain
                if (against := of_domain(domain)) is not None
            ]
        if len(found) > 1:
            found.sort(key=lambda one: (-one.severity, one.screen == CONTACT))
        return found


T = TypeVar("T", _OfHash, _OfDomain, _OfRecord)


def _asked(wanted: tuple[T, ...]) -> tuple[T, ...]:
    return tuple(one for one in wanted if one[1] != "off")


def _denied_by(whose: str) -> Objection:
    explain = f"is of a domain that gets no mail by deny_domains or allow_domains of {whose}"
    return Objection("denied_domain", "refuse", "address", explain)


def _known_trap(fact: TrapFact) -> str:
    return f"is a known spam trap ({fact.kind}); {ABOUT_TRAPS}"


def _suspected(why: str) -> str:
    return f"{why}; write to it only if its owner has signed up since"


def _typo_domain(domain: Domain) -> _Against:
    if domain.likely is None:
        return None
    return "address", f"has a domain that is most likely a misspelt {domain.likely}; ask the recipient, do not guess"


def _disposable(domain: Domain) -> _Against:
    if domain.disposable is None:
        return None
    return "address", "is of a domain whose addresses are thrown away after use; ask for another one"


def _sunset(after_ms: int) -> Callable[[Recipient, int], _Against]:
    def screen(recipient: Recipient, now: int) -> _Against:
        seen = recipient.last_seen_at
        if seen is None:
            return None
        silent_ms = now - max(seen, recipient.opted_in_at or 0)
        if silent_ms <= after_ms:
            return None
        return "last_seen_at", (
            f"is {_days(silent_ms)} days ago, the campaign's limit is {_days(after_ms)} (admission.sunset_days); stop "
            "writing to this recipient, or ask once whether mail is still wanted"
        )

    return screen


def _age(after_ms: int) -> Callable[[Recipient, int], _Against]:
    def screen(recipient: Recipient, now: int) -> _Against:
        agreed, seen = recipient.opted_in_at, recipient.last_seen_at
        if agreed is None or (seen is not None and seen > agreed) or now - agreed <= after_ms:
            return None
        return "opted_in_at", (
            f"is {_days(now - agreed)} days ago and the recipient was never seen since, the campaign's limit "
            f"is {_days(after_ms)} (admission.age_days); ask for permission anew, by another way than mail"
        )

    return screen


def _provenance(recipient: Recipient, now: int) -> _Against:
    if recipient.source is None or not recipient.source.strip():
        return "source", "is missing, and the campaign wants to know where each recipient comes from; fill it in"
    if recipient.opted_in_at is None:
        return "opted_in_at", "is missing, and the campaign wants to know when each recipient agreed; fill it in"
    if recipient.opted_in_at > now + _DAY_MS:
        return "opted_in_at", "lies in the future; write the time at which the recipient agreed, in milliseconds"
    return None


def _days(span_ms: int) -> int:
    return span_ms // _DAY_MS
