"""What a ledger says, as one value: which messages are done, in doubt, or to be tried again.

It is the fold of the ledger's entries, the same whether they are read back after a crash or have just been
written.  So what a sender believes and what its successor will believe never differ.
"""

from dataclasses import dataclass, field

from schemas.delivery import FINAL, DeliveryResult, LedgerEntry
from smtp.sending.done import DoneIds, id_hash

WITHHELD = "withheld"
"""The class of a result that stands in the ledger alone: the intent before it was not carried out, nothing was sent."""


@dataclass(slots=True)
class Memory:
    """One ledger partition up to ``next_offset``.

    ``doubtful`` are intents without a result.  ``attempts`` are attempts made, and when the next one is due, of
    messages that were deferred.  ``published`` is the newest entry whose results are known to be published.
    """

    done: DoneIds = field(default_factory=DoneIds)
    doubtful: set[int] = field(default_factory=set)
    attempts: dict[int, tuple[int, int]] = field(default_factory=dict)
    next_offset: int = 0
    published: int = -1

    def apply(self, offset: int, entry: LedgerEntry) -> None:
        """Go one entry on."""
        for result in entry.results:
            key = id_hash(result.message_id)
            self.doubtful.discard(key)
            if result.outcome in FINAL:
                self.done.add(key)
                self.attempts.pop(key, None)
            elif result.class_ != WITHHELD:
                self.attempts[key] = (result.attempt, result.next_attempt_at or result.at)
        for message_id in entry.intents:
            key = id_hash(message_id)
            if key not in self.done:
                self.doubtful.add(key)
        self.published = max(self.published, entry.published)
        self.next_offset = offset + 1


def told(entry: LedgerEntry) -> list[DeliveryResult]:
    """The results of an entry that others are told of."""
    return [result for result in entry.results if result.class_ != WITHHELD]
