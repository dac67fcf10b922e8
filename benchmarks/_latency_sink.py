"""A receiving mail server that notes the time of every MAIL FROM and of every message that it takes.

Started as ``python -m benchmarks._latency_sink JSON`` with ``port``, ``hang_port`` and ``log``.  A line of the log is
``M TIME DOMAIN`` for a MAIL FROM, with the domain of its return path, or ``A TIME NAME`` for a message that was taken,
with the local part of its recipient; times are microseconds since the epoch.  A line is in the file before the answer
leaves.  Recipients whose name begins with ``unknown`` do not exist.  On ``hang_port`` connections are taken and
nothing is ever said, as by a provider that hangs.
"""

import asyncio
import json
import os
import sys
import time

import uvloop

from benchmarks._log_connection import OK, LogConnection

_NO_MAILBOX = b"550 5.1.1 No such mailbox\r\n"


class Connection(LogConnection):
    """Notes when each transaction began and each message was taken."""

    def mail(self, path: bytes) -> None:
        """Note the return path's domain."""
        self.lines.append(b"M %d %s\n" % (_now_us(), path.rpartition(b"@")[2]))

    def refusal(self, path: bytes) -> bytes | None:
        """Those whose name begins with ``unknown`` do not exist."""
        return _NO_MAILBOX if path.startswith(b"unknown") else None

    def taken(self) -> bytes:
        """Note the recipients' names."""
        self.lines += [b"A %d %s\n" % (_now_us(), path.partition(b"@")[0]) for path in self.recipients]
        return OK


def _now_us() -> int:
    return time.time_ns() // 1000


async def serve(port: int, hang_port: int, log: str) -> None:
    """Listen for ever."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(file), "127.0.0.1", port)
    await loop.create_server(asyncio.Protocol, "127.0.0.1", hang_port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    uvloop.run(serve(given["port"], given["hang_port"], given["log"]))
