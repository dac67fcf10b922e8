"""One program of the control plane as a child process: it has a log of its own and never outlives who started it."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cli.kafka import LAUNCHER

_LAST_WORDS = 25
_LOOK_EVERY_S = 0.05


class NotReady(Exception):  # noqa: N818 - says what is so
    """A program did not come up; the message has the end of its log."""


class Program:
    """A command that can be started, stopped, frozen and started again; its log is appended to."""

    def __init__(
        self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name, self.log = name, log
        self._command, self._environment = list(command), environment
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper: threading.Thread | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> None:
        """Start it from a thread that waits for its end: the death signal is about the thread that started it."""
        assert self.pid is None, f"{self.name} runs already"
        started = threading.Event()
        trouble: list[OSError] = []

        def keep() -> None:
            try:
                with self.log.open("ab") as log:
                    self._process = subprocess.Popen(
                        [sys.executable, "-I", "-S", "-c", LAUNCHER, str(os.getpid()), *self._command],
                        stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment,
                        start_new_session=True,  # a Ctrl-C in the terminal is for the tests
                    )  # fmt: skip
            except OSError as error:
                trouble.append(error)
                return
            finally:
                started.set()
            self._process.wait()

        self._keeper = threading.Thread(target=keep, name=self.name, daemon=True)
        self._keeper.start()
        started.wait()
        if trouble:
            raise NotReady(f"{self.name} cannot be started: {trouble[0]}") from trouble[0]

    def wait_until(self, ready: Callable[[], bool], *, within_s: float) -> None:
        """Wait for a condition; raise with the log's last words when it does not come or the program ends."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline and self.pid is not None:
            if ready():
                return
            time.sleep(_LOOK_EVERY_S)
        how = "did not become ready" if self.pid is not None else "has ended"
        raise NotReady(f"{self.name} {how}; the end of {self.log}:\n{self.last_words()}")

    def send(self, which: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if self._process is not None and self.pid is not None:
            self._process.send_signal(which)

    def stop(self, how: signal.Signals = signal.SIGTERM, *, within_s: float = 10.0) -> None:
        """End it: as told, and after a while by SIGKILL; does nothing if it does not run."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(how)
            process.send_signal(signal.SIGCONT)  # a frozen program hears nothing but SIGKILL
        try:
            process.wait(within_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._keeper is not None:
            self._keeper.join()

    def last_words(self) -> str:
        """The end of the log."""
        if not self.log.is_file():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-_LAST_WORDS:])
