"""Where the mail of a benchmark goes: Debian's ``smtp-sink`` if it can be had, else a sink of our own."""

import contextlib
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import _sink
from benchmarks._postfix_tools import SINK, as_nobody, tool
from benchmarks._running import Failed, Running, free_port, python, running

KEEP_EVERY = 100  # messages
_READY_WITHIN_S = 15.0
_BACKLOG = "1000"


@dataclass(frozen=True, slots=True)
class Sink:
    """A sink that listens; only our own one counts and keeps messages."""

    name: str
    port: int
    kept: Path

    @property
    def counts(self) -> bool:
        """Can it be asked?"""
        return self.name == OWN

    def count(self) -> tuple[int, int]:
        """Messages and bytes so far."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            lines = connection.makefile("rwb")
            lines.readline()
            lines.write(b"XCOUNT\r\n")
            lines.flush()
            _, messages, size = lines.readline().split()
            return int(messages), int(size)


OWN = "own sink"


@contextlib.contextmanager
def sink(at: Path, wanted: str, *, name: str = "sink", delay_ms: int = 0) -> Iterator[Sink]:
    """Start a sink: ``smtp-sink``, ``own``, or with ``auto`` the former if it can be had."""
    found = _debian_sink(wanted)
    port, kept = free_port(), at / f"kept-{name}"
    kept.mkdir(exist_ok=True)
    command = python("-m", _sink.__name__, str(port), str(kept), str(KEEP_EVERY), str(delay_ms))
    if found is not None:
        command = [str(found), *as_nobody(), f"127.0.0.1:{port}", _BACKLOG]
    with running(name, command, {}, at) as process:
        _wait_until_it_listens(process, port)
        yield Sink(OWN if found is None else SINK, port, kept)


def _debian_sink(wanted: str) -> Path | None:
    if wanted == "own":
        return None
    try:
        return tool(SINK)
    except Failed as why:
        if wanted == SINK:
            raise Failed(f"{why}\nor take --sink own") from why
        return None


def _wait_until_it_listens(process: Running, port: int) -> None:
    deadline = time.monotonic() + _READY_WITHIN_S
    while True:
        process.must_run()
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                if connection.recv(3) == b"220":
                    return
        except OSError as refused:
            if time.monotonic() > deadline:
                raise Failed(f"the sink does not listen; its log:\n{process.said()}") from refused
        time.sleep(0.05)
