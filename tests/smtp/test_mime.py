import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp import mime
from smtp.mime import TooComplexError, read


def test_parts_come_in_order_with_their_types() -> None:
    raw = (
        b'Subject: x\r\nContent-Type: multipart/report;\r\n boundary="b 1"\r\n\r\npreamble\r\n--b 1\r\n\r\nwords\r\n'
        b"--b 1 \r\nContent-Type: Message/Delivery-Status\r\n\r\nReporting-MTA: dns; x\r\n\r\n--b 1--\r\nepilogue"
    )

    message = read(raw)

    assert [(one.content_type, one.text()) for one in message.parts] == [
        ("text/plain", "words"),
        ("message/delivery-status", "Reporting-MTA: dns; x\n"),
    ]


def test_a_part_that_was_cut_off_is_still_read() -> None:
    message = read(b"Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/plain\n\nwords without an e")

    assert message.parts[0].text() == "words without an e"


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        pytest.param(b"base64", base64.b64encode("grün".encode()), id="base64"),
        pytest.param(b"Quoted-Printable", b"gr=C3=BCn", id="quoted-printable"),
        pytest.param(b"8bit", "grün".encode(), id="8bit"),
    ],
)
def test_transfer_encodings_are_undone(encoding: bytes, body: bytes) -> None:
    raw = b"Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: " + encoding + b"\n\n" + body

    assert read(raw).parts[0].text() == "grün"


def test_a_charset_that_we_do_not_know_is_not_looked_up() -> None:
    assert read(b"Content-Type: text/plain; charset=unicode_escape\n\n\\x41").parts[0].text() == "\\x41"


def _nested(depth: int) -> bytes:
    return b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(depth))


def _many_parts(count: int) -> bytes:
    return b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n\nx\n" * count


def _hollow(count: int) -> bytes:
    return b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\nContent-Type: multipart/x; boundary=c\n\n" * count


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(_nested(1_000), id="a thousand levels"),
        pytest.param(_many_parts(30_000), id="30,000 parts"),
        pytest.param(_hollow(5_000), id="5,000 hollow multiparts"),
        pytest.param(b"X: y\n" * 40_000 + b"\nbody", id="40,000 fields"),
        pytest.param(b"Subject: " + b"=?utf-8?q?=41?= " * 17_000 + b"\n\nbody", id="a subject of encoded words"),
        pytest.param(b"\x00" * 300_000, id="zeros"),
        pytest.param(b"X: " + b"y\n " * 30_000 + b"\n\nbody", id="a field of 30,000 lines"),
    ],
)
def test_too_much_of_anything_is_an_answer(raw: bytes) -> None:
    with pytest.raises(TooComplexError):
        read(raw)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"Content-Type: text/plain" + b"; a*0*=b" * 6_000 + b"\n\nbody", id="parameters without end"),
        pytest.param(b"Content-Type: multipart/mixed; boundary=-\n\n" + b"---" * 80_000, id="delimiters in one line"),
        pytest.param(b"Content-Type: multipart/mixed; boundary=" + b" " * 3_000 + b"\n\n--\n", id="no boundary at all"),
        pytest.param(b"Content-Transfer-Encoding: base64\n\n=" + b"A" * 99_999, id="broken base64"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_odd_messages_are_read_as_far_as_they_go(raw: bytes) -> None:
    assert len(read(raw).parts) >= 1


@given(st.binary(max_size=400) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")))
def test_reading_never_fails_but_for_the_bounds(noise: bytes) -> None:
    raw = b"Content-Type: multipart/mixed; boundary=b\n\n--b\n" + noise

    try:
        parts = read(raw).parts
    except TooComplexError:
        return
    assert all(isinstance(part.text(), str) for part in parts)


def test_what_stands_behind_the_first_bytes_is_not_looked_at() -> None:
    raw = b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\nx\n" + b"a" * mime.MAX_BYTES + b"\n--b\n\ny\n"

    assert len(read(raw).parts) == 1


@pytest.mark.parametrize(
    ("charset", "text"),
    [
        ("ISO-8859-2", "doručit"),
        ("windows-1251", "почта"),
        ("koi8-r", "почта"),
        ("gb2312", "退信"),
        ("GBK", "退信"),
        ("big5", "退信"),
        ("euc-jp", "配信"),
        ("shift_jis", "配信"),
        ("iso-2022-jp", "配信"),
        ("euc-kr", "반송"),
        ("utf-16", "mail"),
    ],
)
def test_charsets_of_the_world_are_read(charset: str, text: str) -> None:
    header = f"Content-Type: text/plain; charset={charset}\n\n".encode()

    assert read(header + text.encode(charset)).parts[0].text() == text


def test_eight_bits_without_a_charset_are_utf_8_if_they_can_be_and_western_otherwise() -> None:
    assert mime.as_text("grün".encode(), "") == mime.as_text("grün".encode("latin-1"), "") == "grün"


@given(
    st.sampled_from(sorted(mime.CHARSETS)), st.binary(max_size=80) | st.just(b"\x1b$)C\x0e\xff\x1b$B\xff+AAA-\xd8\x00")
)
def test_a_charset_that_lies_costs_letters_and_never_raises(charset: str, noise: bytes) -> None:
    assert isinstance(mime.as_text(noise, charset), str)


@pytest.mark.parametrize(
    "charset", ["zip", "rot13", "unicode_escape", "hex", "idna", "punycode", "undefined", "x" * 40]
)
def test_a_codec_of_python_that_is_no_charset_of_mail_is_never_used(charset: str) -> None:
    assert mime.as_text(b"\\x41", charset) == "\\x41"
