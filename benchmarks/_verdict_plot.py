"""The simulation as a picture: how soon each rule stops a bad campaign, and how often it stops a good one."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from benchmarks._harness import Json

NAMES = {
    "mailcordon": "mailcordon",
    "ratio_1000": "ratio, 1,000 mails at least",
    "ratio_200": "ratio, 200 mails at least",
    "wilson_nominal": "Wilson, 99.9 %",
    "wilson_calibrated": "Wilson, calibrated",
    "exact_checkpoints": "exact test at checkpoints",
    "ses_like": "SES-like",
    "posthog_like": "PostHog-like",
}
COLOURS = ("#d6336c", "#1c7ed6", "#4dabf7", "#e8890c", "#2b8a3e", "#7048e8", "#868e96", "#343a40")
WIDTH, HEIGHT = 980, 470
TOP, BOTTOM = 70, 400
LEFT_PANEL = 80, 500
RIGHT_PANEL = 690, 950
FLOOR = 0.1  # nothing, on a scale of powers of ten


def plot(folder: Path, told: Json) -> None:
    """One file for each metric."""
    folder.mkdir(parents=True, exist_ok=True)
    figures: Any = told["figures"]
    for metric, found in figures["metrics"].items():
        (folder / f"verdicts-{metric}.svg").write_text(picture(metric, found), encoding="utf-8")


def picture(metric: str, found: Mapping[str, Any]) -> str:
    """Mails until isolation on the left, false isolations on the right."""
    title = f"{metric.replace('_', ' ')}: stopping the bad, and sparing the good"
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
            f'font-size="12" fill="#343a40"><title>{escape(title)}</title>'
        ),
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        *_mails(found["mails_to_isolation"]),
        *_falses(found["false_per_1000_days"]),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _mails(waits: Mapping[str, Any]) -> list[str]:
    left, right = LEFT_PANEL
    kinds = list(waits["mailcordon"])
    medians = {rule: [waits[rule][kind]["median"] for kind in kinds] for rule in NAMES}
    known = [mails for row in medians.values() for mails in row if mails]
    powers = range(int(math.log10(min(known))), math.ceil(math.log10(max(known))) + 1)
    xs = [left + 30 + place * (right - left - 60) / (len(kinds) - 1) for place in range(len(kinds))]
    parts = [_text(left, 30, "Mails until isolation (median)", size=15), _text(left, 48, "lower is sooner")]
    for power in powers:
        y = _scaled(10.0**power, powers[0], powers[-1], BOTTOM, TOP)
        parts += [_line(left, y, right, y), _text(left - 8, y + 4, f"{10**power:,}", anchor="end")]
    for x, kind in zip(xs, kinds, strict=True):
        parts.append(_text(x, BOTTOM + 20, f"{kind} ×", anchor="middle"))
    parts.append(_text((left + right) / 2, BOTTOM + 40, "true rate, in limits", anchor="middle"))
    for (rule, row), colour in reversed([*zip(medians.items(), COLOURS, strict=True)]):
        points = [
            (x, _scaled(mails, powers[0], powers[-1], BOTTOM, TOP)) for x, mails in zip(xs, row, strict=True) if mails
        ]
        width = 3 if rule == "mailcordon" else 1.5
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{width + 1}" fill="{colour}"/>' for x, y in points]
    return parts


def _falses(false: Mapping[str, Any]) -> list[str]:
    left, right = RIGHT_PANEL
    parts = [
        _text(left - 165, 30, "False isolations per 1,000 campaign days", size=15),
        _text(left - 165, 48, "○ at half the limit   ● exactly at the limit"),
    ]
    for power in range(-1, 4):
        x = _scaled(10.0**power, -1, 3, left, right)
        parts += [
            _line(x, TOP, x, BOTTOM),
            _text(x, BOTTOM + 20, "0" if power < 0 else f"{10**power:,}", anchor="middle"),
        ]
    parts.append(_text((left + right) / 2, BOTTOM + 40, "fewer is better", anchor="middle"))
    for place, (rule, colour) in enumerate(zip(NAMES, COLOURS, strict=True)):
        y = TOP + 24 + place * (BOTTOM - TOP - 40) / (len(NAMES) - 1)
        weight = ' font-weight="bold"' if rule == "mailcordon" else ""
        parts.append(f'<g fill="{colour}"{weight}>{_text(left - 12, y + 4, NAMES[rule], anchor="end")}</g>')
        half, full = (_scaled(false[rule][kind], -1, 3, left, right) for kind in ("0.5", "1.0"))
        parts += [
            f'<line x1="{half:.1f}" y1="{y:.1f}" x2="{full:.1f}" y2="{y:.1f}" stroke="{colour}" stroke-width="2"/>',
            f'<circle cx="{full:.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>',
            f'<circle cx="{half:.1f}" cy="{y:.1f}" r="5" fill="white" stroke="{colour}" stroke-width="2"/>',
        ]
    return parts


def _scaled(value: float, low: int, high: int, start: float, end: float) -> float:
    """A place on a scale of powers of ten."""
    share = (math.log10(max(value, FLOOR)) - low) / (high - low)
    return start + min(1.0, max(0.0, share)) * (end - start)


def _text(x: float, y: float, words: str, *, anchor: str = "start", size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(words)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#e9ecef"/>'
