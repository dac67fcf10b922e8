"""From lines to the replay: each record is read, shown to the replay at its time, or counted as bad."""

import gc
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from cli.backtest_input import Bad, Placed, Recording, read
from cli.backtest_records import Line, ResultsLine, read_results
from cli.backtest_replay import Replay
from policy.naming import campaign_scope
from schemas.base import Record
from schemas.codec import Malformed, decode, decode_feedback
from schemas.delivery import DeliveryFrame
from schemas.reputation import Brake, Command, Decision
from schemas.sending import Campaign
from schemas.topics import BRAKES, BY_NAME, CAMPAIGNS, COMMANDS, DECISIONS, FEEDBACK, RESULTS
from streams.home import home

DAY_MS = 86_400_000
_PROGRESS_EVERY = 64  # lines
_COLLECT_EVERY = 200_000  # lines
_RECORDS: dict[str, type[Record]] = {
    CAMPAIGNS: Campaign,
    BRAKES: Brake,
    COMMANDS: Command,
    DECISIONS: Decision,
}


@dataclass(slots=True)
class Read:
    """What was read, and from when to when; ``begin`` and ``end`` are None when there was nothing."""

    lines: int = 0
    elsewhere: int = 0  # records that were sent on to another partition, where they are counted
    begin: int | None = None
    end: int | None = None


_MOVES = {RESULTS, FEEDBACK}  # a campaign's record may be much older


def first_campaigns(recording: Recording) -> dict[str, Campaign]:
    """The oldest record of each campaign that there is."""
    found: dict[str, Campaign] = {}
    for placed in recording.of(CAMPAIGNS):
        line = read(placed.raw)
        if isinstance(line, Line) and not isinstance(one := decode(Campaign, bytes(line.value)), Malformed):
            found.setdefault(one.campaign, one)
    return found


def replayed(
    recording: Recording, replay: Replay, bad: Bad, *, to: int | None, say: Callable[[int, int], None] = lambda *_: None
) -> Read:
    """Show everything up to ``to`` to the replay; ``say`` is told now and then how much of how much is done."""
    found = Read()
    gc.disable()  # results are no garbage that a collector could find; what little there is can wait
    try:
        for placed in recording:
            if to is not None and placed.at > to:
                break
            replay.advance(placed.at)
            _show(placed, replay, bad, found)
            found.lines += 1
            if found.begin is None and placed.topic in _MOVES:
                found.begin = max(placed.at, replay.judged_from)
            found.end = placed.at
            if found.lines % _PROGRESS_EVERY == 0:
                say(found.lines, len(recording))
            if found.lines % _COLLECT_EVERY == 0:
                gc.collect()
    finally:
        gc.enable()
    if to is not None and found.end is not None:
        found.end = max(found.end, min(to, found.end + 8 * DAY_MS))  # then the longest window is empty
        replay.advance(found.end)
    return found


def _show(placed: Placed, replay: Replay, bad: Bad, found: Read) -> None:
    if placed.topic == RESULTS:
        line = _results(placed.raw)
        if line is None:
            bad.add(placed.number, _why(placed.raw, DeliveryFrame))
        elif _is_elsewhere(line.value.campaign, line):
            found.elsewhere += 1
        else:
            replay.results(line.value, line.partition, line.offset, placed.at)
        return
    general = read(placed.raw)
    if isinstance(general, str):
        bad.add(placed.number, general)
        return
    why = _other(general, replay, placed.at, found)
    if why is not None:
        bad.add(placed.number, why)


def _results(raw: memoryview) -> ResultsLine | None:
    try:
        return read_results(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _other(line: Line, replay: Replay, now: int, found: Read) -> str | None:
    """Show a record that holds no results; answers what is wrong with it."""
    if line.raw is not None:
        return _NO_JSON
    value = bytes(line.value)
    if line.topic == FEEDBACK:
        return _feedback(line, value, replay, now, found)
    if value == b"null" and line.topic in {CAMPAIGNS, BRAKES}:  # a tombstone: what was known goes on to hold
        return None
    match decode(_RECORDS[line.topic], value):
        case Malformed() as malformed:
            return malformed.explain
        case Campaign() as campaign:
            replay.campaign(campaign, now)
        case Command() as command if not _is_elsewhere(campaign_scope(command.campaign), line):
            replay.command(command, now)
        case Brake() as brake:
            replay.brake(brake)
        case Decision() as decision:
            replay.decision(decision)
    return None


def _feedback(line: Line, value: bytes, replay: Replay, now: int, found: Read) -> str | None:
    events = decode_feedback(value)
    if isinstance(events, Malformed):
        return events.explain
    own = [one for one in events if not _is_elsewhere(one.campaign, line)]
    found.elsewhere += len(own) < len(events)
    if own:
        replay.feedback(own, line.partition, line.offset, now)
    return None


_NO_JSON = "the record is no JSON, as it was in its topic; a worker set it aside (mailcordon dead-letters list)"


def _why(raw: memoryview, record: type[DeliveryFrame]) -> str:
    line = read(raw)
    if isinstance(line, str):
        return line
    if line.raw is not None:
        return _NO_JSON
    wrong = decode(record, bytes(line.value), max_bytes=BY_NAME[line.topic].max_bytes)
    return wrong.explain if isinstance(wrong, Malformed) else "the record cannot be read"


def _is_elsewhere(key: str, line: Line | ResultsLine) -> bool:
    return line.partitions is not None and home(key, line.partitions) != line.partition
