"""What a ledger says, as one value: which messages are done, in doubt, or to be tried again.

It is the fold of the ledger's entries, the same whether they are read back after a crash or have just been
written.  So what a sender believes and what its successor will believe never differ.
"""

from base64 import b64decode
from dataclasses import dataclass, field

from schemas.delivery import FINAL, DeliveryResult, LedgerEntry, Snapshot
from smtp.sending.done import Remembered, from_little_endian, id_hash
from smtp.sending.tiers import Tiers

WITHHELD = "withheld"
"""The class of a result that stands in the ledger alone: the intent before it was not carried out, nothing was sent."""


@dataclass(slots=True)
class Memory:
    """One ledger partition up to ``next_offset``.

    ``doubtful`` are intents without a result.  ``waiting`` are the messages that the ledger holds until they are due.
    ``attempts`` are attempts made, and when the next one is due, of messages that were deferred and are held by
    their frame, as senders wrote it before the ledger could hold messages.  ``published`` is the newest entry whose
    results are known to be published.  The entries from ``snapshot`` on say everything; ``written`` results came
    since.
    """

    done: Remembered = field(default_factory=Remembered)
    doubtful: set[int] = field(default_factory=set)
    waiting: Tiers = field(default_factory=Tiers)
    attempts: dict[int, tuple[int, int]] = field(default_factory=dict)
    next_offset: int = 0
    published: int = -1
    snapshot: int = 0
    written: int = 0

    def apply(self, offset: int, entry: LedgerEntry) -> None:
        """Go one entry on."""
        for result in entry.results:
            self._settle(result, entry.at)
        for parked in entry.parked:
            key = id_hash(parked.message.message_id)
            if key in self.done:
                continue
            self.attempts.pop(key, None)
            (self.waiting.put if entry.snapshot is None else self.waiting.carry)(key, offset, due=parked.due)
        for message_id in entry.intents:
            key = id_hash(message_id)
            if key not in self.done:
                self.doubtful.add(key)
        if entry.snapshot is not None:
            self._restore(entry.snapshot)
        self.published = max(self.published, entry.published)
        self.next_offset = offset + 1

    def _settle(self, result: DeliveryResult, at: int) -> None:
        self.written += 1
        key = id_hash(result.message_id)
        self.doubtful.discard(key)
        if result.outcome in FINAL:
            self.done.add(key, at=at)
            self.attempts.pop(key, None)
            self.waiting.drop(key)
        elif result.class_ != WITHHELD:
            self.attempts[key] = (result.attempt, result.next_attempt_at or result.at)

    def _restore(self, snapshot: Snapshot) -> None:
        for ids in snapshot.done:
            self.done.restore(ids.period, from_little_endian(b64decode(ids.ids)))
        self.doubtful.update(key for key in from_little_endian(b64decode(snapshot.doubtful)) if key not in self.done)
        if snapshot.is_complete:
            self.snapshot = snapshot.since
            self.written = 0


def told(entry: LedgerEntry) -> list[DeliveryResult]:
    """The results of an entry that others are told of."""
    return [result for result in entry.results if result.class_ != WITHHELD]
