"""Running one app until it is told to stop, or crashes.

Faust's own worker takes over logging, standard output and the process title; a role of mailcordon has set those up
already and only needs an exit code.
"""

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
from typing import NoReturn

import faust
import structlog

from streams.loops import loop_factory

log = structlog.get_logger()

CLEAN, CRASHED = 0, 1
STOP_WITHIN_S = 90.0

# Objects that are made before the collector looks for garbage in cycles; Python's 700 are the events of an instant.
GARBAGE_AFTER = 20_000

# After a crash there is little left to save, and the restart waits: commit what is done and leave the group, if the
# broker answers.
STOP_AFTER_CRASH_WITHIN_S = 10.0


def run(app: faust.App, *, stop_within_s: float = STOP_WITHIN_S) -> int:
    """Run an app until SIGTERM or SIGINT; 0 when it has finished what it took, 1 when it crashed.

    ``stop_within_s`` bounds the stop: an agent may hang, and a flush waits for a broker that is away.  What is not
    committed by then comes again.  The process may end in here, when a thread of Faust does not.
    """
    gc.freeze()  # what was imported stays
    gc.set_threshold(GARBAGE_AFTER)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        code = runner.run(_serve(app, stop_within_s))
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        _end_now(code)  # Faust's consumer thread says goodbye to a broker that is away, for minutes
    return code


def _end_now(code: int) -> NoReturn:
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


async def _serve(app: faust.App, stop_within_s: float) -> int:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    start = asyncio.create_task(app.start(), name="start")
    stop = asyncio.create_task(told.wait(), name="told to stop")
    end = asyncio.create_task(app.wait_until_stopped(), name="crashed or stopped")
    await asyncio.wait({start, stop, end}, return_when=asyncio.FIRST_COMPLETED)
    if start.done() and start.exception() is None:
        await asyncio.wait({stop, end}, return_when=asyncio.FIRST_COMPLETED)
    cause = _cause(app, start)
    if cause is not None:
        log.critical("worker crashed", cause=repr(cause))
        stop_within_s = min(stop_within_s, STOP_AFTER_CRASH_WITHIN_S)
    trouble = await _stop(app, start, stop_within_s)
    cause = cause or trouble or _cause(app, start)
    for task in (stop, end):
        task.cancel()
    return CLEAN if cause is None else CRASHED


def _cause(app: faust.App, start: asyncio.Task[None]) -> BaseException | None:
    """What went wrong so far, in starting or in any part of the app; being cancelled is how agents end."""
    if start.done() and not start.cancelled() and start.exception() is not None:
        return start.exception()
    reason: BaseException | None = app.crash_reason
    return None if isinstance(reason, asyncio.CancelledError) else reason


async def _stop(app: faust.App, start: asyncio.Task[None], within_s: float) -> BaseException | None:
    """Stop the app; answers what went wrong with that."""
    stopping = asyncio.create_task(app.stop(), name="stop")
    await asyncio.wait({stopping}, timeout=within_s)
    if not stopping.done():  # and cancelling would not help: Faust's waiting for events swallows it
        log.critical("worker did not stop in time", within_s=within_s)
        _end_now(CRASHED)
    start.cancel()
    await asyncio.wait({start}, timeout=within_s)
    trouble = stopping.exception()
    if trouble is not None:
        log.critical("worker did not stop well", cause=repr(trouble), exc_info=trouble)
    return trouble
