"""A picture of how a campaign was judged, as SVG: its states, its rate beside the limit, the evidence, the decisions.

Drawn from top to bottom on one axis of time: a strip with the states; the rate with its 95 % interval and the limit;
the evidence on a logarithmic scale, with the lines at which it counts as a warning, a breach, or beyond doubt.  Each
decision is a line through all of it, with a number, and the numbers are explained below.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape

from policy.verdicts import BREACH, GRAVE, WARNING
from schemas.base import Millis
from schemas.reputation import State

WIDTH = 1040
LEFT, RIGHT = 92, 190  # room for the scales, and for the words at the lines
STRIP_TOP, STRIP_HIGH = 76, 26
RATE_TOP, RATE_HIGH = 132, 210
EVIDENCE_TOP, EVIDENCE_HIGH = 382, 210
AXIS_ROOM = 54
LINE_HIGH = 20
MARKS = 12  # decisions that are explained
LONGEST = 150  # letters of a reason in one line

_INK, _SOFT, _GRID = "#1f2933", "#52606d", "#e4e7eb"
_RATE, _BAND, _LIMIT, _EVIDENCE = "#1d5fa8", "#a9c9ea", "#b42318", "#6a3fa0"
_STATES: dict[State, tuple[str, str]] = {
    "healthy": ("#cfe8d5", "#14532d"),
    "watched": ("#fdf0b6", "#5c4400"),
    "throttled": ("#fbcf93", "#6b3200"),
    "paused": ("#f3a183", "#661900"),
    "isolated": ("#c2413a", "#ffffff"),
    "retired": ("#616e7c", "#ffffff"),
}
_FONTS = "DejaVu Sans, Verdana, Helvetica, Arial, sans-serif"
_LINES = ((WARNING, "warning"), (BREACH, "breach"), (GRAVE, "beyond doubt"))
_MINUTE, _DAY = 60_000, 86_400_000
_STEPS_MS = tuple(
    _MINUTE * minutes for minutes in (1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880, 4320, 10_080, 20_160)
)
_LOWEST_EXPONENT = -2
_LEAST_EXPONENT = math.ceil(math.log10(GRAVE)) + 1  # all lines can be seen
_HIGHEST_EXPONENT = _LEAST_EXPONENT + 3  # more is no more than beyond doubt
_APART = 15  # of words that stand one above the other


@dataclass(frozen=True, slots=True)
class Point:
    """A verdict at a moment."""

    at: Millis
    rate: float
    low: float
    high: float
    evidence: float


@dataclass(frozen=True, slots=True)
class Mark:
    """A decision: from when on which state holds, and the sentence that says why."""

    at: Millis
    state: State
    reason: str


@dataclass(frozen=True, slots=True)
class Chart:
    """What is drawn; ``metric`` is the rate's name for people, ``limit`` that which holds for it."""

    title: str
    metric: str
    limit: float
    begin: Millis
    end: Millis
    points: Sequence[Point]
    marks: Sequence[Mark]


@dataclass(frozen=True, slots=True)
class _Panel:
    """A part of the picture with a scale of its own: ``place`` turns a value into a height."""

    top: int
    high: int
    place: Callable[[float], float]


def svg(chart: Chart) -> str:
    """The picture."""
    span = max(chart.end - chart.begin, _MINUTE)
    right = WIDTH - RIGHT

    def x(at: int) -> float:
        return LEFT + (right - LEFT) * min(1.0, max(0.0, (at - chart.begin) / span))

    explained = list(chart.marks[:MARKS])
    below = EVIDENCE_TOP + EVIDENCE_HIGH + AXIS_ROOM
    height = below + LINE_HIGH * (len(explained) + 2)
    size = f'width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="{_FONTS}" font-size="13">',
        f"<title>{_text(chart.title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        _words(LEFT, 30, chart.title, size=18, weight="bold"),
        _words(LEFT, 52, f"{_day(chart.begin)} to {_day(chart.end)} (UTC)", ink=_SOFT),
        *_strip(chart, x),
        *_rate(chart, x),
        *_evidence(chart, x),
        *_times(chart, x),
        *_marks(explained, x),
        *_explained(explained, len(chart.marks), below),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _strip(chart: Chart, x: Callable[[int], float]) -> Iterator[str]:
    """The states, one after the other; words where there is room."""
    yield _words(LEFT - 10, STRIP_TOP + 18, "state", anchor="end")
    begins: list[tuple[int, State]] = [(chart.begin, "healthy"), *((one.at, one.state) for one in chart.marks)]
    ends = [*(at for at, _ in begins[1:]), chart.end]
    for (begin, state), end in zip(begins, ends, strict=True):
        fill, ink = _STATES[state]
        wide = x(end) - x(begin)
        yield (
            f'<rect x="{x(begin):.1f}" y="{STRIP_TOP}" width="{max(wide, 1.0):.1f}" height="{STRIP_HIGH}" '
            f'fill="{fill}"><title>{state} from {_day(begin)}</title></rect>'
        )
        if wide > 9 * len(state):
            yield _words((x(begin) + x(end)) / 2, STRIP_TOP + 18, state, anchor="middle", ink=ink)


