"""Which addresses get no mail: a million of them in about 100 MB, asked without touching the network."""

from collections import OrderedDict
from collections.abc import Callable, Iterable

_BEGINNINGS = 100_000  # of the newest suppressions; older ones count as if they had always been there
_DIGEST_BYTES = 16  # of the 32 that the hash has: among a million, two share them once in 10**26 installations


class Suppressed:
    """Digests per scope, each with its reason, and with its end where it has one."""

    def __init__(self) -> None:
        self._reasons: dict[str, dict[bytes, str]] = {}  # scope -> digest -> reason
        self._until: dict[tuple[str, bytes], int] = {}  # only those that end by themselves
        self._since: OrderedDict[tuple[str, bytes], int] = OrderedDict()  # only the newest
        self._shared: dict[str, str] = {}  # a reason is kept once, however many have it

    def __len__(self) -> int:
        return sum(map(len, self._reasons.values()))

    def add(self, address_hash: str, scope: str, *, reason: str, since: int = 0, until: int | None = None) -> None:
        """Suppress an address within a scope; a hash that is not hexadecimal is a ``ValueError``.

        One that is suppressed already stays so from its first time on.
        """
        digest = _digest(address_hash)
        held = self._reasons.setdefault(scope, {})
        if digest not in held:
            self._since[scope, digest] = since
            if len(self._since) > _BEGINNINGS:
                self._since.popitem(last=False)
        held[digest] = self._shared.setdefault(reason, reason)
        if until is None:
            self._until.pop((scope, digest), None)
        else:
            self._until[scope, digest] = until

    def lift(self, address_hash: str, scope: str) -> None:
        """Lift the suppression of an address within one scope."""
        digest = _digest(address_hash)
        self._until.pop((scope, digest), None)
        self._since.pop((scope, digest), None)
        held = self._reasons.get(scope, {})
        held.pop(digest, None)
        if not held:
            self._reasons.pop(scope, None)

    def reason(self, address_hash: str, scopes: Iterable[str], *, now: int) -> str | None:
        """Why an address is suppressed in the first of these scopes in which it is; None if it is not."""
        return self.within(scopes, now=now)(address_hash)

    def within(self, scopes: Iterable[str], *, now: int) -> Callable[[str], str | None]:
        """The same question for many addresses at one time: scopes in which nobody is cost nothing."""
        held = [(scope, self._reasons[scope]) for scope in scopes if scope in self._reasons]
        until, since = self._until, self._since

        def reason(address_hash: str) -> str | None:
            digest = _digest(address_hash)
            for scope, reasons in held:
                found = reasons.get(digest)
                if found is None:
                    continue
                place = (scope, digest)
                if since.get(place, now) <= now < until.get(place, now + 1):
                    return found
            return None

        return reason if held else _nobody


def _nobody(_address_hash: str) -> str | None:
    return None


def _digest(address_hash: str) -> bytes:
    digest = bytes.fromhex(address_hash)[:_DIGEST_BYTES]
    if len(digest) < _DIGEST_BYTES:
        raise ValueError(f"an address hash has at least {2 * _DIGEST_BYTES} hex digits")
    return digest
