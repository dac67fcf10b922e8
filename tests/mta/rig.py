"""A mail server of a Debian package, run from its unpacked root with a configuration and a spool of this run alone.

The server gets namespaces of its own for mounts and processes: its root is the unpacked package, and `/etc`, `/var`,
`/mail`, `/run` and `/tmp` are folders of the test.  When the test ends, however it ends, the kernel ends every process
of the server and forgets the mounts.  The network is the machine's: the client under test needs nothing special.
"""

import contextlib
import mailbox
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks._debian import MOUNT_POINTS, Unavailable, root_of, version_in
from cli.kafka import LAUNCHER
from policy.settings import Endpoint
from tests.smtp.servers import server_tls

DOMAIN = "rcpt.test"
MAILBOXES = ("alice", "bob", "grey")
MOST_BYTES = 50_000
MOST_SESSIONS = 3
_READY_WITHIN_S = 15.0
_NEEDS = ("unshare", "mount", "chroot")
_FIRST_USER, _FIRST_MAILBOX = 901, 1001

_ENTER = """
set -e
root=$1; run=$2; shift 2
mount --bind "$root" "$root"
for point in etc mail run tmp var; do mount --bind "$run/$point" "$root/$point"; done
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
chroot "$root" "$@"
exit $?
"""
# The shell stays the namespace's first process: a server that changes its user would lose what --kill-child ordered.


class CannotRun(Exception):  # noqa: N818 - says what is so
    """The server cannot be run here; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a configuration has to know: its folder (``etc`` in it is `/etc` for the server) and its ports."""

    run: Path
    port: int
    clear_port: int

    def write(self, path: str, text: str, *, mode: int = 0o644, owner: str | None = None) -> None:
        """Write a file as the server sees it."""
        at = self.run / path.lstrip("/")
        at.parent.mkdir(parents=True, exist_ok=True)
        at.write_text(text)
        at.chmod(mode)
        if owner is not None:
            os.chown(at, *self.ids[owner])

    def folder(self, path: str, *, mode: int = 0o755, owner: str | None = None) -> None:
        """Make a folder as the server sees it."""
        at = self.run / path.lstrip("/")
        at.mkdir(parents=True, exist_ok=True)
        at.chmod(mode)
        if owner is not None:
            os.chown(at, *self.ids[owner])

    @property
    def ids(self) -> Mapping[str, tuple[int, int]]:
        """User and group numbers by name."""
        fields = [line.split(":") for line in (self.run / "etc/passwd").read_text().splitlines()]
        return {name: (int(uid), int(gid)) for name, _, uid, gid, *_ in fields}


@dataclass(frozen=True, slots=True)
class Kind:
    """A mail server: its package, the users it wants, what writes its configuration, and what is run."""

    name: str
    package: str
    users: Sequence[str]
    configure: Callable[[Place], None]
    command: Sequence[str]
    logs: Sequence[str] = ()
    limits_sessions: bool = True
    cannot_encrypt: str = ""
    """Versions that offer STARTTLS and always fail at it, as the beginning of ``package=version``."""


@dataclass(frozen=True, slots=True)
class MailServer:
    """A running server: ``endpoint`` offers STARTTLS, ``clear`` does not."""

    kind: Kind
    place: Place
    version: str

    @property
    def encrypts(self) -> bool:
        """Does the STARTTLS that it offers work?"""
        return not self.kind.cannot_encrypt or not self.version.startswith(self.kind.cannot_encrypt)

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint("127.0.0.1", self.place.port)

    @property
    def clear(self) -> Endpoint:
        return Endpoint("127.0.0.1", self.place.clear_port)

    def messages(self, *names: str) -> list[bytes]:
        """What lies in mailboxes (all, if none is named), as the server wrote it."""
        found: list[bytes] = []
        for name in names or MAILBOXES:
            if (self.place.run / "mail" / name / "new").is_dir():
                box = mailbox.Maildir(self.place.run / "mail" / name, create=False)
                found += [box.get_bytes(key) for key in box.iterkeys()]
        return found

    def log(self) -> str:
        """Everything that the server has said."""
        files = ["said", *self.kind.logs]
        return "\n".join(
            (self.place.run / name).read_text(errors="replace") for name in files if (self.place.run / name).is_file()
        )


