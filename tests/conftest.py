"""What every test may ask for: a real Kafka, a name of its own, an environment without our settings."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import settings

from cli.kafka import EmbeddedKafka, default_cache

settings.register_profile("ci", derandomize=True, deadline=None)
settings.load_profile("ci")

_numbers = itertools.count()


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """One broker for the whole run, started by the first test that wants it; topics are told apart by `unique`."""
    data: Path = tmp_path_factory.mktemp("kafka")
    with EmbeddedKafka(data, cache=default_cache(), say=print) as broker:
        yield broker


@pytest.fixture
def unique() -> str:
    """A short prefix that no other test of this run uses: topics, groups, campaigns."""
    return f"t{os.getpid()}-{next(_numbers)}"


@pytest.fixture(autouse=True)
def _environment_without_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("MAILCORDON_") or name == "KAFKA_BOOTSTRAP":
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _logs_as_they_were() -> Iterator[None]:
    """Logging belongs to a process: set up by one test, it would write to that one's closed output ever after."""
    yield
    assert not structlog.get_config()["cache_logger_on_first_use"], "this test has set up logging for the whole run"
