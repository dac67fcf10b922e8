"""A real Kubernetes control plane on loopback: etcd, kube-apiserver, controller-manager, scheduler, and our kubelet.

Everything lies in one folder, listens on free ports of 127.0.0.1, and ends with the process that started it, also when
that is killed.  Nothing needs root or containers.
"""

import contextlib
import csv
import http.client
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from cli.kafka import free_ports
from tests.control_plane import build, kubeconfig, pki
from tests.control_plane.program import Program

READY_WITHIN_S = 120.0
SERVICES = "10.96.0.0/16"
_API_SERVICE = "10.96.0.1"  # the Service "kubernetes" has the first address of the range


@dataclass(frozen=True, slots=True)
class User:
    """Somebody whom the API server knows by a token."""

    name: str
    groups: tuple[str, ...] = ()


USERS: Mapping[str, User] = {
    "admin": User("admin", ("system:masters",)),
    "controller": User("mailcordon-controller", ("mailcordon-controllers",)),
    "viewer": User("viewer"),
    "kubelet": User("system:node:plane", ("system:masters",)),  # plays all nodes, and so needs more than one may
    "controller-manager": User("system:kube-controller-manager"),
    "scheduler": User("system:kube-scheduler"),
}
"""By the name of their kubeconfig.  Whoever is in no group of Kubernetes has no rights until a test binds some."""


