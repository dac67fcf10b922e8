"""Starting what a benchmark needs, and ending it whatever happens: processes, a Kafka, a folder for both.

Every process that is started here dies with the benchmark, also when that is killed.
"""

import argparse
import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from benchmarks._cpu import cpu_s
from benchmarks._harness import Report
from cli.kafka import LAUNCHER, EmbeddedKafka, KafkaUnavailable, default_cache

ROOT = Path(__file__).resolve().parents[1]
HEAP_MB = 512  # hundreds of topics of four partitions each
_STOP_WITHIN_S = 20.0
_TAIL_LINES = 25


class Failed(Exception):  # noqa: N818 - it says what happened
    """A benchmark cannot go on, or what it measured did the wrong thing; the message says what."""


@dataclass(frozen=True, slots=True)
class Running:
    """A process that is measured."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def cpu_s(self) -> float:
        """Processor seconds so far."""
        return cpu_s(self.popen.pid)

    def must_run(self) -> None:
        """Raise if it has ended, with the end of its log."""
        if self.popen.poll() is not None:
            raise Failed(f"{self.name} ended with {self.popen.returncode}; the end of its log:\n{self.said()}")

    def said(self) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])


@contextlib.contextmanager
def folder(keep: Path | None) -> Iterator[Path]:
    """A folder for data and logs, removed at the end unless it is to be kept."""
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="mailcordon-bench-", ignore_cleanup_errors=True) as made:
        yield Path(made)


@contextlib.contextmanager
def kafka(at: Path) -> Iterator[str]:
    """A real Kafka of our own; answers its bootstrap servers.

    It is ended as a power cut would: nobody reads its data again, and a clean end takes seconds with so many topics.
    """
    data = at / "kafka"
    shutil.rmtree(data, ignore_errors=True)
    broker = EmbeddedKafka(data, cache=default_cache(), say=say, heap_mb=HEAP_MB)
    broker.start()
    try:
        yield broker.bootstrap
    finally:
        broker.kill()
        shutil.rmtree(data, ignore_errors=True)


@contextlib.contextmanager
def running(name: str, command: Sequence[str], environment: Mapping[str, str], at: Path) -> Iterator[Running]:
    """A process with a log of its own, in a session of its own."""
    log = at / f"{name}.log"
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("MAILCORDON_")}
    with log.open("wb") as out:
        popen = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", LAUNCHER, str(os.getpid()), *command],
            env={**inherited, "PYTHONPATH": str(ROOT), **environment},
            cwd=at,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        yield Running(name, popen, log)
    finally:
        _end(popen)


def python(*arguments: str) -> list[str]:
    """A command for this very Python."""
    return [sys.executable, *arguments]


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def say(line: str) -> None:
    """Tell the person at the terminal what is going on; standard output stays for the outcome."""
    print(line, file=sys.stderr, flush=True)


def bench_main(
    options: argparse.Namespace, bench: Callable[[argparse.Namespace, Path, str], Awaitable[Report]]
) -> None:
    """Run a benchmark with a folder and a Kafka of its own, and show its report; exit code 3 when it failed."""
    end_on_signals()
    try:
        with folder(options.keep) as at, kafka(at) as bootstrap:
            report = asyncio.run(_awaited(bench(options, at, bootstrap)))
    except (Failed, KafkaUnavailable) as failed:
        say(f"failed: {failed}")
        raise SystemExit(3) from failed
    report.show(as_json=options.json)


async def _awaited(report: Awaitable[Report]) -> Report:
    return await report


def role_settings(bootstrap: str, at: Path) -> dict[str, str]:
    """The environment of a role of ours, in a folder of its own."""
    data = at / "data"
    data.mkdir(mode=0o700, exist_ok=True)
    return {
        "MAILCORDON_KAFKA": bootstrap,
        "MAILCORDON_DATA": str(data),
        "MAILCORDON_WEB": f"127.0.0.1:{free_port()}",
        "MAILCORDON_EXIT_WITH": str(os.getpid()),
    }


def end_on_signals() -> None:
    """Turn SIGTERM into an exit, so that everything that was started is ended."""

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)


def _end(popen: subprocess.Popen[bytes]) -> None:
    """End a process and whatever it has left in its session."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        if popen.poll() is not None:
            break
        popen.send_signal(how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            popen.wait(_STOP_WITHIN_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(popen.pid, signal.SIGKILL)
