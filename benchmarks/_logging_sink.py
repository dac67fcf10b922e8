"""A receiving mail server that writes down each recipient before it says 250: the truth about what was received.

Started as ``python -m benchmarks._logging_sink JSON`` with ``port``, ``log``, ``defer`` and ``drop`` (shares, 0 to 1)
and ``seed``.  A line of the log is the local part of a recipient; it is in the file before the reply leaves.  A share
of recipients is deferred at the first RCPT (450); with another share the connection ends after the line and before
the 250, as if the reply had been lost.  Such lines end with ``!``.
"""

import asyncio
import json
import os
import sys
from dataclasses import dataclass, field
from hashlib import blake2b

import uvloop

from benchmarks._log_connection import OK, LogConnection

_LATER = b"450 4.2.0 Mailbox busy, try again later\r\n"


@dataclass(slots=True)
class Ledger:
    """What was received, in a file; and who was told to come again."""

    log: int
    defer: float
    drop: float
    seed: int
    told_to_wait: set[bytes] = field(default_factory=set)
    dropped: set[bytes] = field(default_factory=set)

    def must_wait(self, name: bytes) -> bool:
        """Is this the first time for a recipient that is deferred?"""
        if self.defer and self._chance(b"defer", name) < self.defer and name not in self.told_to_wait:
            self.told_to_wait.add(name)
            return True
        return False

    def drops(self, name: bytes) -> bool:
        """Is the reply for this recipient lost?  Once, so that a message that is sent again arrives."""
        if self.drop and self._chance(b"drop", name) < self.drop and name not in self.dropped:
            self.dropped.add(name)
            return True
        return False

    def _chance(self, what: bytes, name: bytes) -> float:
        digest = blake2b(b"%d %s %s" % (self.seed, what, name), digest_size=6).digest()
        return int.from_bytes(digest, "big") / 2**48


class Connection(LogConnection):
    """Notes who got a message, and whether the reply was lost."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(ledger.log)
        self._ledger = ledger

    def refusal(self, path: bytes) -> bytes | None:
        """Some are told to come again, once."""
        return _LATER if self._ledger.must_wait(path.partition(b"@")[0]) else None

    def taken(self) -> bytes:
        """Note the recipients' names; a reply that is lost ends the connection."""
        names = [path.partition(b"@")[0] for path in self.recipients]
        lost = any([self._ledger.drops(name) for name in names])  # noqa: C419 - all of them are asked
        self.lines += [name + (b"!\n" if lost else b"\n") for name in names]
        self.ends = lost
        return b"" if lost else OK


async def serve(given: dict[str, object]) -> None:
    """Listen for ever."""
    log = os.open(str(given["log"]), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    ledger = Ledger(log, float(str(given["defer"])), float(str(given["drop"])), int(str(given["seed"])))
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(ledger), "127.0.0.1", int(str(given["port"])))
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(json.loads(sys.argv[1])))
