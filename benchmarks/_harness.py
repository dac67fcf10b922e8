"""What all benchmarks share: their options, medians with spread, the table for people and the JSON for machines.

A benchmark measures its subject and a baseline in the same run, in turns.  A figure is the median of the turns, per
second of processor time (user and system, of the measured process and its children); a ratio is the median of the
ratios of each turn, since the two halves of a turn met the same machine.
"""

import argparse
import json
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class Turn:
    """What one process did in one turn: so many events, for so many seconds of processor and of wall clock."""

    events: int
    cpu_s: float
    wall_s: float

    @property
    def per_cpu_s(self) -> float:
        """Events per second of processor time."""
        return self.events / max(self.cpu_s, 0.001)

    @property
    def per_wall_s(self) -> float:
        """Events per second of wall clock."""
        return self.events / max(self.wall_s, 0.001)


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some runs, and how far they lie apart."""

    runs: Sequence[float]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.runs)

    def __str__(self) -> str:
        return f"{_shown(self.median):>10}  ({_shown(min(self.runs))} to {_shown(max(self.runs))})"

    def as_json(self) -> Json:
        """Lowest, highest, and all of them in order."""
        return {"low": _rounded(min(self.runs)), "high": _rounded(max(self.runs)), "runs": [*map(_rounded, self.runs)]}


@dataclass(frozen=True, slots=True)
class Subject:
    """One thing that is measured: ours, and the baseline ``against`` which it is measured beside it.

    ``variant`` tells apart subjects that differ in their circumstances only (``_20ms``); it ends every key.  With
    ``by_wall`` the figure is per second of wall clock: where waiting is the limit, processor time says nothing.
    """

    key: str
    unit: str
    ours: Sequence[Turn]
    plain: Sequence[Turn]
    against: str = "plain"
    variant: str = ""
    by_wall: bool = False

    @property
    def name(self) -> str:
        """The key of its figure."""
        return self.key + self.variant

    @property
    def ratio_name(self) -> str:
        """The key of its ratio."""
        return f"{self.key}_vs_{self.against}{self.variant}"

    @property
    def per(self) -> str:
        """What its figures are per."""
        return "second of wall clock" if self.by_wall else "CPU second"

    @property
    def figure(self) -> Spread:
        """Ours."""
        return Spread([self._speed(turn) for turn in self.ours])

    @property
    def baseline(self) -> Spread:
        """The baseline."""
        return Spread([self._speed(turn) for turn in self.plain])

    @property
    def ratio(self) -> Spread:
        """Ours by the baseline, turn by turn."""
        pairs = zip(self.ours, self.plain, strict=True)
        return Spread([self._speed(ours) / self._speed(plain) for ours, plain in pairs])

    def _speed(self, turn: Turn) -> float:
        return turn.per_wall_s if self.by_wall else turn.per_cpu_s


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of a benchmark; ``checks`` say in words what was found right, ``facts`` what else was noted."""

    bench: str
    subjects: Sequence[Subject]
    checks: Sequence[str]
    facts: Mapping[str, object]

    def table(self) -> str:
        """For people."""
        where = machine()
        lines = [f"{self.bench}: {where['cpu']}, {where['cores']} cores, Python {where['python']}", ""]
        for subject in self.subjects:
            lines += [
                f"{subject.name}: {subject.unit} per {subject.per}, median of {len(subject.ours)} (low to high)",
                f"  {'mailcordon':12}{subject.figure}",
                f"  {subject.against.replace('_', '-'):12}{subject.baseline}",
                f"  {'ratio':12}{subject.ratio}",
                "",
            ]
        lines += [f"found right: {check}" for check in self.checks]
        lines += [f"{name.replace('_', ' ')}: {fact}" for name, fact in self.facts.items()]
        return "\n".join(lines)

    def as_json(self) -> Json:
        """For machines: the object of the contract, and the spread beside it."""
        return {
            "bench": self.bench,
            "figures": {one.name: _rounded(one.figure.median) for one in self.subjects},
            "baseline": {one.name: _rounded(one.baseline.median) for one in self.subjects},
            "ratios": {one.ratio_name: _rounded(one.ratio.median) for one in self.subjects},
            "machine": machine(),
            "units": {one.name: f"{one.unit} per {one.per}" for one in self.subjects},
            "spread": {
                one.name: {
                    "figure": one.figure.as_json(),
                    "baseline": one.baseline.as_json(),
                    "ratio": one.ratio.as_json(),
                }
                for one in self.subjects
            },
            "checks": list(self.checks),
            "facts": dict(self.facts),
        }

    def show(self, *, as_json: bool) -> None:
        """The table, and with ``as_json`` the object as the last line."""
        print(self.table())
        if as_json:
            print(json.dumps(self.as_json()), flush=True)


@dataclass(frozen=True, slots=True)
class Noted(Report):
    """A benchmark whose figures are noted as they are: nothing here is a median of turns.

    The facts are the figures; those whose names begin with ``against`` are the baseline, if there is one.
    """

    against: str | None = None
    ratios: Mapping[str, float] = field(default_factory=dict)

    def table(self) -> str:
        """For people."""
        where = machine()
        lines = [f"{self.bench}: {where['cpu']}, {where['cores']} cores, Python {where['python']}", ""]
        return "\n".join([*lines, *(f"{name.replace('_', ' '):>18}  {fact:>12,}" for name, fact in self.facts.items())])

    def as_json(self) -> Json:
        """For machines: the object of the contract."""
        against = self.against
        baseline = {name: fact for name, fact in self.facts.items() if against and name.startswith(against)}
        return {
            "bench": self.bench,
            "figures": {name: fact for name, fact in self.facts.items() if name not in baseline},
            "baseline": baseline,
            "ratios": dict(self.ratios),
            "machine": machine(),
        }


def machine() -> dict[str, object]:
    """Where the figures come from; they mean little on another machine."""
    return {
        "cpu": _cpu_model(),
        "cores": len(_cores()),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "system": platform.system(),
    }


def parser(purpose: str, examples: str, *, runs: int | None = None) -> argparse.ArgumentParser:
    """The options that every benchmark has; one without ``runs`` is no measurement in turns."""
    made = argparse.ArgumentParser(
        description=purpose, epilog=f"examples:\n{examples}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    if runs is not None:
        help_ = f"turns of each (default {runs})"
        made.add_argument("--runs", type=at_least_one, default=runs, metavar="N", help=help_)
    made.add_argument("--keep", type=Path, metavar="FOLDER", help="keep logs and data of all processes there")
    return made


def at_least_one(text: str) -> int:
    """Read a whole number that is 1 or more."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _cores() -> list[str]:
    return [line for line in _cpu_lines() if line.startswith("processor")] or [""]


def _cpu_model() -> str:
    names = [line.partition(":")[2].strip() for line in _cpu_lines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _cpu_lines() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []


def _rounded(value: float) -> float:
    return round(value, 1) if value >= 100 else round(value, 3)


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
