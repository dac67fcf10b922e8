"""How much memory a million suppressed addresses take, and how much processor time it costs to ask for one.

The same is done with a plain dictionary from hexadecimal hash to reason, one per scope, as one would write it first.
Both hold the same suppressions in three scopes (nine in ten on the platform, the rest for a tenant and a campaign),
and both are asked the same questions, in turns: for addresses that are suppressed nowhere, and for some that are.  The
answers are compared.

mib         what the resident memory of a process grows by when it takes them in (both in processes of their own)
miss_ns     processor time to learn that an address is suppressed in none of the three scopes
hit_ns      processor time to learn why an address is suppressed
sender_ns   the question as a sender asks it before MAIL FROM, one address at a time, for one that is not suppressed
add_ns      processor time to take one in
"""

import argparse
import gc
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # before benchmarks/, whose files hide packages

from benchmarks._harness import Noted, at_least_one, parser
from schemas.sending import Campaign, Mailbox
from streams.catalogue import Catalogue
from streams.suppressed import Suppressed

EXAMPLES = """\
  .venv/bin/python benchmarks/suppressions.py --json                        half a minute
  .venv/bin/python benchmarks/suppressions.py --suppressions 100000"""

SCOPES = ("platform", "tenant:shop", "campaign:spring")
_CAMPAIGN = Campaign(
    campaign="spring", tenant="shop", from_=Mailbox(address="news@shop.example"), return_path_domain="b.shop.example"
)
_REASONS = ("invalid_recipient", "complaint", "unsubscribe", "import")
_SINCE = 1_764_000_000_000
_ASKED = 100_000
_TURNS = 7
_MIB = 1 << 20

Ask = Callable[[str], str | None]


def main() -> None:
    made = parser(__doc__ or "", EXAMPLES)
    made.add_argument(
        "--suppressions", type=at_least_one, default=1_000_000, metavar="N", help="suppressions (default 1,000,000)"
    )
    made.add_argument("--memory-of", choices=("ours", "plain"), help=argparse.SUPPRESS)
    options = made.parse_args()
    if options.memory_of:
        print(_grown(options.memory_of, options.suppressions))
        return
    _bench(options.suppressions).show(as_json=options.json)


def _bench(count: int) -> Noted:
    mib = {side: _memory(side, count) for side in ("ours", "plain")}
    given = _suppressions(count)
    catalogue = Catalogue("127.0.0.1:1", (), client_id="bench")
    catalogue.campaigns["spring"] = _CAMPAIGN
    ours = catalogue.suppressions
    began = time.process_time()
    for hashed, scope, reason in given:
        ours.add(hashed, scope, reason=reason, since=_SINCE)
    add_ns = (time.process_time() - began) / count * 1e9
    plain = _plain(given)
    chance = random.Random(2)
    strangers = [chance.randbytes(32).hex() for _ in range(_ASKED)]
    known = [hashed for hashed, _, _ in given[:_ASKED]]
    chance.shuffle(known)
    asks: dict[str, tuple[Ask, Sequence[str]]] = {
        "miss_ns": (ours.within(SCOPES, now=_SINCE + 1), strangers),
        "against_miss_ns": (_asking(plain), strangers),
        "hit_ns": (ours.within(SCOPES, now=_SINCE + 1), known),
        "against_hit_ns": (_asking(plain), known),
        "sender_ns": (lambda one: catalogue.suppressed(one, "spring"), strangers),
    }
    _compare(asks["hit_ns"][0], asks["against_hit_ns"][0], [*known, *strangers])
    turns: dict[str, list[float]] = {name: [] for name in asks}
    for _ in range(_TURNS):
        for name, (ask, hashes) in asks.items():
            turns[name].append(_ns(ask, hashes))
    figures = {name: round(statistics.median(runs)) for name, runs in turns.items()}
    ratios = {
        "mib_vs_plain": round(mib["plain"] / max(mib["ours"], 0.1), 2),
        "miss_vs_plain": round(statistics.median(_ratio(turns, "miss_ns")), 2),
        "hit_vs_plain": round(statistics.median(_ratio(turns, "hit_ns")), 2),
    }
    facts: dict[str, object] = {
        "suppressions": count,
        "mib": round(mib["ours"], 1),
        "against_mib": round(mib["plain"], 1),
        **figures,
        "add_ns": round(add_ns),
    }
    return Noted("suppressions", [], ["both gave the same answers"], facts, against="against", ratios=ratios)


def _ratio(turns: dict[str, list[float]], name: str) -> list[float]:
    """How many times faster ours is, turn by turn."""
    return [plain / ours for ours, plain in zip(turns[name], turns[f"against_{name}"], strict=True)]


def _suppressions(count: int) -> list[tuple[str, str, str]]:
    chance = random.Random(1)
    return [
        (
            chance.randbytes(32).hex(),
            SCOPES[0] if chance.random() < 0.9 else chance.choice(SCOPES[1:]),
            chance.choice(_REASONS),
        )
        for _ in range(count)
    ]


def _plain(given: list[tuple[str, str, str]]) -> dict[str, dict[str, str]]:
    held: dict[str, dict[str, str]] = {scope: {} for scope in SCOPES}
    for hashed, scope, reason in given:
        held[scope][hashed] = reason
    return held


def _asking(held: dict[str, dict[str, str]]) -> Ask:
    scopes = [held[scope] for scope in SCOPES]

    def reason(address_hash: str) -> str | None:
        for scope in scopes:
            if (found := scope.get(address_hash)) is not None:
                return found
        return None

    return reason


def _compare(ours: Ask, plain: Ask, hashes: Sequence[str]) -> None:
    wrong = [one for one in hashes if ours(one) != plain(one)]
    if wrong:
        raise SystemExit(f"{len(wrong)} of {len(hashes)} answers differ from those of the plain dictionary")


def _ns(ask: Ask, hashes: Sequence[str]) -> float:
    """Processor time of one question; each text is new, as it is when it comes from a message."""
    fresh = [one[:1] + one[1:] for one in hashes]
    gc.disable()
    began = time.process_time_ns()
    for one in fresh:
        ask(one)
    took = time.process_time_ns() - began
    gc.enable()
    return took / len(fresh)


def _memory(side: str, count: int) -> float:
    command = [sys.executable, __file__, "--memory-of", side, "--suppressions", str(count)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True, timeout=600).stdout)


def _grown(side: str, count: int) -> float:
    """What this process's memory grows by, in MiB; records come one by one, as from the topic."""
    chance = random.Random(1)
    ours, plain = Suppressed(), {scope: dict[str, str]() for scope in SCOPES}
    gc.collect()
    before = _resident()
    for _ in range(count):
        hashed = chance.randbytes(32).hex()
        scope = SCOPES[0] if chance.random() < 0.9 else chance.choice(SCOPES[1:])
        reason = chance.choice(_REASONS)
        if side == "ours":
            ours.add(hashed, scope, reason=reason, since=_SINCE)
        else:
            plain[scope][hashed] = reason
    gc.collect()
    return (_resident() - before) / _MIB


def _resident() -> int:
    found = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(found.split()[1]) * 1024


if __name__ == "__main__":
    main()
