"""How times are asked for and progress is told, by the commands of backtests."""

import datetime as dt
import re
import time
from pathlib import Path

import click

from cli.access import say
from cli.backtest_records import LATEST_MS
from cli.failures import WrongUse

FILE = click.Path(path_type=Path, dir_okay=False)
_EVERY_S = 1.0
_AGO = re.compile(r"(\d{1,6})([dhm])\Z")
_UNIT_MS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000}

FROM = click.option("--from", "begin", metavar="TIME", help="From when on: a day, a time (UTC), or 7d, 36h, 90m ago.")
TO = click.option("--to", "end", metavar="TIME", help="Until when, likewise; default: to the end.")


def times(begin: str | None, end: str | None, now: int) -> tuple[int | None, int | None]:
    """From when and until when."""
    since, to = moment_of("from", begin, now), moment_of("to", end, now)
    if since is not None and to is not None and to <= since:
        raise WrongUse(f"--to {end} is not after --from {begin}")
    return since, to


def moment_of(name: str, text: str | None, now: int) -> int | None:
    """Milliseconds of a day, a time (UTC unless it says otherwise), milliseconds, or a while before ``now``."""
    if text is None:
        return None
    if (ago := _AGO.match(text)) is not None:
        return now - _length(ago)
    if text.isascii() and text.isdigit() and int(text) <= LATEST_MS:
        return int(text)
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError:
        raise WrongUse(f"--{name} {text}: expected a day like 2026-11-20, a time, or a while ago like 7d") from None
    if found.tzinfo is None:
        found = found.replace(tzinfo=dt.UTC)
    return max(0, round(found.timestamp() * 1000))


def length_of(name: str, text: str) -> int:
    """Milliseconds of a length of time."""
    found = _AGO.match(text)
    if found is None:
        raise WrongUse(f"--{name} {text}: expected a length of time like 7d, 36h or 90m")
    return _length(found)


def _length(found: re.Match[str]) -> int:
    return int(found[1]) * _UNIT_MS[found[2]]


class Progress:
    """A line on standard error once a second; nothing for what is done at once."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._next = time.monotonic() + _EVERY_S

    def __call__(self, count: int, of: int | None = None) -> None:
        """So much is done."""
        if time.monotonic() >= self._next:
            say(f"{count:,} {self._what} ..." if of is None else f"{count * 100 // max(of, 1)} % {self._what} ...")
            self._next = time.monotonic() + _EVERY_S
