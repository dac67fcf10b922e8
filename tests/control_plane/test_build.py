"""Building the control plane: once, again when something changed, and with words that help when it cannot be."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.control_plane import build

GO = """#!/bin/sh
echo "$@" >> {calls}
case "$1" in
env) echo {version};;
build) {does};;
esac
"""
MAKES = 'while [ "$1" != -o ]; do shift; done; echo made > "$2"'
FAILS = "echo ./etcd.go:1:2: something is wrong; exit 1"


class Go:
    """A Go that remembers what it was asked and builds at once."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.program, self.calls = folder / "go", folder / "calls"
        self.sources = folder / "sources"
        shutil.copytree(build.SOURCES, self.sources)
        monkeypatch.setattr(build, "SOURCES", self.sources)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
        self.becomes()

    def becomes(self, *, version: str = "go1.26.8", does: str = MAKES) -> None:
        self.program.write_text(GO.format(calls=self.calls, version=version, does=does))
        self.program.chmod(0o755)

    @property
    def builds(self) -> int:
        return sum(line.startswith("build ") for line in self.calls.read_text().splitlines())


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Go:
    return Go(tmp_path, monkeypatch)


def test_it_is_built_once(go: Go, tmp_path: Path) -> None:
    said: list[str] = []

    programs = {build.binary(cache=tmp_path / "cache", say=said.append) for _ in range(3)}

    assert go.builds == 1
    assert [program.read_text() for program in programs] == ["made\n"]
    assert [program.with_name("kubectl").read_text() for program in programs] == ["made\n"]
    assert said[0].startswith(f"building Kubernetes {build.kubernetes_version()}")


def test_it_is_built_again_when_a_source_or_go_has_changed(go: Go, tmp_path: Path) -> None:
    def built() -> Path:
        return build.binary(cache=tmp_path / "cache", say=lambda _: None)

    first = built()
    (go.sources / "etcd.go").write_text("package main\n")
    second = built()
    go.becomes(version="go1.27.0")
    third = built()

    assert len({first, second, third}) == go.builds == 3


def test_a_failure_is_shown_and_tried_again(go: Go, tmp_path: Path) -> None:
    go.becomes(does=FAILS)
    with pytest.raises(build.Unavailable, match="something is wrong"):
        build.binary(cache=tmp_path / "cache", say=lambda _: None)

    go.becomes()
    assert build.binary(cache=tmp_path / "cache", say=lambda _: None).is_file()


def test_an_old_go_is_named_with_what_is_needed(go: Go, tmp_path: Path) -> None:
    go.becomes(version="go1.19.8")

    with pytest.raises(build.Unavailable, match=r"is go1\.19\.8; a control plane .* needs Go 1\.26 or newer"):
        build.binary(cache=tmp_path / "cache", say=lambda _: None)


def test_without_go_the_command_says_what_to_install(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.control_plane.build"],
        cwd=Path(__file__).parents[2],
        env={"PATH": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert (done.returncode, done.stdout) == (3, "")
    assert "install Go 1.26 or newer" in done.stderr
