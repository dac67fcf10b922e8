"""How many messages a sender sends per second of processor time, beside a plain one and beside smtp-source.

stage    the whole of it: outbound frames in; rendered, signed with DKIM (RSA-2048), sent over SMTP; results out
client   its SMTP client alone, with ready messages

The stage is the real sender of one campaign (`mailcordon sender`) on a real Kafka, with its ledger, its gate and its
suppressions.  The plain one is made of aiokafka, EmailMessage, dkimpy and aiosmtplib with connections that are kept,
one JSON record per message.  The client is measured beside `smtp-source`, the generator of load that Postfix brings:
written in C, without a result per message, without TLS, four round trips per message.  All send over 20 connections
to the same sink on this machine, in turns: messages of 1.2, 10 and 100 KB, and (`_20ms`) messages of 1.2 KB to a sink
that answers after 20 ms, where what counts is seconds of wall clock.  Before the first turn each has opened its
connections, so that start-up is not measured.  Every message must have one result; with our own sink its count is
compared and some signatures are verified, too (smtp-sink keeps none).
"""

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # before benchmarks/, whose files hide packages

from benchmarks import _clients, _plain_sender
from benchmarks._feeding import Feed, Item, Reader, feed, make_topics
from benchmarks._harness import Report, Subject, Turn, at_least_one, parser
from benchmarks._postfix_tools import SOURCE, tool
from benchmarks._running import Running, bench_main, python, role_settings, running, say
from benchmarks._sender_checks import check_ours, check_plain, check_signatures, check_sink
from benchmarks._sender_load import (
    CAMPAIGN,
    LIST_ID,
    SIZES,
    SUBJECT,
    Load,
    campaign_record,
    content_record,
    control_record,
    make_key,
    text,
)
from benchmarks._sinks import Sink, sink
from policy.naming import outbound_topic, sender_group
from policy.settings import Settings
from schemas.codec import encode
from schemas.topics import CAMPAIGNS, CONTENTS, CONTROL
from streams.topics import create, create_for_campaigns

EXAMPLES = """\
  .venv/bin/python benchmarks/sender.py                    about four minutes
  .venv/bin/python benchmarks/sender.py --runs 7 --json
  .venv/bin/python benchmarks/sender.py --only client --runs 11
  .venv/bin/python benchmarks/sender.py --messages 200 --plain-messages 20 --client-messages 500 --runs 1"""

DELAY_MS = 20
_FIRST = 100  # messages before the first turn: enough for every connection to have sent some
_FAR = "far.example"  # mail for this domain goes to the sink that answers late
_SHARES = {"1kb": 1.0, "10kb": 0.5, "100kb": 0.1}  # of the messages of a turn, by size
_FAR_SHARE, _FAR_CLIENT_SHARE = 0.5, 0.04

