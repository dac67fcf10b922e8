"""The rows of a list as it comes: any CSV, however broken, row by row and in bounded memory.

A list that is to be checked has not been cleaned yet.  So no row ends the reading: one that is no CSV, too long or not
text becomes a row with a flaw, and those behind it are read as if it were not there.  Encodings: UTF-8, with or without
byte order mark, UTF-16 with one; octets that are neither stay visible as such.
"""

import csv
import io
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from cli.failures import WrongUse

ADDRESS_COLUMNS = (
    "address",
    "email",
    "e-mail",
    "mail",
    "email address",
    "e-mail address",
    "emailaddress",
    "email_address",
)
MAX_LINE = 65_536  # characters
MAX_LINES = 20  # of one row, if its cells hold line breaks
_DELIMITERS = ",;\t|"
_OPEN_QUOTE = "unexpected end of data"
_MILLIS_FROM = 100_000_000_000  # less than that are seconds


@dataclass(frozen=True, slots=True)
class Row:
    """One row: where it begins, and its cells; or what is wrong with it."""

    number: int
    cells: tuple[str, ...] = ()
    flaw: str = ""


@dataclass(frozen=True, slots=True)
class Columns:
    """Where the known columns stand; None: the list has no such column."""

    address: int
    source: int | None = None
    opted_in_at: int | None = None
    last_seen_at: int | None = None
    header: bool = False


def rows(file: Path, progress: Callable[[int], None]) -> Iterator[Row]:
    """All rows but blank ones; numbers are those of lines, the first is 1.  ``progress`` hears the octets read."""
    csv.field_size_limit(MAX_LINE * MAX_LINES)
    try:
        with file.open("rb") as raw:
            encoding = _encoding(raw.read(4))
            raw.seek(0)
            text = io.TextIOWrapper(raw, encoding=encoding, errors="surrogateescape", newline=None)
            yield from _parsed(_lines(text, lambda: progress(raw.tell())))
    except (OSError, UnicodeError) as wrong:
        raise WrongUse(f"{file}: {wrong}") from wrong


def _encoding(start: bytes) -> str:
    return "utf-16" if start[:2] in {b"\xff\xfe", b"\xfe\xff"} else "utf-8-sig"


_Line = tuple[int, str | None]


def _lines(text: IO[str], progress: Callable[[], None]) -> Iterator[_Line]:
    """Lines with their numbers; None in place of one that is too long."""
    number = 0
    while line := text.readline(MAX_LINE):
        number += 1
        if number % 5_000 == 1:
            progress()
        too_long = len(line) == MAX_LINE and not line.endswith("\n")
        while too_long and (rest := text.readline(MAX_LINE)) and not rest.endswith("\n"):
            pass
        yield number, None if too_long else line
    progress()


def _parsed(lines: Iterator[_Line]) -> Iterator[Row]:
    back: deque[_Line] = deque()
    delimiter = ""
    while (first := back.popleft() if back else next(lines, None)) is not None:
        number, line = first
        if line is None:
            yield Row(number, flaw=f"the row has more than {MAX_LINE:,} characters")
        elif line.strip():
            delimiter = delimiter or max(_DELIMITERS, key=line.count)
            yield _row(number, line, delimiter, lines, back)


def _row(number: int, line: str, delimiter: str, lines: Iterator[_Line], back: deque[_Line]) -> Row:
    """Parse one row; what was read in vain for a quote that never closes goes ``back``."""
    taken: list[_Line] = []
    whole = [line]
    while True:
        try:
            return Row(number, tuple(next(csv.reader(whole, delimiter=delimiter, strict=True), ())))
        except csv.Error as wrong:
            flaw = wrong
        following = None
        if str(flaw) == _OPEN_QUOTE and len(whole) < MAX_LINES:
            following = back.popleft() if back else next(lines, None)
        if following is not None:
            taken.append(following)
        if following is None or following[1] is None:
            back.extendleft(reversed(taken))
            return _leniently(number, line, delimiter, flaw)
        whole.append(following[1])


def _leniently(number: int, line: str, delimiter: str, wrong: csv.Error) -> Row:
    """A row whose quotes are wrong: its address may be whole all the same, so quotes count as characters."""
    try:
        cells = tuple(next(csv.reader([line], delimiter=delimiter, quoting=csv.QUOTE_NONE), ()))
    except csv.Error:
        cells = ()
    return Row(number, cells, "" if cells else f"the row is no CSV: {wrong}")


def columns(file: Path, first: Row, wanted: str | None) -> Columns:
    """Find the columns by the first row: it names them, or it holds an address already."""
    names = [cell.strip().lower() for cell in first.cells]
    if wanted is not None:
        return _wanted(file, names, wanted)
    for name in ADDRESS_COLUMNS:
        if name in names:
            return _named(names, names.index(name))
    for at, cell in enumerate(first.cells):
        if "@" in cell:
            return Columns(address=at)
    if len(names) == 1:
        return Columns(address=0)  # a list of addresses, the first of them broken
    shown = ", ".join(ascii(name)[:40] for name in names[:10]) or "none"
    raise WrongUse(
        f"{file} has no column of addresses (its first line: {shown}); name it, or give its number: --column"
    )


def _wanted(file: Path, names: list[str], wanted: str) -> Columns:
    if wanted.strip().lower() in names:
        return _named(names, names.index(wanted.strip().lower()))
    if wanted.isdecimal() and 0 < int(wanted) <= len(names):
        at = int(wanted) - 1
        return Columns(address=at) if "@" in names[at] else _named(names, at)
    raise WrongUse(f"{file} has no column {wanted!r}; its first line has {len(names)} columns")


def _named(names: list[str], address: int) -> Columns:
    def at(name: str) -> int | None:
        return names.index(name) if name in names else None

    return Columns(address, at("source"), at("opted_in_at"), at("last_seen_at"), header=True)


def millis(text: str) -> int | None:
    """A time as milliseconds or seconds since 1970, or as ISO 8601 (UTC if it says nothing); None if it is none."""
    text = text.strip()
    if text.isdecimal() and len(text) <= 15:
        number = int(text)
        return number if number >= _MILLIS_FROM else number * 1000
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)
