"""Running the scenarios, several at a time, and the figures that come of them."""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

from benchmarks import _verdict_suite as suite
from benchmarks._harness import Json, machine
from benchmarks._verdict_course import Rule
from benchmarks._verdict_ours import Ours, limit_of
from benchmarks._verdict_priors import prior_figures
from benchmarks._verdict_rules import Checkpoints, PosthogLike, Ratio, SesLike, Wilson
from benchmarks._verdict_suite import Chase, Falses, Waits
from policy.verdicts import verdicts
from schemas.reputation import Counts
from schemas.sending import Limits

ALPHA = 0.001  # of the rules that have a nominal level
Z_OF_ALPHA = 3.090232306167813
TENTH = 10
CHUNK = 20
CALIBRATED = "wilson_calibrated"
BURSTS = {"mailcordon_burst_1": 1, "mailcordon_burst_20": 20}
BASELINES = ("ratio_1000", CALIBRATED)
LOOKS = 20_000
STEADY = [f"{one:.1f}" for one in suite.BELOW]

Job = Callable[[Sequence[int]], Any]


@dataclass(frozen=True, slots=True)
class Size:
    """How much is simulated, from which seed, on how many processors."""

    seed: int
    days: int
    runs: int
    processes: int

    def key(self, *parts: str) -> str:
        """Where the chance of one scenario begins; the same for every rule."""
        return "/".join((str(self.seed), *parts))


@dataclass(frozen=True, slots=True)
class _False:
    rule: Rule
    metric: str
    kind: str
    size: Size

    def __call__(self, numbers: Sequence[int]) -> Falses:
        stream = suite.below(limit_of(self.metric))[self.kind]
        return suite.false_days(self.rule, stream, self.size.key("below", self.metric, self.kind), numbers)


@dataclass(frozen=True, slots=True)
class _Highest:
    metric: str
    kind: str
    size: Size

    def __call__(self, numbers: Sequence[int]) -> list[float]:
        limit = limit_of(self.metric)
        key = self.size.key("below", self.metric, self.kind)
        return suite.highest_scores(limit, suite.below(limit)[self.kind], key, numbers)


@dataclass(frozen=True, slots=True)
class _Wait:
    rule: Rule
    metric: str
    kind: str
    size: Size
    is_tiny: bool = False

    def __call__(self, numbers: Sequence[int]) -> Waits:
        limit = limit_of(self.metric)
        chase: Chase = (suite.tiny if self.is_tiny else suite.chases)(limit)[self.kind]
        group = "tiny" if self.is_tiny else "above"
        return suite.waits(self.rule, chase, self.size.key(group, self.metric, self.kind), numbers)


