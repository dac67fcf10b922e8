"""When the topics of a campaign are no longer needed: it is retired for long, and nobody's mail is in them.

Retired is for good, so nothing will ever be read from them again; what is still unread or waits there is mail that
somebody asked for, and it is for people to decide what becomes of it.
"""

from dataclasses import dataclass

from schemas.reputation import Control

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Remains:
    """What is left in a campaign's topics, and who still reads there.

    ``unread`` counts records of its outbound topic that no sender has taken.  In its ledger ``waiting`` messages are to
    be tried again, of ``doubtful`` ones nobody knows whether they were sent, ``untold`` entries may have results that
    are not published, and ``unreadable`` ones are none that we know.  ``readers`` are senders that still run,
    ``leaderless`` topics cannot be asked now.
    """

    unread: int = 0
    waiting: int = 0
    doubtful: int = 0
    untold: int = 0
    unreadable: int = 0
    readers: int = 0
    leaderless: int = 0


def is_over(control: Control, *, now: int, days: int) -> bool:
    """Has this campaign been retired for so many days?  ``now`` in milliseconds."""
    return control.state == "retired" and control.at <= now - days * DAY_MS


def objections(left: Remains) -> tuple[str, ...]:
    """Why the topics must stay; none when nobody needs them."""
    said = (
        (left.leaderless, "topics have no leader now and cannot be asked"),
        (left.readers, "senders still read there"),
        (left.unread, "records of its outbound topic are unread"),
        (left.waiting, "messages wait in its ledger for another attempt"),
        (left.doubtful, "messages in its ledger may have been sent or not"),
        (left.untold, "entries of its ledger have results that may not be published"),
        (left.unreadable, "entries of its ledger cannot be read"),
    )
    return tuple(f"{count:,} {what}" for count, what in said if count)
