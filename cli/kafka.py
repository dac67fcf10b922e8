"""A real Apache Kafka on this machine, for those who have none at hand.

One KRaft node in one JVM, fetched once from Maven artifacts into a cache folder, listening on the
loopback interface only.  Demo and tests speak to the same broker that production runs.  This module
never touches a Kafka that somebody else started, and its broker never outlives the process that
started it.
"""

import base64
import contextlib
import fcntl
import hashlib
import os
import random
import re
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

VERSION = "4.3.1"

POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>mailcordon</groupId><artifactId>embedded-kafka</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
"""

# Frames reach megabytes, tests want short group sessions, and a killed broker may only register again when
# its own earlier session is over.
PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{broker}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={logs}
num.partitions=4
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=2
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
message.max.bytes=8388608
replica.fetch.max.bytes=8388608
log.segment.bytes=67108864
log.index.size.max.bytes=1048576
log.cleaner.dedupe.buffer.size=16777216
log.retention.hours=24
"""

# Becomes the broker: asks the kernel to be killed with its parent, then turns into java.  The parent
# may have died before prctl took effect (no signal would ever come), so its id is compared afterwards.
LAUNCHER = """\
import ctypes, os, signal, sys
parent, command = int(sys.argv[1]), sys.argv[2:]
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))
if os.getppid() != parent:
    sys.exit(1)
os.execv(command[0], command)
"""

READY_WITHIN_S = 60.0
STOP_WITHIN_S = 30.0
FETCH_WITHIN_S = 900.0

Say = Callable[[str], None]


class KafkaUnavailable(Exception):  # noqa: N818 - says what is so, as Refused does
    """No broker can run here; the message says what is missing and what brings it."""


def default_cache() -> Path:
    """The folder for things that can be fetched again: the user's cache, by the XDG convention."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "mailcordon"


def silent(_line: str) -> None:
    """Say nothing."""


def prepare(cache: Path, say: Say) -> Path:
    """Kafka's jars in the cache, fetched on first use; answers the folder that holds them."""
    what = f"Apache Kafka {VERSION} (44 MB, once)"
    return fetched(cache / f"kafka-{VERSION}", POM, f"kafka_2.13-{VERSION}.jar", what, say)


def fetched(home: Path, pom: str, jar: str, what: str, say: Say) -> Path:
    """The folder with the jars of a Maven project, fetched on first use; ``jar`` is one of them."""
    lib = home / "lib"
    if not lib.is_dir():
        home.mkdir(parents=True, exist_ok=True)
        with _only_one(home / "fetching.lock"):
            if not lib.is_dir():  # else another process has fetched them while we waited
                _require(say, java=True, maven=True)
                _fetch(home, lib, pom, jar, what, say)
    _require(say, java=True)
    return lib


@contextlib.contextmanager
def _only_one(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch(home: Path, lib: Path, project: str, jar: str, what: str, say: Say) -> None:
    """Copy the jars into a folder of another name and rename it when all are there."""
    say(f"fetching {what} into {lib}")
    maven = shutil.which("mvn")
    assert maven is not None, "asked for just before"  # noqa: S101 - narrows the type
    with tempfile.TemporaryDirectory(dir=home, prefix="fetching-") as folder:
        pom = Path(folder, "pom.xml")
        pom.write_text(project)
        jars = Path(folder, "lib")
        goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={jars}"]
        try:
            done = _run([maven, "-q", "-B", "-f", str(pom), *goal], FETCH_WITHIN_S)
        except subprocess.TimeoutExpired as slow:
            raise KafkaUnavailable(f"Maven did not fetch {what} within {FETCH_WITHIN_S:.0f} s") from slow
        if done.returncode or not (jars / jar).is_file():
            raise KafkaUnavailable(f"Maven could not fetch {what}:\n{_tail(done.stdout)}")
        jars.rename(lib)


def _run(command: list[str], within_s: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own words and resolved paths
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        timeout=within_s,
        check=False,
    )


def _tail(text: str, lines: int = 15) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])[-4000:]


