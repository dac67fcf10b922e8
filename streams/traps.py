"""Our own traps as the topic ``mail.traps`` tells them: by keyed hash, some thousands, in memory."""

from collections.abc import Iterator

from policy.traps import TrapFact, fact_of
from schemas.codec import Malformed, decode
from schemas.feedback import RegisteredTrap
from schemas.topics import TRAPS
from streams.reading import to_the_end


class Traps:
    """The newest of each hash."""

    def __init__(self) -> None:
        self._facts: dict[str, TrapFact] = {}

    def __len__(self) -> int:
        return len(self._facts)

    def __iter__(self) -> Iterator[tuple[str, TrapFact]]:
        return iter(self._facts.items())

    def __contains__(self, hashed: str) -> bool:
        return hashed in self._facts

    def get(self, hashed: str) -> TrapFact | None:
        """What is known of the trap whose address, or ``@`` and domain, has this hash."""
        return self._facts.get(hashed)

    def apply(self, key: str, raw: bytes | None) -> bool | Malformed:
        """Take in one record; answers whether something changed.

        The key counts: it is what a tombstone removes.
        """
        if raw is None:
            return self._facts.pop(key, None) is not None
        match decode(RegisteredTrap, raw):
            case Malformed() as malformed:
                return malformed
            case record if record.hash != key:
                return Malformed(
                    reason="wrong_field", explain="field hash of RegisteredTrap: expected the record's key"
                )
            case record:
                fact = fact_of(record)
                changed = self._facts.get(key) != fact
                self._facts[key] = fact
                return changed


async def registered(bootstrap: str, *, within_s: float = 15.0) -> dict[str, RegisteredTrap]:
    """The whole registry as it is now, oldest first."""
    found: dict[str, RegisteredTrap] = {}
    async for record in to_the_end(bootstrap, TRAPS, within_s=within_s):
        key = (record.key or b"").decode("utf-8", "replace")
        trap = None if record.value is None else decode(RegisteredTrap, record.value)
        if trap is None:
            found.pop(key, None)
        elif not isinstance(trap, Malformed):
            found[key] = trap
    return dict(sorted(found.items(), key=lambda one: (one[1].since, one[0])))
