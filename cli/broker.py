"""Which Kafka a command speaks to: the one that is named, the embedded one that runs, or one it starts itself.

Whoever starts the embedded broker leaves a note in the data folder, so that other commands on this machine find
it; the broker ends with the process that started it.
"""

import asyncio
import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from cli.failures import OutsideFailed, WrongUse
from cli.kafka import EmbeddedKafka, KafkaUnavailable, default_cache
from cli.settings import data_folder
from policy.settings import Settings, WrongSetting
from streams.kafka_security import servers_of
from streams.refusals import refusal

Say = Callable[[str], None]


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """Where the embedded broker of a data folder runs, and with which keys its system works."""

    bootstrap: str
    pid: int
    secret_file: str


def running(data: Path) -> Note | None:
    """The note of a broker that is alive, if there is one."""
    try:
        note = msgspec.json.decode(_note_file(data).read_bytes(), type=Note)
        os.kill(note.pid, 0)
    except (OSError, msgspec.MsgspecError):
        return None
    return note


def secret_file(settings: Settings) -> Path:
    """The key file in force: the one that is named, that of the running system, or that of the data folder."""
    if settings.secret_file is not None:
        return settings.secret_file
    data = data_folder(settings)
    note = None if settings.kafka else running(data)
    return Path(note.secret_file) if note else data / "secrets.json"


@contextlib.contextmanager
def broker(settings: Settings, say: Say) -> Iterator[str]:
    """The bootstrap servers to use, for as long as the context lasts."""
    servers = _taken(settings)
    if servers is not None:
        yield servers
        return
    data = data_folder(settings)
    note = running(data)
    if note is not None:
        yield note.bootstrap
        return
    say("no MAILCORDON_KAFKA is set: starting the embedded Kafka")
    with started(data / "kafka", data=data, secret_file=secret_file(settings), say=say) as kafka:
        yield kafka.bootstrap


def _taken(settings: Settings) -> str | None:
    """The servers that are named; a refusal by them ends the command, since no role would do better by trying again."""
    try:
        servers = servers_of(settings)
    except WrongSetting as wrong:
        raise WrongUse(str(wrong)) from wrong
    if servers is None:
        return None
    refused = asyncio.run(refusal(servers))
    if refused is not None:
        raise OutsideFailed(refused)
    return servers


@contextlib.contextmanager
def started(folder: Path, *, data: Path, secret_file: Path, say: Say) -> Iterator[EmbeddedKafka]:
    """An embedded broker of our own, noted for the other commands of this data folder."""
    kafka = EmbeddedKafka(folder, cache=default_cache(), say=say)
    try:
        kafka.start()
    except KafkaUnavailable as missing:
        raise OutsideFailed(str(missing)) from missing
    note = Note(bootstrap=kafka.bootstrap, pid=kafka.pid or os.getpid(), secret_file=str(secret_file))
    file = _note_file(data)
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps(msgspec.to_builtins(note)), encoding="utf-8")
    temporary.replace(file)
    try:
        yield kafka
    finally:
        current = running(data)
        if current is None or current.bootstrap == kafka.bootstrap:
            file.unlink(missing_ok=True)
        kafka.stop()


def _note_file(data: Path) -> Path:
    return data / "broker.json"
