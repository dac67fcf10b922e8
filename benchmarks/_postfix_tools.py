"""Postfix's own tools for measuring SMTP, ``smtp-sink`` and ``smtp-source``: installed ones, else unpacked ones."""

import os
import shutil
from pathlib import Path

from benchmarks._debian import Unavailable, command_of, root_of
from benchmarks._running import Failed, say

SINK, SOURCE = "smtp-sink", "smtp-source"
_INSTALLED_IN = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin"))


def tool(name: str) -> Path:
    """The command: from PATH, else from the package's unpacked root in the cache, fetched on first use."""
    installed = shutil.which(name, path=_INSTALLED_IN)
    if installed is not None:
        return Path(installed)
    try:
        return command_of(root_of("postfix", say=say), f"usr/sbin/{name}")
    except Unavailable as why:
        raise Failed(f"{name} (Debian, Ubuntu: apt-get install postfix) is not here: {why}") from why


def as_nobody() -> list[str]:
    """The options without which ``smtp-sink`` refuses to run as root."""
    return ["-u", "nobody"] if os.geteuid() == 0 else []
