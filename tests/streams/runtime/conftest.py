"""Each test of the runtime gets topics of its own, and its workers are gone when it ends."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.kafka import EmbeddedKafka
from tests.streams.runtime.harness import Lab


@pytest.fixture
def lab(kafka: EmbeddedKafka, unique: str, tmp_path: Path) -> Iterator[Lab]:
    made = Lab(kafka.bootstrap, unique, tmp_path)
    yield made
    made.close()
