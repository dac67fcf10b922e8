"""Counts: what results and feedback add to which minute, and the sums of the last minutes.

What is counted, per campaign, minute, provider and sending address:

- ``accepted``: a server took the message.
- ``deferral``: a 4xx answer; when its category says the server does not want us (reputation, blocklist, rate,
  policy), ``block`` as well.  Too many connections are our own doing and count as a deferral only.
- ``bounced``: ``hard_bounce`` when the address is dead, ``block`` when we are not wanted, else ``soft_bounce``.
- ``expired``: ``soft_bounce``; it is no answer of a server, so it is no attempt.
- ``suppressed`` and ``in_doubt`` count nothing: no server said anything.
- ``attempts``: the answers of servers: accepted, deferred, bounced.

Feedback counts in the minute in which its message was sent, so that it meets its own denominator.  A hard bounce
that comes back later leaves ``accepted`` as it is: the message was accepted, and then turned out to be
undeliverable.  ``not_spam`` and ``auto_reply`` count nothing.

Complaints are heard from few providers: ``accepted_heard`` is what those have accepted, ``complaint_unheard`` are the
complaints that came from others all the same (a person who writes to us).  A report that does not say whose recipient
complained came through a feedback loop, and counts so.

A trap hit counts as one message, and beside that by its weight (:mod:`policy.traps`); one that weighs nothing does not
count at all.  Only hits of our own traps are told apart by kind.

Vectors that an older version wrote down are shorter: new columns come last, and :func:`widened` fills them in.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from operator import add

from msgspec.structs import astuple

from policy.providers import heard
from policy.replies import shipped
from policy.traps import WEIGHTS, WHOLE, is_confirmed, weight_of
from schemas.counting import Accepted
from schemas.delivery import DeliveryResult
from schemas.feedback import FeedbackEvent
from schemas.reputation import Counts

MINUTE_MS = 60_000
VECTOR: tuple[str, ...] = Counts.__struct_fields__
WINDOWS_MIN: dict[str, int] = {"5m": 5, "1h": 60, "24h": 1440, "7d": 10_080}

Vector = list[int]
Cells = dict[str, Vector]  # "provider|ip" -> counts in the order of VECTOR

_WIDTH = len(VECTOR)
_SOURCE_LENGTH = 80
_ZEROS = [0] * _WIDTH
_counts: Callable[..., Counts] = eval(  # noqa: S307 - a quarter of the time of a dict, and snapshots are made of these
    f"lambda {', '.join(VECTOR)}: Counts({', '.join(f'{name}={name}' for name in VECTOR)})"
)
_NOTHING = Counts()
_LONGEST = max(WINDOWS_MIN.values())
_ACCEPTED = VECTOR.index("accepted")
_HARD = VECTOR.index("hard_bounce")
_SOFT = VECTOR.index("soft_bounce")
_BLOCK = VECTOR.index("block")
_DEFERRAL = VECTOR.index("deferral")
_COMPLAINT = VECTOR.index("complaint")
_TRAP = VECTOR.index("trap_hit")
_WEIGHT = VECTOR.index("trap_weight")
_CONFIRMED = {
    "pristine": VECTOR.index("trap_hit_pristine"),
    "recycled": VECTOR.index("trap_hit_recycled"),
}
_TYPO = VECTOR.index("trap_hit_typo")
_UNSUBSCRIBE = VECTOR.index("unsubscribe")
_ATTEMPTS = VECTOR.index("attempts")
_ACCEPTED_HEARD = VECTOR.index("accepted_heard")
_COMPLAINT_UNHEARD = VECTOR.index("complaint_unheard")

_FEEDBACK = {
    "hard_bounce": _HARD,
    "soft_bounce": _SOFT,
    "block": _BLOCK,
    "complaint": _COMPLAINT,
    "trap_hit": _TRAP,
    "unsubscribe": _UNSUBSCRIBE,
}


def cell_key(provider: str | None, ip: str | None) -> str:
    """The key of a cell; an unknown address is empty."""
    return f"{provider or 'other'}|{ip or ''}"


def booked(results: Iterable[DeliveryResult], accepted: Iterable[Accepted] = ()) -> dict[int, Cells]:
    """What results add to each minute (milliseconds // 60,000); ``accepted`` are more of them, in short."""
    columns = _columns()
    minutes = _booked(accepted)
    minute, provider, ip = -1, "", None
    vector: Vector = []
    for result in results:
        outcome = result.outcome
        if outcome == "suppressed" or outcome == "in_doubt":  # noqa: PLR1714 - a set costs more than both
            continue
        at = result.at // MINUTE_MS
        if at != minute or result.provider != provider or result.ip != ip:
            minute, provider, ip = at, result.provider, result.ip
            cells = minutes.get(minute)
            if cells is None:
                cells = minutes[minute] = {}
            key = f"{provider}|{ip or ''}"
            found = cells.get(key)
            vector = cells[key] = [0] * _WIDTH if found is None else found
        if outcome == "accepted":
            vector[_ACCEPTED] += 1
            vector[_ATTEMPTS] += 1
        elif outcome == "deferred":
            vector[_DEFERRAL] += 1
            vector[_ATTEMPTS] += 1
            if columns.get(result.class_) == _BLOCK:
                vector[_BLOCK] += 1
        elif outcome == "bounced":
            vector[columns.get(result.class_, _SOFT)] += 1
            vector[_ATTEMPTS] += 1
        else:
            vector[_SOFT] += 1
    loops = heard()
    for cells in minutes.values():
        for key, vector in cells.items():
            if key.partition("|")[0] in loops:
                vector[_ACCEPTED_HEARD] = vector[_ACCEPTED]
    return minutes


def _booked(accepted: Iterable[Accepted]) -> dict[int, Cells]:
    """Results of one sender in the order of time change their minute and address seldom, and their provider often."""
    groups: dict[tuple[int, str | None], dict[str, int]] = {}
    begin = end = 0
    ip: str | None = None
    providers: dict[str, int] = {}
    for one in accepted:
        at = one.at
        if not begin <= at < end or one.ip != ip:
            begin, ip = at - at % MINUTE_MS, one.ip
            end = begin + MINUTE_MS
            providers = groups.setdefault((begin, ip), {})
        provider = one.provider
        providers[provider] = providers.get(provider, 0) + 1
    minutes: dict[int, Cells] = {}
    for (begin, ip), providers in groups.items():
        cells = minutes.setdefault(begin // MINUTE_MS, {})
        for provider, number in providers.items():
            vector = cells.setdefault(f"{provider}|{ip or ''}", [0] * _WIDTH)
            vector[_ACCEPTED] += number
            vector[_ATTEMPTS] += number
    return minutes


def booked_by_source(results: Iterable[DeliveryResult], accepted: Iterable[Accepted] = ()) -> dict[int, Cells]:
    """What the same results add, by the source of the list that their recipients came from; mostly nothing."""
    by_source: dict[str, tuple[list[DeliveryResult], list[Accepted]]] = {}
    for result in results:
        if result.list_source:
            by_source.setdefault(source_key(result.list_source), ([], []))[0].append(result)
    for short in accepted:
        if short.list_source:
            by_source.setdefault(source_key(short.list_source), ([], []))[1].append(short)
    minutes: dict[int, Cells] = {}
    for key, own in by_source.items():
        for minute, cells in booked(*own).items():
            minutes.setdefault(minute, {})[key] = [sum(column) for column in zip(*cells.values(), strict=True)]
    return minutes


def source_key(source: str) -> str:
    """The key of a source's cell."""
    return source.replace("|", "/")[:_SOURCE_LENGTH] + "|"


def booked_feedback(events: Iterable[FeedbackEvent]) -> dict[int, Cells]:
    """What feedback adds to the minutes in which its messages were sent; without ``sent_at``, to that of ``at``."""
    minutes: dict[int, Cells] = {}
    for event in events:
        column = _FEEDBACK.get(event.kind)
        if column is None:
            continue
        weight = weight_of(event) if column == _TRAP else 0
        if column == _TRAP and not weight:
            continue
        sent_at = event.at if event.sent_at is None else min(event.sent_at, event.at)
        cells = minutes.setdefault(sent_at // MINUTE_MS, {})
        vector = cells.setdefault(cell_key(event.provider, event.ip), [0] * _WIDTH)
        vector[column] += 1
        if column == _COMPLAINT and event.provider is not None and event.provider not in heard():
            vector[_COMPLAINT_UNHEARD] += 1
        if weight:
            vector[_WEIGHT] += weight
            if (its_kind := _kind_column(event)) is not None:
                vector[its_kind] += 1
    return minutes


def _kind_column(event: FeedbackEvent) -> int | None:
    trap = event.trap
    if trap is None:
        return None
    if trap.kind == "typo":
        return _TYPO
    return _CONFIRMED.get(trap.kind) if is_confirmed(trap) else None


def widened(vector: Vector) -> Vector:
    """A vector that may be of an older version, with all columns; trap hits weighed as much as any then."""
    missing = _WIDTH - len(vector)
    if not missing:
        return vector
    grown = [*vector, *[0] * missing]
    if len(vector) <= _WEIGHT:
        grown[_WEIGHT] = WHOLE * grown[_TRAP]
    return grown


def complaints(counts: Counts) -> tuple[int, int]:
    """Complaints, and the mail that they are divided by: what was accepted where complaints are heard from.

    All of both, when nothing was accepted there, or when that is the larger share (complaints that reach us otherwise),
    or in counts of an older version, which did not tell them apart.
    """
    told = counts.complaint - counts.complaint_unheard
    heard_of = max(counts.accepted_heard, told)
    everything = max(counts.accepted, counts.complaint)
    if not counts.accepted_heard or told * everything < counts.complaint * heard_of:
        return counts.complaint, everything
    return told, heard_of


def trap_events(counts: Counts) -> int:
    """The trap hits as judged: by weight, in whole pristine ones.  Counts of an older version have no weight."""
    hits = counts.trap_hit
    return min(hits, counts.trap_weight // WHOLE) if counts.trap_weight else hits


def isolating_trap_events(counts: Counts) -> int:
    """The same of confirmed hits alone, and not of typo traps: people mistype."""
    weight = WEIGHTS["pristine"] * counts.trap_hit_pristine + WEIGHTS["recycled"] * counts.trap_hit_recycled
    return min(counts.trap_hit, weight // WHOLE)


def merge(into: Cells, more: Cells) -> Cells:
    """Add ``more`` to ``into``, which is changed and returned; ``more`` is left as it is."""
    return _moved(into, _moves(more))


def counts_of(vector: Iterable[int]) -> Counts:
    """A vector as a record."""
    return _counts(*vector)


def summed(one: Counts, other: Counts) -> Counts:
    """The sum of two records."""
    return _counts(*map(add, astuple(one), astuple(other)))


class Rolling:
    """Running sums of the last minutes of one campaign.

    A window of 60 minutes at minute ``now`` holds the minutes from ``now - 59`` to ``now``.  Minutes may be added in
    any order; one that lies ahead counts when its time comes, one that is older than the longest window is dropped.
    Time does not run backwards: a question about an earlier ``now`` is answered for the latest one asked.
    After a restart the same sums come from adding the kept minutes again.

    Answers are kept until something moves them, and are not to be changed.
    """

    __slots__ = ("_by_ip", "_by_ip_provider", "_by_provider", "_minutes", "_now", "_spans", "_windows")

    def __init__(self) -> None:
        self._minutes: dict[int, Cells] = {}
        self._now: int | None = None
        self._spans: tuple[_Span, ...] = tuple(_Span(name, length) for name, length in WINDOWS_MIN.items())
        self._windows: dict[str, Counts] | None = None
        self._by_provider: dict[str, dict[str, Counts]] | None = None
        self._by_ip_provider: dict[tuple[str, str], dict[str, Counts]] | None = None
        self._by_ip: dict[str, dict[str, Counts]] | None = None

    def add(self, minute: int, cells: Cells) -> None:
        """Add what was booked to a minute."""
        now = self._now
        if now is not None and minute <= now - _LONGEST:
            return
        moves = _moves(cells)
        self._minutes[minute] = _moved(self._minutes.get(minute, {}), moves)
        if now is not None and minute <= now:
            for span in self._spans:
                if minute > now - span.length:
                    span.add(moves)
            self._forget()

    def windows(self, now_minute: int) -> dict[str, Counts]:
        """The sums of each window."""
        self._advance(now_minute)
        if self._windows is None:
            self._windows = _records((span.name, span.total) for span in self._spans)
        return self._windows

    def by_provider(self, now_minute: int) -> dict[str, dict[str, Counts]]:
        """The sums of each window by provider."""
        self._advance(now_minute)
        if self._by_provider is None:
            groups: dict[str, list[str]] = {}
            for key in self._spans[-1].cells:
                groups.setdefault(key.partition("|")[0], []).append(key)
            self._by_provider = {provider: self._sums(keys) for provider, keys in groups.items()}
        return self._by_provider

    def by_ip_provider(self, now_minute: int) -> dict[tuple[str, str], dict[str, Counts]]:
        """The sums of each window by sending address and provider; what has no address is left out."""
        self._advance(now_minute)
        if self._by_ip_provider is None:
            places = ((key, key.partition("|")) for key in self._spans[-1].cells)
            self._by_ip_provider = {(ip, provider): self._sums([key]) for key, (provider, _, ip) in places if ip}
        return self._by_ip_provider

    def by_ip(self, now_minute: int) -> dict[str, dict[str, Counts]]:
        """The sums of each window by sending address; what has no address is left out."""
        self._advance(now_minute)
        if self._by_ip is None:
            groups: dict[str, list[str]] = {}
            for key in self._spans[-1].cells:
                if ip := key.partition("|")[2]:
                    groups.setdefault(ip, []).append(key)
            self._by_ip = {ip: self._sums(keys) for ip, keys in groups.items()}
        return self._by_ip

    def only_address(self, minute: int) -> str | None:
        """The address from which all mail of a minute was sent; None if there were several, or none is known."""
        found = {key.partition("|")[2] for key in self._minutes.get(minute, ())} - {""}
        return found.pop() if len(found) == 1 else None

    def _sums(self, keys: Sequence[str]) -> dict[str, Counts]:
        """The sums of each window over some cells; the longest window knows all of them."""
        return _records((span.name, span.over(keys)) for span in self._spans)

    def _forget(self) -> None:
        self._windows = self._by_provider = self._by_ip_provider = self._by_ip = None

    def _advance(self, now: int) -> None:
        before = self._now
        if before is not None and now <= before:
            return
        self._now = now
        has_moved = before is None
        for span in self._spans:
            if before is None or now - before >= span.length:
                span.rebuild(self._minutes, now)
                has_moved = True
            else:
                has_moved |= span.move(self._minutes, before, now)
        if has_moved:
            self._forget()
        if before is None or now - before >= _LONGEST:
            self._minutes = {minute: cells for minute, cells in self._minutes.items() if minute > now - _LONGEST}
        else:
            for minute in range(before - _LONGEST + 1, now - _LONGEST + 1):
                self._minutes.pop(minute, None)


class _Span:
    """The running sums of one window, by cell and in total."""

    __slots__ = ("cells", "length", "name", "total")

    def __init__(self, name: str, length: int) -> None:
        self.name = name
        self.length = length
        self.total: Vector = [0] * _WIDTH
        self.cells: Cells = {}

    def over(self, keys: Sequence[str]) -> Vector:
        """The sum of some cells."""
        if len(keys) == 1:
            return self.cells.get(keys[0], _ZEROS)
        return [sum(column) for column in zip(*(self.cells.get(key, _ZEROS) for key in keys), strict=True)]

    def add(self, moves: "_Moves") -> None:
        _moved(self.cells, moves)
        total = self.total
        for _, columns in moves:
            for column, number in columns:
                total[column] += number

    def subtract(self, cells: Cells) -> None:
        total = self.total
        for key, columns in _moves(cells):
            have = self.cells.get(key)
            if have is None:  # only zeros were ever added
                continue
            for column, number in columns:
                have[column] -= number
                total[column] -= number
            if not any(have):
                del self.cells[key]

    def rebuild(self, minutes: dict[int, Cells], now: int) -> None:
        self.total = [0] * _WIDTH
        self.cells = {}
        for minute, cells in minutes.items():
            if now - self.length < minute <= now:
                self.add(_moves(cells))

    def move(self, minutes: dict[int, Cells], before: int, now: int) -> bool:
        """Let minutes in and out; answers whether there was one."""
        has_moved = False
        for minute in range(before + 1, now + 1):
            if minute in minutes:
                self.add(_moves(minutes[minute]))
                has_moved = True
        for minute in range(before - self.length + 1, now - self.length + 1):
            if minute in minutes:
                self.subtract(minutes[minute])
                has_moved = True
        return has_moved


_Moves = list[tuple[str, list[tuple[int, int]]]]  # for each cell the columns that move, and by how much


def _moves(cells: Cells) -> _Moves:
    """Few columns of a vector move at a time; all windows move by the same."""
    return [
        (key, [(column, number) for column, number in enumerate(vector) if number]) for key, vector in cells.items()
    ]


def _moved(cells: Cells, moves: _Moves) -> Cells:
    for key, columns in moves:
        have = cells.get(key)
        if have is None:
            have = cells[key] = [0] * _WIDTH
        for column, number in columns:
            have[column] += number
    return cells


def _records(vectors: Iterable[tuple[str, Vector]]) -> dict[str, Counts]:
    """Vectors as records; windows of the same sums, as young campaigns have them, share one."""
    found: dict[str, Counts] = {}
    before, counts = _ZEROS, _NOTHING
    for name, vector in vectors:
        if vector != before:
            before, counts = vector, _counts(*vector)
        found[name] = counts
    return found


@cache
def _columns() -> dict[str | None, int]:
    """The column that a bounce of each category moves."""
    of = {"hard_bounce": _HARD, "block": _BLOCK, "soft": _SOFT}
    return {name: of[category.counts] for name, category in shipped().categories.items()}
