import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.kafka import EmbeddedKafka
from tests.agents.plant import Plant, Worker


@pytest.fixture(scope="module")
def plant(kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """The shared broker with all topics; workers that the module starts end with it."""
    folder: Path = tmp_path_factory.mktemp("workers")
    made = Plant(kafka.bootstrap, folder, app_id=f"worker-{folder.name}")
    asyncio.run(made.create())
    yield made
    made.stop()


@pytest.fixture(scope="module")
def worker(plant: Plant) -> Worker:
    """A worker that is ready, shared by the tests of a module; a test that ends it starts it again."""
    made = plant.worker()
    made.start()
    asyncio.run(made.ready())
    return made
