"""Counts of trap hits as Microsoft's SNDS exports them: so many per sending address and day, and no address of a trap.

Columns are found by their names, in any order, with commas, semicolons or tabs between them: they change with the
data model.  Needed are an address, a time and the trap hits; times are UTC.
"""

import csv
import datetime as dt
import ipaddress
from collections.abc import Iterable, Iterator

import msgspec

from policy.trap_signals import STRONG, TrapSignal

SIGNAL = TrapSignal("snds", "suspected", STRONG)
MOST_HITS = 1_000  # of one address and day; more make no case stronger
PROVIDER = "microsoft"

_ADDRESS = ("ipaddress", "ip", "address", "sendingip")
_TIMES = (
    *("trapmessageperiodend", "trapperiodend", "activityperiodend", "activityend", "periodend", "end"),
    *("trapmessageperiodstart", "trapperiodstart", "activityperiodstart", "activitystart", "periodstart", "start"),
    *("date", "day", "activitydate"),
)
_HITS = ("traphits", "traphitcount", "spamtraphits", "traps", "trapmessages")
_FORMS = (
    *("%m/%d/%Y %I:%M %p", "%m/%d/%Y %I:%M:%S %p", "%m/%d/%Y %H:%M", "%m/%d/%Y %H:%M:%S", "%m/%d/%Y"),
    "%d %b %Y",
)


class TrapCount(msgspec.Struct, frozen=True):
    """So many trap hits of one sending address at a time (ms)."""

    ip: str
    at: int
    hits: int

    @property
    def names(self) -> list[str]:
        """A name for each hit, the same whenever the file is read: what was counted before is not counted again."""
        day = dt.datetime.fromtimestamp(self.at / 1000, tz=dt.UTC).date().isoformat()
        return [f"snds-{self.ip}-{day}-{number}" for number in range(1, min(self.hits, MOST_HITS) + 1)]


class WrongFile(ValueError):  # noqa: N818 - it is what it says
    """No file of this kind; the message says which column is missing."""


class WrongRow(msgspec.Struct, frozen=True):
    """A line that says nothing, and why."""

    line: int
    explain: str


def read(lines: Iterable[str]) -> Iterator[TrapCount | WrongRow]:
    """The rows of a file that count trap hits; those with none are left out."""
    source = iter(lines)
    first = next(source, "")
    delimiter = max(",;\t", key=first.count)
    header = ["".join(filter(str.isalpha, name.lower())) for name in next(csv.reader([first], delimiter=delimiter), [])]
    ip_at, hits_at = _place(header, _ADDRESS, "an IP address"), _place(header, _HITS, "trap hits")
    times_at = [header.index(name) for name in _TIMES if name in header]
    if not times_at:
        raise WrongFile(_missing("a time or day"))
    rows = csv.reader(source, delimiter=delimiter)
    for row in rows:
        if not row:
            continue
        try:
            hits = _hits(row[hits_at])
            if hits:
                yield TrapCount(
                    ip=str(ipaddress.ip_address(row[ip_at].strip())), at=_first_time(row, times_at), hits=hits
                )
        except (ValueError, IndexError) as wrong:
            explain = "fewer cells than the first line" if isinstance(wrong, IndexError) else str(wrong)[:200]
            yield WrongRow(rows.line_num + 1, explain)


def _place(header: list[str], names: Iterable[str], what: str) -> int:
    for name in names:
        if name in header:
            return header.index(name)
    raise WrongFile(_missing(what))


def _missing(what: str) -> str:
    return (
        f"no column for {what}; the first line must name the columns, for example: "
        "IP Address,Activity period start,Activity period end,Trap hits"
    )


def _hits(text: str) -> int:
    digits = text.strip().replace(",", "")
    if digits and not (digits.isascii() and digits.isdigit()):
        raise ValueError(f"trap hits: expected a number, got {text[:20]!r}")
    return int(digits[:9] or 0)


def _first_time(row: list[str], places: Iterable[int]) -> int:
    text = next((row[at].strip() for at in places if at < len(row) and row[at].strip()), "")
    for form in ("", *_FORMS):
        try:
            moment = dt.datetime.strptime(text, form) if form else dt.datetime.fromisoformat(text)  # noqa: DTZ007 - UTC
        except ValueError:
            continue
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=dt.UTC)
        return max(0, round(moment.timestamp() * 1000))
    raise ValueError(f"time: expected a day like 2026-11-24 or 11/24/2026, got {text[:30]!r}")