def _java() -> Path | None:
    """Java 17 or newer: the one of JAVA_HOME, else the one on the path."""
    home = os.environ.get("JAVA_HOME")
    for candidate in (str(Path(home, "bin", "java")) if home else None, shutil.which("java")):
        if candidate and Path(candidate).is_file() and java_release(candidate) >= 17:
            return Path(candidate)
    return None


def java_release(java: str) -> int:
    """17 of ``openjdk version "17.0.15"``; 0 when it does not tell.  Newer ones refuse options they do not know."""
    try:
        told = _run([java, "-version"], 30.0).stdout
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = re.search(r'version "(?:1\.)?(\d+)', told)
    return int(found.group(1)) if found else 0


def _missing(*, java: bool, maven: bool) -> dict[str, str]:
    """What is not here, by name, with the Debian package that brings it."""
    missing = {}
    if java and _java() is None:
        missing["Java 17 or newer"] = "default-jre-headless"
    if maven and shutil.which("mvn") is None:
        missing["Maven"] = "maven"
    return missing


def _require(say: Say, *, java: bool = False, maven: bool = False) -> None:
    """Java and Maven are here, are installed now (Debian, as root), or the caller is told."""
    missing = _missing(java=java, maven=maven)
    apt = shutil.which("apt-get")
    trouble = ""
    if missing and apt and os.geteuid() == 0 and Path("/etc/debian_version").exists():
        say(f"installing {', '.join(missing.values())} with apt-get, for {' and '.join(missing)}")
        trouble = _apt_install(apt, list(missing.values()))
        missing = _missing(java=java, maven=maven)
    if missing:
        needs = " and ".join(missing)
        raise KafkaUnavailable(
            f"the embedded Kafka needs {needs}. Debian, Ubuntu: apt-get install {' '.join(missing.values())}. "
            f"Or start a Kafka with `docker compose up` and set KAFKA_BOOTSTRAP.{trouble}"
        )


