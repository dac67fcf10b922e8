"""Screens: what there is against writing to a well-formed address, and what the campaign's policy makes of it.

A screen looks at one recipient and answers with a sentence or with nothing; which field the sentence is about stands
beside it.  The campaign says of each screen whether its objection refuses the recipient, holds the message until
somebody decides, or only flags it.  All screens are asked; the most severe answer wins, and the flags of those that
let pass travel with the message.

Sentences never quote the address, nor say where a trap was planted: whoever sends to one would only take it off the
list.  What depends on the domain alone is worked out once per domain and remembered.
"""

from collections.abc import Callable
from functools import lru_cache

import msgspec

from policy.addresses import CheckedAddress
from policy.disposable import disposable_parent
from policy.roles import Role, role_of
from policy.tokens import Keys
from policy.traps import TrapFact, domain_hash
from policy.typos import likely_domain
from schemas.sending import AdmissionPolicy, Recipient, Screening

DOMAINS_REMEMBERED = 16_384
CONTACT = "role_contact"
ABOUT_TRAPS = "find out where it came from, the other addresses of that source are in doubt as well"
_DAY_MS = 86_400_000
_SEVERITY: dict[Screening, int] = {"refuse": 3, "hold": 2, "flag": 1, "off": 0}


TrapOf = Callable[[str], TrapFact | None]
"""Answers for the keyed hash of an address, or of ``@`` and a domain, whether it is one of our own traps."""

RecycledOf = Callable[[str], str | None]
"""Answers for such a hash why the mailbox, or the domain, may be a trap today; continues ``the address …``."""


class Domain(msgspec.Struct, frozen=True, gc=False):
    """What is known of a domain: its hash, the provider's domain that was likely meant, the disposable one it is of.

    ``is_odd`` says that a screen has something against the domain itself.
    """

    hashed: str
    likely: str | None
    disposable: str | None
    is_odd: bool


class Subject(msgspec.Struct, frozen=True, gc=False):
    """One recipient before the screens, at the time of the request (ms)."""

    recipient: Recipient
    checked: CheckedAddress
    hashed: str
    domain: Domain
    role: Role | None
    now: int


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


Screen = Callable[[Subject], tuple[str, str] | None]
"""The field and the sentence that continues it; None: nothing against it."""

_Wanted = tuple[str, Screening, Screen]


def nothing_known(_: str) -> None:
    """Of no address and no domain."""
    return


class Screens:
    """The screens of an installation."""

    def __init__(self, keys: Keys, *, trap: TrapOf = nothing_known, recycled: RecycledOf = nothing_known) -> None:
        self._keys = keys
        self._trap = trap
        self._recycled = recycled
        self._domain = lru_cache(DOMAINS_REMEMBERED)(self._look_at_domain)

    def of(self, policy: AdmissionPolicy) -> "Questions":
        """The screens that a campaign wants to be asked."""
        every: tuple[_Wanted, ...] = (
            ("known_trap", policy.known_trap, self._known_trap),
            ("recycled", policy.recycled, self._suspected),
            ("role_account", policy.role_account, _role_account),
            ("sunset", policy.sunset, _sunset(policy.sunset_days * _DAY_MS)),
            ("age", policy.age, _age(policy.age_days * _DAY_MS)),
            ("provenance", policy.provenance, _provenance),
            (CONTACT, "off" if policy.role_account == "off" else "flag", _contact),
        )
        of_domain: tuple[_Wanted, ...] = (
            ("typo_domain", policy.typo_domain, _typo_domain),
            ("disposable", policy.disposable, _disposable),
        )
        return Questions(_asked(every), _asked(of_domain), self._domain)

    def _look_at_domain(self, domain: str) -> Domain:
        likely, disposable = likely_domain(domain), disposable_parent(domain)
        return Domain(domain_hash(self._keys, domain), likely, disposable, likely is not None or disposable is not None)

    def _known_trap(self, subject: Subject) -> tuple[str, str] | None:
        fact = self._trap(subject.hashed) or self._trap(subject.domain.hashed)
        if fact is None:
            return None
        return "address", f"is a known spam trap ({fact.kind}); {ABOUT_TRAPS}"

    def _suspected(self, subject: Subject) -> tuple[str, str] | None:
        why = self._recycled(subject.hashed) or self._recycled(subject.domain.hashed)
        return None if why is None else ("address", f"{why}; write to it only if its owner has signed up since")


