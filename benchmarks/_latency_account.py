"""The account of ``latency.py``: what the mail server's log, the topics and the sender's log say of each trial."""

import itertools
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

STOPPED_WITHIN_S = 5.0  # a campaign that still sends after that was not stopped
_SENDING_WITHIN_S = 0.5  # a campaign without MAIL FROM for so long before the hit was not sending
STAGES = ("event_to_snapshot", "snapshot_to_decision", "decision_to_gate", "gate_to_last_mail_from")
PERCENTILES = (50, 95, 99)
_STOPPED = {"not sending: stopped by control", "stopping"}  # the controller's signal may come first


@dataclass(slots=True)
class SinkLog:
    """What the mail server has seen: MAIL FROM by return path domain, and when each message was taken; in µs."""

    file: Path
    mail_from: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    taken: dict[str, int] = field(default_factory=dict)
    _read: int = 0

    def read(self) -> None:
        """Read on."""
        with self.file.open("rb") as lines:
            lines.seek(self._read)
            fresh = lines.read()
        whole = fresh[: fresh.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.decode("ascii", "replace").splitlines():
            what, at, name = line.split(" ", 2)
            if what == "M":
                self.mail_from[name].append(int(at))
            else:
                self.taken.setdefault(name, int(at))


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One campaign that was hit; moments in µs since the epoch, None for what was never seen.

    The decision is out with the control record, which senders obey; ``told_at`` is when the record of the decision
    followed.  ``mail_from`` are all its MAIL FROMs, ``asked`` the messages that were asked for.
    """

    campaign: str
    hit_at: int
    snapshot_at: int | None
    control_at: int | None
    told_at: int | None
    gate_at: int | None
    mail_from: Sequence[int]
    asked: int

    @property
    def failure(self) -> str | None:
        """Why this trial shows nothing, or that the campaign was not stopped."""
        before = [at for at in self.mail_from if at <= self.hit_at]
        if not before or self.hit_at - before[-1] > _SENDING_WITHIN_S * 1e6:
            return "was not sending when it was hit"
        if self.control_at is None:
            return "was never isolated"
        if self.last_at - self.hit_at > STOPPED_WITHIN_S * 1e6 or len(self.mail_from) >= self.asked:
            return "went on sending"
        if self.snapshot_at is None or self.gate_at is None:
            return "was stopped, but its snapshot or its sender's word was not seen"
        return None

    @property
    def last_at(self) -> int:
        """The last MAIL FROM; that of the hit, if none came after it."""
        return max(self.hit_at, *self.mail_from) if self.mail_from else self.hit_at

    @property
    def whole_ms(self) -> float:
        """From the event to the last MAIL FROM."""
        return (self.last_at - self.hit_at) / 1000

    def stages_ms(self) -> dict[str, float]:
        """The same, in parts: what came after the gate had closed is the last of them, mostly nothing.

        Kafka's times are whole milliseconds, so that a part may look shorter than nothing: then it is nothing.
        """
        if self.snapshot_at is None or self.control_at is None or self.gate_at is None:
            return {}
        moments = (self.hit_at, self.snapshot_at, self.control_at, self.gate_at, self.last_at)
        pairs = itertools.pairwise(moments)
        return {stage: max(0, end - begin) / 1000 for stage, (begin, end) in zip(STAGES, pairs, strict=True)}


def percentile(values: Sequence[float], percent: int) -> float:
    """The smallest value that so many per cent do not exceed."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def figures(trials: Iterable[Trial]) -> dict[str, float | int | None]:
    """The keys of issue and contract: the whole and each stage, of the trials that were stopped; None of none."""
    trials = list(trials)
    stopped = [one for one in trials if one.failure is None]
    found: dict[str, float | int | None] = {"trials": len(trials), "failed": len(trials) - len(stopped)}
    found |= _percentiles("", [one.whole_ms for one in stopped])
    parts = [one.stages_ms() for one in stopped]
    for stage in STAGES:
        found |= _percentiles(f"{stage}_", [part[stage] for part in parts])
    told = [(one.told_at - one.hit_at) / 1000 for one in stopped if one.told_at is not None]
    return found | _percentiles("event_to_record_of_decision_", told)


def _percentiles(prefix: str, values: Sequence[float]) -> dict[str, float | None]:
    found = {f"{prefix}p{percent}_ms": percentile(values, percent) for percent in PERCENTILES}
    return {name: round(value, 1) if values else None for name, value in found.items()}  # JSON has no NaN


@dataclass(frozen=True, slots=True)
class Said:
    """What the background said at a moment (s): results that were due since its beginning, and that the broker has."""

    at: float
    due: int
    acknowledged: int

    @property
    def missing(self) -> int:
        """Those that were due and are not there."""
        return max(0, self.due - self.acknowledged)


def kept(spans: Iterable[Sequence[Said]]) -> tuple[float, int]:
    """What the broker got per second of all spans together, and the most that was missing at any moment of them.

    A span is some seconds long and acknowledgements come in batches, so that the rate of one span alone says how its
    two ends fell: two hundred milliseconds more on their way at its end than at its beginning are three per cent.
    """
    spans = [span for span in spans if span]
    seconds = sum(span[-1].at - span[0].at for span in spans)
    results = sum(span[-1].acknowledged - span[0].acknowledged for span in spans)
    return results / seconds if seconds else 0.0, max((one.missing for span in spans for one in span), default=0)


def gate_closed_at(log: Path) -> int | None:
    """When a sender said that control had stopped it, or that it was told to end, in µs; None if it has not."""
    for event in _events(log):
        if event.get("event") in _STOPPED:
            return round(datetime.fromisoformat(str(event["timestamp"])).timestamp() * 1e6)
    return None


def _events(log: Path) -> Iterator[dict[str, object]]:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        if line.startswith("{"):
            try:
                yield json.loads(line)
            except ValueError:
                continue  # the line that is being written
