"""Building the control plane's one binary from Go modules, once per machine: ``python -m tests.control_plane.build``.

The result lies in the cache folder under a name made of the sources and the Go version: nothing changed means nothing
to do, and two checkouts share it.  Only the standard library is used, so that it can run before there is a virtual
environment.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cli.kafka import LAUNCHER, default_cache
from tests.control_plane import definitions
from tests.control_plane.golang import Say, Unavailable, asked, go_for, only_one

SOURCES = Path(__file__).parent / "go"
PROGRAM = "control-plane"
_TELL_EVERY_S = 15.0
_WORDS_OF_A_FAILURE = 40


def kubernetes_version() -> str:
    """The version of Kubernetes that is built, as 1.37.2."""
    found = re.search(r"^\s*(?:require )?k8s\.io/kubernetes v(\S+)", (SOURCES / "go.mod").read_text(), re.MULTILINE)
    assert found is not None, "go.mod asks for Kubernetes"
    return found[1]


def binary(*, cache: Path | None = None, say: Say = print) -> Path:
    """The built binary, with ``kubectl`` beside it; built on first use (7 minutes on 2 cores, 3 GiB)."""
    go = go_for(SOURCES, f"a control plane of Kubernetes {kubernetes_version()}")
    home = (cache or default_cache()) / "control-plane" / f"{kubernetes_version()}-{_digest(go)}"
    program = home / PROGRAM
    if not program.is_file():
        with only_one(home):
            if not program.is_file():  # else another process has built it while we waited
                _build(go, program, say)
    return program


def _digest(go: str) -> str:
    """A name for what the binary is made from."""
    digest = hashlib.sha256(asked(go, "env", "GOVERSION", "GOOS", "GOARCH").encode())
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


def main() -> int:
    """Build what is missing and print where the binary is; 3: it cannot be built here.

    The definitions of other projects' kinds are made as well; where they cannot be, the tests that need them tell.
    """

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    try:
        print(binary(say=say))
    except Unavailable as why:
        say(str(why))
        return 3
    for make in (definitions.from_go, definitions.from_strimzi):
        try:
            make(say=say)
        except Unavailable as why:
            say(str(why))
    return 0


if __name__ == "__main__":
    sys.exit(main())
