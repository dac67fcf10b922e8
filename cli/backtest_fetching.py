"""From the topics to a recording, by way of a temporary file: they come by partition, and are wanted by time."""

import contextlib
import tempfile
from collections.abc import Iterator

from cli.access import with_kafka
from cli.backtest_asking import Progress
from cli.backtest_export import lines_of, write_lines
from cli.backtest_input import Recording
from cli.failures import OutsideFailed
from policy.settings import Settings


@contextlib.contextmanager
def fetched(settings: Settings, since: int | None, to: int | None) -> Iterator[Recording]:
    """What a backtest reads of the topics between two times."""
    progress = Progress("records read")
    with tempfile.TemporaryFile() as file:

        async def work(bootstrap: str) -> int:
            try:
                return await write_lines(lines_of(bootstrap, since=since, to=to), file, progress)
            except OSError as full:
                raise OutsideFailed(
                    f"the records could not be kept ({full}); TMPDIR says where, if there is no room"
                ) from full

        with_kafka(settings, work)
        file.flush()
        yield Recording(file)
