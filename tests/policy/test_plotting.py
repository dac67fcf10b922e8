"""A picture is well-formed whatever it shows, and says with words what its lines mean."""

from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.plotting import MARKS, WIDTH, Chart, Mark, Point, svg
from policy.verdicts import BREACH, GRAVE, WARNING
from schemas.reputation import State

T0 = 1_764_000_000_000
HOUR = 3_600_000
SPACE = "{http://www.w3.org/2000/svg}"


def chart(**fields: object) -> Chart:
    given: dict[str, object] = {
        "title": "spring: hard bounces",
        "metric": "hard bounces",
        "limit": 0.02,
        "begin": T0,
        "end": T0 + 10 * HOUR,
        "points": [Point(T0 + hour * HOUR, 0.01, 0.005, 0.02, 10.0**hour) for hour in range(8)],
        "marks": [Mark(T0 + 7 * HOUR, "isolated", "7 of 213 messages bounced hard")],
    }
    return Chart(**{**given, **fields})  # type: ignore[arg-type]  # fields of the test


def words(picture: str) -> list[str]:
    return [one.text or "" for one in ET.fromstring(picture).iter(f"{SPACE}text")]  # noqa: S314 - our own


def test_it_says_what_is_drawn_in_which_unit_and_when() -> None:
    said = words(svg(chart()))

    lines = (f"warning ({WARNING:,.0f})", f"breach ({BREACH:,.0f})", f"beyond doubt ({GRAVE:,.0f})")
    for needed in ("limit 2 %", "95 % interval", *lines):
        assert needed in said
    assert "24 Nov" in said
    assert "18:00" in said
    assert any("isolated: 7 of 213 messages bounced hard" in one for one in said)


def test_the_evidence_rises_and_the_limit_stays() -> None:
    picture = ET.fromstring(svg(chart()))  # noqa: S314 - our own
    _rate, evidence = (one.get("d") or "" for one in picture.iter(f"{SPACE}path"))

    heights = [float(step.partition("V")[2]) for step in evidence.split("H")[1:]]

    assert heights == sorted(heights, reverse=True)  # upwards is a smaller y


@pytest.mark.parametrize("reason", ["<script>&amp;\x00\x1b[31m", "x" * 5000, "„ümläut“ 漢字"])
def test_strange_words_stay_words(reason: str) -> None:
    picture = svg(chart(title=reason, marks=[Mark(T0, "paused", reason)]))

    assert ET.fromstring(picture).tag == f"{SPACE}svg"  # noqa: S314 - our own
    assert "<script" not in picture


def test_nothing_to_draw_is_a_picture_that_says_so() -> None:
    said = words(svg(chart(points=[], marks=[], begin=T0, end=T0)))

    assert "no decision: the campaign would have stayed healthy" in said


def test_of_many_decisions_the_first_are_explained() -> None:
    marks = [Mark(T0 + number * 1000, "throttled", f"reason {number}") for number in range(MARKS + 5)]

    said = words(svg(chart(marks=marks)))

    assert "and 5 more" in said
    assert sum("reason" in one for one in said) == MARKS


STATES: list[State] = ["healthy", "watched", "throttled", "paused", "isolated", "retired"]
SHARES = st.floats(0, 1)


@settings(max_examples=50, deadline=None)
@given(
    points=st.lists(
        st.builds(
            Point,
            at=st.integers(T0, T0 + 90 * 24 * HOUR),
            rate=SHARES,
            low=SHARES,
            high=SHARES,
            evidence=st.floats(0, 1e300),
        ),
        max_size=20,
    ),
    marks=st.lists(
        st.builds(Mark, at=st.integers(T0, T0 + 90 * 24 * HOUR), state=st.sampled_from(STATES), reason=st.text()),
        max_size=20,
    ),
    limit=SHARES,
    length=st.integers(0, 90 * 24 * HOUR),
)
def test_whatever_was_measured_stays_inside_the_picture(
    points: list[Point], marks: list[Mark], limit: float, length: int
) -> None:
    marks = sorted(marks, key=lambda one: one.at)
    picture = ET.fromstring(svg(chart(points=points, marks=marks, limit=limit, end=T0 + length)))  # noqa: S314

    for one in picture.iter(f"{SPACE}line"):
        assert 0 <= float(one.get("x1") or 0) <= WIDTH
        assert 0 <= float(one.get("y1") or 0) <= float(picture.get("height") or 0)