def _rate(chart: Chart, x: Callable[[int], float]) -> Iterator[str]:
    """The rate, its interval as a band, and the limit."""
    rates = [one.rate for one in chart.points if one.low > 0] or [chart.limit]
    top = _rounded_up(1.25 * max(*rates, 2 * chart.limit))
    panel = _Panel(RATE_TOP, RATE_HIGH, lambda rate: RATE_TOP + RATE_HIGH * (1 - min(1.0, max(0.0, rate / top))))
    scale = [top * part / 5 for part in range(6)]
    yield from _frame(panel, f"{chart.metric}, share of messages in the window that decided", scale, _rated)
    runs = chart.points
    if runs:
        upper = [f"{x(one.at):.1f},{panel.place(one.high):.1f}" for one in runs]
        lower = [f"{x(one.at):.1f},{panel.place(one.low):.1f}" for one in reversed(runs)]
        yield f'<polygon points="{" ".join([*upper, *lower])}" fill="{_BAND}" fill-opacity="0.55"/>'
        yield _line([(x(one.at), panel.place(one.rate)) for one in runs], _RATE)
    yield _across(panel, chart.limit, _LIMIT, f"limit {_rated(chart.limit)}")
    words = WIDTH - RIGHT + 12
    yield from _legend(words, RATE_TOP + 14, [(_RATE, "rate", False), (_BAND, "95 % interval", True)])


def _evidence(chart: Chart, x: Callable[[int], float]) -> Iterator[str]:
    """The evidence, and the lines that it crosses."""
    most = max((one.evidence for one in chart.points), default=1.0)
    exponent = min(_HIGHEST_EXPONENT, max(_LEAST_EXPONENT, math.ceil(math.log10(max(most, 1.0)))))
    tall = exponent - _LOWEST_EXPONENT

    def place(value: float) -> float:
        height = math.log10(max(value, 10.0**_LOWEST_EXPONENT)) - _LOWEST_EXPONENT
        return EVIDENCE_TOP + EVIDENCE_HIGH * (1 - min(1.0, height / tall))

    panel = _Panel(EVIDENCE_TOP, EVIDENCE_HIGH, place)
    step = 2 if tall > 8 else 1
    scale = [10.0**power for power in range(_LOWEST_EXPONENT, exponent + 1, step)]
    yield from _frame(panel, "evidence against the limit (e-value, logarithmic; 1 says nothing)", scale, _power)
    last = math.inf
    for value, word in _LINES:
        last = min(place(value) + 4, last - _APART)
        yield _across(panel, value, _LIMIT if value == BREACH else _SOFT, f"{word} ({value:,.0f})", words_at=last)
    if chart.points:
        yield _line([(x(one.at), place(one.evidence)) for one in chart.points], _EVIDENCE)
    yield from _legend(WIDTH - RIGHT + 12, EVIDENCE_TOP + EVIDENCE_HIGH - 6, [(_EVIDENCE, "evidence", False)])


def _frame(panel: _Panel, name: str, scale: Sequence[float], shown: Callable[[float], str]) -> Iterator[str]:
    yield _words(LEFT, panel.top - 10, name, weight="bold")
    for value in scale:
        y = panel.place(value)
        yield f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="{_GRID}"/>'
        yield _words(LEFT - 10, y + 4, shown(value), anchor="end", ink=_SOFT)
    yield (
        f'<rect x="{LEFT}" y="{panel.top}" width="{WIDTH - RIGHT - LEFT}" height="{panel.high}" fill="none" '
        f'stroke="{_SOFT}"/>'
    )


