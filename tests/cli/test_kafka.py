"""The embedded broker: it answers, keeps what it was given, and never outlives who started it."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from cli.kafka import EmbeddedKafka, KafkaUnavailable, default_cache, java_release, prepare, silent

pytestmark = pytest.mark.kafka
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(tmp_path / "data", cache=default_cache()) as own:
        yield own


def until(question: Callable[[], bool], within_s: float = 30.0) -> bool:
    deadline = time.monotonic() + within_s
    while not question():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def runs(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


async def create(bootstrap: str, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, 1, 1)])
    finally:
        await admin.close()


async def put(bootstrap: str, topic: str, value: bytes) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, max_request_size=8 * 1024 * 1024)
    await producer.start()
    try:
        await producer.send_and_wait(topic, value)
    finally:
        await producer.stop()


async def first(bootstrap: str, topic: str) -> bytes:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, 0)])
        return bytes((await consumer.getone()).value)
    finally:
        await consumer.stop()


async def test_what_is_written_can_be_read(kafka: EmbeddedKafka, unique: str) -> None:
    await create(kafka.bootstrap, unique)
    await put(kafka.bootstrap, unique, b"hello")
    assert await first(kafka.bootstrap, unique) == b"hello"


async def test_a_frame_of_megabytes_fits(kafka: EmbeddedKafka, unique: str) -> None:
    await create(kafka.bootstrap, unique)
    await put(kafka.bootstrap, unique, b"x" * 7_000_000)
    assert len(await first(kafka.bootstrap, unique)) == 7_000_000


@pytest.mark.parametrize("end", [EmbeddedKafka.stop, EmbeddedKafka.kill], ids=["stopped", "killed"])
async def test_a_restart_keeps_address_and_data(
    broker: EmbeddedKafka, unique: str, end: Callable[[EmbeddedKafka], None]
) -> None:
    address = broker.bootstrap
    await create(address, unique)
    await put(address, unique, b"kept")
    end(broker)
    broker.start()
    assert broker.bootstrap == address
    assert await first(address, unique) == b"kept"


async def test_another_process_finds_the_same_address(broker: EmbeddedKafka, tmp_path: Path) -> None:
    address = broker.bootstrap
    broker.stop()
    with EmbeddedKafka(tmp_path / "data", cache=default_cache()) as later:
        assert later.bootstrap == address


def test_stop_leaves_no_process(broker: EmbeddedKafka) -> None:
    pid = broker.pid
    broker.stop()
    broker.stop()
    assert not runs(pid)


def test_a_frozen_broker_can_be_stopped(broker: EmbeddedKafka) -> None:
    pid = broker.pid
    os.kill(pid, signal.SIGSTOP)
    broker.stop()
    assert not runs(pid)


def test_it_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    broker = EmbeddedKafka(tmp_path / "data", cache=default_cache())
    starter = threading.Thread(target=broker.start)
    starter.start()
    starter.join()
    try:
        assert not until(lambda: not runs(broker.pid), within_s=0.5)
    finally:
        broker.stop()


def test_it_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    program = f"""
        import signal, sys
        from pathlib import Path
        from cli.kafka import EmbeddedKafka, default_cache
        broker = EmbeddedKafka(Path({str(tmp_path / "data")!r}), cache=default_cache())
        broker.start()
        print(broker.pid, flush=True)
        signal.pause()
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert runs(pid)
        parent.kill()
    assert until(lambda: not runs(pid), within_s=10.0)


def test_a_left_over_broker_is_ended_by_the_next_start(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    wait = "import signal; signal.pause()"
    with subprocess.Popen([sys.executable, "-c", wait, str(data / "server.properties")]) as leftover:
        (data / "broker.pid").write_text(f"{leftover.pid} 1\n")  # its owner is not its parent any more
        # it is our child here, so somebody has to collect it
        threading.Thread(target=leftover.wait, daemon=True).start()
        with EmbeddedKafka(data, cache=default_cache()):
            assert not runs(leftover.pid)


def test_a_folder_in_use_is_refused(broker: EmbeddedKafka, tmp_path: Path) -> None:
    with pytest.raises(KafkaUnavailable, match="already"):
        EmbeddedKafka(tmp_path / "data", cache=default_cache()).start()
    assert runs(broker.pid)


def test_the_message_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(KafkaUnavailable) as caught:
        prepare(tmp_path, silent)
    told = str(caught.value)
    assert all(word in told for word in ("Java 17", "default-jre-headless", "Maven", "docker compose up"))


@pytest.mark.parametrize(
    ("said", "release"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('openjdk version "25.0.3" 2026-04-21 LTS', 25),
        ('java version "1.8.0_402"', 8),
    ],
)
def test_a_java_that_refuses_unknown_options_tells_its_release(tmp_path: Path, said: str, release: int) -> None:
    java = tmp_path / "java"
    java.write_text(f"#!/bin/sh\n[ \"$*\" = -version ] || exit 1\necho '{said}' >&2\n")
    java.chmod(0o755)

    assert java_release(str(java)) == release


def test_a_failed_fetch_leaves_nothing_that_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maven = tmp_path / "bin" / "mvn"
    maven.parent.mkdir()
    maven.write_text("#!/bin/sh\necho no route to the mirror\nexit 1\n")
    maven.chmod(0o755)
    monkeypatch.setenv("PATH", f"{maven.parent}:{os.environ['PATH']}")
    with pytest.raises(KafkaUnavailable, match="no route to the mirror"):
        prepare(tmp_path / "cache", silent)
    assert not list((tmp_path / "cache").rglob("lib"))


def test_a_broker_that_dies_says_why(broker: EmbeddedKafka, tmp_path: Path) -> None:
    broker.stop()
    metadata = tmp_path / "data" / "logs" / "meta.properties"
    metadata.write_text(metadata.read_text().replace("node.id=1", "node.id=7"))
    with pytest.raises(KafkaUnavailable, match=r"(?s)broker\.log.*node"):
        broker.start()
