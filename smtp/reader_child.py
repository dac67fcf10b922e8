"""A process that reads what strangers sent and can do nothing else: ``python -m smtp.reader_child MEMORY_MIB SECONDS``.

It takes a message on standard input, says what it found on standard output, and ends with its parent: nothing but
reading is done here, so a reader that is not ended by its limits comes back to an input that is closed.  A message
may take ``MEMORY_MIB`` beyond what the reader has when it begins, and ``SECONDS`` of its processor; it can start no
process, and open no file to write.
"""

import contextlib
import gc
import os
import resource
import signal
import sys
import time
from pathlib import Path

from smtp.findings import Finding
from smtp.reader_wire import LENGTH, MAX_MESSAGE_BYTES, framed, mistaken, written
from smtp.understand import understand

_OPEN_FILES = 16  # the standard streams, and modules of the standard library that are loaded when first needed
_WARM = (
    b"Content-Type: message/delivery-status\r\n\r\nFinal-Recipient: rfc822; a@b.example\r\nAction: failed\r\n",
    b"From: MAILER-DAEMON@b.example\r\nSubject: failure notice\r\n\r\nnothing that is known\r\n",
    b"From: a@b.example\r\nSubject: Out of office\r\n\r\nI am away\r\n",
    b"Content-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\n",
    b"From: a@b.example\r\nSubject: =?iso-2022-jp?q?hello?=\r\n\r\nnothing that is known\r\n",
)


def main() -> None:
    """Read messages until the parent has no more."""
    memory_mib, seconds = int(sys.argv[1]), int(sys.argv[2])
    inbox, outbox = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):  # whatever prints something must not end up in an answer, or in a log
        os.dup2(nothing, stream)
    os.close(nothing)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for message in _WARM:
        understand(message)
    gc.collect()
    gc.freeze()
    _confine(memory_mib)
    _send(outbox, b"")  # ready
    while (raw := _next(inbox)) is not None:
        _allow(seconds)
        _send(outbox, _read(raw))
        del raw


def _read(raw: bytes) -> bytes:
    began = time.process_time()
    findings: list[Finding] | None = None
    try:
        findings = understand(raw)
        return written(findings, cpu_s=time.process_time() - began, peak_kib=_peak_kib())
    except MemoryError:
        os._exit(os.EX_TEMPFAIL)  # nothing that is left can be trusted to be whole
    except Exception as failure:  # noqa: BLE001 - a mistake of ours on one message is no reason to end
        return mistaken(type(failure).__name__, cpu_s=time.process_time() - began, peak_kib=_peak_kib())


def _confine(memory_mib: int) -> None:
    """What holds for the whole life of the process."""
    for what, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_NPROC, 0),
    ):
        _limit(what, most)
    with contextlib.suppress(OSError):  # without /proc, the limit of the container is the only one
        pages, *_, data, _ = map(int, Path("/proc/self/statm").read_text(encoding="ascii").split())
        more = memory_mib * 1_048_576
        _limit(resource.RLIMIT_AS, pages * resource.getpagesize() + more)
        _limit(resource.RLIMIT_DATA, data * resource.getpagesize() + more)


def _allow(seconds: int) -> None:
    """Processor time for the next message; the hard limit stands where it is."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    most = int(used.ru_utime + used.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _limit(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (allowed, allowed))


def _peak_kib() -> int:
    """The most memory that this process has had; what getrusage says begins with the parent's on Linux."""
    try:
        status = Path("/proc/self/status").read_bytes()
        return int(status.partition(b"VmHWM:")[2].split(maxsplit=1)[0])
    except (OSError, ValueError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024  # not Linux: bytes


def _next(inbox: int) -> bytes | None:
    length = _exactly(inbox, LENGTH.size)
    if length is None:
        return None
    wanted = LENGTH.unpack(length)[0]
    return _exactly(inbox, wanted) if wanted <= MAX_MESSAGE_BYTES else None


def _exactly(inbox: int, wanted: int) -> bytes | None:
    pieces: list[bytes] = []
    while wanted:
        piece = os.read(inbox, min(wanted, 1_048_576))
        if not piece:
            return None
        pieces.append(piece)
        wanted -= len(piece)
    return b"".join(pieces)


def _send(outbox: int, payload: bytes) -> None:
    left = memoryview(framed(payload))
    while left:
        left = left[os.write(outbox, left) :]


if __name__ == "__main__":
    main()
