import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp.line_ends import LineEnds

streams = st.lists(st.sampled_from([b"a", b".", b"\r", b"\n", b"\r\n"]), max_size=30).map(b"".join)


@pytest.mark.parametrize(
    ("stream", "strict"),
    [
        pytest.param(b"a\r\nb\r\n", True, id="CRLF"),
        pytest.param(b"\n", False, id="LF"),
        pytest.param(b"a\n.\nb\r\n", False, id="LF dot LF"),
        pytest.param(b"a\r.\rb\r\n", False, id="CR dot CR"),
        pytest.param(b"a\r\n.\nb\r\n", False, id="CRLF dot LF"),
        pytest.param(b"a\n.\r\nb\r\n", False, id="LF dot CRLF"),
        pytest.param(b"a\r\r\n", False, id="CR CRLF"),
        pytest.param(b"\r\n\n", False, id="CRLF LF"),
    ],
)
def test_only_crlf_is_a_line_end(stream: bytes, strict: bool) -> None:
    assert LineEnds().are_strict(stream) is strict


@given(streams, st.lists(st.integers(1, 5), min_size=1, max_size=30))
def test_the_borders_of_chunks_do_not_matter(stream: bytes, sizes: list[int]) -> None:
    strict_by_the_whole = not re.search(rb"(?<!\r)\n|\r(?!\n|\Z)", stream)

    watched = LineEnds()
    answers, at = [], 0
    for size in sizes * (len(stream) + 1):
        if at >= len(stream):
            break
        answers.append(watched.are_strict(stream[at : at + size]))
        at += size

    assert all(answers) is strict_by_the_whole
