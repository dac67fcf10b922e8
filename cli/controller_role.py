"""The controller role, put together: where senders run, and how a local one is started."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from cli import broker as brokers
from cli.settings import as_environment, data_folder
from k8s.cluster import SenderSpec
from k8s.process import ProcessCluster
from policy.settings import Endpoint, Settings

_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "XDG_CACHE_HOME", "PYTHONPATH", "VIRTUAL_ENV")


def run_controller(settings: Settings, *, bootstrap: str) -> int:
    """Run a controller until told to end; its exit code."""
    from agents import places  # Faust is heavy, and only the apps need it
    from agents.controller_app import controller_app
    from streams.runtime import run

    if settings.backend == "kubernetes":
        make = places.kubernetes(places.site_of(settings), kubeconfig=os.environ.get("KUBECONFIG"))
    else:
        local = _Local(settings, bootstrap)
        make = places.processes(local.folder, command=local.command, environment=local.environment)
    return run(controller_app(settings, make_cluster=make, bootstrap=bootstrap))


def local_senders(settings: Settings, *, bootstrap: str) -> ProcessCluster:
    """The senders of this machine, as their state in the data folder says."""
    local = _Local(settings, bootstrap)
    return ProcessCluster(local.folder, command=local.command, environment=local.environment)


class _Local:
    """How a sender is started as a child process: nothing but settings, and those in its environment."""

    def __init__(self, settings: Settings, bootstrap: str) -> None:
        self.folder: Path = data_folder(settings) / "senders"
        self._environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        self._environment |= as_environment(settings) | {
            "MAILCORDON_KAFKA": bootstrap,
            "MAILCORDON_SECRET_FILE": str(brokers.secret_file(settings)),
            "MAILCORDON_DATA": str(data_folder(settings)),
            # any free port: several senders share this machine, and each says where it listens (cli.targets)
            "MAILCORDON_SENDER_WEB": str(Endpoint(settings.sender_web.host, 0)),
        }

    def command(self, spec: SenderSpec, ordinal: int) -> list[str]:
        """The command line of one replica."""
        name = f"{spec.name}-{ordinal}"
        return [sys.executable, "-m", "cli", "sender", "--campaign", spec.campaign, "--name", name]

    def environment(self, _spec: SenderSpec, _ordinal: int) -> Mapping[str, str]:
        """All variables of a replica."""
        return self._environment
