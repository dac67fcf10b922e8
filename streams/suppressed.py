"""Which addresses get no mail: a million of them in 28 to 52 MB, asked without touching the network.

Of an address hash 64 bits are kept, its hash within this process.  Among a million suppressions one address in 10**13
is taken for a suppressed one by that; it gets no mail, which is the side to err on.

Nearly every address that is asked for is suppressed nowhere.  A sieve says so with one look, whatever the scopes.

What is over is remembered: an address that was dead and takes mail again is worth a word (:meth:`Suppressed.past`).
A whole domain is suppressed like an address, by the hash of ``@`` and the domain, and always with an end.
"""

from collections.abc import Callable, Iterable

from policy.hashed import BITS, BYTE_FROM, LOW_BITS, SHARD, SLOT_FROM, HashedNumbers, Sieve
from policy.trap_signals import BAD_DOMAIN, is_dead

_HASH_BYTES = 16  # that an address hash has at least
_REASON_BITS = 16
_REASON_MASK = (1 << _REASON_BITS) - 1
_SINCE_LIMIT = (1 << 46) - 1  # ms since the epoch, until the year 4199
_UNTIL_LIMIT = (1 << 63) - 1
_OTHER = "other"


class Suppressed:
    """Hashes per scope, each with its reason and its beginning, and with its end where it has one.

    ``ending`` lets pass dead addresses with an end, which alone can come back.  ``on_domain`` hears the hash of each
    domain that is suppressed: there are few, and many results have the same.
    """

    def __init__(self) -> None:
        self._scopes: dict[str, HashedNumbers] = {}  # scope -> hash -> since and reason in one number
        self._until: dict[str, HashedNumbers] = {}  # only those that end by themselves
        self._reasons: list[str] = []  # each once, however many have it
        self._numbers: dict[str, int] = {}
        self._all = Sieve()
        self.ending = Sieve()
        self.on_domain: Callable[[str], None] | None = None

    def __len__(self) -> int:
        return sum(map(len, self._scopes.values()))

    def add(self, address_hash: str, scope: str, *, reason: str, since: int = 0, until: int | None = None) -> None:
        """Suppress an address within a scope; a hash that is not hexadecimal is a ``ValueError``.

        One that is suppressed already stays so from its first time on; one whose time was over by then begins anew.
        """
        key = _key(address_hash)
        held = self._scopes.setdefault(scope, HashedNumbers(signed=True))
        self._all.add(address_hash.lower())
        known = held.get(key)
        begins = min(max(since, 0), _SINCE_LIMIT)
        if known is not None and not self._was_over(key, scope, since):
            begins = known >> _REASON_BITS
        held.put(key, begins << _REASON_BITS | self._number(reason))
        if until is not None:
            if reason == BAD_DOMAIN:
                if self.on_domain is not None:
                    self.on_domain(address_hash)
            elif is_dead(reason):
                self.ending.add(address_hash.lower())
            self._until.setdefault(scope, HashedNumbers(signed=True)).put(key, min(max(until, 0), _UNTIL_LIMIT))
        elif scope in self._until:
            self._drop(self._until, scope, key)

    def _was_over(self, key: int, scope: str, at: int) -> bool:
        ends = self._until.get(scope)
        until = None if ends is None else ends.get(key)
        return until is not None and until <= at

    def lift(self, address_hash: str, scope: str) -> None:
        """Lift the suppression of an address within one scope."""
        key = _key(address_hash)
        for scopes in (self._scopes, self._until):
            if scope in scopes:
                self._drop(scopes, scope, key)

    def reason(self, address_hash: str, scopes: Iterable[str], *, now: int) -> str | None:
        """Why an address is suppressed in the first of these scopes in which it is; None if it is not."""
        return self.within(scopes, now=now)(address_hash)

    def within(self, scopes: Iterable[str], *, now: int) -> Callable[[str], str | None]:
        """The same question for many addresses at one time: scopes in which nobody is cost nothing.

        A text that is no address hash, as this project writes them, is nobody's and suppressed nowhere.
        """
        held = [(self._scopes[scope].tables, self._until.get(scope)) for scope in scopes if scope in self._scopes]
        reasons, bits, bit_of, not_yet = self._reasons, self._all.bits, BITS, now + 1 << _REASON_BITS

        # This is asked for every recipient and again for every message, so the looks into the sieve and the tables
        # are written out: calls would be a third of the time.
        def reason(address_hash: str) -> str | None:
            key = hash(address_hash)
            low = key & LOW_BITS
            if not bits[low >> BYTE_FROM] & bit_of[low & 7]:
                return None
            for tables, ends in held:
                table = tables[low & SHARD]
                around = len(table) - 2
                at = low >> SLOT_FROM & around
                while (found := table[at]) != key and found:
                    at = at + 2 & around
                if not found or (number := table[at + 1]) >= not_yet:
                    continue
                until = None if ends is None else ends.get(key)
                if until is None or now < until:
                    return reasons[number & _REASON_MASK]
            return None

        return reason if held else _nobody

    def may_know(self, address_hash: str) -> bool:
        """False: it is suppressed nowhere, and never was."""
        return address_hash in self._all

    def past(self, address_hash: str, scopes: Iterable[str]) -> list[tuple[str, int, int | None]]:
        """What is remembered of an address: reason, since and until, whether it is in force or over."""
        key = hash(address_hash.lower())
        found: list[tuple[str, int, int | None]] = []
        for scope in scopes:
            held = self._scopes.get(scope)
            number = None if held is None else held.get(key)
            if number is not None:
                ends = self._until.get(scope)
                until = None if ends is None else ends.get(key)
                found.append((self._reasons[number & _REASON_MASK], number >> _REASON_BITS, until))
        return found

    def bytes_used(self) -> int:
        """How much memory all of it takes, but for some words."""
        tables = sum(held.bytes_used() for scopes in (self._scopes, self._until) for held in scopes.values())
        return tables + sum(sieve.bytes_used() for sieve in (self._all, self.ending))

    @staticmethod
    def _drop(scopes: dict[str, HashedNumbers], scope: str, key: int) -> None:
        scopes[scope].drop(key)
        if not len(scopes[scope]):
            del scopes[scope]

    def _number(self, reason: str) -> int:
        """Reasons are a few words; if somebody writes more than fit, the others share one."""
        if reason not in self._numbers and len(self._reasons) >= _REASON_MASK:
            reason = _OTHER
        number = self._numbers.setdefault(reason, len(self._reasons))
        if number == len(self._reasons):
            self._reasons.append(reason)
        return number


def _nobody(_address_hash: str) -> str | None:
    return None


def _key(address_hash: str) -> int:
    if len(bytes.fromhex(address_hash)) < _HASH_BYTES:
        raise ValueError(f"an address hash has at least {2 * _HASH_BYTES} hex digits")
    return hash(address_hash.lower()) or 1
