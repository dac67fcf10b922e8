"""What a provider has still to send to the return path: kept on disk before the mail it belongs to is answered, tried
until it is taken, found again after a kill.  A trap hit that got lost would make the whole simulation worthless.
"""

import asyncio
import contextlib
import heapq
import os
import time
from pathlib import Path

import aiosmtplib
import msgspec
import structlog

from policy.settings import Endpoint
from smtp.simulate.reports import ReportKind

_log = structlog.get_logger()
_TIMEOUT_S = 30.0
_FIRST_WAIT_MS = 500
_LONGEST_WAIT_MS = 30_000
_WORKERS = 4


class Parcel(msgspec.Struct, frozen=True, kw_only=True):
    """One mail to the return path; ``due`` in milliseconds since the epoch."""

    id: str
    kind: ReportKind
    due: int
    mail_from: str
    rcpt: str
    raw: bytes


class _Done(msgspec.Struct, frozen=True, kw_only=True):
    done: str
    code: int


class Outbox:
    """The queue of one provider, in ``<folder>/<provider>.outbox``."""

    def __init__(self, folder: Path, provider: str, target: Endpoint, *, hostname: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.refused = 0
        self._file = folder / f"{provider}.outbox"
        self._target = target
        self._hostname = hostname
        waiting = _unfinished(self._file)
        _rewrite(self._file, waiting)
        self._descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND)
        self._kept: dict[str, Parcel] = {one.id: one for one in waiting}
        self._heap: list[tuple[int, int, Parcel, int]] = []
        self._numbers = 0
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._is_stopping = False
        for parcel in waiting:
            self._push(parcel.due, parcel, 0)

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def waiting(self) -> list[Parcel]:
        """What has still to be sent."""
        return list(self._kept.values())

    def add(self, parcel: Parcel) -> None:
        """Keep a mail; it is with the operating system when this returns (OSError when it could not be)."""
        self._write(parcel)
        self._kept[parcel.id] = parcel
        self._push(parcel.due, parcel, 0)

    def start(self) -> None:
        """Begin to send."""
        self._tasks = [asyncio.create_task(self._work(), name=f"outbox {self._file.stem}") for _ in range(_WORKERS)]

    async def stop(self) -> None:
        """Stop sending; what waits stays in the file for the next start."""
        self._is_stopping = True  # a cancellation alone can get lost in a client that is just connecting
        self._changed.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        os.close(self._descriptor)

    def _push(self, due: int, parcel: Parcel, attempt: int) -> None:
        self._numbers += 1
        heapq.heappush(self._heap, (due, self._numbers, parcel, attempt))
        self._changed.set()

    async def _next(self) -> tuple[Parcel, int] | None:
        while not self._is_stopping:
            left_s = (self._heap[0][0] - _now_ms()) / 1000 if self._heap else None
            if left_s is not None and left_s <= 0:
                _due, _number, parcel, attempt = heapq.heappop(self._heap)
                return parcel, attempt
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._changed.wait()
        return None

    async def _work(self) -> None:
        client: aiosmtplib.SMTP | None = None
        try:
            while (found := await self._next()) is not None:
                parcel, attempt = found
                try:
                    client = client if client is not None and client.is_connected else await self._connected()
                    await client.sendmail(parcel.mail_from, [parcel.rcpt], parcel.raw)
                except (aiosmtplib.SMTPException, OSError, ValueError) as failure:
                    if client is not None:
                        client.close()  # a fresh connection for the next one: this one may have had its fill
                    code = _code(failure)
                    if 500 <= code < 600:
                        self.refused += 1
                        _log.warning("report refused by the return path", kind=parcel.kind, code=code)
                        self._finish(parcel, code)
                    else:
                        wait_ms = min(_FIRST_WAIT_MS * 2 ** min(attempt, 10), _LONGEST_WAIT_MS)
                        self._push(_now_ms() + wait_ms, parcel, attempt + 1)
                else:
                    self._finish(parcel, 250)
        finally:
            if client is not None:
                client.close()

    async def _connected(self) -> aiosmtplib.SMTP:
        client = aiosmtplib.SMTP(
            hostname=self._target.host,
            port=self._target.port,
            timeout=_TIMEOUT_S,
            start_tls=False,
            local_hostname=self._hostname,
        )
        await client.connect()
        return client

    def _finish(self, parcel: Parcel, code: int) -> None:
        self._kept.pop(parcel.id, None)
        with contextlib.suppress(OSError):  # then it is sent once more after a restart, which readers bear
            self._write(_Done(done=parcel.id, code=code))

    def _write(self, line: Parcel | _Done) -> None:
        data = msgspec.json.encode(line) + b"\n"
        if os.write(self._descriptor, data) != len(data):
            raise OSError(f"{self._file}: a line was cut off, the disk may be full")


def _unfinished(file: Path) -> list[Parcel]:
    """What an earlier run has kept and not sent; a line that was cut off by a kill is passed over."""
    if not file.exists():
        return []
    kept: dict[str, Parcel] = {}
    content = file.read_bytes()
    for line in content[: content.rfind(b"\n") + 1].splitlines():
        try:
            done = msgspec.json.decode(line, type=_Done)
            kept.pop(done.done, None)
        except msgspec.ValidationError:
            parcel = msgspec.json.decode(line, type=Parcel)
            kept[parcel.id] = parcel
    return list(kept.values())


def _rewrite(file: Path, parcels: list[Parcel]) -> None:
    fresh = file.with_suffix(".outbox.new")
    fresh.write_bytes(msgspec.json.Encoder().encode_lines(parcels))
    fresh.replace(file)


def _code(failure: Exception) -> int:
    """The reply code behind a failure, 0 when there was none."""
    match failure:
        case aiosmtplib.SMTPRecipientsRefused():
            return max((one.code for one in failure.recipients), default=0)
        case aiosmtplib.SMTPResponseException():
            return failure.code
        case aiosmtplib.SMTPNotSupported() | ValueError():
            return 550
        case _:
            return 0


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