Take = Callable[[], Awaitable[Turn]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """What is measured, and beside what."""

    key: str
    against: str
    variant: str
    ours: Take
    plain: Take

    @property
    def by_wall(self) -> bool:
        """Is waiting the limit?"""
        return self.variant == f"_{DELAY_MS}ms"


def main() -> None:
    made = parser(__doc__ or "", EXAMPLES, runs=5)
    made.add_argument(
        "--messages", type=at_least_one, default=4_000, metavar="N", help="messages of our turns (default 4,000)"
    )
    made.add_argument(
        "--plain-messages", type=at_least_one, default=250, metavar="N", help="messages of plain turns (default 250)"
    )
    made.add_argument(
        "--client-messages",
        type=at_least_one,
        default=20_000,
        metavar="N",
        help="messages of a client's turns (default 20,000)",
    )
    made.add_argument("--connections", type=at_least_one, default=20, metavar="N", help="of each side (default 20)")
    made.add_argument("--only", choices=("stage", "client"), help="measure one of the two")
    made.add_argument(
        "--sink", choices=("auto", "smtp-sink", "own"), default="auto", help="where the mail goes (default auto)"
    )
    bench_main(made.parse_args(), _bench)


async def _bench(options: argparse.Namespace, at: Path, bootstrap: str) -> Report:
    load = Load(partitions=Settings().outbound_partitions, now=_now_ms())
    key = make_key(at / "dkim")
    pairs: list[Pair] = []
    checks: list[str] = []
    async with contextlib.AsyncExitStack() as stack:
        near = stack.enter_context(sink(at, options.sink))
        far = stack.enter_context(sink(at, "own", name="far-sink", delay_ms=DELAY_MS))
        if options.only != "client":
            kafka_feed = await stack.enter_async_context(feed(bootstrap))
            await _prepare(kafka_feed, bootstrap, options.connections)
            pairs += await _stages(stack, kafka_feed, load, (near, far), _Started(at, bootstrap, key, options))
        if options.only != "stage":
            pairs += await _client_pairs(stack, (near, far), options)
        measured = await _measured(pairs, options.runs)
        if options.only != "client":
            say("comparing what was published and received with what was fed ...")
            checks = [await check_ours(kafka_feed, load), await check_plain(kafka_feed, load)]
            if near.counts and options.only == "stage":
                checks.append(check_sink([near, far], load))
            if near.counts:
                checks.append(check_signatures(near, key))
    return Report("sender", measured, checks, _facts(options, near))


async def _measured(pairs: list[Pair], runs: int) -> list[Subject]:
    """All in turn, again and again."""
    turns: list[tuple[list[Turn], list[Turn]]] = [([], []) for _ in pairs]
    for number in range(runs):
        for pair, (ours, plain) in zip(pairs, turns, strict=True):
            ours.append(await pair.ours())
            plain.append(await pair.plain())
            said = Subject(pair.key, "", ours[-1:], plain[-1:], pair.against, pair.variant, pair.by_wall)
            say(f"turn {number + 1} of {runs}: {said.name} {said.figure.median:,.0f}, {said.ratio.median:.2f} times")
    return [
        Subject(pair.key, "messages", ours, plain, pair.against, pair.variant, pair.by_wall)
        for pair, (ours, plain) in zip(pairs, turns, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Started:
    """What processes are started with."""

    at: Path
    bootstrap: str
    key: Path
    options: argparse.Namespace


async def _stages(
    stack: contextlib.AsyncExitStack, kafka_feed: Feed, load: Load, sinks: tuple[Sink, Sink], how: _Started
) -> list[Pair]:
    """The sender, and the plain ones: one for each sink, since it knows only one server."""
    near, far = sinks
    ours = stack.enter_context(
        running("sender", python("-m", "cli", "sender", "--campaign", CAMPAIGN), _environment(sinks, how), how.at)
    )
    plain, far_plain = [
        stack.enter_context(
            running(name, python("-m", _plain_sender.__name__), _plain_options(name, receiving, how), how.at)
        )
        for name, receiving in (("plain", near), ("plain-far", far))
    ]
    pairs = [_stage(kafka_feed, load, how, ours, plain, size=size) for size in SIZES]
    pairs.append(_stage(kafka_feed, load, how, ours, far_plain, size="1kb", domain=_FAR))
    say("waiting until all are warm ...")
    for pair in pairs:
        await pair.ours()
        await pair.plain()
    return pairs


def _stage(
    kafka_feed: Feed, load: Load, how: _Started, ours: Running, plain: Running, *, size: str, domain: str = ""
) -> Pair:
    share = _FAR_SHARE if domain else _SHARES[size]
    amounts = iter([_FIRST])  # the first turn is there to get warm, and is not measured
    plain_amounts = iter([_FIRST])
    topic = _plain_topic(plain.name)

    async def our_turn() -> Turn:
        count = next(amounts, max(1, round(how.options.messages * share)))
        side = Reader(process=ours, group=sender_group(CAMPAIGN), topics=[outbound_topic(CAMPAIGN)])
        return await kafka_feed.turn(side, load.frames(count, size=size, domain=domain))

    async def plain_turn() -> Turn:
        count = next(plain_amounts, how.options.plain_messages)
        side = Reader(process=plain, group=plain.name, topics=[topic])
        return await kafka_feed.turn(side, load.messages(count, size=size, topic=topic))

    variant = f"_{DELAY_MS}ms" if domain else _variant(size)
    return Pair(key="stage", against="plain", variant=variant, ours=our_turn, plain=plain_turn)


async def _client_pairs(
    stack: contextlib.AsyncExitStack, sinks: tuple[Sink, Sink], options: argparse.Namespace
) -> list[Pair]:
    near, far = sinks
    ours = await stack.enter_async_context(_clients.ours())
    plain = _clients.SmtpSource(tool(SOURCE))

    def pair(receiving: Sink, size: str, share: float, variant: str) -> Pair:
        order = {
            "port": receiving.port,
            "messages": max(1, round(options.client_messages * share)),
            "size": SIZES[size],
            "connections": options.connections,
        }
        return Pair(
            key="client",
            against="smtp_source",
            variant=variant,
            ours=lambda: ours.turn(**order),
            plain=lambda: plain.turn(**order),
        )

    pairs = [pair(near, size, _SHARES[size], _variant(size)) for size in SIZES]
    return [*pairs, pair(far, "1kb", _FAR_CLIENT_SHARE, f"_{DELAY_MS}ms")]


def _variant(size: str) -> str:
    return "" if size == "1kb" else f"_{size}"


def _facts(options: argparse.Namespace, receiving: Sink) -> Mapping[str, object]:
    return {
        "sink": receiving.name,
        "connections": options.connections,
        "messages_per_turn": options.messages,
        "plain_messages_per_turn": options.plain_messages,
        "client_messages_per_turn": options.client_messages,
        "dkim": "RSA-2048",
        "signatures_checked_at_the_sink": receiving.counts and options.only != "client",
    }


async def _prepare(kafka_feed: Feed, bootstrap: str, connections: int) -> None:
    """Topics as in production; the campaign, its contents, and leave to send."""
    settings = Settings()
    await create(bootstrap, settings)
    await create_for_campaigns(bootstrap, [CAMPAIGN], settings)
    plain_topics = {_plain_topic(name): settings.outbound_partitions for name in ("plain", "plain-far")}
    await make_topics(bootstrap, {**plain_topics, _plain_sender.RESULTS: 1})
    control = control_record(connections=connections, now=_now_ms())
    contents = [content_record(size) for size in SIZES]
    await kafka_feed.publish(
        [
            Item(CAMPAIGNS, CAMPAIGN.encode(), encode(campaign_record())),
            *(Item(CONTENTS, f"{CAMPAIGN}/{one.content}".encode(), encode(one)) for one in contents),
            Item(CONTROL, CAMPAIGN.encode(), encode(control)),
        ]
    )


def _environment(sinks: tuple[Sink, Sink], how: _Started) -> dict[str, str]:
    near, far = sinks
    return {
        **role_settings(how.bootstrap, how.at),
        "MAILCORDON_DKIM_FOLDER": str(how.at / "dkim"),
        "MAILCORDON_SMTP_ROUTES": f"{_FAR}=127.0.0.1:{far.port},*=127.0.0.1:{near.port}",
        "MAILCORDON_CONNECTIONS": str(how.options.connections),
        "MAILCORDON_HOSTNAME": "mta.shop.example",
        "MAILCORDON_SENDER_WEB": "127.0.0.1:0",
    }


def _plain_topic(name: str) -> str:
    return f"{name}.outbound"


def _plain_options(name: str, receiving: Sink, how: _Started) -> dict[str, str]:
    templates = {size: {"subject": SUBJECT, "text": text(size), "list_id": LIST_ID} for size in SIZES}
    given = {
        "kafka": how.bootstrap,
        "topic": _plain_topic(name),
        "group": name,
        "port": receiving.port,
        "connections": how.options.connections,
        "key": how.key.read_text(),
        "templates": templates,
    }
    return {"PLAIN_SENDER": json.dumps(given)}


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


if __name__ == "__main__":
    main()