class Questions:
    """The screens of one campaign's policy."""

    __slots__ = ("_domain", "_of_domain", "_wanted")

    def __init__(
        self, wanted: tuple[_Wanted, ...], of_domain: tuple[_Wanted, ...], domain: Callable[[str], Domain]
    ) -> None:
        self._wanted = wanted
        self._of_domain = of_domain
        self._domain = domain

    def domain_hash(self, domain: str) -> str:
        """What stands for a whole domain."""
        return self._domain(domain).hashed

    def objections(self, recipient: Recipient, checked: CheckedAddress, hashed: str, now: int) -> list[Objection]:
        """What the screens have against a recipient, the worst first."""
        domain = self._domain(checked.domain)
        subject = Subject(recipient, checked, hashed, domain, role_of(checked.local), now)
        found: list[Objection] = []
        for name, does, screen in self._wanted:
            objection = screen(subject)
            if objection is not None:
                found.append(Objection(name, does, objection[0], objection[1]))
        if domain.is_odd:
            found += [
                Objection(name, does, *objection)
                for name, does, screen in self._of_domain
                if (objection := screen(subject)) is not None
            ]
        if len(found) > 1:
            found.sort(key=lambda one: (-one.severity, one.screen == CONTACT))
        return found


def _asked(wanted: tuple[_Wanted, ...]) -> tuple[_Wanted, ...]:
    return tuple(one for one in wanted if one[1] != "off")


def _typo_domain(subject: Subject) -> tuple[str, str] | None:
    likely = subject.domain.likely
    if likely is None:
        return None
    return "address", f"has a domain that is most likely a misspelt {likely}; ask the recipient, do not guess"


def _disposable(subject: Subject) -> tuple[str, str] | None:
    if subject.domain.disposable is None:
        return None
    return "address", "is of a domain whose addresses are thrown away after use; ask for another one"


def _role_account(subject: Subject) -> tuple[str, str] | None:
    if subject.role != "never":
        return None
    return "address", "belongs to a function of its domain and not to a person who signed up; remove it from the list"


def _contact(subject: Subject) -> tuple[str, str] | None:
    if subject.role != "contact":
        return None
    return "address", "is read by whoever is on duty and not by one person; make sure that somebody signed up with it"


def _sunset(after_ms: int) -> Screen:
    def screen(subject: Subject) -> tuple[str, str] | None:
        seen = subject.recipient.last_seen_at
        if seen is None:
            return None
        silent_ms = subject.now - max(seen, subject.recipient.opted_in_at or 0)
        if silent_ms <= after_ms:
            return None
        return "last_seen_at", (
            f"is {_days(silent_ms)} days ago, the campaign's limit is {_days(after_ms)} (admission.sunset_days); stop "
            "writing to this recipient, or ask once whether mail is still wanted"
        )

    return screen


def _age(after_ms: int) -> Screen:
    def screen(subject: Subject) -> tuple[str, str] | None:
        agreed, seen = subject.recipient.opted_in_at, subject.recipient.last_seen_at
        if agreed is None or (seen is not None and seen > agreed) or subject.now - agreed <= after_ms:
            return None
        return "opted_in_at", (
            f"is {_days(subject.now - agreed)} days ago and the recipient was never seen since, the campaign's limit "
            f"is {_days(after_ms)} (admission.age_days); ask for permission anew, by another way than mail"
        )

    return screen


def _provenance(subject: Subject) -> tuple[str, str] | None:
    recipient = subject.recipient
    if recipient.source is None or not recipient.source.strip():
        return "source", "is missing, and the campaign wants to know where each recipient comes from; fill it in"
    if recipient.opted_in_at is None:
        return "opted_in_at", "is missing, and the campaign wants to know when each recipient agreed; fill it in"
    if recipient.opted_in_at > subject.now + _DAY_MS:
        return "opted_in_at", "lies in the future; write the time at which the recipient agreed, in milliseconds"
    return None


def _days(span_ms: int) -> int:
    return span_ms // _DAY_MS