def _times(chart: Chart, x: Callable[[int], float]) -> Iterator[str]:
    """Ticks of the axis of time, at round times; a new day is named."""
    span = max(chart.end - chart.begin, _MINUTE)
    step = next((one for one in _STEPS_MS if span / one <= 9), _STEPS_MS[-1])
    bottom = EVIDENCE_TOP + EVIDENCE_HIGH
    named = -1
    at = -(-chart.begin // step) * step
    while at <= chart.end:
        for top, high in ((RATE_TOP, RATE_HIGH), (EVIDENCE_TOP, EVIDENCE_HIGH)):
            yield f'<line x1="{x(at):.1f}" y1="{top}" x2="{x(at):.1f}" y2="{top + high}" stroke="{_GRID}"/>'
        yield f'<line x1="{x(at):.1f}" y1="{bottom}" x2="{x(at):.1f}" y2="{bottom + 5}" stroke="{_SOFT}"/>'
        yield _words(x(at), bottom + 20, f"{_moment(at):%H:%M}", anchor="middle", ink=_SOFT)
        if at // _DAY != named:
            named = at // _DAY
            yield _words(x(at), bottom + 36, f"{_moment(at):%d %b}", anchor="middle", ink=_SOFT)
        at += step
    yield _words(WIDTH - RIGHT + 12, bottom + 20, "time, UTC", ink=_SOFT)


def _marks(marks: Sequence[Mark], x: Callable[[int], float]) -> Iterator[str]:
    """A line through strip and panels for each decision, and its number above, beside its neighbour's if need be."""
    parts = ((STRIP_TOP, STRIP_HIGH), (RATE_TOP, RATE_HIGH), (EVIDENCE_TOP, EVIDENCE_HIGH))
    last = -math.inf
    for number, mark in enumerate(marks, start=1):
        at = x(mark.at)
        for top, high in parts:
            yield (
                f'<line x1="{at:.1f}" y1="{top}" x2="{at:.1f}" y2="{top + high}" stroke="{_INK}" stroke-width="1.2" '
                f'stroke-dasharray="5 4"><title>{_text(mark.reason)}</title></line>'
            )
        last = max(at, last + 20)
        yield f'<line x1="{at:.1f}" y1="{STRIP_TOP}" x2="{last:.1f}" y2="{STRIP_TOP - 10}" stroke="{_INK}"/>'
        yield f'<circle cx="{last:.1f}" cy="{STRIP_TOP - 10}" r="9" fill="{_INK}"/>'
        yield _words(last, STRIP_TOP - 6, str(number), anchor="middle", ink="#ffffff", size=11)


def _explained(marks: Sequence[Mark], total: int, top: int) -> Iterator[str]:
    if not marks:
        yield _words(LEFT, top + 16, "no decision: the campaign would have stayed healthy", ink=_SOFT)
    for number, mark in enumerate(marks, start=1):
        y = top + LINE_HIGH * number
        fill, _ = _STATES[mark.state]
        reason = mark.reason if len(mark.reason) <= LONGEST else f"{mark.reason[: LONGEST - 1]}…"
        yield f'<circle cx="{LEFT - 62}" cy="{y - 4}" r="9" fill="{_INK}"/>'
        yield _words(LEFT - 62, y, str(number), anchor="middle", ink="#ffffff", size=11)
        yield f'<rect x="{LEFT - 48}" y="{y - 10}" width="12" height="12" fill="{fill}" stroke="{_SOFT}"/>'
        yield _words(LEFT - 30, y, f"{_moment(mark.at):%d %b %H:%M:%S}  {mark.state}: {reason}", size=12)
    if total > len(marks):
        yield _words(LEFT - 30, top + LINE_HIGH * (len(marks) + 1), f"and {total - len(marks):,} more", ink=_SOFT)


def _legend(left: float, top: float, entries: Sequence[tuple[str, str, bool]]) -> Iterator[str]:
    for row, (colour, word, is_area) in enumerate(entries):
        y = top + 20 * row
        if is_area:
            yield f'<rect x="{left}" y="{y - 10}" width="22" height="12" fill="{colour}" fill-opacity="0.55"/>'
        else:
            yield f'<line x1="{left}" y1="{y - 4}" x2="{left + 22}" y2="{y - 4}" stroke="{colour}" stroke-width="2.5"/>'
        yield _words(left + 30, y, word)


def _across(panel: _Panel, value: float, colour: str, word: str, words_at: float | None = None) -> str:
    """A line at a value, with its word beside it."""
    y = panel.place(value)
    return (
        f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="{colour}" stroke-width="1.5" '
        f'stroke-dasharray="8 4"/>\n'
        + _words(WIDTH - RIGHT + 12, y + 4 if words_at is None else words_at, word, ink=colour)
    )


def _line(places: Sequence[tuple[float, float]], colour: str) -> str:
    """A line through places that keeps its value until the next one: verdicts hold until they are renewed."""
    path = [f"M{places[0][0]:.1f} {places[0][1]:.1f}"]
    path += [f"H{x:.1f}V{y:.1f}" for x, y in places[1:]]
    return f'<path d="{"".join(path)}" fill="none" stroke="{colour}" stroke-width="2"/>'


def _words(
    x: float, y: float, words: str, *, anchor: str = "start", ink: str = _INK, size: int = 13, weight: str = "normal"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{ink}" font-size="{size}" '
        f'font-weight="{weight}">{_text(words)}</text>'
    )


def _text(words: str) -> str:
    """Words as XML may hold them: no control characters, no tags."""
    return escape("".join(letter if letter.isprintable() else " " for letter in words))


def _rounded_up(value: float) -> float:
    """A round number above: 1, 2 or 5 times a power of ten, at most 1."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return min(1.0, next(one * power for one in (1.0, 2.0, 5.0, 10.0) if one * power >= value * (1 - 1e-9)))


def _rated(share: float) -> str:
    return f"{100 * share:.3g} %"


def _power(value: float) -> str:
    return f"{value:g}" if value < 1000 else f"10{_superscript(round(math.log10(value)))}"


def _superscript(number: int) -> str:
    return str(number).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _moment(at: int) -> datetime:
    return datetime.fromtimestamp(at / 1000, UTC)


def _day(at: int) -> str:
    return f"{_moment(at):%Y-%m-%d %H:%M}"
