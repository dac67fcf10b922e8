"""What mail servers write in many languages, as data: that a message failed, or waits, and why.

The phrases stand in ``bounce_words.toml`` beside this module.  A phrase is looked for as it stands, after :func:`fold`
has taken away case, accents and line breaks from both.
"""

import tomllib
import unicodedata
from importlib.resources import files

MAX_FOLDED = 8_000  # characters of a notice in which phrases are looked for

Phrases = tuple[str, ...]

_FOLDS = str.maketrans(
    {"\u2019": "'", "\u2018": "'", "`": "'", "\xb4": "'", "ß": "ss", "ø": "o", "ł": "l", "\u0131": "i", "đ": "d"}
)


def fold(text: str) -> str:
    """Text without case, accents and line breaks, so that ``Zustellung\\nunmöglich`` is ``zustellung unmoglich``."""
    small = text[:MAX_FOLDED].translate(_FOLDS).casefold()
    if not small.isascii():
        apart = unicodedata.normalize("NFKD", small)
        small = "".join(one for one in apart if not unicodedata.combining(one)).translate(_FOLDS)
    return " ".join(small.split())


def says(folded: str, phrases: Phrases) -> bool:
    """Whether one of the phrases stands in a folded text."""
    for phrase in phrases:  # noqa: SIM110 - a third of the time of any()
        if phrase in folded:
            return True
    return False


def meant(folded: str) -> str | None:
    """The detail of an enhanced status (``1.1``) that stands for what a folded text says in words, or None."""
    return next((detail for detail, phrases in _REASONS.items() if says(folded, phrases)), None)


def _read(table: dict[str, str]) -> dict[str, Phrases]:
    return {
        name: tuple(dict.fromkeys(filter(None, map(fold, text.replace("\n", "|").split("|")))))
        for name, text in table.items()
    }


_FILE = tomllib.loads(files("smtp").joinpath("bounce_words.toml").read_text(encoding="utf-8"))
_SAYS = _read(_FILE["phrases"])
_REASONS = _read(_FILE["reasons"])

ROBOTS = _SAYS["robots"]
ABSENT = _SAYS["absent"]
FAILED_SUBJECTS = _SAYS["failed_subjects"]
FAILED = _SAYS["failed"] + FAILED_SUBJECTS
STILL_TRYING = _SAYS["still_trying"]
EXPIRED = _SAYS["expired"]
COPY_BEGINS = _SAYS["copy_begins"]
