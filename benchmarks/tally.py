"""How many results a worker's tally counts per second of processor time, beside Kafka Streams and a plain loop.

tally_vs_kafka_streams  frames of 500 in, to both; a Kafka Streams program that counts the same (benchmarks/java)
tally_vs_streams_singles  the same of ours, beside Kafka Streams that gets each result as a record of its own
tally_vs_raw            the same of ours, beside a loop over aiokafka, msgspec and a dict: no state, no output
tally_and_suppressions_vs_kafka_streams  ours, when each dead address leaves a suppression behind, too

Ours is the tally of the real worker with everything that it does in production: history, panes with their changelog,
snapshots of all windows with verdicts, the catalogue of what all workers publish.  All run all the time and are fed in
turns, from topics of their own, each while it is held; before the first turn all are warm (a JVM takes millions of
events to be).  At the end each cell of each minute is compared with what was fed.
"""

import argparse
import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # before benchmarks/, where streams.py hides streams/

from benchmarks import _tally_checks as checks
from benchmarks import _tally_raw, _tally_worker
from benchmarks._feeding import Feed, Item, Side, feed, make_topics
from benchmarks._harness import Report, Subject, at_least_one, parser
from benchmarks._running import Running, bench_main, python, role_settings, running, say
from benchmarks._tally_load import Load, columns
from benchmarks._tally_streams import command, program
from benchmarks._tally_turns import turns
from benchmarks._workload import campaign_record, campaigns
from policy.settings import Settings
from schemas.codec import encode
from schemas.topics import CAMPAIGNS, RESULTS
from streams.topics import WORKER, create

EXAMPLES = """\
  .venv/bin/python benchmarks/tally.py                                about four minutes
  .venv/bin/python benchmarks/tally.py --runs 7 --json
  .venv/bin/python benchmarks/tally.py --events 100000 --warm 100000 --runs 1    whether it works"""

PARTITIONS = 4


@dataclass(frozen=True, slots=True)
class Peer:
    """Something that counts beside ours: what it reads, and where it writes."""

    name: str
    one_by_one: bool = False

    @property
    def topic(self) -> str:
        """Where it is fed."""
        return f"peer.{self.name}.results"

    @property
    def out(self) -> str:
        """Where it publishes updates."""
        return f"peer.{self.name}.rates"


STREAMS, SINGLES, RAW = Peer("streams"), Peer("singles", one_by_one=True), Peer("raw")


def main() -> None:
    made = parser(__doc__ or "", EXAMPLES, runs=5)
    made.add_argument("--events", type=at_least_one, default=500_000, metavar="N", help="results of a turn")
    made.add_argument("--warm", type=at_least_one, default=2_000_000, metavar="N", help="results before the first turn")
    made.add_argument("--campaigns", type=at_least_one, default=200, metavar="N", help="campaigns (default 200)")
    made.add_argument("--size", type=at_least_one, default=500, metavar="N", help="results of a frame (default 500)")
    made.add_argument("--seed", type=int, default=1, metavar="N", help="of all that is fed (default 1)")
    bench_main(made.parse_args(), _bench)


async def _bench(options: argparse.Namespace, at: Path, bootstrap: str) -> Report:
    ids = campaigns(options.campaigns)
    load = {
        topic: Load(topic, ids, size=options.size, seed=options.seed, one_by_one=topic == SINGLES.topic)
        for topic in (RESULTS, STREAMS.topic, SINGLES.topic, RAW.topic)
    }
    counts = load[RESULTS].counts
    whole = Load(RESULTS, ids, size=options.size, seed=options.seed, leaves_behind=True, counts=counts)
    counted = at / "raw.json"
    async with feed(bootstrap) as kafka_feed:
        await _prepare(kafka_feed, bootstrap, ids)
        with contextlib.ExitStack() as stack:

            def start(name: str, words: list[str], settings: dict[str, str] | None = None) -> Running:
                return stack.enter_context(running(name, words, settings or {}, at))

            worker = start("worker", python("-m", _tally_worker.__name__), role_settings(bootstrap, at))
            path = program()
            jvms = {
                peer: start(
                    peer.name, command(path, bootstrap, peer.name, (peer.topic, peer.out), at / peer.name, columns())
                )
                for peer in (STREAMS, SINGLES)
            }
            raw = start("raw", python("-m", _tally_raw.__name__, bootstrap, RAW.name, RAW.topic, str(counted)))
            sides = [
                _side(worker, WORKER, load[RESULTS], RESULTS, options),
                _side(worker, WORKER, whole, RESULTS, options),
                _side(jvms[STREAMS], STREAMS.name, load[STREAMS.topic], STREAMS.topic, options),
                _side(jvms[SINGLES], SINGLES.name, load[SINGLES.topic], SINGLES.topic, options),
                _side(raw, RAW.name, load[RAW.topic], RAW.topic, options),
            ]
            ours, ours_whole, streams, singles, plain = await turns(
                kafka_feed, sides, warm=options.warm, runs=options.runs
            )
        say("comparing what was counted with what was fed ...")
        found = [
            await checks.ours(kafka_feed, load[RESULTS].counts),
            await checks.of_streams(kafka_feed, STREAMS.out, "Kafka Streams, frames", load[STREAMS.topic].counts),
            await checks.of_streams(kafka_feed, SINGLES.out, "Kafka Streams, single", load[SINGLES.topic].counts),
            checks.of_raw(counted, load[RAW.topic].counts),
        ]
    subjects = [
        Subject("tally", "results", ours, streams, against="kafka_streams"),
        Subject("tally", "results", ours, singles, against="streams_singles"),
        Subject("tally", "results", ours, plain, against="raw"),
        Subject("tally_and_suppressions", "results", ours_whole, streams, against="kafka_streams"),
    ]
    baselines = {f"{one.against}_per_cpu_s": round(one.baseline.median) for one in subjects}  # all are of one name
    return Report("tally", subjects, found, {**baselines, **_facts(options, load)})


def _side(process: Running, group: str, load: Load, topic: str, options: argparse.Namespace) -> Side:
    return Side(process=process, group=group, topics=[topic], meet=load.make, make=load.make, amount=options.events)


async def _prepare(kafka_feed: Feed, bootstrap: str, ids: list[str]) -> None:
    """Topics as in production, then the campaigns; and topics for the others."""
    await create(bootstrap, Settings())
    peers = [topic for peer in (STREAMS, SINGLES, RAW) for topic in (peer.topic, peer.out)]
    await make_topics(bootstrap, dict.fromkeys(peers, PARTITIONS))
    await kafka_feed.publish(Item(CAMPAIGNS, one.encode(), encode(campaign_record(one))) for one in ids)


def _facts(options: argparse.Namespace, load: dict[str, Load]) -> dict[str, object]:
    return {
        "campaigns": options.campaigns,
        "results_of_a_frame": options.size,
        "results_of_a_turn": options.events,
        "results_before_the_first_turn": options.warm,
        "seed": options.seed,
        "bytes_of_a_frame": load[RESULTS].bytes,
        "bytes_of_a_single_result": load[SINGLES.topic].bytes,
    }


if __name__ == "__main__":
    main()