class ControlPlane:
    """One control plane in one folder; state and ports survive stop and start, ``wipe`` ends with nothing left.

    ``nodes`` are played by the process kubelet (0: pods stay pending); ``images`` says what an image runs on this
    machine, beside what :mod:`tests.control_plane.images` knows; ``api_flags`` and ``manager_flags`` are more flags of
    kube-apiserver and of the controller-manager.  Every method blocks: call it in a thread from a coroutine.
    """

    def __init__(
        self,
        folder: Path,
        *,
        nodes: int = 2,
        images: Mapping[str, Sequence[str]] | None = None,
        users: Mapping[str, User] | None = None,
        api_flags: Sequence[str] = (),
        manager_flags: Sequence[str] = (),
        cache: Path | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        self.folder = folder.absolute()
        self.users = {**USERS, **(users or {})}
        self._nodes, self._images = nodes, images or {}
        self._api_flags, self._manager_flags = api_flags, manager_flags
        self._cache, self._say = cache, say
        self._programs: dict[str, Program] = {}
        self._ports: list[int] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wipe()

    @property
    def server(self) -> str:
        """Where the API is."""
        return f"https://127.0.0.1:{self._ports[0]}"

    @property
    def kubectl(self) -> Path:
        """The kubectl of this version."""
        return self._binary.parent / "kubectl"

    @property
    def pods_folder(self) -> Path:
        """Where the kubelet keeps what pods say: ``logs/NAMESPACE_POD_CONTAINER.log``."""
        return self.folder / "kubelet"

    def kubeconfig(self, user: str = "admin") -> Path:
        """The kubeconfig of one of the users."""
        return self.folder / f"{user}.kubeconfig"

    def account_kubeconfig(self, namespace: str, account: str, *, for_s: int = 3600) -> Path:
        """A kubeconfig for a ServiceAccount that exists, by a token that the API server gives out for it."""
        token = self.run_kubectl("create", "token", account, f"--namespace={namespace}", f"--duration={for_s}s")
        path = self.folder / f"{namespace}.{account}.kubeconfig"
        return kubeconfig.write(path, server=self.server, ca=self._keys.ca, token=token.strip(), namespace=namespace)

    def run_kubectl(self, *arguments: str, user: str = "admin", stdin: str = "") -> str:
        """What kubectl prints; raises with what it complains about."""
        command = [str(self.kubectl), f"--kubeconfig={self.kubeconfig(user)}", *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode:
            raise AssertionError(f"kubectl {' '.join(arguments)} ended with {done.returncode}: {done.stderr}")
        return done.stdout

    def start(self) -> None:
        """Start everything and return when the API answers, controllers run and nodes are ready."""
        self._binary = build.binary(cache=self._cache, say=self._say)
        (self.folder / "logs").mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._ports:
            self._furnish()
        try:
            self._start_all()
        except BaseException:
            self.kill()
            raise

    def _start_all(self) -> None:
        self._programs["etcd"].start()
        self._wait("etcd", "/health", self._ports[3], tls=False)
        self.start_api()
        self._start_controllers()
        self.start_kubelet()

    def _start_controllers(self) -> None:
        parts = {"controller-manager": self._ports[1], "scheduler": self._ports[2]}
        for name in parts:
            self._programs[name].start()
        with ThreadPoolExecutor() as threads:
            for waited in [threads.submit(self._wait, name, "/healthz", port) for name, port in parts.items()]:
                waited.result()

    def stop(self) -> None:
        """End everything in order; etcd goes last, because an API server without it hangs in its own end."""
        for name in ("kubelet", "scheduler", "controller-manager", "apiserver", "etcd"):
            if name in self._programs:
                self._programs[name].stop()

    def kill(self) -> None:
        """End everything at once."""
        for program in self._programs.values():
            program.send(signal.SIGKILL)
        for program in self._programs.values():
            program.stop(signal.SIGKILL)

    def wipe(self) -> None:
        """End everything at once and remove the folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
        self._ports = []

    def start_api(self) -> None:
        """Start kube-apiserver and return when it is ready; what was stored before is there."""
        self._programs["apiserver"].start()
        self._wait("apiserver", "/readyz", self._ports[0])

    def stop_api(self) -> None:
        """End kube-apiserver as a crash does: connections break, new ones are refused."""
        self._programs["apiserver"].stop(signal.SIGKILL)

    def wake_controllers(self) -> None:
        """Start controller-manager and scheduler anew: after an outage they would take up to a minute to come back."""
        for name in ("controller-manager", "scheduler"):
            self._programs[name].stop(signal.SIGKILL)
        self._start_controllers()

    def freeze_api(self) -> None:
        """Let kube-apiserver hang: connections stay, nothing is answered."""
        self._programs["apiserver"].send(signal.SIGSTOP)

    def thaw_api(self) -> None:
        """Let a frozen kube-apiserver go on."""
        self._programs["apiserver"].send(signal.SIGCONT)

    def start_kubelet(self) -> None:
        """Start the nodes and return when they are ready."""
        if not self._nodes:
            return
        kubelet = self._programs["kubelet"]
        self._ready_mark.unlink(missing_ok=True)
        kubelet.start()
        kubelet.wait_until(self._ready_mark.exists, within_s=READY_WITHIN_S)

    def stop_kubelet(self) -> None:
        """End the nodes, and with them every process of their pods, as a power cut does."""
        self._programs["kubelet"].stop(signal.SIGKILL)

    def pids(self) -> dict[str, int]:
        """What runs, by component."""
        return {name: program.pid for name, program in self._programs.items() if program.pid is not None}

    def log(self, component: str) -> Path:
        """What a component has said."""
        return self.folder / "logs" / f"{component}.log"

    @property
    def _ready_mark(self) -> Path:
        return self.pods_folder / "ready"

    def _furnish(self) -> None:
        """Keys, users and command lines; done once, so that whatever is stopped starts again as it was."""
        self._ports = free_ports(5)
        self._keys = pki.made(self.folder / "pki", addresses=("127.0.0.1", _API_SERVICE))
        with (self.folder / "tokens.csv").open("w") as tokens:  # token, user, uid, groups
            rows = csv.writer(tokens)
            for name, user in self.users.items():
                rows.writerow([f"{name}-token", user.name, f"uid-{name}", ",".join(user.groups)])
        for name in self.users:
            kubeconfig.write(self.kubeconfig(name), server=self.server, ca=self._keys.ca, token=f"{name}-token")
        commands = {
            "etcd": self._etcd(),
            "apiserver": self._apiserver(),
            "controller-manager": self._controller_manager(),
            "scheduler": self._scheduler(),
            "kubelet": self._kubelet(),
        }
        self._programs = {name: Program(name, command, self.log(name)) for name, command in commands.items()}

    def _etcd(self) -> list[str]:
        clients, peers = (f"http://127.0.0.1:{port}" for port in self._ports[3:5])
        data = self.folder / "etcd"
        return [str(self._binary), "etcd", f"--data-dir={data}", f"--client-url={clients}", f"--peer-url={peers}"]

    def _apiserver(self) -> list[str]:
        return [
            str(self._binary),
            "apiserver",
            f"--etcd-servers=http://127.0.0.1:{self._ports[3]}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self._ports[0]}",
            f"--tls-cert-file={self._keys.certificate}",
            f"--tls-private-key-file={self._keys.key}",
            f"--cert-dir={self.folder / 'pki'}",
            f"--client-ca-file={self._keys.ca}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self._keys.accounts_public}",
            f"--service-account-signing-key-file={self._keys.accounts_key}",
            "--authorization-mode=RBAC",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            f"--service-cluster-ip-range={SERVICES}",
            "--endpoint-reconciler-type=none",  # a loopback address may be no endpoint of the Service "kubernetes"
            *self._api_flags,
        ]

    def _controller_manager(self) -> list[str]:
        return [
            *self._client("controller-manager", self._ports[1]),
            f"--service-account-private-key-file={self._keys.accounts_key}",
            f"--root-ca-file={self._keys.ca}",
            "--use-service-account-credentials=true",
            "--controllers=*,-node-ipam-controller",
            "--horizontal-pod-autoscaler-sync-period=3s",
            "--node-monitor-grace-period=10m",  # an outage of the API is no death of the nodes
            "--kube-api-qps=300",  # with the default of 20 requests a second the first pods wait for seconds
            "--kube-api-burst=500",
            "--concurrent-deployment-syncs=20",
            "--concurrent-replicaset-syncs=20",
            *self._manager_flags,
        ]

    def _scheduler(self) -> list[str]:
        return [*self._client("scheduler", self._ports[2]), "--kube-api-qps=300", "--kube-api-burst=500"]

    def _client(self, name: str, port: int) -> list[str]:
        """What a component needs that speaks with the API as one of the users."""
        return [
            str(self._binary),
            name,
            "--bind-address=127.0.0.1",
            f"--secure-port={port}",
            f"--cert-dir={self.folder / 'pki' / name}",
            "--leader-elect=false",
            *(f"--{use}={self.kubeconfig(name)}" for use in _KUBECONFIGS),
            "--authentication-skip-lookup=true",
        ]

    def _kubelet(self) -> list[str]:
        images = [f"--image={name}={shlex.join(command)}" for name, command in self._images.items()]
        root = Path(__file__).resolve().parents[2]
        return [
            sys.executable,
            "-c",
            f"import sys; sys.path.insert(0, {str(root)!r}); from tests.control_plane.kubelet import main; main()",
            f"--kubeconfig={self.kubeconfig('kubelet')}",
            f"--folder={self.pods_folder}",
            f"--nodes={self._nodes}",
            *images,
        ]

    def _wait(self, name: str, path: str, port: int, *, tls: bool = True) -> None:
        self._programs[name].wait_until(lambda: _answers(port, path, tls=tls), within_s=READY_WITHIN_S)


_KUBECONFIGS = ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")


def _answers(port: int, path: str, *, tls: bool) -> bool:
    """Does a component say that it is well?  Its certificate may be one that it has made for itself."""
    connection = (
        http.client.HTTPSConnection("127.0.0.1", port, timeout=2.0, context=ssl._create_unverified_context())  # noqa: S323
        if tls
        else http.client.HTTPConnection("127.0.0.1", port, timeout=2.0)
    )
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", path)
        return connection.getresponse().status == 200
    return False
