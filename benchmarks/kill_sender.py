"""What is lost, doubled or left in doubt when sender, worker and broker are killed again and again.

A real Kafka, the real worker and the real sender as processes; requests of 500 recipients are fed to
mail.send.requests, 2 % of them twice; everything is sent to a mail server in a process of its own, which writes each
message id into a file before it answers 250.  When the file has reached points that are chosen by the seed, a role is
killed (kill -9; senders most often), or a second sender is started, or it is told to end, so that partitions move.
What was killed is started again.  Every figure comes from the topics and from the server's file:

lost           messages without any final record (a result or a refusal), and messages that are reported as accepted
               and are not in the server's file; must be 0
doubled        copies beyond the first in the server's file
doubled_bound  what may be doubled: with --policy resend, the messages that can be in flight at a sender (two for each
               connection) for each kill of a sender, and of each sender that runs when the broker is killed; and the
               replies that --drop has lost.  With --policy hold 0
in_doubt       messages whose final outcome is `in_doubt`; in_doubt_received of them have arrived all the same
in_doubt_bound with --policy hold what doubled_bound is with resend, else 0
finals_twice   messages with more than one final record; must be 0
kills          kill -9 in all, and by role

A share of recipients is deferred once (--defer), so that retries are killed, too; pauses are some seconds here
(MAILCORDON_RETRIES=2,4,8).  Mail is not signed.  The exit code is 1 if a figure is not what it must be.
"""

import asyncio
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # before benchmarks/, whose files hide packages

from benchmarks._harness import at_least_one, machine, parser
from benchmarks._kill_run import Course, Outcome, Run
from benchmarks._running import Failed, end_on_signals, folder, say
from cli.failures import OutsideFailed
from cli.kafka import KafkaUnavailable

EXAMPLES = """\
  .venv/bin/python benchmarks/kill_sender.py                                        some minutes
  .venv/bin/python benchmarks/kill_sender.py --messages 200000 --kills 40 --policy hold --json
  .venv/bin/python benchmarks/kill_sender.py --messages 1000000 --kills 200 --seed 7 --policy resend --json"""


def main() -> None:
    made = parser(__doc__ or "", EXAMPLES)
    made.add_argument("--messages", type=at_least_one, default=20_000, metavar="N", help="messages (default 20,000)")
    made.add_argument("--kills", type=int, default=10, metavar="K", help="kill -9 in all (default 10)")
    made.add_argument("--seed", type=int, default=1, metavar="S", help="same seed, same course (default 1)")
    made.add_argument("--policy", choices=("resend", "hold"), default="hold", help="in-doubt policy (default hold)")
    made.add_argument("--connections", type=at_least_one, default=20, metavar="N", help="of a sender (default 20)")
    made.add_argument("--defer", type=float, default=0.01, metavar="SHARE", help="deferred once (default 0.01)")
    made.add_argument("--drop", type=float, default=0.0, metavar="SHARE", help="replies lost after the dot (default 0)")
    options = made.parse_args()
    end_on_signals()
    course = Course(
        messages=options.messages,
        kills=options.kills,
        seed=options.seed,
        policy=options.policy,
        connections=options.connections,
        defer=options.defer,
        drop=options.drop,
    )
    try:
        with folder(options.keep) as at:
            outcome = asyncio.run(Run(course, at).run())
    except (Failed, KafkaUnavailable, OutsideFailed) as failed:
        say(f"failed: {failed}")
        raise SystemExit(3) from failed
    show(course, outcome, as_json=options.json)
    raise SystemExit(0 if outcome.is_right else 1)


def show(course: Course, outcome: Outcome, *, as_json: bool) -> None:
    """The figures as a table, and with ``as_json`` as one object in the last line."""
    where = machine()
    print(f"kill_sender: {where['cpu']}, {where['cores']} cores, Python {where['python']}\n")
    for name, figure in outcome.figures.items():
        print(f"{name.replace('_', ' '):>20}  {figure:>12,}")
    if as_json:
        print(
            json.dumps(
                {
                    "bench": "kill_sender",
                    "figures": outcome.figures,
                    "baseline": {},
                    "ratios": {},
                    "machine": where,
                    "course": course.as_json(),
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