@contextlib.contextmanager
def running(kind: Kind, run: Path, *, say: Callable[[str], None] = print) -> Iterator[MailServer]:
    """Run a server in a new folder until the block ends."""
    _require()
    try:
        root = root_of(kind.package, say=say)
    except Unavailable as why:
        raise CannotRun(str(why)) from why
    place = Place(run, *_free_ports(2))
    _furnish(kind, root, place)
    kind.configure(place)
    with (run / "said").open("wb") as said:
        process = subprocess.Popen(
            [
                sys.executable, "-I", "-S", "-c", LAUNCHER, str(os.getpid()),
                *_program("unshare"), "--mount", "--pid", "--fork", "--kill-child", "--",
                "/bin/sh", "-c", _ENTER, "enter", str(root), str(run), *kind.command,
            ],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )  # fmt: skip
    server = MailServer(kind, place, version_in(root, kind.package))
    try:
        _wait_until_it_greets(server, process)
        yield server
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the namespace's first process, and so all of them; ``unshare`` ends when they are gone."""
    first = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    with contextlib.suppress(OSError, ValueError):
        os.kill(int(first.read_text()), signal.SIGKILL)
        process.wait(timeout=5)
        return
    process.kill()  # then --kill-child does it
    process.wait()


def _require() -> None:
    if sys.platform != "linux" or os.geteuid() != 0:
        raise CannotRun("real mail servers run as root on Linux only")
    for name in _NEEDS:
        _program(name)
    probe = subprocess.run(
        [*_program("unshare"), "--mount", "--pid", "--fork", "true"],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    if probe.returncode:
        raise CannotRun(f"no namespaces here (a container without CAP_SYS_ADMIN?): {probe.stderr.strip()}")


def _program(name: str) -> list[str]:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is None:
        raise CannotRun(f"{name} is not installed; Debian, Ubuntu: apt-get install util-linux")
    return [found]


def _furnish(kind: Kind, root: Path, place: Place) -> None:
    for point in MOUNT_POINTS:
        (place.run / point).mkdir()
    for copied in ("etc", "var"):
        shutil.copytree(root / copied, place.run / copied, symlinks=True, dirs_exist_ok=True)
    if not (place.run / "var/run").exists():
        (place.run / "var/run").symlink_to("/run")
    for shared in ("mail", "tmp"):
        (place.run / shared).chmod(0o1777)
    numbers = [("root", 0), ("nobody", 65534)]
    numbers += [(name, number) for number, name in enumerate(kind.users, _FIRST_USER)]
    numbers += [(name, number) for number, name in enumerate(MAILBOXES, _FIRST_MAILBOX)]
    place.write("etc/passwd", "".join(f"{name}:x:{number}:{number}::/:/bin/sh\n" for name, number in numbers))
    place.write("etc/group", "".join(f"{name}:x:{number}:\n" for name, number in numbers))
    place.write("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\nservices: files\nprotocols: files\n")
    place.write("etc/hosts", "127.0.0.1 localhost\n")
    place.write("etc/resolv.conf", "nameserver 127.0.0.1\n")
    place.folder("etc/tls")
    server_tls(place.run / "etc/tls", name=f"mx.{DOMAIN}", rsa_key=True)  # OpenSMTPD 6.8 can do no other
    (place.run / "etc/tls/key.pem").chmod(0o600)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def _wait_until_it_greets(server: MailServer, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _READY_WITHIN_S
    for endpoint in (server.endpoint, server.clear):
        while True:
            try:
                with socket.create_connection((endpoint.host, endpoint.port), timeout=5) as connection:
                    if connection.recv(3) == b"220":
                        connection.sendall(b"QUIT\r\n")
                        break
            except OSError:
                pass
            if process.poll() is not None or time.monotonic() > deadline:
                raise CannotRun(f"{server.kind.name} does not start; it says:\n{server.log()[-3000:]}")
            time.sleep(0.02)
