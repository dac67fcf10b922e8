"""What a process costs: processor seconds, user and system, from /proc (Linux).

A process counts with its threads, with the children that it has, and with those that it had and waited for.
"""

import os
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PARENT, _USER, _SYSTEM, _USER_CHILDREN, _SYSTEM_CHILDREN = 1, 11, 12, 13, 14  # fields of stat after the name


def cpu_s(pid: int) -> float:
    """User and system seconds of a process and its children since they began."""
    return sum(map(_own_s, _family(pid)))


def _own_s(pid: int) -> float:
    fields = _stat(pid)
    if fields is None:
        return 0.0  # it ended just now; what it cost is with its parent
    ticks = (int(fields[at]) for at in (_USER, _SYSTEM, _USER_CHILDREN, _SYSTEM_CHILDREN))
    return sum(ticks) / _TICKS_PER_S


def _family(pid: int) -> list[int]:
    """A process and everything below it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))) is not None:
            children.setdefault(int(fields[_PARENT]), []).append(int(entry.name))
    family = [pid]
    for member in family:  # grows while we walk
        family += children.get(member, [])
    return family


def _stat(pid: int) -> list[str] | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
