"""Where the mail of a benchmark goes: Debian's ``smtp-sink`` if it is here, else a sink of our own."""

import contextlib
import os
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import _sink
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


OWN, DEBIAN = "own sink", "smtp-sink"


@contextlib.contextmanager
def sink(at: Path, wanted: str) -> Iterator[Sink]:
    """Start a sink: ``smtp-sink``, ``own``, or with ``auto`` the former if it is installed."""
    found = None if wanted == "own" else shutil.which(DEBIAN) or shutil.which(DEBIAN, path="/usr/sbin")
    if found is None and wanted == DEBIAN:
        raise Failed("smtp-sink is not installed; Debian, Ubuntu: apt-get install postfix, or take --sink own")
    port, kept = free_port(), at / "kept"
    kept.mkdir(exist_ok=True)
    command = python("-m", _sink.__name__, str(port), str(kept), str(KEEP_EVERY))
    if found is not None:
        as_nobody = ["-u", "nobody"] if os.geteuid() == 0 else []  # it refuses to stay root
        command = [found, *as_nobody, f"127.0.0.1:{port}", _BACKLOG]
    with running("sink", command, {}, at) as process:
        _wait_until_it_listens(process, port)
        yield Sink(OWN if found is None else DEBIAN, port, kept)


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
