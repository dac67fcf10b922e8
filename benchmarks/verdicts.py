"""How often good campaigns are stopped, and how soon bad ones: our decision code beside the rules that others use.

No campaign is real: events come from a seed, at a rate that is known, so that every rule can be told whether it was
right.  Ours is the code that decides live (``policy.verdicts`` and ``policy.ladder``); the others are in
``benchmarks/_verdict_rules.py``.  The same seeds give the same figures, whatever the number of processes; only the
cost of a look is measured, not counted.
"""

import argparse
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # before benchmarks/, whose files hide packages

from benchmarks._harness import at_least_one, machine, parser
from benchmarks._verdict_figures import Size, cost_of_a_look, figures_of
from benchmarks._verdict_ours import METRICS
from benchmarks._verdict_pages import into_page, summary, tables
from benchmarks._verdict_plot import plot
from benchmarks._verdict_priors import prior_figures

DAYS, RUNS, SEED = 3_000, 200, 1
EXAMPLES = """\
  benchmarks/verdicts.py --json
  benchmarks/verdicts.py --json --seed 7 --days 300 --runs 50 --metric hard_bounce
  benchmarks/verdicts.py --from docs/img/verdicts.json --markdown"""


def main() -> int:
    """Simulate, or take up what was simulated before, and show it."""
    asked = _arguments()
    if asked.taken is None:
        size = Size(asked.seed, asked.days, asked.runs, asked.processes)
        told = figures_of(asked.metric or list(METRICS), size)
    else:
        told = json.loads(asked.taken.read_text(encoding="utf-8"))
        if asked.measure:
            told["figures"]["look_us"], told["machine"] = cost_of_a_look(), machine()
            told["figures"]["priors"] = prior_figures(told["facts"]["seed"])
    print(tables(told) if asked.markdown else summary(told))
    if asked.keep is not None:
        asked.keep.mkdir(parents=True, exist_ok=True)
        (asked.keep / "verdicts.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    if asked.page is not None:
        into_page(asked.page, told)
        plot(asked.page.parent / "img", told)
    if asked.json:
        print(json.dumps(told), flush=True)
    return 0


def _arguments() -> argparse.Namespace:
    made = parser(__doc__ or "", EXAMPLES)
    made.add_argument("--seed", type=int, default=SEED, metavar="N", help=f"where chance begins (default {SEED})")
    help_ = f"campaign days of ours at each allowed rate (default {DAYS}); most others get a tenth"
    made.add_argument("--days", type=at_least_one, default=DAYS, metavar="N", help=help_)
    help_ = f"campaigns of each forbidden kind (default {RUNS})"
    made.add_argument("--runs", type=at_least_one, default=RUNS, metavar="N", help=help_)
    help_ = "one metric only; may be given more than once (default: all three)"
    made.add_argument("--metric", action="append", choices=METRICS, help=help_)
    help_ = "how many at a time (default: the processors that there are); changes no figure"
    made.add_argument("--processes", type=at_least_one, default=os.cpu_count() or 1, metavar="N", help=help_)
    help_ = "show what an earlier run kept, and simulate nothing"
    made.add_argument("--from", dest="taken", type=Path, metavar="FILE", help=help_)
    help_ = "with --from: measure the cost of a look anew, and what borrowing does"
    made.add_argument("--measure", action="store_true", help=help_)
    help_ = "write the tables into the generated part of this page, and the plots into img/ beside it"
    made.add_argument("--page", type=Path, metavar="FILE", help=help_)
    made.add_argument("--markdown", action="store_true", help="print all tables, as Markdown, and not the summary")
    return made.parse_args()


if __name__ == "__main__":
    sys.exit(main())
