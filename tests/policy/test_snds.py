"""Exports of trap counts: columns by name, times in any usual form, and no row that could end the reading."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.snds import MOST_HITS, SIGNAL, TrapCount, WrongFile, WrongRow, read
from policy.traps import weight_of
from schemas.feedback import FeedbackEvent

DAY = 1_763_942_400_000  # 2025-11-24, UTC
CLASSIC = (
    "IP Address,Activity period start,Activity period end,RCPT commands,DATA commands,Message recipients,"
    "Filter result,Complaint rate,Trap message period start,Trap message period end,Trap hits,Sample HELO\n"
)


def lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def test_a_classic_export_is_read_by_its_header() -> None:
    rows = (
        "192.0.2.1,11/23/2025 1:00 AM,11/23/2025 11:00 PM,10,10,10,GREEN,0%,11/23/2025,11/24/2025 12:00 AM,3,x\n"
        "192.0.2.2,11/23/2025 1:00 AM,11/24/2025 12:00 AM,10,10,10,RED,1%,,,2,x\n"
        "192.0.2.3,11/23/2025 1:00 AM,11/24/2025 12:00 AM,10,10,10,GREEN,0%,,,0,x\n"
        "192.0.2.4,11/23/2025 1:00 AM,11/24/2025 12:00 AM,10,10,10,GREEN,0%,,,,x\n"
    )

    assert list(read(lines(CLASSIC + rows))) == [TrapCount("192.0.2.1", DAY, 3), TrapCount("192.0.2.2", DAY, 2)]


@pytest.mark.parametrize(
    "text",
    [
        "date\tip\ttrap_hits\n2025-11-24\t2001:db8::0:1\t1,200\n",
        "Trap hits;IP;Day\n1200;2001:DB8::1;2025-11-24T00:00:00+00:00\n",
        '"ip address","trap hits","activity end"\n"2001:db8::1","1200","11/24/2025"\n\n',
        "ip,trap hits,date\n2001:db8::1,1200,24 Nov 2025\n",
    ],
)
def test_columns_may_stand_in_any_order_and_form(text: str) -> None:
    assert list(read(lines(text))) == [TrapCount("2001:db8::1", DAY, 1_200)]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("nonsense,2025-11-24,1", "nonsense"),
        ("192.0.2.1,yesterday,1", "time: expected a day"),
        ("192.0.2.1,,1", "time: expected a day"),
        ("192.0.2.1,2025-11-24,many", "trap hits: expected a number"),
        ("192.0.2.1,2025-11-24,-1", "trap hits: expected a number"),
        ("192.0.2.1", "fewer cells"),
    ],
)
def test_a_wrong_row_is_named_and_the_next_is_read(row: str, told: str) -> None:
    wrong, good = read(lines(f"ip,date,trap hits\n{row}\n192.0.2.9,2025-11-24,1\n"))

    assert isinstance(wrong, WrongRow)
    assert (wrong.line, told in wrong.explain) == (2, True), wrong.explain
    assert good == TrapCount("192.0.2.9", DAY, 1)


@pytest.mark.parametrize("text", ["", "192.0.2.1,2025-11-24,1\n", "ip,date\n", "ip,trap hits\n", "date,trap hits\n"])
def test_a_file_that_does_not_name_its_columns_is_refused(text: str) -> None:
    with pytest.raises(WrongFile, match="must name the columns"):
        list(read(lines(text)))


def test_each_hit_has_a_name_that_is_the_same_in_every_import() -> None:
    fewer, more = TrapCount("192.0.2.1", DAY + 5_000, 2), TrapCount("192.0.2.1", DAY + 9_000, 3)

    assert fewer.names == ["snds-192.0.2.1-2025-11-24-1", "snds-192.0.2.1-2025-11-24-2"]
    assert set(fewer.names) < set(more.names)
    assert len(TrapCount("192.0.2.1", DAY, 10**9).names) == MOST_HITS


CELLS = st.text(alphabet="0123456789./-:,;\t\"' aIPMé\0", max_size=25)


@given(st.lists(st.lists(CELLS, max_size=5), max_size=8))
def test_no_row_ends_the_reading(rows: list[list[str]]) -> None:
    text = "ip,date,trap hits\n" + "".join(",".join(row).replace('"', "") + "\n" for row in rows)
    for one in read(lines(text)):
        assert isinstance(one, TrapCount | WrongRow)


def test_it_is_a_suspicion() -> None:
    event = FeedbackEvent(kind="trap_hit", campaign="c", at=1, trap=SIGNAL.trap, source="import")
    assert weight_of(event) == 80
