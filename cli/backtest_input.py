"""The records of a backtest in the order of their time, from a file of any size, in bounded memory.

Of each line only its place is kept.  Within a partition the order of offsets is law, whatever the clocks of producers
said; among partitions the time decides.  What cannot be read twice (standard input, gzip) is written to a temporary
file first.
"""

import contextlib
import gzip
import mmap
import re
import sys
import tempfile
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import msgspec

from cli.backtest_records import TOPICS, Line, read_line
from cli.failures import WrongUse

MAX_LINE_BYTES = 16 << 20
SHOWN = 20  # bad lines that are told of, each with its reason

Progress = Callable[[int], None]

_GZIP = b"\x1f\x8b"
_HEAD = re.compile(rb'\{"topic":"([\w.-]+)","partition":(\d{1,9}),"offset":(\d{1,18}),"at":(\d{1,14})[,}]')
_HEAD_BYTES = 400
_RANK = {topic: rank for rank, topic in enumerate(TOPICS)}


@dataclass(slots=True)
class Bad:
    """Lines that could not be used: how many, and the first of them with the reason."""

    count: int = 0
    shown: list[tuple[int, str]] = field(default_factory=list)

    def add(self, line: int, why: str) -> None:
        """Note a line, by its number."""
        self.count += 1
        if len(self.shown) < SHOWN:
            self.shown.append((line, why[:300]))


@dataclass(frozen=True, slots=True)
class Placed:
    """A line, its number, and when it is due."""

    number: int
    at: int
    topic: str
    raw: memoryview


class Recording:
    """A file of lines, in the order in which they are to be replayed."""

    def __init__(self, file: IO[bytes]) -> None:
        self.bad = Bad()
        self.other_topics = 0
        self._mapped: mmap.mmap | bytes = _mapped(file)
        self._text = memoryview(self._mapped)
        self._sources: dict[tuple[str, int], int] = {}
        self._at, self._offset, self._place, self._number = array("q"), array("q"), array("q"), array("q")
        self._source = array("l")
        self._scan()
        self._due = array("q", bytes(8 * len(self._at)))
        self._order = self._in_order()

    def __len__(self) -> int:
        return len(self._order)

    @property
    def topics(self) -> set[str]:
        """The topics that there is something of."""
        return {topic for topic, _ in self._sources}

    def __iter__(self) -> Iterator[Placed]:
        return self._placed(self._order)

    def of(self, topic: str) -> Iterator[Placed]:
        """The lines of one topic alone."""
        wanted = {number for number, (name, _) in enumerate(self._sources) if name == topic}
        return self._placed(one for one in self._order if self._source[one] in wanted)

    def _placed(self, order: Iterable[int]) -> Iterator[Placed]:
        topics = [topic for topic, _ in self._sources]
        for index in order:
            place = self._place[index]
            raw = self._text[place : self._end(place)]
            yield Placed(self._number[index], self._due[index], topics[self._source[index]], raw)

    def _end(self, place: int) -> int:
        end = self._mapped.find(b"\n", place)
        return len(self._mapped) if end < 0 else end

    def _scan(self) -> None:
        place = number = 0
        while place < len(self._mapped):
            number += 1
            begin, end = place, self._end(place)
            place = end + 1
            if end - begin > MAX_LINE_BYTES:
                self.bad.add(number, f"the line has more than {MAX_LINE_BYTES >> 20} MiB; a record has at most 8")
            elif end - begin > _HEAD_BYTES or self._mapped[begin:end].strip():
                self._note(number, begin, self._text[begin:end])

    def _note(self, number: int, place: int, raw: memoryview) -> None:
        head = _HEAD.match(raw, 0, _HEAD_BYTES)
        if head is not None:
            topic, partition, offset, at = head[1].decode(), int(head[2]), int(head[3]), int(head[4])
        else:
            line = read(raw)
            if isinstance(line, str):
                self.bad.add(number, line)
                return
            topic, partition, offset, at = line.topic, line.partition, line.offset, line.at
        if topic not in _RANK:
            self.other_topics += 1
            return
        self._source.append(self._sources.setdefault((topic, partition), len(self._sources)))
        self._at.append(at)
        self._offset.append(offset)
        self._place.append(place)
        self._number.append(number)

    def _in_order(self) -> "array[int]":
        """Time decides, but never before what stands earlier in the same partition."""
        ranks = [(_RANK[topic], partition) for topic, partition in self._sources]
        offset, source, at, due = self._offset, self._source, self._at, self._due
        newest, last = 0, -1
        for one in sorted(range(len(at)), key=lambda one: (source[one], offset[one])):
            newest = at[one] if source[one] != last else max(newest, at[one])
            last = source[one]
            due[one] = newest
        return array("q", sorted(range(len(at)), key=lambda one: (due[one], ranks[source[one]], offset[one])))


def _mapped(file: IO[bytes]) -> mmap.mmap | bytes:
    """The file as memory: the kernel reads ahead, forgets what was read, and nothing is copied."""
    try:
        number = file.fileno()
    except OSError:  # only in memory, as in tests
        return file.read()
    if file.seek(0, 2) == 0:  # nothing cannot be mapped
        return b""
    return mmap.mmap(number, 0, access=mmap.ACCESS_READ)


def read(raw: bytes | memoryview) -> Line | str:
    """A line, or the sentence that says why it is none."""
    try:
        return read_line(raw)
    except msgspec.ValidationError as wrong:
        return f"field {_field(str(wrong))}; a line is {{topic, partition, offset, at, key, value}}"
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as broken:
        return f"not a JSON object: {broken}; write one object a line, as `mailcordon export` does"


def _field(said: str) -> str:
    what, _, where = said.partition(" - at `$.")
    name = where.rstrip("`")
    return f"{name}: {what[0].lower()}{what[1:]}" if name else f"{what[0].lower()}{what[1:]}"


@contextlib.contextmanager
def opened(path: Path, progress: Progress = lambda _: None) -> Iterator[IO[bytes]]:
    """A file that can be read twice, of a file, a gzip file or standard input (``-``).

    ``progress`` is told how many MiB were written to a temporary file.
    """
    with contextlib.ExitStack() as stack:
        if str(path) == "-":
            yield _readable(stack, sys.stdin.buffer, progress)
            return
        try:
            file = stack.enter_context(path.open("rb"))
        except OSError as wrong:
            raise WrongUse(f"--input {path}: {wrong.strerror or wrong}") from wrong
        yield _readable(stack, file, progress)


def _readable(stack: contextlib.ExitStack, file: IO[bytes], progress: Progress) -> IO[bytes]:
    if not file.seekable():
        return _readable(stack, _spooled(stack, file, progress), progress)
    file.seek(0)
    is_gzip = file.read(2) == _GZIP
    file.seek(0)
    return _spooled(stack, stack.enter_context(gzip.open(file)), progress) if is_gzip else file


def _spooled(stack: contextlib.ExitStack, source: IO[bytes] | gzip.GzipFile, progress: Progress) -> IO[bytes]:
    spooled: IO[bytes] = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
    try:
        while part := source.read(1 << 20):
            spooled.write(part)
            progress(spooled.tell() >> 20)
    except (OSError, EOFError, zlib.error) as broken:
        raise WrongUse(f"--input cannot be read to its end: {broken}") from broken
    spooled.flush()
    return spooled
