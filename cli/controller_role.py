"""The controller role, put together: where senders run, and how a local one is started."""

import os
import sys
from collections.abc import Mapping

from cli import broker as brokers
from cli.settings import as_environment, data_folder
from k8s.cluster import SenderSpec
from k8s.process import ProcessCluster
from policy.settings import Settings

_INHERITED = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TZ",
    "XDG_CACHE_HOME",
    "PYTHONPATH",
    "VIRTUAL_ENV",
    "MAILCORDON_DKIM_FOLDER",
)


def local_senders(settings: Settings, *, bootstrap: str) -> ProcessCluster:
    """The senders of this machine, whose state is in the data folder."""
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    ours = as_environment(settings) | {
        "MAILCORDON_KAFKA": bootstrap,
        "MAILCORDON_SECRET_FILE": str(brokers.secret_file(settings)),
        "MAILCORDON_DATA": str(data_folder(settings)),
    }

    def command(spec: SenderSpec, ordinal: int) -> list[str]:
        return [
            sys.executable, "-m", "cli", "sender", "--campaign", spec.campaign, "--name", f"{spec.name}-{ordinal}",
        ]  # fmt: skip

    def environment(_spec: SenderSpec, _ordinal: int) -> Mapping[str, str]:
        return inherited | ours

    return ProcessCluster(data_folder(settings) / "senders", command=command, environment=environment)
