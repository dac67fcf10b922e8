"""Which addresses get no mail: a million of them in 28 to 52 MB, asked without touching the network.

Of an address hash 64 bits are kept.  Among a million suppressions one address in 10**13 is taken for a suppressed
one by that; it gets no mail, which is the side to err on.

Nearly every address that is asked for is suppressed nowhere.  A sieve says so with one look, whatever the scopes: a
bit for each hash that was ever suppressed.  With a million suppressions it lets three in a hundred others pass, for
which the tables are asked in vain.  Bits are never taken back, so lifting costs nothing.

What is over is remembered: an address that was dead and takes mail again is worth a word (:meth:`Suppressed.past`).
A whole domain is suppressed like an address, by the hash of ``@`` and the domain.
"""

from collections.abc import Callable, Iterable, Sequence

from policy.hashed import HashedNumbers

_DIGEST_BYTES = 16  # that a hash has at least; the first half of them is kept
_DIGITS = _DIGEST_BYTES  # of the half that is kept
_SIEVE_BYTES = 1 << 22  # a power of two
_SIEVE_MASK = _SIEVE_BYTES - 1
_BITS = bytes(1 << bit for bit in range(8))
_REASON_BITS = 16
_REASON_MASK = (1 << _REASON_BITS) - 1
_SINCE_LIMIT = (1 << 46) - 1  # ms since the epoch, until the year 4199
_UNTIL_LIMIT = (1 << 64) - 1
_OTHER = "other"


class Suppressed:
    """Digests per scope, each with its reason and its beginning, and with its end where it has one."""

    def __init__(self) -> None:
        self._scopes: dict[str, HashedNumbers] = {}  # scope -> digest -> since and reason in one number
        self._until: dict[str, HashedNumbers] = {}  # only those that end by themselves
        self._reasons: list[str] = []  # each once, however many have it
        self._numbers: dict[str, int] = {}
        self._sieve = bytearray(_SIEVE_BYTES)  # costs no memory where it was never written to

    def __len__(self) -> int:
        return sum(map(len, self._scopes.values()))

    def add(self, address_hash: str, scope: str, *, reason: str, since: int = 0, until: int | None = None) -> None:
        """Suppress an address within a scope; a hash that is not hexadecimal is a ``ValueError``.

        One that is suppressed already stays so from its first time on; one whose time was over by then begins anew.
        """
        digest = _digest(address_hash)
        held = self._scopes.setdefault(scope, HashedNumbers())
        place = hash(address_hash[:_DIGITS].lower())
        self._sieve[place >> 3 & _SIEVE_MASK] |= _BITS[place & 7]
        known = held.get(digest)
        begins = min(max(since, 0), _SINCE_LIMIT)
        if known is not None and not self._was_over(digest, scope, since):
            begins = known >> _REASON_BITS
        held.put(digest, begins << _REASON_BITS | self._number(reason))
        if until is not None:
            self._until.setdefault(scope, HashedNumbers()).put(digest, min(max(until, 0), _UNTIL_LIMIT))
        elif scope in self._until:
            self._drop(self._until, scope, digest)

    def _was_over(self, digest: int, scope: str, at: int) -> bool:
        ends = self._until.get(scope)
        until = None if ends is None else ends.get(digest)
        return until is not None and until <= at

    def lift(self, address_hash: str, scope: str) -> None:
        """Lift the suppression of an address within one scope."""
        digest = _digest(address_hash)
        for scopes in (self._scopes, self._until):
            if scope in scopes:
                self._drop(scopes, scope, digest)

    def reason(self, address_hash: str, scopes: Iterable[str], *, now: int) -> str | None:
        """Why an address is suppressed in the first of these scopes in which it is; None if it is not."""
        return self.within(scopes, now=now)(address_hash)

    def within(self, scopes: Iterable[str], *, now: int) -> Callable[[str], str | None]:
        """The same question for many addresses at one time: scopes in which nobody is cost nothing.

        A text that is no address hash, as this project writes them, is nobody's and suppressed nowhere.
        """
        held = [(self._scopes[scope], self._until.get(scope)) for scope in scopes if scope in self._scopes]
        reasons, sieve = self._reasons, self._sieve

        def reason(address_hash: str) -> str | None:
            place = hash(address_hash[:_DIGITS])
            if not sieve[place >> 3 & _SIEVE_MASK] & _BITS[place & 7]:
                return None
            try:
                digest = _digest(address_hash)
            except ValueError:
                return None
            for numbers, ends in held:
                found = numbers.get(digest)
                if found is None or found >> _REASON_BITS > now:
                    continue
                until = None if ends is None else ends.get(digest)
                if until is None or now < until:
                    return reasons[found & _REASON_MASK]
            return None

        return reason if held else _nobody

    def may_know(self, address_hash: str) -> bool:
        """False: it is suppressed nowhere, and never was."""
        place = hash(address_hash[:_DIGITS])
        return bool(self._sieve[place >> 3 & _SIEVE_MASK] & _BITS[place & 7])

    def passing(self, hashes: Sequence[str | None]) -> list[int]:
        """Which of these, by position, may be suppressed somewhere or have been; all others surely not."""
        if not self._scopes:
            return []
        sieve = self._sieve
        return [
            position
            for position, one in enumerate(hashes)
            if one is not None and sieve[(place := hash(one[:_DIGITS])) >> 3 & _SIEVE_MASK] & _BITS[place & 7]
        ]

    def past(self, address_hash: str, scopes: Iterable[str]) -> list[tuple[str, int, int | None]]:
        """What is remembered of an address: reason, since and until, whether it is in force or over."""
        try:
            digest = _digest(address_hash)
        except ValueError:
            return []
        found: list[tuple[str, int, int | None]] = []
        for scope in scopes:
            held = self._scopes.get(scope)
            number = None if held is None else held.get(digest)
            if number is not None:
                ends = self._until.get(scope)
                until = None if ends is None else ends.get(digest)
                found.append((self._reasons[number & _REASON_MASK], number >> _REASON_BITS, until))
        return found

    def bytes_used(self) -> int:
        """How much memory all of it takes, but for some words."""
        tables = sum(held.bytes_used() for scopes in (self._scopes, self._until) for held in scopes.values())
        return tables + (_SIEVE_BYTES if self._scopes else 0)

    @staticmethod
    def _drop(scopes: dict[str, HashedNumbers], scope: str, digest: int) -> None:
        scopes[scope].drop(digest)
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


def _digest(address_hash: str) -> int:
    digest = bytes.fromhex(address_hash)
    if len(digest) < _DIGEST_BYTES:
        raise ValueError(f"an address hash has at least {2 * _DIGEST_BYTES} hex digits")
    return int.from_bytes(digest[: _DIGEST_BYTES // 2], "little") or 1
