"""Readers in processes of their own: what strangers send is taken apart where it can break nothing else.

``ReaderPool`` keeps some processes of :mod:`smtp.reader_child` and hands each message to one that is free; who finds
none waits.  A reader that dies or takes too long is replaced, and the message that did it is a value with a reason,
like every other message: to whoever sent it, it must not look like a trouble that passes.
"""

import asyncio
import contextlib
import math
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

import structlog

from smtp.findings import Finding
from smtp.reader_wire import LENGTH, MAX_ANSWER_BYTES, MAX_MESSAGE_BYTES, Garbled, answer, framed

_log = structlog.get_logger()
READER = "smtp.reader_child"
_STARTS_WITHIN_S = 30.0
_ENDS_WITHIN_S = 1.0
_TRIES = 2  # the second one in a reader that is new: the first may have died of something else
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "SYSTEMROOT")

UnreadReason = Literal["reader_killed", "reader_too_slow", "reader_failed"]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A message that no reader got through; ``reason`` is for machines, ``explain`` for people."""

    reason: UnreadReason
    explain: str


@dataclass(frozen=True, slots=True)
class Read:
    """What became of one message, and what it took: seconds of a processor, and the reader's most memory so far."""

    outcome: list[Finding] | Unreadable
    cpu_s: float | None = None
    peak_kib: int | None = None


class ReaderPool:
    """Readers, started and ended by ``async with``.

    ``processes`` of them read at the same time.  One message may take ``memory_mib`` beyond what an idle reader has,
    and ``message_s`` of time.  ``observe`` is told what became of each message.
    """

    def __init__(
        self,
        *,
        processes: int = 2,
        memory_mib: int = 64,
        message_s: float = 5.0,
        observe: Callable[[Read], None] = lambda _: None,
    ) -> None:
        self._readers = [_Reader(memory_mib, message_s) for _ in range(processes)]
        self._free: asyncio.LifoQueue[_Reader] = asyncio.LifoQueue()
        self._observe = observe

    async def __aenter__(self) -> Self:
        try:
            await asyncio.gather(*(one.start() for one in self._readers))
        except BaseException:
            await self._end()
            raise
        for one in self._readers:
            self._free.put_nowait(one)
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self._end()

    async def understand(self, raw: bytes) -> list[Finding] | Unreadable:
        """Everything that the message says, or why no reader could tell.

        Raises :class:`OSError` when no reader can be started: that says nothing about the message.
        """
        return (await self.read(raw)).outcome

    async def read(self, raw: bytes) -> Read:
        """The same with what it took."""
        reader = await self._free.get()
        try:
            read = await reader.read(raw)
        finally:
            self._free.put_nowait(reader)
        self._observe(read)
        return read

    @property
    def pids(self) -> list[int]:
        """The processes that run now."""
        return [one.pid for one in self._readers if one.pid is not None]

    async def _end(self) -> None:
        await asyncio.gather(*(one.end() for one in self._readers))


class _Reader:
    """One process, started again when it is needed and gone."""

    def __init__(self, memory_mib: int, message_s: float) -> None:
        self._command = ("-m", READER, str(memory_mib), str(math.ceil(message_s)))
        self._memory_mib = memory_mib
        self._message_s = message_s
        self._process: asyncio.subprocess.Process | None = None
        self._is_doomed = False

    @property
    def pid(self) -> int | None:
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self) -> None:
        """Start the process, if it does not run; back when it is ready."""
        if self.pid is not None and not self._is_doomed:
            return
        await self.end()
        self._is_doomed = False
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=_environment(),
            start_new_session=True,  # an interrupt from the keyboard is for the parent
        )
        try:
            async with asyncio.timeout(_STARTS_WITHIN_S):
                await self._answer()
        except (TimeoutError, asyncio.IncompleteReadError, Garbled) as failure:
            code = await self.end(is_ending=True)
            raise OSError(f"a reader does not start (exit code {code})") from failure
        except BaseException:
            await self.end()
            raise

    async def read(self, raw: bytes) -> Read:
        loop = asyncio.get_running_loop()
        left_s = self._message_s  # for all tries together: the peer waits
        for _ in range(_TRIES):
            await self.start()
            began = loop.time()
            try:
                async with asyncio.timeout(left_s):
                    await self._say(raw[:MAX_MESSAGE_BYTES])
                    said, findings = answer(await self._answer())
            except TimeoutError:
                await self.end()
                return self._too_slow()
            except Garbled:
                code = await self.end()
            except (asyncio.IncompleteReadError, ConnectionError):
                code = await self.end(is_ending=True)
                if code == -signal.SIGXCPU:
                    return self._too_slow()
            except BaseException:  # the caller waits no longer: an answer that nobody takes would be the next one's
                await self.end()
                raise
            else:
                outcome: list[Finding] | Unreadable = findings
                if said.mistake:
                    outcome = Unreadable("reader_failed", f"reading it failed: {said.mistake}")
                return Read(outcome, cpu_s=said.cpu_s, peak_kib=said.peak_kib)
            left_s -= loop.time() - began
            _log.warning("reader ended over a message", exit_code=code)
        return Read(Unreadable("reader_killed", self._death(code)))

    async def end(self, *, is_ending: bool = False) -> int | None:
        """End the process, and wait until it is gone; its exit code, its own if it ``is_ending`` by itself."""
        process = self._process
        if process is None:
            return None
        self._is_doomed = True
        ended = asyncio.ensure_future(process.wait())
        if is_ending:
            await asyncio.wait({ended}, timeout=_ENDS_WITHIN_S)
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)  # Process.kill could take the exit code that asyncio waits for
        try:
            return await asyncio.shield(ended)
        finally:
            if process.stdin is not None:
                process.stdin.close()
            if process.returncode is not None and self._process is process:
                self._process = None

    def _too_slow(self) -> Read:
        return Read(Unreadable("reader_too_slow", f"reading it took longer than {self._message_s:g} s"))

    def _death(self, code: int | None) -> str:
        if code == os.EX_TEMPFAIL:
            return f"reading it took more than {self._memory_mib} MiB of memory"
        return f"reading it ended the reader, {_TRIES} times: exit code {code}"

    async def _say(self, raw: bytes) -> None:
        to_reader, _ = self._pipes()
        to_reader.write(framed(raw))
        await to_reader.drain()

    async def _answer(self) -> bytes:
        _, from_reader = self._pipes()
        length = LENGTH.unpack(await from_reader.readexactly(LENGTH.size))[0]
        if length > MAX_ANSWER_BYTES:
            raise Garbled(f"an answer of {length} bytes")
        return await from_reader.readexactly(length)

    def _pipes(self) -> tuple[asyncio.StreamWriter, asyncio.StreamReader]:
        match self._process:
            case asyncio.subprocess.Process(stdin=asyncio.StreamWriter() as out, stdout=asyncio.StreamReader() as back):
                return out, back
            case _:
                raise ConnectionError("the reader is gone")


def _environment() -> dict[str, str]:
    """What a reader must know; nothing of what the operator told us."""
    return {name: value for name, value in os.environ.items() if name in _PASSED_ON or name.startswith("PYTHON")}
