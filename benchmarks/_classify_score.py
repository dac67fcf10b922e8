"""How well messages were read: what was recognised, what was right by hand-labelled truth, and who was blamed.

Truth is a TOML file: a path, as far as it is unique from its end, and rows of kind, category and recipient.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

Row = Sequence[str]

RECIPIENT_FAULTS = frozenset({"hard_bounce"})


@dataclass(frozen=True, slots=True)
class Read:
    """What one reader made of one file; ``error`` when it made nothing but trouble."""

    path: Path
    rows: tuple[Row, ...] = ()
    error: str = ""

    @property
    def is_recognised(self) -> bool:
        """Whether anything but "unclear" was said."""
        return any(row[0] != "unclear" for row in self.rows)


@dataclass(frozen=True, slots=True)
class Score:
    """Shares are of the messages that say something; those of truth are None where nothing is known."""

    coverage: float | None
    right_category: float | None
    right_recipients: float | None
    judged: int
    blocks_called_recipient_fault: int
    crashes: int
    remarks: tuple[str, ...]


def truth_of(file: Path) -> dict[PurePosixPath, tuple[Row, ...]]:
    """The labels of a file; raises ValueError that names the row and the fix."""
    labels = tomllib.loads(file.read_text(encoding="utf-8"))
    for name, rows in labels.items():
        if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == 3 for row in rows):
            raise ValueError(f'{file}: "{name}": write [["kind", "category", "recipient"], ...]')
    return {PurePosixPath(name): tuple(rows) for name, rows in labels.items()}


def score(reads: Sequence[Read], truth: Mapping[PurePosixPath, Sequence[Row]]) -> Score:
    """The figures over all files."""
    remarks: list[str] = []
    asked = recognised = judged = right = named = right_names = blamed = 0
    for read in reads:
        expected = _expected(read.path, truth)
        says_something = expected is None or all(row[0] != "none" for row in expected)
        asked += says_something
        recognised += says_something and read.is_recognised
        if read.error:
            remarks.append(f"{read.path}: {read.error}")
        elif says_something and not read.is_recognised:
            remarks.append(f"{read.path}: not recognised ({', '.join(row[1] for row in read.rows)})")
        if expected is None:
            continue
        judged += 1
        is_right = _means(read.rows, expected)
        right += is_right
        if not is_right and (read.is_recognised or not says_something):
            remarks.append(f"{read.path}: read as {_shown(read.rows)}, is {_shown(expected)}")
        blamed += _blames(read.rows, expected)
        if any(row[2] for row in expected):
            named += 1
            right_names += _names(read.rows) == _names(expected)
            if _names(read.rows) != _names(expected):
                remarks.append(f"{read.path}: names {sorted(_names(read.rows))}, is {sorted(_names(expected))}")
    return Score(
        coverage=_share(recognised, asked),
        right_category=_share(right, judged),
        right_recipients=_share(right_names, named),
        judged=judged,
        blocks_called_recipient_fault=blamed,
        crashes=sum(bool(read.error) for read in reads),
        remarks=tuple(remarks),
    )


def _expected(path: Path, truth: Mapping[PurePosixPath, Sequence[Row]]) -> Sequence[Row] | None:
    """The label whose path is the longest end of this one."""
    parts = path.resolve().parts
    for start in range(max(0, len(parts) - 4), len(parts)):
        rows = truth.get(PurePosixPath(*parts[start:]))
        if rows is not None:
            return rows
    return None


def _means(rows: Sequence[Row], expected: Sequence[Row]) -> bool:
    """Whether kinds and categories are the same, in any order; "none" is what says nothing."""
    if any(row[0] == "none" for row in expected):
        return all(row[0] == "unclear" for row in rows)
    left = [(row[0], row[1]) for row in rows]
    for row in expected:
        fits = next((one for one in left if one[0] == row[0] and one[1] in row[1].split("|")), None)
        if fits is None:
            return False
        left.remove(fits)
    return not left


def _blames(rows: Sequence[Row], expected: Sequence[Row]) -> bool:
    """Whether somebody is called dead of whom, or of all of whom, only a block is told."""
    dead = {row[2].lower() for row in rows if row[0] in RECIPIENT_FAULTS}
    blocked = {row[2].lower() for row in expected if row[0] == "block"}
    at_fault = any(row[0] in RECIPIENT_FAULTS for row in expected)
    return bool(blocked) and bool(dead) and (not at_fault or bool(dead & blocked - {""}))


def _names(rows: Sequence[Row]) -> frozenset[str]:
    return frozenset(row[2].lower() for row in rows if row[2])


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _shown(rows: Sequence[Row]) -> str:
    return ", ".join("/".join(filter(None, row[:2])) for row in rows) or "nothing"
