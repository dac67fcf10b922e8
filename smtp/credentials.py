"""User and password for a proxy or a smarthost: from a file, never on a command line, never in a variable, never shown.

One line ``user:password``, or two lines.  Kubernetes mounts a Secret readable by the pod's group, so that is allowed;
a file that everybody may read is refused.
"""

from dataclasses import dataclass, field
from pathlib import Path

_MOST_BYTES = 255  # of each, RFC 1929 2; mail servers take no longer ones either


class UnusableCredentials(ValueError):  # noqa: N818 - it is what it says
    """A file that holds no user and password; the message names the file and the fix, and repeats nothing of it."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user and its password."""

    user: str
    password: str = field(repr=False)


def read_credentials(file: Path) -> Credentials:
    """Read a file of one line ``user:password`` or of two lines."""
    try:
        mode = file.stat().st_mode
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as wrong:
        said = wrong.strerror if isinstance(wrong, OSError) else "it is not UTF-8"
        raise UnusableCredentials(f"{file} cannot be read: {said}") from wrong
    if mode & 0o007:
        raise UnusableCredentials(f"{file} can be read by everybody; run: chmod o= {file}")
    lines = [line for line in lines if line.strip()]
    user, _, password = lines[0].partition(":") if len(lines) == 1 else (lines[0], "", lines[1]) if lines else ("",) * 3
    if len(lines) > 2 or not user.strip() or not password:
        raise UnusableCredentials(f"{file} must hold one line user:password, or the user and the password in two lines")
    if max(len(user.encode()), len(password.encode())) > _MOST_BYTES:
        raise UnusableCredentials(f"{file}: user and password may have {_MOST_BYTES} bytes each")
    return Credentials(user.strip(), password)
