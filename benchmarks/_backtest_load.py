"""Recordings for a backtest: many results for its speed, and a story of one campaign for its picture."""

import random
from collections.abc import Iterator
from pathlib import Path

import msgspec

from benchmarks._workload import campaign_record, campaigns, frames
from cli.backtest_records import Line, write_line
from schemas.base import Record
from schemas.codec import encode
from schemas.delivery import DeliveryFrame, DeliveryResult, Outcome, Position
from schemas.feedback import Feedback
from schemas.topics import CAMPAIGNS, FEEDBACK, RESULTS

BEGIN_MS = 1_764_000_000_000
_STORY = "spring-sale"
_MINUTE_MS = 60_000
_FRAME_EVERY_MS = 500  # one of five hundred results: a thousand results a second


def write_many(file: Path, *, seed: int, events: int, size: int, count: int) -> None:
    """Write ``events`` results in frames of ``size``, of ``count`` campaigns in turn, of which some are bad."""
    chance = random.Random(seed)
    ids = campaigns(count)
    with file.open("wb") as out:
        for number, name in enumerate(ids):
            out.write(line(CAMPAIGNS, number, BEGIN_MS, name, campaign_record(name)))
        at = BEGIN_MS
        for offset, frame in enumerate(frames(chance, ids, count=events // size, size=size, mark="r", first=0)):
            at += _FRAME_EVERY_MS
            newest = max(one.at for one in frame.results)
            results = [msgspec.structs.replace(one, at=at - (newest - one.at)) for one in frame.results]
            out.write(line(RESULTS, offset, at, frame.campaign, msgspec.structs.replace(frame, results=results)))


def write_story(file: Path, *, seed: int) -> None:
    """Write the story of a campaign: well for an hour, then a bought list is mixed in and more and more comes back."""
    chance = random.Random(seed)
    with file.open("wb") as out:
        out.write(line(CAMPAIGNS, 0, BEGIN_MS, _STORY, campaign_record(_STORY)))
        out.writelines(sorted(_story(chance), key=_at))


def _story(chance: random.Random) -> Iterator[bytes]:
    comes_back = 0
    for minute in range(240):
        at = BEGIN_MS + minute * _MINUTE_MS
        bad = 0.006 if minute < 60 else 0.006 + 0.022 * min(1.0, (minute - 60) / 30)
        results = [_result(chance, f"m-{minute}-{number}", at + 500 * number, bad) for number in range(100)]
        ledger = Position(topic="mail.ledger.x", partition=0, offset=minute)
        frame = DeliveryFrame(campaign=_STORY, sender="s-0", covers=[], results=results, ledger=ledger)
        yield line(RESULTS, minute, at + _MINUTE_MS, _STORY, frame)
        for one in results:
            if one.outcome == "accepted" and chance.random() < (0.0003 if minute < 60 else 0.002):
                late = one.at + chance.randrange(5, 90) * _MINUTE_MS
                complaint = Feedback(
                    kind="complaint", campaign=_STORY, at=late, sent_at=one.at, message_id=one.message_id
                )
                yield line(FEEDBACK, comes_back, late, _STORY, complaint)
                comes_back += 1


def _result(chance: random.Random, message_id: str, at: int, bad: float) -> DeliveryResult:
    is_bad = chance.random() < bad
    outcome: Outcome = "bounced" if is_bad else "accepted"
    category = "invalid_recipient" if is_bad else None
    return DeliveryResult(message_id=message_id, outcome=outcome, at=at, provider="google", class_=category)


def line(topic: str, offset: int, at: int, key: str, record: Record) -> bytes:
    """A record as a line of an export."""
    value = msgspec.Raw(encode(record))
    return write_line(Line(topic=topic, partition=0, offset=offset, at=at, key=key, value=value)) + b"\n"


def _at(raw: bytes) -> int:
    return msgspec.json.decode(raw, type=Line).at
