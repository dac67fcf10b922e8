"""When a role ends: on SIGTERM or SIGINT, or when the process it belongs to is gone."""

import asyncio
import os
import select
import signal
import threading
import time


def end_with(pid: int) -> None:
    """Tell this process to end (SIGTERM) as soon as process ``pid`` is gone; 0 means never."""
    if pid:
        threading.Thread(target=_watch, args=(pid,), name="end-with", daemon=True).start()


def _watch(pid: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        pass
    except (OSError, AttributeError):  # no pidfd on this system: ask now and then
        while _exists(pid):
            time.sleep(0.5)
    else:
        select.select([descriptor], [], [])
        os.close(descriptor)
    os.kill(os.getpid(), signal.SIGTERM)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


async def told_to_end() -> None:
    """Wait for SIGTERM or SIGINT."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for which in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(which, told.set)
    await told.wait()
