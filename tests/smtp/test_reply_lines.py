"""Replies out of bytes, however they are cut."""

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp.reply_lines import LONGEST, ReplyLines, Unfit

texts = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=20).map(str.encode)
codes = st.integers(200, 599)


@st.composite
def replies(draw: st.DrawFn) -> tuple[bytes, tuple[int, bytes]]:
    code, lines = draw(codes), draw(st.lists(texts, min_size=1, max_size=4))
    end = draw(st.sampled_from([b"\r\n", b"\n"]))
    wire = b"".join(b"%d-%b%b" % (code, line, end) for line in lines[:-1]) + b"%d %b%b" % (code, lines[-1], end)
    return wire, (code, b"\n".join(lines))


@given(said=st.lists(replies(), max_size=5), cuts=st.lists(st.integers(0, 200), max_size=6))
def test_however_the_bytes_are_cut_the_replies_are_the_same(
    said: list[tuple[bytes, tuple[int, bytes]]], cuts: list[int]
) -> None:
    wire = b"".join(one for one, _ in said)
    lines = ReplyLines()
    places = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]
    heard = [
        (code, text.strip()) for start, end in itertools.pairwise(places) for code, text in lines.read(wire[start:end])
    ]
    assert heard == [(code, text.strip()) for _, (code, text) in said]


@pytest.mark.parametrize(
    "wire",
    [
        b"hello\r\n",
        b"2x0 ok\r\n",
        b"25\r\n",
        b"\r\n",
        b"250_ok\r\n",
        b"250-one\r\n550 two\r\n",
        b"250" + b"x" * LONGEST,
        b"250-" + b"x" * 1000 + b"\r\n",
        b"\xff\xfe\xfd \r\n",
    ],
    ids=["text", "digits", "short", "empty", "separator", "two-codes", "long-line", "endless", "binary"],
)
def test_what_is_no_reply_is_said_to_be_none(wire: bytes) -> None:
    lines = ReplyLines()
    with pytest.raises(Unfit):
        list(itertools.chain.from_iterable(lines.read(wire) for _ in range(100)))


def test_a_code_alone_is_a_reply() -> None:
    assert list(ReplyLines().read(b"250\r\n354\n")) == [(250, b""), (354, b"")]


@given(noise=st.binary(max_size=300))
def test_noise_is_a_reply_or_unfit_and_nothing_else(noise: bytes) -> None:
    with contextlib.suppress(Unfit):
        assert all(0 <= code <= 999 for code, _ in ReplyLines().read(noise))
