"""Encoded words in headers: what they say is read, what cannot be read stays, and nothing takes long."""

import base64
from email.header import Header

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp.encoded_words import MAX_CHARS, MAX_WORDS, decoded


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("plain words", "plain words"),
        ("=?utf-8?q?Abwesend_bis_M=C3=A4rz?=", "Abwesend bis März"),
        ("=?UTF-8?B?5LiN5Zyo6YCa55+l?=", "不在通知"),
        ("=?iso-8859-1?Q?R=E9ponse?= automatique", "Réponse automatique"),
        ("=?iso-8859-1*fr?Q?R=E9ponse?=", "Réponse"),
        ("=?utf-8?q?out_of?= =?utf-8?q?_office?=", "out of office"),
        ("=?gb2312?B?19S2r7vYuLQ=?=", "自动回复"),
        ("=?no-such-charset?q?text?=", "=?no-such-charset?q?text?="),
        ("=?utf-8?x?text?=", "=?utf-8?x?text?="),
        ("=?utf-8?b?5LiN5Zyo6YCa55+?=", "不在通�"),
        ("=?utf-8?q?cut", "=?utf-8?q?cut"),
        ("=?us-ascii?b?/w==?=", "�"),
    ],
)
def test_what_is_written_is_read_as_far_as_it_can_be(written: str, read: str) -> None:
    assert decoded(written) == read


@given(st.text(max_size=200))
def test_no_text_raises(text: str) -> None:
    assert len(decoded(text)) <= max(MAX_CHARS, len(text))


@given(
    st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zs", "Zl", "Zp")), min_size=1, max_size=40)
)
def test_what_the_standard_library_writes_is_read(text: str) -> None:
    assert decoded(Header(text, "utf-8", maxlinelen=10_000).encode()) == text


def test_no_more_words_are_read_than_are_allowed() -> None:
    word = f"=?utf-8?b?{base64.b64encode(b'x').decode()}?= "
    assert decoded(word * (MAX_WORDS + 3)).count("=?utf-8") == 3
    assert len(decoded("a" * 10 * MAX_CHARS)) == MAX_CHARS
