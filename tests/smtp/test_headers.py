"""Header lines by themselves: one call makes one field, whatever some reader takes for the end of a line."""

import pytest

from smtp.headers import field, mailbox, one_line, unstructured

LINE_ENDS = ["\r\n", "\r", "\n", "\0", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]


@pytest.mark.parametrize("end", LINE_ENDS, ids=lambda one: one.encode("unicode-escape").decode())
def test_nothing_that_ends_a_line_anywhere_stays_in_a_field(end: str) -> None:
    value = f"zoë{end}Bcc: x@y.example"
    for line in (field("X-Note", value), unstructured("Subject", value), field("To", mailbox(value, "a@b.example"))):
        assert line.endswith(b"\r\n")
        assert len(line.decode().removesuffix("\r\n").replace("\r\n ", "").splitlines()) == 1
    assert end not in one_line(value)
