"""Telling Prometheus where the senders of this machine listen: a file each, as its file-based discovery reads them.

A local sender takes any free port for its metrics, and only the sender itself knows which.
"""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from policy.naming import campaign_name
from policy.settings import Endpoint

_EVERYWHERE = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - recognised, not bound to


@contextlib.contextmanager
def announced(folder: Path, *, campaign: str, name: str, where: Endpoint) -> Iterator[Path]:
    """Keep the file of one sender while it runs.

    After a kill the file stays until the sender of the same name starts again, so that Prometheus shows it as down.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{campaign_name(name)}.json"
    host = socket.gethostname() if where.host in _EVERYWHERE else where.host
    target = {"targets": [str(Endpoint(host, where.port))], "labels": {"campaign": campaign, "sender": name}}
    temporary = file.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps([target]) + "\n", encoding="utf-8")
    temporary.replace(file)
    try:
        yield file
    finally:
        file.unlink(missing_ok=True)
