"""Faust made strict, through its official extension points; nothing in Faust is patched.

The promise: an offset is committed only when every event below it is done and everything that those events
sent (outputs, changelog) is acknowledged by the broker; the events of a partition reach the agent in order and
without holes.  A table value that carries the source offsets it has applied then counts each event exactly once,
whatever is killed, moved or stalled.  Outputs are at least once.

What agents have to do for it:

- ``async for event in stream.held()``: the event is done when the body asks for the next one;
- write table values ``[[offset of source 1, offset of source 2, …], …]`` and apply an event only if its offset is
  above the one of its source; emit also for events that are skipped as applied;
- catch what a bad *event* can raise and send it to dead letters: any exception that leaves the agent ends the
  process, and the event comes again;
- keep one actor per agent (``concurrency=1``) for tables.  Without a table any concurrency is safe.

What this does not do: transactions, RocksDB, global tables (Faust's own class, unguarded), ``take()``.
"""

from streams.runtime.app import SafeApp
from streams.runtime.serving import run
from streams.runtime.stream import SafeStream
from streams.runtime.table import SafeTable

__all__ = ["SafeApp", "SafeStream", "SafeTable", "run"]
