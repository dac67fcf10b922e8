"""A network that really filters: a pod's network namespace, and behind it one with a host, a name server and rules.

Nothing of it is anybody's: the addresses are those for documentation, both namespaces are the test's own and end with
it.  Rules stand where a network plugin's do: on the way (a drop, or a refusal by ICMP) or at the pod itself.
"""

import asyncio
import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.doubles.name_server import NameServer

ROOT = Path(__file__).parents[2]
HOST, NAME_SERVER = "192.0.2.25", "192.0.2.53"
NAME, NAME_WITH_IPV6 = "mx.shop.example", "mx6.shop.example"
SMTP, REPLIES, CLOSED = 25, 80, 81
"""Ports of the host: two where somebody listens, one where nobody does."""

How = Literal["blackhole", "unreachable", "prohibit"]
"""What a rule does: drop in silence, say that there is no way, say that it is forbidden."""

_NEEDS = ("unshare", "nsenter", "mount", "ip")
_TRIED = """
import asyncio, sys
from k8s.egress_probe import tried
from policy.settings import endpoint
raise SystemExit(int(asyncio.run(tried(endpoint(sys.argv[1]), timeout_s=1.5))))
"""


class CannotFilter(Exception):  # noqa: N818 - says what is so
    """There is no such network to be had here; the message says what is missing."""


@dataclass(slots=True)
class Network:
    """Two namespaces by the processes that hold them."""

    pod: int
    net: int

    def rule(self, how: How, *selected: str) -> None:
        """From now on the network does so with what is selected, ``ipproto tcp dport 25`` or everything."""
        self._ip(self.net, "rule", "add", "pref", "5", *selected, how)

    def rule_at_the_pod(self, how: How) -> None:
        """From now on the pod's own node does so with what goes to the host."""
        self._ip(self.pod, "route", "add", how, HOST)

    def tried(self, target: str) -> int:
        """The exit code of a probe in the pod."""
        return self.run(sys.executable, "-c", _TRIED, target).returncode

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a program in the pod's network."""
        return _run("nsenter", f"--target={self.pod}", "--net", "--mount", *command)

    def _ip(self, where: int, *words: str) -> None:
        done = _run("nsenter", f"--target={where}", "--net", "ip", *words)
        if done.returncode:
            raise CannotFilter(f"ip {' '.join(words)}: {done.stderr.strip()}")

    def furnish(self, resolv: Path) -> None:
        """Join the two, and let the host and the name server serve."""
        self._ip(self.net, "link", "add", "net0", "type", "veth", "peer", "name", "pod0")
        self._ip(self.net, "link", "set", "pod0", "netns", str(self.pod))
        for where, device, address in ((self.net, "net0", "198.51.100.1"), (self.pod, "pod0", "198.51.100.2")):
            self._ip(where, "link", "set", "lo", "up")
            self._ip(where, "address", "add", f"{address}/24", "dev", device)
            self._ip(where, "link", "set", device, "up")
        self._ip(self.pod, "route", "add", "default", "via", "198.51.100.1")
        for address in (HOST, NAME_SERVER):
            self._ip(self.net, "address", "add", f"{address}/32", "dev", "lo")
        self._ip(self.net, "rule", "add", "pref", "10", "lookup", "local")
        self._ip(self.net, "rule", "delete", "pref", "0")  # rules come before the host now
        forward = "echo 1 >/proc/sys/net/ipv4/ip_forward"  # or the kernel tells nobody why it takes nothing
        for command in (
            ("nsenter", f"--target={self.net}", "--net", "sh", "-c", forward),
            ("nsenter", f"--target={self.pod}", "--mount", "mount", "--bind", str(resolv), "/etc/resolv.conf"),
        ):
            if (done := _run(*command)).returncode:
                raise CannotFilter(done.stderr.strip())


@contextlib.contextmanager
def network(folder: Path) -> Iterator[Network]:
    """A network without rules, for as long as the block lasts."""
    resolv = folder / "resolv.conf"
    resolv.write_text(f"nameserver {NAME_SERVER}\noptions timeout:1 attempts:1\n")
    with contextlib.ExitStack() as held:
        one = Network(held.enter_context(_namespaces()), held.enter_context(_namespaces()))
        one.furnish(resolv)
        served = [sys.executable, "-m", "tests.k8s.filtering"]
        held.enter_context(_held("nsenter", f"--target={one.net}", "--net", *served))
        yield one


@contextlib.contextmanager
def _namespaces() -> Iterator[int]:
    with _held("unshare", "--net", "--mount", "sh", "-c", "echo here; exec cat") as pid:
        yield pid


@contextlib.contextmanager
def _held(*command: str) -> Iterator[int]:
    """A process that says `here` when it is ready and ends with us: its input does."""
    process = subprocess.Popen(
        _whole(*command), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline() != "here\n":
            raise CannotFilter(f"{command[0]}: {process.communicate(timeout=10)[1].strip()[-300:]}")
        yield process.pid
    finally:
        with process:
            process.kill()


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        _whole(*command),
        cwd=ROOT,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def _whole(program: str, *arguments: str) -> list[str]:
    for name in _NEEDS:
        if shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin") is None:
            raise CannotFilter(f"{name} is not installed; Debian, Ubuntu: apt-get install util-linux iproute2")
    return [program, *arguments]


async def _serve() -> None:
    """The host and the name server, until the input ends."""
    loop = asyncio.get_running_loop()
    both = {(f"{NAME_WITH_IPV6}.", "A"): [HOST], (f"{NAME_WITH_IPV6}.", "AAAA"): ["2001:db8::25"]}
    names = NameServer({(f"{NAME}.", "A"): [HOST]} | both)
    await loop.create_datagram_endpoint(lambda: names, (NAME_SERVER, 53))
    for port in (SMTP, REPLIES):
        await asyncio.start_server(lambda _reader, writer: writer.close(), HOST, port)
    print("here", flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve())
