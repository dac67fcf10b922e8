"""Which event loop processes run on: uvloop where there is one, which halves what a socket costs."""

import asyncio


def loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    """uvloop, if it can be had; else what asyncio takes by itself."""
    try:
        import uvloop
    except ImportError:  # not on every platform
        return None
    return uvloop.Loop


def new_loop() -> asyncio.AbstractEventLoop:
    """Such a loop, for a thread of its own."""
    return (loop_factory() or asyncio.new_event_loop)()
