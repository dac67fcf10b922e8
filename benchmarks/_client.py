"""Our SMTP client alone, as it is: pools, deadlines, pipelining, replies read and kept.

Used by ``sender.py`` as ``python -m benchmarks._client``.  Each line on standard input is a JSON object with
``port``, ``messages``, ``size`` (octets of a message), ``connections``; each answer is one with ``accepted``,
``cpu_s`` and ``wall_s``.  The messages are ready before the clock runs, the connections are opened while it runs.
"""

import asyncio
import json
import resource
import sys
import time
from typing import TypedDict

import uvloop

from policy.settings import Endpoint
from smtp.attempts import Envelope, Reply
from smtp.client import Bounds, SmtpMailer
from smtp.mx import NextHops
from smtp.opener import Opener

_LINE = b"Everything for the garden is 20 % off until Sunday, in all shops.\r\n"
_KINDS = 100  # different messages; more would only take memory
_PIPELINED = 2  # messages in process per connection


class Order(TypedDict):
    """One turn."""

    port: int
    messages: int
    size: int
    connections: int


def message(number: int, size: int) -> Envelope:
    """A message of about ``size`` octets."""
    head = b"From: news@shop.example\r\nTo: ann%d@rcpt.example\r\nSubject: spring is here\r\n\r\n" % number
    return Envelope.checked(
        sender=f"b+{number}@bounces.shop.example",
        recipient=f"ann{number}@rcpt.example",
        data=head + _LINE * max(1, (size - len(head)) // len(_LINE)),
    )


async def turn(order: Order) -> dict[str, float]:
    """Send, and answer what it cost."""
    envelopes = [message(number, order["size"]) for number in range(_KINDS)]
    left = iter(range(order["messages"]))
    accepted = 0
    cpu_before, began = _cpu_s(), time.monotonic()
    mailer = SmtpMailer(
        NextHops({"*": Endpoint("127.0.0.1", order["port"])}),
        Opener(hostname="mta.shop.example"),
        bounds=Bounds(sessions=order["connections"], messages=1_000_000),
    )

    async def work() -> None:
        nonlocal accepted
        for number in left:
            attempt = await mailer.send(envelopes[number % _KINDS], go=lambda: True)
            if not (isinstance(attempt, Reply) and attempt.accepted):
                raise RuntimeError(f"a message was not accepted: {attempt}")
            accepted += 1

    async with asyncio.TaskGroup() as working:
        for _ in range(order["connections"] * _PIPELINED):
            working.create_task(work())
    await mailer.close()
    return {"accepted": accepted, "cpu_s": _cpu_s() - cpu_before, "wall_s": time.monotonic() - began}


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Take orders until the input ends."""
    for line in sys.stdin:
        print(json.dumps(uvloop.run(turn(json.loads(line)))), flush=True)


if __name__ == "__main__":
    main()
