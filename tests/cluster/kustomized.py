"""The kustomizations of the base and the overlays, put into a namespace of a test's own."""

import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.conftest import Given
from tests.control_plane.plane import ControlPlane

MANIFESTS = Path(__file__).parents[2] / "k8s" / "manifests"
Body = dict[str, Any]  # Any: JSON of the Kubernetes API


@dataclass
class Cluster:
    """kubectl as an administrator, and one namespace."""

    plane: ControlPlane | Given
    namespace: str

    def __call__(self, *arguments: str, stdin: str = "") -> str:
        """Run kubectl in the namespace."""
        return self.plane.run_kubectl(f"--namespace={self.namespace}", *arguments, stdin=stdin)

    def refusal(self, *arguments: str, stdin: str = "") -> str:
        """Run kubectl and answer what it complains about; empty when it does not."""
        try:
            self(*arguments, stdin=stdin)
        except AssertionError as refused:
            return str(refused)
        return ""

    def until(self, told: Callable[[], bool], *, within_s: float = 30.0, what: Callable[[], str]) -> None:
        """Wait for a condition; say what was missing."""
        deadline = time.monotonic() + within_s
        while not told():
            assert time.monotonic() < deadline, f"not within {within_s} s: {what()}"
            time.sleep(0.2)

    def apply(self, text: str, *more: str) -> str:
        """Server-side apply; an unknown field is an error."""
        return self("apply", "--server-side", "--force-conflicts", "--validate=strict", *more, "-f", "-", stdin=text)

    def rendered(self, overlay: str, folder: Path, **more: Any) -> str:
        """What kustomize makes of an overlay in this namespace; ``more`` are fields of the kustomization around it."""
        shutil.copytree(MANIFESTS, folder, dirs_exist_ok=True)
        around = folder / "around"
        around.mkdir(exist_ok=True)
        told = {"namespace": self.namespace, "resources": [f"../{overlay}"], **more}
        (around / "kustomization.yaml").write_text(yaml.safe_dump(told), encoding="utf-8")
        return self("kustomize", str(around))


@contextmanager
def namespaced(plane: ControlPlane | Given) -> Iterator[Cluster]:
    """A namespace for as long as the context lasts; nobody waits for its end."""
    cluster = Cluster(plane, f"mailcordon-{secrets.token_hex(4)}")
    cluster("create", "namespace", cluster.namespace)
    try:
        yield cluster
    finally:
        cluster("delete", "namespace", cluster.namespace, "--wait=false")


def documents(text: str) -> list[Body]:
    """The objects of a rendered kustomization."""
    return [one for one in yaml.safe_load_all(text) if one]
