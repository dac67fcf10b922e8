"""One minute of one campaign, as the table keeps it: counts, and all that makes them count once.

A pane is a list, because a table value is JSON::

    [[applied results offset, applied feedback offset],
     {"provider|ip": [counts as in policy.counts.VECTOR]},
     [newest signals against the sender: [topic, partition, offset, message id, kind, at, what of a trap is known]],
     [ids of the feedback that was counted],
     {ledger partition: newest ledger offset that was counted},
     {"list source|": [counts as above]}]

The last one is missing where nothing is known of sources, and in panes of an older version.

Offsets, ids and ledger positions stand beside the counts that they belong to, and so are written with them or not at
all.  A record that comes again after a crash is behind the applied offset of every pane that was written, and ahead
of the others.  A frame that a sender publishes again has a new offset, but the same results, thus the same panes,
and in each of them its ledger position was applied.

Panes are never changed in place: a value that was put into the table may not have been written yet.
"""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from policy.counts import widened
from schemas.base import Millis
from schemas.delivery import Position
from schemas.feedback import Trap
from schemas.reputation import Reference
from schemas.topics import FEEDBACK, RESULTS

SIZE_S = 60
RECENT_PER_KIND = 5

Cells = dict[str, list[int]]
Signal = list[Any]  # Any: JSON; see the module's docstring
Pane = list[Any]
EMPTY: Pane = [[-1, -1], {}, [], [], {}]
_NO_CELLS: Cells = {}
NOT_APPLIED = -1

_RESULTS, _FEEDBACK = 0, 1  # places of the offsets
_OFFSETS, _CELLS, _RECENT, _IDS, _LEDGER, _SOURCES = range(6)
_TOPICS = (RESULTS, FEEDBACK)


def with_results(
    pane: Pane,
    cells: Cells,
    signals: Sequence[Signal],
    *,
    offset: int,
    ledger: Position | None,
    sources: Cells = _NO_CELLS,
) -> Pane | None:
    """The pane with a frame's results; None if they are in it already."""
    if offset <= pane[_OFFSETS][_RESULTS]:
        return None
    positions = pane[_LEDGER]
    if ledger is not None:
        place = str(ledger.partition)
        if ledger.offset <= positions.get(place, NOT_APPLIED):
            return None
        positions = positions | {place: ledger.offset}
    return [
        [offset, pane[_OFFSETS][_FEEDBACK]],
        added(pane[_CELLS], cells),
        newest(pane[_RECENT], signals),
        pane[_IDS],
        positions,
        *_sources_with(pane, sources),
    ]


def with_feedback(
    pane: Pane,
    cells: Cells,
    signals: Sequence[Signal],
    *,
    offset: int,
    ids: Sequence[str],
    sources: Cells = _NO_CELLS,
) -> Pane | None:
    """The pane with a record's feedback, whose ``ids`` are new; None if it is in it already."""
    if offset <= pane[_OFFSETS][_FEEDBACK]:
        return None
    return [
        [pane[_OFFSETS][_RESULTS], offset],
        added(pane[_CELLS], cells),
        newest(pane[_RECENT], signals),
        [*pane[_IDS], *ids],
        pane[_LEDGER],
        *_sources_with(pane, sources),
    ]


def _sources_with(pane: Pane, more: Cells) -> list[Cells]:
    """The sources of a pane and more of them, as the end of the pane that follows."""
    held: Cells = pane[_SOURCES] if len(pane) > _SOURCES else {}
    return [added(held, more)] if held or more else []


def only_address(pane: Pane) -> str | None:
    """The address from which all mail of the pane was sent; None if there were several, or none is known."""
    cells: Cells = pane[_CELLS]
    found = {name.partition("|")[2] for name in cells} - {""}
    return found.pop() if len(found) == 1 else None


def of_the_only_source(pane: Pane, cells: Cells) -> Cells:
    """What feedback adds to the pane's list source, if all that was sent in that minute came from one.

    Feedback knows its message and no source; when there were several, nobody can tell whose it is.
    """
    sources: Cells = pane[_SOURCES] if len(pane) > _SOURCES else {}
    if len(sources) != 1 or not cells:
        return {}
    [(key, known)] = sources.items()
    sent = [sum(column) for column in zip(*pane[_CELLS].values(), strict=True)]
    if sent[:1] != known[:1]:  # some of the accepted mail had no source
        return {}
    return {key: [sum(column) for column in zip(*cells.values(), strict=True)]}


def added(held: Cells, more: Cells) -> Cells:
    """The sum of two sets of cells; neither is changed, and cells that only one has are shared."""
    total = dict(held)
    for name, vector in more.items():
        there = total.get(name)
        total[name] = vector if there is None else [a + b for a, b in zip(widened(there), vector, strict=True)]
    return total


def newest(held: Sequence[Signal], more: Sequence[Signal]) -> list[Signal]:
    """The newest signals of each kind, oldest first."""
    if not more:
        return list(held)
    room: dict[str, int] = {}
    kept: list[Signal] = []
    for signal in reversed([*held, *more]):
        kind = signal[4]
        room[kind] = room.get(kind, RECENT_PER_KIND) - 1
        if room[kind] >= 0:
            kept.append(signal)
    kept.reverse()
    return kept


def signal(
    place: int,
    *,
    partition: int,
    offset: int,
    message_id: str | None,
    kind: str,
    at: Millis,
    trap: Trap | None = None,
) -> Signal:
    """One signal against the sender, and where it can be looked up."""
    one = [place, partition, offset, message_id, kind, at]
    return one if trap is None else [*one, [trap.kind, trap.strength, trap.where]]


def references(signals: Iterable[Signal]) -> list[Reference]:
    """Signals as they travel."""
    return [
        Reference(
            topic=_TOPICS[place],
            partition=partition,
            offset=offset,
            message_id=message,
            kind=kind,
            at=at,
            trap=Trap(kind=trap[0][0], strength=trap[0][1], where=trap[0][2]) if trap else None,
        )
        for place, partition, offset, message, kind, at, *trap in signals
    ]


def feedback_id(message_id: str, kind: str) -> str:
    """Eight bytes that stand for "this kind of feedback about this message"."""
    digest = hashlib.blake2b(f"{kind}|{message_id}".encode(), digest_size=8).digest()
    return base64.b85encode(digest).decode()


def applied(pane: Pane) -> list[int]:
    """The offsets that the pane has applied, of results and of feedback."""
    return list(pane[_OFFSETS])


def cells_of(pane: Pane) -> Cells:
    """The counts of the pane, also of one that an older version wrote."""
    return {name: widened(vector) for name, vector in pane[_CELLS].items()}


def sources_of(pane: Pane) -> Cells:
    """What the pane has counted of each list source."""
    return {name: widened(vector) for name, vector in pane[_SOURCES].items()} if len(pane) > _SOURCES else {}


def recent_of(pane: Pane) -> list[Signal]:
    """The signals that the pane remembers."""
    recent: list[Signal] = pane[_RECENT]
    return recent


def ids_of(pane: Pane) -> list[str]:
    """The ids of the feedback that the pane has counted."""
    ids: list[str] = pane[_IDS]
    return ids
