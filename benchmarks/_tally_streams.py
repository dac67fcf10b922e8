"""Kafka Streams on this machine: its jars from Maven, and our program for it, compiled once into the cache."""

import hashlib
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from benchmarks._running import Failed, say
from cli.kafka import VERSION, default_cache, fetched

_SOURCE = Path(__file__).parent / "java" / "StreamsTally.java"
_HEAP_MB = 1024
_COMPILED_WITHIN_S = 120.0
_POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>mailcordon</groupId><artifactId>kafka-streams</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-streams</artifactId><version>{VERSION}</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
"""


def program() -> str:
    """The class path of the program, fetched and compiled on first use."""
    home = default_cache() / f"kafka-streams-{VERSION}"
    lib = fetched(home, _POM, f"kafka-streams-{VERSION}.jar", f"Kafka Streams {VERSION} (96 MB, once)", say)
    classes = home / f"classes-{hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:12]}"
    if not classes.is_dir():
        javac = shutil.which("javac")
        if javac is None:
            raise Failed("the comparison with Kafka Streams needs javac; Debian, Ubuntu: apt-get install default-jdk")
        part = classes.with_suffix(".part")
        command = [javac, "-cp", f"{lib}/*", "-d", str(part), str(_SOURCE)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMPILED_WITHIN_S, check=False)
        if done.returncode:
            raise Failed(f"javac: {done.stderr[-2000:]}")
        part.rename(classes)
    return f"{classes}:{lib}/*"


def command(
    path: str, bootstrap: str, app: str, topics: tuple[str, str], state: Path, columns: Mapping[str, int]
) -> list[str]:
    """How to start it, from one topic to another."""
    java = shutil.which("java")
    if java is None:
        raise Failed("the comparison with Kafka Streams needs Java 17; Debian, Ubuntu: apt-get install default-jdk")
    options = [f"-Xmx{_HEAP_MB}m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
    of_category = [f"{name}={column}" for name, column in columns.items()]
    return [java, *options, "-cp", path, "StreamsTally", bootstrap, app, *topics, str(state), *of_category]
