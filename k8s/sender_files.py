"""What is remembered of local senders: one state file each, written whole or not at all, and a lock beside it.

``NAME.json`` says what is wanted, since which epoch, and which processes were started; ``NAME.lock`` is held by
whoever reads and changes it; ``NAME.0.run`` is held by the running process itself (see ``k8s.children``);
``NAME.0.log`` is what it says.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from k8s.cluster import Permanent, Temporary

LOG_BYTES = 10_000_000
LOCK_WITHIN_S = 5.0
_LOCK_PAUSE_S = 0.01


class Child(msgspec.Struct, frozen=True, kw_only=True):
    """One replica: its process, or when the next one may start.

    ``started`` is the kernel's mark of the process with that id; ``at`` when we started it.  ``failures`` counts
    the ends since it last ran for a minute.  ``kill_at`` is set once it was asked to end.
    """

    ordinal: int
    pid: int = 0
    started: int = 0
    at: int = 0
    shape: str = ""
    failures: int = 0
    not_before: int = 0
    kill_at: int | None = None


class Remembered(msgspec.Struct, frozen=True, kw_only=True, tag_field="v", tag=1):
    """A sender's state file: the spec, the fence, what is wanted and what was started.  Times in ms."""

    campaign: str
    name: str
    replicas: int
    grace_s: int
    tenant: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    epoch: int
    state: str
    reason: str
    at: int
    wanted: int
    may_run: bool
    shape: str = ""
    children: tuple[Child, ...] = ()


class SenderFiles:
    """The folder of the state files."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder = folder.resolve()

    def names(self) -> list[str]:
        """The senders that are remembered."""
        return sorted(file.stem for file in self.folder.glob("*.json"))

    @contextlib.contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Be the only one that looks at this sender or changes it, on this machine."""
        deadline = time.monotonic() + LOCK_WITHIN_S
        try:
            descriptor = os.open(self.folder / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as failed:
            raise Temporary(f"{name}: its lock cannot be opened: {failed}") from failed
        try:
            while True:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                if time.monotonic() > deadline:
                    raise Temporary(f"{name}: another controller holds its lock")
                time.sleep(_LOCK_PAUSE_S)
            try:
                yield
            finally:
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        finally:
            os.close(descriptor)

    def load(self, name: str) -> Remembered | None:
        """What is remembered; a file that cannot be read is an error, since the fence stands in it."""
        file = self.folder / f"{name}.json"
        try:
            return msgspec.json.decode(file.read_bytes(), type=Remembered)
        except FileNotFoundError:
            return None
        except OSError as failed:
            raise Temporary(f"{file} cannot be read: {failed}") from failed
        except msgspec.MsgspecError as broken:
            raise Permanent(
                f"{file} cannot be read ({broken}); it holds the newest epoch of this sender, so nothing is started. "
                "When you know that no process of it runs, remove the file"
            ) from broken

    def save(self, remembered: Remembered) -> None:
        """Write the file whole: after a crash it is the old one or the new one."""
        file = self.folder / f"{remembered.name}.json"
        temporary = file.with_suffix(f".{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as out:
                out.write(msgspec.json.encode(remembered))
                out.flush()
                os.fsync(out.fileno())
            temporary.replace(file)
            self._sync_folder()
        except OSError as failed:
            raise Temporary(f"{file} cannot be written: {failed}") from failed

    def run_file(self, name: str, ordinal: int) -> Path:
        """What a running process holds."""
        return self.folder / f"{name}.{ordinal}.run"

    def run_files(self) -> list[tuple[str, Path]]:
        """Every run file with its sender's name."""
        return [(file.name.removesuffix(".run").rpartition(".")[0], file) for file in self.folder.glob("*.run")]

    def log(self, name: str, ordinal: int) -> Path:
        """Where a replica's output goes; what is too long is set aside once, so that two files are kept."""
        file = self.folder / f"{name}.{ordinal}.log"
        with contextlib.suppress(FileNotFoundError):
            if file.stat().st_size > LOG_BYTES:
                file.replace(file.with_suffix(".log.1"))
        return file

    def _sync_folder(self) -> None:
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
