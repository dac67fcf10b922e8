"""How many events a worker works through per second of processor time, beside plain Faust.

validate_route   recipients: send requests of 500 in; frames for the senders and refusals out
tally_judge      results: delivery frames of 500 in; counted, judged; rates, decisions and control out

Ours is the real worker (`mailcordon worker`, all its agents and timers) on a real Kafka.  The plain version does the
same with Faust as it comes, one event per record.  Both run all the time and are fed in turns, over 200 campaigns;
before the first turn each has met every campaign, so that start-up is not measured.  What both published is read back
and compared with what was fed.
"""

import argparse
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # before benchmarks/, where streams.py hides streams/

from benchmarks import _plain_tally, _plain_validate
from benchmarks._feeding import Feed, Item, Side, feed, make_topics, turns
from benchmarks._harness import Report, Subject, at_least_one, parser
from benchmarks._plain_options import PARTITIONS
from benchmarks._running import Running, bench_main, python, role_settings, running, say
from benchmarks._streams_checks import check_plain_tally, check_plain_validate, check_tally, check_validate
from benchmarks._streams_load import Load
from benchmarks._workload import campaign_record, campaigns, content_record
from policy.settings import Settings
from schemas.codec import encode
from schemas.topics import CAMPAIGNS, COMMANDS, CONTENTS, RATES, REQUESTS, RESULTS
from streams.topics import WORKER, create, create_for_campaigns

EXAMPLES = """\
  .venv/bin/python benchmarks/streams.py                    about two minutes
  .venv/bin/python benchmarks/streams.py --runs 7 --json
  .venv/bin/python benchmarks/streams.py --campaigns 10 --requests 20 --frames 20 --messages 500 --runs 1"""


def main() -> None:
    made = parser(__doc__ or "", EXAMPLES, runs=3)
    made.add_argument("--campaigns", type=at_least_one, default=200, metavar="N", help="campaigns (default 200)")
    made.add_argument("--size", type=at_least_one, default=500, metavar="N", help="events of a frame (default 500)")
    made.add_argument(
        "--requests", type=at_least_one, default=400, metavar="N", help="requests of our turns (default 400)"
    )
    made.add_argument(
        "--frames", type=at_least_one, default=1_000, metavar="N", help="result frames of our turns (default 1,000)"
    )
    made.add_argument(
        "--messages", type=at_least_one, default=10_000, metavar="N", help="events of plain turns (default 10,000)"
    )
    made.add_argument("--seed", type=int, default=1, metavar="N", help="of all that is fed (default 1)")
    bench_main(made.parse_args(), _bench)


async def _bench(options: argparse.Namespace, at: Path, bootstrap: str) -> Report:
    ids = campaigns(options.campaigns)
    load = Load(random.Random(options.seed), ids, options.size)
    plain = {"PLAIN_KAFKA": bootstrap, "PLAIN_CAMPAIGNS": ",".join(ids)}
    async with feed(bootstrap) as kafka_feed:
        await _prepare(kafka_feed, bootstrap, ids)
        with (
            running("worker", python("-m", "cli", "worker"), role_settings(bootstrap, at), at) as worker,
            running("plain-validate", _plain(_plain_validate.__name__), plain, at) as validate,
            running("plain-tally", _plain(_plain_tally.__name__), plain, at) as tally,
        ):
            sides = _sides(load, options, worker, validate, tally)
            routed, plain_routed, judged, plain_judged = await turns(
                kafka_feed, sides, first=len(ids), runs=options.runs
            )
            say("comparing what was published with what was fed ...")
            checks = [
                await check(kafka_feed, load)
                for check in (check_validate, check_plain_validate, check_tally, check_plain_tally)
            ]
    subjects = [
        Subject("validate_route", "recipients", routed, plain_routed),
        Subject("tally_judge", "results", judged, plain_judged),
    ]
    return Report("streams", subjects, checks, _facts(options, load))


def _sides(load: Load, options: argparse.Namespace, worker: Running, validate: Running, tally: Running) -> list[Side]:
    """In the order of a turn.  Rates are done when our judge has seen them, too; commands are the judge's own clock."""
    return [
        Side(
            process=worker,
            group=WORKER,
            topics=[REQUESTS, COMMANDS],
            meet=load.requests,
            make=load.requests,
            amount=options.requests,
        ),
        Side(
            process=validate,
            group=_plain_validate.APP,
            topics=[_plain_validate.REQUESTS],
            meet=load.plain_requests_to_all,
            make=load.plain_requests,
            amount=options.messages,
        ),
        Side(
            process=worker,
            group=WORKER,
            topics=[RESULTS, RATES, COMMANDS],
            meet=load.frames,
            make=load.frames,
            amount=options.frames,
        ),
        Side(
            process=tally,
            group=_plain_tally.APP,
            topics=[_plain_tally.RESULTS],
            meet=load.plain_results,
            make=load.plain_results,
            amount=options.messages,
        ),
    ]


async def _prepare(kafka_feed: Feed, bootstrap: str, ids: list[str]) -> None:
    """Topics as in production, then the campaigns; and topics for the plain versions."""
    await create(bootstrap, Settings())
    await create_for_campaigns(bootstrap, ids, Settings())
    plain = [_plain_validate.REQUESTS, _plain_validate.REFUSED, _plain_tally.RESULTS, _plain_tally.DECISIONS]
    await make_topics(bootstrap, dict.fromkeys(plain, PARTITIONS))
    await make_topics(bootstrap, {_plain_validate.OUTBOUND + one: 1 for one in ids})
    contents = [content_record(one) for one in ids]
    await kafka_feed.publish(Item(CAMPAIGNS, one.encode(), encode(campaign_record(one))) for one in ids)
    await kafka_feed.publish(Item(CONTENTS, f"{one.campaign}/{one.content}".encode(), encode(one)) for one in contents)


def _plain(module: str) -> list[str]:
    """Faust's own command, on the faster event loop and without its web server."""
    return python("-m", "faust", "-L", "uvloop", "-A", module, "worker", "-l", "info", "--without-web")


def _facts(options: argparse.Namespace, load: Load) -> dict[str, object]:
    return {
        "campaigns": options.campaigns,
        "events_per_frame": options.size,
        "requests_per_turn": options.requests,
        "frames_per_turn": options.frames,
        "plain_events_per_turn": options.messages,
        "bytes_of_a_request": load.request_bytes,
        "bytes_of_a_delivery_frame": load.frame_bytes,
    }


if __name__ == "__main__":
    main()
