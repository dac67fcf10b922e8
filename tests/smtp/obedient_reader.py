"""The reader of the return path with a mistake in it: it does what a message tells it.  Run as a program, it reads.

Our reader is not known to have such a mistake; what happens when it has one is tested with this.
"""

import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from smtp import reader_child, reader_process
from smtp.findings import Finding
from smtp.reader_process import ReaderPool
from smtp.understand import understand

_ORDER = b"Subject: order: "
EATS_MEMORY = _ORDER + b"eat memory\n\n"
SPINS = _ORDER + b"spin\n\n"
WAITS = _ORDER + b"wait\n\n"
DIES = _ORDER + b"die\n\n"
CRASHES = _ORDER + b"crash\n\n"
BABBLES = _ORDER + b"babble\n\n"
LIES = _ORDER + b"lie\n\n"
WRITES = _ORDER + b"write\n\n"
FAILS = _ORDER + b"fail\n\n"
_DIE_ONCE = b"die once "
DIES_ONCE = _ORDER + _DIE_ONCE


def obey(raw: bytes) -> list[Finding]:
    """Understand a message, or do what it orders."""
    if not raw.startswith(_ORDER):
        return understand(raw)
    order = raw.removeprefix(_ORDER).partition(b"\n")[0].strip()
    if order.startswith(_DIE_ONCE):
        _die_if_there(Path(os.fsdecode(order.removeprefix(_DIE_ONCE))))
    else:
        _ORDERS[order]()
    return understand(b"")


def _eat_memory() -> None:
    eaten = []
    while True:
        eaten.append(bytes(1_048_576))


def _spin() -> None:
    while True:
        pass


def _write() -> None:
    os.write(os.open(Path(__file__).parent, os.O_TMPFILE | os.O_RDWR), b"x")


def _fail() -> None:
    raise RecursionError


def _die_if_there(mark: Path) -> None:
    if mark.exists():
        mark.unlink()
        os._exit(3)


_ORDERS: dict[bytes, Callable[[], object]] = {
    b"eat memory": _eat_memory,
    b"spin": _spin,
    b"wait": lambda: time.sleep(3600),
    b"die": lambda: os._exit(3),
    b"crash": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    b"babble": lambda: os.write(_outbox(), b"\x00\x00\x00\x04\xc1\xc1\xc1\xc1"),
    b"lie": lambda: os.write(_outbox(), b"\xff\xff\xff\xff"),
    b"write": _write,
    b"fail": _fail,
}


def _outbox() -> int:
    """The pipe to the parent: the reader moved it away from standard output."""
    return max(int(one.name) for one in Path("/proc/self/fd").iterdir() if _is_pipe(one))


def _is_pipe(link: Path) -> bool:
    with contextlib.suppress(OSError):
        return str(link.readlink()).startswith(("pipe:", "socket:"))
    return False


@contextlib.asynccontextmanager
async def readers_that_obey(**changes: Any) -> AsyncIterator[ReaderPool]:
    """A pool of such readers."""
    with patch.object(reader_process, "READER", __spec__.name if __spec__ else __name__):
        async with ReaderPool(**changes) as pool:
            yield pool


if __name__ == "__main__":
    with patch.object(reader_child, "understand", obey):
        reader_child.main()
