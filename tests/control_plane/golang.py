"""What building from Go modules needs: a Go that is new enough, and a folder in which one process builds at a time."""

import contextlib
import fcntl
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

Say = Callable[[str], None]
_ASKED_WITHIN_S = 60.0


class Unavailable(Exception):  # noqa: N818 - says what is so
    """Something cannot be built here; the message says what is missing and what brings it."""


def go_for(sources: Path, what: str) -> str:
    """The path of a Go that is as new as the sources' go.mod wants it; ``what`` is what it is wanted for."""
    go = shutil.which("go")
    needed = re.search(r"^go (\d+)\.(\d+)", (sources / "go.mod").read_text(), re.MULTILINE)
    assert needed is not None, "go.mod names a version"
    wanted = f"Go {needed[1]}.{needed[2]} or newer"
    if go is None:
        raise Unavailable(f"{what} is built from source: install {wanted} and put go on PATH")
    version = asked(go, "env", "GOVERSION")
    found = re.match(r"go(\d+)\.(\d+)", version)
    if found and (int(found[1]), int(found[2])) < (int(needed[1]), int(needed[2])):
        raise Unavailable(f"{go} is {version}; {what} needs {wanted}")
    return go


def asked(*command: str) -> str:
    """What a short command answers."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_ASKED_WITHIN_S)
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"{' '.join(command)} failed: {error}") from error
    return done.stdout.strip()


@contextlib.contextmanager
def only_one(home: Path) -> Iterator[None]:
    """Wait until no other process builds in this folder, which is made."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "building.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