def figures_of(metrics: Sequence[str], size: Size) -> Json:
    """Everything, as the object of the contract; the first metric stands at the top."""
    by_metric: dict[str, Json] = {}
    with ProcessPoolExecutor(size.processes) as pool:
        falses = {
            (metric, kind): _all(pool, _False(Ours(metric), metric, kind, size), size.days // 2)
            for metric in metrics
            for kind in STEADY
        }
        scores = {
            (metric, kind): _all(pool, _Highest(metric, kind, size), size.days // 2)
            for metric in metrics
            for kind in STEADY
        }
        waiting = {}
        for metric in metrics:
            ours = {kind: sum(falses[metric, kind], Falses(0, 0, 0)) for kind in STEADY}
            z = max(_line(ours[kind], scores[metric, kind]) for kind in STEADY)
            waiting[metric] = z, ours, _rest(pool, metric, rules(metric, z), size)
        for metric, (z, ours, found) in waiting.items():
            by_metric[metric] = _of_metric(z, ours, found)
    first = by_metric[metrics[0]]
    mails: Any = first["mails_to_isolation"]
    return {
        "bench": "verdicts",
        "figures": {
            "false_per_1000_days": first["false_per_1000_days"],
            "mails_to_isolation": mails,
            "look_us": cost_of_a_look(),
            "priors": prior_figures(size.seed),
            "metrics": by_metric,
        },
        "baseline": {"mails_to_isolation": {name: mails[name] for name in BASELINES}},
        "ratios": {f"fewer_mails_than_{name}": _fewer(mails["mailcordon"], mails[name]) for name in BASELINES},
        "machine": machine(),
        "facts": {"seed": size.seed, "days": size.days, "runs": size.runs, "metrics": list(metrics)},
    }


def _line(ours: Falses, scores: Iterator[list[float]]) -> float:
    """The lowest line that no more campaign days cross than those on which ours stopped a campaign."""
    highest = sorted((one for found in scores for one in found), reverse=True)
    return highest[min(ours.stopped, len(highest) - 1)]


def rules(metric: str, z: float) -> list[Rule]:
    """All of them, ours first."""
    limit = limit_of(metric)
    return [
        Ours(metric),
        *(Ours(metric, name=name, limits=Limits(burst=burst)) for name, burst in BURSTS.items()),
        Ratio(limit, 200),
        Ratio(limit, 1_000),
        Ratio(limit, 2_000),
        Wilson(limit, Z_OF_ALPHA, "wilson_nominal"),
        Wilson(limit, z, CALIBRATED),
        Checkpoints(limit, ALPHA),
        SesLike(metric),
        PosthogLike(metric),
    ]


def _all(pool: ProcessPoolExecutor, job: Job, number: int) -> Iterator[Any]:
    """One job in parts; what they answer comes in order, so that the number of processes changes nothing."""
    chunks = [range(begin, min(begin + CHUNK, number)) for begin in range(0, max(1, number), CHUNK)]
    return pool.map(job, chunks)


Found = dict[tuple[str, str, str], Iterator[Any]]


def _rest(pool: ProcessPoolExecutor, metric: str, all_rules: Sequence[Rule], size: Size) -> Found:
    limit = limit_of(metric)
    found: Found = {}
    for rule in all_rules:
        name = rule.name
        many = name in ("mailcordon", CALIBRATED, *BURSTS)
        for kind in suite.below(limit):
            if name != "mailcordon" or kind not in STEADY:
                days = size.days if many else max(suite.DAYS_EACH, size.days // TENTH)
                found["false", name, kind] = _all(pool, _False(rule, metric, kind, size), days // 2)
        for kind in suite.chases(limit):
            found["wait", name, kind] = _all(pool, _Wait(rule, metric, kind, size), size.runs)
        for kind in suite.tiny(limit):
            found["tiny", name, kind] = _all(pool, _Wait(rule, metric, kind, size, is_tiny=True), size.runs)
    return found


def _of_metric(z: float, ours: dict[str, Falses], found: Found) -> Json:
    false: dict[str, dict[str, Falses]] = {"mailcordon": ours}
    waits: dict[str, dict[str, Waits]] = {}
    tiny: dict[str, dict[str, dict[str, float]]] = {}
    for (group, rule, kind), parts in found.items():
        if group == "false":
            false.setdefault(rule, {})[kind] = sum(parts, Falses(0, 0, 0))
            continue
        waited = sum(parts, Waits((), ()))
        if group == "wait":
            waits.setdefault(rule, {})[kind] = waited
        else:
            stopped = waited.stopped
            shares = {str(size): sum(one <= size for one in stopped) / len(stopped) for size in suite.TINY}
            tiny.setdefault(rule, {})[kind] = {mails: round(share, 4) for mails, share in shares.items()}
    above = [f"{one:g}" for one in suite.ABOVE]
    in_bursts = [kind for kind in false["mailcordon"] if kind not in STEADY]
    other = [kind for kind in waits["mailcordon"] if kind not in above]
    return {
        "false_per_1000_days": _picked(false, STEADY, _per_1000),
        "throttled_per_1000_days": {kind: _per_1000_slowed(false["mailcordon"][kind]) for kind in STEADY},
        "bursts_per_1000_days": _picked(false, in_bursts, _per_1000),
        "throttled_in_bursts_per_1000_days": {kind: _per_1000_slowed(false["mailcordon"][kind]) for kind in in_bursts},
        "false_days": _picked(false, [*STEADY, *in_bursts], lambda one: [one.stopped, one.days]),
        "mails_to_isolation": _picked(waits, above, lambda one: _quantiles(one.stopped)),
        "mails_to_throttling": {kind: _quantiles(waits["mailcordon"][kind].slowed) for kind in above},
        "mails_otherwise": _picked(waits, other, lambda one: _quantiles(one.stopped)),
        "tiny_share_stopped": tiny,
        "wilson_z": round(z, 3),
    }


def _picked(found: dict[str, dict[str, Any]], kinds: Sequence[str], of: Callable[[Any], object]) -> Json:
    return {rule: {kind: of(by_kind[kind]) for kind in kinds} for rule, by_kind in found.items()}


def _per_1000(found: Falses) -> float:
    return round(1_000 * found.stopped / found.days, 2)


def _per_1000_slowed(found: Falses) -> float:
    return round(1_000 * found.slowed / found.days, 2)


def _quantiles(mails: Sequence[float]) -> Json:
    ordered = sorted(mails)
    return {
        "median": _number(statistics.median_high(ordered)),
        "p90": _number(ordered[math.ceil(0.9 * len(ordered)) - 1]),
        "never": sum(math.isinf(one) for one in ordered),
        "runs": len(ordered),
    }


def _number(mails: float) -> int | None:
    return None if math.isinf(mails) else int(mails)


def _fewer(ours: Json, theirs: Json) -> dict[str, float | None]:
    """How many times as many mails the other rule needs, by multiple; None where it mostly never stops."""
    fewer: dict[str, float | None] = {}
    for kind, found in ours.items():
        mine, other = found["median"], theirs[kind]["median"]  # type: ignore[index, call-overload]
        fewer[kind] = None if mine is None or other is None else round(other / max(1, mine), 3)
    return fewer


LOOKED_AT = {
    "quiet": Counts(accepted=20_000, hard_bounce=100, complaint=2, block=10, attempts=21_000),
    "bad_in_one": Counts(accepted=20_000, hard_bounce=900, complaint=2, block=10, attempts=21_000),
    "bad_in_three": Counts(accepted=20_000, hard_bounce=900, complaint=60, block=1_900, attempts=23_000),
}


def cost_of_a_look() -> dict[str, float]:
    """Microseconds of processor for the verdicts on all four metrics, each window with counts of its own."""
    limits = Limits()
    costs: dict[str, float] = {}
    for name, day in LOOKED_AT.items():
        windows = {"7d": _part(day, 1), "24h": _part(day, 1), "1h": _part(day, 2), "5m": _part(day, 5)}
        turns = []
        for _ in range(5):
            begin = time.process_time()
            for _ in range(LOOKS // 5):
                verdicts(windows, limits)
            turns.append((time.process_time() - begin) / (LOOKS // 5) * 1e6)
        costs[name] = round(min(turns), 2)
    return costs


def _part(counts: Counts, by: int) -> Counts:
    return Counts(**{name: getattr(counts, name) // by for name in Counts.__struct_fields__})
