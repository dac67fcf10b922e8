"""What other projects say that their kinds are: the CRDs of KEDA, Cilium, the Prometheus operator and Strimzi.

They come out of what those projects publish, on first use, into the cache folder: KEDA's and Cilium's are files of
their Go modules; the Prometheus operator publishes its API as a module of types, which controller-gen turns into
definitions, and Strimzi a generator in Java.  Only the standard library is used, as in
:mod:`tests.control_plane.build`.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from cli.kafka import KafkaUnavailable, default_cache, fetched, java_release
from tests.control_plane.golang import Say, Unavailable, asked, go_for, only_one

SOURCES = Path(__file__).parent / "crds"
KEDA = "github.com/kedacore/keda/v2/version"  # a package names its module, in which the files are
CILIUM = "github.com/cilium/cilium/pkg/k8s/apis/cilium.io/client/crds/v2"
PUBLISHED = (
    (KEDA, "config/crd/bases/keda.sh_scaledobjects.yaml"),
    (KEDA, "config/crd/bases/keda.sh_triggerauthentications.yaml"),
    (KEDA, "schema/generated/scalers-schema.json"),
    (CILIUM, "pkg/k8s/apis/cilium.io/client/crds/v2/ciliumegressgatewaypolicies.yaml"),
)
GENERATOR = "sigs.k8s.io/controller-tools/cmd/controller-gen"
PROMETHEUS = "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
GENERATED = "monitoring.coreos.com_podmonitors.yaml"

STRIMZI_VERSION = "1.2.0"
STRIMZI_JAVA = 21
STRIMZI = {
    "kafka.yaml": "io.strimzi.api.kafka.model.kafka.Kafka",
    "kafkanodepool.yaml": "io.strimzi.api.kafka.model.nodepool.KafkaNodePool",
    "kafkauser.yaml": "io.strimzi.api.kafka.model.user.KafkaUser",
}
POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>mailcordon</groupId><artifactId>strimzi-definitions</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>io.strimzi</groupId><artifactId>api</artifactId><version>{STRIMZI_VERSION}</version></dependency>
    <dependency>
      <groupId>io.strimzi</groupId><artifactId>crd-generator</artifactId><version>{STRIMZI_VERSION}</version>
    </dependency>
  </dependencies>
</project>
"""

JAVAS = Path("/usr/lib/jvm")
"""Where Debian and Fedora have every Java that is installed, also those that are not the one of PATH."""

_WITHIN_S = 900.0
_WORDS_OF_A_FAILURE = 40


def from_go(*, cache: Path | None = None, say: Say = print) -> Path:
    """The folder with the definitions of KEDA, Cilium and the Prometheus operator; made on first use (a minute)."""
    go = go_for(SOURCES, "the generator of the Prometheus operator's definitions")
    home = (cache or default_cache()) / "definitions"
    made = home / f"go-{_digest(asked(go, 'env', 'GOVERSION'), repr(PUBLISHED), PROMETHEUS, sources=SOURCES)}"
    if not made.is_dir():
        with only_one(home):
            if not made.is_dir():  # else another process has made it while we waited
                _make_go(go, made, say)
    return made


def from_strimzi(*, cache: Path | None = None, say: Say = print) -> Path:
    """The folder with the definitions of Strimzi; made on first use (39 MB are fetched)."""
    home = (cache or default_cache()) / "definitions"
    made = home / f"strimzi-{_digest(POM, repr(STRIMZI))}"
    if not made.is_dir():
        with only_one(home):
            if not made.is_dir():
                _make_strimzi(made, say)
    return made


def _digest(*told: str, sources: Path | None = None) -> str:
    """A name for what definitions are made from."""
    digest = hashlib.sha256("\0".join(told).encode())
    for source in sorted(sources.iterdir()) if sources else ():
        digest.update(f"\0{source.name}\0".encode() + source.read_bytes())
    return digest.hexdigest()[:12]


def _make_go(go: str, made: Path, say: Say) -> None:
    say(f"making the definitions of other projects' kinds into {made} (once: a minute on 2 cores)")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="making-", dir=made.parent) as folder:
        modules = _run([go, "list", "-mod=readonly", "-find", "-f", "{{.ImportPath}}={{.Module.Dir}}", KEDA, CILIUM])
        roots = dict(line.split("=", 1) for line in modules.splitlines() if "=" in line)
        for package, file in PUBLISHED:
            shutil.copyfile(Path(roots[package], file), Path(folder, Path(file).name))
        generator = Path(folder, "controller-gen")
        # Flags as in build.py: what both compile is compiled once.
        flags = ["-mod=readonly", "-buildvcs=false", "-trimpath", "-gcflags=all=-dwarf=false", "-ldflags=-s -w"]
        _run([go, "build", *flags, "-o", str(generator), GENERATOR])
        _run([str(generator), "crd", f"paths={PROMETHEUS}", f"output:crd:dir={folder}"])
        _keep(Path(folder), [*(Path(file).name for _, file in PUBLISHED), GENERATED], made)
    say(f"made in {time.monotonic() - began:.0f} s")


def _make_strimzi(made: Path, say: Say) -> None:
    java = _java()
    if java is None:
        raise Unavailable(f"Strimzi's definitions are generated by a program that needs Java {STRIMZI_JAVA} or newer")
    what = f"Strimzi's API {STRIMZI_VERSION} and the generator of its definitions (39 MB, once)"
    try:
        jars = fetched(made.parent / f"{made.name}-generator", POM, f"crd-generator-{STRIMZI_VERSION}.jar", what, say)
    except KafkaUnavailable as why:
        raise Unavailable(str(why)) from why
    with tempfile.TemporaryDirectory(prefix="making-", dir=made.parent) as folder:
        told = [f"{name}={Path(folder, file)}" for file, name in STRIMZI.items()]
        _run([str(java), "-cp", f"{jars}/*", "io.strimzi.crdgenerator.CrdGenerator", "--yaml", *told])
        _keep(Path(folder), [*STRIMZI], made)


def _run(command: Sequence[str]) -> str:
    """Run one of the steps beside go.mod and answer what it printed."""
    environment = os.environ | {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}
    environment.setdefault("GOGC", "300")
    try:
        done = subprocess.run(
            command, cwd=SOURCES, env=environment, capture_output=True, text=True, check=False, timeout=_WITHIN_S
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"{command[0]} failed: {error}") from error
    if done.returncode:
        words = done.stderr.splitlines()[-_WORDS_OF_A_FAILURE:]
        raise Unavailable("\n".join([f"{' '.join(command[:2])} failed:", *words]))
    return done.stdout


def _keep(folder: Path, files: Sequence[str], made: Path) -> None:
    """Move the files into a folder that is there only when all of them are."""
    missing = [file for file in files if not (folder / file).is_file()]
    if missing:
        raise Unavailable(f"{made.name} was made without {', '.join(missing)}")
    whole = folder / "whole"
    whole.mkdir()
    for file in files:
        (folder / file).rename(whole / file)
    whole.rename(made)


def _java() -> Path | None:
    """One that is new enough: that of JAVA_HOME or of PATH, or any that is installed."""
    home, on_path = os.environ.get("JAVA_HOME"), shutil.which("java")
    named = [Path(home, "bin", "java")] if home else []
    named += [Path(on_path)] if on_path else []
    found = [*named, *sorted(JAVAS.glob("*/bin/java"))]
    return next((one for one in found if one.is_file() and java_release(str(one)) >= STRIMZI_JAVA), None)
