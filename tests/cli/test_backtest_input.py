"""Any file of lines is replayed in the order of time; what is no line is counted and told of."""

import gzip
import io
import sys
from pathlib import Path

import pytest

from cli.backtest_input import MAX_LINE_BYTES, Recording, opened, read
from cli.failures import WrongUse


def line(at: int, *, topic: str = "mail.delivery.results", partition: int = 0, offset: int = 0) -> bytes:
    return b'{"topic":"%s","partition":%d,"offset":%d,"at":%d,"value":{}}' % (topic.encode(), partition, offset, at)


def order(*lines: bytes) -> list[int]:
    return [one.number for one in Recording(io.BytesIO(b"\n".join(lines)))]


def test_partitions_are_merged_by_time() -> None:
    lines = [line(10, partition=0), line(30, partition=0, offset=1), line(20, partition=1)]

    assert order(*lines) == [1, 3, 2]


def test_within_a_partition_offsets_decide_and_time_never_runs_backwards() -> None:
    lines = [line(50, offset=0), line(40, offset=1), line(45, partition=1)]

    placed = list(Recording(io.BytesIO(b"\n".join(lines))))

    assert [(one.number, one.at) for one in placed] == [(3, 45), (1, 50), (2, 50)]


def test_of_one_moment_campaigns_come_before_commands_before_results() -> None:
    topics = ("mail.reputation.decisions", "mail.feedback", "mail.delivery.results", "mail.commands", "mail.campaigns")

    assert order(*(line(5, topic=topic) for topic in topics)) == [5, 4, 3, 2, 1]


def test_fields_may_stand_in_any_order_with_any_space() -> None:
    strange = b'{ "value": {}, "at": 7, "offset": 1, "partition": 0,\t"topic": "mail.feedback" }\r'

    (placed,) = Recording(io.BytesIO(strange))

    assert (placed.at, placed.topic) == (7, "mail.feedback")


BAD = {
    "no_json": (b"nonsense", "not a JSON object"),
    "no_time": (b'{"topic":"mail.feedback","partition":0,"offset":1}', "required field"),
    "text_for_a_number": (line(1).replace(b'"at":1', b'"at":"1"'), "field at: expected"),
    "far_ahead": (line(10**17), "field at: expected"),
    "negative": (line(1).replace(b'"offset":0', b'"offset":-4'), "field offset"),
}


@pytest.mark.parametrize(("raw", "why"), BAD.values(), ids=BAD)
def test_a_bad_line_is_told_of_and_its_neighbours_are_read(raw: bytes, why: str) -> None:
    recording = Recording(io.BytesIO(b"\n".join([line(1), raw, b"", line(2, offset=1)])))

    assert [one.number for one in recording] == [1, 4]
    assert recording.bad.count == 1
    assert recording.bad.shown[0][0] == 2
    assert why in recording.bad.shown[0][1]


def test_a_line_without_end_is_left_out() -> None:
    recording = Recording(io.BytesIO(b"x" * (MAX_LINE_BYTES + 1) + b"\n" + line(1)))

    assert ([one.number for one in recording], recording.bad.count) == ([2], 1)


def test_bad_lines_are_counted_without_end_and_shown_up_to_a_bound() -> None:
    recording = Recording(io.BytesIO(b"bad\n" * 1000))

    assert (recording.bad.count, len(recording.bad.shown), len(recording)) == (1000, 20, 0)


def test_topics_that_a_backtest_does_not_read_are_passed_over() -> None:
    recording = Recording(io.BytesIO(line(1, topic="mail.send.requests")))

    assert (len(recording), recording.bad.count, recording.other_topics) == (0, 0, 1)


class Pipe(io.RawIOBase):
    """Standard input as a pipe: it can be read once."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        return self._content.readinto(buffer)


class Stdin:
    def __init__(self, content: bytes) -> None:
        self.buffer = io.BufferedReader(Pipe(content))


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("way", ["file", "stdin"])
def test_files_and_pipes_plain_and_packed_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, packed: bool
) -> None:
    content = line(1) + b"\n" + line(2, offset=1) + b"\n"
    content = gzip.compress(content) if packed else content
    path = tmp_path / "all"
    path.write_bytes(content)
    if way == "stdin":
        path = Path("-")
        monkeypatch.setattr(sys, "stdin", Stdin(content))

    with opened(path) as file:
        assert [one.at for one in Recording(file)] == [1, 2]


def test_nothing_is_an_empty_recording(tmp_path: Path) -> None:
    file = tmp_path / "empty"
    file.write_bytes(b"")

    with opened(file) as found:
        assert list(Recording(found)) == []


def test_a_packed_file_that_breaks_off_says_so(tmp_path: Path) -> None:
    file = tmp_path / "all.gz"
    file.write_bytes(gzip.compress(line(1) * 1000)[:-20])

    with pytest.raises(WrongUse, match="cannot be read to its end"), opened(file):
        pass


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match="No such file"), opened(tmp_path / "missing"):
        pass


def test_what_is_wrong_with_a_line_names_the_field() -> None:
    assert read(line(1).replace(b'"partition":0', b'"partition":null')) == (
        "field partition: expected `int`, got `null`; a line is {topic, partition, offset, at, key, value}"
    )
