"""Building the control plane's one binary from Go modules, once per machine: ``python -m tests.control_plane.build``.

The result lies in the cache folder under a name made of the sources and the Go version: nothing changed means nothing
to do, and two checkouts share it.  Only the standard library is used, so that it can run before there is a virtual
environment.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cli.kafka import LAUNCHER, default_cache

SOURCES = Path(__file__).parent / "go"
PROGRAM = "control-plane"
_ASKED_WITHIN_S = 60.0
_TELL_EVERY_S = 15.0
_WORDS_OF_A_FAILURE = 40

Say = Callable[[str], None]


class Unavailable(Exception):  # noqa: N818 - says what is so
    """The control plane cannot be built here; the message says what is missing and what brings it."""


def kubernetes_version() -> str:
    """The version of Kubernetes that is built, as 1.37.2."""
    found = re.search(r"^\s*(?:require )?k8s\.io/kubernetes v(\S+)", (SOURCES / "go.mod").read_text(), re.MULTILINE)
    assert found is not None, "go.mod asks for Kubernetes"
    return found[1]


def binary(*, cache: Path | None = None, say: Say = print) -> Path:
    """The built binary, with ``kubectl`` beside it; built on first use (7 minutes on 2 cores, 3 GiB)."""
    go = _go()
    home = (cache or default_cache()) / "control-plane" / f"{kubernetes_version()}-{_digest(go)}"
    program = home / PROGRAM
    if not program.is_file():
        home.mkdir(parents=True, exist_ok=True)
        with (home / "building.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not program.is_file():  # else another process has built it while we waited
                _build(go, program, say)
    return program


def _go() -> str:
    go = shutil.which("go")
    needed = re.search(r"^go (\d+)\.(\d+)", (SOURCES / "go.mod").read_text(), re.MULTILINE)
    assert needed is not None, "go.mod names a version"
    wanted = f"Go {needed[1]}.{needed[2]} or newer"
    if go is None:
        raise Unavailable(f"a real Kubernetes control plane is built from source: install {wanted} and put go on PATH")
    version = _asked(go, "env", "GOVERSION")
    found = re.match(r"go(\d+)\.(\d+)", version)
    if found and (int(found[1]), int(found[2])) < (int(needed[1]), int(needed[2])):
        raise Unavailable(f"{go} is {version}; Kubernetes {kubernetes_version()} needs {wanted}")
    return go


def _digest(go: str) -> str:
    """A name for what the binary is made from."""
    digest = hashlib.sha256(_asked(go, "env", "GOVERSION", "GOOS", "GOARCH").encode())
    for source in sorted(SOURCES.iterdir()):
        digest.update(f"\0{source.name}\0".encode() + source.read_bytes())
    digest.update("\0".join(_flags()).encode())
    return digest.hexdigest()[:12]


def _flags() -> list[str]:
    """Without symbols and debug information, which takes a third of the time; with the version that the API reports."""
    version = kubernetes_version()
    major, minor = version.split(".")[:2]
    said = {"gitVersion": f"v{version}", "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    variables = " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in said.items())
    return [
        "-mod=readonly", "-buildvcs=false", "-trimpath", "-gcflags=all=-dwarf=false", f"-ldflags=-s -w {variables}",
    ]  # fmt: skip


def _build(go: str, program: Path, say: Say) -> None:
    say(f"building Kubernetes {kubernetes_version()} into {program.parent} (once: 7 minutes on 2 cores, less on more)")
    began = time.monotonic()
    for cut_short in program.parent.glob("building-*"):
        shutil.rmtree(cut_short)
    with tempfile.TemporaryDirectory(prefix="building-", dir=program.parent) as folder:
        made = Path(folder) / PROGRAM
        command = [go, "build", "-v", *_flags(), "-o", str(made), "."]
        words = _followed(command, Path(folder) / "said", say)
        if not made.is_file():
            raise Unavailable("go build failed:\n" + "\n".join(words[-_WORDS_OF_A_FAILURE:]))
        kubectl = program.parent / "kubectl"
        kubectl.unlink(missing_ok=True)
        kubectl.symlink_to(PROGRAM)
        made.rename(program)
    say(f"built in {time.monotonic() - began:.0f} s")


def _followed(command: list[str], output: Path, say: Say) -> list[str]:
    """Run a build, tell now and then how far it is, and answer what it said."""
    environment = os.environ | {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}
    environment.setdefault("GOGC", "300")  # more memory, a fifth less time
    with output.open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", LAUNCHER, str(os.getpid()), *command],
            stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd=SOURCES, env=environment,
        )  # fmt: skip
        began = time.monotonic()
        try:
            while True:
                try:
                    process.wait(_TELL_EVERY_S)
                    break
                except subprocess.TimeoutExpired:
                    lines = output.read_text(errors="replace").splitlines()
                    compiled = sum(not line.startswith("go: ") for line in lines)
                    say(f"  {time.monotonic() - began:4.0f} s: {compiled} of about 2,700 packages compiled")
        finally:
            process.kill()
            process.wait()
    return output.read_text(errors="replace").splitlines()


def _asked(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_ASKED_WITHIN_S)
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"{' '.join(command)} failed: {error}") from error
    return done.stdout.strip()


def main() -> int:
    """Build if needed and print where the binary is; 3: it cannot be built here."""
    try:
        print(binary(say=lambda line: print(line, file=sys.stderr, flush=True)))
    except Unavailable as why:
        print(why, file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
