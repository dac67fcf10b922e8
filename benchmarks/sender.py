"""How many messages a sender sends per second of processor time, beside a plain one.

sender   messages: outbound frames in; rendered, signed with DKIM (RSA-2048), sent over SMTP; results out

Ours is the real sender of one campaign (`mailcordon sender`) on a real Kafka, with its ledger, its gate and its
suppressions.  The plain one is made of aiokafka, EmailMessage, dkimpy and aiosmtplib with connections that are kept,
one JSON record per message.  Both send messages of about 1.2 KB over 20 connections to the same sink on this machine,
in turns; before the first turn each has opened its connections, so that start-up is not measured.  Every message must
have one result; with our own sink its count is compared and some signatures are verified, too (smtp-sink keeps none).
"""

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # before benchmarks/, whose files hide packages

from benchmarks import _plain_sender
from benchmarks._feeding import Feed, Item, Side, feed, make_topics, turns
from benchmarks._harness import Report, Subject, at_least_one, parser
from benchmarks._running import Running, bench_main, python, role_settings, running, say
from benchmarks._sender_checks import check_ours, check_plain, check_signatures, check_sink
from benchmarks._sender_load import (
    CAMPAIGN,
    LIST_ID,
    SUBJECT,
    TEXT,
    Load,
    campaign_record,
    content_record,
    control_record,
    make_key,
)
from benchmarks._sinks import Sink, sink
from policy.naming import outbound_topic, sender_group
from policy.settings import Settings
from schemas.codec import encode
from schemas.topics import CAMPAIGNS, CONTENTS, CONTROL
from streams.topics import create, create_for_campaigns

EXAMPLES = """\
  .venv/bin/python benchmarks/sender.py                    about a minute
  .venv/bin/python benchmarks/sender.py --runs 7 --json
  .venv/bin/python benchmarks/sender.py --messages 200 --plain-messages 20 --runs 1"""

_FIRST = 100  # messages before the first turn: enough for every connection to have sent some


def main() -> None:
    made = parser(__doc__ or "", EXAMPLES, runs=5)
    made.add_argument(
        "--messages", type=at_least_one, default=4_000, metavar="N", help="messages of our turns (default 4,000)"
    )
    made.add_argument(
        "--plain-messages", type=at_least_one, default=250, metavar="N", help="messages of plain turns (default 250)"
    )
    made.add_argument("--connections", type=at_least_one, default=20, metavar="N", help="of each side (default 20)")
    made.add_argument(
        "--sink", choices=("auto", "smtp-sink", "own"), default="auto", help="where the mail goes (default auto)"
    )
    bench_main(made.parse_args(), _bench)


async def _bench(options: argparse.Namespace, at: Path, bootstrap: str) -> Report:
    settings = Settings()
    load = Load(partitions=settings.outbound_partitions, now=_now_ms())
    key = make_key(at / "dkim")
    async with feed(bootstrap) as kafka_feed:
        await _prepare(kafka_feed, bootstrap, settings, options.connections)
        with sink(at, options.sink) as receiving:
            environment = _environment(bootstrap, at, receiving, options)
            plain_options = _plain_options(bootstrap, receiving, key, options)
            with (
                running("sender", _ours(), environment, at) as ours,
                running("plain", python("-m", _plain_sender.__name__), plain_options, at) as plain,
            ):
                sides = _sides(load, options, ours, plain)
                sent, plain_sent = await turns(kafka_feed, sides, first=_FIRST, runs=options.runs)
            say("comparing what was published and received with what was fed ...")
            checks = [await check_ours(kafka_feed, load), await check_plain(kafka_feed, load)]
            if receiving.counts:
                checks += [check_sink(receiving, load), check_signatures(receiving, key)]
    return Report("sender", [Subject("sender", "messages", sent, plain_sent)], checks, _facts(options, receiving))


def _sides(load: Load, options: argparse.Namespace, ours: Running, plain: Running) -> list[Side]:
    return [
        Side(
            process=ours,
            group=sender_group(CAMPAIGN),
            topics=[outbound_topic(CAMPAIGN)],
            meet=load.frames,
            make=load.frames,
            amount=options.messages,
        ),
        Side(
            process=plain,
            group=_plain_sender.GROUP,
            topics=[_plain_sender.OUTBOUND],
            meet=load.messages,
            make=load.messages,
            amount=options.plain_messages,
        ),
    ]


def _facts(options: argparse.Namespace, receiving: Sink) -> dict[str, object]:
    return {
        "sink": receiving.name,
        "connections": options.connections,
        "messages_per_turn": options.messages,
        "plain_messages_per_turn": options.plain_messages,
        "dkim": "RSA-2048",
        "messages_and_signatures_checked_at_the_sink": receiving.counts,
    }


async def _prepare(kafka_feed: Feed, bootstrap: str, settings: Settings, connections: int) -> None:
    """Topics as in production; the campaign, its content, and leave to send."""
    await create(bootstrap, settings)
    await create_for_campaigns(bootstrap, [CAMPAIGN], settings)
    await make_topics(bootstrap, {_plain_sender.OUTBOUND: settings.outbound_partitions, _plain_sender.RESULTS: 1})
    content = content_record()
    control = control_record(connections=connections, now=_now_ms())
    await kafka_feed.publish(
        [
            Item(CAMPAIGNS, CAMPAIGN.encode(), encode(campaign_record())),
            Item(CONTENTS, f"{CAMPAIGN}/{content.content}".encode(), encode(content)),
            Item(CONTROL, CAMPAIGN.encode(), encode(control)),
        ]
    )


def _ours() -> list[str]:
    return python("-m", "cli", "sender", "--campaign", CAMPAIGN)


def _environment(bootstrap: str, at: Path, receiving: Sink, options: argparse.Namespace) -> dict[str, str]:
    return {
        **role_settings(bootstrap, at),
        "MAILCORDON_DKIM_FOLDER": str(at / "dkim"),
        "MAILCORDON_SMTP_ROUTES": f"*=127.0.0.1:{receiving.port}",
        "MAILCORDON_CONNECTIONS": str(options.connections),
        "MAILCORDON_HOSTNAME": "mta.shop.example",
        "MAILCORDON_SENDER_WEB": "127.0.0.1:0",
    }


def _plain_options(bootstrap: str, receiving: Sink, key: Path, options: argparse.Namespace) -> dict[str, str]:
    given = {
        "kafka": bootstrap,
        "port": receiving.port,
        "connections": options.connections,
        "key": key.read_text(),
        "template": {"subject": SUBJECT, "text": TEXT, "list_id": LIST_ID},
    }
    return {"PLAIN_SENDER": json.dumps(given)}


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


if __name__ == "__main__":
    main()
