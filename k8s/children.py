"""Local processes that outlive whoever started them: start, find again, ask to end, end.

Whether a sender runs is answered by a lock that it holds itself: its start opens the run file, locks it and hands
the open file down.  The kernel drops the lock when the last process that has it ends, so there are never two of one
sender, whatever died in between: the controller after the start and before it wrote the process id down, the
controller and its successor at the same time, a process id that somebody else got later.

A process id is only believed together with the time at which the process started.
"""

import contextlib
import fcntl
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_RUN_FD = 3
RUN_TOKEN = "SENDER_RUN_FILE"  # noqa: S105 - the name of a variable, by which a child is known as its run file's
_START_FIELD = 22  # proc(5), /proc/pid/stat: starttime, in clock ticks after boot
_STDERR = 2

_one_at_a_time = threading.Lock()
"""Between fork and exec a child has copies of all our open files; a run file must not be among another's."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process that cannot be mistaken for another one with the same id."""

    pid: int
    started: int


def started_at(pid: int) -> int | None:
    """When a process started, in a unit of its own that grows; None when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None if Path("/proc/self/stat").exists() else _started_by_ps(pid)
    except ProcessLookupError:
        return None
    fields = stat[stat.rindex(")") + 2 :].split()  # the name before it may hold anything
    return None if fields[0] == "Z" else int(fields[_START_FIELD - 3])


def start(argv: Sequence[str], environment: Mapping[str, str], *, run_file: Path, log: Path) -> Process | None:
    """Start a process in a session of its own; None when one already runs for this run file."""
    with _one_at_a_time:
        run = os.open(run_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not _lock(run):
                return None
            pid = _spawn(argv, dict(environment) | {RUN_TOKEN: str(run_file)}, run=run, log=log)
        except BaseException:
            fcntl.flock(run, fcntl.LOCK_UN)  # whatever copies there are
            raise
        finally:
            os.close(run)
    return Process(pid, started_at(pid) or 0)


def is_running(run_file: Path) -> bool:
    """Does a process hold this run file?"""
    with _one_at_a_time:
        try:
            run = os.open(run_file, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            if not _lock(run):
                return True
            fcntl.flock(run, fcntl.LOCK_UN)
            return False
        finally:
            os.close(run)


def find(run_file: Path) -> Process | None:
    """The process of a run file, when its id was never written down."""
    token = f"{RUN_TOKEN}={run_file}".encode()
    for pid in _process_ids():
        with contextlib.suppress(OSError):
            if token in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") and pid != os.getpid():
                started = started_at(pid)
                if started is not None:
                    return Process(pid, started)
    return None


def send(process: Process, which: signal.Signals) -> bool:
    """Send a signal to exactly this process; False when it has ended."""
    try:
        handle = os.pidfd_open(process.pid)
    except AttributeError:  # not on Linux: between the look and the signal the id could change hands
        if started_at(process.pid) != process.started:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, which)
        return True
    except ProcessLookupError:
        return False
    try:
        if started_at(process.pid) != process.started:  # looked at after opening: the handle stays with that one
            return False
        signal.pidfd_send_signal(handle, which)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


def reap(pid: int) -> int | None:
    """The exit code of a child of ours that has ended (negative: the signal); None when it runs or is not ours."""
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return os.waitstatus_to_exitcode(status) if found else None


def _spawn(argv: Sequence[str], environment: Mapping[str, str], *, run: int, log: Path) -> int:
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, _STDERR),
        (os.POSIX_SPAWN_DUP2, run, _RUN_FD),  # stays open over exec
    ]
    ours = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE}
    return os.posix_spawnp(
        argv[0], list(argv), dict(environment), file_actions=actions, setsid=True, setsigmask=(), setsigdef=ours
    )


def _lock(run: int) -> bool:
    try:
        fcntl.flock(run, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _process_ids() -> Iterator[int]:
    with contextlib.suppress(OSError):
        yield from (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _started_by_ps(pid: int) -> int | None:
    """Where there is no /proc; whole seconds, as a number that grows."""
    answer = subprocess.run(  # noqa: S603 - a number in a fixed command
        ["/bin/ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, timeout=5, check=False
    )
    words = answer.stdout.split()
    return int.from_bytes(" ".join(words).encode()[:32], "big") if words else None
