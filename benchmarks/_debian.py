"""Programs of Debian packages without installing them: fetched by apt, unpacked into the cache, used from there.

Mail servers conflict with each other as installed packages, and no machine should change because a test ran on it.
So apt is asked what a package needs on an empty machine, everything is unpacked into a root of its own (no
maintainer script is run, so what only those need is left out), and programs run from there with their own libraries:
the machine's packages do not matter, and neither does its release.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from cli.kafka import default_cache

MAIL_SERVERS = ("postfix", "exim4-daemon-light", "opensmtpd")
MOUNT_POINTS = ("dev", "etc", "mail", "proc", "run", "tmp", "var")
_CONTENTS = "packages"
_LAYOUT = 2  # raised when what is done to a root after unpacking changes
_SHELL = ("dash", "coreutils", "sed", "grep", "findutils")  # what the servers' own start scripts are written in
_NEEDS = ("apt-get", "dpkg-deb", "tar", "ldconfig")
_FETCH_WITHIN_S = 300.0
_UNPACK_WITHIN_S = 120.0
_INSTALLS = re.compile(r"^Inst (\S+) \((\S+) ", re.MULTILINE)
_ONLY_TO_INSTALL = re.compile(
    r"(lib)?perl|lib(number|text|file)-.*-perl$|usrmerge$|dpkg$|tar$|debconf$|adduser$|passwd$|lib(semanage|sepol)|libaudit-common$"
    r"|init-system-helpers$|sysvinit-utils$|lsb-base$|e2fsprogs$|logsave$|libext2fs|libss2$|libblkid|libuuid"
    r"|cron|sensible-utils$|libpam-(modules|runtime)|openssl$|ssl-cert$|cpio$|debianutils$|gcc-\d+-base$"
)


class Unavailable(Exception):  # noqa: N818 - says what is so
    """The packages cannot be had here; the message says what is missing and what brings it."""


def silent(_line: str) -> None:
    """Say nothing."""


def root_of(package: str, *, cache: Path | None = None, say: Callable[[str], None] = silent) -> Path:
    """A folder in which a package and all that it needs to run are unpacked; fetched on first use."""
    missing = [need for need in _NEEDS if _program(need) is None]
    if missing:
        raise Unavailable(f"{package}: a Debian or Ubuntu machine is needed (not here: {', '.join(missing)})")
    roots = (cache or default_cache()) / "debian"
    wanted = _remembered_closure(package, roots)
    name = hashlib.sha256("\n".join([str(_LAYOUT), *wanted]).encode()).hexdigest()[:12]
    root = roots / f"{package}-{name}"
    if not root.is_dir():
        with _only_one(roots / "fetching.lock"):
            if not root.is_dir():  # else another process has fetched it while we waited
                say(f"fetching {package} and {len(wanted) - 1} packages that it needs (once) into {root}")
                _fetch(wanted, root)
    return root


def version_in(root: Path, package: str) -> str:
    """What is unpacked there, as ``package=version``."""
    return next(one for one in (root / _CONTENTS).read_text().split() if one.startswith(f"{package}="))


def command_of(root: Path, program: str) -> Path:
    """A command that runs a program of the root with the root's libraries, wherever it is called from."""
    command = root / "commands" / Path(program).name
    if not command.is_file():
        loader = next(root.glob("lib*/ld-linux*.so.*"), None)
        if loader is None:
            raise Unavailable(f"no loader for {program} in {root}")
        libraries = ":".join(str(folder) for folder in _library_folders(root))
        words = [str(loader), "--library-path", libraries, str(root / program.lstrip("/"))]
        command.parent.mkdir(exist_ok=True)
        made = command.with_suffix(f".{os.getpid()}")
        made.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        made.chmod(0o755)
        made.rename(command)
    return command


def _library_folders(root: Path) -> list[Path]:
    return sorted({path.parent for depth in ("*", "*/*") for path in root.glob(f"usr/lib/{depth}.so*")}, key=str)


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


def _remembered_closure(package: str, roots: Path) -> list[str]:
    """The closure, asked again when apt's lists are newer; apt takes seconds to answer."""
    answer, lists = roots / f"{package}.wanted", Path("/var/lib/apt/lists")
    with contextlib.suppress(OSError):
        if answer.stat().st_mtime > lists.stat().st_mtime:
            return answer.read_text().split()
    wanted = _closure(package)
    roots.mkdir(parents=True, exist_ok=True)
    made = answer.with_suffix(f".{os.getpid()}")
    made.write_text("\n".join(wanted))
    made.rename(answer)
    return wanted


def _closure(package: str) -> list[str]:
    """What apt would install on an empty machine, as ``name=version``, without what only the installing needs."""
    with tempfile.NamedTemporaryFile(prefix="mailcordon-dpkg-") as empty:
        nothing_installed = ("-o", f"Dir::State::status={empty.name}", "-o", "Debug::NoLocking=1")
        words = ["apt-get", "-s", *nothing_installed, "--no-install-recommends", "install", package, *_SHELL]
        done = _run(words, within_s=60.0)
    if done.returncode:
        raise Unavailable(f"apt knows no way to {package}; try: apt-get update\n{done.stdout[-600:]}")
    found = _INSTALLS.findall(done.stdout)
    return sorted(f"{name}={version}" for name, version in found if not _ONLY_TO_INSTALL.match(name))


def _fetch(wanted: Sequence[str], root: Path) -> None:
    with tempfile.TemporaryDirectory(dir=root.parent, prefix="fetching-") as folder:
        debs, made = Path(folder, "debs"), Path(folder, "root")
        debs.mkdir()
        as_we_are = ("-o", "APT::Sandbox::User=root")  # the folder is ours, apt's own user cannot write to it
        done = _run(["apt-get", *as_we_are, "download", "-q", *wanted], within_s=_FETCH_WITHIN_S, at=debs)
        if done.returncode:
            raise Unavailable(f"apt could not fetch the packages:\n{done.stdout[-600:]}")
        for merged in ("bin", "sbin", "lib", "lib64"):  # as every Debian since 12 has it
            (made / "usr" / merged).mkdir(parents=True)
            (made / merged).symlink_to(f"usr/{merged}")
        for deb in sorted(debs.iterdir()):
            unpack = f"dpkg-deb --fsys-tarfile {shlex.quote(str(deb))} | tar -x --keep-directory-symlink"
            done = _run(["sh", "-c", unpack], within_s=_UNPACK_WITHIN_S, at=made)
            if done.returncode:
                raise Unavailable(f"{deb.name} could not be unpacked:\n{done.stdout[-600:]}")
        for point in MOUNT_POINTS:
            (made / point).mkdir(exist_ok=True)
        for big in ("doc", "man", "locale", "info"):
            shutil.rmtree(made / "usr/share" / big, ignore_errors=True)
        (made / "etc/ld.so.conf").write_text("include /etc/ld.so.conf.d/*.conf\n")
        ldconfig = _program("ldconfig")
        assert ldconfig is not None, "asked for at the beginning"
        _run([ldconfig, "-r", str(made)], within_s=60.0)
        (made / _CONTENTS).write_text("\n".join(wanted))
        made.rename(root)


def _run(words: Sequence[str], *, within_s: float, at: Path | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            words,
            cwd=at,
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=within_s,
            check=False,
        )
    except subprocess.TimeoutExpired as slow:
        raise Unavailable(f"{words[0]} did not end within {within_s:.0f} s") from slow


@contextlib.contextmanager
def _only_one(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    try:
        for one in sys.argv[1:] or MAIL_SERVERS:
            print(root_of(one, say=print))
    except Unavailable as why:
        sys.exit(str(why))
