"""A CSV becomes send requests that mean the same however often they are made."""

from pathlib import Path

import pytest

from cli.failures import WrongUse
from cli.recipients import MOST_PER_REQUEST, message_id, read, requests


def written(folder: Path, text: str) -> Path:
    file = folder / "list.csv"
    file.write_bytes(text.encode())
    return file


def test_other_columns_are_variables(tmp_path: Path) -> None:
    file = written(tmp_path, "Email, name ,source,opted_in_at\nann@example.com,Ann,form,1764000000000\n")

    (found,) = read(file, "hello-1")

    assert (found.address, found.vars, found.source, found.opted_in_at) == (
        "ann@example.com",
        {"name": "Ann"},
        "form",
        1764000000000,
    )


def test_the_same_file_again_asks_for_the_same_messages(tmp_path: Path) -> None:
    file = written(tmp_path, "address,name\n" + "".join(f"u{n}@example.com,U\n" for n in range(1203)))

    first, again = (list(requests("c", "hello-1", read(file, "hello-1"))) for _ in range(2))

    assert first == again
    assert [len(one.recipients) for one in first] == [MOST_PER_REQUEST, MOST_PER_REQUEST, 203]
    assert len({one.message_id for request in first for one in request.recipients}) == 1203


def test_another_content_to_the_same_address_is_another_message() -> None:
    assert message_id("hello-1", "ann@example.com") != message_id("hello-2", "ann@example.com")


def test_a_byte_order_mark_is_no_part_of_a_column(tmp_path: Path) -> None:
    (found,) = read(written(tmp_path, "\ufeffaddress\nann@example.com\n"), "c")

    assert found.address == "ann@example.com"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        pytest.param("name\nAnn\n", "has no column address", id="no-address"),
        pytest.param("", "has no column address", id="empty"),
        pytest.param("address\na@b.example,extra\n", "line 2: more cells", id="more-cells"),
        pytest.param("address,opted_in_at\na@b.example,yesterday\n", "column opted_in_at: expected milli", id="time"),
    ],
)
def test_a_wrong_file_is_explained(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(WrongUse, match=sentence):
        list(read(written(tmp_path, text), "c"))


def test_a_file_that_is_not_utf8_is_explained(tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    file.write_bytes(b"address\nj\xf6rg@example.com\n")

    with pytest.raises(WrongUse, match="utf-8"):
        list(read(file, "c"))


def test_an_address_over_two_lines_goes_on_to_be_refused_by_name(tmp_path: Path) -> None:
    (found, other) = read(written(tmp_path, 'address\n"ann@example.com\r\nBcc: x@y.example"\nben@example.com\n'), "c")

    assert ("\n" in found.address, other.address) == (True, "ben@example.com")