def _apt_install(apt: str, packages: list[str]) -> str:
    """Install packages; answers the end of apt's output if it failed."""
    quiet = ["env", "DEBIAN_FRONTEND=noninteractive", apt, "-q", "-y"]
    for arguments in (["update"], ["install", "--no-install-recommends", *packages]):
        try:
            done = _run([*quiet, *arguments], FETCH_WITHIN_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"\napt-get failed: {error}"
        if done.returncode:
            return f"\napt-get failed:\n{_tail(done.stdout)}"
    return ""


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody listens on, below those that the kernel lends to outgoing connections.

    A port of the lending range would be unsafe while the broker is down: a client that keeps calling
    it is sooner or later lent that very port, and then talks to itself.
    """
    ports: list[int] = []
    for port in random.sample(range(20_000, 32_000), 2_000):
        if is_free(port):
            ports.append(port)
        if len(ports) == count:
            return ports
    raise KafkaUnavailable("no free loopback port between 20000 and 32000")


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether nobody listens on this port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Kafka does
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def _answers(port: int) -> bool:
    """Whether a broker answers ApiVersions: an open port alone says little."""
    request = struct.pack("!hhih", 18, 0, 1, -1)  # key, version, correlation id, no client id
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2.0) as connection:
            connection.sendall(struct.pack("!i", len(request)) + request)
            reply = connection.recv(10, socket.MSG_WAITALL)
    except OSError:
        return False
    return len(reply) == 10 and reply[8:] == b"\0\0"  # length, correlation id, then the error code


class EmbeddedKafka:
    """One broker on one data folder; ports and topics survive stop, kill and start.

    ``more`` are further lines for its properties; they win, and may hold ``{broker}`` and ``{controller}``, its ports.
    """

    def __init__(self, data: Path, *, cache: Path, say: Say = silent, heap_mb: int = 256, more: str = "") -> None:
        self._data = data.absolute()
        self._cache = cache.absolute()
        self._say = say
        self._heap_mb = heap_mb
        self._more = more
        self._ports: list[int] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper: threading.Thread | None = None
        self._new_archive: tuple[Path, Path] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def bootstrap(self) -> str:
        """Where clients connect to: 127.0.0.1:port, known from the first start on."""
        if not self._ports:
            raise KafkaUnavailable("the embedded Kafka was never started")
        return f"127.0.0.1:{self._ports[0]}"

    @property
    def pid(self) -> int:
        """The process id of the running broker's JVM."""
        if self._process is None:
            raise KafkaUnavailable("the embedded Kafka does not run")
        return self._process.pid

    def start(self) -> None:
        """Run the broker and return when it answers; does nothing if it runs already."""
        if self._process is not None and self._process.poll() is None:
            return
        lib = prepare(self._cache, self._say)
        self._data.mkdir(parents=True, exist_ok=True)
        self._end_leftover()
        self._choose_ports()
        self._properties.write_text(
            (PROPERTIES + self._more).format(broker=self._ports[0], controller=self._ports[1], logs=self._logs)
        )
        java = self._java_command(lib)
        if not (self._logs / "meta.properties").is_file():
            self._format(java)
        self._launch([*java, *self._archive_options(lib), "kafka.Kafka", str(self._properties)])
        self._wait_until_ready()

    def stop(self) -> None:
        """End the broker: politely, then not; does nothing if it does not run."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the broker as a power cut would: no flush, no goodbye (for fault tests)."""
        self._end(signal.SIGKILL)

    @property
    def _logs(self) -> Path:
        return self._data / "logs"

    @property
    def _properties(self) -> Path:
        return self._data / "server.properties"

    @property
    def _pid_file(self) -> Path:
        return self._data / "broker.pid"

    @property
    def _output(self) -> Path:
        return self._data / "broker.log"

    def _choose_ports(self) -> None:
        """Keep the ports of an earlier start, in this process or not, where they are still free."""
        if not self._ports and self._properties.is_file():
            earlier = re.findall(r"//127\.0\.0\.1:(\d+)", self._properties.read_text())
            self._ports = [int(port) for port in earlier[:2]]
            if not all(is_free(port) for port in self._ports):
                self._ports = []
        self._ports = self._ports or free_ports(2)

    def _java_command(self, lib: Path) -> list[str]:
        java = _java()
        assert java is not None, "prepare asked for it"  # noqa: S101 - narrows the type
        jars = ":".join(str(jar) for jar in sorted(lib.glob("*.jar")))  # an archive wants it spelled out
        heap = [f"-Xms{min(128, self._heap_mb)}m", f"-Xmx{self._heap_mb}m", "-XX:+UseSerialGC"]
        logger = {"defaultLogLevel": "warn", "showDateTime": "true", "dateTimeFormat": "yyyy-MM-dd HH:mm:ss"}
        log = [f"-Dorg.slf4j.simpleLogger.{name}={value}" for name, value in logger.items()]
        return [str(java), *heap, *log, "-cp", jars]

    def _format(self, java: list[str]) -> None:
        cluster = "-"
        while cluster.startswith("-"):  # would be read as an option
            cluster = base64.urlsafe_b64encode(secrets.token_bytes(16)).rstrip(b"=").decode()
        shutil.rmtree(self._logs, ignore_errors=True)  # an earlier format was cut short
        tool = ["kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(self._properties)]
        done = _run([java[0], "-XX:TieredStopAtLevel=1", *java[1:], *tool], READY_WITHIN_S)
        if done.returncode:
            raise KafkaUnavailable(f"Kafka could not format {self._logs}:\n{_tail(done.stdout)}")

    def _archive_options(self, lib: Path) -> list[str]:
        """Use the class-data archive of this very Java and class path, or write one at a clean exit.

        It halves the time to start.  Writing goes to a name of our own, renamed when the JVM has ended
        well: half an archive never counts.
        """
        java = _java()
        assert java is not None, "prepare asked for it"  # noqa: S101 - narrows the type
        stat = java.resolve().stat()
        fingerprint = hashlib.sha256(f"{java.resolve()} {stat.st_mtime_ns} {lib}".encode()).hexdigest()[:12]
        archive = lib.parent / f"classes-{fingerprint}.jsa"
        self._new_archive = None
        if archive.is_file():
            return [f"-XX:SharedArchiveFile={archive}", "-Xlog:cds=off", "-Xlog:cds+dynamic=off"]
        part = archive.with_suffix(f".{os.getpid()}.part")
        self._new_archive = (part, archive)
        return [f"-XX:ArchiveClassesAtExit={part}", "-Xlog:cds=off", "-Xlog:cds+dynamic=off"]

    def _launch(self, command: list[str]) -> None:
        """Start the JVM from a thread that lives as long as it does.

        The kernel's parent-death signal is about the *thread* that created the child: started from a
        worker thread (asyncio.to_thread) the broker would die when that thread goes idle and is ended.
        So the thread that starts the broker is also the one that waits for its end.
        """
        started = threading.Event()
        trouble: list[OSError] = []

        def keep() -> None:
            try:
                with self._output.open("ab") as output:
                    process = subprocess.Popen(  # noqa: S603 - our own words and resolved paths
                        [sys.executable, "-I", "-S", "-c", LAUNCHER, str(os.getpid()), *command],
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=output,
                        cwd=self._data,
                        start_new_session=True,  # a Ctrl-C in the terminal is for us, not for the broker
                    )
            except OSError as error:
                trouble.append(error)
                started.set()
                return
            self._process = process
            started.set()
            process.wait()

        self._keeper = threading.Thread(target=keep, name="embedded-kafka", daemon=True)
        self._keeper.start()
        started.wait()
        if trouble:
            raise KafkaUnavailable(f"the embedded Kafka could not be started: {trouble[0]}") from trouble[0]
        self._pid_file.write_text(f"{self.pid} {os.getpid()}\n")

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_WITHIN_S
        process = self._process
        while process is not None and process.poll() is None and time.monotonic() < deadline:
            if _answers(self._ports[0]):
                return
            time.sleep(0.05)
        log = _tail(self._output.read_text(errors="replace")) if self._output.is_file() else ""
        self.kill()
        raise KafkaUnavailable(f"the embedded Kafka did not come up; the end of {self._output}:\n{log}")

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(how)
            process.send_signal(signal.SIGCONT)  # a frozen broker hears nothing but SIGKILL
        try:
            process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_WITHIN_S)
        if self._keeper is not None:
            self._keeper.join()
        self._pid_file.unlink(missing_ok=True)
        self._keep_archive(clean=process.returncode in {0, 128 + signal.SIGTERM, -signal.SIGTERM})

    def _keep_archive(self, *, clean: bool) -> None:
        if self._new_archive is None:
            return
        part, archive = self._new_archive
        if clean and part.is_file():
            part.rename(archive)
        part.unlink(missing_ok=True)

    def _end_leftover(self) -> None:
        """End a broker on this folder whose parent is gone; refuse to share one that is in use.

        The death signal makes this rare (it does not exist outside Linux).  A process id may since
        belong to somebody else, so the process must name our properties file on its command line.
        """
        if not self._pid_file.is_file():
            return
        numbers = self._pid_file.read_text().split()
        if len(numbers) == 2:
            pid, owner = int(numbers[0]), int(numbers[1])
            if _runs_with(pid, str(self._properties)):
                if _parent(pid) == owner:
                    raise KafkaUnavailable(f"process {owner} runs an embedded Kafka on {self._data} already")
                self._say(f"ending a left-over Kafka (process {pid}) on {self._data}")
                os.kill(pid, signal.SIGKILL)
                _wait_until_gone(pid)
        self._pid_file.unlink(missing_ok=True)


def _ps(pid: int, field: str) -> str:
    """One field of one process, or nothing when it is gone."""
    ps = shutil.which("ps")
    if ps is None:
        return ""
    return _run([ps, "-o", f"{field}=", "-ww", "-p", str(pid)], 10.0).stdout.strip()


def _runs_with(pid: int, argument: str) -> bool:
    try:
        return argument.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return argument in _ps(pid, "args")


def _parent(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return int(_ps(pid, "ppid") or 0)
    return int(status.rpartition(")")[2].split()[1])


def _wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + STOP_WITHIN_S
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    raise KafkaUnavailable(f"the left-over Kafka (process {pid}) does not end")
