"""Definitions of other projects' kinds: made once, whole or not at all, with words that help when they cannot be."""

import re
from pathlib import Path

import pytest

from tests.control_plane import definitions
from tests.control_plane.golang import Unavailable

GO = """#!/bin/sh
echo "$@" >> {calls}
case "$1" in
env) echo go1.26.8;;
list) for one in {keda} {cilium}; do echo $one={modules}; done;;
build) while [ "$1" != -o ]; do shift; done; cp {generator} "$2";;
esac
"""
GENERATOR = """#!/bin/sh
for one in "$@"; do
    case "$one" in output:crd:dir=*) echo generated > "${one#output:crd:dir=}/FILE";; esac
done
"""


class Go:
    """A Go whose modules have the files that are wanted, and which builds a generator that writes one file."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls, self.modules, self.generator = folder / "calls", folder / "modules", folder / "generator"
        for _, file in definitions.PUBLISHED:
            one = self.modules / file
            one.parent.mkdir(parents=True, exist_ok=True)
            one.write_text("published")
        told = {name: getattr(self, name) for name in ("calls", "modules", "generator")}
        executable(folder / "go", GO.format(keda=definitions.KEDA, cilium=definitions.CILIUM, **told))
        self.writes(definitions.GENERATED)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def writes(self, name: str) -> None:
        executable(self.generator, GENERATOR.replace("FILE", name))

    @property
    def builds(self) -> int:
        return sum(line.startswith("build ") for line in self.calls.read_text().splitlines())


def executable(file: Path, text: str) -> None:
    file.write_text(text)
    file.chmod(0o755)


def silent(_line: str) -> None:
    pass


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Go:
    return Go(tmp_path, monkeypatch)


def test_they_are_made_once_out_of_what_is_published_and_what_is_generated(go: Go, tmp_path: Path) -> None:
    made = {definitions.from_go(cache=tmp_path / "cache", say=silent) for _ in range(3)}

    [folder] = made
    wanted = {Path(file).name: "published" for _, file in definitions.PUBLISHED}
    found = {file.name: file.read_text().strip() for file in folder.iterdir()}
    assert found == wanted | {definitions.GENERATED: "generated"}
    assert go.builds == 1


def test_a_definition_that_is_missing_leaves_nothing_that_counts(go: Go, tmp_path: Path) -> None:
    go.writes("renamed.yaml")
    with pytest.raises(Unavailable, match=definitions.GENERATED):
        definitions.from_go(cache=tmp_path / "cache", say=silent)

    go.writes(definitions.GENERATED)
    assert definitions.from_go(cache=tmp_path / "cache", say=silent).is_dir()


def test_a_step_that_fails_says_why(go: Go, tmp_path: Path) -> None:
    executable(go.generator, "#!/bin/sh\necho no such package >&2\nexit 1\n")

    with pytest.raises(Unavailable, match="no such package"):
        definitions.from_go(cache=tmp_path / "cache", say=silent)


def test_without_a_java_that_is_new_enough_strimzis_are_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executable(tmp_path / "java", "#!/bin/sh\necho 'openjdk version \"17.0.15\"' >&2\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr(definitions, "JAVAS", tmp_path / "none")

    with pytest.raises(Unavailable, match="needs Java 21 or newer"):
        definitions.from_strimzi(cache=tmp_path / "cache", say=silent)


def test_the_guide_names_the_versions() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "guide" / "kubernetes.md").read_text(encoding="utf-8")
    modules = (definitions.SOURCES / "go.mod").read_text(encoding="utf-8")

    def version(path: str) -> str:
        return re.findall(rf"{path} v(\S+)", modules)[0]

    assert f"Strimzi {definitions.STRIMZI_VERSION} " in guide
    assert f"KEDA {version('kedacore/keda/v2')} " in guide
    assert f"Cilium {version('cilium/cilium')} " in guide
    assert f"operator {version('pkg/apis/monitoring')} " in guide
