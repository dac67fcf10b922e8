"""Recordings for tests: records with their places, as a topic has them, and as lines of an export."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cli.backtest_records import Line, write_line
from schemas.base import Record
from schemas.codec import encode
from schemas.delivery import DeliveryFrame, DeliveryResult, Outcome, Position
from schemas.feedback import Feedback, FeedbackFrame, FeedbackKind, Trap
from schemas.reputation import Command
from schemas.sending import Campaign
from schemas.topics import CAMPAIGNS, COMMANDS, FEEDBACK, RESULTS
from streams.home import home
from tests.agents.doubles import campaign

T0 = 1_764_000_000_000
MINUTE = 60_000
HOUR = 60 * MINUTE
PARTITIONS = 4


@dataclass(frozen=True)
class At:
    """A record in its topic."""

    at: int
    topic: str
    partition: int
    offset: int
    record: Record

    @property
    def line(self) -> bytes:
        value = msgspec.Raw(encode(self.record))
        line = Line(
            topic=self.topic,
            partition=self.partition,
            offset=self.offset,
            at=self.at,
            value=value,
            partitions=PARTITIONS,
        )
        return write_line(line)


def placed(records: Iterable[tuple[int, Record]]) -> list[At]:
    """Records in the order of time, with the offsets that topics give them."""
    offsets: dict[tuple[str, int], int] = {}
    found = []
    for at, record in sorted(records, key=lambda pair: pair[0]):
        topic, key = _place(record)
        partition = home(key, PARTITIONS)
        offset = offsets[topic, partition] = offsets.get((topic, partition), -1) + 1
        found.append(At(at, topic, partition, offset, record))
    return found


def _place(record: Record) -> tuple[str, str]:
    match record:
        case Campaign():
            return CAMPAIGNS, record.campaign
        case DeliveryFrame():
            return RESULTS, record.campaign
        case Feedback():
            return FEEDBACK, record.campaign
        case FeedbackFrame():
            return FEEDBACK, record.feedback[0].campaign
        case Command():
            return COMMANDS, record.scope
        case _:
            raise AssertionError(record)


def written(file: Path, records: Iterable[At]) -> Path:
    file.write_bytes(b"".join(one.line + b"\n" for one in records))
    return file


def result(
    message_id: str,
    at: int,
    outcome: Outcome = "accepted",
    category: str | None = None,
    provider: str = "google",
) -> DeliveryResult:
    return DeliveryResult(message_id=message_id, outcome=outcome, at=at, class_=category, provider=provider, ip="::1")


def frame(name: str, results: Sequence[DeliveryResult], ledger: int | None = None) -> DeliveryFrame:
    position = None if ledger is None else Position(topic=f"mail.ledger.{name}", partition=0, offset=ledger)
    return DeliveryFrame(campaign=name, sender=f"{name}-0", covers=[], results=list(results), ledger=position)


def signal(
    name: str, kind: FeedbackKind, *, at: int, sent_at: int, message_id: str | None, trap: Trap | None = None
) -> Feedback:
    return Feedback(kind=kind, campaign=name, at=at, sent_at=sent_at, message_id=message_id, trap=trap)


def story(seed: int, *, minutes: int = 240, per_minute: int = 40) -> list[tuple[int, Record]]:
    """Four campaigns: one is well, one bounces later, one is complained about and hits a trap, one is blocked."""
    chance = random.Random(seed)
    found: list[tuple[int, Record]] = [(T0, campaign(name)) for name in ("well", "bouncing", "hated", "blocked")]
    for name in ("well", "bouncing", "hated", "blocked"):
        for minute in range(minutes):
            sent = T0 + minute * MINUTE
            results = []
            for number in range(per_minute):
                one = _one(chance, name, f"{name}-{minute}-{number}", sent + number * 1000, minute)
                results.append(one)
                if name == "hated" and one.outcome == "accepted" and chance.random() < 0.002:
                    late = one.at + chance.randrange(1, 60) * MINUTE
                    said = signal(name, "complaint", at=late, sent_at=one.at, message_id=one.message_id)
                    found += [(late, said)] * chance.choice((1, 1, 2))  # some come twice
            one_frame = frame(name, results, ledger=minute)
            arrived = sent + MINUTE + chance.randrange(5_000)
            found.append((arrived, one_frame))
            if chance.random() < 0.1:  # published again after a crash
                found.append((arrived + 3 * MINUTE, one_frame))
    trap = Trap(kind="pristine", where="footer")
    at = T0 + 200 * MINUTE
    found.append((at, signal("hated", "trap_hit", at=at, sent_at=at - MINUTE, message_id="hated-199-0", trap=trap)))
    return found


def _one(chance: random.Random, name: str, message_id: str, at: int, minute: int) -> DeliveryResult:
    dice = chance.random()
    provider = chance.choice(("google", "yahoo", "other"))
    if name == "bouncing" and 60 < minute < 100 and dice < 0.05:
        return result(message_id, at, "bounced", "invalid_recipient", provider)
    if name == "blocked" and minute > 90 and provider == "yahoo" and dice < 0.4:
        return result(message_id, at, "deferred", "reputation_ip", provider)
    if dice < 0.004:
        return result(message_id, at, "bounced", "invalid_recipient", provider)
    return result(message_id, at, provider=provider)
